"""A store gets to the newest schema from wherever it was left, and never past what the program knows."""

import re
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support import batches, letters
from support.former_writer import be_of_version, copy_former_store, insert_as_former_writer
from support.records import encoded
from support.reopened_store import store_with_tables
from support.store_ranges import former_payload, payload, topic_of, wrong_counts

from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, METRICS_TOPIC
from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import StoreError
from collector.store.migrations import Migration, SchemaTooNew, migrate, migrations, on_cluster, pending, schema_sql


class Crash(Exception):
    """The process ended here."""


class Database:
    """Remembers what was run; ends the process before statement number `crash_at`."""

    def __init__(self) -> None:
        self.version = 0
        self.exists = False
        self.ran: list[str] = []
        self.crash_at = -1

    def command(self, sql: str) -> None:
        if len(self.ran) == self.crash_at:
            raise Crash
        self.ran.append(sql)
        self.exists = True
        if sql.startswith("INSERT INTO schema_migrations"):
            self.version = int(sql.split("(")[2].split(",", maxsplit=1)[0])

    def select(self, sql: str) -> str:
        if "system.tables" in sql:
            return f"{self.exists:d}\n"
        if "system.parts" in sql:
            return "0\n"
        assert self.exists
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
    """Nothing is applied twice, and nothing run that could change anything."""
    database = Database()
    migrate(database.command, database.select, KNOWN)
    database.ran.clear()
    assert migrate(database.command, database.select, KNOWN) == []
    assert database.ran == []


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


def schema_of(store: ClickHouseStore) -> str:
    """Every table and view, as the engine describes it."""
    tables = "SELECT name, replaceRegexpAll(create_table_query, 'UUID .[^ ]*', '') FROM system.tables"
    return store.query(f"{tables} WHERE database = currentDatabase() ORDER BY name", "TSV").decode()


def test_each_statement_may_be_the_last(tmp_path: Path) -> None:
    """Killed after any statement of any file, and again after one more, an empty store still gets to the newest schema."""
    with closing(store_with_tables(tmp_path / "expected")) as expected:
        schema = schema_of(expected)
    with closing(ClickHouseStore.embedded(tmp_path / "store")) as store:
        known = migrations()
        left, ran = 0, 0

        def command(sql: str) -> None:
            nonlocal left, ran
            if left == 0:
                raise Crash
            left, ran = left - 1, ran + 1
            store._command(sql)

        allowed, unfinished = 1, len(known)
        while unfinished:
            left = allowed
            with suppress(Crash):
                migrate(command, store._text, known)
            still = len(pending(store._text, known))
            allowed, unfinished = (allowed + 1 if still == unfinished else 1), still
        assert ran > 100
        store.apply_schema()
        assert schema == schema_of(store)


def test_too_new() -> None:
    """A store of a newer program is left alone."""
    database = Database()
    database.version, database.exists = 3, True
    with pytest.raises(SchemaTooNew, match="version 3, this program knows up to 2"):
        migrate(database.command, database.select, KNOWN)
    assert database.ran == []


def test_files() -> None:
    """The files are numbered from 1, and every statement in them can be run again."""
    known = migrations()
    assert [migration.version for migration in known] == list(range(1, len(known) + 1))
    statements = [statement for migration in known for statement in migration.statements()]
    assert statements
    repeatable = re.compile(
        r"IF NOT EXISTS|\A(?:DROP VIEW|RENAME TABLE) IF EXISTS|\ADROP TABLE IF EXISTS IF EMPTY "
        r"|\AALTER TABLE \w+ MODIFY (?:COLUMN IF EXISTS|SETTING) | MODIFY QUERY\Z"
    )
    assert [statement for statement in statements if not repeatable.search(statement.splitlines()[0])] == []


def test_show() -> None:
    """`schema show` has every statement."""
    shown = schema_sql()
    assert all(statement.splitlines()[0] in shown for migration in migrations() for statement in migration.statements())


