"""One process per data directory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes.program import environment

from collector.runtime.lockfile import DataDirLock, Locked

HOLD = """
import pathlib, sys
from collector.runtime.lockfile import DataDirLock
lock = DataDirLock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_the_second_gets_the_name_of_the_first(tmp_path: Path) -> None:
    """The holder's process id is in the message; once it lets go, the next may have it."""
    with DataDirLock(tmp_path), pytest.raises(Locked, match=f"in use by process {os.getpid()}$"):
        DataDirLock(tmp_path)
    with DataDirLock(tmp_path):
        pass


def test_a_command_is_named(tmp_path: Path) -> None:
    """Who waits for it knows that it ends, and says which it is; a collector after it is none."""
    named = rf"in use by process {os.getpid()} \(the command audit\)$"
    with DataDirLock(tmp_path, "audit"), pytest.raises(Locked, match=named) as caught:
        DataDirLock(tmp_path)
    assert ("audit", os.getpid()) == (caught.value.command, caught.value.pid)
    with DataDirLock(tmp_path), pytest.raises(Locked, match=f"in use by process {os.getpid()}$") as caught:
        DataDirLock(tmp_path, "query")
    assert "" == caught.value.command


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """The lock is the kernel's: it ends with the process, however that ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(Locked) as caught:
        DataDirLock(tmp_path)
    assert caught.value.pid == process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    DataDirLock(tmp_path).release()


def test_an_unreadable_holder_is_another_process(tmp_path: Path) -> None:
    """Between taking the lock and writing its id, the holder has no id to tell."""
    with DataDirLock(tmp_path):
        (tmp_path / "lock").write_text("")
        with pytest.raises(Locked, match=r"in use by another process$"):
            DataDirLock(tmp_path)
