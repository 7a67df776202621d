"""What is typed wrongly, as its user sees it."""

import pytest
from typer.testing import CliRunner

from collector.cli.main import app


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("serve --http-port abc", '--http-port: http.port = "abc" is not allowed: must be a whole number from 0 to 65535'),
        ("serve --http-port 99999", "--http-port: http.port = 99999 is not allowed: must be a whole number from 0 to 65535"),
        ("serve --grpc-port=-1", '--grpc-port: grpc.port = "-1" is not allowed: must be a whole number from 0 to 65535'),
        ("serve --host a,", '--host: host = "a," is not allowed: must be addresses or names of this machine, with commas'),
        (
            "gateway --kafka a:1 --workers x",
            '--workers: gateway.workers = "x" is not allowed: must be a whole number from 1 to',
        ),
        ("writer --port 1.5", '--port: writer.port = "1.5" is not allowed: must be a whole number from 0 to 65535'),
        (
            "keys create --tenant a --scope owner --plan Pro",
            "--scope must be one of ingest, readonly, write, admin, not 'owner'",
        ),
        ("generate --signal foo", "--signal must be one of logs, metrics, traces, not 'foo'"),
        ("generate --rate x", "--rate must be a number, not 'x'"),
        ("generate --rate 1e99", "--rate must be at most 10000000, not '1e99'"),
        ("keys rotate x --keep-old-s=-3", "--keep-old-s must be at least 0, not '-3'"),
        ("dlq list --limit abc", "--limit must be a whole number, not 'abc'"),
        ("serve --nope", "No such option: --nope (see infrasage-collector serve -h)"),
        ("serve --data-dir", "Option '--data-dir' requires an argument"),
        ("query", "Missing argument 'SQL' (see infrasage-collector query -h)"),
        ("keys nope", "No such command 'nope' (see infrasage-collector keys -h)"),
        ("nope", "No such command 'nope' (see infrasage-collector -h)"),
    ],
)
def test_what_is_typed_wrongly_is_one_plain_line(typed: str, said: str) -> None:
    """The value and what is allowed, in our words and not in a library's; status 2, and nothing on standard output."""
    done = CliRunner().invoke(app, typed.split())
    assert (2, "") == (done.exit_code, done.stdout)
    assert done.stderr.startswith(f"error: {said}")
    assert 1 == done.stderr.count("\n")
    assert "Input should" not in done.stderr
    assert "Value error" not in done.stderr


def test_help_is_still_help() -> None:
    """Asked for, or where a group was called without a command."""
    for typed, status in (("-h", 0), ("serve -h", 0), ("keys", 2)):
        done = CliRunner().invoke(app, typed.split())
        assert status == done.exit_code
        assert "Usage: infrasage-collector" in done.output
