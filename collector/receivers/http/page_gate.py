"""How many pages are answered at once, and how much memory their answers take.

A page is everything that does not bring telemetry: /metrics, the documentation, the reading API. An answer that nobody reads
(HTTP/2 with a window of zero) lasts until http.body_timeout_s.

Invariants:
1. At most http.pages_max pages are answered at once, http.connection_pages_max on one connection, and half of the first to one
   address: so one client leaves room for the others. (test_pages_at_once_are_bounded, test_one_address_leaves_half_to_others)
2. The bodies of answers that are not sent yet take at most http.page_bytes_max together; a larger one is answered only while
   there is no other. (test_bodies_are_bounded)
3. What is refused hears 503 with Retry-After and the number that was reached. Every place and byte is given back, however the
   answer ends. (test_places_and_bytes_are_given_back)
4. /healthz is never refused: it holds nothing, and without it an orchestrator would restart the collector.
   (test_health_is_always_answered)
"""

from collections import Counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.errors import OVERLOADED, RequestRefused
from collector.config.receivers import Http
from collector.receivers.refusals import Explain
from collector.receivers.responses import NATIVE
from collector.telemetry.metrics import Metrics

HEALTH_PATH: Final = "/healthz"
_ALWAYS: Final = frozenset({HEALTH_PATH})
# Part of http.pages_max that one address may have.
_ADDRESS_SHARE: Final = 0.5


class PageGate:
    """An ASGI application in front of the pages'. One event loop's: no locks."""

    def __init__(self, app: ASGIApp, settings: Http, metrics: Metrics, explain: Explain) -> None:
        self._app: Final = app
        self._pages_max: Final = settings.pages_max
        self._address_pages_max: Final = max(1, int(settings.pages_max * _ADDRESS_SHARE))
        self._connection_pages_max: Final = settings.connection_pages_max
        self._bytes_max: Final = settings.page_bytes_max
        self._metrics: Final = metrics
        self._explain: Final = explain
        self._by_connection: Final[Counter[object]] = Counter()
        self._by_address: Final[Counter[object]] = Counter()
        self.pages = 0
        """How many are being answered."""
        self.bytes_held = 0
        """Of bodies that are being sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        connection = (scope.get("server"), client)
        address = client[0] if client else None
        if (full := self._full(connection, address)) is not None:
            await self.refuse(full, send)
            return
        self.pages += 1
        self._by_connection[connection] += 1
        self._by_address[address] += 1
        answer = _GatedAnswer(self, send)
        try:
            await self._app(scope, receive, answer.send)
        finally:
            self.pages -= 1
            _less(self._by_connection, connection)
            _less(self._by_address, address)

    async def refuse(self, message: str, send: Send) -> None:
        """Answer 503 in the page's place."""
        refusal = self._explain(RequestRefused(OVERLOADED, message))
        self._metrics.refused(refusal.reason)
        answer = NATIVE.refused(refusal)
        headers = [
            *answer.headers,
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def over_budget(self, size_bytes: int) -> str | None:
        """Return why a body of that size can't be answered with now; None: it can."""
        if not self.bytes_held or self.bytes_held + size_bytes <= self._bytes_max:
            return None
        return (
            f"the answer has {size_bytes} bytes, and {self.bytes_held} of other pages are not read yet, of at most"
            f" {self._bytes_max} (http.page_bytes_max): ask again later, or for less"
        )

    def _full(self, connection: object, address: object) -> str | None:
        """Return why no page can be answered now; None: one can."""
        for count, limit, what in (
            (self._by_connection[connection], self._connection_pages_max, "on this connection (http.connection_pages_max)"),
            (self._by_address[address], self._address_pages_max, "to this address (half of http.pages_max)"),
            (self.pages, self._pages_max, "(http.pages_max)"),
        ):
            if count >= limit:
                return f"{count} pages are being answered {what}: ask again when they are read"
        return None


class _GatedAnswer:
    """One page's, as it is sent."""

    def __init__(self, gate: PageGate, send: Send) -> None:
        self._gate: Final = gate
        self._send: Final = send
        self._start: Message | None = None
        self._is_refused = False

    async def send(self, message: Message) -> None:
        if self._is_refused:
            return
        if message["type"] == "http.response.start":
            self._start = message  # until it is known whether the body may follow
            return
        gate, size_bytes = self._gate, len(message.get("body", b""))
        if self._start is not None:
            if (reason := gate.over_budget(size_bytes)) is not None:
                self._is_refused = True
                await gate.refuse(reason, self._send)
                return
            start, self._start = self._start, None
            await self._send(start)
        gate.bytes_held += size_bytes
        try:
            await self._send(message)
        finally:
            gate.bytes_held -= size_bytes


def _less(counter: Counter[object], key: object) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
