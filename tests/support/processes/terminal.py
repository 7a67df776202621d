"""A command in a pseudo-terminal: what it draws, its keys, its size, and what it leaves behind."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.processes.program import environment, heed_interrupts
from support.waiting import TIMEOUT_S

ENTERED = "\x1b[?1049h"
LEFT = "\x1b[?1049l"
_HOME = "\x1b[H"
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """One command in it. `everything`: what it has written so far."""

    def __init__(self, descriptor: int, pid: int) -> None:
        self._descriptor = descriptor
        self._status: int | None = None
        self.pid = pid
        self.everything = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._descriptor)

    def frames(self) -> list[str]:
        """Each whole screen that it has drawn, without colours; the last may be in the middle of being written."""
        return [_SEQUENCE.sub("", frame).replace("\r", "") for frame in self.everything.split(_HOME)[1:]]

    def until(self, what: Callable[[str], object], timeout_s: float = TIMEOUT_S) -> str:
        """Wait until this is true of the screen, and return the screen."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for frame in self.frames()[-1:]:
                if what(frame):
                    return frame
            assert self._read(), f"it ended before that was shown; it wrote:\n{self.everything[-4000:]}"
        raise AssertionError(f"not within {timeout_s} s; the screen:\n{(self.frames() or [self.everything])[-1]}")

    def end(self) -> int:
        """Wait for its end; its status, negative where a signal ended it."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._read():
            assert time.monotonic() < deadline, f"not ended within {TIMEOUT_S} s; it wrote:\n{self.everything[-4000:]}"
        _, status = os.waitpid(self.pid, 0)
        self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def close(self) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._descriptor)

    def _read(self) -> bool:
        """Read what there is; False: it has ended."""
        ready, _, _ = select.select([self._descriptor], [], [], 0.1)
        if not ready:
            return True
        try:
            data = os.read(self._descriptor, 1 << 16)
        except OSError:  # its side is closed
            return False
        self.everything += data.decode(errors="replace")
        return bool(data)


@contextmanager
def in_terminal(command: list[str | Path], columns: int = 80, lines: int = 24, **variables: str) -> Iterator[Terminal]:
    """The command, in a terminal of that size; it is gone afterwards."""
    words = [str(word) for word in command]
    variables_all = {**environment(), "TERM": "xterm-256color", **variables}
    pid, descriptor = pty.fork()
    if pid == 0:
        heed_interrupts()
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.execve(words[0], words, variables_all)
    terminal = Terminal(descriptor, pid)
    try:
        yield terminal
    finally:
        terminal.close()
