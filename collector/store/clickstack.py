"""The tables that ClickStack needs besides the exporter's: values of attributes for its filters, and recorded sessions.

A rollup counts how often each value of an attribute or a column occurs in 15 minutes. A view fills it with each insert into the
table of logs or of spans. The sessions are a view of the log records that have an rrweb event (docs/adr/0051).

Invariants (tests/integration/clickhouse/test_clickstack.py):
1. A rollup counts the rows that are inserted into its table after the rollup was made. A repeated insert is counted once
   (test_a_rollup_counts_its_table).
2. A view is made after the table that it writes to, and removed before it, so that no insert fails in between
   (test_an_interruption_lets_inserts_pass).
3. A table of another program under one of these names is refused before a view writes to it
   (test_another_programs_rollup_is_refused).
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from collector.store.contract import ROLLUPS, SESSIONS, StoreMisconfigured
from collector.store.migrations import literal

# Longer values are not counted, since users do not choose them from a list.
VALUE_BYTES_MAX: Final = 256
_SESSIONS: Final = """CREATE VIEW IF NOT EXISTS hyperdx_sessions AS
SELECT Timestamp, TimestampTime, TraceId, SpanId, TraceFlags, SeverityText, SeverityNumber, ServiceName, Body,
    ResourceSchemaUrl, ResourceAttributes, ScopeSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, LogAttributes, EventName,
    TenantId
FROM otel_logs
WHERE mapContains(LogAttributes, 'rr-web.event')"""


class _Rollup(NamedTuple):
    """The table that a rollup counts, and its columns. `texts` are columns with few values."""

    source: str
    maps: tuple[str, ...]
    texts: tuple[str, ...]


_ROLLUPS: Final = {
    "otel_logs_kv_rollup_15m": _Rollup(
        "otel_logs",
        ("ResourceAttributes", "ScopeAttributes", "LogAttributes"),
        ("SeverityText", "ServiceName", "ScopeName", "ScopeVersion", "ResourceSchemaUrl", "ScopeSchemaUrl"),
    ),
    "otel_traces_kv_rollup_15m": _Rollup(
        "otel_traces",
        ("ResourceAttributes", "SpanAttributes"),
        ("ServiceName", "SpanName", "SpanKind", "StatusCode", "ScopeName", "ScopeVersion"),
    ),
}
assert set(_ROLLUPS) == set(ROLLUPS)


class Made(NamedTuple):
    """A statement, and its cost in plain words."""

    table: str
    statement: str
    cost: str


def changes(select: Callable[[str], str], storage: Callable[[str], str], *, rollups: bool, sessions: bool) -> Iterator[Made]:
    """Yield statements that make the requested tables and views that are missing, and statements that remove the others. Raises
    StoreMisconfigured.

    `select` answers a query as TabSeparated text. `storage` returns the end of a table's definition, from its TTL on."""
    names = ", ".join(map(literal, (*ROLLUPS, *map(_view, ROLLUPS), SESSIONS)))
    found = select(
        "SELECT name, engine, ifNull(total_bytes, 0), (database, name) IN"  # noqa: S608 - our own names
        " (SELECT database, table FROM system.columns WHERE name = 'TenantId') FROM system.tables"
        f" WHERE database = currentDatabase() AND name IN ({names})"
    )
    live = {name: (engine, int(size), has == "1") for name, engine, size, has in map(_fields, found.splitlines())}
    for name, (engine, _, has_tenant) in live.items():
        if not has_tenant and engine != "MaterializedView":
            raise StoreMisconfigured(
                f"another program made the table {name}, whose name is that of a table for ClickStack: rename it, or set"
                " schema.clickstack_rollups and schema.clickstack_sessions to false in a database without it"
            )
    for name, rollup in _ROLLUPS.items():
        view = _view(name)
        if rollups:
            if name not in live:
                yield Made(name, _table(name, storage(name)), "metadata only")
            if view not in live:
                yield Made(view, _filling(name, rollup), "metadata only; each insert writes to it from then on")
        else:
            if view in live:
                yield Made(view, f"DROP VIEW IF EXISTS {view}", "metadata only")
            if name in live:
                yield Made(name, f"DROP TABLE IF EXISTS {name}", f"removes {live[name][1]:,} bytes")
    if sessions and SESSIONS not in live:
        yield Made(SESSIONS, _SESSIONS, "metadata only")
    if not sessions and SESSIONS in live:
        yield Made(SESSIONS, f"DROP VIEW IF EXISTS {SESSIONS}", "metadata only")


def _fields(line: str) -> list[str]:
    return line.split("\t")


def _view(table: str) -> str:
    return f"{table}_mv"


def _table(name: str, storage: str) -> str:
    return f"""CREATE TABLE IF NOT EXISTS {name} (
    Timestamp DateTime CODEC(Delta(4), ZSTD(1)),
    ColumnIdentifier LowCardinality(String) CODEC(ZSTD(1)),
    Key LowCardinality(String) CODEC(ZSTD(1)),
    Value String CODEC(ZSTD(1)),
    count UInt64 CODEC(ZSTD(1)),
    TenantId LowCardinality(String) CODEC(ZSTD(1)),
    INDEX idx_count_minmax count TYPE minmax GRANULARITY 1,
    INDEX idx_timestamp_minmax Timestamp TYPE minmax GRANULARITY 1
)
ENGINE = SummingMergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (TenantId, ColumnIdentifier, Key, Timestamp, Value)
{storage}"""


def _filling(name: str, rollup: _Rollup) -> str:
    """Return the statement for the view that fills a rollup. Each column is counted by itself, so only the counts of one column
    are in memory, in addition to the values of all."""
    when = "TenantId, toStartOfFifteenMinutes(Timestamp) AS Bucket"
    counted = [
        f"SELECT {when}, '{column}' AS ColumnIdentifier, entry.1 AS Key, entry.2 AS Value, count() AS count"  # noqa: S608
        f" FROM {rollup.source} ARRAY JOIN {column} AS entry WHERE length(entry.2) BETWEEN 1 AND {VALUE_BYTES_MAX}"
        " GROUP BY TenantId, Bucket, Key, Value"
        for column in rollup.maps
    ]
    counted += [
        f"SELECT {when}, 'NativeColumn' AS ColumnIdentifier, '{column}' AS Key, CAST({column}, 'String') AS Value,"  # noqa: S608
        f" count() AS count FROM {rollup.source} WHERE length({column}) BETWEEN 1 AND {VALUE_BYTES_MAX}"
        " GROUP BY TenantId, Bucket, Value"
        for column in rollup.texts
    ]
    union = "\n    UNION ALL ".join(counted)
    return (
        f"CREATE MATERIALIZED VIEW IF NOT EXISTS {_view(name)} TO {name} AS\n"
        "SELECT TenantId, Bucket AS Timestamp, ColumnIdentifier, Key, Value, count\n"
        f"FROM (\n    {union}\n)"
    )
