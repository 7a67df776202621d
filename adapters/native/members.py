"""The members of a record, and the unknown members that a record may have in addition or in their place."""

from typing import Final

from mypy_extensions import i64

from adapters.codec.text import quoted
from adapters.errors import (
    MISSING_BODY,
    MISSING_METRIC_NAME,
    MISSING_SERVICE_ID,
    MISSING_TIMESTAMP,
    MISSING_VALUE,
    REASON,
)

# Their order is that of their numbers in adapters/native/scan.py.
MEMBERS: Final = ("service_id", "type", "metric_name", "value", "timestamp", "body", "trace_id", "attributes")
_KNOWN: Final = frozenset(MEMBERS)
_MISSING: Final = frozenset({MISSING_SERVICE_ID, MISSING_METRIC_NAME, MISSING_VALUE, MISSING_BODY, MISSING_TIMESTAMP})
_SHOWN_MAX: Final = 3
_OTLP_ROUTES: Final = {
    **dict.fromkeys(("resourceSpans", "resource_spans"), "/v1/traces"),
    **dict.fromkeys(("resourceLogs", "resource_logs"), "/v1/logs"),
    **dict.fromkeys(("resourceMetrics", "resource_metrics"), "/v1/metrics"),
}


def unknown_members(record: dict[str, object]) -> int:
    """Return the number of members that the API does not have; null is absent."""
    unknown = 0
    for name, value in record.items():
        if value is not None and name not in _KNOWN:
            unknown += 1
    return unknown


def otlp_hint(name: str) -> str:
    """Return a hint to the route of a body that has a member `name`; "" if OTLP has no such name."""
    route = _OTLP_ROUTES.get(name)
    return "" if route is None else f"this is OTLP, which is for {route}"


def missing_member_message(reason: i64, record: dict[str, object]) -> str:
    """Return a message for a record that lacks a member, with the unknown members that it has in its place; "" if it has none,
    or the reason is another."""
    if reason not in _MISSING:
        return ""
    required = REASON[reason].meaning
    unknown: list[str] = []
    for name, value in record.items():
        if name in _KNOWN or value is None:
            continue
        hint = otlp_hint(name)
        if not hint and name == "records" and isinstance(value, list):
            hint = "send an array of records to /api/v1/telemetry/batch, by itself"
        if hint:
            return f"{required}; {hint}"
        if len(unknown) < _SHOWN_MAX:
            unknown.append(quoted(name))
    return f"{required}; a record has no member {', '.join(unknown)}" if unknown else ""
