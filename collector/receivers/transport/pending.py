"""Find connections, and bytes of a connection, that the kernel has and the event loop has not seen yet.

Invariants:
1. No such connection or byte is lost when a server ends (test_a_request_that_crosses_the_end_is_answered,
   test_a_request_that_is_not_read_yet_is_answered).
"""

import fcntl
import os
import socket
import sys
import termios
from collections.abc import Iterable, Iterator
from typing import Any, Protocol


class _Listening(Protocol):
    def fileno(self) -> int: ...


def accept_pending(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that wait there now. Raises OSError if no file descriptor is left."""
    while True:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        connection.setblocking(False)
        yield connection


def last_pending(listeners: Iterable[_Listening]) -> list[socket.socket]:
    """Return the connections that wait at the event loop's own listeners. Call it before these are closed: that would reset
    the connections, with requests that they may have sent. Connections for which no file descriptor is left stay there."""
    found: list[socket.socket] = []
    for listening in listeners:
        # uvloop does not let its sockets accept for others; a second descriptor may.
        with socket.socket(fileno=os.dup(listening.fileno())) as listener:
            try:
                found += accept_pending(listener)
            except OSError:
                break
    return found


def has_unread(transport: Any) -> bool:
    """Return whether bytes that the transport has not read have come. A closed transport has none."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0:
        return False
    count = fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(count, sys.byteorder) > 0
