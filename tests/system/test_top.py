"""top, against a running collector: in a pseudo-terminal, and piped."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.processes.program import COMMAND_TIMEOUT_S, MakeProgram, Program, environment, run
from support.processes.terminal import ENTERED, LEFT, Terminal, in_terminal
from support.senders import Senders
from support.waiting import until

COMMAND: list[str | Path] = [sys.executable, "-m", "collector", "top"]
# Ways to end it, and the status that it ends with.
ENDINGS: dict[str, tuple[bytes | signal.Signals, int]] = {
    "ctrl-c": (b"\x03", 0),
    "q": (b"q", 0),
    "sigterm": (signal.SIGTERM, -signal.SIGTERM),
}


def new_key(program: Program, place: Path, scope: str) -> Path:
    """A file with a key that the collector knows."""
    keys = program.data_dir / "keys.json"
    done = run("keys", "create", "--tenant", "ops", "--scope", scope, "--plan", "Unlimited", "--keys-file", keys)
    key = done.stdout.split()[-1]
    file = place / "key"
    file.write_text(f"{key}\n")
    until(lambda: httpx.get(f"{program.http}/api/v1/debug/dlq-stats", headers={"X-API-Key": key}).status_code != 401)
    return file


@contextmanager
def top(
    program_or_endpoint: Program | str, *options: str | Path, columns: int = 80, lines: int = 24, **variables: str
) -> Iterator[Terminal]:
    endpoint = program_or_endpoint if isinstance(program_or_endpoint, str) else program_or_endpoint.http
    with in_terminal([*COMMAND, "--endpoint", endpoint, "--interval", "1", *options], columns, lines, **variables) as terminal:
        yield terminal


def end(terminal: Terminal, how: bytes | signal.Signals) -> int:
    if isinstance(how, signal.Signals):
        os.kill(terminal.pid, how)
    else:
        terminal.press(how)
    return terminal.end()


def test_a_load_is_shown_piped(program: Program, tmp_path: Path) -> None:
    """It is shown once, as plain text, with rates by signal and tenant: what is sent meanwhile is what is shown."""
    key = new_key(program, tmp_path, "admin")
    with Senders(program.http_port, threads=2):
        done = run("top", "--endpoint", program.http, "--key-file", key, "--interval", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    for row in (r"logs", r"anonymous"):
        found = re.search(rf"^{row} +([\d,.]+) ", done.stdout, re.MULTILINE)
        assert found is not None, done.stdout
        assert float(found[1].replace(",", "")) > 0
    assert re.search(r"^logs +[\d,.]+ +[\d.]+ [KM]?i?B +\d+ +[\d.]+ m?s +", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^open files +[#.]+ +\d+% +\d+/[\d,]+$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize("how", ENDINGS)
def test_the_terminal_is_left_as_it_was(program: Program, how: str) -> None:
    """Screen, cursor, line wrapping and the modes of the terminal are restored, however the program ends."""
    keys, status = ENDINGS[how]
    with top(program) as terminal:
        before = terminal.modes()
        terminal.until(lambda screen: "RECEIVED" in screen)
        assert terminal.modes() != before, "keys are read at once, and not shown"
        assert end(terminal, keys) == status
        assert terminal.modes() == before
        assert terminal.everything.count(ENTERED) == terminal.everything.count(LEFT) == 1
        assert terminal.everything.endswith("\x1b[?7h\x1b[?25h" + LEFT)
        assert "Traceback" not in terminal.everything


def test_it_is_drawn_again_in_place_and_follows_the_size(program: Program) -> None:
    """Each frame is as large as the terminal is then, without waiting for the next look."""
    with top(program, "--interval", "3600") as terminal:
        for columns, lines in ((80, 24), (120, 40), (50, 12)):
            terminal.resize(columns, lines)
            frame = terminal.until(
                lambda screen, size=(columns, lines): (  # type: ignore[misc]
                    (len(rows := screen.split("\n")), {len(row) for row in rows}) == (size[1], {size[0]})
                )
            )
            assert frame.startswith("ok  serve ")
        assert end(terminal, b"q") == 0


def test_it_can_be_suspended(program: Program) -> None:
    """Ctrl-Z gives the terminal back, and what continues takes it again. In this terminal nothing can stop, as its group of
    processes has no parent there, so both follow at once."""
    with top(program) as terminal:
        terminal.until(lambda screen: "RECEIVED" in screen)
        taken = terminal.modes()
        terminal.press(b"\x1a")
        terminal.until(
            lambda _: terminal.everything.count(ENTERED) == 2 and "RECEIVED" in terminal.everything.split(ENTERED)[2]
        )
        assert terminal.everything.count(LEFT) == 1
        assert terminal.modes() == taken
        assert end(terminal, b"q") == 0


def test_rates_are_drawn_while_a_load_runs(program: Program) -> None:
    with top(program) as terminal, Senders(program.http_port, threads=2):
        terminal.until(lambda screen: rate_of_logs(screen) > 0)
        assert end(terminal, b"\x03") == 0


def rate_of_logs(screen: str) -> float:
    found = re.search(r"^logs +([\d,.]+) ", screen, re.MULTILINE)
    return float(found[1].replace(",", "")) if found is not None else 0.0


def test_it_goes_on_while_the_collector_is_away(make_program: MakeProgram) -> None:
    """It says since when, with the last figures; and after a restart no rate is negative."""
    running = make_program()
    running.start()
    with top(running) as terminal:
        terminal.until(lambda screen: "rates over" in screen)
        running.kill()
        # Below it, in a frame that is whole.
        terminal.until(lambda screen: "RECEIVED" in screen.partition("unreachable since")[2])
        running.start()
        with Senders(running.http_port, threads=2):
            terminal.until(lambda screen: "unreachable" not in screen and rate_of_logs(screen) > 0)
        assert not any(re.search(r"-\d", frame) for frame in terminal.frames())
        assert end(terminal, b"\x03") == 0


def test_a_key_that_is_revoked_is_named_later(program: Program, tmp_path: Path) -> None:
    """It is named on the screen, which goes on."""
    key = new_key(program, tmp_path, "admin")
    with top(program, "--key-file", key, columns=120) as terminal:
        terminal.until(lambda screen: "RECEIVED" in screen)
        run("keys", "revoke", key.read_text().strip(), "--keys-file", program.data_dir / "keys.json")
        terminal.until(lambda screen: "the key is refused since" in screen)
        assert end(terminal, b"\x03") == 0


@pytest.mark.parametrize("scope", ["unknown", "ingest"])
def test_a_key_that_does_not_read_is_status_1(program: Program, tmp_path: Path, scope: str) -> None:
    """The error is one line, with what to change."""
    if scope == "unknown":
        file = tmp_path / "key"
        file.write_text("isage_wrong")
    else:
        file = new_key(program, tmp_path, scope)
    done = run("top", "--endpoint", program.http, "--key-file", file)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: \S+/api/v1/debug/dlq-stats answers 40[13]: .+ \(--key-file: a key of .+\)\n", done.stderr), (
        done.stderr
    )


def test_a_collector_that_hangs_does_not_hold_the_keys(program: Program) -> None:
    """q ends it while a look waits for its answer."""
    with top(program) as terminal:
        terminal.until(lambda screen: "RECEIVED" in screen)
        program.signal(signal.SIGSTOP)
        try:
            drawn = len(terminal.frames())
            terminal.resize(100, 30)
            terminal.until(lambda screen: len(terminal.frames()) > drawn and len(screen.split("\n")) == 30)
            began_s = time.monotonic()
            assert end(terminal, b"q") == 0
            assert time.monotonic() - began_s < 8, "not after the timeout of a page, 10 s"
        finally:
            program.signal(signal.SIGCONT)


def test_something_else_is_named() -> None:
    """A port of something that speaks another protocol, and what it says is printed safely."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        command = [*map(str, COMMAND), "--once", "--endpoint", f"http://127.0.0.1:{other.getsockname()[1]}"]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        connection, _ = other.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"\x1b[2J SSH-2.0\r\n")
        said = process.communicate(timeout=COMMAND_TIMEOUT_S)
    assert process.returncode == 1
    assert said[0] == ""
    assert "SSH-2.0" in said[1]
    assert "\x1b" not in said[1]
    assert len(said[1].splitlines()) == 1


def test_a_terminal_without_utf_8_is_enough(program: Program) -> None:
    """What it cannot show is a question mark."""
    command = [*map(str, COMMAND), "--once", "--interval", "1", "--endpoint", program.http]
    variables = {**environment(), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=variables, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


def test_a_dumb_terminal_gets_plain_text(program: Program) -> None:
    with top(program, TERM="dumb") as terminal:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.everything
        assert "RECEIVED" in terminal.everything
