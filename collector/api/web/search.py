"""Recent logs and traces on web pages, and the chart of incoming items."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from collector.api.web.kept import KeptAnswer
from collector.api.web.shown import PageRequest
from collector.query.recent import ROWS_MAX, SPANS_MAX, WINDOW_MINUTES, Inflow, Row, Search

_TREE: Final = "/ui/traces/"
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_MINUTES: Final = {"15": "15 minutes", "60": "hour", "360": "6 hours", "1440": "day", "10080": "week"}
_MINUTES_DEFAULT: Final = "60"
_TEXT_MAX: Final = 1000
_DEPTH_MAX: Final = 12


def trace_in(path: str) -> str:
    """Return the id of the trace in the path of its page; empty if the path is another."""
    text = path.removeprefix(_TREE)
    return text if text != path and _TRACE_ID.fullmatch(text) else ""


def search_of(request: PageRequest) -> Search:
    """Return the search in the query of a page. Raises ValueError."""
    minutes = request.query.get("minutes") or _MINUTES_DEFAULT
    if minutes not in _MINUTES:
        raise ValueError(f"minutes must be one of {', '.join(_MINUTES)}, not {minutes[:20]!r}")
    text, service = request.query.get("text", "").strip(), request.query.get("service", "").strip()
    if max(len(text), len(service)) > _TEXT_MAX:
        raise ValueError(f"text and service must have at most {_TEXT_MAX} characters")
    return Search(request.tenant, int(minutes), text, service)


def listed(search: Search, found: KeptAnswer[Sequence[Row]]) -> dict[str, Any]:
    """Return the context that the templates of logs and of traces have in common."""
    return {
        "search": search,
        "rows": found.value,
        "age_s": found.age_s,
        "all_minutes": {int(minutes): name for minutes, name in _MINUTES.items()},
        "is_cut": len(found.value) >= ROWS_MAX,
    }


def waterfall(trace_id: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the context for a trace: its spans in the order of their tree.

    `left` and `width` of a span are its begin and its length in thousandths of the trace."""
    starts = [int(row["at_unix_nano"]) for row in rows]
    begin = min(starts)
    end = max(start + int(row["duration_ns"]) for start, row in zip(starts, rows, strict=True))
    length = max(end - begin, 1)
    known = {row["span_id"] for row in rows}
    children: dict[str, list[Row]] = {}
    for row in rows:
        parent = row["parent_span_id"]
        children.setdefault(parent if parent in known and parent != row["span_id"] else "", []).append(row)
    spans: list[dict[str, Any]] = []
    seen: set[int] = set()

    # Without recursion, since a trace may be as deep as it has spans.
    waiting = [(row, 0) for row in reversed(children.get("", []))]
    while waiting:
        row, depth = waiting.pop()
        if id(row) in seen:
            continue
        seen.add(id(row))
        start, duration = int(row["at_unix_nano"]), int(row["duration_ns"])
        spans.append(
            {
                **row,
                "depth": min(depth, _DEPTH_MAX),
                "offset_s": (start - begin) / 1e9,
                "duration_s": duration / 1e9,
                "left": round(1000 * (start - begin) / length),
                "width": max(round(1000 * duration / length), 2),
            }
        )
        waiting += [(child, depth + 1) for child in reversed(children.get(row["span_id"], []))]
    # Spans that are each other's ancestors are in no tree, so they are left out.
    return {
        "trace_id": trace_id,
        "spans": spans,
        "left_out": len(rows) - len(spans),
        "begin": begin,
        "length_s": length / 1e9,
        "is_cut": len(rows) >= SPANS_MAX,
    }


def chart(inflow: Inflow, now_unix_s: float) -> dict[str, Any]:
    """Return the chart of the last WINDOW_MINUTES whole minutes: items per second of each minute, by type and of those
    rejected.

    `rows` have the rate of the last minute, the highest rate, the total of items, and a small line, for each type."""
    last = int(now_unix_s) // 60 * 60 - 60
    times = list(range(last - 60 * (WINDOW_MINUTES - 1), last + 60, 60))
    by_time = {minute.unix_s: minute for minute in inflow.minutes}
    types = sorted({type_ for minute in inflow.minutes for type_ in minute.accepted})
    series: dict[str, list[float]] = {
        type_: [by_time[at].accepted.get(type_, 0) / 60 if at in by_time else 0.0 for at in times] for type_ in types
    }
    if any(minute.rejected for minute in inflow.minutes):
        series["rejected"] = [by_time[at].rejected / 60 if at in by_time else 0.0 for at in times]
    totals = {type_: sum(minute.accepted.get(type_, 0) for minute in inflow.minutes) for type_ in types}
    if "rejected" in series:
        totals["rejected"] = sum(minute.rejected for minute in inflow.minutes)
    rows: list[Mapping[str, Any]] = [
        {"name": name, "per_s": values[-1], "per_s_max": max(values), "total": totals[name], "line": _line(values)}
        for name, values in series.items()
    ]
    return {"data": {"times": times, "series": series}, "rows": rows}


def _line(values: Sequence[float]) -> str:
    """Return the points of a line, 120 wide and 24 high, for browsers that show no chart."""
    highest = max(values) or 1.0
    return " ".join(f"{120 * at / (len(values) - 1):.1f},{23 - 22 * value / highest:.1f}" for at, value in enumerate(values))
