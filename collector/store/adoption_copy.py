"""Copies rows of the exporter's tables into the collector's tables, day by day.

The rows of a day are copied into a staging table, counted, and moved into our table in one step. When all days of a partition
are moved, it is detached from the exporter's table. All copied rows of a day have one BatchId, by which they are found again.

Invariants (tests/integration/clickhouse/test_adoption.py):
1. A copy may be killed at any point and run again. At its end each row is exactly once in our table or in the exporter's
   (test_a_copy_that_was_interrupted_goes_on, test_a_copy_that_is_killed_goes_on).
2. A partition is detached only after our table has as many rows of each of its days as the partition
   (test_a_day_that_does_not_add_up_stays).
3. A partition with a day that our table's retention would remove is not copied (test_a_day_past_retention_stays).
"""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Final, NamedTuple
from uuid import UUID, uuid5

from collector.store.adoption import OldTable
from collector.store.adoption_columns import Columns, Select, columns_of, is_json
from collector.store.contract import TRACE_TIMES, StoreError
from collector.store.migrations import identifier, literal
from collector.store.retention import TIME_COLUMNS, Retention

SOURCE: Final = "adopted"
_JSON: Final = "attributes of type JSON can't be copied"
_STAGING: Final = "adoption_staging"
_NAMESPACE: Final = UUID("5f0c7c52-3f0e-5d6b-9a53-0f6a4a1f6f0e")
# At 450,000 rows a second (docs/adr/0048) a statement takes far less than the default clickhouse.request_timeout_s.
_STATEMENT_ROWS_MAX: Final = 5_000_000
_HOURS: Final = 24
_HISTOGRAM: Final = {"Type": "'metric'", "HasSum": "true", "HasMin": "Min != 0 OR Max != 0", "HasMax": "Min != 0 OR Max != 0"}
# The columns that our tables have and the exporter's do not, with the expressions for their values.
_ADDED: Final = {
    "otel_logs": {"Type": "'log'"},
    "otel_traces": {"Type": "'trace'", "EndTimestamp": "Timestamp + toIntervalNanosecond(Duration)"},
    "otel_metrics_gauge": {"Type": "'metric'", "ValueType": "'double'"},
    "otel_metrics_sum": {"Type": "'metric'", "ValueType": "'double'"},
    "otel_metrics_histogram": _HISTOGRAM,
    "otel_metrics_exponential_histogram": _HISTOGRAM,
    "otel_metrics_summary": {"Type": "'metric'"},
}


class CopiedDay(NamedTuple):
    """A day of a table: the number of its rows, and a checksum of their times. `left` is why the rows were not copied; it is
    empty if they are in our table."""

    table: str
    day: str
    rows: int
    times: str = ""
    left: str = ""