@pytest.mark.parametrize("version", [4, 5, 6])
def test_from_an_earlier_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """A store as 0.1 left it, or one that stopped half way from there, with data in it: what it had is there after, and what is
    new works beside it."""
    before = batches.gauge(1, 3)
    copy_former_store(tmp_path / "store", version)
    with closing(ClickHouseStore.embedded(tmp_path / "store")) as store:
        with monkeypatch.context() as earlier:
            be_of_version(earlier, version)
            assert store.apply_schema().migrations == ()
            store.insert(METRICS_TOPIC, [before.SerializeToString()], "before")
        assert len(store.apply_schema().migrations) == len(migrations()) - version
        after = encoded(batches.gauge(2, 4)) + letters.receipt(2, letters.any_receipt())
        assert store.holds(METRICS_TOPIC, encoded(before))
        store.insert(METRICS_TOPIC, [after], "after")
        store.insert(DEAD_LETTERS_TOPIC, [letters.dead_letters(letters.letter(2))], "letter")
        assert store.query("SELECT count() FROM otel_metrics_gauge", "TSV") == b"7\n"
        assert store.holds(METRICS_TOPIC, after)
        assert store.query("SELECT State FROM dead_letters", "TSV") == b"open\n"


@pytest.mark.parametrize("version", [10, 16])
def test_a_range_that_an_earlier_version_stored_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """It is in doubt after the update, has other tokens there, and lacks nothing: neither at once nor after the next start."""
    numbers = range(3)
    copy_former_store(tmp_path / "store", version)
    for opening in range(2):
        with closing(ClickHouseStore.embedded(tmp_path / "store")) as store:
            if not opening:
                with monkeypatch.context() as earlier:
                    be_of_version(earlier, version)
                    for number in numbers:
                        store.insert(topic_of(number), [former_payload(number)], f"before {number}")
            store.apply_schema()
            for number in numbers:
                assert store.holds(topic_of(number), payload(number))
                assert ({}, {}) == store.complete(topic_of(number), payload(number), f"before {number}")
            assert [] == wrong_counts(store, numbers)


def test_a_repetition_after_the_newest_migrations_is_dropped(tmp_path: Path) -> None:
    """A range that was stored right after the update, and is in doubt, has the same tokens after the next start."""
    numbers = range(3)
    copy_former_store(tmp_path / "store", 16)
    for _ in range(2):
        with closing(ClickHouseStore.embedded(tmp_path / "store")) as store:
            store.apply_schema()
            for number in numbers:
                store.insert(topic_of(number), [payload(number)], f"before {number}")
            assert [] == wrong_counts(store, numbers)


def test_a_writer_of_the_former_version_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It works beside one of this version: it inserts into the tables that it knows, and these know its tokens. What one has
    stored the other finds."""
    theirs, ours = (0, 1, 2), (4, 5, 6)
    copy_former_store(tmp_path / "store", 16)
    with closing(ClickHouseStore.embedded(tmp_path / "store")) as store:
        with monkeypatch.context() as earlier:
            be_of_version(earlier, 16)
            store.insert(topic_of(0), [former_payload(0)], "before 0")
        store.apply_schema()
        for _ in range(2):
            with monkeypatch.context() as former:
                insert_as_former_writer(former)
                for number in theirs:
                    store.insert(topic_of(number), [former_payload(number)], f"before {number}")
            for number in ours:
                store.insert(topic_of(number), [payload(number)], f"after {number}")
        assert [] == wrong_counts(store, [*theirs, *ours])
        assert all(store.holds(topic_of(number), payload(number)) for number in theirs)


def engine_of(store: ClickHouseStore, table: str) -> str:
    return store.query(f"SELECT engine_full FROM system.tables WHERE name = '{table}'", "TSVRaw").decode()


def test_tables_with_rows_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of an earlier version that has rows is read and written as before; those without rows are made anew."""
    logs, gauge = batches.logs(1, "tenant-a"), batches.gauge(1, 3)
    copy_former_store(tmp_path / "store", 6)
    with closing(ClickHouseStore.embedded(tmp_path / "store")) as store:
        with monkeypatch.context() as earlier:
            be_of_version(earlier, 6)
            store.insert(LOGS_TOPIC, [logs.SerializeToString()], "logs")
            store.insert(METRICS_TOPIC, [gauge.SerializeToString()], "gauge")
        store.apply_schema()
        assert "index_granularity = 8192" in engine_of(store, "otel_logs")
        assert "(TenantId, ServiceName, MetricName," in engine_of(store, "otel_metrics_gauge")
        assert "(TenantId, MetricName, " in engine_of(store, "otel_metrics_sum")
        assert "(TenantId, toStartOfFiveMinutes(Timestamp), ServiceName, SpanName, " in engine_of(store, "otel_traces")
        for topic, sent, token in ((LOGS_TOPIC, logs, "logs"), (METRICS_TOPIC, gauge, "gauge")):
            assert store.holds(topic, encoded(sent))
            store.insert(topic, [encoded(sent)], f"{token} again")
        assert store.query("SELECT count() FROM otel_metrics_gauge", "TSV") == b"6\n"
        count = 2 * len(logs.records[0].log_records)
        of_time = store.query("SELECT count(), countIf(TimestampTime = toDateTime(Timestamp)) FROM otel_logs", "TSV")
        assert of_time == b"%d\t%d\n" % (count, count)
        rewritten = "SELECT table, command FROM system.mutations WHERE startsWith(table, 'otel_')"
        assert store.query(rewritten, "TSV") == b""  # only metadata was changed


