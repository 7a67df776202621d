"""Inserts as a writer before schema 17 makes them: records of version 1, into its landing tables, in its own format."""

from pathlib import Path
from typing import Final

import pytest

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.store.insert import LANDING, Landing
from collector.store.migrations import migrations

_FORMAT: Final = Path(__file__).with_name("former_landing.proto")
_TABLES: Final = {METRICS_TOPIC: "landing_metrics", LOGS_TOPIC: "landing_logs", TRACES_TOPIC: "landing_traces"}


def insert_as_former_writer(patch: pytest.MonkeyPatch) -> None:
    """Let embedded stores insert so, for as long as the patch holds."""
    for topic, table in _TABLES.items():
        patch.setitem(LANDING, topic, Landing(table, _FORMAT))


def be_of_version(patch: pytest.MonkeyPatch, version: int) -> None:
    """The same, and the schema ends with that version."""
    insert_as_former_writer(patch)
    patch.setattr("collector.store.table_changes.migrations", lambda: migrations()[:version])
