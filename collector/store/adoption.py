"""Takes over tables that the OpenTelemetry Collector's ClickHouse exporter made.

The collector's tables have the exporter's names and other columns, so they need a separate database. In the exporter's database
a table `otel_logs` is renamed to `otel_logs_exporter`, and `otel_logs` becomes the union of that table and ours. So dashboards
need no change, and read old and new rows as one table (docs/adr/0048).

Invariants (tests/integration/clickhouse/test_adoption.py):
1. An adoption may be interrupted after each statement: the next run does the rest
   (test_an_adoption_that_was_interrupted_goes_on).
2. Adopting changes no row. The union has the rows of the exporter's tables, and the rows that are stored afterwards
   (test_old_and_new_rows_are_one_table).
3. A start that finds the exporter's tables in its own database changes nothing, and its error says what the user can do
   (test_a_start_names_the_tables_and_the_ways_out).
"""

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from collector.store.adoption_columns import (
    LiveColumn,
    Select,
    UnionColumns,
    columns_of,
    is_json,
    is_json_type,
    keys_of,
    union_columns,
)
from collector.store.contract import RECEIPTS, ROLLUPS, TRACE_TIMES, StoreMisconfigured
from collector.store.migrations import identifier, literal
from collector.store.retention import TIME_COLUMNS

# The exporter's default names of tables, and ours for the same rows.
EXPORTER_TABLES: Final = {
    **{table: table for table in TIME_COLUMNS if table not in {RECEIPTS, *ROLLUPS}},
    "otel_metrics_exp_histogram": "otel_metrics_exponential_histogram",
}
# This view writes the times of traces. Nothing is written to the old tables any more, and our tables have separate views.
_EXPORTER_VIEW: Final = f"{TRACE_TIMES}_mv"
KEPT_SUFFIX: Final = "_exporter"
_UNIONS: Final = frozenset({"Merge", "View"})


class OldTable(NamedTuple):
    """A table of the exporter: its name, and the name of our table for the same rows."""

    name: str
    ours: str

    @property
    def kept(self) -> str:
        """Return the name under which the exporter's rows are kept."""
        return self.name + KEPT_SUFFIX


