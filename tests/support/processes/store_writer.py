"""The collector's writer, to be killed: run as a program, it stores numbered ranges one after the other until someone ends it.

    python store_writer.py DIRECTORY OUTLIVES_S [URL]

Its store is the embedded engine in DIRECTORY/store, or the server of the tests at URL.
Its broker is a file, DIRECTORY/progress: the range that is intended, or the last that is committed. OUTLIVES_S: for so long an
insert counts as going on after its process died, as a server's may.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog
from support.processes.clickhouse_server import OPTIONS, Server
from support.store_ranges import messages, topic_of

from collector.broker.contract import Partition, Position, Range
from collector.store.clickhouse import ClickHouseStore
from collector.store.options import RequestedTables
from collector.store.retention import Retention
from collector.telemetry.metrics import Metrics
from collector.writer.store_refusals import RefusedItem
from collector.writer.writer import Writer, WriterLimits

LIMITS = WriterLimits(
    bytes_max=1 << 24, row_bytes_max=1 << 27, refusals_max=1000, linger_ms=0, retry_min_s=0.01, retry_max_s=0.1
)

# The letters are years old.
KEEPING = OPTIONS._replace(tables=RequestedTables(Retention(dead_letters=None), fsync=False))


def open_store(directory: Path) -> ClickHouseStore:
    store = ClickHouseStore.embedded(directory / "store", KEEPING)
    store.apply_schema()
    return store


def read_progress(directory: Path) -> tuple[int, bool]:
    """The next range, and whether it is in doubt."""
    path = directory / "progress"
    if not path.exists():
        return 0, False
    number, state = path.read_text().split()
    return (int(number), True) if state == "intended" else (int(number) + 1, False)


class NumberedRanges:
    """A Consumer of ranges that never end; `last`: it ends before this one."""

    def __init__(self, directory: Path, last: int | None = None) -> None:
        self._directory = directory
        self._last = last

    def _note(self, number: int, state: str) -> None:
        temporary = self._directory / "progress.new"
        temporary.write_text(f"{number} {state}")
        temporary.replace(self._directory / "progress")

    async def poll(self, bytes_max: int, wait_s: float) -> Range | None:
        number, in_doubt = read_progress(self._directory)
        if number == self._last:
            await asyncio.sleep(wait_s)
            return None
        made = messages(number)
        return Range(Partition(topic_of(number), 0), number * len(made), (number + 1) * len(made), made, in_doubt, "log")

    async def intend(self, messages: Range) -> None:
        self._note(messages.start // len(messages.payloads), "intended")

    async def commit(self, messages: Range) -> None:
        self._note(messages.start // len(messages.payloads), "committed")

    async def positions(self) -> dict[Partition, Position]:
        number, _ = read_progress(self._directory)
        return {Partition("all", 0): Position(number, number if self._last is None else self._last)}

    async def progress(self) -> dict[Partition, Position]:
        return await self.positions()

    async def lag(self) -> dict[Partition, int]:
        return {}


async def keep(refused: Sequence[RefusedItem]) -> Mapping[str, int]:
    raise AssertionError(refused)


def writer(store: ClickHouseStore, ranges: NumberedRanges) -> Writer:
    return Writer(ranges, store, keep, LIMITS, Metrics())


async def main(directory: Path, outlives_s: float, url: str = "") -> None:
    store = Server(url).store(KEEPING) if url else open_store(directory)
    type(store).insert_outlives_s = property(lambda _: outlives_s)  # type: ignore[method-assign, assignment]
    await writer(store, NumberedRanges(directory)).run()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]))
