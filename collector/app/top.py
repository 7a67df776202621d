"""Computes what the command `top` shows of a running collector, from the answers of its public pages. No I/O, no clock.

Health, limits, lag and audit are computed as for the web page (collector/api/web/overview.py).

Invariants:
1. If the collector shows the same page twice (http.metrics_interval_s), no rate changes
   (test_a_page_that_is_shown_twice_changes_no_rate).
2. After a restart of the collector no rate is negative, and no rate includes time before the restart
   (test_rates_survive_a_restart).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from collector.api.health import KAFKA, NOT_USED, Health
from collector.api.web.overview import Lag, Overview, overview
from collector.broker.contract import DEAD_LETTERS_TOPIC, SIGNAL_TOPICS
from collector.ingest import endpoints
from collector.telemetry.aggregate import Snapshot
from collector.telemetry.instruments import STATUSES, TENANT_REQUEST_STATUSES
from collector.telemetry.rates import Rates, remembering
from collector.telemetry.tenant_ranking import NO_NAMES, THE_REST

# Rates are averages over this time, or over the interval of `top` if it is longer. Values in /metrics may be a second old.
RATES_OVER_S: Final = 10.0

_JSON: Final = "JSON"
_SIGNALS: Final = {
    endpoints.OTLP_METRICS: "metrics",
    endpoints.REMOTE_WRITE: "metrics",
    endpoints.export(endpoints.METRICS_SERVICE): "metrics",
    endpoints.OTLP_LOGS: "logs",
    endpoints.export(endpoints.LOGS_SERVICE): "logs",
    endpoints.OTLP_TRACES: "traces",
    endpoints.export(endpoints.TRACES_SERVICE): "traces",
    # One request may have items of every type. Requests and bytes count as JSON, items by their type.
    endpoints.NATIVE: _JSON,
    endpoints.NATIVE_BATCH: _JSON,
}
# The counters of reasons: the text that is shown, the name of the counter, and the label with the reason.
_REASONS: Final = (
    ("rejected items", "validation_failures", "reason"),
    ("items not kept as dead letters", "dlq_not_kept", "reason"),
    ("refused requests", "requests_refused", "reason"),
    ("repaired", "repaired", "reason"),
    ("requests answered as before", "repeated_requests", ""),
    ("repeated messages left out", "writer_repeated_messages", "topic"),
    ("requests not kept", "append_errors", "kind"),
    ("batches not produced", "produce_errors", "kind"),
    ("inserts failed", "writer_errors", "kind"),
    ("items refused by the store", "store_refused", "source"),
)
_TYPES: Final = {"metric": "metrics", "log": "logs", "trace": "traces"}
_LIMITED: Final = "limited_by_"


class PolledPages(NamedTuple):
    """The answers of /healthz and /metrics at one time. `at_s` is by a monotonic clock, `unix_s` in seconds since 1970."""

    at_s: float
    unix_s: float
    status: str
    version: str
    uptime_s: float
    health: Health
    snapshot: Snapshot


class DeadLetterStats(NamedTuple):
    """The answer of GET /api/v1/debug/dlq-stats. `messages_behind` is the number of messages of all gateways that are not
    stored yet."""

    open: int
    messages_behind: int


class SignalRates(NamedTuple):
    """The received requests, bytes and items of one signal, each a second. A rate is None if it is not known yet. `items` are
    by status."""

    name: str
    requests: float | None
    size_bytes: float | None
    items: Mapping[str, float | None]


class TopicRates(NamedTuple):
    """The messages of one topic that are produced and stored, in messages and bytes a second.

    A value is None if this collector does not produce or store, or if the value is not known yet."""

    name: str
    produced: float | None
    stored: float | None
    stored_bytes: float | None
    lag: Lag | None
    newest_age_s: float | None


class TenantRates(NamedTuple):
    """The requests, bytes and items of one tenant, each a second. `limited_by` is the dimension of its plan that limits most
    requests, "" if none does."""

    name: str
    requests: float | None
    size_bytes: float | None
    accepted: float | None
    rejected: float | None
    refused: float | None
    limited: float | None
    limited_by: str
    failed: float | None


class ReasonRates(NamedTuple):
    """How often one reason was counted. `kind` is a text of _REASONS. `total` is the count since the start."""

    kind: str
    reason: str
    per_s: float | None
    total: float


class TopView(NamedTuple):
    """Everything that `top` shows. `produces` is whether the collector produces into Kafka, `writes` whether it writes to the
    store. `tenants` are sorted, the busiest first; `has_names` is whether they are shown by their names.

    `dead_letters` is the number of open dead letters; None if it is not known."""

    role: str
    produces: bool
    writes: bool
    version: str
    overview: Overview
    processes: float
    restarts: float
    rates_over_s: float | None
    signals: Sequence[SignalRates]
    topics: Sequence[TopicRates]
    tenants: Sequence[TenantRates]
    has_names: bool
    reasons: Sequence[ReasonRates]
    dead_letters: float | None
    messages_behind: int | None


class RateHistory:
    """Keeps the answers from which rates are computed: those of the last RATES_OVER_S, and always the newest one."""

    def __init__(self) -> None:
        self._kept: list[PolledPages] = []
        self._page: Snapshot | None = None
        self._before: PolledPages | None = None

    def add(self, now: PolledPages, stats: DeadLetterStats | None = None) -> TopView:
        """Add the newest answer, and return the view with its rates."""
        if now.snapshot == self._page:
            # The same page as before (http.metrics_interval_s): its time is when it was first read.
            return view_of(self._before, now._replace(at_s=self._kept[-1].at_s), stats)
        last = self._kept[-1] if self._kept else None
        is_restarted = last is not None and Rates(last.snapshot, now.snapshot, 0).is_restarted
        if is_restarted:
            self._kept = self._kept[-1:]
        else:
            recent = [old for old in self._kept if old.at_s >= now.at_s - RATES_OVER_S]
            self._kept = recent or self._kept[-1:]
        self._before = self._kept[0] if self._kept else None
        self._page = now.snapshot
        view = view_of(self._before, now, stats)
        if is_restarted:
            self._kept = []
        self._kept.append(now if last is None else now._replace(snapshot=remembering(last.snapshot, now.snapshot)))
        return view


def view_of(before: PolledPages | None, now: PolledPages, stats: DeadLetterStats | None = None) -> TopView:
    """Return the view of `now`. Rates are since `before`, an earlier answer of the same collector; if it is None, rates are not
    known."""
    seconds = 0.0 if before is None else now.at_s - before.at_s
    rates = Rates(None if before is None else before.snapshot, now.snapshot, seconds)
    found: Overview = overview(now.snapshot, now.health, now.uptime_s, now.unix_s)._replace(status=now.status)
    receives = any(
        labels.get("endpoint") in _SIGNALS for labels, _, _ in rates.of("infrasage_http_request_duration_seconds_count")
    )
    writes = now.health.store != NOT_USED
    produces = receives and now.health.broker == KAFKA
    return TopView(
        role="serve" if receives and writes else "gateway" if receives else "writer",
        produces=produces,
        writes=writes,
        version=now.version,
        overview=found,
        processes=_total(rates, "infrasage_processes"),
        restarts=_total(rates, "infrasage_process_restarts_total"),
        rates_over_s=rates.seconds,
        signals=_signals(rates) if receives else (),
        topics=_topics(rates, found, produces=produces, writes=writes),
        tenants=_tenants(rates),
        has_names=not rates.hides("infrasage_tenant_requests", NO_NAMES),
        reasons=_reasons(rates),
        dead_letters=_total(rates, "infrasage_dlq_depth") if writes else None if stats is None else stats.open,
        messages_behind=None if stats is None or writes else stats.messages_behind,
    )


def _total(rates: Rates, name: str) -> float:
    return sum(value for _, value, _ in rates.of(name))


class _Sums:
    """Sums of counters' rates, by row and column. A rate is None if it is not known."""

    def __init__(self, rates: Rates, rows: Iterable[str] = ()) -> None:
        self._rates: Final = rates
        self.totals: Final[dict[str, float]] = dict.fromkeys(rows, 0.0)
        self._growth: Final[dict[tuple[str, str], float]] = {}
        self._unknown: Final[set[str]] = set()

    def add(
        self,
        name: str,
        row: str,
        column: str = "",
        *,
        by: str = "",
        renamed: Callable[[str], str | None] = str,
    ) -> None:
        """Add the values of a counter. The value of the label `row`, passed through `renamed`, names the row; None leaves the
        value out. The value of the label `by`, if any, is appended to the column's name."""
        for labels, value, per_s in self._rates.of(f"infrasage_{name}_total"):
            where = renamed(labels.get(row, ""))
            if where is None:
                continue
            self.totals[where] = self.totals.get(where, 0.0) + value
            if per_s is None:
                self._unknown.add(where)
            else:
                key = where, column + labels.get(by, "")
                self._growth[key] = self._growth.get(key, 0.0) + per_s

    def of(self, row: str, column: str) -> float | None:
        """Return the sum of a row and column, a second; None if it is not known."""
        if self._rates.seconds is None or row in self._unknown:
            return None
        return self._growth.get((row, column), 0.0)


