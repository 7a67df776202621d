"""What ClickStack looks for beside the exporter's tables: rollups of attributes' values, and sessions."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import batches
from support.records import encoded
from support.reopened_store import reopening, text
from support.store_templates import copy_store

from collector.broker.contract import LOGS_TOPIC, TRACES_TOPIC
from collector.store.clickhouse import ClickHouseStore
from collector.store.clickstack import VALUE_BYTES_MAX
from collector.store.contract import ROLLUPS, SESSIONS, StoreMisconfigured
from collector.store.options import RequestedTables, StoreOptions
from collector.store.retention import Retention
from collector.store.table_plan import changes
from collector.store.tenant_grants import NEVER_READ, TENANT_COLUMNS
from collector.store.tenant_view import filters

Open = Callable[[RequestedTables], ClickHouseStore]
PLAIN = RequestedTables(fsync=False)
BOTH = PLAIN._replace(rollups=True, sessions=True)
LOGS = [encoded(batches.logs(number, f"tenant-{'ab'[number % 2]}")) for number in range(3)]
TRACES = [encoded(batches.traces(number, f"tenant-{'ab'[number % 2]}")) for number in range(3)]
MAPS = {
    "otel_logs": ("ResourceAttributes", "ScopeAttributes", "LogAttributes"),
    "otel_traces": ("ResourceAttributes", "SpanAttributes"),
}
TEXTS = {"otel_logs": ("SeverityText", "ServiceName"), "otel_traces": ("SpanName", "StatusCode", "SpanKind")}


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Open]:
    """Opens the same store with what is wanted, once the one before is closed."""
    copy_store(tmp_path / "store", fsync=False)
    with reopening(tmp_path / "store") as open_:
        yield lambda wanted: open_(StoreOptions(wanted))


def missing(store: ClickHouseStore) -> dict[str, str]:
    """Return what a rollup has and its table has not, or the other way round, of each."""
    found = {}
    for source, maps in MAPS.items():
        counted = [
            f"SELECT TenantId, toStartOfFifteenMinutes(Timestamp) AS T, '{column}' AS C, entry.1 AS K, entry.2 AS V, count()"
            f" FROM {source} ARRAY JOIN {column} AS entry WHERE V != '' GROUP BY ALL"
            for column in maps
        ]
        counted += [
            f"SELECT TenantId, toStartOfFifteenMinutes(Timestamp) AS T, 'NativeColumn' AS C, '{column}' AS K,"
            f" toString({column}) AS V, count() FROM {source} WHERE V != '' GROUP BY ALL"
            for column in TEXTS[source]
        ]
        texts = ", ".join(f"'{column}'" for column in TEXTS[source])
        rolled_up = (
            f"SELECT TenantId, Timestamp, ColumnIdentifier, Key, Value, sum(count) FROM {source}_kv_rollup_15m"
            f" WHERE ColumnIdentifier != 'NativeColumn' OR Key IN ({texts}) GROUP BY ALL"
        )
        of_table = " UNION ALL ".join(counted)
        found[source] = text(store, f"({rolled_up} EXCEPT ({of_table})) UNION ALL (({of_table}) EXCEPT {rolled_up})")
    return found


def test_a_rollup_counts_its_table(open_store: Open) -> None:
    """Each value of each attribute and column, for each tenant and quarter of an hour; a repetition is counted once."""
    store = open_store(BOTH)
    store.apply_schema()
    for repetition in range(2):
        for number, (logs, traces) in enumerate(zip(LOGS, TRACES, strict=True)):
            store.insert(LOGS_TOPIC, [logs], f"logs {number}")
            store.insert(TRACES_TOPIC, [traces], f"traces {number}")
        if repetition == 0:
            store = open_store(BOTH)
    assert missing(store) == {"otel_logs": "", "otel_traces": ""}
    counts = text(store, f"SELECT count(), uniqExact(TenantId) FROM {ROLLUPS[0]} WHERE ColumnIdentifier = 'LogAttributes'")
    assert counts.split("\t")[1] == "2"
    for table in ROLLUPS:
        store._command(f"OPTIMIZE TABLE {table} FINAL")
    assert missing(store) == {"otel_logs": "", "otel_traces": ""}


def test_what_is_completed_is_counted(open_store: Open) -> None:
    """Rows that an interrupted insert did not store, and that are completed."""
    store = open_store(BOTH)
    store.apply_schema()
    completed = store.complete(LOGS_TOPIC, LOGS[0], "token")
    assert completed.rows["otel_logs"] > 0
    assert missing(store)["otel_logs"] == ""


def test_long_values_are_left_out(open_store: Open) -> None:
    """One that nobody chooses from a list, and one that is empty."""
    store = open_store(BOTH)
    store.apply_schema()
    long = f"repeat('x', {VALUE_BYTES_MAX + 1})"
    attributes = f"map('long', {long}, 'fits', substring({long}, 2), 'empty', '')"
    store._command(f"INSERT INTO otel_logs (Timestamp, LogAttributes) SELECT now(), {attributes}")
    assert text(store, f"SELECT Key FROM {ROLLUPS[0]}") == "fits"


def test_an_interruption_lets_inserts_pass(open_store: Open) -> None:
    """After each statement of making and removing them an insert succeeds, and the next plan has the rest."""
    store = open_store(PLAIN)
    store.apply_schema()
    for wanted in (BOTH, PLAIN):
        store = open_store(wanted)
        planned = [change.statement for change in store.schema_plan().changes]
        assert len(planned) == 5
        for number, statement in enumerate(planned):
            store._command(statement)
            store.insert(LOGS_TOPIC, [LOGS[0]], f"logs {number} {wanted.rollups}")
            store.insert(TRACES_TOPIC, [TRACES[0]], f"traces {number} {wanted.rollups}")
            assert planned[number + 1 :] == [change.statement for change in store.schema_plan().changes]
    assert text(store, "SELECT uniqExact(BatchId), count() / 4 FROM otel_logs") == "1\t10"


def test_rollups_have_the_retention_of_their_table(open_store: Open) -> None:
    """They have it from when they are made, with the days of tenants, and it changes with the settings."""
    retention = Retention(logs=9000, traces=9001, tenants={"acme": 9002})
    for wanted in (BOTH._replace(retention=retention), BOTH._replace(retention=Retention(days=9003)), BOTH):
        store = open_store(wanted)
        store.apply_schema()
        assert store.schema_plan() == ((), ())
        for table, source in zip(ROLLUPS, ("otel_logs", "otel_traces"), strict=True):
            ttls = "SELECT extract(engine_full, ' TTL (.+?) SETTINGS ') FROM system.tables WHERE name = '{}'"
            assert text(store, ttls.format(table)) == text(store, ttls.format(source)) == wanted.retention.ttl(source)


def test_another_programs_rollup_is_refused(open_store: Open) -> None:
    """ClickStack's own table has no tenants: a view that wrote to it would fail each insert."""
    store = open_store(PLAIN)
    store.apply_schema()
    store._command(f"CREATE TABLE {ROLLUPS[0]} (Timestamp DateTime, count UInt64) ENGINE = SummingMergeTree ORDER BY Timestamp")
    for wanted in (BOTH, PLAIN):
        with pytest.raises(StoreMisconfigured, match=f"another program made the table {ROLLUPS[0]}.*rename it"):
            list(changes(store._text, wanted))
    store.insert(LOGS_TOPIC, LOGS, "token")


