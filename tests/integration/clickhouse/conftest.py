"""A store that adopts tables, which a module's tests share."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from support.processes.clickhouse_server import OPTIONS
from support.reopened_store import store_with_tables

from collector.store.adoption import EXPORTER_TABLES
from collector.store.clickhouse import ClickHouseStore


@pytest.fixture(scope="module")
def opened_for_adoption(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    with closing(store_with_tables(tmp_path_factory.mktemp("store") / "store", OPTIONS)) as made:
        yield made


@pytest.fixture
def adopting_store(opened_for_adoption: ClickHouseStore) -> Iterator[ClickHouseStore]:
    """With its own tables, empty, and no database of an exporter."""
    yield opened_for_adoption
    opened_for_adoption._command("DROP DATABASE IF EXISTS old SYNC")
    for table in set(EXPORTER_TABLES.values()):
        opened_for_adoption._command(f"TRUNCATE TABLE {table} SYNC")