def _signals(rates: Rates) -> list[SignalRates]:
    sums = _Sums(rates, (*_TYPES.values(), _JSON))
    sums.add("http_requests", "endpoint", "requests", renamed=_SIGNALS.get)
    sums.add("grpc_requests", "method", "requests", renamed=_SIGNALS.get)
    sums.add("http_request_body_bytes", "endpoint", "bytes", renamed=_SIGNALS.get)
    sums.add("grpc_request_bytes", "method", "bytes", renamed=_SIGNALS.get)
    sums.add("ingestion_events", "type", by="status", renamed=lambda type_: _TYPES.get(type_, type_))
    return [
        SignalRates(
            name,
            sums.of(name, "requests"),
            sums.of(name, "bytes"),
            {status: None if name == _JSON else sums.of(name, status) for status in STATUSES},
        )
        for name, total in sums.totals.items()
        if total or name in _TYPES.values()
    ]


def _topics(rates: Rates, found: Overview, *, produces: bool, writes: bool) -> list[TopicRates]:
    signals = {topic: signal for signal, topic in SIGNAL_TOPICS.items()}
    lags = {lag.topic: lag for lag in found.lags or ()}
    sums = _Sums(rates)
    sums.add("produce_messages", "topic", "produced")
    sums.add("writer_messages", "topic", "stored")
    sums.add("writer_bytes", "topic", "bytes")
    names = dict.fromkeys((*SIGNAL_TOPICS.values(), DEAD_LETTERS_TOPIC, *sums.totals, *lags))
    return [
        TopicRates(
            topic.removeprefix("infrasage."),
            sums.of(topic, "produced") if produces else None,
            sums.of(topic, "stored") if writes else None,
            sums.of(topic, "bytes") if writes else None,
            lags.get(topic),
            found.ages.get(signals.get(topic, "")),
        )
        for topic in names
    ]