def test_points_of_an_earlier_version_have_their_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their parts are not rewritten: the hash is computed where it is read, and is that of the same series in later parts."""
    points = batches.gauge(1, 3)
    copy_former_store(tmp_path / "store", 14)
    with closing(ClickHouseStore.embedded(tmp_path / "store")) as store:
        with monkeypatch.context() as earlier:
            be_of_version(earlier, 14)
            store.insert(METRICS_TOPIC, [points.SerializeToString()], "before")
        store.apply_schema()
        assert "ServiceName, cityHash64(Attributes), TimeUnix)" in engine_of(store, "otel_metrics_gauge")
        assert "ServiceName, SeriesHash, TimeUnix)" in engine_of(store, "otel_metrics_sum")
        store.insert(METRICS_TOPIC, [encoded(batches.gauge(2, 3))], "after")
        of_parts = "SELECT groupUniqArray(SeriesHash) AS series, count() FROM otel_metrics_gauge GROUP BY _part"
        found = store.query(f"SELECT uniqExact(arraySort(series)), count(), sum(`count()`) FROM ({of_parts})", "TSV")
        assert found == b"1\t2\t6\n"
        assert store.query("SELECT count() FROM system.mutations WHERE table LIKE 'otel_metrics%'", "TSV") == b"0\n"


def test_what_was_put_aside_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table whose parts are all put aside has no rows, but is not dropped, since the parts would be removed with it."""
    sent = batches.gauge(1, 3)
    copy_former_store(tmp_path / "store", 10)
    with closing(ClickHouseStore.embedded(tmp_path / "store")) as store:
        with monkeypatch.context() as earlier:
            be_of_version(earlier, 10)
            store.insert(METRICS_TOPIC, [sent.SerializeToString()], "token")
            (partition,) = store.query(
                "SELECT partition_id FROM system.parts WHERE table = 'otel_metrics_gauge'", "TSV"
            ).split()
            store._command(f"ALTER TABLE otel_metrics_gauge DETACH PARTITION ID '{partition.decode()}'")
        store.apply_schema()
        assert store.query("SELECT count() FROM system.detached_parts WHERE table = 'otel_metrics_gauge'", "TSV") == b"1\n"
        store._command(f"ALTER TABLE otel_metrics_gauge ATTACH PARTITION ID '{partition.decode()}'")
        assert store.holds(METRICS_TOPIC, encoded(sent))


@pytest.mark.parametrize(
    "name", ["0012_time_indexes.sql", "0013_order.sql", "0015_series.sql", "0016_merges.sql", "0017_resources.sql"]
)
def test_run_again_with_rows(tmp_path: Path, name: str) -> None:
    """A file that was run to its end, but not recorded, is run again; rows that came in between stay."""
    sent = encoded(batches.logs(1, "tenant-a"))
    (migration,) = (migration for migration in migrations() if migration.name == name)
    with closing(store_with_tables(tmp_path / "store")) as store:
        store.insert(LOGS_TOPIC, [sent], "token")
        store._command(f"DELETE FROM schema_migrations WHERE Version >= {migration.version}")
        assert name in store.apply_schema().migrations
        assert store.holds(LOGS_TOPIC, sent)
        kind = "SELECT default_kind, compression_codec FROM system.columns WHERE table = 'otel_logs' AND name = 'TimestampTime'"
        assert store.query(kind, "TSV") == b"ALIAS\t\n"


def test_a_cluster_of_an_earlier_version_keeps_its_tables() -> None:
    """No table of a cluster is dropped there: a replica that lags may look empty."""
    database = Database()
    migrate(database.command, database.select, migrations()[:12], "main")
    database.ran.clear()
    migrate(database.command, database.select, migrations(), "main")
    assert [sql for sql in database.ran if sql.startswith("DROP TABLE")] == []


