"""Show records as they are accepted or rejected, to clients that watch (`infrasage-collector tail`, GET /api/v1/tail).

A watch is a question that is asked again and again. It collects a sample between two questions, and ends when nobody asks.

Invariants:
1. If nobody watches, a request costs one comparison (the pipeline asks `is_watched`).
2. A watch holds at most _REQUESTS_MAX requests and _BYTES_MAX bytes of them, or _RECORDS_MAX rejected items. Items beyond that
   are counted, not kept (test_a_watch_is_bounded, test_a_watch_of_rejected_items_is_bounded).
3. A watch that nobody asks for ends after _LEASE_S (test_a_watch_that_nobody_asks_for_ends).
4. A watch of one tenant holds nothing of another (test_a_watch_holds_its_tenants_records_only).
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from infrasage.v1.telemetry_pb2 import TelemetryBatch, TelemetryRecord
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from adapters.errors import REASON
from adapters.record import LOGS, METRICS, TRACES, TYPE_NAMES, Adapted, Part, Rejection
from collector.query.times import rfc3339

LIVE_PATH: Final = "/api/v1/tail"
# Limits for all processes together: each holds its own part of a watch. Tenants' keys leave some watches to other keys.
WATCHES_MAX: Final = 16
TENANTS_WATCHES_MAX: Final = 12
TENANT_WATCHES_MAX: Final = 4
WATCH_NAME_MAX: Final = 64
_LEASE_S: Final = 10.0
_REQUESTS_MAX: Final = 200
_BYTES_MAX: Final = 1 << 20
# The most records in an answer of one process.
_RECORDS_MAX: Final = 200
_ATTRIBUTES_MAX: Final = 16
_TEXT_CHARACTERS_MAX: Final = 1_000


class TooManyWatches(Exception):
    """There are too many watches for another."""

    def __init__(self) -> None:
        super().__init__(
            f"too many are watching: {TENANT_WATCHES_MAX} may with keys of one tenant, {TENANTS_WATCHES_MAX} with tenants' keys"
            f" and {WATCHES_MAX} in all; end another, and try again"
        )


class Selection(NamedTuple):
    """Selects the records of a watch. None selects any value."""

    tenant: str | None
    service: str | None
    type_: str | None
    """A name of TYPE_NAMES."""
    is_rejected: bool
    """Whether rejected items are shown, in place of accepted ones."""


class Watching(NamedTuple):
    """A question: the watch's own name, unique among all, and its selection. `asker` is the tenant of the key that it came
    with; None: a key that reads everything."""

    name: str
    selection: Selection
    asker: str | None = None


class LiveAnswer(NamedTuple):
    """The records since the question before, the oldest first, as JSON documents; and how many items are not among them."""

    records: list[dict[str, Any]]
    left_out: int


Answering = Callable[[Watching], Awaitable[LiveAnswer]]


def question_of(tenant: str | None, service: str | None, type_: str | None, watch: str, *, is_rejected: bool) -> Watching:
    """Return the question for parameters. Raises ValueError, with the reason, if one is invalid."""
    if not (0 < len(watch) <= WATCH_NAME_MAX and watch.isascii() and watch.replace("-", "").isalnum()):
        raise ValueError(f"watch must be 1 to {WATCH_NAME_MAX} letters, digits and hyphens, not {watch[:100]!r}")
    if type_ is not None and type_ not in TYPE_NAMES[1:]:
        raise ValueError(f"type must be one of {', '.join(TYPE_NAMES[1:])}, not {type_[:100]!r}")
    return Watching(watch, Selection(tenant, service, type_, is_rejected))


class _Sampled(NamedTuple):
    """The parts and rejected items that are kept of a request."""

    tenant: str
    received_unix_nano: int
    parts: list[Part]
    rejected: list[dict[str, Any]]


class _Watch:
    def __init__(self, selection: Selection, asker: str | None) -> None:
        self.selection: Final = selection
        self.asker: Final = asker
        self._service: Final = None if selection.service is None else selection.service.encode()
        # The field as it is in a record. A payload without these bytes has no record of the service; with them, most likely.
        self._service_field: Final = TelemetryRecord(service_id=selection.service or "").SerializeToString()
        self._type: Final = 0 if selection.type_ is None else TYPE_NAMES.index(selection.type_)
        self._selects: Final = selection.service is not None or selection.type_ is not None
        self.expires_s = 0.0
        self.requests: list[_Sampled] = []
        self.left_out = 0
        self._items = 0
        self._size_bytes = 0
        # Set once as many accepted items are kept as can be shown, if all are wanted: under load nearly always.
        self._is_full = False

    def note(self, tenant: str, received_unix_nano: int, adapted: Adapted) -> None:
        selection = self.selection
        if selection.tenant is not None and selection.tenant != tenant:
            return
        if self._is_full:
            for part in adapted.parts:
                self.left_out += part.item_count
            return
        sampled = _Sampled(tenant, received_unix_nano, [], [])
        if selection.is_rejected:
            self._note_rejected(sampled, adapted)
        elif not self._type or adapted.accepted[self._type]:
            self._note_accepted(sampled, adapted)
        if sampled.parts or sampled.rejected:
            self.requests.append(sampled)

    def _note_accepted(self, sampled: _Sampled, adapted: Adapted) -> None:
        for part in adapted.parts:
            if self._service_field not in part.payload:
                continue
            size = len(part.payload)
            if self._is_full or len(self.requests) >= _REQUESTS_MAX or self._size_bytes + size > _BYTES_MAX:
                self.left_out += part.item_count
            else:
                self._items += part.item_count
                self._size_bytes += size
                sampled.parts.append(part)
                # Not all items of a payload may be wanted.
                self._is_full = self._items >= _RECORDS_MAX and not self._selects

    def _note_rejected(self, sampled: _Sampled, adapted: Adapted) -> None:
        if not adapted.rejected:
            return
        selected = (
            [rejection for rejection in adapted.rejections if self._is_selected(rejection)]
            if self._selects
            else adapted.rejections
        )
        shown = selected[: _RECORDS_MAX - self._items]
        self._items += len(shown)
        if self._service is None:
            counted = sum(count for (type_, _), count in adapted.rejected.items() if self._type in (0, type_))
        else:
            counted = len(selected)  # the service of rejected items that were not kept is not known
        self.left_out += counted - len(shown)
        for rejection in shown:
            sampled.rejected.append(
                {
                    "type": TYPE_NAMES[rejection.type],
                    "service": rejection.service_id.decode(errors="replace")[:_TEXT_CHARACTERS_MAX],
                    "reason": REASON[rejection.reason].name,
                    "message": rejection.message[:_TEXT_CHARACTERS_MAX],
                    "index": rejection.index,
                }
            )

    def _is_selected(self, rejection: Rejection) -> bool:
        return self._type in (0, rejection.type) and self._service in (None, rejection.service_id)

    def take(self) -> tuple[list[_Sampled], int]:
        taken = self.requests, self.left_out
        self.requests = []
        self.left_out = 0
        self._items = 0
        self._size_bytes = 0
        self._is_full = False
        return taken


class LiveRecords:
    """Keeps the watches of one process. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock: Final = clock
        self._watches: Final[dict[str, _Watch]] = {}
        # When the first watch may end.
        self._look_s = math.inf
        self.is_watched = False

    def note(self, tenant: str, received_unix_nano: int, adapted: Adapted) -> None:
        """Note a request whose accepted items are durable."""
        if self._clock() > self._look_s:
            self._end_unwatched()
        for watch in self._watches.values():
            watch.note(tenant, received_unix_nano, adapted)

    async def answer(self, watching: Watching) -> LiveAnswer:
        """Return the records that this process has for a watch. The first question begins it. Raises TooManyWatches."""
        self._end_unwatched()
        watch = self._watches.get(watching.name)
        if watch is None or watch.selection != watching.selection:
            if watch is None and not self._has_room(watching.asker):
                raise TooManyWatches
            watch = self._watches[watching.name] = _Watch(watching.selection, watching.asker)
            self.is_watched = True
        watch.expires_s = self._clock() + _LEASE_S
        self._look_s = min(self._look_s, watch.expires_s)
        requests, left_out = watch.take()
        if not requests:
            return LiveAnswer([], left_out)
        return await asyncio.to_thread(_answer, watching.selection, requests, left_out)

    def _has_room(self, asker: str | None) -> bool:
        """Return whether `asker` may begin another watch. No tenant can use up the watches of others, and all tenants together
        can't use up those for keys that read everything."""
        askers = [watch.asker for watch in self._watches.values() if watch.asker is not None]
        is_tenants_room = len(askers) < TENANTS_WATCHES_MAX and askers.count(str(asker)) < TENANT_WATCHES_MAX
        return len(self._watches) < WATCHES_MAX and (asker is None or is_tenants_room)

    def _end_unwatched(self) -> None:
        now_s = self._clock()
        for name in [name for name, watch in self._watches.items() if watch.expires_s < now_s]:
            del self._watches[name]
        self._look_s = min((watch.expires_s for watch in self._watches.values()), default=math.inf)
        self.is_watched = bool(self._watches)


