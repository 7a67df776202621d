"""TLS contexts that hand over the alert of a failed handshake.

OpenSSL writes the alert for the client into the connection's outgoing buffer. asyncio and uvloop do not send that buffer after
an error: they close the connection, and the client never learns its mistake. So a listener sets `ON_FAILURE` before the
handshake begins, and sends the alert that it receives.

Invariants:
1. Each failed handshake for which TLS has an alert gives it once (test_a_handshake_that_fails_sends_its_alert).
"""

import ssl
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

ON_FAILURE: Final[ContextVar[Callable[[bytes], None]]] = ContextVar("ON_FAILURE")
"""A function that receives the bytes of the alert. It is called before the event loop closes the connection."""


class _AlertingObject(ssl.SSLObject):
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


class AlertingContext(ssl.SSLContext):
    """Makes connections that call ON_FAILURE, with its value at the call of `wrap_bio`."""

    sslobject_class = _AlertingObject

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # the signature is the standard library's
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, _AlertingObject)
        made.outgoing = outgoing
        made.on_failure = ON_FAILURE.get(None)
        return made
