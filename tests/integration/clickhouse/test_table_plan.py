"""What the settings want of the tables is planned from the live tables, and carried out in any number of steps."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import batches
from support.records import encoded
from support.reopened_store import reopening, text
from support.store_templates import copy_store
from support.waiting import until

from collector.broker.contract import LOGS_TOPIC
from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import ROLLUPS, StoreMisconfigured
from collector.store.migrations import literal, on_cluster
from collector.store.options import EXPORTERS_ATTRIBUTES, RequestedTables, StoreOptions, TextIndexes
from collector.store.retention import TIME_COLUMNS, Retention
from collector.store.table_changes import TableChanges
from collector.store.table_plan import MATERIALIZED_PREFIX, METADATA_ONLY, TTL_PENDING

Open = Callable[[RequestedTables], ClickHouseStore]
PLAIN = RequestedTables(fsync=False)
FULL = RequestedTables(
    retention=Retention(days=30, metrics=400, logs=7, tenants={"it's": 90, "acme": 3, "beta": 3}),
    materialized_attributes=("k8s.pod.name", "odd ` ' \\ key"),
    text_indexes="all",
    rollups=True,
    sessions=True,
    fsync=False,
)
LOG = encoded(batches.logs(1, "tenant-a"))


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Open]:
    """Opens a store that has the tables of PLAIN with what is wanted, once the one before is closed."""
    copy_store(tmp_path / "store", fsync=False)
    with reopening(tmp_path / "store") as open_:
        yield lambda wanted: open_(StoreOptions(wanted))


def ttl(store: ClickHouseStore, table: str) -> str:
    return text(store, f"SELECT extract(engine_full, ' TTL (.+?) SETTINGS ') FROM system.tables WHERE name = '{table}'")


def indexes(store: ClickHouseStore, table: str = "otel_logs") -> dict[str, str]:
    rows = text(store, f"SELECT name, type FROM system.data_skipping_indices WHERE table = '{table}'").splitlines()
    return dict(row.split("\t") for row in rows)


def parts_without_ttl(store: ClickHouseStore) -> str:
    return text(store, "SELECT countIf(delete_ttl_info_max = 0) FROM system.parts WHERE table = 'otel_logs' AND active")


@pytest.mark.parametrize("wanted", [PLAIN, FULL, RequestedTables(text_indexes="body")], ids=["plain", "full", "body"])
def test_a_plan_that_was_applied_is_empty(open_store: Open, wanted: RequestedTables) -> None:
    """It is empty also after the next start. What was done is what had been planned."""
    store = open_store(wanted)
    assert store.schema_plan() == store.apply_schema()
    assert store.schema_plan() == ((), ())
    assert open_store(wanted).apply_schema() == ((), ())


def test_a_plan_that_was_interrupted_goes_on(open_store: Open) -> None:
    """Planned anew after each statement, what is left is the rest of the plan. Only the mutation is begun again."""
    store = open_store(FULL)
    planned = list(store.schema_plan().changes)
    assert len(planned) == len(set(planned)) > 30
    for number, change in enumerate(planned):
        store._command(change.statement)
        is_begun_again = change.statement.endswith(" MATERIALIZE TTL")
        assert planned[number + (not is_begun_again) :] == list(store.schema_plan().changes)


def test_a_ttl_that_was_interrupted_reaches_every_part(open_store: Open) -> None:
    """Killed anywhere between the change of a TTL and the mutation that tells the parts, the next plan has the mutation."""
    store = open_store(PLAIN)
    store.insert(LOGS_TOPIC, [LOG], "token")
    store._command("ALTER TABLE otel_logs MODIFY COMMENT 'ours '")
    wanted = PLAIN._replace(retention=Retention(days=3650))
    store = open_store(wanted)
    of_logs = [change for change in store.schema_plan().changes if change.table == "otel_logs"]
    assert [change.statement.split()[3] for change in of_logs] == ["MODIFY", "MODIFY", "MATERIALIZE", "MODIFY"]
    for change in of_logs[:2]:
        store._command(change.statement)
    assert parts_without_ttl(store) == "1"
    assert text(store, "SELECT comment FROM system.tables WHERE name = 'otel_logs'") == f"ours {TTL_PENDING}"
    store = open_store(wanted)
    assert of_logs[2:] == [change for change in store.schema_plan().changes if change.table == "otel_logs"]
    store.apply_schema()
    until(lambda: parts_without_ttl(store) == "0")
    assert text(store, "SELECT comment FROM system.tables WHERE name = 'otel_logs'") == "ours "


def test_rows_stay_through_every_change(open_store: Open) -> None:
    """There and back again: what was stored is found, by its token too, and the columns have its attributes."""
    store = open_store(PLAIN)
    store.insert(LOGS_TOPIC, [LOG], "token")
    key = text(store, "SELECT any(mapKeys(ResourceAttributes)[1]) FROM otel_logs")
    for wanted in (
        PLAIN._replace(materialized_attributes=(key,), text_indexes="all", retention=Retention(tenants={"tenant-a": 9999})),
        PLAIN._replace(text_indexes="body", retention=Retention(days=9999)),
        PLAIN,
    ):
        store = open_store(wanted)
        store.apply_schema()
        store.insert(LOGS_TOPIC, [LOG], "token")
        assert store.holds(LOGS_TOPIC, LOG)
        assert text(store, "SELECT count() FROM otel_logs WHERE hasToken(lower(Body), 'declined')") == "1"
        if wanted.materialized_attributes == (key,):
            same = f"countIf(`{MATERIALIZED_PREFIX}{key}` = ResourceAttributes['{key}'] AND ResourceAttributes['{key}'] != '')"
            assert text(store, f"SELECT count() = {same} FROM otel_logs") == "1"


def test_an_index_has_a_name_of_its_own(open_store: Open) -> None:
    """No name ever has two types, whatever mode is chosen after another."""
    types: dict[tuple[str, str], set[str]] = {}
    for mode in ("body", "all", "none"):
        store = open_store(PLAIN._replace(text_indexes=mode))
        store.apply_schema()
        for table in ("otel_logs", "otel_traces"):
            for name, type_ in indexes(store, table).items():
                types.setdefault((table, name), set()).add(type_)
    assert [name for name, found in types.items() if len(found) > 1] == []


@pytest.mark.parametrize(
    ("mode", "replaced", "condition", "index"),
    [
        ("body", {"idx_lower_body"}, "hasAllTokens(lower(Body), 'needle')", "text_lower_body"),
        ("all", {"idx_trace_id", "idx_res_attr_value"}, "ResourceAttributes['k'] = 'needle'", "text_res_attr_value"),
    ],
)
def test_text_indexes(open_store: Open, mode: TextIndexes, replaced: set[str], condition: str, index: str) -> None:
    """They replace bloom filters, also in a table with rows, and leave the granules that have the word."""
    store = open_store(PLAIN._replace(text_indexes=mode))
    store.apply_schema()
    assert replaced & indexes(store).keys() == set()
    store._command(
        "INSERT INTO otel_logs (Timestamp, TraceId, Body, ResourceAttributes) SELECT toDateTime64('2026-11-29', 9), w,"
        " concat(w, ' found'), map('k', w) FROM (SELECT if(number = 77, 'needle', 'hay') AS w FROM numbers(20000))"
    )
    explained = text(store, f"EXPLAIN indexes = 1 SELECT Body FROM otel_logs WHERE {condition}")
    used = re.search(rf"Name: {index}\n.*\n.*\n *Parts: 1/1\n *Granules: (\d)/5", explained)
    assert used is not None, explained
    assert used[1] == "1"
    assert text(store, f"SELECT count() FROM otel_logs WHERE {condition}") == "1"


def test_retention_of_signals_and_tenants(open_store: Open) -> None:
    """Each signal has its days, and a tenant of its own days those; receipts stay as long as anything that they count."""
    store = open_store(FULL)
    store.apply_schema()
    others = "NOT IN ('acme', 'beta', 'it\\'s')"
    time = "toDateTime(Timestamp) + toIntervalDay"
    of_tenants = f"{time}(3) WHERE TenantId IN ('acme', 'beta'), {time}(90) WHERE TenantId IN ('it\\'s')"
    assert ttl(store, "otel_logs") == f"{time}(7) WHERE TenantId {others}, {of_tenants}"
    assert ttl(store, "otel_metrics_sum").startswith(f"toDateTime(TimeUnix) + toIntervalDay(400) WHERE TenantId {others}, ")
    assert ttl(store, "otel_traces").startswith(f"{time}(30) WHERE")
    assert ttl(store, "telemetry_batches").startswith("toDateTime(ReceivedAt) + toIntervalDay(400) WHERE")
    assert FULL.retention.shortest() == 3
    store = open_store(PLAIN)
    store.apply_schema()
    assert {ttl(store, table) for table in TIME_COLUMNS} == {""}


def test_a_tenants_rows_expire_alone(open_store: Open) -> None:
    """A part with rows of two tenants loses those of the one whose days are over. It was there before the setting."""
    store = open_store(PLAIN)
    rows = "SELECT now64(9) - INTERVAL 5 DAY, tenant FROM (SELECT arrayJoin(['short', 'long']) AS tenant)"
    store._command(f"INSERT INTO otel_logs (Timestamp, TenantId) {rows}")
    store = open_store(PLAIN._replace(retention=Retention(tenants={"short": 1})))
    store.apply_schema()
    until(lambda: text(store, "SELECT TenantId FROM otel_logs") == "long")


def test_parts_are_rewritten_only_where_tenants_with_rows_get_other_days(open_store: Open) -> None:
    """The days of a new tenant are metadata. Where a tenant with rows gets other days, its rows go by them."""

    def of_logs(tenants: dict[str, int]) -> list[str]:
        store = open_store(PLAIN._replace(retention=Retention(days=9000, tenants=tenants)))
        made = [change.statement.split()[3] for change in store.apply_schema().changes if change.table == "otel_logs"]
        assert store.schema_plan() == ((), ())
        return made

    assert of_logs({"first": 9}) == ["MODIFY", "MODIFY", "MODIFY", "MATERIALIZE", "MODIFY"]
    many = {f"it's {number}": 9 for number in range(1000)}
    assert of_logs({"first": 9, **many}) == ["MODIFY"]
    store = open_store(PLAIN._replace(retention=Retention(days=9000, tenants={"first": 9, **many})))
    rows = "SELECT now64(9) - INTERVAL 5 DAY, tenant FROM (SELECT arrayJoin(['it\\'s 999', 'other']) AS tenant)"
    store._command(f"INSERT INTO otel_logs (Timestamp, TenantId) {rows}")
    assert of_logs({"first": 9, **many, "second": 3}) == ["MODIFY"]
    assert of_logs({"first": 9, **many, "it's 999": 3}) == ["MODIFY", "MODIFY", "MATERIALIZE", "MODIFY"]
    store = open_store(PLAIN._replace(retention=Retention(days=9000, tenants={"first": 9, **many, "it's 999": 3})))
    until(lambda: text(store, "SELECT TenantId FROM otel_logs") == "other")


def test_days_of_plans_are_asked_for_each_plan(open_store: Open) -> None:
    """Those of the settings come before them."""
    days = {"acme": 300, "beta": 300}
    wanted = PLAIN._replace(retention=Retention(tenants={"beta": 100}), days_of_plans=lambda: days)
    store = open_store(wanted)
    store.apply_schema()
    time = "toDateTime(Timestamp) + toIntervalDay"
    assert ttl(store, "otel_logs") == f"{time}(100) WHERE TenantId IN ('beta'), {time}(300) WHERE TenantId IN ('acme')"
    assert store.schema_plan() == ((), ())
    days["gamma"] = 300
    assert len(store.apply_schema().changes) == len(set(TIME_COLUMNS) - set(ROLLUPS))
    assert ttl(store, "otel_logs").endswith("WHERE TenantId IN ('acme', 'gamma')")


@pytest.mark.parametrize("mode", ["none", "all"])
def test_filters_of_attributes_are_made_when_parts_are_merged(open_store: Open, mode: TextIndexes) -> None:
    """An insert makes the indexes of times, traces and batches only. A merge makes the others, and the same rows are found."""

    def made() -> set[str]:
        of_logs = "WHERE table = 'otel_logs' AND data_uncompressed_bytes > 0"
        return set(text(store, f"SELECT name FROM system.data_skipping_indices {of_logs}").split())

    store = open_store(PLAIN._replace(text_indexes=mode))
    store.apply_schema()
    store.insert(LOGS_TOPIC, [LOG], "token")
    assert made() == {"idx_time", "idx_batch_id", "idx_trace_id" if mode == "none" else "text_trace_id"}
    store._command("OPTIMIZE TABLE otel_logs FINAL")
    assert made() == indexes(store).keys()
    assert store.holds(LOGS_TOPIC, LOG)


def test_the_exporters_attributes_are_columns(open_store: Open) -> None:
    """They are columns by default. ClickStack recognizes such a column by its expression."""
    store = open_store(PLAIN)
    found = text(
        store,
        "SELECT name, default_expression FROM system.columns WHERE table = 'otel_logs' AND default_kind = 'MATERIALIZED'",
    ).splitlines()
    assert found == [f"{MATERIALIZED_PREFIX}{key}\tResourceAttributes['{key}']" for key in EXPORTERS_ATTRIBUTES]


def test_a_plan_changes_nothing_and_names_its_cost(open_store: Open) -> None:
    """Planned twice, it is the same. A mutation is announced with the bytes that it reads, rewrites or removes."""
    store = open_store(PLAIN)
    store.insert(LOGS_TOPIC, [LOG], "token")
    store = open_store(FULL)
    planned = store.schema_plan().changes
    assert planned == store.schema_plan().changes
    assert ttl(store, "otel_logs") == ""
    costs = {change.statement.partition("otel_logs ")[2][:15]: change.cost for change in planned if change.table == "otel_logs"}
    size = text(store, "SELECT formatReadableDecimalSize(0), total_bytes FROM system.tables WHERE name = 'otel_logs'").split()[
        -1
    ]
    (of_settings,) = (change for change in planned if change.statement.startswith("ALTER TABLE otel_logs MODIFY SETTING "))
    waits = "; it may wait for mutations in progress" if "ttl_only_drop_parts" in of_settings.statement else ""
    assert of_settings.cost == METADATA_ONLY + waits
    assert costs["MATERIALIZE TTL"].startswith(f"a mutation that rewrites {int(size):,} bytes")
    assert costs["ADD INDEX IF NO"].startswith(METADATA_ONLY)
    assert costs["DROP INDEX IF E"].startswith("a mutation that removes ")
    assert costs["DROP COLUMN IF "].startswith("a mutation that removes ")


def test_what_can_not_be_is_said_with_its_setting(open_store: Open) -> None:
    """A policy or a volume that is not there: the table, ClickHouse's reason, the statement and what to change."""
    with pytest.raises(StoreMisconfigured, match=r"table otel_logs: .*`nope`.* to be changed: store.storage_policy$"):
        open_store(PLAIN._replace(storage_policy="nope")).apply_schema()
    cold = Retention(cold_volume="cold", cold_after_days=3)
    with pytest.raises(StoreMisconfigured, match=r"No such volume `cold`.* to be changed: .*store.cold_volume"):
        open_store(PLAIN._replace(retention=cold)).apply_schema()
    store = open_store(PLAIN)
    store.apply_schema()
    assert store.schema_plan() == ((), ())