def combined(answers: list[LiveAnswer]) -> LiveAnswer:
    """Return one answer from those of several processes."""
    records = [record for answer in answers for record in answer.records]
    return LiveAnswer(sorted(records, key=lambda record: str(record["received"])), sum(answer.left_out for answer in answers))


def _answer(selection: Selection, requests: list[_Sampled], left_out: int) -> LiveAnswer:
    """Decode the sampled requests. This is not done on the event loop."""
    records: list[dict[str, Any]] = []
    for request in requests:
        head = {"received": rfc3339(request.received_unix_nano), "tenant": request.tenant}
        records += [{**head, **document} for document in request.rejected]
        for signal, record in _accepted(selection, request):
            about = {**head, "type": TYPE_NAMES[record.type], "service": record.service_id}
            shown = [{**about, **item} for item in islice(_items(signal, record), _RECORDS_MAX - len(records))]
            records += shown
            left_out += max(record.item_count - len(shown), 0)
    return LiveAnswer(records, left_out)


def _accepted(selection: Selection, request: _Sampled) -> Iterator[tuple[int, TelemetryRecord]]:
    """Yield the selected records of a request, each with its signal."""
    for part in request.parts:
        for record in TelemetryBatch.FromString(part.payload).records:
            if selection.service in (None, record.service_id) and selection.type_ in (None, TYPE_NAMES[record.type]):
                yield part.signal, record


