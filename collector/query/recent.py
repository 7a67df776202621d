"""Read recent telemetry: items by minute, tenant and reason, and the latest logs and spans.

Every statement names a span of time and a number of rows, so its cost does not grow with the age of the store.

Invariants:
1. A tenant sees only its own rows: every statement has the tenant's condition (test_a_tenant_sees_its_own_rows_only).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from collector.query.reader import Reader, Value

WINDOW_MINUTES: Final = 60
TENANTS_MAX: Final = 20
ROWS_MAX: Final = 100
SPANS_MAX: Final = 1000
# How much of a log's body a list shows.
BODY_CHARS_MAX: Final = 2000
# A trace's spans are looked for from so long before its known start until so long after its known end.
_TRACE_HOURS: Final = 24

Row = Mapping[str, Any]


class Minute(NamedTuple):
    """Items that arrived within one minute, by type."""

    unix_s: int
    accepted: Mapping[str, int]
    rejected: int


class OfTenant(NamedTuple):
    """The requests and items that a tenant sent within the window."""

    tenant: str
    requests: int
    accepted: int
    rejected: int


class Sample(NamedTuple):
    """The latest dead letter of a reason."""

    id: str
    tenant: str
    service: str
    message: str
    kept_unix_nano: int


class Inflow(NamedTuple):
    """The items of the last WINDOW_MINUTES. `tenants` has the largest, if all tenants are shown. `samples` are by reason."""

    minutes: Sequence[Minute]
    rejected: Mapping[str, int]
    repaired: Mapping[str, int]
    requests: int
    tenants: Sequence[OfTenant]
    samples: Mapping[str, Sample]


class Search(NamedTuple):
    """Selects logs or spans: of `tenant`, or, if None, of all. `text` is a part of the body or name, or a trace's id."""

    tenant: str | None
    minutes: int
    text: str = ""
    service: str = ""


