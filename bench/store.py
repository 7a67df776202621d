"""Measures the cost of a row in the engine: CPU until all its merges are done, and bytes on disk, for several tables.

    python bench/store.py [--signal logs,traces,metrics] [--form FORM]… [--rows 10000000] [--insert-rows 50000] [--rounds 3]
        [--keep]

Needs only the package. Rows of a real shape are made once, and kept in Native format. Each form of the tables gets the same
rows in inserts of the same size, in a separate engine. Then the suite waits for its merges. The forms alternate round by round,
so that other work of the machine affects all of them. The result is the smallest of the rounds. CPU is that of the form's whole
process, without its start.

The forms:

- `ours`: the tables of `schema show`, with the settings of our inserts. Its rows have our columns too.
- `ours, all indexes`: the same, and every index is made at each insert.
- `ours, no columns`: the same, without columns of attributes.
- `ours, text`: the same, with `schema.text_indexes = "all"`.
- `exporter, text`: the OpenTelemetry exporter's tables by their columns, with text indexes, which are its default.
- `exporter, bloom`: the same with bloom filters.
- `VARIANTS`: variants of our tables, only if --form names them.

The cost of parsing and flattening payloads is not included: bench/writer.py measures it. `make bench` leaves this suite out,
since ten million rows take hours.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import measuring
from collector.store.clickhouse import ClickHouseStore
from collector.store.insert import SETTINGS
from collector.store.options import EXPORTERS_ATTRIBUTES, RequestedTables, StoreOptions

SUITE: Final = "store"
# Variants of our tables that were tried (docs/adr/0053): settings of tables, and another type.
_LOW: Final = "Map(LowCardinality(String), LowCardinality(String))"
VARIANTS: Final = {
    "ours, ClickHouse's merges": ("ALTER TABLE {table} MODIFY SETTING merge_selector_base = 5",),
    "ours, compact parts": ("ALTER TABLE {table} MODIFY SETTING min_bytes_for_wide_part = 104857600",),
    "ours, large blocks": (
        "ALTER TABLE {table} MODIFY SETTING max_compress_block_size = 4194304, min_compress_block_size = 1048576",
    ),
    "ours, short values": (
        "ALTER TABLE {table} DROP INDEX idx_res_attr_key, DROP INDEX idx_res_attr_value",
        f"ALTER TABLE {{table}} MODIFY COLUMN ResourceAttributes {_LOW} CODEC(ZSTD(1))",
        "ALTER TABLE {table} ADD INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,"
        " ADD INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1",
    ),
}
FORMS: Final = ("ours", "ours, all indexes", "ours, no columns", "ours, text", "exporter, text", "exporter, bloom")
ROWS_PER_S: Final = 500  # by the times in the rows, so ten million rows span five and a half hours
_QUIET_S: Final = 3.0

_MAP: Final = "Map(LowCardinality(String), String)"
_LC: Final = "LowCardinality(String)"


class StoredSignal(NamedTuple):
    """A signal's rows. `rows` has expressions of the exporter's columns by name, `columns` the exporter's columns with their
    types."""

    table: str
    time: str
    columns: Mapping[str, str]
    rows: Mapping[str, str]
    maps: tuple[str, ...]
    order: str
    materialized: bool = False
    text: tuple[str, ...] = ()


_TIME: Final = f"fromUnixTimestamp64Nano(toInt64(1796083200) * 1000000000 + number * {1_000_000_000 // ROWS_PER_S})"
_SERVICE: Final = "concat('service-', toString(intHash32(intDiv(number, 40)) % 12))"
_POD: Final = "toString(intHash32(intDiv(number, 40)) % 160)"
_RESOURCE: Final = (
    f"map('service.name', ServiceName, 'k8s.pod.name', concat('pod-', {_POD}), 'k8s.namespace.name', 'shop',"
    f" 'k8s.node.name', concat('node-', toString(toUInt8({_POD}) % 12)),"
    f" 'host.name', concat('host-', toString(toUInt8({_POD}) % 12)),"
    " 'cloud.region', 'eu-west-1', 'deployment.environment.name', 'production', 'telemetry.sdk.language', 'java')"
)
# The further columns of each of our rows. A batch is 500 rows.
OURS: Final = {
    "TenantId": "concat('tenant-', toString(intDiv(number, 500) % 3))",
    "Source": "'otlp'",
    "ReceivedAt": f"{_TIME} + INTERVAL 2 SECOND",
    "BatchId": "toUUID(UUIDNumToString(MD5(toString(intDiv(number, 500)))))",
}
SIGNALS: Final = {
    "logs": StoredSignal(
        "otel_logs",
        "Timestamp",
        {
            "Timestamp": "DateTime64(9) CODEC(Delta(8), ZSTD(1))",
            **dict.fromkeys(("TraceId", "SpanId"), "String"),
            "TraceFlags": "UInt8",
            "SeverityText": _LC,
            "SeverityNumber": "UInt8",
            "ServiceName": _LC,
            "Body": "String",
            "ResourceSchemaUrl": _LC,
            "ResourceAttributes": _MAP,
            "ScopeSchemaUrl": _LC,
            "ScopeName": "String",
            "ScopeVersion": _LC,
            "ScopeAttributes": _MAP,
            "LogAttributes": _MAP,
            "EventName": "String",
        },
        {
            "Timestamp": _TIME,
            "TraceId": "lower(hex(MD5(toString(intDiv(number, 7)))))",
            "SpanId": "substring(lower(hex(MD5(toString(number)))), 1, 16)",
            "SeverityText": "if(number % 20, 'INFO', 'ERROR')",
            "SeverityNumber": "if(number % 20, 9, 17)",
            "ServiceName": _SERVICE,
            "Body": "concat('GET /cart/', toString(number % 977), ' answered ', toString(200 + number % 5), ' in ',"
            " toString(intHash32(number) % 900), ' ms for user ', toString(intHash32(number + 7) % 100000))",
            "ResourceAttributes": _RESOURCE,
            "ScopeName": "concat('com.example.Logger', toString(number % 40))",
            "LogAttributes": "map('http.request.method', 'GET', 'http.route', '/cart/{id}', 'http.response.status_code',"
            " toString(200 + number % 5), 'user.id', toString(intHash32(number + 7) % 100000), 'thread.name',"
            " concat('worker-', toString(number % 32)), 'duration_ms', toString(intHash32(number) % 900))",
        },
        ("ResourceAttributes", "ScopeAttributes", "LogAttributes"),
        "toStartOfFiveMinutes(Timestamp), ServiceName, Timestamp",
        materialized=True,
        text=("Body",),
    ),
    "traces": StoredSignal(
        "otel_traces",
        "Timestamp",
        {
            "Timestamp": "DateTime64(9) CODEC(Delta(8), ZSTD(1))",
            **dict.fromkeys(("TraceId", "SpanId", "ParentSpanId", "TraceState"), "String"),
            **dict.fromkeys(("SpanName", "SpanKind", "ServiceName"), _LC),
            "ResourceAttributes": _MAP,
            **dict.fromkeys(("ScopeName", "ScopeVersion"), "String"),
            "SpanAttributes": _MAP,
            "Duration": "UInt64 CODEC(T64, ZSTD(1))",
            "StatusCode": _LC,
            "StatusMessage": "String",
            "Events": f"Nested(Timestamp DateTime64(9), Name {_LC}, Attributes {_MAP})",
            "Links": f"Nested(TraceId String, SpanId String, TraceState String, Attributes {_MAP})",
        },
        {
            "Timestamp": _TIME,
            "TraceId": "lower(hex(MD5(toString(intDiv(number, 8)))))",
            "SpanId": "substring(lower(hex(MD5(toString(number)))), 1, 16)",
            "ParentSpanId": "if(number % 8 = 0, '', substring(lower(hex(MD5(toString(number - 1)))), 1, 16))",
            "SpanName": "concat('GET /op/', toString(intHash32(number) % 30))",
            "SpanKind": "if(number % 2, 'Server', 'Client')",
            "ServiceName": _SERVICE,
            "ResourceAttributes": _RESOURCE,
            "ScopeName": "'io.opentelemetry.http'",
            "SpanAttributes": "map('http.request.method', 'GET', 'http.route', '/cart/{id}', 'http.response.status_code',"
            " toString(200 + number % 5), 'user.id', toString(intHash32(number + 7) % 100000), 'server.address',"
            " 'shop.example.com', 'thread.id', toString(number % 64))",
            "Duration": "1000 * (intHash32(number + 5) % 900000)",
            "StatusCode": "if(number % 50, 'Unset', 'Error')",
        },
        ("ResourceAttributes", "SpanAttributes"),
        "ServiceName, SpanName, toDateTime(Timestamp)",
    ),
    "metrics": StoredSignal(
        "otel_metrics_gauge",
        "TimeUnix",
        {
            "ResourceAttributes": _MAP,
            **dict.fromkeys(("ResourceSchemaUrl", "ScopeName", "ScopeVersion"), "String"),
            "ScopeAttributes": _MAP,
            "ScopeDroppedAttrCount": "UInt32",
            "ScopeSchemaUrl": "String",
            **dict.fromkeys(("ServiceName", "MetricName"), _LC),
            **dict.fromkeys(("MetricDescription", "MetricUnit"), "String"),
            "Attributes": _MAP,
            **dict.fromkeys(("StartTimeUnix", "TimeUnix"), "DateTime64(9) CODEC(Delta(8), ZSTD(1))"),
            "Value": "Float64",
            "Flags": "UInt32",
            "Exemplars": f"Nested(FilteredAttributes {_MAP}, TimeUnix DateTime64(9), Value Float64, SpanId String,"
            " TraceId String)",
        },
        {
            "ResourceAttributes": _RESOURCE,
            "ScopeName": "'io.opentelemetry.runtime'",
            "ServiceName": _SERVICE,
            "MetricName": "concat('metric.of.a.process.', toString(number % 40))",
            "MetricDescription": "'What a process uses of it.'",
            "MetricUnit": "'By'",
            "Attributes": "map('cpu', toString(intDiv(number, 40) % 8), 'state', 'idle', 'mode', 'x', 'device', 'sda')",
            "StartTimeUnix": "fromUnixTimestamp64Nano(toInt64(1796000000) * 1000000000)",
            "TimeUnix": _TIME,
            "Value": "(intHash32(number) % 1000) / 7",
        },
        ("ResourceAttributes", "ScopeAttributes", "Attributes"),
        "ServiceName, MetricName, Attributes, toUnixTimestamp64Nano(TimeUnix)",
    ),
}


def exporter_table(signal: StoredSignal, *, text: bool) -> str:
    """Return the statement that makes the exporter's table, by its columns. Its metrics tables have no text indexes."""
    text = text and signal.time == "Timestamp"
    lines = [f"{name} {type_}" + ("" if "CODEC" in type_ else " CODEC(ZSTD(1))") for name, type_ in signal.columns.items()]
    if signal.materialized:
        lines += [
            f"`__otel_materialized_{key}` {_LC} MATERIALIZED ResourceAttributes['{key}'] CODEC(ZSTD(1))"
            for key in EXPORTERS_ATTRIBUTES
        ]
    bloom = "bloom_filter({}) GRANULARITY 1"
    whole = "text(tokenizer = 'array')"
    if "TraceId" in signal.columns:
        lines.append(f"INDEX idx_trace_id TraceId TYPE {whole if text else bloom.format(0.001)}")
    for number, name in enumerate(signal.maps):
        lines.append(f"INDEX idx_{number}_key mapKeys({name}) TYPE {whole if text else bloom.format(0.01)}")
        items = f"arrayMap(item -> concat(item.1, '=', item.2), CAST({name}, 'Array(Tuple(String, String))'))"
        lines.append(
            f"INDEX idx_{number}_item {items} TYPE {whole}"
            if text
            else f"INDEX idx_{number}_value mapValues({name}) TYPE {bloom.format(0.01)}"
        )
    tokens = "text(tokenizer = 'splitByNonAlpha')" if text else "tokenbf_v1(32768, 3, 0) GRANULARITY 8"
    lines += [f"INDEX idx_text_{name} lower({name}) TYPE {tokens}" for name in signal.text]
    if "Duration" in signal.columns:
        lines.append("INDEX idx_duration Duration TYPE minmax GRANULARITY 1")
        lines.append("INDEX idx_lower_span_name lower(SpanName) TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8")
    return (
        f"CREATE TABLE {signal.table} ({', '.join(lines)}) ENGINE = MergeTree PARTITION BY toDate({signal.time})"
        f" ORDER BY ({signal.order}) SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1"
    )