class AdoptionCopy:
    """Copies from one database of the exporter into our database, which is the current one of `command` and `select`."""

    def __init__(
        self,
        command: Callable[[str], object],
        select: Select,
        *,
        source: str,
        database: str,
        tenant: str,
        retention: Retention,
        statement_rows_max: int = _STATEMENT_ROWS_MAX,
    ) -> None:
        """`statement_rows_max` is the largest number of rows of a day that is copied by one statement. A larger day is copied
        by hours."""
        self._command: Final = command
        self._select: Final = select
        self._source: Final = source
        self._database: Final = database
        self._tenant: Final = tenant
        self._retention: Final = retention
        self._statement_rows_max: Final = statement_rows_max

    def copy(self, table: OldTable) -> Iterator[CopiedDay]:
        """Copy the days that are not copied yet, the newest first, and yield each day. Raises StoreError."""
        every = columns_of(self._select, self._source, table.kept)
        columns = {name: live for name, live in every.items() if live.kind != "EPHEMERAL"}
        if is_json(columns):
            yield CopiedDay(table.name, "all days", self._count(self._kept(table), "1"), left=_JSON)
            return
        for partition in self._partitions(table):
            yield from self._copy_partition(table, partition, columns)
        self._command(f"DROP TABLE IF EXISTS {_STAGING} SYNC")

    def _partitions(self, table: OldTable) -> list[str]:
        return self._select(
            "SELECT DISTINCT partition_id FROM system.parts WHERE active"  # noqa: S608 - quoted
            f" AND database = {literal(self._source)} AND table = {literal(table.kept)} ORDER BY partition_id DESC"
        ).split()

    def _copy_partition(self, table: OldTable, partition: str, columns: Columns) -> Iterator[CopiedDay]:
        here = f"_partition_id = {literal(partition)}"
        time = TIME_COLUMNS[table.ours]
        source = self._rows(table)
        counted = self._select(
            f"SELECT toDate({time}) AS day, count(), sum(cityHash64({time})) FROM {source}"  # noqa: S608 - quoted
            f" WHERE {here} GROUP BY day ORDER BY day DESC"
        )
        rows = (line.split("\t") for line in counted.splitlines())
        days = [CopiedDay(table.name, day, int(count), times) for day, count, times in rows]
        kept_from = self._kept_from(table)
        if days and kept_from is not None and date.fromisoformat(days[-1].day) < kept_from:
            yield from (day._replace(left=f"the retention of {table.ours} would remove them") for day in days)
            return
        for day in days:
            self._copy_day(table, day, here, columns)
            yield day
        # If the number of rows has changed since they were counted, something still writes to the exporter's table.
        if counted and sum(day.rows for day in days) != self._count(source, here):
            raise StoreError(
                f"{self._source}.{table.kept} changed while it was copied: stop what writes to it, and run this again"
            )
        self._command(f"ALTER TABLE {self._kept(table)} DETACH PARTITION ID {literal(partition)}")

    def _copy_day(self, table: OldTable, day: CopiedDay, here: str, columns: Columns) -> None:
        batch = f"toUUID({literal(str(batch_id(self._source, day)))})"
        is_of_day = f"BatchId = {batch} AND toDate({TIME_COLUMNS[table.ours]}) = {literal(day.day)}"
        copied = self._count(table.ours, is_of_day)
        if copied == day.rows:
            return
        if copied:  # an earlier run was killed in the middle of the move
            self._command(f"DELETE FROM {table.ours} WHERE {is_of_day} SETTINGS lightweight_deletes_sync = 2")  # noqa: S608
        self._command(f"DROP TABLE IF EXISTS {_STAGING} SYNC")
        self._command(f"CREATE TABLE {_STAGING} AS {table.ours}")
        for statement in self._inserts(table, day, here, columns, batch):
            self._command(statement)
        self._check(table, day, self._count(_STAGING, "1"))
        self._command(f"ALTER TABLE {_STAGING} MOVE PARTITION {literal(day.day)} TO TABLE {table.ours}")
        self._check(table, day, self._count(table.ours, is_of_day))

    def _inserts(self, table: OldTable, day: CopiedDay, here: str, columns: Columns, batch: str) -> Iterator[str]:
        ours = columns_of(self._select, self._database, table.ours)
        values = {name: identifier(name) for name, live in ours.items() if live.kind in ("", "DEFAULT") and name in columns}
        values |= {name: made for name, made in _ADDED.get(table.ours, {}).items() if name in ours}
        values |= {"BatchId": batch, "TenantId": literal(self._tenant)}
        if table.ours != TRACE_TIMES:
            values["Source"] = literal(SOURCE)
        time = TIME_COLUMNS[table.ours]
        rows = self._rows(table)  # once, since it asks the server for the table's engine
        is_large = day.rows > self._statement_rows_max
        for hour in range(_HOURS) if is_large else (None,):
            of_hour = "" if hour is None else f" AND toHour({time}) = {hour}"
            yield (
                f"INSERT INTO {_STAGING} ({', '.join(map(identifier, values))}) SELECT {', '.join(values.values())}"  # noqa: S608
                f" FROM {rows} WHERE {here} AND toDate({time}) = {literal(day.day)}{of_hour}"
            )

    def _check(self, table: OldTable, day: CopiedDay, found: int) -> None:
        if found != day.rows:
            raise StoreError(
                f"of {day.day} {self._source}.{table.kept} has {day.rows:,} rows, and {found:,} were copied: nothing was"
                " detached; run this again"
            )

    def _kept_from(self, table: OldTable) -> date | None:
        """Return the first day that our table keeps; None if it keeps every day."""
        days = self._retention.tenants.get(self._tenant, self._retention.of_table(table.ours))
        if days is None:
            return None
        return date.fromisoformat(self._select("SELECT today()").strip()) - timedelta(days=days - 1)

    def _count(self, table: str, condition: str) -> int:
        return int(self._select(f"SELECT count() FROM {table} WHERE {condition}"))  # noqa: S608 - our own names, quoted

    def _kept(self, table: OldTable) -> str:
        return f"{identifier(self._source)}.{identifier(table.kept)}"

    def _rows(self, table: OldTable) -> str:
        """Return the expression that reads the table. It has FINAL if the engine's merges remove rows, so that a merge between
        two counts does not change the count."""
        of_table = f"database = {literal(self._source)} AND name = {literal(table.kept)}"
        is_plain = self._select(
            "SELECT engine IN ('MergeTree', 'ReplicatedMergeTree', 'SharedMergeTree') FROM system.tables"  # noqa: S608 - quoted
            f" WHERE {of_table}"
        )
        return self._kept(table) + ("" if is_plain.strip() == "1" else " FINAL")


def batch_id(source: str, day: CopiedDay) -> UUID:
    """Return the BatchId of a day's copied rows, which no batch of a gateway has. It changes with the day's rows."""
    return uuid5(_NAMESPACE, f"{source}\0{day.table}\0{day.day}\0{day.rows}\0{day.times}")
