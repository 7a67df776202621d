"""generate, against the running collector."""

import re
from pathlib import Path

import pytest
from support.processes.program import Program, run


@pytest.mark.parametrize("signal", ["logs", "metrics", "traces"])
def test_what_is_acknowledged_is_found(program: Program, signal: str) -> None:
    """Rate times duration items are sent, each is stored once, and it says so."""
    options = ["--signal", signal, "--rate", "500", "--duration", "2", "--shape", "50x3"]
    done = run("generate", *options, "--endpoint", program.otlp_http, "--data-dir", program.data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"acknowledged 1,000 {signal}, rejected 0, in doubt 0; requests refused: none" in done.stdout
    assert "stored 1,000, of which 0 more than once" in done.stdout


def test_what_is_refused_is_not_expected_in_the_store(program: Program, tmp_path: Path) -> None:
    """A request with a wrong key is counted by its status, and nothing of it is stored."""
    (tmp_path / "key").write_text("isage_wrong")
    options = ["--rate", "100", "--duration", "0.5", "--shape", "10x0", "--key-file", str(tmp_path / "key")]
    done = run("generate", *options, "--endpoint", program.otlp_http, "--data-dir", program.data_dir)
    assert re.search(r"acknowledged 0 logs, .* requests refused: 5 with 401", done.stdout), done.stdout + done.stderr
    assert "stored 0" in done.stdout


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--shape", "many"], 2, "--shape: many must be ITEMSxATTRIBUTES"),
        (["--endpoint", "localhost:4318"], 2, "--endpoint: localhost:4318 must be http://HOST:PORT"),
        (["--endpoint", "http://127.0.0.1:1", "--duration", "0.1"], 1, "cannot send to http://127.0.0.1:1: "),
    ],
)
def test_a_mistake_is_named(options: list[str], status: int, said: str) -> None:
    """In one line, before anything is sent."""
    done = run("generate", *options)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