def open_store(path: Path, form: str = "") -> ClickHouseStore:
    requested = RequestedTables(fsync=False)
    if form == "ours, no columns":
        requested = requested._replace(materialized_attributes=())
    if form == "ours, text":
        requested = requested._replace(text_indexes="all")
    return ClickHouseStore.embedded(path, StoreOptions(requested))


def make_rows(directory: Path, name: str, rows: int, per_insert: int) -> None:
    """Write the rows as files in Native format, one file for each insert: one set with our columns, and one without."""
    signal = SIGNALS[name]
    with closing(open_store(directory / "making")) as store:
        for whose, columns in (("ours", {**signal.rows, **OURS}), ("exporter", dict(signal.rows))):
            selected = ", ".join(f"{expression} AS {column}" for column, expression in columns.items())
            for number, start in enumerate(range(0, rows, per_insert)):
                made = min(per_insert, rows - start)
                file = directory / f"{name}-{whose}-{number:05}.native"
                store._command(
                    f"INSERT INTO FUNCTION file('{file}', 'Native') SELECT {selected} FROM numbers({start}, {made})"
                    f" SETTINGS max_threads = 1, max_block_size = {per_insert}, engine_file_truncate_on_insert = 1"
                )


def settled(store: ClickHouseStore) -> None:
    """Wait until no merge has run for _QUIET_S."""
    quiet_since = time.monotonic()
    while time.monotonic() < quiet_since + _QUIET_S:
        if int(store._text("SELECT count() FROM system.merges")):
            quiet_since = time.monotonic()
        time.sleep(0.1)


