"""The exporter's tables are taken over: dashboards read old and new rows under the old names, and rows can be moved over."""

import itertools
from contextlib import closing
from pathlib import Path

import pytest
from support import batches, exporter_tables
from support.adopting import FOREVER, Command, adoption_of, copier_of, text
from support.exporter_tables import FORMS, Form
from support.processes.clickhouse_server import OPTIONS, bridge
from support.records import encoded

from collector.broker.contract import LOGS_TOPIC
from collector.store.adoption import EXPORTER_TABLES, Adoption
from collector.store.adoption_copy import SOURCE, AdoptionCopy, CopiedDay
from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import StoreError, StoreMisconfigured, StoreUnavailable
from collector.store.retention import Retention

DAYS = {"2026-03-01": 3, "2026-03-02": 4}
ROWS = sum(DAYS.values())


@pytest.fixture
def store(adopting_store: ClickHouseStore) -> ClickHouseStore:
    return adopting_store


def filled(store: ClickHouseStore, form: Form, days: dict[str, int] = DAYS, table: str = "") -> None:
    """With all tables of the exporter, or this one alone."""
    exporter_tables.make(store._command, "old", form, table)
    for day, rows in days.items():
        exporter_tables.insert(store._command, "old", form, day, rows, table)


def adopt(store: ClickHouseStore, command: Command | None = None) -> list[str]:
    return sorted(table.name for table in adoption_of(store, command).adopt())


def copy(store: ClickHouseStore, command: Command | None = None, retention: Retention = FOREVER) -> list[CopiedDay]:
    copier = copier_of(store, command, retention)
    return [day for table in adoption_of(store).tables() for day in copier.copy(table)]


def counts(store: ClickHouseStore, table: str) -> tuple[int, int, int]:
    """The rows that the exporter's database shows, those that are the exporter's still, and those that are ours."""
    names = (f"old.{table}", f"old.{table}_exporter", EXPORTER_TABLES[table])
    shown, kept, ours = (int(text(store, f"SELECT count() FROM {name}")) for name in names)
    return shown, kept, ours


class Crash(Exception):
    """The process ended here."""


class CrashingAt:
    """Runs statements, and ends the process before number `at`."""

    def __init__(self, store: ClickHouseStore, at: int) -> None:
        self._store = store
        self._left = at

    def __call__(self, statement: str) -> None:
        if self._left == 0:
            raise Crash
        self._left -= 1
        self._store.administer(statement)


def test_a_start_names_the_tables_and_the_ways_out(tmp_path: Path) -> None:
    """It changes nothing, whether it plans or applies."""
    with closing(ClickHouseStore.embedded(tmp_path / "store", OPTIONS)) as store:
        exporter_tables.make(store._command, "default", "map of 2024")
        exporter_tables.insert(store._command, "default", "map of 2024", "2026-03-01", 2, "otel_logs")
        made = text(store, "SELECT name FROM system.tables WHERE database = 'default' ORDER BY name").split()
        tables = [f"{name} ({2 * (name == 'otel_logs')} rows)" for name in sorted(exporter_tables.TABLES)]
        for start in (store.apply_schema, store.schema_plan):
            with pytest.raises(StoreMisconfigured) as refused:
                start()
            assert str(refused.value) == (
                "the embedded engine: the OpenTelemetry Collector's ClickHouse exporter made these tables in the database"
                f" default, whose names are those of this collector's tables: {', '.join(tables)}. Nothing was changed. To be"
                " changed: clickhouse.database must name another database; and then"
                " `schema adopt --from default --tenant TENANT` lets dashboards read old and new rows under the old names"
            )
        assert made == text(store, "SELECT name FROM system.tables WHERE database = 'default' ORDER BY name").split()
        for table in made:
            store._command(f"DROP TABLE {table} SYNC")
        store._command("CREATE TABLE otel_logs (x UInt8) ENGINE = MergeTree ORDER BY x")
        with pytest.raises(StoreMisconfigured, match="another program made these tables"):
            store.apply_schema()
        store._command("DROP TABLE otel_logs SYNC")
        store._command("CREATE TABLE otel_logs (TenantId String) ENGINE = Merge('default', '^other$')")
        with pytest.raises(
            StoreMisconfigured, match=r"`schema adopt` made these tables in the database default.*otel_logs \(0 rows"
        ):
            store.apply_schema()