class RecentTelemetry:
    """Asks the store, without waiting for messages that are not stored yet. Every method raises StoreError."""

    def __init__(self, reader: Reader) -> None:
        self._reader: Final = reader

    async def inflow(self, tenant: str | None) -> Inflow:
        """Return the recent items of a tenant, or of all."""
        values: dict[str, Value] = {"tenant": tenant or "", "minutes": WINDOW_MINUTES, "limit": TENANTS_MAX}
        mine = _of(tenant)
        by_minute = await self._reader.rows_now(
            f"""SELECT toUnixTimestamp(toStartOfMinute(ReceivedAt)) AS minute, sumMap(Accepted) AS accepted,
                sumMap(Rejected) AS rejected, sumMap(Repaired) AS repaired, countIf(Received != 0) AS requests
            FROM telemetry_batches WHERE ReceivedAt >= now64(9) - toIntervalMinute({{minutes}}) AND {mine}
            GROUP BY minute ORDER BY minute""",  # noqa: S608  # our own words
            values,
        )
        tenants: list[dict[str, Any]] = []
        if tenant is None:
            tenants = await self._reader.rows_now(
                """SELECT TenantId AS tenant, countIf(Received != 0) AS requests,
                    sum(arraySum(mapValues(Accepted))) AS accepted, sum(arraySum(mapValues(Rejected))) AS rejected
                FROM telemetry_batches WHERE ReceivedAt >= now64(9) - toIntervalMinute({minutes})
                GROUP BY tenant ORDER BY accepted + rejected DESC, tenant LIMIT {limit}""",
                values,
            )
        samples = await self._reader.rows_now(
            f"""SELECT Reason AS reason, argMax(toString(Id), KeptAt) AS id, argMax(TenantId, KeptAt) AS tenant,
                argMax(ServiceName, KeptAt) AS service, argMax(Message, KeptAt) AS message,
                toUnixTimestamp64Nano(max(KeptAt)) AS kept
            FROM telemetry_dead_letters WHERE KeptAt >= now64(9) - toIntervalMinute({{minutes}}) AND {mine}
            GROUP BY Reason""",  # noqa: S608  # our own words
            values,
        )
        rejected: Counter[str] = Counter()
        repaired: Counter[str] = Counter()
        minutes = []
        for row in by_minute:
            of_minute = _counts(row["rejected"])
            rejected.update(of_minute)
            repaired.update(_counts(row["repaired"]))
            minutes.append(Minute(int(row["minute"]), _counts(row["accepted"]), sum(of_minute.values())))
        return Inflow(
            minutes,
            dict(rejected.most_common()),
            dict(repaired.most_common()),
            sum(int(row["requests"]) for row in by_minute),
            [OfTenant(row["tenant"], *(int(row[name]) for name in ("requests", "accepted", "rejected"))) for row in tenants],
            {
                row["reason"]: Sample(row["id"], row["tenant"], row["service"], row["message"], int(row["kept"]))
                for row in samples
            },
        )

    async def audit_findings(self) -> Sequence[Row]:
        """Return the open findings of audits of all tenants: `difference`, and `start` and `end` in nanoseconds."""
        return await self._reader.rows_now(
            """SELECT toUnixTimestamp64Nano(WindowStart) AS start, toUnixTimestamp64Nano(WindowEnd) AS end,
                toFloat64(Difference) AS difference
            FROM telemetry_audit_findings FINAL WHERE State = 'open' ORDER BY WindowStart LIMIT {limit}""",
            {"limit": ROWS_MAX},
        )

    async def logs(self, search: Search) -> Sequence[Row]:
        """Return at most ROWS_MAX logs, the newest first. Each has at_unix_nano, tenant, service, severity, body, trace_id and
        type."""
        conditions, values = _conditions(search)
        if search.text:
            conditions.append("(positionCaseInsensitiveUTF8(Body, {text}) > 0 OR TraceId = lower({text}))")
        return await self._reader.rows_now(
            f"""SELECT toUnixTimestamp64Nano(Timestamp) AS at_unix_nano, TenantId AS tenant, ServiceName AS service,
                if(SeverityText = '', if(SeverityNumber = 0, '', toString(SeverityNumber)), SeverityText) AS severity,
                substringUTF8(Body, 1, {{chars}}) AS body, TraceId AS trace_id, Type AS type
            FROM otel_logs WHERE {" AND ".join(conditions)} ORDER BY Timestamp DESC LIMIT {{limit}}""",  # noqa: S608  # our own
            {**values, "chars": BODY_CHARS_MAX},
        )

    async def spans(self, search: Search) -> Sequence[Row]:
        """Return at most ROWS_MAX spans, the newest first: those without a parent, or, with a text, all that match."""
        conditions, values = _conditions(search)
        if search.text:
            conditions.append("(positionCaseInsensitiveUTF8(SpanName, {text}) > 0 OR TraceId = lower({text}))")
        else:
            conditions.append("ParentSpanId = ''")
        return await self._reader.rows_now(
            f"SELECT {_SPAN} FROM otel_traces WHERE {' AND '.join(conditions)} "  # noqa: S608  # our own
            "ORDER BY Timestamp DESC LIMIT {limit}",
            values,
        )

    async def trace(self, trace_id: str, tenant: str | None) -> Sequence[Row]:
        """Return the spans of a trace, in the order in which they began, at most SPANS_MAX."""
        values: dict[str, Value] = {"trace": trace_id, "tenant": tenant or "", "hours": _TRACE_HOURS, "limit": SPANS_MAX}
        one = f"TraceId = {{trace}} AND {_of(tenant)}"
        return await self._reader.rows_now(
            f"""SELECT {_SPAN} FROM otel_traces WHERE {one}
            AND Timestamp >= (SELECT min(Start) FROM otel_traces_trace_id_ts WHERE {one}) - toIntervalHour({{hours}})
            AND Timestamp <= (SELECT max(End) FROM otel_traces_trace_id_ts WHERE {one}) + toIntervalHour({{hours}})
            ORDER BY Timestamp LIMIT {{limit}}""",  # noqa: S608  # our own
            values,
        )


_SPAN: Final = """toUnixTimestamp64Nano(Timestamp) AS at_unix_nano, TenantId AS tenant, ServiceName AS service,
    SpanName AS name, SpanKind AS kind, toString(Duration) AS duration_ns, StatusCode AS status,
    StatusMessage AS status_message, TraceId AS trace_id, SpanId AS span_id, ParentSpanId AS parent_span_id"""


def _conditions(search: Search) -> tuple[list[str], dict[str, Value]]:
    conditions = ["Timestamp >= now64(9) - toIntervalMinute({minutes})", _of(search.tenant)]
    if search.service:
        conditions.append("ServiceName = {service}")
    return conditions, {
        "minutes": search.minutes,
        "tenant": search.tenant or "",
        "text": search.text,
        "service": search.service,
        "limit": ROWS_MAX,
    }


def _of(tenant: str | None) -> str:
    return "TRUE" if tenant is None else "TenantId = {tenant}"


def _counts(map_: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(number) for name, number in map_.items() if int(number)}
