"""The commands `schema`: the store's tables."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from collector.api.query_client import QueryFailed, ask
from collector.app.data_dir import is_embedded, locked_data_dir, offline_only, offline_or_running, store_dir
from collector.app.storage import open_store, wanted_tables
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.store.contract import StoreError
from collector.store.migrations import migrations, on_cluster, schema_sql
from collector.store.table_plan import SchemaPlan, schema_plan
from collector.telemetry import logs

if TYPE_CHECKING:
    # It loads the engine's library.
    from collector.store.clickhouse import ClickHouseStore

_UP_TO_DATE = "the tables are up to date"


def text(settings: Settings) -> str:
    """The statements of every migration, in order."""
    return schema_sql(settings.clickhouse.cluster)


def apply(settings: Settings) -> str:
    """Bring the store's tables up to date, and return what was done. Raises CannotRun."""
    logs.set_up_quietly(settings.logging)
    try:
        done = offline_only(settings, lambda: _applied(settings), "it brings its tables up to date when it starts: restart it")
    except StoreError as error:
        raise CannotRun(str(error)) from error
    lines = [f"applied {', '.join(done.migrations)}"] if done.migrations else []
    lines += [f"ran {change.statement}" for change in done.changes]
    return "\n".join(lines) or _UP_TO_DATE


def plan(settings: Settings) -> str:
    """Return the statements that `apply` would run, each below its cost. Change nothing. Raises CannotRun."""
    logs.set_up_quietly(settings.logging)
    cluster = settings.clickhouse.cluster
    try:
        if not is_embedded(settings):
            return _text(_planned(settings), cluster)
        if not store_dir(settings.data_dir).is_dir():
            return _text(SchemaPlan(tuple(migration.name for migration in migrations()), ()), cluster)
        found = offline_or_running(settings, lambda: _planned(settings), lambda: _planned_of_running(settings))
        return _text(found, cluster)
    except (StoreError, QueryFailed) as error:
        raise CannotRun(str(error)) from error


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator["ClickHouseStore"]:
    with (
        locked_data_dir(settings, wanted=is_embedded(settings), command="schema"),
        contextlib.closing(open_store(settings)) as store,
    ):
        yield store


def _applied(settings: Settings) -> SchemaPlan:
    with _opened(settings) as store:
        return store.apply_schema()


def _planned(settings: Settings) -> SchemaPlan:
    with _opened(settings) as store:
        return store.schema_plan()


def _planned_of_running(settings: Settings) -> SchemaPlan:
    """Ask the collector that has the data directory: to read what the tables are is all that a plan needs."""
    return schema_plan(
        lambda sql: ask(settings.data_dir, sql, "TabSeparated").body.decode(), wanted_tables(settings).as_of_now()
    )


def _text(found: SchemaPlan, cluster: str) -> str:
    lines = [f"-- {name}: a migration, which rewrites no rows; `schema show` prints it" for name in found.migrations]
    for change in found.changes:
        lines += [f"-- {change.table}: {change.cost}", f"{on_cluster(change.statement, cluster)};"]
    return "\n".join(lines) or _UP_TO_DATE