def test_clickstack_asks_the_rollups(open_store: Open) -> None:
    """The keys of a column, and the values of some keys; by their names it finds the tables, and by its statement the view."""
    store = open_store(BOTH)
    store.apply_schema()
    store.insert(LOGS_TOPIC, LOGS, "logs")
    store.insert(TRACES_TOPIC, TRACES, "traces")
    since, until = text(store, "SELECT toUnixTimestamp(min(Timestamp)), toUnixTimestamp(max(Timestamp)) FROM otel_logs").split()
    start, end = (f"toStartOfInterval(fromUnixTimestamp64Milli({at}000), INTERVAL 15 minute)" for at in (since, until))
    window = f"Timestamp >= {start} AND Timestamp <= {end}"
    keys = text(
        store,
        f"SELECT Key FROM {ROLLUPS[0]} WHERE ColumnIdentifier = 'LogAttributes' AND {window} GROUP BY Key"
        " ORDER BY sum(count) DESC LIMIT 100",
    )
    assert set(keys.split()) == set(
        text(store, "SELECT DISTINCT arrayJoin(mapKeys(mapFilter((k, v) -> v != '', LogAttributes))) FROM otel_logs").split()
    )
    values = text(
        store,
        f"SELECT * FROM (SELECT ColumnIdentifier, Key, groupUniqArray(20)(Value) AS Values FROM {ROLLUPS[0]} WHERE"
        " ((ColumnIdentifier = 'NativeColumn' AND Key IN ('ServiceName')) OR (ColumnIdentifier = 'LogAttributes' AND"
        f" Key IN ('code'))) AND {window} AND notEmpty(Value) GROUP BY ColumnIdentifier, Key ORDER BY ColumnIdentifier, Key)",
    )
    assert [line.split("\t")[:2] for line in values.splitlines()] == [
        ["LogAttributes", "code"],
        ["NativeColumn", "ServiceName"],
    ]
    for table in ROLLUPS:
        made = text(store, f"SELECT create_table_query FROM system.tables WHERE name = '{table}_mv'")
        assert made.startswith(f"CREATE MATERIALIZED VIEW default.{table}_mv TO default.{table}")
        assert "toStartOfFifteenMinutes(Timestamp)" in made