@pytest.mark.parametrize("form", FORMS)
def test_old_and_new_rows_are_one_table(store: ClickHouseStore, form: Form) -> None:
    """It has the old names, and every column of the exporter. A tenant reads by TenantId; a filter on time finds both."""
    filled(store, form)
    before = {
        name: text(store, f"SELECT name FROM system.columns WHERE database = 'old' AND table = '{name}'")
        for name in exporter_tables.TABLES
    }
    assert sorted(exporter_tables.TABLES) == adopt(store)
    store.insert(LOGS_TOPIC, [encoded(batches.logs(1, "acme"))], "token")
    new = int(text(store, "SELECT count() FROM otel_logs"))
    assert (ROWS + new, ROWS, new) == counts(store, "otel_logs")
    for name in exporter_tables.TABLES:
        assert (ROWS, ROWS) == counts(store, name)[:2] or name == "otel_logs"
        columns = text(store, f"SELECT name FROM system.columns WHERE database = 'old' AND table = '{name}'").splitlines()
        assert set(before[name].splitlines()) - set(columns) == set()
        assert text(store, f"SELECT min(length(toString(tuple(*)))) > 0 FROM old.{name}") == "1"
    assert text(store, "SELECT count() FROM old.otel_logs WHERE TenantId = 'it\\'s'") == str(ROWS)
    assert text(store, "SELECT count() FROM old.otel_logs WHERE TenantId = 'acme'") == str(new)
    of_time = "SELECT count() FROM old.otel_logs WHERE TimestampTime >= '2026-03-02 00:00:00' AND TenantId != 'acme'"
    assert text(store, of_time) == str(DAYS["2026-03-02"])
    value = "ResourceAttributes.k8s.pod.name" if form == "json" else "ResourceAttributes['k8s.pod.name']"
    assert text(store, f"SELECT count() FROM old.otel_traces WHERE {value} = 'pod-1'") == str(ROWS)
    key = "SELECT {} AS found FROM {} WHERE found != '' AND TenantId = 'acme' ORDER BY Timestamp LIMIT 1"
    name = text(store, "SELECT arrayJoin(mapKeys(ResourceAttributes)) AS k FROM otel_logs WHERE k = 'service.name' LIMIT 1")
    ours = text(store, key.format(f"ResourceAttributes['{name}']", "otel_logs"))
    path = f"ResourceAttributes.{name}::String" if form == "json" else f"ResourceAttributes['{name}']"
    assert ours == text(store, key.format(path, "old.otel_logs")) != ""
    if form == "json":
        assert text(store, f"SELECT count() > 0 FROM old.otel_logs WHERE has(ResourceAttributesKeys, '{name}')") == "1"
    assert sorted(exporter_tables.TABLES) == adopt(store)


def test_an_adoption_that_was_interrupted_goes_on(store: ClickHouseStore) -> None:
    """Ended before any of its statements, the next run leaves every row where one that was not interrupted does."""
    for at in itertools.count(step=7):
        filled(store, "map", {"2026-03-01": 2})
        try:
            adopt(store, CrashingAt(store, at))
        except Crash:
            is_over = False
        else:
            is_over = True
        assert sorted(exporter_tables.TABLES) == adopt(store)
        assert {(2, 2, 0)} == {counts(store, name) for name in exporter_tables.TABLES}
        store._command("DROP DATABASE old SYNC")
        if is_over:
            break
    assert at > 20


@pytest.mark.parametrize("form", ["map", "map of 2024"])
def test_days_are_copied(store: ClickHouseStore, form: Form) -> None:
    """Each row is in ours, once, with its tenant and what it was; the exporter's tables are empty; again, nothing is done."""
    filled(store, form)
    adopt(store)
    copied = copy(store)
    assert {(name, day, rows, "") for name in exporter_tables.TABLES for day, rows in DAYS.items()} == {
        (day.table, day.day, day.rows, day.left) for day in copied
    }
    assert {(ROWS, 0, ROWS)} == {counts(store, name) for name in exporter_tables.TABLES}
    assert [] == copy(store)
    kind = "SELECT DISTINCT TenantId, Type, Source FROM {}"
    assert text(store, kind.format("otel_logs")) == f"it's\tlog\t{SOURCE}"
    assert text(store, kind.format("otel_traces")) == f"it's\ttrace\t{SOURCE}"
    assert text(store, "SELECT value FROM telemetry WHERE type = 'metric' AND value > 1 LIMIT 1") == "1.5"
    ended = "SELECT DISTINCT toUnixTimestamp64Nano(EndTimestamp) - toUnixTimestamp64Nano(Timestamp) FROM otel_traces"
    assert text(store, ended) == "1500"
    assert text(store, "SELECT count() FROM telemetry_batches") == "0"
    assert text(store, "SELECT max(ReceivedAt) FROM otel_logs").startswith("1970-01-01"), "an audit would look for receipts"


