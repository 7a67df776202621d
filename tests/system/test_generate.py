"""generate, against the running collector."""

import re
import sys
from pathlib import Path

import pytest
from support.processes.program import Program, metric, run
from support.processes.terminal import in_terminal
from support.waiting import until

ACCEPTED = ("infrasage_ingestion_events_total", 'status="accepted"')


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
        (["--endpoint", "http://127.0.0.1:1", "--duration", "3600"], 1, "cannot send to http://127.0.0.1:1: "),
        (["--data-dir", "elsewhere", "--duration", "3600"], 1, "elsewhere"),
    ],
)
def test_a_mistake_is_named(program: Program, options: list[str], status: int, said: str) -> None:
    """The error is one line, before anything is sent."""
    done = run("generate", "--endpoint", program.otlp_http, "--data-dir", program.data_dir, *options)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_ends_the_sending(program: Program) -> None:
    """What was sent until then is looked for, and reported; the waits between requests do not delay it."""
    command: list[str | Path] = [sys.executable, "-m", "collector", "generate", "--endpoint", program.otlp_http]
    options: list[str | Path] = ["--data-dir", program.data_dir, "--rate", "100", "--duration", "3600"]
    before = metric(program.http, *ACCEPTED)
    with in_terminal([*command, *options], columns=200) as terminal:
        until(lambda: metric(program.http, *ACCEPTED) > before)
        terminal.press(b"\x03")
        assert terminal.end() == 0
    found = re.search(
        r"acknowledged ([\d,]+) logs, rejected 0, in doubt 0; .*\s+stored ([\d,]+), of which 0", terminal.everything
    )
    assert found is not None, terminal.everything
    assert found[1] == found[2] != "0"
