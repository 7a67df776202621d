"""Every column of an adopted table answers as before: over the exporter's rows, over copied rows and over new rows, or
`schema adopt` names it."""

import json
from typing import Final

import pytest
from support import exporter_tables
from support.adopting import adoption_of, copier_of, text

from collector.store.adoption import EXPORTER_TABLES
from collector.store.clickhouse import ClickHouseStore

DAY: Final = "2026-03-01"
OLD_ROWS: Final = 3
POD: Final = "ResourceAttributes['k8s.pod.name']"
ITEMS: Final = "arrayMap(kv -> concat(kv.1, '=', kv.2), CAST({}, 'Array(Tuple(String, String))'))"
# As the exporter has declared some, as ClickStack does, and as people add them.
COLUMNS: Final = {
    "ResourceAttributeItems": f"Array(String) ALIAS {ITEMS.format('ResourceAttributes')}",
    "ScopeAttributeItems": f"Array(String) ALIAS {ITEMS.format('ScopeAttributes')}",
    "__otel_materialized_k8s.pod.name": f"LowCardinality(String) MATERIALIZED {POD}",
    "Pod": "String ALIAS upper(`__otel_materialized_k8s.pod.name`)",
    "Number": "UInt64 MATERIALIZED length(ResourceAttributeItems) + length(Pod)",
    "Age": "Int64 ALIAS toYear(now()) - toYear(toDateTime(0))",
}
COMPUTED: Final = {
    "has(ResourceAttributeItems, 'k8s.pod.name=pod-1')": "1",
    "has(ScopeAttributeItems, 'k8s.pod.name=pod-1')": "0",
    "`__otel_materialized_k8s.pod.name` = 'pod-1'": "1",
    "Pod = 'POD-1'": "1",
    "Number": "6",
    "Age > 50": "1",
}


@pytest.fixture
def store(adopting_store: ClickHouseStore) -> ClickHouseStore:
    return adopting_store


def filled(store: ClickHouseStore, table: str, columns: dict[str, str], form: exporter_tables.Form = "map") -> None:
    """With the exporter's table, and these columns besides."""
    exporter_tables.make(store._command, "old", form, table)
    for name, declared in columns.items():
        store._command(f"ALTER TABLE old.{table} ADD COLUMN `{name}` {declared}")
    exporter_tables.insert(store._command, "old", form, DAY, OLD_ROWS, table)


def adopt(store: ClickHouseStore) -> list[str]:
    """Return the differences."""
    adoption = adoption_of(store)
    return [difference for table in adoption.adopt() for difference in adoption.differences(table)]


def copy(store: ClickHouseStore) -> None:
    copier = copier_of(store)
    assert [OLD_ROWS] == [day.rows for table in adoption_of(store).tables() for day in copier.copy(table) if not day.left]


def insert_new(store: ClickHouseStore, table: str) -> None:
    """One row of ours."""
    time = "TimeUnix" if "metrics" in table else "Timestamp"
    store._command(
        f"INSERT INTO {EXPORTER_TABLES[table]} ({time}, TenantId, ResourceAttributes)"
        " SELECT '2026-03-02 00:00:00', 'acme', map('k8s.pod.name', 'pod-1')"
    )


@pytest.mark.parametrize("table", ["otel_logs", "otel_traces", "otel_metrics_sum", "otel_metrics_exp_histogram"])
def test_each_kind_of_column_answers_as_before(store: ClickHouseStore, table: str) -> None:
    """The exporter's ALIAS and MATERIALIZED columns, also those that read one another, in values and in conditions. Of logs our
    table has the MATERIALIZED one too."""
    scope = {} if table != "otel_traces" else {"ScopeAttributes": "Map(LowCardinality(String), String)"}
    filled(store, table, scope | COLUMNS)

    def answers() -> list[str]:
        values = [text(store, f"SELECT groupArray({expression}) FROM old.{table}") for expression in COMPUTED]
        return values + [text(store, f"SELECT count() FROM old.{table} WHERE {expression}") for expression in COMPUTED]

    def expected(rows: int) -> list[str]:
        values = [f"[{','.join([value] * rows)}]" for value in COMPUTED.values()]
        return values + [str(rows if value != "0" else 0) for value in COMPUTED.values()]

    assert answers() == expected(OLD_ROWS)
    assert [] == adopt(store)
    assert answers() == expected(OLD_ROWS)
    insert_new(store, table)
    assert answers() == expected(OLD_ROWS + 1)
    copy(store)
    assert answers() == expected(OLD_ROWS + 1)
    assert [] == adopt(store), "again, as after an upgrade"
    assert answers() == expected(OLD_ROWS + 1)
    if "exp" not in table:  # there it is a view, which has no ALIAS columns
        assert set(COLUMNS) & set(json.loads(store.read(f"SELECT * FROM old.{table} LIMIT 1", "JSONEachRow"))) == set()


