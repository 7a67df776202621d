"""GET /metrics: rendered once in http.metrics_interval_s, or sooner after a new dead letter, and shared by all requests.

Invariants:
1. All requests within one interval get the same state, in the format that each asks for. (test_it_is_rendered_once)
   The number of formats is small. (test_no_version_or_escaping_is_rendered_anew)
   The event loop only reads the counters; a thread ranks tenants and writes the text. (test_many_tenants_do_not_stop_the_loop)
   The page contains the dead letters that came before the request, also within the interval.
   (test_a_page_has_the_dead_letters_that_came_before_it)
   After such a page, there is a pause of four times its work, but of at most 1 s. So such pages take a fifth of the time,
   however many scrapes and dead letters come, unless the work for one exceeds 0.25 s.
   (test_dead_letters_do_not_make_pages_dear)
2. Tenants have names only for a key of scope admin, or with `names_for_all`. For others all tenants are one series, whose
   label is empty. (test_who_sees_names_of_tenants)
3. No request is refused. Without a key, or with one that is not in force, the page has no names, so scraping continues when a
   key is revoked. (test_who_sees_names_of_tenants)
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

# The pause after a look is this many times as long as the look, but at most so many seconds.
_PAUSES: Final = 4
_PAUSE_MAX_S: Final = 1.0

T = TypeVar("T")


class _Rendered:
    """The result of one look at the metrics, in the forms that were requested since.

    `at` is when the look was, by the page's clock. `seen` is the state of the dead letters at the look."""

    def __init__(self, snapshot: Snapshot, at: float, seen: object) -> None:
        self.snapshot: Final = snapshot
        self.at: Final = at
        self.seen: Final = seen
        self.documents: Final[dict[tuple[str, bool], Document]] = {}


class _Pauses:
    """The pauses between repetitions of a work, which runs in this context: _PAUSES times as long as the last one took."""

    def __init__(self, interval_s: float, clock: Callable[[], float]) -> None:
        self._max_s: Final = min(interval_s, _PAUSE_MAX_S)
        self._clock: Final = clock
        self._began = self._until = 0.0

    async def rest(self) -> None:
        """Wait until the pause is over."""
        rest_s = self._until - self._clock()
        if rest_s > 0:
            await asyncio.sleep(rest_s)

    def __enter__(self) -> None:
        self._began = self._clock()

    def __exit__(self, *_: object) -> None:
        ended = self._clock()
        self._until = ended + min(self._max_s, _PAUSES * (ended - self._began))


class MetricsPage:
    """The Page of GET /metrics (collector/api/documents.py)."""

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
        """`access` is None if the process counts no tenants. `clock` returns seconds. `gather` returns the metrics of all
        processes as they are shown; None: this process is the only one. `newest` returns a value that changes with each new
        dead letter; None: dead letters are not counted here."""
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
        """Return the metrics that the page shows with names of tenants, of the same age as the page."""
        return (await self._current()).snapshot

    async def _current(self) -> _Rendered:
        """Return the state that a request gets now."""
        if self._newest is not None:
            return await self._judged(self._newest)
        rendered = self._last
        if rendered is None or self._is_over(rendered):
            rendered = await self._once("collect", self._collect)
        return rendered

    def _is_over(self, rendered: _Rendered) -> bool:
        return self._clock() >= rendered.at + self._interval_s

    async def _judged(self, newest: Callable[[], Awaitable[object]]) -> _Rendered:
        """Return the state for all requests that came before the look at it. A request that ends does not cancel the look."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._looking, newest))
        return await asyncio.shield(self._next)

    async def _after(self, looking: "asyncio.Task[_Rendered] | None", newest: Callable[[], Awaitable[object]]) -> _Rendered:
        """Return the state after the look that is under way, since that look began before some of the waiting requests."""
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
            return await self._collect(await newest())

    def _shows_names(self, scope: Scope) -> bool:
        """Return whether the page shows names of tenants to this request."""
        if self._access is None:
            return True
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in (b"x-api-key", b"authorization"):
                headers[name] = joined(headers.get(name), value)
        key = key_of(headers.get(b"x-api-key"), headers.get(b"authorization"))
        caller = None if key is None else self._access.find(key)
        return self._names_for_all or (caller is not None and caller.scope.is_admin)

    async def _collect(self, seen: object = None) -> _Rendered:
        """Look at the metrics. `seen` is the state of the dead letters before that."""
        at = self._clock()
        if self._gather is None:
            # It takes long to rank and write thousands of tenants, so the event loop only reads their counters.
            snapshot = await asyncio.to_thread(self._metrics.ranked, self._metrics.snapshot())
        else:
            snapshot = await self._gather()
            at = self._clock()  # `gather` may have waited for dead letters that are on their way
        self._last = _Rendered(snapshot, at, seen)
        return self._last

    async def _write(self, rendered: _Rendered, content_type: str, has_names: bool) -> Document:
        """Return the document of a state in one form, and keep it."""

        def text() -> bytes:
            snapshot = rendered.snapshot if has_names else without_names(rendered.snapshot)
            return self._metrics.text(snapshot, content_type)

        document = rendered.documents[(content_type, has_names)] = Document(await asyncio.to_thread(text), content_type)
        return document

    async def _once(self, key: object, make: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `make`, which is called once for all callers that wait for the same `key`. A caller that ends
        does not cancel it for others."""
        making: asyncio.Task[T] | None = self._making.get(key)
        if making is None:

            async def work() -> T:
                try:
                    return await make()
                finally:
                    del self._making[key]

            making = self._making[key] = asyncio.create_task(work())
        return await asyncio.shield(making)
