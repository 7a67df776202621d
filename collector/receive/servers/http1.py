"""HTTP/1.1 by uvicorn's protocol on httptools, and what that leaves out.

The law: heads, trailers and chunk extensions are bounded; a message that is too slow ends its connection; and what can't be
read is answered once, and never logged: strangers could fill the disk.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from collector.receive.servers.connections import Shared, Stall

# A header's colon, space and line end.
_HEADER_BYTES_OVERHEAD: Final = 4


def last_words(status: str) -> bytes:
    """A whole response without a body, for what never becomes a request."""
    return f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()


_BAD_REQUEST: Final = last_words("400 Bad Request")
_HEAD_TOO_LARGE: Final = last_words("431 Request Header Fields Too Large")


def uvicorn_http1(shared: Shared) -> Callable[[], asyncio.Protocol]:
    """What makes a connection's protocol."""
    config = uvicorn.Config(
        shared.app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=cast("int", shared.settings.keep_alive_s),  # only ever handed to call_later
    )
    config.load()
    return lambda: _Protocol(config, shared, {}, asyncio.get_running_loop())


class _Protocol(HttpToolsProtocol):
    """With limits on heads, a deadline for slow senders, requests that ask for an upgrade and have a body (the JDK's client:
    every one), and half-closed connections.
    """

    def __init__(
        self, config: uvicorn.Config, state: Shared, app_state: dict[str, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(config, state, app_state, loop)
        settings = state.settings
        self._header_bytes_max: Final = settings.header_bytes_max
        # A head may take as long as a body. A request has both, and as long again for its sender to hear of its refusal.
        self._head_s: Final = settings.body_timeout_s
        self._request_s: Final = 3 * settings.body_timeout_s
        self._head_bytes = 0
        self._unclaimed_bytes = 0
        self._in_head = True
        self._began: float | None = None  # the loop's time when the message that is now coming in began
        self._asks_upgrade = False
        self._broken = False
        self._stall: Final = Stall(settings.body_timeout_s)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's protocols may answer, uvicorn's does not
        """A sender that has sent its request and closed its half still gets the answer."""
        waits = self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
        if waits:
            self.cycle.keep_alive = False
        return waits

    def abort(self) -> None:
        self.transport.abort()

    def close_if_late(self, now: float) -> None:
        """Close the connection if the message that is coming in should have been here by now, or nobody reads its answer."""
        if self._stall.is_over(self.transport, now):
            self.transport.abort()
            return
        if self._began is not None and now - self._began > (self._head_s if self._in_head else self._request_s):
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        self._unset_keepalive_if_required()
        if self._began is None:
            self._began = self.loop.time()
        # Back to nothing with each head, piece of a body and end: what the parser has beside those, it keeps in memory.
        self._unclaimed_bytes += len(data)
        rest = memoryview(data)
        try:
            while (end := self._feed(rest)) is not None:
                # The parser would skip the body. The same head without the wish to upgrade is an ordinary request.
                if self.parser.get_method() == b"CONNECT":
                    raise httptools.HttpParserError("CONNECT")
                self.parser.feed_data(self._head_without_upgrade())
                rest = rest[end:]
        except httptools.HttpParserError:
            self._fail(_HEAD_TOO_LARGE if self._head_bytes > self._header_bytes_max else _BAD_REQUEST)
        else:
            if self._unclaimed_bytes > self._header_bytes_max:
                self._fail(_HEAD_TOO_LARGE)

    def _feed(self, data: memoryview) -> int | None:
        """Where a head ends that asks for an upgrade; None where there is none, or none any more."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            end: int = upgrade.args[0]
            return end
        return None

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._in_head = True
        self._asks_upgrade = False
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self._asks_upgrade = True
            return
        self._in_head = False
        self._unclaimed_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unclaimed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._asks_upgrade:
            return
        self._unclaimed_bytes = 0
        self._in_head = True
        self._began = None
        super().on_message_complete()

    def _count_head(self, size_bytes: int) -> None:
        """Also of trailers, which are headers that come late."""
        self._head_bytes += size_bytes + _HEADER_BYTES_OVERHEAD
        if self._head_bytes > self._header_bytes_max:
            raise ValueError("head too large")

    def _head_without_upgrade(self) -> bytes:
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        lines += [name + b": " + value for name, value in self.headers if name not in (b"upgrade", b"http2-settings")]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _fail(self, response: bytes) -> None:
        """What came can't be read on from here: say so if nothing else is to be said, and close."""
        self._broken = True
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self.transport.write(response)
            self.transport.close()
        elif cycle.more_body:
            # It is the request at hand that is broken; or one behind another, and then its sender is not worth the trouble.
            if not cycle.response_started and not self.pipeline:
                self.transport.write(response)
            self.transport.close()
        else:
            cycle.keep_alive = False
