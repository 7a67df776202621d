"""Limit how many pages are answered at once, and how much memory their answers take.

A page is every request without telemetry: /metrics, the documentation, the reading API. An answer that its client does not read
(HTTP/2 with a window of zero) lasts until http.body_timeout_s.

Invariants:
1. At most http.pages_max pages are answered at once, http.connection_pages_max on one connection, and half of the first to one
   address: so one client leaves room for the others. (test_pages_at_once_are_bounded, test_one_address_leaves_half_to_others)
2. Large bodies that are not sent yet take at most http.page_bytes_max together, and half of it for one caller. A caller's only
   body may be larger, and counts as that half, so no slow reader keeps others from their answers.
   (test_bodies_are_bounded, test_a_caller_who_reads_nothing_leaves_room_for_others)
3. A refused page is 503 with Retry-After and the number that was reached. Every place and byte is released, however the
   answer ends. (test_places_and_bytes_are_given_back)
4. /healthz is never refused: it takes no memory, and without it an orchestrator would restart the collector.
   (test_health_is_always_answered)
5. A body of at most http.page_bytes_max / http.pages_max is small: it is never refused for its size, and all small bodies at
   once take at most http.page_bytes_max. (test_a_small_answer_needs_no_room)
6. A query that would take long to parse is 400. (test_a_query_of_many_parts_is_refused)
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.errors import INVALID_PARAMETER, OVERLOADED, RequestRefused
from collector.config.receivers import Http
from collector.receivers.refusals import Explain
from collector.receivers.responses import NATIVE
from collector.telemetry.metrics import Metrics

HEALTH_PATH: Final = "/healthz"
_ALWAYS: Final = frozenset({HEALTH_PATH})
# The part of http.pages_max that one address may have, and the part of http.page_bytes_max that one caller may have.
_ADDRESS_SHARE: Final = 0.5
# The limits of a query: 30,000 parameters took 11 ms of the event loop, and 20,000 escapes 5 ms.
_PARAMETERS_MAX: Final = 256
_ESCAPES_MAX: Final = 8192
CALLER: Final = "infrasage.caller"
"""The key of the caller in the scope of a request, set by the application. Without it, the caller is the client's address."""


class PageGate:
    """An ASGI application in front of that of the pages. Used by one event loop, so it has no locks."""

    def __init__(self, app: ASGIApp, settings: Http, metrics: Metrics, explain: Explain) -> None:
        self._app: Final = app
        self._pages_max: Final = settings.pages_max
        self._address_pages_max: Final = max(1, int(settings.pages_max * _ADDRESS_SHARE))
        self._connection_pages_max: Final = settings.connection_pages_max
        self._bytes_max: Final = settings.page_bytes_max
        self._caller_bytes_max: Final = int(settings.page_bytes_max * _ADDRESS_SHARE)
        self._small_bytes_max: Final = settings.page_bytes_max // settings.pages_max
        self._metrics: Final = metrics
        self._explain: Final = explain
        self._by_connection: Final[Counter[object]] = Counter()
        self._by_address: Final[Counter[object]] = Counter()
        self._large_bytes: Final[Counter[object]] = Counter()  # by caller
        self.pages = 0
        """How many pages are being answered."""
        self.bytes_held = 0
        """The bytes of bodies that are being sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            await self._app(scope, receive, send)
            return
        if (odd := _query_fault(scope["query_string"])) is not None:
            await self.refuse(odd, send, INVALID_PARAMETER)
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
        answer = _GatedAnswer(self, scope, send)
        try:
            await self._app(scope, receive, answer.send)
        finally:
            self.pages -= 1
            _decrease(self._by_connection, connection)
            _decrease(self._by_address, address)

    async def refuse(self, message: str, send: Send, reason: int = OVERLOADED) -> None:
        """Answer in the page's place: with 503, or the status of `reason`."""
        refusal = self._explain(RequestRefused(reason, message))
        self._metrics.refused(refusal.reason)
        answer = NATIVE.refused(refusal)
        headers = [
            *answer.headers,
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def over_budget(self, size_bytes: int, caller: object) -> str | None:
        """Return why a body of that size can't be sent now; None if it can."""
        if size_bytes <= self._small_bytes_max:
            return None
        own, share = self._large_bytes[caller], self._caller_bytes_max
        others = sum(min(held, share) for other, held in self._large_bytes.items() if other != caller)
        if (not own or own + size_bytes <= share) and others + min(own + size_bytes, share) <= self._bytes_max:
            return None
        return (
            f"the answer has {size_bytes} bytes; {own} of yours and {others} of other pages are not read yet, of at most"
            f" {self._bytes_max}, half of it for one caller (http.page_bytes_max): ask again later, or for less"
        )

    @asynccontextmanager
    async def holding(self, size_bytes: int, caller: object) -> AsyncIterator[None]:
        """Count a body while it is being sent."""
        large_bytes = size_bytes if size_bytes > self._small_bytes_max else 0
        self.bytes_held += size_bytes
        self._large_bytes[caller] += large_bytes
        try:
            yield
        finally:
            self.bytes_held -= size_bytes
            _decrease(self._large_bytes, caller, large_bytes)

    def _full(self, connection: object, address: object) -> str | None:
        """Return why no page can be answered now; None if one can."""
        for count, limit, what in (
            (self._by_connection[connection], self._connection_pages_max, "on this connection (http.connection_pages_max)"),
            (self._by_address[address], self._address_pages_max, "to this address (half of http.pages_max)"),
            (self.pages, self._pages_max, "(http.pages_max)"),
        ):
            if count >= limit:
                return f"{count} pages are being answered {what}: ask again when they are read"
        return None


class _GatedAnswer:
    """The answer of one page, which is checked before it is sent."""

    def __init__(self, gate: PageGate, scope: Scope, send: Send) -> None:
        self._gate: Final = gate
        self._scope: Final = scope
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
        client = self._scope.get("client")
        caller = self._scope.get(CALLER, client[0] if client else None)
        if self._start is not None:
            if (reason := gate.over_budget(size_bytes, caller)) is not None:
                self._is_refused = True
                await gate.refuse(reason, self._send)
                return
            start, self._start = self._start, None
            await self._send(start)
        async with gate.holding(size_bytes, caller):
            await self._send(message)


def _query_fault(query: bytes) -> str | None:
    """Return why a query is refused; None if it is not."""
    for part, limit, what in ((b"&", _PARAMETERS_MAX, "parameters"), (b"%", _ESCAPES_MAX, "escapes")):
        count = query.count(part)
        if count > limit:
            return f"the query has {count} {what}; at most {limit} are taken"
    return None


def _decrease(counter: Counter[object], key: object, by: int = 1) -> None:
    counter[key] -= by
    if not counter[key]:
        del counter[key]
