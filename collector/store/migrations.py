"""The schema as numbered SQL files, and how a store gets from any of them to the newest.

The law: a file that was released is never edited; every statement can be run again, so a crash in the middle of a file costs
nothing: it is not recorded as applied, and the next start runs it from its first statement.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from collector.store.contract import StoreError

_SCHEMA: Final = Path(__file__).parent.absolute() / "schema"
# How the engine parses payloads.
LANDING_FORMAT: Final = _SCHEMA / "landing.proto"
_NAME_DIGITS: Final = 4

_CREATE_MIGRATIONS: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    Version UInt32,
    Name String,
    AppliedAt DateTime64(3) DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY Version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
"""


class SchemaTooNew(StoreError):
    """A newer program has migrated this store. Permanent: this one must not write to it."""


class Migration(NamedTuple):
    """One numbered file: `0001_metrics.sql` has version 1."""

    version: int
    name: str
    sql: str

    def statements(self) -> Iterator[str]:
        """Its statements, each without its semicolon. In our files a semicolon ends a line where it ends a statement, only."""
        for text in self.sql.split(";\n"):
            lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--")]
            if lines:
                yield "\n".join(lines)


def migrations() -> list[Migration]:
    """All that this program knows, in order."""
    files = sorted(_SCHEMA.glob("*.sql"))
    found = [Migration(int(file.name[:_NAME_DIGITS]), file.name, file.read_text("utf-8")) for file in files]
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise StoreError(f"the schema's files are not numbered from 1 without gaps: {', '.join(file.name for file in files)}")
    return found


def schema_sql() -> str:
    """What `schema show` prints: every migration, in order, as it is applied to an empty database."""
    return "\n".join(f"-- {migration.name}\n{migration.sql}" for migration in migrations())


def migrate(command: Callable[[str], object], select: Callable[[str], str], known: list[Migration]) -> list[str]:
    """Bring the database to the newest of `known`; the names of the files applied, none when it was there already.

    `command` runs one statement, `select` answers a query as TabSeparated text. Raises SchemaTooNew, and what these two raise.
    """
    command(_CREATE_MIGRATIONS)
    version = int(select("SELECT max(Version) FROM schema_migrations"))
    newest = known[-1].version
    if version > newest:
        raise SchemaTooNew(
            f"the store's schema has version {version}, this program knows up to {newest}: "
            "start the program that last wrote to it, or a newer one"
        )
    applied = []
    for migration in known:
        if migration.version > version:
            for statement in migration.statements():
                command(statement)
            row = f"({migration.version}, '{migration.name}')"
            command(f"INSERT INTO schema_migrations (Version, Name) VALUES {row}")  # noqa: S608 - a file's own name
            applied.append(migration.name)
    return applied
