"""The parts of the overview page that come from the process's own health and metrics."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from collector.api.health import NOT_USED, Health, status_of
from collector.telemetry.aggregate import Snapshot
from collector.telemetry.instruments import STATUSES

# The shares of a limit from which it is shown in yellow, and in red.
WARN_SHARE: Final = 0.8
BAD_SHARE: Final = 0.95


class OverviewPart(NamedTuple):
    """A part that the collector depends on. `detail` says which kind it is, or what it is for."""

    name: str
    state: str
    is_ok: bool
    detail: str


class Used(NamedTuple):
    """How much of a limit is in use. `unit` is bytes or count. `setting` changes the limit."""

    name: str
    used: float
    limit: float
    unit: str
    setting: str

    @property
    def share(self) -> float:
        """Return the used part of the limit, from 0 to 1; 0 if there is no limit."""
        return min(self.used / self.limit, 1.0) if self.limit else 0.0


class Lag(NamedTuple):
    """The messages of one topic that are acknowledged, but not stored yet. `seconds` is the age of the oldest."""

    topic: str
    messages: float
    seconds: float


class Audited(NamedTuple):
    """The result of scheduled audits.

    `difference` is that of all findings that are neither confirmed nor explained; with 0, everything adds up. `from_unix_s` is
    when the earliest of them arrived. Requests until `until_unix_s` were judged; None: none since the start. `seconds` is the
    duration of the last audit."""

    difference: float
    from_unix_s: float | None
    until_unix_s: float | None
    seconds: float


class Overview(NamedTuple):
    """The state of the process. `received` are items since the start, by type and status. `lags` is None if this process does
    not write to a store. `ages` are those of the newest stored items, in seconds, by signal."""

    status: str
    parts: Sequence[OverviewPart]
    uptime_s: float
    received: Mapping[str, Mapping[str, float]]
    reasons: Mapping[str, float]
    used: Sequence[Used]
    lags: Sequence[Lag] | None
    ages: Mapping[str, float]
    audited: Audited | None
    audits_failed: float
    now_unix_s: float


# The name of a limit, the gauge of its use, the gauge of the limit, the unit, and the setting that changes the limit.
_LIMITS: Final = (
    (
        "requests in flight",
        "infrasage_in_flight_bytes",
        "infrasage_in_flight_limit_bytes",
        "bytes",
        "broker.in_flight_bytes_max",
    ),
    ("local log", "infrasage_log_bytes", "infrasage_log_limit_bytes", "bytes", "local_log.bytes_max"),
    ("HTTP connections", "infrasage_http_connections", "infrasage_http_connections_limit", "count", "http.connections_max"),
    ("gRPC connections", "infrasage_grpc_connections", "infrasage_grpc_connections_limit", "count", "grpc.connections_max"),
    ("file descriptors", "process_open_fds", "process_max_fds", "count", "the limit of the operating system (ulimit -n)"),
)


def overview(snapshot: Snapshot, health: Health, uptime_s: float, now_unix_s: float) -> Overview:
    """Return the overview of a snapshot of metrics and the health."""
    metrics = _Samples(snapshot)
    received: dict[str, dict[str, float]] = {}
    for labels, value in metrics.of("infrasage_ingestion_events_total"):
        if value:
            received.setdefault(labels["type"], dict.fromkeys(STATUSES, 0.0))[labels["status"]] = value
    reasons = {labels["reason"]: value for labels, value in metrics.of("infrasage_validation_failures_total") if value}
    difference = metrics.one("infrasage_audit_difference")
    return Overview(
        status_of(health, receives=True),
        [*_parts(health, metrics)],
        uptime_s,
        received,
        dict(sorted(reasons.items(), key=lambda item: -item[1])),
        [*_used(metrics)],
        _lags(metrics) if health.store != NOT_USED else None,
        dict(sorted((labels["signal"], value) for labels, value in metrics.of("infrasage_store_newest_item_age_seconds"))),
        None
        if difference is None
        else Audited(
            difference,
            metrics.one("infrasage_audit_difference_timestamp_seconds"),
            metrics.one("infrasage_audit_timestamp_seconds"),
            metrics.one("infrasage_audit_duration_seconds") or 0.0,
        ),
        sum(v for labels, v in metrics.of("infrasage_audits_total") if labels["result"] in ("failed", "not_judged")),
        now_unix_s,
    )


class _Samples:
    """Finds samples of a snapshot by their names."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._families: Final = {family.name: family for family in snapshot}

    def of(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Yield the labels and the value of each sample with this name."""
        family = self._families.get(name.removesuffix("_total")) or self._families.get(name)
        for (sample, labels), value in () if family is None else family.samples.items():
            if sample == name:
                yield dict(labels), value

    def one(self, name: str) -> float | None:
        """Return the value of the first sample with this name, for metrics without labels; None if there is none."""
        return next((value for _, value in self.of(name)), None)


def _parts(health: Health, metrics: _Samples) -> Iterator[OverviewPart]:
    yield OverviewPart("broker", health.kafka, health.kafka == "ok", health.broker)
    if health.store != NOT_USED:
        yield OverviewPart("store", health.clickhouse, health.clickhouse == "ok", health.store)
    if health.log != NOT_USED:
        yield OverviewPart("log files", health.log, health.log == "ok", "local log")
    details = {"keys": "API keys", "redis": "shared limits of plans"}
    for labels, value in metrics.of("infrasage_up"):
        if (detail := details.get(labels["part"])) is not None:
            yield OverviewPart(labels["part"], "ok" if value else "unavailable", bool(value), detail)


def _used(metrics: _Samples) -> Iterator[Used]:
    for name, used, limit, unit, setting in _LIMITS:
        value, most = metrics.one(used), metrics.one(limit)
        if value is not None and most:
            yield Used(name, value, most, unit, setting)
    size, free, reserve = (metrics.one(f"infrasage_disk_{what}_bytes") for what in ("size", "free", "reserve"))
    if size and free is not None:
        yield Used("disk of the data directory", size - free, size - (reserve or 0.0), "bytes", "local_log.reserve_percent")


def _lags(metrics: _Samples) -> list[Lag]:
    messages: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for labels, value in metrics.of("infrasage_log_lag_messages"):
        messages[labels["topic"]] = messages.get(labels["topic"], 0.0) + value
    for labels, value in metrics.of("infrasage_log_lag_seconds"):
        seconds[labels["topic"]] = max(seconds.get(labels["topic"], 0.0), value)
    return [Lag(topic, found, seconds.get(topic, 0.0)) for topic, found in sorted(messages.items())]
