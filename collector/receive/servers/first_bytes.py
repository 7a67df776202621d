"""A connection that has not said yet what it speaks: HTTP/2 or HTTP/1.1.

The law: ALPN says it under TLS; else the first bytes do, and they are handed on as they came. From then on nothing stands
between a connection and its protocol.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from collector.receive.servers.connections import Shared
from collector.receive.servers.handshakes import Handshake
from collector.receive.servers.http1 import last_words
from collector.receive.servers.http2 import Http2Connection
from collector.receive.servers.http2_engine import PREFACE

_TOO_MANY: Final = last_words("503 Service Unavailable\r\nretry-after: 1")


class FirstBytes(asyncio.Protocol):
    """Until the connection's own protocol takes over."""

    def __init__(self, shared: Shared, http1: Callable[[], asyncio.Protocol], handshake: Handshake | None = None) -> None:
        """`handshake`: what counted in the connection's place, if it began with TLS."""
        self._shared: Final = shared
        self._http1: Final = http1
        self._handshake: Final = handshake
        self._transport: asyncio.Transport
        self._data = b""
        self._since = 0.0  # the loop's time when it began, or when its first byte came

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a listener's are of that type
        self._transport = transport
        shared = self._shared
        if self._handshake is not None:
            self._handshake.done()
            protocol = transport.get_extra_info("ssl_object").selected_alpn_protocol()
            if protocol is not None:
                self._hand_over(_http2(shared) if protocol == "h2" else self._http1())
                return
        elif shared.is_full or not shared.has_descriptor_for(transport):
            shared.metrics.connection_refused()
            transport.write(_TOO_MANY)
            transport.close()
            return
        if shared.is_ending:
            # Accepted just as the listener closed: nothing was asked yet.
            transport.close()
            return
        shared.open.add(self)
        self._since = asyncio.get_running_loop().time()

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

    def shutdown(self) -> None:
        """Nothing was asked yet."""
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _hand_over(self, protocol: asyncio.Protocol) -> None:
        self._shared.open.discard(self)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if self._data:
            protocol.data_received(self._data)


def _http2(shared: Shared) -> asyncio.Protocol:
    return cast("asyncio.Protocol", Http2Connection(shared))