def test_columns_of_json_tables(store: ClickHouseStore) -> None:
    """A MATERIALIZED column that reads a path is computed for new rows too."""
    filled(store, "otel_logs", {"Pod": "String MATERIALIZED ResourceAttributes.k8s.pod.name::String"}, "json")
    assert [] == adopt(store)
    insert_new(store, "otel_logs")
    assert text(store, "SELECT groupArray(Pod) FROM old.otel_logs") == "['pod-1','pod-1','pod-1','pod-1']"


def test_values_of_a_default_stay(store: ClickHouseStore) -> None:
    """A value that an insert gave is shown as it is; new and copied rows have the DEFAULT's value, and the column is named."""
    filled(store, "otel_logs", {"Pod": f"String DEFAULT {POD}"})
    store._command("ALTER TABLE old.otel_logs UPDATE Pod = 'given' WHERE ServiceName = 'service-1' SETTINGS mutations_sync = 2")
    (difference,) = adopt(store)
    assert difference == "in new and in copied rows these columns have the value of their DEFAULT: Pod"
    insert_new(store, "otel_logs")
    assert text(store, "SELECT arraySort(groupArray(Pod)) FROM old.otel_logs") == "['given','pod-1','pod-1','pod-1']"
    assert text(store, "SELECT count() FROM old.otel_logs WHERE Pod = 'given'") == "1"
    copy(store)
    assert text(store, "SELECT groupUniqArray(Pod) FROM old.otel_logs") == "['pod-1']"


def test_values_that_can_not_be_computed_again_are_named(store: ClickHouseStore) -> None:
    """Each is shown for old rows, and is empty in others: what an insert gave, and what a clock or a column that is not kept
    gave."""
    columns = {
        "Plain": "String",
        "Hidden": "String EPHEMERAL 'x'",
        "Stored": "DateTime MATERIALIZED now()",
        "Of": "String ALIAS concat(Plain, '!')",
        "FromHidden": "String MATERIALIZED concat(Hidden, '!')",
        "AfterClock": "UInt16 MATERIALIZED toYear(Stored)",
    }
    filled(store, "otel_logs", columns)
    (difference,) = adopt(store)
    assert difference == "in new and in copied rows these columns are empty: Plain, Stored, Of, FromHidden, AfterClock"
    insert_new(store, "otel_logs")
    of_old = "FROM old.otel_logs WHERE TenantId = 'it\\'s' AND Timestamp < '2026-03-02'"
    assert text(store, f"SELECT DISTINCT toYear(Stored) > 2020, Of, FromHidden, AfterClock > 2020 {of_old}") == "1\t!\tx!\t1"
    of_new = "FROM old.otel_logs WHERE Timestamp >= '2026-03-02'"
    assert text(store, f"SELECT toYear(Stored), Of, FromHidden, AfterClock {of_new}") == "1970\t\t\t0"
    assert text(store, "SELECT count() FROM old.otel_logs WHERE Stored > '2020-01-01'") == str(OLD_ROWS)


def test_other_types_and_expressions_are_named(store: ClickHouseStore) -> None:
    """A column of our name and of another type, as the exporter of 2023 had them; a form of the same type is none."""
    filled(store, "otel_metrics_sum", {"SeriesHash": "UInt64"})
    store._command("ALTER TABLE old.otel_metrics_sum MODIFY COLUMN Flags Int64")
    assert adopt(store) == [
        "these columns have another type: Flags UInt32 (was Int64)",
        "in new and in copied rows these columns are computed in another way: SeriesHash",
    ]
    assert text(store, "SELECT groupArray(SeriesHash) FROM old.otel_metrics_sum") == "[0,0,0]"


@pytest.mark.parametrize("form", exporter_tables.FORMS)
def test_the_exporters_own_tables_have_no_differences(store: ClickHouseStore, form: exporter_tables.Form) -> None:
    """So the command has no warnings for them."""
    exporter_tables.make(store._command, "old", form)
    assert [] == adopt(store)
