"""Moves damaged parts of the embedded engine's tables aside, so that queries and inserts continue, and reports the parts.

If the disk becomes full while ClickHouse inserts or merges, a part with an empty file can remain, which ClickHouse regards as
complete. Then every statement that reads the part fails.

A part of one insert is detached. This also removes its token, so a range in doubt whose look-up fails can be inserted again.
For a merged part the table is loaded again. This moves the part aside and restores the parts from which it was merged, as long
as ClickHouse has not deleted them: about 8 minutes (`old_parts_lifetime`).

Invariants:
1. A look-up that reads a damaged part is answered from the other parts
   (test_a_damaged_part_is_put_aside_while_its_sources_are_there).
2. A range whose insert left a damaged part is stored when it is repeated
   (test_an_insert_that_left_a_damaged_part_is_repeated).
3. A part that was moved aside is logged as an error, also after a start, until an operator removes it
   (test_a_part_that_was_put_aside_is_reported).
"""

import re
from collections.abc import Callable
from typing import Final

import structlog

_DAMAGE: Final = frozenset(
    [
        "BAD_SIZE_OF_FILE_IN_DATA_PART",
        "CANNOT_READ_ALL_DATA",
        "CHECKSUM_DOESNT_MATCH",
        "CORRUPTED_DATA",
        "NO_FILE_IN_DATA_PART",
    ]
)
# The identifier of a table, in the paths of its parts and in the engine's names.
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# The last number in the name of a part is its merge level: 0 for a part of one insert.
_PART: Final = re.compile(r"/([0-9A-Za-z]+(?:_\d+){2}_(\d+))/")
# The column `uuid` of this table is zero in the embedded engine, so tables are found by their paths.
_TABLES: Final = """
SELECT name, arrayStringConcat(data_paths, ' ') FROM system.tables
WHERE database = currentDatabase() AND engine LIKE '%MergeTree'
"""
PUT_ASIDE_COUNT: Final = "SELECT count() FROM system.detached_parts WHERE database = currentDatabase()"
_PUT_ASIDE: Final = """
SELECT table, path FROM system.detached_parts WHERE database = currentDatabase() ORDER BY path
"""


class DamagedParts:
    """Moves damaged parts of one embedded store aside. Only one thread at a time may use it."""

    def __init__(self, command: Callable[[str], object], text: Callable[[str], str]) -> None:
        """`command` executes a statement. `text` executes a query, and returns its answer, tab-separated. Both raise
        ClickHouseError."""
        self._command: Final = command
        self._text: Final = text
        self._unloaded: set[str] = set()
        self._reported: Final[set[str]] = set()
        self._logger: Final = structlog.get_logger(__name__)

    def put_aside(self, name: str | None, message: str) -> bool:
        """Move the damaged part aside if an error is about one. Return whether something was done, so that another attempt may
        succeed. `name` and `message` are the error's."""
        detached = False
        if name in _DAMAGE:
            parts = dict(_PART.findall(message))
            for line in self._text(_TABLES).splitlines():
                table, paths = line.split("\t")
                if not any(id_ in paths for id_ in _UUID.findall(message)):
                    continue
                inserted = [part for part, merges in parts.items() if merges == "0"]
                for part in inserted:
                    self._command(f"ALTER TABLE `{table}` DETACH PART '{part}'")
                    detached = True
                if not inserted:
                    self._unloaded.add(table)
        if not self._unloaded and not detached:
            return False
        # An earlier attempt may have failed between these two statements, so both can be repeated.
        for table in sorted(self._unloaded):
            self._command(f"DETACH TABLE IF EXISTS `{table}` SYNC")
            self._command(f"ATTACH TABLE IF NOT EXISTS `{table}`")
            self._unloaded.discard(table)
        self.report(message)
        return True

    def report(self, error: str = "found at the start") -> None:
        """Log the parts that were moved aside and are not reported yet."""
        for line in self._text(_PUT_ASIDE).splitlines():
            table, path = line.split("\t")
            if path not in self._reported:
                self._reported.add(path)
                self._logger.error(
                    "a part of a table is damaged and was put aside; `audit` shows whether rows are missing",
                    table=table,
                    kept=path,
                    error=error,
                )
