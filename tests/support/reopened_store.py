"""Embedded stores: one that has its tables, and one that a test opens again and again, with other settings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.store_templates import copy_store

from collector.store.clickhouse import ClickHouseStore
from collector.store.options import StoreOptions

_DEFAULTS = StoreOptions()


def store_with_tables(directory: Path, options: StoreOptions = _DEFAULTS) -> ClickHouseStore:
    """The embedded store in this directory, or a new one, open; its tables as these options want them."""
    if not directory.exists():
        copy_store(directory, fsync=options.tables.fsync)
    store = ClickHouseStore.embedded(directory, options)
    store.apply_schema()
    return store


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