def test_a_copy_that_was_interrupted_goes_on(store: ClickHouseStore) -> None:
    """Ended before any of its statements, also in the middle of the move, no row is lost or there twice."""
    for at in itertools.count(step=2):
        filled(store, "map of 2024", table="otel_logs")
        adopt(store)
        try:
            copy(store, CrashingAt(store, at))
        except Crash:
            is_over = False
        else:
            is_over = True
        shown, kept, ours = counts(store, "otel_logs")
        assert (shown, shown in (ROWS, ROWS + 3, ROWS + 4)) == (kept + ours, True)
        if ours:  # as a kill in the middle of a move may leave it
            store._command("DELETE FROM otel_logs WHERE ServiceName = 'service-0' SETTINGS lightweight_deletes_sync = 2")
            if kept < ROWS:  # what was taken away was final
                store._command("TRUNCATE TABLE otel_logs")
                store._command("DROP DATABASE old SYNC")
                if is_over:
                    break
                continue
        copy(store)
        assert (ROWS, 0, ROWS) == counts(store, "otel_logs"), at
        assert text(store, "SELECT uniqExact(Timestamp, TraceId) FROM otel_logs") == str(ROWS)
        store._command("TRUNCATE TABLE otel_logs")
        store._command("DROP DATABASE old SYNC")
    assert at > 10


def test_rows_that_come_later_are_copied_too(store: ClickHouseStore) -> None:
    """Rows of a day that was copied before are copied, also if there are as many as before, but others."""
    filled(store, "map", {"2026-03-01": 3}, "otel_logs")
    adopt(store)
    copy(store)
    store._command("INSERT INTO old.otel_logs_exporter (Timestamp) SELECT '2026-03-01 12:00:00' FROM numbers(3)")
    copy(store)
    assert (6, 0, 6) == counts(store, "otel_logs")


def test_a_large_day_is_copied_by_hours(store: ClickHouseStore) -> None:
    """Every row of it is copied, also in a database whose name needs quotes."""
    store._command("CREATE DATABASE `o-l.d`")
    try:
        store._command(
            "CREATE TABLE `o-l.d`.otel_logs (Timestamp DateTime64(9), Body String) ENGINE = MergeTree"
            " PARTITION BY toDate(Timestamp) ORDER BY Timestamp"
        )
        store._command(
            "INSERT INTO `o-l.d`.otel_logs SELECT toDateTime64('2026-03-01 00:00:00', 9) + number * 1800, 'x' FROM numbers(48)"
        )

        def select(sql: str) -> str:
            return store.read(sql, "TabSeparated").decode()

        whose = {"source": "o-l.d", "database": "default", "tenant": "acme"}
        (table,) = Adoption(store.administer, select, **whose, cluster="").adopt()
        ran: list[str] = []

        def administer(statement: str) -> None:
            ran.append(statement)
            store.administer(statement)

        copier = AdoptionCopy(administer, select, **whose, retention=FOREVER, statement_rows_max=47)
        assert [48] == [day.rows for day in copier.copy(table)]
        assert len([statement for statement in ran if statement.startswith("INSERT")]) == 24
        assert text(store, "SELECT count(), uniqExact(Timestamp) FROM `o-l.d`.otel_logs WHERE TenantId = 'acme'") == "48\t48"
    finally:
        store._command("DROP DATABASE `o-l.d` SYNC")


def test_a_day_that_does_not_add_up_stays(store: ClickHouseStore) -> None:
    """If a row is missing after the copy, the partition stays, and the next run copies it again."""
    filled(store, "map", table="otel_logs")
    adopt(store)

    def lossy(statement: str) -> None:
        store.administer(f"{statement} LIMIT 2" if statement.startswith("INSERT") else statement)

    with pytest.raises(StoreError, match=r"of 2026-03-02 old\.otel_logs_exporter has 4 rows, and 2 were copied"):
        copy(store, lossy)
    assert (ROWS, ROWS, 0) == counts(store, "otel_logs")
    copy(store)
    assert (ROWS, 0, ROWS) == counts(store, "otel_logs")