class Adoption:
    """Adopts the tables of one database of the exporter into our database."""

    def __init__(
        self, command: Callable[[str], object], select: Select, *, source: str, database: str, tenant: str, cluster: str
    ) -> None:
        """`source` is the exporter's database; `database` is ours, with its tables up to date. The old rows get the tenant
        `tenant`."""
        self._command: Final = command
        self._select: Final = select
        self._source: Final = source
        self._database: Final = database
        self._tenant: Final = tenant
        self._on_cluster: Final = f" ON CLUSTER {literal(cluster)}" if cluster else ""

    def adopt(self) -> Iterator[OldTable]:
        """Rename the tables that are not renamed yet, and make their unions again. Yield each table when it is done. Raises
        StoreMisconfigured."""
        engines = self._engines()
        every = [OldTable(name, ours) for name, ours in EXPORTER_TABLES.items()]
        for table in every:
            self._check(table, engines)
        found = [table for table in every if table.kept in engines or engines.get(table.name, "View") not in _UNIONS]
        if "MergeTree" in engines.get("otel_traces", "") and engines.get(_EXPORTER_VIEW) == "MaterializedView":
            self._command(f"DROP VIEW IF EXISTS {self._of_source(_EXPORTER_VIEW)}{self._on_cluster} SYNC")
        for table in found:
            kept = self._of_source(table.kept)
            if table.kept not in engines:
                self._command(f"RENAME TABLE {self._of_source(table.name)} TO {kept}{self._on_cluster}")
            column = f"TenantId LowCardinality(String) DEFAULT {literal(self._tenant)}"
            self._command(f"ALTER TABLE {kept}{self._on_cluster} ADD COLUMN IF NOT EXISTS {column}")
            self._command(self._union(table))
            yield table

    def tables(self) -> list[OldTable]:
        """Return the tables that are adopted."""
        engines = self._engines()
        return [OldTable(name, ours) for name, ours in EXPORTER_TABLES.items() if name + KEPT_SUFFIX in engines]

    def differences(self, table: OldTable) -> list[str]:
        """Return in which columns the adopted table shows other values than the exporter's, in sentences."""
        return list(self._columns(table).differences())

    def readers(self) -> list[str]:
        """Return the materialized views that read the exporter's tables, except the exporter's own. They do not see new
        rows."""
        names = ", ".join(map(literal, EXPORTER_TABLES))
        found = self._select(
            "SELECT base64Encode(concat(view_database, '.', view_name)) FROM ("  # noqa: S608 - quoted
            " SELECT arrayJoin(arrayZip(dependencies_database, dependencies_table)) AS view, view.1 AS view_database,"
            f" view.2 AS view_name FROM system.tables WHERE database = {literal(self._source)} AND name IN ({names}))"
            f" WHERE view_name != {literal(_EXPORTER_VIEW)} ORDER BY 1"
        )
        return [b64decode(line).decode() for line in found.split()]

    def _check(self, table: OldTable, engines: Mapping[str, str]) -> None:
        engine = engines.get(table.name, "")
        if not engine or engine in _UNIONS:
            return
        where = f"{self._source}.{table.name}"
        if "MergeTree" not in engine:
            raise StoreMisconfigured(f"{where} has the engine {engine}: only tables of the MergeTree family can be adopted")
        if table.kept in engines:
            raise StoreMisconfigured(
                f"{where} was made again after {table.kept} had been adopted, by an exporter that still runs or did then: end"
                f" it, move its rows into {table.kept}, drop {where}, and run `schema adopt` again"
            )
        if "TenantId" in columns_of(self._select, self._source, table.name):
            raise StoreMisconfigured(
                f"{where} has a column TenantId, so it is a table of a collector like this one, not of the exporter"
            )

    def _union(self, table: OldTable) -> str:
        columns = self._columns(table)
        name = self._of_source(table.name)
        # A Merge table of JSON and Map columns finds no paths in the maps. If the two names differ, it could match another
        # union. An alias in a Merge table hides values that an insert gave instead of the DEFAULT.
        if table.name != table.ours or is_json(columns.old) or columns.has_defaults:
            return f"CREATE OR REPLACE VIEW {name}{self._on_cluster} AS {self._union_of_queries(table, columns)}"
        databases = "|".join(map(re.escape, (self._source, self._database)))
        engine = f"Merge(REGEXP({literal(f'^({databases})$')}), {literal(f'^({table.kept}|{table.ours})$')})"
        declared = ", ".join(_of_merge_table(columns))
        return f"CREATE OR REPLACE TABLE {name}{self._on_cluster} ({declared}) ENGINE = {engine}"

    def _columns(self, table: OldTable) -> UnionColumns:
        old = columns_of(self._select, self._source, table.kept)
        ours = columns_of(self._select, self._database, table.ours)
        casts = {name: _cast_of_ours(name, live) for name, live in old.items() if name in ours and is_json_type(live.type)}
        return union_columns(self._select, old, ours, f"{identifier(self._database)}.{table.ours}", casts)

    def _union_of_queries(self, table: OldTable, columns: UnionColumns) -> str:
        from_old, from_ours = [], []
        for column, live in columns.ours.items():
            if live.kind == "MATERIALIZED" and column not in columns.old:
                continue
            name = identifier(column)
            before = columns.old.get(column)
            if before is None:
                made = live.expression if live.kind == "ALIAS" else f"defaultValueOfTypeName({literal(live.type)})"
                from_old.append(f"{made} AS {name}")
                from_ours.append(name)
            elif is_json_type(before.type):
                from_old.append(name)
                from_ours.append(f"{_cast_of_ours(column, before)} AS {name}")
            else:
                from_old.append(f"CAST(old.{name}, {literal(live.type)}) AS {name}")
                from_ours.append(name)
        for column, live in columns.old.items():
            if column in columns.ours:
                continue
            # For each JSON column the exporter has another column with its keys.
            keys = f"mapKeys(ours.{identifier(keys_of(column))})" if columns.is_of_keys(column) else ""
            value = columns.computed.get(column) or keys or f"defaultValueOfTypeName({literal(live.type)})"
            from_old.append(identifier(column))
            from_ours.append(f"CAST({value}, {literal(live.type)}) AS {identifier(column)}")
        return (
            f"SELECT {', '.join(from_old)} FROM {self._of_source(table.kept)} AS old"  # noqa: S608 - quoted
            f" UNION ALL SELECT {', '.join(from_ours)} FROM {identifier(self._database)}.{table.ours} AS ours"
        )

    def _engines(self) -> dict[str, str]:
        found = self._select(f"SELECT base64Encode(name), engine FROM system.tables WHERE database = {literal(self._source)}")  # noqa: S608 - quoted
        return {b64decode(name).decode(): engine for name, engine in (line.split("\t") for line in found.splitlines())}

    def _of_source(self, table: str) -> str:
        return f"{identifier(self._source)}.{identifier(table)}"


