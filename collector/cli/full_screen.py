"""Use the whole terminal as one screen that is redrawn in place, with keys and signals.

Invariants:
1. However the screen ends (a key, Ctrl-C, SIGTERM, SIGHUP, an exception), the terminal has its former contents, modes, cursor
   and line wrapping again (test_the_terminal_is_left_as_it_was).
2. Ctrl-Z restores the terminal, too, and `fg` shows the screen again (test_it_can_be_suspended).
"""

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

# Enter the alternate screen without cursor and wrapping, since a name may be wider in the terminal than computed. _LEAVE undoes
# this, in the reverse order.
_ENTER: Final = b"\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE: Final = b"\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_ENDING_KEYS: Final = b"qQ"
_TERMINATING: Final = (signal.SIGTERM, signal.SIGHUP)


class FullScreen:
    """A terminal in full-screen mode. Get one by `opened`, then call `draw` and `wait` in turn, from the main thread."""

    def __init__(self) -> None:
        self._out: Final = sys.stdout.fileno()
        self._keys: Final = _terminal_of_keys()
        self._modes: Final[list[Any] | None] = None if self._keys is None else termios.tcgetattr(self._keys)
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._is_ended = False

    @classmethod
    @contextlib.contextmanager
    def opened(cls) -> Iterator["FullScreen"]:
        """Take the terminal and its signals, yield the screen, and restore both afterwards."""
        screen = cls()
        handlers: dict[int, Callable[[int, FrameType | None], None]] = {
            signal.SIGINT: screen._end,
            signal.SIGWINCH: screen._changed,
            signal.SIGTSTP: screen._suspend,
            **dict.fromkeys(_TERMINATING, screen._terminate),
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            screen._enter()
            yield screen
        finally:
            screen._leave()
            for number, handler in before.items():
                signal.signal(number, handler)
            # The pipe stays open: a thread may still write to it, and its descriptor must not become that of another file.

    def size(self) -> tuple[int, int]:
        """Return the current columns and lines. A terminal that does not know its size reports 0, which becomes 80 and 24."""
        size = os.get_terminal_size(self._out)
        return (size.columns or 80, size.lines or 24)

    def draw(self, text: str) -> None:
        """Show a text, which must have as many lines as the terminal and fill each of them."""
        sys.stdout.write(_HOME + text)
        sys.stdout.flush()

    def wake(self) -> None:
        """Let `wait` return. Any thread may call this."""
        with contextlib.suppress(OSError):  # if the pipe is full, `wait` returns anyway; if it is closed, nobody waits
            os.write(self._wake, b"w")

    def wait(self) -> bool:
        """Wait for a key, a signal or `wake`. Return False if the user has ended the screen or the terminal is gone."""
        if not self._is_ended:
            ready, _, _ = select.select([self._woken, *([] if self._keys is None else [self._keys])], [], [])
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
            if self._keys in ready:
                keys = os.read(self._keys, 4096)
                # An empty read: the terminal is gone.
                self._is_ended = self._is_ended or not keys or any(key in _ENDING_KEYS for key in keys)
        return not self._is_ended

    def _enter(self) -> None:
        if self._keys is not None:
            tty.setcbreak(self._keys, termios.TCSANOW)
        _write(self._out, _ENTER)

    def _leave(self) -> None:
        _write(self._out, _LEAVE)
        if self._keys is not None and self._modes is not None:
            with contextlib.suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._modes)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._is_ended = True
        self.wake()

    def _changed(self, _number: int, _frame: FrameType | None) -> None:
        self.wake()

    def _suspend(self, number: int, _frame: FrameType | None) -> None:
        self._leave()
        ours = signal.signal(number, signal.SIG_DFL)
        # The signal goes to this thread, so that it stops here, and not some lines further.
        signal.raise_signal(number)
        signal.signal(number, ours)
        self._enter()
        self.wake()

    def _terminate(self, number: int, _frame: FrameType | None) -> None:
        self._leave()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _terminal_of_keys() -> int | None:
    """Return the descriptor of standard input if it is a terminal, which keys come from; else None."""
    try:
        keys = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # standard input is closed
        return None
    return keys if os.isatty(keys) else None


def _write(descriptor: int, data: bytes) -> None:
    """Write without a buffer, since a signal may come while a buffer is being written."""
    with contextlib.suppress(OSError):  # the terminal is gone
        os.write(descriptor, data)
