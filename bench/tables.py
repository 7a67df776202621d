"""The tables of docs/internals/performance.md, made from bench/results. Needs only Python, since docs/generate.py checks them.

A rate is three numbers over the rounds: minimum, median and maximum. A ratio is one of medians.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).resolve().parent / "results"
NOT_YET: Final = "Not measured yet."

Result = dict[str, Any]

_PEERS: Final = {"collector": "Collector", "rotel": "Rotel", "prometheus": "Prometheus", "victoria_metrics": "VictoriaMetrics"}
_SIGNALS: Final = ("metrics", "logs", "traces")
_TRANSPORTS: Final = {
    "http": "HTTP",
    "https": "HTTP, TLS",
    "h2c": "HTTP/2",
    "h2": "HTTP/2, TLS",
    "grpc": "gRPC",
    "grpcs": "gRPC, TLS",
    "json": "HTTP, JSON",
    "native": "native JSON",
    "native_json": "native JSON, to OTLP/JSON",
}
# The transport to the Collector beside our own JSON.
_NATIVE: Final = {"native": "OTLP over HTTP", "native_json": "OTLP/JSON"}
_SHAPES: Final = {
    "kubelet": "kubelet metrics: 50 resources of 12 points",
    "sdk_metrics": "SDK metrics: 10 scopes of histograms, sums, gauges",
    "histograms": "exponential histograms: 10 scopes, 160 buckets a point",
    "spans": "spans: 8 scopes, 12 attributes, exceptions",
    "java_logs": "Java logs: 60 scopes, 22 attributes of the resource",
    "structured_logs": "structured logs: bodies of eight values",
}
_ENCODINGS: Final = {"protobuf": "protobuf", "gzip": "protobuf, gzip", "json": "JSON"}
_CHARTED: Final = ("http", "grpc", "native")
_SUITES: Final = {
    "gateway": "the gateway",
    "shapes": "real shapes",
    "latency": "latency",
    "remote_write": "remote write",
    "writer": "the writer",
    "embedded": "the embedded form",
    "growth": "growth",
    "hostile": "attacks",
}
_GROWTH: Final = {
    "items": "items a request",
    "attributes": "attributes an item",
    "tenants": "tenants",
    "connections": "connections",
}


def _head(*columns: str) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


HEADS: Final = {
    "gateway": _head(
        *("transport", "signal", "records a request", "ours, records/CPU-s", "Collector, records/CPU-s", "ratio"),
        *("p50, ms", "p99, ms", "memory, MiB"),
    ),
    "shapes": _head(
        *("shape", "encoding", "records", "bytes", "ours, records/CPU-s", "Collector, records/CPU-s", "Rotel, records/CPU-s"),
        *("ratio to the Collector", "to Rotel", "p50, ms", "memory, MiB"),
    ),
    "latency": _head(
        *("transport", "signal", "records a request", "requests/s", "p50, ms: ours", "Collector"),
        *("p99, ms: ours", "Collector", "ratio", "core used: ours / Collector"),
    ),
    "writer": _head(
        *("signal", "rows", "rows an insert", "writer, rows/CPU-s", "engine, rows/CPU-s", "rows/s"),
        "memory, MiB: writer / engine",
    ),
    "hostile": _head(
        *("one request", "sent, bytes", "decompressed, bytes", "status", "loop, ms of CPU", "all, ms of CPU"),
        *("memory, MiB", "p99 of others, ms: alone", "beside it", "ratio"),
    ),
    "embedded": _head(
        *("signal", "rows", "stored, rows/s", "acknowledged, rows/s", "rows/CPU-s", "memory, MiB"),
    ),
}


def load(suite: str) -> list[Result]:
    """Return the results of a suite; none if it was not measured yet."""
    path = RESULTS / f"{suite}.json"
    found: list[Result] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found


def peers(result: Result) -> list[str]:
    """Return the names of the servers that were measured beside ours."""
    return [name for name, value in result.items() if isinstance(value, dict) and name != "ours"]


def ratio(result: Result, peer: str) -> float:
    """Return the ratio of the median rates, ours to the peer's."""
    return float(result["ours"]["rate"][1] / result[peer]["rate"][1])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _three(values: Sequence[float]) -> str:
    """Return the text of minimum, **median** and maximum."""
    low, middle, high = (f"{one:,}" for one in values)
    return f"{low} · **{middle}** · {high}"


def _each(result: Result, key: str, names: Iterable[str]) -> str:
    return " / ".join(f"{result[name][key]:,}" for name in names)


def gateway_row(result: Result) -> str:
    names = ("ours", "collector")
    return _row(
        *(_TRANSPORTS[result["transport"]], result["signal"], f"{result['items']:,}"),
        *(_three(result[name]["rate"]) for name in names),
        f"**{ratio(result, 'collector'):.2f}**",
        *(_each(result, key, names) for key in ("p50_ms", "p99_ms", "memory_mib")),
    )


