"""Adopts the exporter's tables in the database `old` of an embedded store, and copies their rows."""

from collections.abc import Callable

from collector.store.adoption import Adoption
from collector.store.adoption_copy import AdoptionCopy
from collector.store.clickhouse import ClickHouseStore
from collector.store.retention import Retention

Command = Callable[[str], object]
FOREVER = Retention()
TENANT = "it's"


def text(store: ClickHouseStore, sql: str) -> str:
    """The answer as plain lines, of any database."""
    return store.read(sql, "TSVRaw").decode().rstrip("\n")


def adoption_of(store: ClickHouseStore, command: Command | None = None) -> Adoption:
    return Adoption(command or store.administer, _select(store), source="old", database="default", tenant=TENANT, cluster="")


def copier_of(store: ClickHouseStore, command: Command | None = None, retention: Retention = FOREVER) -> AdoptionCopy:
    return AdoptionCopy(
        command or store.administer, _select(store), source="old", database="default", tenant=TENANT, retention=retention
    )


def _select(store: ClickHouseStore) -> Callable[[str], str]:
    return lambda sql: store.read(sql, "TabSeparated").decode()
