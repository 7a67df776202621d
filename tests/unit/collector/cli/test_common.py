"""What every command prints: to a pipe, to a terminal, and where it can't be written."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.processes.program import environment
from support.processes.terminal import in_terminal

HOSTILE = "a\x1b[2J\x1b]0;title\x07\x9b1m\rb\u202ec\u2066d\te\n"
PRINT = "import sys; from collector.cli.common import announce, print_notice, print_text; {}; print_notice('and goes on')"


def printing(statement: str) -> list[str | Path]:
    return [sys.executable, "-c", PRINT.format(statement)]


def test_a_terminal_gets_no_control_characters() -> None:
    """A sender can write whatever it likes: it does not clear an operator's screen, or write a command into it."""
    with in_terminal(printing(f"print_text({HOSTILE!r}, ends_line=False)")) as terminal:
        assert 0 == terminal.end()
        assert terminal.everything.replace("\r\n", "\n") == "a�[2J�]0;title��1m�b�c�d\te\nand goes on\n"


def test_a_pipe_gets_every_byte() -> None:
    done = subprocess.run(
        printing(f"print_text({HOSTILE!r}, ends_line=False)"), capture_output=True, env=environment(), check=True
    )
    assert HOSTILE.encode() == done.stdout


@pytest.mark.parametrize(("encoding", "expected"), [("latin-1", b"\xe4?\n"), ("ascii", b"??\n"), ("utf-8", "ä…\n".encode())])
def test_what_an_encoding_lacks_is_a_question_mark(encoding: str, expected: bytes) -> None:
    done = subprocess.run(
        printing("print_text('\\xe4\\u2026')"),
        capture_output=True,
        env={**environment(), "PYTHONIOENCODING": encoding},
        check=True,
    )
    assert expected == done.stdout


@pytest.mark.parametrize("command", [["config", "show"], ["config", "check"], ["--version"]])
def test_an_answer_that_can_not_be_written_is_one_plain_line(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "collector", *command],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (1, "error: cannot write to standard output: No space left on device\n") == (done.returncode, done.stderr)


def test_an_announcement_that_can_not_be_written_stops_nothing() -> None:
    """It is reported once, as what comes later goes nowhere."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            printing("announce('ready'); announce('reached')"),
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        0,
        "error: cannot write to standard output: No space left on device\nand goes on\n",
    )


def test_a_full_standard_error_stops_no_command() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            printing("print_notice('what nobody reads'); print_text('the answer')"),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
        )
    assert "the answer\n" == done.stdout


def test_a_command_without_standard_output_goes_on() -> None:
    """`infrasage-collector … >&-` starts it so."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *printing("print_text('nobody')")],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (0, "and goes on\n") == (done.returncode, done.stderr)