def test_sessions_are_the_logs_with_an_rrweb_event(open_store: Open) -> None:
    """They have the columns that ClickStack needs, for a list of spans, and for the events of one in their order."""
    store = open_store(BOTH)
    store.apply_schema()
    rows = (
        "SELECT toDateTime64('2026-11-29 10:00:00', 9) + number, concat('tenant-', toString(number % 2)), toString(number),"
        " map('rum.sessionId', if(number < 4, 'one', 'two')), if(number % 3, map('rr-web.event', '1', 'rr-web.offset',"
        " toString(number)), map('other', '1')) FROM numbers(9)"
    )
    store._command(f"INSERT INTO otel_logs (Timestamp, TenantId, Body, ResourceAttributes, LogAttributes) {rows}")
    has_recording = (
        f"SELECT DISTINCT ResourceAttributes['rum.sessionId'] AS sessionId FROM {SESSIONS} WHERE sessionId IN ('one', 'none')"
        " AND TimestampTime >= toDateTime('2026-11-29 09:00:00') AND TimestampTime <= toDateTime('2026-11-29 11:00:00')"
    )
    assert text(store, has_recording) == "one"
    events = (
        f"SELECT Body, CAST(LogAttributes['rr-web.offset'], 'UInt64') AS offset FROM {SESSIONS} WHERE"
        " ResourceAttributes['rum.sessionId'] = 'two' ORDER BY Timestamp LIMIT 100"
    )
    assert text(store, events).split("\n") == ["4\t4", "5\t5", "7\t7", "8\t8"]
    columns = text(store, f"SELECT name FROM system.columns WHERE table = '{SESSIONS}'").split()
    assert {"TimestampTime", "Body", "LogAttributes", "ResourceAttributes", "TenantId"} <= set(columns)


def test_tenants_read_their_own_values(open_store: Open) -> None:
    """Every table and view is listed for grants, and port 8123 filters them by their tenant."""
    store = open_store(BOTH)
    store.apply_schema()
    names = text(store, "SELECT name FROM system.tables WHERE database = currentDatabase()").split()
    assert {*TENANT_COLUMNS, *NEVER_READ} == set(names)
    conditions = filters("acme", lambda sql: store.read(sql.removesuffix(" FORMAT TSVRaw"), "TSVRaw"))
    for table in ROLLUPS:
        assert f"'default.{table}': 'TenantId = \\'acme\\''" in conditions
        assert f"'default.{table}_mv': '0'" in conditions
    assert SESSIONS not in conditions, "a view, whose table has a condition"
