"""The commands `schema`: with a cluster of all shards, the tables that read them come after the shard's own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from collector.app import schema
from collector.config.settings import Settings
from collector.store.shards import Shards
from collector.store.table_plan import SchemaPlan, TableChange

OWN = TableChange("otel_logs", "ALTER TABLE otel_logs MODIFY SETTING a = 1", "metadata only", "a")
READING = TableChange("s.otel_logs", "CREATE OR REPLACE TABLE s.otel_logs ON CLUSTER 'every' (a Int8)", "metadata only", "b")


class Store:
    """What it was asked, in order."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def apply_schema(self) -> SchemaPlan:
        self.ran.append("schema")
        return SchemaPlan((), (OWN,))

    def schema_plan(self) -> SchemaPlan:
        return SchemaPlan((), (OWN,))

    def read(self, sql: str, format_: str) -> bytes:
        return f"{sql} {format_}".encode()

    def administer(self, statement: str) -> None:
        self.ran.append(statement)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()

    @contextmanager
    def opened(settings: Settings) -> Iterator[Store]:
        yield made

    def changes(select: Callable[[str], str], shards: Shards, own: str) -> Iterator[TableChange]:
        assert (select("asked"), shards, own) == ("asked TabSeparated", Shards("every", "s"), "default")
        yield READING

    monkeypatch.setattr(schema, "_opened", opened)
    monkeypatch.setattr(schema, "shard_changes", changes)
    return made


def settings(**more: str) -> Settings:
    return Settings.model_validate({"clickhouse": {"url": "http://127.0.0.1:9", "cluster": "one", **more}})


def test_tables_of_all_shards_are_made_last(store: Store) -> None:
    """Each statement says its cluster: the shard's own its replicas, the others every shard."""
    of_all = settings(shards_cluster="every", shards_database="s")
    assert schema.plan(of_all).splitlines() == [
        "-- otel_logs: metadata only",
        "ALTER TABLE otel_logs ON CLUSTER 'one' MODIFY SETTING a = 1;",
        "-- s.otel_logs: metadata only",
        f"{READING.statement};",
    ]
    assert store.ran == []
    assert schema.apply(of_all).splitlines() == [f"ran {OWN.statement}", f"ran {READING.statement}"]
    assert store.ran == ["schema", READING.statement]


def test_without_a_cluster_of_all_shards_none_is_made(store: Store) -> None:
    assert schema.apply(settings()) == f"ran {OWN.statement}"
    assert schema.plan(settings()).count("\n") == 1
    assert store.ran == ["schema"]
