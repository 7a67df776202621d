"""Inserts as a writer before schema 17 makes them: records of version 1, into its landing tables, in its own format."""

from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from support.store_templates import copy_template

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.store.clickhouse import ClickHouseStore
from collector.store.insert import LANDING, InsertTarget
from collector.store.migrations import migrations

_FORMAT: Final = Path(__file__).with_name("former_landing.proto")
_TABLES: Final = {METRICS_TOPIC: "landing_metrics", LOGS_TOPIC: "landing_logs", TRACES_TOPIC: "landing_traces"}


def insert_as_former_writer(patch: pytest.MonkeyPatch) -> None:
    """Let embedded stores insert so, for as long as the patch holds."""
    for topic, table in _TABLES.items():
        patch.setitem(LANDING, topic, InsertTarget(table, _FORMAT))


def be_of_version(patch: pytest.MonkeyPatch, version: int) -> None:
    """The same, and the schema ends with that version."""
    insert_as_former_writer(patch)
    patch.setattr("collector.store.table_changes.migrations", lambda: migrations()[:version])


def copy_former_store(directory: Path, version: int) -> None:
    """Make an embedded store whose schema ends with that version, empty, of a directory that is not there yet. This process has
    no other store open."""

    def make(template: Path) -> None:
        with closing(ClickHouseStore.embedded(template)) as store, pytest.MonkeyPatch.context() as earlier:
            be_of_version(earlier, version)
            assert len(store.apply_schema().migrations) == version

    copy_template(f"version {version}", make, directory)
