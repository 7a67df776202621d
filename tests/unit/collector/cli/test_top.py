"""What is given wrongly to top, and to the other commands that take an address and a key."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from collector.cli.main import app


@pytest.mark.parametrize("command", ["top", "tail", "generate"])
@pytest.mark.parametrize(
    "endpoint",
    [
        "localhost:8080",
        "http://",
        "http://localhost:99999",
        "http://localhost:0",
        "http://localhost:a",
        "http://user@localhost:1",
    ],
)
def test_an_address_that_is_none_is_one_line(command: str, endpoint: str) -> None:
    """The status is 2, on every command that takes an address."""
    done = CliRunner().invoke(app, [command, "--endpoint", endpoint])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: --endpoint: {endpoint} must be http://HOST:PORT or https://HOST:PORT")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["top", "tail", "generate"])
@pytest.mark.parametrize("content", [None, b"", b"\n", b"two\nlines", b"isage_\xff", "isage_é".encode(), b"a\x1b[2J"])
def test_a_file_without_a_key_is_one_line(command: str, content: bytes | None, tmp_path: Path) -> None:
    """Nothing of it is sent, or printed."""
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    done = CliRunner().invoke(app, [command, "--endpoint", "http://127.0.0.1:1", "--key-file", str(file)])
    assert (done.exit_code, done.stdout) == (2, "")
    said = f"cannot read {file}: No such file or directory" if content is None else f"{file} must have one API key"
    assert done.stderr.startswith(f"error: --key-file: {said}")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--interval", "0.5"], 2, "error: --interval must be at least 1, not '0.5'"),
        (["--endpoint", "http://127.0.0.1:1"], 1, "error: cannot read http://127.0.0.1:1/healthz: Connection refused;"),
        (["--endpoint", "https://no-such-host.invalid/a"], 1, "error: cannot read https://no-such-host.invalid/a/healthz: "),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(options: list[str], status: int, said: str) -> None:
    """The status is 1; for wrong usage it is 2."""
    done = CliRunner().invoke(app, ["top", *options])
    assert (done.exit_code, done.stdout) == (status, "")
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