def test_a_day_past_retention_stays(store: ClickHouseStore) -> None:
    """It stays where it is. Otherwise the first merge would remove what was just copied."""
    days = [text(store, f"SELECT today() - {age}") for age in (0, 4, 5, 6)]
    filled(store, "map", dict.fromkeys(days, 1), "otel_logs")
    adopt(store)
    for retention in (Retention(days=5), Retention(days=90, logs=6, tenants={"it's": 5})):
        left = {day.day: day.left for day in copy(store, retention=retention)}
        assert dict.fromkeys(days[2:], "the retention of otel_logs would remove them") == {
            d: why for d, why in left.items() if why
        }
    assert (4, 2, 2) == counts(store, "otel_logs")


def test_json_is_read_and_not_copied(store: ClickHouseStore) -> None:
    filled(store, "json", table="otel_logs")
    adopt(store)
    assert [CopiedDay("otel_logs", "all days", ROWS, left="attributes of type JSON can't be copied")] == [
        day for day in copy(store) if day.table == "otel_logs"
    ]
    assert (ROWS, ROWS, 0) == counts(store, "otel_logs")


def test_what_is_no_table_of_the_exporter_is_left(store: ClickHouseStore) -> None:
    """Views stay; a table of ours, one of another engine, and one that an exporter made again are refused with the reason."""
    store._command("CREATE DATABASE old")
    store._command("CREATE VIEW old.otel_logs AS SELECT 1 AS x")
    assert [] == adopt(store)
    store._command("CREATE TABLE old.otel_traces (x UInt8) ENGINE = Log")
    with pytest.raises(StoreMisconfigured, match=r"old\.otel_traces has the engine Log"):
        adopt(store)
    store._command("DROP TABLE old.otel_traces SYNC")
    store._command("CREATE TABLE old.otel_traces AS default.otel_traces")
    with pytest.raises(StoreMisconfigured, match="TenantId"):
        adopt(store)
    store._command("CREATE TABLE old.otel_traces_exporter (Timestamp DateTime) ENGINE = MergeTree ORDER BY Timestamp")
    with pytest.raises(
        StoreMisconfigured, match=r"old\.otel_traces was made again after otel_traces_exporter had been adopted"
    ):
        adopt(store)


def test_views_of_others_are_named(store: ClickHouseStore) -> None:
    """They see no new rows. The exporter's own is not among them."""
    filled(store, "map", {})
    store._command("CREATE MATERIALIZED VIEW old.errors ENGINE = Null AS SELECT Body FROM old.otel_logs")
    assert ["old.errors"] == adoption_of(store).readers()


KILLS = [
    ("INSERT INTO ADOPTION_STAGING", "after", 0.0),
    ("ALTER TABLE ADOPTION_STAGING MOVE", "before", 0.002),
    ("ALTER TABLE ADOPTION_STAGING MOVE", "after", 0.0),
    ("ALTER TABLE `OLD`.`OTEL_LOGS_EXPORTER` DETACH", "before", 0.001),
]


def copy_until_killed(store: ClickHouseStore) -> None:
    """A timer may be too late for the statement that it is for, and then it ends a later one."""
    for _ in range(50):
        copy(store)


def test_a_copy_that_is_killed_goes_on(tmp_path: Path) -> None:
    """The server is killed at each of its steps, of a day each; then each row is there once."""
    with bridge(tmp_path / "server", database="default", has_tables=False) as there:
        with closing(there.store()) as store:
            store.apply_schema()
            filled(store, "map of 2024", {}, "otel_logs")
            adopt(store)
        for number, (on, when, seconds) in enumerate(KILLS):
            with closing(there.store()) as store:
                time = f"toDateTime64('2026-03-0{number + 1} 00:00:00', 9, 'UTC') + number"
                store.administer(f"INSERT INTO old.otel_logs_exporter (Timestamp) SELECT {time} FROM numbers({ROWS})")
            there.faults({"do": "die", "on": on, "when": when, "seconds": seconds})
            with closing(there.store()) as store, pytest.raises(StoreUnavailable):
                copy_until_killed(store)
            there.wait()
            there.start()
        with closing(there.store()) as store:
            copy(store)
            assert (len(KILLS) * ROWS, 0, len(KILLS) * ROWS) == counts(store, "otel_logs")
            assert text(store, "SELECT uniqExact(Timestamp) FROM otel_logs") == str(len(KILLS) * ROWS)