def test_what_another_process_has_made_is_no_fault(open_store: Open) -> None:
    """Two that start at once plan the same; ClickHouse refuses to remove a TTL for the second time."""
    open_store(PLAIN._replace(retention=Retention(logs=9000))).apply_schema()
    store = open_store(PLAIN)
    ran: list[str] = []

    def command(sql: str) -> None:
        ran.append(sql)
        store._command(sql)  # the other's
        store._command(sql)

    TableChanges(command, store._text, PLAIN, "the engine", "").apply()
    assert "ALTER TABLE otel_logs REMOVE TTL" in ran
    assert store.schema_plan() == ((), ())


def test_every_change_can_be_made_on_a_cluster(open_store: Open) -> None:
    """Each statement parses with ON CLUSTER."""
    store = open_store(FULL)
    for change in store.schema_plan().changes:
        made = text(store, f"SELECT formatQuerySingleLine({literal(on_cluster(change.statement, 'main'))})")
        assert " ON CLUSTER main " in made


TIERS = """
import sys
import chdb
from collector.store.options import RequestedTables
from collector.store.retention import Retention
from collector.store.table_plan import changes
connection = chdb.connect(f"{sys.argv[1]}/store?config-file={sys.argv[1]}/tiers.xml")
def select(sql): return connection.query(sql, "TabSeparated").data()
columns = "Timestamp DateTime64(9), TraceId String, Body String, ResourceAttributes Map(LowCardinality(String), String)"
select(f"CREATE TABLE otel_logs ({columns}, TenantId String) ENGINE = MergeTree PARTITION BY toDate(Timestamp)"
       " ORDER BY Timestamp")
select("INSERT INTO otel_logs (Timestamp) SELECT now() - toIntervalDay(number * 5) FROM numbers(3)")
def planned():
    wanted = RequestedTables(Retention(days=9, cold_volume="cold", cold_after_days=3), storage_policy="tiered")
    return [c.statement for c in changes(select, wanted) if " INDEX " not in c.statement and " COLUMN " not in c.statement]
for statement in planned():
    select(statement)
print(planned())
for _ in range(300):
    found = select("SELECT dateDiff('day', toDate(partition), today()) AS age, disk_name FROM system.parts"
                   " WHERE table = 'otel_logs' AND active AND rows > 0 ORDER BY age")
    if found == "0\\tdefault\\n5\\tcold\\n":
        break
    select("SELECT sleep(0.1)")
print(found)
"""


def test_rows_move_to_a_cold_volume(tmp_path: Path) -> None:
    """They move after their days, and go after more of them. This is an engine with two volumes, whose configuration only a
    process of its own can have. The table had rows on the default disk before."""
    disks = f"<cold><path>{tmp_path}/cold/</path></cold>"
    volumes = "".join(f"<{name}><disk>{disk}</disk></{name}>" for name, disk in (("default", "default"), ("cold", "cold")))
    # A disk that is nearly full does not move younger rows.
    policies = f"<policies><tiered><volumes>{volumes}</volumes><move_factor>0</move_factor></tiered></policies>"
    configuration = f"<storage_configuration><disks>{disks}</disks>{policies}</storage_configuration>"
    (tmp_path / "tiers.xml").write_text(f"<clickhouse>{configuration}</clickhouse>")
    done = subprocess.run(
        [sys.executable, "-c", TIERS, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n0\tdefault\n5\tcold\n\n"