def test_is_a_store_error() -> None:
    assert issubclass(SchemaTooNew, StoreError)


# On a cluster.


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    """ClickHouse's own parser; there is no cluster in it."""
    with closing(ClickHouseStore.embedded(tmp_path_factory.mktemp("engine"))) as store:
        yield store


def canonical(engine: ClickHouseStore, sql: str) -> str:
    """As ClickHouse itself writes it, in one line. Raises StoreError where it can't be parsed."""
    quoted = sql.replace("\\", "\\\\").replace("'", "\\'")
    return engine.query(f"SELECT formatQuerySingleLine('{quoted}')", "TSVRaw").decode()


STATEMENTS = [statement for migration in migrations() for statement in migration.statements()]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.splitlines()[0][:60])
def test_on_cluster(engine: ClickHouseStore, statement: str) -> None:
    """Each statement of the files parses for a cluster too; what keeps rows is replicated, remembers tokens for a week, and is
    otherwise the same."""
    plain, clustered = canonical(engine, statement), canonical(engine, on_cluster(statement, "main"))
    assert " ON CLUSTER main" in clustered
    assert "non_replicated" not in clustered
    back = clustered.replace(" ON CLUSTER main", "")
    if "MergeTree" in plain:
        kind = re.search(r"ENGINE = (\w*)MergeTree", plain)
        assert kind is not None
        replica = f"Replicated{kind[1]}MergeTree('/clickhouse/tables/{{shard}}/{{database}}/{{table}}', '{{replica}}')"
        window = "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800"
        assert back.count(replica) == back.count(window) == 1
        back = back.replace(replica, f"{kind[1]}MergeTree").replace(window, "non_replicated_deduplication_window = 10000")
    assert back == plain


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("ALTER TABLE a MODIFY SETTING b = 1", "ALTER TABLE a ON CLUSTER 'c' MODIFY SETTING b = 1"),
        ("ALTER TABLE a ADD COLUMN IF NOT EXISTS b Int8", "ALTER TABLE a ON CLUSTER 'c' ADD COLUMN IF NOT EXISTS b Int8"),
        ("DROP VIEW IF EXISTS a", "DROP VIEW IF EXISTS a ON CLUSTER 'c'"),
        ("CREATE DATABASE IF NOT EXISTS `a b`", "CREATE DATABASE IF NOT EXISTS `a b` ON CLUSTER 'c'"),
        (
            "CREATE TABLE IF NOT EXISTS a (b Int8)\nENGINE = ReplacingMergeTree(b)\nORDER BY b",
            "CREATE TABLE IF NOT EXISTS a ON CLUSTER 'c' (b Int8)\nENGINE = ReplicatedReplacingMergeTree("
            "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}', b)\nORDER BY b",
        ),
    ],
)
def test_other_statements_on_a_cluster(engine: ClickHouseStore, statement: str, expected: str) -> None:
    """What a later file may say."""
    assert on_cluster(statement, "c") == expected
    assert canonical(engine, expected)
    assert on_cluster(statement, "") == statement


def test_a_cluster_of_any_name(engine: ClickHouseStore) -> None:
    assert canonical(engine, on_cluster("DROP TABLE IF EXISTS a", "it's \\ `odd`"))


def test_unknown_statement_on_a_cluster() -> None:
    """One that would be run on a single server of the cluster is refused instead."""
    with pytest.raises(StoreError, match="RENAME TABLE a TO b"):
        on_cluster("RENAME TABLE a TO b", "main")


def test_migrate_a_cluster() -> None:
    """Every statement is for the whole cluster, but for the record of what was applied: its table is replicated."""
    database = Database()
    migrate(database.command, database.select, migrations(), "main")
    once = [sql for sql in database.ran if "ON CLUSTER 'main'" not in sql]
    assert [sql.split(" (")[0] for sql in once] == ["INSERT INTO schema_migrations"] * len(migrations())
    assert "ReplicatedMergeTree" in database.ran[0]


def test_show_a_cluster() -> None:
    """`schema show` has what would be applied."""
    shown = schema_sql("main")
    assert all(f"{on_cluster(statement, 'main')};" in shown for statement in STATEMENTS)
    assert re.search(r"ENGINE = MergeTree", shown) is None
