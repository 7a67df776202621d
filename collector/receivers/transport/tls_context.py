"""TLS contexts of servers: a failed handshake hands over its alert, and records are read at their own size.

OpenSSL writes the alert for the client into the connection's outgoing buffer. asyncio and uvloop do not send that buffer after
an error: they close the connection, and the client never learns its mistake. So a listener sets `ON_FAILURE` before the
handshake begins, and sends the alert that it receives.

uvloop reads up to 256 KiB at once. Python allocates all of that for each read, although OpenSSL returns at most one record of
16 KiB. So a read asks for one record.

Invariants:
1. Each failed handshake for which TLS has an alert gives it once (test_a_handshake_that_fails_sends_its_alert).
2. One read allocates no more than the data of one TLS record (tests/unit/collector/receivers/transport/test_tls_context.py,
   test_a_read_has_room_for_one_record).
"""

import ssl
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

ON_FAILURE: Final[ContextVar[Callable[[bytes], None]]] = ContextVar("ON_FAILURE")
"""A function that receives the bytes of the alert. It is called before the event loop closes the connection."""

# The most data that a record can have (RFC 8446, section 5.1).
_RECORD_BYTES_MAX: Final = 1 << 14


class _ServerObject(ssl.SSLObject):
    outgoing: ssl.MemoryBIO
    on_failure: Callable[[bytes], None] | None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            alert = self.outgoing.read()
            if alert and self.on_failure is not None:
                self.on_failure(alert)
            raise

    def read(self, len: int = 1024, buffer: Any = None) -> bytes:  # noqa: A002  # the standard library's signature
        """Return the data of at most one record."""
        return super().read(min(len, _RECORD_BYTES_MAX), buffer)


class ServerContext(ssl.SSLContext):
    """Makes connections that call ON_FAILURE, with its value at the call of `wrap_bio`."""

    sslobject_class = _ServerObject

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # the signature is the standard library's
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, _ServerObject)
        made.outgoing = outgoing
        made.on_failure = ON_FAILURE.get(None)
        return made
