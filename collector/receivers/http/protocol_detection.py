"""Detect whether a connection uses HTTP/2 or HTTP/1.1.

Invariants:
1. Over TLS, ALPN decides. Otherwise the first bytes decide, and are passed on unchanged
   (test_http_2_by_prior_knowledge_is_beside_both, test_bytes_may_come_one_by_one).
2. A server that ends does not close a new connection before the connection's first request had time to come
   (test_a_request_that_crosses_the_end_is_answered).
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from collector.http2.engine import PREFACE
from collector.receivers.http.http1 import closing_response, with_headers
from collector.receivers.http.http2 import Http2Connection
from collector.receivers.http.shared import HttpShared
from collector.receivers.transport.eviction import FRESH_S, Renumbered
from collector.receivers.transport.tls_listener import Handshake

_TOO_MANY: Final = closing_response("503 Service Unavailable\r\nretry-after: 1")


class FirstBytes(asyncio.Protocol):
    """The protocol of a connection until its own protocol takes over."""

    def __init__(self, shared: HttpShared, http1: Callable[[], asyncio.Protocol], handshake: Handshake | None = None) -> None:
        """`handshake` is the TLS handshake that counted in the connection's place, if there was one."""
        self._shared: Final = shared
        self._http1: Final = http1
        self._handshake: Final = handshake
        self._transport: asyncio.Transport
        self._data = b""
        self._is_handed_over = False
        self._since = 0.0  # the loop's time when it began, or when its first byte came

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a listener makes these
        self._transport = transport
        shared = self._shared
        now = asyncio.get_running_loop().time()
        shared.accepted(now)
        if self._handshake is not None:
            self._handshake.done()
            protocol = transport.get_extra_info("ssl_object").selected_alpn_protocol()
            if protocol is not None:
                self._hand_over(_http2(shared) if protocol == "h2" else self._http1())
                return
        elif shared.is_full(now):
            self._refuse(transport)
            return
        elif not shared.has_descriptor_for(transport.get_extra_info("socket").fileno()):
            assert shared.descriptors is not None
            if shared.makes_room(now):
                waiting = Renumbered(
                    transport, shared.descriptors, lambda: FirstBytes(shared, self._http1), refuse=self._refuse
                )
                shared.begin(waiting.run())
            else:
                shared.descriptors.ran_out()
                self._refuse(transport)
            return
        shared.open.add(self)
        self._since = now
        if shared.is_ending:
            # The connection was accepted just as the listener closed.
            self.shutdown()

    def _refuse(self, transport: asyncio.Transport) -> None:
        shared = self._shared
        shared.refused()
        transport.write(_TOO_MANY if shared.cors is None else with_headers(_TOO_MANY, shared.cors.headers_for_anybody()))
        transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._shared.open.discard(self)

    def data_received(self, data: bytes) -> None:
        if not self._data:
            self._since = asyncio.get_running_loop().time()
        self._data += data
        if self._data.startswith(PREFACE):
            self._hand_over(_http2(self._shared))
        elif not PREFACE.startswith(self._data):
            self._hand_over(self._http1())

    def close_if_late(self, now: float) -> None:
        settings = self._shared.settings
        if now - self._since > (settings.body_timeout_s if self._data else settings.keep_alive_s):
            self._transport.close()

    def idle_since(self) -> float:
        """Return when the client connected, or its first byte came, since no request is whole yet."""
        return self._since

    def evict(self) -> None:
        self._transport.close()

    def leave(self) -> None:
        """Do nothing: the first answer will announce the end to the client."""

    def shutdown(self) -> None:
        """Close FRESH_S after the connection or its first byte came, since its first request may be on its way."""
        loop = asyncio.get_running_loop()
        loop.call_at(self._since + FRESH_S, self._end)

    def _end(self) -> None:
        if not self._is_handed_over:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _hand_over(self, protocol: asyncio.Protocol) -> None:
        self._shared.open.discard(self)
        self._is_handed_over = True
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if self._data:
            protocol.data_received(self._data)


def _http2(shared: HttpShared) -> asyncio.Protocol:
    return cast("asyncio.Protocol", Http2Connection(shared))
