"""The commands `schema`: print, plan and apply changes of the store's tables."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from collector.api.query_client import QueryFailed, ask
from collector.app.data_dir import is_embedded, locked_data_dir, offline_only, offline_or_running, store_dir
from collector.app.storage import open_store, requested_tables
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.store.contract import StoreError
from collector.store.migrations import migrations, on_cluster, schema_sql
from collector.store.shards import Shards, shard_changes
from collector.store.table_plan import SchemaPlan, TableChange, schema_plan
from collector.telemetry import logs

if TYPE_CHECKING:
    # Imported where it is used, since it loads the engine's library.
    from collector.store.clickhouse import ClickHouseStore

_UP_TO_DATE = "the tables are up to date"


def text(settings: Settings) -> str:
    """Return the SQL statements of all migrations, in order."""
    return schema_sql(settings.clickhouse.cluster)


def apply(settings: Settings) -> str:
    """Bring the store's tables up to date. Return the names of the applied migrations and the statements that were run. Raises
    CannotRun."""
    logs.set_up_quietly(settings.logging)
    try:
        done, shards = offline_only(
            settings, lambda: _applied(settings), "it brings its tables up to date when it starts: restart it"
        )
    except StoreError as error:
        raise CannotRun(str(error)) from error
    lines = [f"applied {', '.join(done.migrations)}"] if done.migrations else []
    lines += [f"ran {change.statement}" for change in (*done.changes, *shards)]
    return "\n".join(lines) or _UP_TO_DATE


def plan(settings: Settings) -> str:
    """Return the statements that `apply` would run, each with its cost on the line above. Change nothing. Raises CannotRun."""
    logs.set_up_quietly(settings.logging)
    cluster = settings.clickhouse.cluster
    try:
        if not is_embedded(settings):
            found, shards = _planned_of_server(settings)
            return _text(found, cluster, shards)
        if not store_dir(settings.data_dir).is_dir():
            return _text(SchemaPlan(tuple(migration.name for migration in migrations()), ()), cluster)
        found = offline_or_running(settings, lambda: _planned(settings), lambda: _planned_of_running(settings))
        return _text(found, cluster)
    except (StoreError, QueryFailed) as error:
        raise CannotRun(str(error)) from error


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator["ClickHouseStore"]:
    with (
        locked_data_dir(settings, is_needed=is_embedded(settings), command="schema"),
        contextlib.closing(open_store(settings)) as store,
    ):
        yield store


def _applied(settings: Settings) -> tuple[SchemaPlan, tuple[TableChange, ...]]:
    with _opened(settings) as store:
        done = store.apply_schema()
        shards = _shards_plan(store, settings)
        for change in shards:
            store.administer(change.statement)
        return done, shards


def _shards_plan(store: "ClickHouseStore", settings: Settings) -> tuple[TableChange, ...]:
    """Return the changes that the tables over all shards need; none without clickhouse.shards_cluster."""
    clickhouse = settings.clickhouse
    if not clickhouse.shards_cluster:
        return ()
    shards = Shards(clickhouse.shards_cluster, clickhouse.shards_database)
    return tuple(shard_changes(lambda sql: store.read(sql, "TabSeparated").decode(), shards, clickhouse.database))


def _planned(settings: Settings) -> SchemaPlan:
    with _opened(settings) as store:
        return store.schema_plan()


def _planned_of_server(settings: Settings) -> tuple[SchemaPlan, tuple[TableChange, ...]]:
    with _opened(settings) as store:
        return store.schema_plan(), _shards_plan(store, settings)


def _planned_of_running(settings: Settings) -> SchemaPlan:
    """Return the plan by queries to the collector that has the data directory. A plan only reads the state of the tables."""
    return schema_plan(
        lambda sql: ask(settings.data_dir, sql, "TabSeparated").body.decode(), requested_tables(settings).as_of_now()
    )


def _text(found: SchemaPlan, cluster: str, shards: Sequence[TableChange] = ()) -> str:
    lines = [f"-- {name}: a migration, which rewrites no rows; `schema show` prints it" for name in found.migrations]
    for change in found.changes:
        lines += [f"-- {change.table}: {change.cost}", f"{on_cluster(change.statement, cluster)};"]
    for change in shards:
        lines += [f"-- {change.table}: {change.cost}", f"{change.statement};"]
    return "\n".join(lines) or _UP_TO_DATE
