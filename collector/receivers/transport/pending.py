"""What the kernel has and the event loop has not seen yet: connections, and bytes of a connection.

Invariants:
1. The end of a server loses neither (test_a_request_that_crosses_the_end_is_answered,
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


def has_unread(transport: Any) -> bool:
    """Return whether bytes have come for this transport that it has not read. A transport that is closed has none."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0:
        return False
    count = fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(count, sys.byteorder) > 0
