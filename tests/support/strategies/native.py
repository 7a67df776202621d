"""Hypothesis strategies for the native JSON API: records as senders make them, and beside the rules."""

from typing import Any

from hypothesis import strategies as st

NOW_TEXT = "2026-04-10T12:00:00Z"

_texts = st.text(st.characters(codec="utf-8"), max_size=8)
_numbers = st.one_of(
    st.sampled_from([0, -0.0, 87.3, 1, -1, 2**53 + 1, 2**63, 2**64 - 1, 5e-324, 1e300, 1e16, 0.1]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**64 - 1),
)
_scalars = st.one_of(st.none(), st.booleans(), _numbers, _texts)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3), max_leaves=6
)
_wrong = st.sampled_from([None, True, 5, 1.5, "x", [], {}, ["x"], {"a": 1}])
_hex = ["ab" * 16, "AB" * 16, "0" * 32, "ab", "g" * 32, "ab " * 10 + "ab", "", "é" * 32]
_hours = ["11:59:59", "12:10:00", "12:10:01", "23:59:60", "24:00:00", "12:60:00", "12:00:60"]
_times = st.one_of(
    st.sampled_from([NOW_TEXT] * 12),
    st.sampled_from(
        [
            "2026-04-10t12:00:00.123456789z",
            "2026-04-10T14:00:00.1234567899999+02:00",
            "2026-04-10T06:30:00.5-05:30",
            "2026-04-09T12:00:00Z",
            "2026-04-09T11:59:59.999999999Z",
            "2026-04-10T12:00:00",
            "2026-04-10 12:00:00Z",
            "2026-02-29T12:00:00Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999-23:59",
            "1970-01-01T00:00:00Z",
            "2026-04-10T12:00:00.Z",
            "２026-04-10T12:00:00Z",
            "",
        ]
    ),
    st.builds(
        "2026-04-{:02}T{}{}".format, st.integers(9, 11), st.sampled_from(_hours), st.sampled_from(["Z", "+00:00", "-00:00"])
    ),
    _texts,
)
_keys = st.one_of(
    st.sampled_from(
        ["region", "env", "severity", "level", "severity_text", "event.name", "infrasage.body", "infrasage.value", ""]
    ),
    st.sampled_from(["infrasage.trace_id", "infrasage.metric_name", "k" * 101]),
    _texts,
)
_tags = st.one_of(_values, st.sampled_from(["ERROR", "info", "odd", "v" * 121]))
_fields: dict[str, st.SearchStrategy[Any]] = {
    "service_id": st.sampled_from(["payment-api", "payment-api", "été", "", "s" * 101]),
    "type": st.sampled_from(["metric", "log", "trace", "event", "profile", "slo", None, "Metric", ""]),
    "metric_name": st.sampled_from(["cpu", "mem", "", "m" * 101, "é"]),
    "value": _numbers,
    "body": _texts,
    "trace_id": st.sampled_from(_hex),
    "timestamp": _times,
    "attributes": st.dictionaries(_keys, _tags, max_size=4),
    "unknown": _values,
}


@st.composite
def records(draw: st.DrawFn) -> Any:
    """A record: mostly good; each field may be missing, or of a wrong type."""
    if draw(st.integers(0, 30)) == 30:
        return draw(_values)
    record: dict[str, Any] = {
        "service_id": "payment-api",
        "type": draw(st.sampled_from(["metric", "log", "trace", "event", "profile", "slo"])),
        "metric_name": "cpu",
        "value": 1.5,
        "body": "hello",
        "timestamp": NOW_TEXT,
    }
    for name, strategy in _fields.items():
        change = draw(st.integers(0, 20))
        if change > 19:
            record[name] = draw(_wrong)
        elif change > 17:
            record.pop(name, None)
        elif change > 9:
            record[name] = draw(strategy)
    return record
