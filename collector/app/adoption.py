"""The command `schema adopt`: takes over the tables of the OpenTelemetry Collector's ClickHouse exporter."""

import contextlib
from collections.abc import Callable

from collector.app.data_dir import is_embedded
from collector.app.storage import open_server, requested_tables
from collector.config.settings import Settings
from collector.runtime.errors import CannotRun
from collector.store.adoption import Adoption
from collector.store.adoption_copy import AdoptionCopy, CopiedDay
from collector.store.contract import StoreError
from collector.telemetry import logs


def adopt(settings: Settings, source: str, tenant: str, *, copies: bool, print_line: Callable[[str], None]) -> None:
    """Take over the exporter's tables in the database `source`. The rows in them get the tenant `tenant`.

    With `copies`, also copy the rows into the collector's tables. `print_line` gets a line of text after each step. Raises
    CannotRun.
    """
    logs.set_up_quietly(settings.logging)
    database, cluster = settings.clickhouse.database, settings.clickhouse.cluster
    if is_embedded(settings):
        raise CannotRun(
            "no ClickHouse server is given (--clickhouse, clickhouse.url), so there is no exporter's table to adopt"
        )
    if source == database:
        raise CannotRun(
            f"--from and clickhouse.database are both {source}: the collector's tables have the exporter's names, so"
            " clickhouse.database must name another database, which is made if it does not exist"
        )
    if copies and cluster:
        raise CannotRun(
            "--copy is for a server alone, and clickhouse.cluster is set: without it, old rows are read where they are"
        )
    try:
        with contextlib.closing(open_server(settings)) as store:
            store.apply_schema()

            def select(sql: str) -> str:
                return store.read(sql, "TabSeparated").decode()

            adoption = Adoption(store.administer, select, source=source, database=database, tenant=tenant, cluster=cluster)
            readers = adoption.readers()
            done = list(adoption.adopt())
            if not done:
                raise CannotRun(f"the database {source} has no table of the exporter: --from must name the exporter's database")
            for table in done:
                print_line(f"{source}.{table.name} shows the rows of {table.kept} and of {database}.{table.ours}")
                for difference in adoption.differences(table):
                    print_line(f"warning: {source}.{table.name}: {difference}")
            for reader in readers:
                print_line(f"warning: the materialized view {reader} reads an exporter's table, and sees no new rows")
            if copies:
                copy = AdoptionCopy(
                    store.administer,
                    select,
                    source=source,
                    database=database,
                    tenant=tenant,
                    retention=requested_tables(settings).as_of_now().retention,
                )
                for table in done:
                    for day in copy.copy(table):
                        print_line(_line(day))
    except StoreError as error:
        raise CannotRun(f"{error}; what was done stays, and `schema adopt` may be run again") from error


def _line(day: CopiedDay) -> str:
    rows = f"{day.table} {day.day}: {day.rows:,} rows"
    return f"{rows} stay: {day.left}" if day.left else f"{rows} copied"
