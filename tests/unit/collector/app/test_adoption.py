"""`schema adopt` says what it did, and what it can't do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import exporter_tables
from support.processes.clickhouse_server import Bridge, bridge

from collector.app.adoption import adopt
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with bridge(tmp_path_factory.mktemp("bridge") / "server") as made:
        yield made


def settings_of(there: Bridge, **given: object) -> Settings:
    clickhouse = {"url": there.url, "user": there.user, "password": there.password, "database": "telemetry", **given}
    return Settings.model_validate({"clickhouse": clickhouse})


def test_tables_are_adopted_and_copied(there: Bridge) -> None:
    """Ours are made too; each table, each day and each view of others has a line. Again, there is nothing to copy."""
    with_old = there.store(database="default")
    exporter_tables.make(with_old.administer, "old", "map of 2024")
    with_old.administer("ALTER TABLE old.otel_logs ADD COLUMN Cluster String, ADD COLUMN Pod String ALIAS LogAttributes['pod']")
    exporter_tables.insert(with_old.administer, "old", "map of 2024", "2026-03-01", 3, "otel_logs")
    with_old.administer("CREATE MATERIALIZED VIEW old.errors ENGINE = Null AS SELECT Body FROM old.otel_logs")
    with_old.close()
    said: list[str] = []
    adopt(settings_of(there), "old", "acme", copies=True, print_line=said.append)
    assert "old.otel_logs shows the rows of otel_logs_exporter and of telemetry.otel_logs" in said
    assert "warning: old.otel_logs: in new and in copied rows these columns are empty: Cluster" in said
    assert len(exporter_tables.TABLES) == len([line for line in said if " shows the rows of " in line])
    assert "warning: the materialized view old.errors reads an exporter's table, and sees no new rows" in said
    assert "otel_logs 2026-03-01: 3 rows copied" == said[-1]
    said.clear()
    adopt(settings_of(there), "old", "acme", copies=True, print_line=said.append)
    assert [] == [line for line in said if "rows copied" in line]


def test_what_can_not_be_adopted(there: Bridge, tmp_path: Path) -> None:
    """Is said before anything is changed, with what to change."""
    cases = [
        (Settings(data_dir=tmp_path), "old", "no ClickHouse server is given"),
        (settings_of(there), "telemetry", "clickhouse.database must name another database"),
        (settings_of(there, cluster="main"), "old", "--copy is for a server alone"),
        (settings_of(there), "nowhere", "the database nowhere has no table of the exporter"),
        (settings_of(there, password="wrong"), "old", "may be run again"),
    ]
    for settings, source, message in cases:
        with pytest.raises(CannotRun, match=message):
            adopt(settings, source, "acme", copies=True, print_line=pytest.fail)
