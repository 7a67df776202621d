"""Commands of tests/support, run as processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).parents[2]


def command(module: str, *arguments: object) -> list[str]:
    """For support.processes.appender and its like."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def environment() -> dict[str, str]:
    """In which they find `support`, and the program."""
    paths = [str(TESTS), str(TESTS.parent), str(TESTS.parent / "proto"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run_and_kill(arguments: Sequence[str], lines: int) -> list[str]:
    """Kill -9 it when it has printed so many lines. All that it had printed by then, whole lines only."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        printed += process.stdout.readlines()
    return [line.rstrip("\n") for line in printed if line.endswith("\n")]


def run(arguments: Sequence[str]) -> str:
    """What it printed; it must end well."""
    ended = subprocess.run(arguments, capture_output=True, text=True, env=environment(), check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def pause(pid: int) -> None:
    """Stop a child, and return when each of its threads has: the signal alone leaves a JVM's some milliseconds, in which it
    answers."""
    os.kill(pid, signal.SIGSTOP)
    seen = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert seen is not None
    assert seen.si_code == os.CLD_STOPPED, f"process {pid} had ended: {seen}"


def resume(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)
