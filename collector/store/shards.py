"""Tables that read every shard: a Distributed table for each table and view that users read, in a separate database.

Each shard has its own writers, and its own tables under the same names. The tables of this module only read. They have no
sharding key, so ClickHouse refuses an insert if there is more than one shard (docs/adr/0052).

Invariants (tests/integration/clickhouse/test_shards.py):
1. After a plan was executed, the next plan is empty. After an interruption, the next plan has the rest
   (test_a_plan_that_was_applied_is_empty).
2. Each of these tables has the columns of the table that it reads, and is replaced when these change
   (test_a_plan_that_was_applied_is_empty).
3. ClickHouse parses every statement, for every server of the cluster (test_every_statement_is_parsed).
"""

from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from collector.store.adoption_columns import Columns, columns_of
from collector.store.contract import StoreMisconfigured
from collector.store.migrations import identifier, literal
from collector.store.table_plan import METADATA_ONLY, TableChange
from collector.store.tenant_grants import TENANT_COLUMNS

_ASKED_BY: Final = "clickhouse.shards_cluster, clickhouse.shards_database"


class Shards(NamedTuple):
    """The cluster with every server of every shard, and the database of the tables that read all of them."""

    cluster: str
    database: str


def shard_changes(select: Callable[[str], str], shards: Shards, own: str) -> Iterator[TableChange]:
    """Yield the missing changes, in the order in which to run them. `own` is the database of each shard's tables.

    `select` answers a query as TabSeparated text. Raises StoreMisconfigured.
    """
    on_cluster = f" ON CLUSTER {literal(shards.cluster)}"
    if select(f"SELECT count() FROM system.databases WHERE name = {literal(shards.database)}").strip() == "0":  # noqa: S608
        made = f"CREATE DATABASE IF NOT EXISTS {identifier(shards.database)}{on_cluster}"
        yield TableChange(shards.database, made, METADATA_ONLY, _ASKED_BY)
    engines = _engines(select, shards.database)
    for table in TENANT_COLUMNS:
        columns = columns_of(select, own, table)
        if not columns:
            continue  # the settings do not ask for the table, or a migration has yet to make it
        engine = f"Distributed({literal(shards.cluster)}, {literal(own)}, {literal(table)})"
        live = engines.get(table)
        if live is not None and not live.startswith("Distributed("):
            raise StoreMisconfigured(
                f"{shards.database}.{table} is no Distributed table: clickhouse.shards_database must name a database for these"
                " alone"
            )
        if live != engine or columns_of(select, shards.database, table) != columns:
            name = f"{identifier(shards.database)}.{table}"
            made = f"CREATE OR REPLACE TABLE {name}{on_cluster} ({_listed(columns)}) ENGINE = {engine}"
            yield TableChange(f"{shards.database}.{table}", made, METADATA_ONLY, _ASKED_BY)


def _listed(columns: Columns) -> str:
    """Return the columns for a statement. `SELECT *` leaves computed columns out, as in the shards."""
    return ", ".join(
        f"{identifier(name)} {column.type}" + (f" {column.kind} {column.expression}" if column.kind else "")
        for name, column in columns.items()
    )


def _engines(select: Callable[[str], str], database: str) -> dict[str, str]:
    found = select(f"SELECT name, base64Encode(engine_full) FROM system.tables WHERE database = {literal(database)}")  # noqa: S608
    rows = (line.split("\t") for line in found.splitlines())
    return {name: b64decode(engine).decode() for name, engine in rows}
