"""How long the store keeps rows: by its day a row is in a partition, and a partition is dropped as a whole."""

import re
from collections.abc import Callable
from typing import Final

from collector.broker.contract import METRICS_TOPIC
from collector.store.completion import TRACE_TIMES
from collector.store.contract import TABLES
from collector.store.migrations import on_cluster
from collector.store.options import StoreOptions

TIME_COLUMNS: Final = {
    **dict.fromkeys(TABLES[METRICS_TOPIC], "TimeUnix"),
    "otel_logs": "Timestamp",
    "otel_traces": "Timestamp",
    TRACE_TIMES: "Start",
    "telemetry_batches": "ReceivedAt",
}
"""By which column a table's rows grow old, for tables that have the retention of telemetry."""

# Dead letters have a retention of their own. An event must not go before its entry, which would then look open again; and both
# go whole days at a time, some hours late.
DEAD_LETTERS: Final = ("telemetry_dead_letters", "KeptAt")
EVENTS: Final = ("telemetry_dead_letter_events", "At")
_EVENTS_STAY_DAYS: Final = 7


class Retention:
    """Of one store."""

    def __init__(
        self, command: Callable[[str], object], text: Callable[[str], str], options: StoreOptions, cluster: str
    ) -> None:
        """`command` runs a statement; `text` answers one, tab-separated."""
        self._command: Final = command
        self._text: Final = text
        self._options: Final = options
        self._cluster: Final = cluster

    def apply(self) -> None:
        """Give each table the retention and the durability that the options ask for, where it has others."""
        for table, column in TIME_COLUMNS.items():
            self._keep(table, column, self._options.retention_days)
        days = self._options.dead_letters_retention_days
        self._keep(*DEAD_LETTERS, days)
        self._keep(*EVENTS, None if days is None else days + _EVENTS_STAY_DAYS)

    def _keep(self, table: str, column: str, days: int | None) -> None:
        engine = self._text(f"SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = '{table}'")  # noqa: S608 - ours
        found = re.search(r" TTL (.+?) SETTINGS ", engine)
        wanted = None if days is None else f"toDateTime({column}) + toIntervalDay({days})"

        def alter(what: str) -> None:
            self._command(on_cluster(f"ALTER TABLE {table} {what}", self._cluster))

        if (found[1] if found else None) != wanted:
            alter(f"MODIFY TTL {wanted}" if wanted else "REMOVE TTL")
        for setting in ("fsync_after_insert", "fsync_part_directory"):
            if f"{setting} = {self._options.fsync:d}" not in engine:
                alter(f"MODIFY SETTING {setting} = {self._options.fsync:d}")
