"""One embedded store that a test opens again and again, with other settings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from collector.store.clickhouse import ClickHouseStore
from collector.store.options import StoreOptions


@contextmanager
def reopening(directory: Path) -> Iterator[Callable[[StoreOptions], ClickHouseStore]]:
    """What opens the store there, once the one before is closed: a process has one at a time."""
    opened: list[ClickHouseStore] = []

    def open_(options: StoreOptions) -> ClickHouseStore:
        while opened:
            opened.pop().close()
        opened.append(ClickHouseStore.embedded(directory, options))
        return opened[-1]

    try:
        yield open_
    finally:
        for store in opened:
            store.close()


def text(store: ClickHouseStore, sql: str) -> str:
    """The answer as plain lines."""
    return store.query(sql, "TSVRaw").decode().rstrip("\n")