def shape_row(result: Result) -> str:
    names = ["ours", *peers(result)]
    has_rotel = "rotel" in result
    return _row(
        *(_SHAPES[result["shape"]], _ENCODINGS[result["encoding"]], f"{result['items']:,}", f"{result['bytes']:,}"),
        *(_three(result[name]["rate"]) if name in result else "" for name in ("ours", "collector", "rotel")),
        *(f"**{ratio(result, 'collector'):.2f}**", f"**{ratio(result, 'rotel'):.2f}**" if has_rotel else ""),
        *(_each(result, key, names) for key in ("p50_ms", "memory_mib")),
    )


def shapes() -> str:
    order = [(shape, encoding) for encoding in _ENCODINGS for shape in _SHAPES]
    found = sorted(load("shapes"), key=lambda one: order.index((one["shape"], one["encoding"])))
    return "\n".join([HEADS["shapes"], *map(shape_row, found)]) if found else NOT_YET


def latency_row(result: Result) -> str:
    ours, collector = result["ours"], result["collector"]
    return _row(
        *(_TRANSPORTS[result["transport"]], result["signal"], f"{result['items']:,}", f"{result['per_s']:,}"),
        *(_three(side[key]) for key in ("p50_ms", "p99_ms") for side in (ours, collector)),
        f"**{ours['p99_ms'][1] / collector['p99_ms'][1]:.2f}**",
        f"{ours['core'][1]:.0%} / {collector['core'][1]:.0%}",
    )


def writer_row(result: Result) -> str:
    sides = [_three(result[name]["rate"]) for name in ("writer", "engine")]
    memory = _each(result, "memory_mib", ("writer", "engine"))
    rows = (f"{result[key]:,}" for key in ("rows", "rows_an_insert"))
    return _row(result["signal"], *rows, *sides, _three(result["stored_per_s"]), memory)


def embedded_row(result: Result) -> str:
    rates = [_three(result[key]) for key in ("stored_per_s", "acknowledged_per_s", "rate")]
    return _row(result["signal"], f"{result['rows']:,}", *rates, f"{result['memory_mib']:,}")


def hostile_row(result: Result) -> str:
    return _row(
        *(result["name"], f"{result['sent_bytes']:,}", f"{result['body_bytes']:,}", str(result["status"])),
        *(f"{result[key]:,}" for key in ("loop_ms", "cpu_ms", "memory_mib", "p99_alone_ms", "p99_ms")),
        f"**{result['p99_ms'] / result['p99_alone_ms']:.1f}**",
    )


def hostile() -> str:
    found = load("hostile")
    return "\n".join([HEADS["hostile"], *map(hostile_row, found)]) if found else NOT_YET


def growth_head(dimension: str) -> str:
    return _head(_GROWTH[dimension], "records/CPU-s", "µs a record", "µs a request", "p50, ms", "p99, ms", "memory, MiB")


def growth_row(result: Result) -> str:
    ours = result["ours"]
    record_us = 1e6 / ours["rate"][1]
    return _row(
        *(f"{result['value']:,}", _three(ours["rate"]), f"{record_us:.2f}", f"{record_us * result['items']:,.0f}"),
        *(f"{ours[key]:,}" for key in ("p50_ms", "p99_ms", "memory_mib")),
    )


def _rows(suite: str, row: Callable[[Result], str]) -> str:
    order = {name: at for at, name in enumerate((*_TRANSPORTS, *_SIGNALS))}

    def place(one: Result) -> tuple[int, int, int]:
        return order.get(one.get("transport", ""), 0), order[one["signal"]], one.get("items", 0)

    found = sorted(load(suite), key=place)
    return "\n".join([HEADS[suite], *map(row, found)]) if found else NOT_YET


def remote_write() -> str:
    found = load("remote_write")
    if not found:
        return NOT_YET
    others = peers(found[0])
    names = [_PEERS.get(name, name) for name in others]
    head = _head(
        *("samples a request", "connections", "ours, samples/CPU-s", *(f"{name}, samples/CPU-s" for name in names)),
        *(f"ratio to {name}" for name in names),
        *("p50, ms", "p99, ms", "memory, MiB"),
    )
    rows = [
        _row(
            *(f"{one['samples']:,}", f"{one.get('connections', 0):,}"),
            *(_three(one[name]["rate"]) for name in ("ours", *others)),
            *(f"**{ratio(one, name):.2f}**" for name in others),
            *(_each(one, key, ("ours", *others)) for key in ("p50_ms", "p99_ms", "memory_mib")),
        )
        for one in found
    ]
    return "\n".join([head, *rows])


