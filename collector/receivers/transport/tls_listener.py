"""A listener whose connections begin with TLS, with the certificates that are in force at their beginning.

asyncio's own listener does not show a connection before its handshake is done.

Invariants:
1. A connection counts from the moment it is accepted. A connection over the limit is closed before any work is done for it
   (test_connections_that_only_shake_hands_are_bounded_too).
2. A handshake that fails or takes too long is closed and counted, but not logged
   (test_a_handshake_that_comes_to_nothing_is_ended).
3. A client whose handshake fails gets the alert that says why (test_a_handshake_that_fails_sends_its_alert).
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from collector.receivers.transport.certificates import Certificates
from collector.receivers.transport.connections import Connections
from collector.receivers.transport.eviction import FRESH_S, lower_descriptor
from collector.receivers.transport.pending import accept_pending
from collector.receivers.transport.tls_context import ON_FAILURE

# How long a client may take to confirm the end of TLS.
_TLS_END_S: Final = 2.0
# The wait after an error, most likely too many open files: some of them may be closed by then.
_AFTER_ERROR_S: Final = 0.5
# The answer to a client that uses plain HTTP here.
_PIECE_BYTES: Final = 65_536
_TEXT: Final = b"This port speaks TLS: send the request to https:// (over gRPC: with transport security).\n"
_PLAIN: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_TEXT), _TEXT)
)


class TlsListener:
    """Accepts TLS connections on bound sockets. Call `start` for each socket, and `close` at the end."""

    def __init__(
        self, shared: Connections, certificates: Certificates, protocol: Callable[["Handshake"], asyncio.Protocol]
    ) -> None:
        """`protocol` makes the protocol of a connection, which takes the handshake's place among the open connections."""
        self._shared: Final = shared
        self._certificates: Final = certificates
        self._protocol: Final = protocol
        self._sockets: Final[list[socket.socket]] = []

    def start(self, listener: socket.socket, *, backlog: int) -> None:
        """Listen on a socket that is bound. Raises OSError."""
        listener.listen(backlog)
        listener.setblocking(False)
        self._sockets.append(listener)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def close(self) -> None:
        """Accept the clients that have connected so far, and listen no more."""
        loop = asyncio.get_running_loop()
        for listener in self._sockets:
            if loop.remove_reader(listener):
                self._accept(listener)
            listener.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        """Accept all clients that have connected."""
        try:
            for connection in accept_pending(listener):
                self._begin(connection)
        except OSError:
            loop = asyncio.get_running_loop()
            if self._shared.descriptors is not None:
                self._shared.descriptors.ran_out()
            loop.remove_reader(listener)
            loop.call_later(_AFTER_ERROR_S, self._accept_again, listener)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._sockets:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _begin(self, connection: socket.socket) -> None:
        shared = self._shared
        now = asyncio.get_running_loop().time()
        if shared.is_full(now):
            self._refuse(connection)
        elif shared.has_descriptor_for(connection.fileno()):
            Handshake(shared, self._certificates, self._protocol, connection)
        elif shared.makes_room(now):
            shared.begin(self._begin_lower(connection))
        else:
            assert shared.descriptors is not None
            shared.descriptors.ran_out()
            self._refuse(connection)

    async def _begin_lower(self, connection: socket.socket) -> None:
        """Begin the handshake once an evicted connection has left a descriptor below the reserve."""
        shared = self._shared
        assert shared.descriptors is not None
        lower = await lower_descriptor(connection.fileno(), shared.descriptors)
        if lower is None:
            shared.descriptors.ran_out()
            self._refuse(connection)
        else:
            connection.close()
            Handshake(shared, self._certificates, self._protocol, lower)

    def _refuse(self, connection: socket.socket) -> None:
        self._shared.refused()
        connection.close()


class Handshake:
    """A handshake, which counts as an open connection until its protocol takes over."""

    def __init__(
        self,
        shared: Connections,
        certificates: Certificates,
        protocol: Callable[["Handshake"], asyncio.Protocol],
        connection: socket.socket,
    ) -> None:
        self._shared: Final = shared
        self._certificates: Final = certificates
        self._protocol: Final = protocol
        self._alert = b""
        self._alerted: socket.socket | None = (
            None  # a duplicate of the connection if the handshake failed, since the loop closes the original
        )
        shared.open.add(self)
        self._began: Final = asyncio.get_running_loop().time()
        shared.accepted(self._began)
        self._task: Final = asyncio.get_running_loop().create_task(self._run(connection))

    def done(self) -> None:
        self._shared.open.discard(self)

    def close_if_late(self, now: float) -> None:
        """Do nothing: the handshake has a deadline of its own."""

    def idle_since(self) -> float:
        """Return when the handshake began, since there is no request yet."""
        return self._began

    def evict(self) -> None:
        self.abort()

    def leave(self) -> None:
        """Do nothing: the first answer will report the end to the client."""

    def shutdown(self) -> None:
        """End the handshake FRESH_S after its beginning, since its first request may be on its way."""
        asyncio.get_running_loop().call_at(self._began + FRESH_S, self.abort)

    def abort(self) -> None:
        self._task.cancel()

    async def _run(self, connection: socket.socket) -> None:
        try:
            if await self._begins_with_tls(connection):
                ON_FAILURE.set(partial(self._failed, connection))
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: self._protocol(self),
                    connection,
                    ssl=self._certificates.context,
                    ssl_handshake_timeout=self._shared.handshake_timeout_s,
                    ssl_shutdown_timeout=_TLS_END_S,
                )
            else:
                self._shared.metrics.handshake_failed()
        except OSError:  # TLS's errors are of that kind, and TimeoutError
            self._shared.metrics.handshake_failed()
            if self._alerted is not None:
                with contextlib.suppress(OSError):
                    await _send_closing_bytes(self._alerted, self._alert)
        finally:
            if self._alerted is not None:
                self._alerted.close()
            self.done()

    def _failed(self, connection: socket.socket, alert: bytes) -> None:
        """Keep the connection open until its client has read the alert."""
        self._alert = alert
        with contextlib.suppress(OSError):  # if no file descriptor is left, the connection is closed without the alert
            self._alerted = connection.dup()

    async def _begins_with_tls(self, connection: socket.socket) -> bool:
        """Wait for the first bytes. If they are plain HTTP, answer it, and close. Raises OSError."""
        owned = False
        try:
            async with asyncio.timeout(self._shared.handshake_timeout_s):
                await _wait_readable(connection)
            # A method or HTTP/2's preface begins with a capital letter; TLS with the byte 22.
            owned = not connection.recv(1, socket.MSG_PEEK).isupper()
            if not owned:
                await _send_closing_bytes(connection, _PLAIN)
            return owned
        finally:
            if not owned:
                connection.close()


async def _wait_readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _set, readable)
    try:
        await readable
    finally:
        loop.remove_reader(connection)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _send_closing_bytes(connection: socket.socket, answer: bytes) -> None:
    """Send the last bytes of a connection, and wait until the client has read them: closing a socket with unread bytes would
    reset it, and the client would lose the answer. Raises OSError."""
    connection.send(answer)
    connection.shutdown(socket.SHUT_WR)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_TLS_END_S):
            while _has_more(connection):
                await _wait_readable(connection)


def _has_more(connection: socket.socket) -> bool:
    """Drop bytes that the client has sent. Return whether the client has not ended the connection. Raises OSError."""
    try:
        return bool(connection.recv(_PIECE_BYTES))
    except BlockingIOError:
        return True
