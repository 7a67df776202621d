"""A store gets to the newest schema from wherever it was left, and never past what the program knows."""

import pytest

from collector.store.contract import StoreError
from collector.store.migrations import Migration, SchemaTooNew, migrate, migrations, schema_sql


class Crash(Exception):
    """The process ended here."""


class Database:
    """Remembers what was run; ends the process before statement number `crash_at`."""

    def __init__(self) -> None:
        self.version = 0
        self.ran: list[str] = []
        self.crash_at = -1

    def command(self, sql: str) -> None:
        if len(self.ran) == self.crash_at:
            raise Crash
        self.ran.append(sql.strip())
        if sql.startswith("INSERT INTO schema_migrations"):
            self.version = int(sql.split("(")[2].split(",", maxsplit=1)[0])

    def select(self, _sql: str) -> str:
        return f"{self.version}\n"


KNOWN = [
    Migration(1, "0001_a.sql", "-- why; not\nCREATE a (\n    x -- one\n);\n\nCREATE b;\n"),
    Migration(2, "0002_c.sql", "CREATE c;\n"),
]


def test_empty() -> None:
    """An empty database gets everything, in order, each file recorded after its last statement."""
    database = Database()
    assert migrate(database.command, database.select, KNOWN) == ["0001_a.sql", "0002_c.sql"]
    assert [sql.split()[1] for sql in database.ran[1:]] == ["a", "b", "INTO", "c", "INTO"]
    assert database.version == 2


def test_newest() -> None:
    """Nothing is applied twice."""
    database = Database()
    migrate(database.command, database.select, KNOWN)
    assert migrate(database.command, database.select, KNOWN) == []


@pytest.mark.parametrize("crash_at", range(6))
def test_crash(crash_at: int) -> None:
    """Ended before any statement, the next start goes on from the first file that is not recorded."""
    database = Database()
    database.crash_at = crash_at
    with pytest.raises(Crash):
        migrate(database.command, database.select, KNOWN)
    recorded = database.version
    database.crash_at = -1
    assert migrate(database.command, database.select, KNOWN) == [migration.name for migration in KNOWN[recorded:]]
    assert database.version == 2


def test_too_new() -> None:
    """A store of a newer program is left alone."""
    database = Database()
    database.version = 3
    with pytest.raises(SchemaTooNew, match="version 3, this program knows up to 2"):
        migrate(database.command, database.select, KNOWN)
    assert len(database.ran) == 1


def test_files() -> None:
    """The files are numbered from 1, and every statement in them can be run again."""
    known = migrations()
    assert [migration.version for migration in known] == list(range(1, len(known) + 1))
    statements = [statement for migration in known for statement in migration.statements()]
    assert statements
    assert [statement for statement in statements if "IF NOT EXISTS" not in statement.splitlines()[0]] == []


def test_show() -> None:
    """`schema show` has every statement."""
    shown = schema_sql()
    assert all(statement.splitlines()[0] in shown for migration in migrations() for statement in migration.statements())


def test_is_a_store_error() -> None:
    assert issubclass(SchemaTooNew, StoreError)