def _tenants(rates: Rates) -> list[TenantRates]:
    sums = _Sums(rates)
    sums.add("tenant_requests", "tenant", "requests ", by="status")
    sums.add("tenant_items", "tenant", "items ", by="status")
    sizes = dict(sums.totals)
    sums.add("tenant_bytes", "tenant", "bytes")
    rows = []
    for name in sizes:
        by_status = {status: sums.of(name, f"requests {status}") for status in TENANT_REQUEST_STATUSES}
        limited = {
            status.removeprefix(_LIMITED): per_s for status, per_s in by_status.items() if status.startswith(_LIMITED) and per_s
        }
        rows.append(
            TenantRates(
                name,
                _sum(by_status.values()),
                sums.of(name, "bytes"),
                sums.of(name, "items accepted"),
                sums.of(name, "items rejected"),
                by_status["refused"],
                _sum(per_s for status, per_s in by_status.items() if status.startswith(_LIMITED)),
                max(limited, key=lambda dimension: limited[dimension], default=""),
                by_status["failed"],
            )
        )
    # The busiest tenants come first; of tenants that send nothing now, those that have sent most. Tenants without a name are
    # last.
    return sorted(rows, key=lambda row: (row.name == THE_REST, -(row.accepted or 0), -(row.requests or 0), -sizes[row.name]))


def _sum(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _reasons(rates: Rates) -> list[ReasonRates]:
    rows = []
    for kind, name, label in _REASONS:
        sums = _Sums(rates)
        sums.add(name, label)
        rows += [ReasonRates(kind, reason, sums.of(reason, ""), total) for reason, total in sums.totals.items() if total]
    return sorted(rows, key=lambda row: (-(row.per_s or 0), -row.total))