def growth() -> str:
    found = load("growth")
    parts = []
    for dimension, title in _GROWTH.items():
        rows = [growth_row(one) for one in found if one["dimension"] == dimension]
        parts.append(f"By {title}:\n\n" + ("\n".join([growth_head(dimension), *rows]) if rows else NOT_YET))
    return "\n\n".join(parts)


def summary() -> str:
    """Return the table of the questions and their results."""
    rows = []
    ratios = {(one["transport"], one["items"], one["signal"]): ratio(one, "collector") for one in load("gateway")}
    for transport in ("http", "https", "h2c", "h2", "grpc", "grpcs", "json"):
        to = "the Collector's HTTP/1.1" if transport == "h2c" else "the Collector"
        for items in sorted({items for of, items, _ in ratios if of == transport}):
            each = [
                f"{signal} **{ratios[transport, items, signal]:.2f}**"
                for signal in _SIGNALS
                if (transport, items, signal) in ratios
            ]
            what = f"OTLP over {_TRANSPORTS[transport]}, {items:,} a request"
            rows.append(_row(what, f"records/CPU-s, to {to}", ", ".join(each)))
    for one in load("gateway"):
        if one["transport"] in _NATIVE:
            what = f"native JSON, {one['items']:,} a request"
            to = f"records/CPU-s, to the Collector's {_NATIVE[one['transport']]}"
            rows.append(_row(what, to, f"**{ratio(one, 'collector'):.2f}**"))
    for encoding, title in _ENCODINGS.items():
        found = [one for one in load("shapes") if one["encoding"] == encoding]
        for peer, to in (("collector", "the Collector"), ("rotel", "Rotel")):
            each = [f"{one['shape'].replace('_', ' ')} **{ratio(one, peer):.2f}**" for one in found if peer in one]
            if each:
                rows.append(_row(f"real shapes, {title}", f"records/CPU-s, to {to}", ", ".join(each)))
    for one in sorted(load("latency"), key=lambda one: str(one["transport"]), reverse=True):
        what = f"OTLP over {_TRANSPORTS[one['transport']]}, {one['signal']}, {one['items']:,} a request, half load"
        ours, collector = (one[name]["p99_ms"][1] for name in ("ours", "collector"))
        rows.append(_row(what, "p99, to the Collector's (less is better)", f"**{ours / collector:.2f}**"))
    for one in load("remote_write"):
        what = f"remote write, {one['samples']:,} samples a request, connections: {one.get('connections', 0):,}"
        each = [f"{_PEERS.get(name, name)} **{ratio(one, name):.2f}**" for name in peers(one)]
        rows.append(_row(what, "samples/CPU-s, to each", ", ".join(each)))
    for one in load("writer"):
        writer, engine = (one[name]["rate"][1] for name in ("writer", "engine"))
        rows.append(_row(f"the writer, {one['signal']}", "rows/CPU-s: its own, the engine's", f"{writer:,} and {engine:,}"))
    for one in load("embedded"):
        what = f"the embedded form, {one['signal']}, two cores"
        rows.append(_row(what, "rows/s, through to storage", f"{one['stored_per_s'][1]:,}"))
    return "\n".join([_head("what", "measured in", "ratio, or rate (medians)"), *rows]) if rows else NOT_YET


def machine() -> str:
    """Return the table of machines, dates and versions."""
    path = RESULTS / "machine.json"
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = []
    for suite, title in _SUITES.items():
        if suite in noted:
            one = noted[suite]
            versions = ", ".join(f"{name} {version}" for name, version in sorted(one["versions"].items()))
            rows.append(_row(title, one["date"], f"{one['cores']} cores, {one['cpu']}", versions))
    return "\n".join([_head("measured", "when", "on", "versions"), *rows]) if rows else NOT_YET


TABLES: Final[dict[str, Callable[[], str]]] = {
    "summary": summary,
    "gateway": lambda: _rows("gateway", gateway_row),
    "shapes": shapes,
    "latency": lambda: _rows("latency", latency_row),
    "remote_write": remote_write,
    "writer": lambda: _rows("writer", writer_row),
    "embedded": lambda: _rows("embedded", embedded_row),
    "growth": growth,
    "hostile": hostile,
    "machine": machine,
}


def fill(page: str) -> str:
    """Return the page with the tables between its markers replaced. All other text stays unchanged."""
    for name, make in TABLES.items():
        table = make()
        pattern = re.compile(rf"(<!-- {name}: [^\n]* -->\n).*?(<!-- end -->)", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            sys.exit(f"docs/internals/performance.md needs one marker for {name}")
        page = pattern.sub(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", page)  # type: ignore[misc]
    return page


def charted() -> str:
    """Return a hash of the numbers that the chart shows. The chart contains it, so an outdated chart can be recognized."""
    gateway = [result for result in load("gateway") if result["transport"] in _CHARTED]
    return hashlib.sha256(json.dumps([gateway, load("remote_write")], sort_keys=True).encode()).hexdigest()[:16]
