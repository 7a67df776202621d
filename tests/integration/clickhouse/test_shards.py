"""Tables that read every shard, planned from the live tables. Other servers can't be read here: there is one engine."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.reopened_store import store_with_tables

from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import StoreMisconfigured
from collector.store.migrations import literal
from collector.store.options import RequestedTables, StoreOptions
from collector.store.shards import Shards, shard_changes
from collector.store.tenant_grants import TENANT_COLUMNS

SHARDS = Shards("every it's", "all shards")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    wanted = RequestedTables(fsync=False, rollups=True, sessions=True)
    with closing(store_with_tables(tmp_path_factory.mktemp("store") / "store", StoreOptions(wanted))) as opened:
        yield opened


def test_every_statement_is_parsed(store: ClickHouseStore) -> None:
    """A database, and a table for each table and view that people read, on every server of the cluster."""
    statements = [change.statement for change in shard_changes(store._text, SHARDS, "default")]
    parsed = [store.query(f"SELECT formatQuerySingleLine({literal(one)})", "TSVRaw").decode() for one in statements]
    assert parsed[0].strip() == "CREATE DATABASE IF NOT EXISTS `all shards` ON CLUSTER `every it's`"
    assert all(" ON CLUSTER `every it's`" in one for one in parsed)
    tables = [re.search(r"CREATE OR REPLACE TABLE `all shards`\.(\w+) ", one) for one in parsed[1:]]
    assert [found[1] for found in tables if found is not None] == list(TENANT_COLUMNS)
    logs = next(one for one in parsed if ".otel_logs " in one)
    assert "ENGINE = Distributed('every it\\'s', 'default', 'otel_logs')" in logs
    assert "TimestampTime` DateTime ALIAS toDateTime(Timestamp)" in logs


def test_tables_that_are_not_there_are_left_out(store: ClickHouseStore) -> None:
    """Those that a setting would make."""
    changes = list(shard_changes(store._text, SHARDS, "another"))
    assert [change.table for change in changes] == [SHARDS.database]


def test_a_table_of_another_kind_is_refused(store: ClickHouseStore) -> None:
    """The database of the shards' own tables, or one that is used for something else."""
    with pytest.raises(StoreMisconfigured, match=r"default\.\w+ is no Distributed table: clickhouse\.shards_database must"):
        list(shard_changes(store._text, SHARDS._replace(database="default"), "default"))


ENGINE = """
import sys
import chdb
from collector.store.shards import Shards, shard_changes
connection = chdb.connect(f"{sys.argv[1]}/store?config-file={sys.argv[1]}/shards.xml")
def select(sql): return connection.query(sql, "TabSeparated").data()
def planned(): return [c.statement for c in shard_changes(select, Shards("every", "shards"), "default")]
def run(statement): select(statement.replace(" ON CLUSTER 'every'", ""))
select("CREATE TABLE otel_logs (Timestamp DateTime64(9), TimestampTime DateTime ALIAS toDateTime(Timestamp), Body String,"
       " TenantId LowCardinality(String), ResourceAttributes Map(LowCardinality(String), String),"
       " `__otel_materialized_k8s.pod.name` LowCardinality(String) MATERIALIZED ResourceAttributes['k8s.pod.name'])"
       " ENGINE = MergeTree ORDER BY Timestamp")
select("CREATE TABLE otel_traces (Timestamp DateTime64(9), `Events.Name` Array(String), TenantId String)"
       " ENGINE = MergeTree ORDER BY Timestamp")
select("CREATE VIEW telemetry AS SELECT TenantId AS tenant FROM otel_logs")
whole = planned()
print(len(whole))
for number, statement in enumerate(whole):
    run(statement)
    assert planned() == whole[number + 1:], (planned(), whole[number + 1:])
print(planned())
select("ALTER TABLE otel_logs ADD COLUMN More String MATERIALIZED upper(Body)")
more = planned()
print(len(more), "`More` String MATERIALIZED upper(Body)" in more[0])
run(more[0])
print(planned())
print(select("SELECT count() FROM system.columns WHERE database = 'shards' AND table = 'otel_logs'"), end="")
try:
    select("INSERT INTO shards.otel_logs (Body) VALUES ('x')")
except Exception as error:
    print("sharding key" in str(error))
explained = select("EXPLAIN PLAN SELECT Body FROM shards.otel_logs WHERE TimestampTime > now() - 60")
print("ReadFromRemote" in explained or "Remote" in explained)
"""


def test_a_plan_that_was_applied_is_empty(tmp_path: Path) -> None:
    """The engine has a cluster of two shards, whose configuration only a process of its own can have. The statements run
    without ON CLUSTER, which needs Keeper. Interrupted after each of them, the next plan has the rest. A column that a table
    gets later is followed, and no insert is taken."""
    shard = "<shard><replica><host>127.0.0.{}</host><port>9</port></replica></shard>"
    every = f"<every>{shard.format(1)}{shard.format(2)}</every>"
    (tmp_path / "shards.xml").write_text(f"<clickhouse><remote_servers>{every}</remote_servers></clickhouse>")
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["4", "[]", "1 True", "[]", "7", "True", "True"]
