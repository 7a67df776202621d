"""What `schema adopt` refuses."""

import pytest
from typer.testing import CliRunner

from collector.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--from", "old"], 2, "--tenant"),
        (["--tenant", "acme"], 2, "--from"),
        (["--from", "old", "--tenant", "a\nb"], 2, '--tenant: "a\\nb"'),
        (["--from", "old", "--tenant", "acme"], 1, "error: no ClickHouse server is given"),
        (["--from", "old", "--tenant", "acme", "--clickhouse", "http://127.0.0.1:1"], 1, "http://127.0.0.1:1, user default"),
    ],
)
def test_what_is_asked_for_wrongly(arguments: list[str], status: int, said: str) -> None:
    """Is one message, before anything is changed."""
    done = CliRunner().invoke(app, ["schema", "adopt", *arguments])
    assert (status, "") == (done.exit_code, done.stdout)
    assert said in done.stderr
