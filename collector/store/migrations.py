"""The schema as numbered SQL files, and the migration of a store from any version to the newest.

A released file is never edited so that its result changes.

Invariants:
1. Every statement can be run again, behind each of its file. If a crash interrupts a file, the file is not recorded as applied.
   The next start runs it from its first statement (tests/integration/clickhouse/test_migrations.py,
   test_each_statement_may_be_the_last).
2. A store that is up to date is only read: no statement runs that would need the other servers of a cluster
   (tests/integration/clickhouse/test_server.py, test_up_to_date_is_only_read).
3. A table is recreated only if it has no part, neither an active nor a detached one
   (tests/integration/clickhouse/test_migrations.py, test_tables_with_rows_keep_their_order, test_what_was_put_aside_is_kept).
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from collector.store.contract import StoreError

_SCHEMA: Final = Path(__file__).parent.absolute() / "schema"
# The formats by which the engine parses payloads of each topic.
METRICS_FORMAT: Final = _SCHEMA / "landing_metrics.proto"
LOGS_FORMAT: Final = _SCHEMA / "landing_logs.proto"
TRACES_FORMAT: Final = _SCHEMA / "landing_traces.proto"
DEAD_LETTERS_FORMAT: Final = _SCHEMA / "dead_letters.proto"
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
""".strip()

# The beginning of a statement of ours, up to the name of its table, view or database, after which ON CLUSTER is inserted.
_BEGINNING: Final = re.compile(
    r"(?:CREATE (?:TABLE|VIEW|MATERIALIZED VIEW|DATABASE) IF NOT EXISTS"
    r"|DROP (?:TABLE|VIEW) IF EXISTS(?: IF EMPTY)?|ALTER TABLE) "
    r"(?:\w+|`[^`]+`)"
)
_RENAMING: Final = re.compile(r"RENAME TABLE IF EXISTS \w+ TO \w+\Z")
# The statement before a table is recreated.
_DROP_IF_EMPTY: Final = re.compile(r"DROP TABLE IF EXISTS IF EMPTY (\w+) SYNC\Z")
_ENGINE: Final = re.compile(r"^ENGINE = (\w*MergeTree)\b(?:\((.+)\))?", re.MULTILINE)
_WINDOW: Final = re.compile(r"\bnon_replicated_deduplication_window = (\d+)")
# The path has the table's name and not its UUID, so that a server that joins the cluster later finds the tables of the others.
_REPLICA: Final = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
# ClickHouse's default is an hour. After this time, a range that is still in doubt could be stored twice.
REPLICATED_WINDOW_S: Final = 7 * 24 * 3600


class SchemaTooNew(StoreError):
    """A newer program has migrated this store. The error is permanent: this program must not write to the store."""


class Migration(NamedTuple):
    """One numbered file: `0001_metrics.sql` has version 1."""

    version: int
    name: str
    sql: str

    def statements(self) -> Iterator[str]:
        """Yield the statements, each without its semicolon. In our files, a semicolon at the end of a line always ends a
        statement."""
        for text in self.sql.split(";\n"):
            lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--")]
            if lines:
                yield "\n".join(lines)


def migrations() -> list[Migration]:
    """Return all migrations that this program knows, in order."""
    files = sorted(_SCHEMA.glob("*.sql"))
    found = [Migration(int(file.name[:_NAME_DIGITS]), file.name, file.read_text("utf-8")) for file in files]
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise StoreError(f"the schema's files are not numbered from 1 without gaps: {', '.join(file.name for file in files)}")
    return found


def schema_sql(cluster: str = "") -> str:
    """Return the text that `schema show` prints: every migration, in order, as it is applied to an empty database."""
    if not cluster:
        return "\n".join(f"-- {migration.name}\n{migration.sql}" for migration in migrations())
    # The comments in the files are left out here. They are in the form without a cluster, and apply to each engine.
    return "\n".join(
        f"-- {migration.name}\n" + "".join(f"{on_cluster(statement, cluster)};\n\n" for statement in migration.statements())
        for migration in migrations()
    )


