"""A tenant's key reads its own rows of the embedded store, whatever it asks and however."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.reopened_store import store_with_tables

from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import Question, StoreError, StoreUnavailable
from collector.store.options import QueryLimits, RequestedTables, StoreOptions
from collector.store.retention import Retention
from collector.store.session_pool import _KEPT_MAX
from collector.store.tenant_view import OPEN_SYSTEM_TABLES

OWN, OTHER = "acme", "it's the \\rival"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    """With a row of each tenant in every table that has tenants."""
    directory: Path = tmp_path_factory.mktemp("store") / "store"
    made = store_with_tables(
        directory, StoreOptions(RequestedTables(Retention(dead_letters=None)), queries=QueryLimits(result_rows_max=1000))
    )
    for table in tables(made, "engine LIKE '%MergeTree' AND has_tenant"):
        for tenant in (OWN, OTHER):
            quoted = tenant.replace("\\", "\\\\").replace("'", "\\'")
            made._command(f"INSERT INTO {table} (TenantId) VALUES ('{quoted}'), ('{quoted}')")
    yield made
    made.close()


def tables(store: ClickHouseStore, where: str) -> list[str]:
    has_tenant = "(database, name) IN (SELECT database, table FROM system.columns WHERE name = 'TenantId') AS has_tenant"
    sql = f"SELECT name, {has_tenant} FROM system.tables WHERE database = currentDatabase() AND {where}"
    return [line.split("\t")[0] for line in store.read(sql, "TabSeparated").decode().splitlines()]


def asked(
    store: ClickHouseStore,
    sql: str,
    tenant: str | None = OWN,
    settings: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
) -> str:
    return store.answer(Question(sql, "TabSeparated", tenant, settings or {}, parameters or {})).body.decode()


def test_every_table_is_filtered_or_listed(store: ClickHouseStore) -> None:
    """In each table and view of every database, a tenant reads its own rows, or none. Listed ones are excepted."""
    rows = store.read("SELECT database, name FROM system.tables", "TabSeparated").decode().splitlines()
    seen = set()
    for database, name in (row.split("\t") for row in rows):
        if database.lower() == "information_schema" or (database == "system" and name in OPEN_SYSTEM_TABLES):
            continue
        try:
            text = asked(store, f"SELECT * FROM `{database}`.`{name}` LIMIT 100")
        except StoreError:  # it can't be read at all, by anyone, or not without a condition
            continue
        assert "rival" not in text, f"{database}.{name}"
        if text:
            assert OWN in text, f"{database}.{name} is neither filtered nor listed"
            seen.add(name)
    assert {"otel_logs", "otel_traces", "otel_metrics_sum", "telemetry", "dead_letters", "telemetry_batches"} <= seen


WAYS = {
    "plainly": "SELECT TenantId FROM otel_logs",
    "by a view": "SELECT tenant FROM telemetry",
    "by a view that joins": "SELECT TenantId FROM dead_letters",
    "as an aggregate": "SELECT groupUniqArray(TenantId), count() FROM otel_logs",
    "as bounds, which the engine knows of parts": "SELECT any(TenantId), count(), max(Timestamp) FROM otel_logs",
    "with FINAL": "SELECT TenantId FROM telemetry_dead_letters FINAL",
    "with PREWHERE": "SELECT TenantId FROM otel_logs PREWHERE TenantId != ''",
    "in a subquery": "SELECT * FROM (SELECT TenantId FROM otel_logs)",
    "as a scalar": "SELECT (SELECT groupArray(TenantId) FROM otel_logs)",
    "in WITH": "WITH q AS (SELECT TenantId FROM otel_logs) SELECT * FROM q",
    "in a join": "SELECT l.TenantId, r.TenantId FROM otel_logs l CROSS JOIN otel_traces r",
    "in a left join": "SELECT r.TenantId FROM (SELECT 1 AS x) l LEFT JOIN otel_traces r ON r.TenantId != ''",
    "in a union": "SELECT TenantId FROM otel_logs UNION ALL SELECT TenantId FROM otel_traces",
    "under another table's name": "SELECT TenantId FROM otel_logs AS `default.otel_traces`",
    "under a system table's name": "SELECT TenantId, 'acme' FROM otel_logs AS `system.tables`",
    "by a parameter": "SELECT TenantId FROM {table:Identifier}",
    "with a window": "SELECT TenantId, count() OVER () FROM otel_logs",
    "by its parts": "SELECT _part, TenantId FROM otel_logs",
}


@pytest.mark.parametrize("sql", WAYS.values(), ids=WAYS.keys())
def test_no_way_of_asking_reads_another_tenants_rows(store: ClickHouseStore, sql: str) -> None:
    """The same statement shows both tenants to who may read all, and to each tenant its own rows only."""
    parameters = {"table": "otel_logs"}
    assert "rival" in asked(store, sql, None, parameters=parameters) or "bounds" in sql or "any(" in sql
    own = asked(store, sql, parameters=parameters)
    assert OWN in own
    assert "rival" not in own
    other = asked(store, sql, OTHER, parameters=parameters)
    assert "rival" in other
    assert OWN not in other.replace("'acme'", "").replace("\tacme\n", "\n") or "'acme'" in sql


@pytest.mark.parametrize(
    "condition",
    [
        "('rival', toInt32(0)) IN (SELECT TenantId, toInt32(0) FROM otel_logs)",
        "EXISTS (SELECT 1 FROM otel_logs WHERE TenantId LIKE '%rival')",
        "(SELECT count() FROM otel_logs WHERE TenantId LIKE '%rival') > 0",
        "(SELECT count() FROM otel_logs) > 2",
        "(SELECT count() FROM system.parts) > 0",
        "(SELECT count() FROM system.processes) > 0",
    ],
)
def test_nothing_of_another_tenant_shows_in_an_answer(store: ClickHouseStore, condition: str) -> None:
    """This holds also if an answer only says whether there is a row."""
    assert "0\n" == asked(store, f"SELECT toUInt8({condition})")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT TenantId FROM (SELECT TenantId FROM otel_logs SETTINGS additional_table_filters = {})",
        "SELECT TenantId FROM otel_logs SETTINGS additional_table_filters = {}",
        "WITH q AS (SELECT TenantId FROM otel_logs settings/**/additional_table_filters={}) SELECT * FROM q",
        "SELECT 1 IN (SELECT 1 FROM otel_logs SeTtInGs max_threads = 1)",
        "SELECT TenantId FROM merge('default', '^otel_logs$')",
        "SELECT TenantId FROM MERGE(currentDatabase(), 'otel')",
        "SELECT * FROM view(SELECT TenantId FROM otel_logs)",
        "SELECT * FROM mergeTreeIndex('default', 'otel_logs')",
        "SELECT * FROM loop('default', 'otel_logs') LIMIT 1",
        "SELECT * FROM cluster('x', 'default', 'otel_logs')",
        "EXPLAIN SELECT TenantId FROM otel_logs",
        "EXPLAIN ESTIMATE SELECT TenantId FROM otel_logs",
        "INSERT INTO otel_logs (TenantId) VALUES ('acme')",
        "SET additional_table_filters = {}",
        "KILL QUERY WHERE 1",
        "SELECT 1; SELECT TenantId FROM otel_logs",
        "SELECT * FROM file('/etc/passwd')",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "DESCRIBE TABLE (SELECT * FROM otel_logs SETTINGS additional_table_filters = {})",
    ],
)
def test_what_a_tenant_may_not_run_is_refused(store: ClickHouseStore, sql: str) -> None:
    with pytest.raises(StoreError):
        asked(store, sql)


def test_a_word_in_quotes_is_no_clause(store: ClickHouseStore) -> None:
    """The clause is refused, not the word. system.settings, which drivers ask for, is no clause either."""
    assert "SETTINGS x\n" == asked(store, "SELECT 'SETTINGS x'")
    assert "1\n" == asked(store, "SELECT count() > 0 FROM system.settings")


def test_caches_are_off(store: ClickHouseStore) -> None:
    """Those who read all rows have them."""
    sql = "SELECT value FROM system.settings WHERE name = 'use_query_condition_cache'"
    assert ("0\n", "1\n") == (asked(store, sql), asked(store, sql, None))


def test_settings_that_change_more_than_the_answers_form_are_refused(store: ClickHouseStore) -> None:
    """ClickHouse refuses them, too. Those of the form are obeyed, those that drivers send by habit are ignored."""
    for name in ("additional_table_filters", "max_rows_to_read", "allow_ddl", "no_such_setting"):
        with pytest.raises(StoreError, match=r"Code: 164.*READONLY"):
            asked(store, "SELECT 1", settings={name: "1"})
    assert '{"x":"1"}' in asked(
        store, "SELECT toUInt64(1) AS x FORMAT JSONEachRow", settings={"output_format_json_quote_64bit_integers": "1"}
    )
    assert "1\n" == asked(store, "SELECT 1", settings={"wait_end_of_query": "1", "readonly": "2"})


def test_limits_can_only_be_lowered(store: ClickHouseStore) -> None:
    """0, which is no limit to ClickHouse, is ours."""
    sql = "SELECT number FROM numbers({})"
    for given in ("0", "100000", None):
        with pytest.raises(StoreError, match="TOO_MANY_ROWS"):
            asked(store, sql.format(2000), settings={} if given is None else {"max_result_rows": given})
    with pytest.raises(StoreError, match="TOO_MANY_ROWS"):
        asked(store, sql.format(20), settings={"max_result_rows": "10"})
    with pytest.raises(StoreError, match="not a number"):
        asked(store, sql.format(1), settings={"max_result_rows": "many"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_block_size", "0", "BAD_ARGUMENTS"),
        ("max_block_size", "many", "CANNOT_PARSE"),
        ("session_timezone", "Nowhere", "BAD_ARGUMENTS"),
        ("output_format_no_such_thing", "1", "UNKNOWN_SETTING"),
        ("join_use_nulls", "perhaps", "CANNOT_PARSE"),
    ],
)
def test_a_setting_that_the_engine_refuses_is_the_clients_error(
    store: ClickHouseStore, name: str, value: str, message: str
) -> None:
    """It is not a store that is away, which clients ask again and again."""
    with pytest.raises(StoreError, match=message) as refused:
        asked(store, "SELECT 1", settings={name: value})
    assert not isinstance(refused.value, StoreUnavailable)
    assert str(refused.value).startswith("Code: ")


def test_parameters_are_values(store: ClickHouseStore) -> None:
    """The protocol has them escaped as in TabSeparated. One that no statement names changes nothing."""
    assert "it\\'s\t7\n" == asked(store, "SELECT {s:String}, {n:UInt8}", parameters={"s": "it's", "n": "7"})
    assert "['a','b']\n" == asked(store, "SELECT {a:Array(String)}", parameters={"a": "['a','b']"})
    assert "1\n" == asked(store, "SELECT 10 % 3", parameters={"unused": "x"})


def test_sessions_are_kept_and_bounded(store: ClickHouseStore) -> None:
    """One is used again by who asks alike; however many ways of asking there are, few are kept."""
    assert store._pool is not None
    for number in range(_KEPT_MAX + 3):
        asked(store, "SELECT 1", settings={"max_block_size": str(1000 + number)})
        assert store._pool.kept <= _KEPT_MAX
    before = store._pool.kept
    asked(store, "SELECT 1", settings={"max_block_size": str(1000 + _KEPT_MAX + 2)})
    assert before == store._pool.kept