def _items(signal: int, record: TelemetryRecord) -> Iterator[dict[str, Any]]:
    """Yield the items of a record, decoded one by one, since most items of a large record are not shown."""
    shown = _SHOWN[signal]
    for group in record.groups:
        for item in group.items:
            yield from shown(item)


def _log(item: bytes) -> Iterator[dict[str, Any]]:
    log = LogRecord.FromString(item)
    yield {
        "time": _time(log.time_unix_nano or log.observed_time_unix_nano),
        "severity": log.severity_text,
        "body": log.body.string_value[:_TEXT_CHARACTERS_MAX],
        "trace_id": log.trace_id.hex(),
        "attributes": _attributes(log.attributes),
    }


def _span(item: bytes) -> Iterator[dict[str, Any]]:
    span = Span.FromString(item)
    yield {
        "time": _time(span.start_time_unix_nano),
        "name": span.name[:_TEXT_CHARACTERS_MAX],
        "duration_ns": span.end_time_unix_nano - span.start_time_unix_nano,
        "trace_id": span.trace_id.hex(),
        "attributes": _attributes(span.attributes),
    }


def _points(item: bytes) -> Iterator[dict[str, Any]]:
    metric = Metric.FromString(item)
    kind = metric.WhichOneof("data")
    for point in getattr(metric, kind).data_points if kind else ():
        document: dict[str, Any] = {"time": _time(point.time_unix_nano), "name": metric.name[:_TEXT_CHARACTERS_MAX]}
        if kind in ("gauge", "sum"):
            value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
            document["value"] = value if math.isfinite(value) else str(value)
        else:
            document |= {"count": point.count, "sum": str(point.sum)}
        yield {**document, "kind": kind, "attributes": _attributes(point.attributes)}


_SHOWN: Final[Mapping[int, Callable[[bytes], Iterator[dict[str, Any]]]]] = {METRICS: _points, LOGS: _log, TRACES: _span}


def _time(unix_nano: int) -> str:
    """Return a time as text; empty if there is none."""
    return rfc3339(unix_nano) if unix_nano else ""


def _attributes(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Return the first attributes. In records each value is a string."""
    shown = islice(attributes, _ATTRIBUTES_MAX)
    return {pair.key[:_TEXT_CHARACTERS_MAX]: pair.value.string_value[:_TEXT_CHARACTERS_MAX] for pair in shown}