def literal(text: str) -> str:
    """Return a text as a literal of a statement, in quotes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def identifier(name: str) -> str:
    """Return a name as an identifier of a statement, in backticks."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def on_cluster(statement: str, cluster: str) -> str:
    """Return a statement of ours for every server of a cluster, with its table replicated; unchanged without a cluster.

    The servers' own configuration gives each its macros {shard} and {replica}.
    """
    if not cluster:
        return statement
    if _RENAMING.match(statement):
        return f"{statement} ON CLUSTER {literal(cluster)}"
    beginning = _BEGINNING.match(statement)
    if beginning is None:
        raise StoreError(f"cannot be run on a cluster: {statement.splitlines()[0]}")
    rest = statement[beginning.end() :]
    rest = _ENGINE.sub(lambda found: f"ENGINE = Replicated{found[1]}({', '.join(filter(None, (_REPLICA, found[2])))})", rest)
    rest = _WINDOW.sub(
        rf"replicated_deduplication_window = \1,\n    replicated_deduplication_window_seconds = {REPLICATED_WINDOW_S}", rest
    )
    return f"{beginning[0]} ON CLUSTER {literal(cluster)}{rest}"


def migrate(
    command: Callable[[str], object], select: Callable[[str], str], known: list[Migration], cluster: str = ""
) -> list[str]:
    """Bring the database to the newest of `known`. Return the names of the applied files, if any.

    `command` runs one statement, `select` answers a query as TabSeparated text. Raises SchemaTooNew, and their errors.
    """
    exists, version = _version(select, known)
    if not exists:
        command(on_cluster(_CREATE_MIGRATIONS, cluster))
    applied = []
    for migration in known:
        if migration.version > version:
            for statement in migration.statements():
                if not _is_kept(statement, select, is_of_earlier_version=version > 0, cluster=cluster):
                    command(on_cluster(statement, cluster))
            row = f"({migration.version}, '{migration.name}')"
            command(f"INSERT INTO schema_migrations (Version, Name) VALUES {row}")  # noqa: S608 - a file's own name
            applied.append(migration.name)
    return applied


def pending(select: Callable[[str], str], known: list[Migration]) -> tuple[str, ...]:
    """Return the names of the files of `known` that are not applied yet. Raises SchemaTooNew."""
    _, version = _version(select, known)
    return tuple(migration.name for migration in known if migration.version > version)


def _version(select: Callable[[str], str], known: list[Migration]) -> tuple[bool, int]:
    """Return whether the database has a schema, and its version. Raises SchemaTooNew."""
    # EXISTS is not used, since a running collector that answers the query refuses it.
    found = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'schema_migrations'"
    exists = bool(int(select(found)))
    version = int(select("SELECT max(Version) FROM schema_migrations")) if exists else 0
    newest = known[-1].version
    if version > newest:
        raise SchemaTooNew(
            f"the store's schema has version {version}, this program knows up to {newest}: "
            "start the program that last wrote to it, or a newer one"
        )
    return exists, version


def _is_kept(statement: str, select: Callable[[str], str], *, is_of_earlier_version: bool, cluster: str) -> bool:
    """Return whether the statement would drop a table that has to stay.

    If a writer of an earlier version inserts in between, the statement's own IF EMPTY refuses, and the next start keeps the
    table. On a cluster a replica may lag, and look empty.
    """
    dropped = _DROP_IF_EMPTY.match(statement)
    if dropped is None:
        return False
    if cluster and is_of_earlier_version:
        return True
    of_table = f"WHERE database = currentDatabase() AND table = '{dropped[1]}'"
    active = f"SELECT count() FROM system.parts {of_table} AND active"  # noqa: S608 - a name in our own file
    put_aside = f"SELECT count() FROM system.detached_parts {of_table}"  # noqa: S608 - the same
    return int(select(f"SELECT ({active}) + ({put_aside})")) > 0