def _cast_of_ours(column: str, old: LiveColumn) -> str:
    return f"CAST(ours.{identifier(column)}, {literal(old.type)})"


def _of_merge_table(columns: UnionColumns) -> Iterator[str]:
    for column, live in columns.ours.items():
        if live.kind == "ALIAS" and column not in columns.old:
            yield f"{identifier(column)} {live.type} ALIAS {live.expression}"
        elif live.kind != "MATERIALIZED":
            yield f"{identifier(column)} {live.type}"
        elif column in columns.old:
            yield _hidden(column, live)
    for column, live in columns.old.items():
        if column in columns.ours:
            continue
        declared = f"{identifier(column)} {live.type}"
        if column in columns.computed:
            yield f"{declared} ALIAS {columns.computed[column]}"
        elif live.kind in {"MATERIALIZED", "ALIAS"}:
            yield _hidden(column, live)
        else:
            yield declared


def _hidden(column: str, live: LiveColumn) -> str:
    """Declare a column that `SELECT *` leaves out. A Merge table reads it where it is, and never uses the expression."""
    return f"{identifier(column)} {live.type} MATERIALIZED defaultValueOfTypeName({literal(live.type)})"


def check_own_tables(select: Select, where: str) -> None:
    """Check that no table of another program in our database has the name of one of ours. Raises StoreMisconfigured."""
    names = ", ".join(map(literal, EXPORTER_TABLES))
    found = select(
        "SELECT name, database, ifNull(total_rows, 0), engine, (database, name) IN"  # noqa: S608 - our own names
        " (SELECT database, table FROM system.columns WHERE name IN ('ServiceName', 'TraceId')) FROM system.tables"
        f" WHERE database = currentDatabase() AND name IN ({names}) AND ((database, name) NOT IN"
        " (SELECT database, table FROM system.columns WHERE name = 'TenantId')"
        " OR engine NOT LIKE '%MergeTree' AND name != 'otel_metrics_exp_histogram') ORDER BY name"
    ).splitlines()
    if not found:
        return
    rows = [line.split("\t") for line in found]
    tables = ", ".join(f"{name} ({int(count):,} rows)" for name, _, count, _, _ in rows)
    if any(engine == "Merge" for _, _, _, engine, _ in rows):
        owner = "`schema adopt`"
    else:
        is_exporters = all(has_columns == "1" for _, _, _, _, has_columns in rows)
        owner = "the OpenTelemetry Collector's ClickHouse exporter" if is_exporters else "another program"
    database = rows[0][1]
    raise StoreMisconfigured(
        f"{where}: {owner} made these tables in the database {database}, whose names are those of this collector's tables:"
        f" {tables}. Nothing was changed. To be changed: clickhouse.database must name another database; and then"
        f" `schema adopt --from {database} --tenant TENANT` lets dashboards read old and new rows under the old names"
    )
