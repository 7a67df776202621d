"""GET /metrics: rendered once in http.metrics_interval_s, or sooner after a dead letter, and shared by all who ask.

Invariants:
1. All requests within one interval get what was rendered first, in the format that each asks for. (test_it_is_rendered_once)
   There are few formats. (test_no_version_or_escaping_is_rendered_anew)
   The event loop only reads the counters; a thread ranks tenants and writes the text. (test_many_tenants_do_not_stop_the_loop)
   Dead letters that came before a request are in its page, also within the interval.
   (test_a_page_has_the_dead_letters_that_came_before_it)
   However many scrapes and dead letters come, a fifth of the time is spent on such pages.
   (test_dead_letters_do_not_make_pages_dear)
2. Tenants have names only for a key with scope admin, or where `names_for_all` says so; for others all tenants are one series,
   whose label is empty. (test_who_sees_names_of_tenants)
3. Nobody is refused: without a key, or with one that is not in force, the page is the one without names, so that scraping
   goes on when a key is revoked. (test_who_sees_names_of_tenants)
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

from starlette.types import Receive, Scope, Send

from collector.api.documents import Document, header
from collector.receivers.transport.fields import joined
from collector.telemetry.aggregate import Snapshot
from collector.telemetry.exposition import content_type_of
from collector.telemetry.metrics import Metrics
from collector.telemetry.tenant_ranking import without_names
from collector.tenancy.access import Access, key_of

METRICS_PATH: Final = "/metrics"

# Between two looks, in the time that the last one took; and in seconds at most.
_PAUSES: Final = 4
_PAUSE_MAX_S: Final = 1.0

T = TypeVar("T")


class _Rendered:
    """What one look at the metrics has given, in the forms that were asked for since."""

    def __init__(self, snapshot: Snapshot, at: float, seen: object) -> None:
        self.snapshot: Final = snapshot
        self.at: Final = at
        self.seen: Final = seen
        self.documents: Final[dict[tuple[str, bool], Document]] = {}


class _Pauses:
    """Between two times of the same work, which is the context: _PAUSES times as long as the last one took."""

    def __init__(self, interval_s: float, clock: Callable[[], float]) -> None:
        self._max_s: Final = min(interval_s, _PAUSE_MAX_S)
        self._clock: Final = clock
        self._began = self._until = 0.0

    async def rest(self) -> None:
        rest_s = self._until - self._clock()
        if rest_s > 0:
            await asyncio.sleep(rest_s)

    def __enter__(self) -> None:
        self._began = self._clock()

    def __exit__(self, *_: object) -> None:
        ended = self._clock()
        self._until = ended + min(self._max_s, _PAUSES * (ended - self._began))


class MetricsPage:
    """A Page (collector/api/documents.py)."""

    def __init__(
        self,
        metrics: Metrics,
        access: Access | None,
        *,
        interval_s: float,
        names_for_all: bool,
        clock: Callable[[], float],
        gather: Callable[[], Awaitable[Snapshot]] | None = None,
        newest: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`access`: None where nothing counts tenants. `clock`: in seconds. `gather`: the metrics of all processes as they are
        shown, where there are several. `newest`: how far dead letters go; None: none is counted here."""
        self._metrics: Final = metrics
        self._access: Final = access
        self._interval_s: Final = interval_s
        self._names_for_all: Final = names_for_all
        self._clock: Final = clock
        self._gather: Final = gather
        self._newest: Final = newest
        self._last: _Rendered | None = None
        self._looking: asyncio.Task[_Rendered] | None = None
        self._next: asyncio.Task[_Rendered] | None = None
        self._checks: Final = _Pauses(interval_s, clock)
        self._looks: Final = _Pauses(interval_s, clock)
        self._making: Final[dict[object, asyncio.Task[Any]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_names = self._shows_names(scope)
        content_type = content_type_of(header(scope, b"accept").decode("latin-1"))
        rendered = await self._current()
        document = rendered.documents.get((content_type, has_names))
        if document is None:
            writing = partial(self._write, rendered, content_type, has_names)
            document = await self._once((rendered, content_type, has_names), writing)
        await document(scope, receive, send)

    async def snapshot(self) -> Snapshot:
        """What the page shows to those who may see names, of the same age."""
        return (await self._current()).snapshot

    async def _current(self) -> _Rendered:
        if self._newest is not None:
            return await self._judged(self._newest)
        rendered = self._last
        if rendered is None or self._is_over(rendered):
            rendered = await self._once("look", self._look)
        return rendered

    def _is_over(self, rendered: _Rendered) -> bool:
        return self._clock() >= rendered.at + self._interval_s

    async def _judged(self, newest: Callable[[], Awaitable[object]]) -> _Rendered:
        """What is shown to all who came before it was looked at. One who goes away leaves it to the others."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._looking, newest))
        return await asyncio.shield(self._next)

    async def _after(self, looking: "asyncio.Task[_Rendered] | None", newest: Callable[[], Awaitable[object]]) -> _Rendered:
        """Look after the one that is under way, which began before some of those who wait came."""
        if looking is not None:
            await asyncio.wait({looking})
        await self._checks.rest()
        self._looking, self._next = self._next, None
        with self._checks:
            seen = await newest()
        last = self._last
        if last is not None and seen == last.seen and not self._is_over(last):
            return last
        await self._looks.rest()
        with self._looks:
            return await self._look(await newest())

    def _shows_names(self, scope: Scope) -> bool:
        if self._access is None:
            return True
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in (b"x-api-key", b"authorization"):
                headers[name] = joined(headers.get(name), value)
        key = key_of(headers.get(b"x-api-key"), headers.get(b"authorization"))
        caller = None if key is None else self._access.find(key)
        return self._names_for_all or (caller is not None and caller.scope.is_admin)

    async def _look(self, seen: object = None) -> _Rendered:
        at = self._clock()
        if self._gather is None:
            # Thousands of tenants take long to rank and to write: the event loop only reads their counters.
            snapshot = await asyncio.to_thread(self._metrics.ranked, self._metrics.snapshot())
        else:
            snapshot = await self._gather()
            at = self._clock()  # it may have waited for dead letters that are on their way
        self._last = _Rendered(snapshot, at, seen)
        return self._last

    async def _write(self, rendered: _Rendered, content_type: str, has_names: bool) -> Document:
        def text() -> bytes:
            snapshot = rendered.snapshot if has_names else without_names(rendered.snapshot)
            return self._metrics.text(snapshot, content_type)

        document = rendered.documents[(content_type, has_names)] = Document(await asyncio.to_thread(text), content_type)
        return document

    async def _once(self, key: object, make: Callable[[], Awaitable[T]]) -> T:
        """What `make` makes, once for all who ask while it is being made; one who goes away leaves it to the others."""
        making: asyncio.Task[T] | None = self._making.get(key)
        if making is None:

            async def work() -> T:
                try:
                    return await make()
                finally:
                    del self._making[key]

            making = self._making[key] = asyncio.create_task(work())
        return await asyncio.shield(making)
