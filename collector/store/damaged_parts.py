"""Damaged parts of the embedded engine's tables: put aside, so that they hold up nothing, and reported.

A disk that runs full while ClickHouse inserts or merges can leave a part with an empty file, which ClickHouse takes for whole.
Whatever reads it then fails, each time. A part of one insert is detached, which forgets its token too: so the range in doubt,
which is what meets it, can be inserted again. For a merged part the table is loaded again, which puts the part aside and takes
back those that it was merged from, as long as ClickHouse has not deleted them: about 8 minutes (`old_parts_lifetime`).

Invariants:
1. A look-up that meets a damaged part is answered from the others
   (test_a_damaged_part_is_put_aside_while_its_sources_are_there).
2. A range whose insert left a damaged part is stored by its repetition (test_an_insert_that_left_a_damaged_part_is_repeated).
3. A part that was put aside is logged at error, also after a start, until someone removes it
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
# In paths of parts, and where the engine names a table.
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# The last number of a part's name says how often it was merged.
_PART: Final = re.compile(r"/([0-9A-Za-z]+(?:_\d+){2}_(\d+))/")
# Its column `uuid` is zero in the embedded engine.
_TABLES: Final = """
SELECT name, arrayStringConcat(data_paths, ' ') FROM system.tables
WHERE database = currentDatabase() AND engine LIKE '%MergeTree'
"""
PUT_ASIDE_COUNT: Final = "SELECT count() FROM system.detached_parts WHERE database = currentDatabase()"
_PUT_ASIDE: Final = """
SELECT table, path FROM system.detached_parts WHERE database = currentDatabase() ORDER BY path
"""


class DamagedParts:
    """Of one embedded store. One thread at a time."""

    def __init__(self, command: Callable[[str], object], text: Callable[[str], str]) -> None:
        """`command` executes a statement; `text` returns what one answers, tab-separated. Both raise ClickHouseError."""
        self._command: Final = command
        self._text: Final = text
        self._unloaded: set[str] = set()
        self._reported: Final[set[str]] = set()
        self._logger: Final = structlog.get_logger(__name__)

    def put_aside(self, name: str | None, message: str) -> bool:
        """Return whether the error, of that name, was of a damaged part, which is aside now: then another attempt is of use."""
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
        # An earlier attempt may have failed between the two.
        for table in sorted(self._unloaded):
            self._command(f"DETACH TABLE IF EXISTS `{table}` SYNC")
            self._command(f"ATTACH TABLE IF NOT EXISTS `{table}`")
            self._unloaded.discard(table)
        self.report(message)
        return True

    def report(self, error: str = "found at the start") -> None:
        """Log those that were put aside and are not reported yet."""
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