def cpu_s() -> float:
    """Return the CPU-seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def life(directory: Path, name: str, form: str) -> dict[str, float]:
    """Insert the rows into one form of the table, in this process. Return the cost of each row."""
    signal = SIGNALS[name]
    is_ours = form.startswith("ours")
    settings: dict[str, str | int] = dict(SETTINGS) if is_ours else {}
    settings |= {"max_threads": 1, "max_insert_threads": 1, "insert_deduplicate": 0}
    if form == "ours, all indexes":
        settings["exclude_materialize_skip_indexes_on_insert"] = ""
    assignments = ", ".join(f"{key} = {value!r}" for key, value in settings.items())
    with tempfile.TemporaryDirectory() as here, closing(open_store(Path(here) / "store", form)) as store:
        if is_ours:
            store.apply_schema()
            for statement in VARIANTS.get(form, ()):
                store._command(statement.format(table=signal.table))
        else:
            store._command(exporter_table(signal, text=form == "exporter, text"))
        columns = ", ".join({**signal.rows, **OURS} if is_ours else signal.rows)
        files = sorted(directory.glob(f"{name}-{'ours' if is_ours else 'exporter'}-*.native"))
        began = cpu_s()
        for file in files:
            store._command(
                f"INSERT INTO {signal.table} ({columns}) SETTINGS {assignments} SELECT {columns} FROM file('{file}', 'Native')"
            )
        inserted = cpu_s()
        settled(store)
        ended = cpu_s()
        parts = f"FROM system.parts WHERE active AND table = '{signal.table}'"
        rows, size, indexes, count = store._text(
            f"SELECT sum(rows), sum(bytes_on_disk), sum(secondary_indices_compressed_bytes), count() {parts}"
        ).split()
    return {
        "cpu_us": (ended - began) * 1e6 / int(rows),
        "inserting_us": (inserted - began) * 1e6 / int(rows),
        "bytes": int(size) / int(rows),
        "index_bytes": int(indexes) / int(rows),
        "parts": int(count),
        "rows": int(rows),
    }


def measure(directory: Path, name: str, forms: Sequence[str], rounds: int) -> Iterator[dict[str, object]]:
    found: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
    for _ in range(rounds):
        for form in forms:
            command = [sys.executable, __file__, "--life", form, "--signal", name, "--rows-in", str(directory)]
            found[form].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    for form, lives in found.items():
        best = min(lives, key=lambda one: one["cpu_us"])
        all_rounds = ", ".join(f"{one['cpu_us']:.2f}" for one in lives)
        print(
            f"{name:8} {form:18} {best['cpu_us']:6.2f} us a row ({all_rounds})"
            f" {best['bytes']:6.1f} bytes, of them {best['index_bytes']:.1f} of indexes, {best['parts']:.0f} parts",
            flush=True,
        )
        yield {"signal": name, "form": form, **best}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signal", default=",".join(SIGNALS))
    parser.add_argument(
        "--form", action="append", choices=(*FORMS, *VARIANTS), help="one of the forms; may be repeated; none: all"
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--insert-rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="write bench/results/store.json")
    parser.add_argument("--life", choices=(*FORMS, *VARIANTS), help=argparse.SUPPRESS)
    parser.add_argument("--rows-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.life:
        print(json.dumps(life(options.rows_in, options.signal, options.life)))
        return 0
    results: list[dict[str, object]] = []
    for name in options.signal.split(","):
        with tempfile.TemporaryDirectory() as here:
            make_rows(Path(here), name, options.rows, options.insert_rows)
            results += measure(Path(here), name, options.form or FORMS, options.rounds)
    if options.keep:
        for result in results:
            measuring.keep(SUITE, result, ("signal", "form"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
