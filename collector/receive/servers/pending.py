"""Connections that the kernel has accepted and the event loop has not."""

import os
import socket
from collections.abc import Iterable, Iterator
from typing import Protocol


class _Listening(Protocol):
    def fileno(self) -> int: ...


def accept_pending(listener: socket.socket) -> Iterator[socket.socket]:
    """What waits there now. Raises OSError where no file descriptor is left."""
    while True:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        connection.setblocking(False)
        yield connection


def last_pending(listeners: Iterable[_Listening]) -> list[socket.socket]:
    """What waits at the event loop's own listeners, before they are closed: that would reset it, with the request that it may
    have sent. What no file descriptor is left for stays there."""
    found: list[socket.socket] = []
    for listening in listeners:
        # uvloop does not let its sockets accept for others; a second descriptor may.
        with socket.socket(fileno=os.dup(listening.fileno())) as listener:
            try:
                found += accept_pending(listener)
            except OSError:
                break
    return found
