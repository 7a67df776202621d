"""Brings the tables of a store up to date: first the migrations, and then the changes that the settings request."""

from collections.abc import Callable
from typing import Final

from clickhouse_connect.driver.exceptions import DatabaseError

from collector.store.adoption import check_own_tables
from collector.store.contract import StoreMisconfigured
from collector.store.migrations import migrate, migrations, on_cluster
from collector.store.options import RequestedTables
from collector.store.server import describe
from collector.store.table_plan import SchemaPlan, TableChange, changes, schema_plan

# ClickHouse's errors for a change of a table that is impossible, so another attempt would fail too.
_IMPOSSIBLE: Final = frozenset(
    {
        "BAD_ARGUMENTS",
        "BAD_TTL_EXPRESSION",
        "ILLEGAL_INDEX",
        "NOT_IMPLEMENTED",
        "SUPPORT_IS_DISABLED",
        "SYNTAX_ERROR",
        "UNKNOWN_DISK",
        "UNKNOWN_POLICY",
        "UNKNOWN_SETTING",
        "UNKNOWN_TYPE",
    }
)


class TableChanges:
    """Plans and makes the changes of one store's tables."""

    def __init__(
        self, command: Callable[[str], object], text: Callable[[str], str], requested: RequestedTables, where: str, cluster: str
    ) -> None:
        """`command` runs a statement. `text` runs a query, and returns its answer, tab-separated. `where` is the engine's name
        in messages."""
        self._command: Final = command
        self._text: Final = text
        self._requested: Final = requested
        self._where: Final = where
        self._cluster: Final = cluster

    def plan(self) -> SchemaPlan:
        """Return the plan that `apply` would execute. It lacks changes of tables that a pending migration will make."""
        check_own_tables(self._text, self._where)
        return schema_plan(self._text, self._requested.as_of_now())

    def apply(self) -> SchemaPlan:
        """Make the missing changes, and return them. This may be killed at any point and run again, also while others
        insert."""
        check_own_tables(self._text, self._where)
        requested = self._requested.as_of_now()
        applied = migrate(self._command, self._text, migrations(), self._cluster)
        changed = self._changes(requested)
        for change in changed:
            self._make(change, requested)
        return SchemaPlan(tuple(applied), changed)

    def _changes(self, requested: RequestedTables) -> tuple[TableChange, ...]:
        return tuple(changes(self._text, requested))

    def _make(self, change: TableChange, requested: RequestedTables) -> None:
        statement = on_cluster(change.statement, self._cluster)
        try:
            self._command(statement)
        except DatabaseError as error:
            if change not in self._changes(requested):
                return  # another process has made it since the plan
            if error.name not in _IMPOSSIBLE:
                raise
            raise StoreMisconfigured(
                f"{self._where} can't change the table {change.table}: {describe(error)}; the statement: {statement};"
                f" to be changed: {change.settings}"
            ) from error
