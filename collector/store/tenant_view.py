"""Limits a tenant's key to its rows of the embedded store: the engine itself leaves out the rows of all other tenants.

A session has the setting `additional_table_filters` with a condition for each table. The engine's planner adds the condition
wherever the table is read, also in subqueries, joins, views and IN. The session is readonly, so a statement cannot change the
setting at its top level. The engine does not check settings of subqueries. So statements with a SETTINGS clause are refused
(docs/adr/0039).

Invariants:
1. Every table of every database has a condition, except those that are listed here and views, whose tables have one. So a table
   that a later schema or engine adds is closed until it is listed. (test_every_table_is_filtered_or_listed)
2. A condition is the tenant's own, or false. So an alias that is another table's name can only exchange these two.
   (test_no_way_of_asking_reads_another_tenants_rows)
3. Statements that read tables without the planner are refused: table functions not listed here, SETTINGS, EXPLAIN.
   (test_no_way_of_asking_reads_another_tenants_rows, test_what_a_tenant_may_not_run_is_refused)
4. Caches of the engine that could use results of one tenant's query for another's are off. (test_caches_are_off)
"""

import re
from collections.abc import Callable, Iterable
from typing import Final

from collector.store.contract import StoreError

# Tables of the engine about its features and the definitions of tables. They show no queries and no content of tables. The only
# exception is the number of rows and bytes of all tenants together (system.tables).
OPEN_SYSTEM_TABLES: Final = frozenset(
    {
        "aggregate_function_combinators",
        "collations",
        "columns",
        "data_type_families",
        "databases",
        "formats",
        "functions",
        "keywords",
        "numbers",
        "numbers_mt",
        "one",
        "settings",
        "table_engines",
        "table_functions",
        "tables",
        "time_zones",
        "zeros",
        "zeros_mt",
    }
)
# Table functions that make rows without reading any table.
TABLE_FUNCTIONS: Final = frozenset(
    {"format", "generate_series", "generateseries", "null", "numbers", "numbers_mt", "values", "zeros", "zeros_mt"}
)
# The kinds of statement that a tenant may run, in addition to those that begin with Show.
KINDS: Final = frozenset({"SelectWithUnionQuery", "SelectIntersectExceptQuery", "SelectQuery", "DescribeQuery"})
NO_CACHES: Final = {"use_query_condition_cache": 0, "use_query_cache": 0}

_TABLES: Final = (
    "SELECT database, name, engine, (database, name) IN (SELECT database, table FROM system.columns WHERE name = 'TenantId')"
    " FROM system.tables FORMAT TSVRaw"
)
# Keywords are in upper case in the formatter's text. Quoted text is removed before.
_SETTINGS: Final = re.compile(r"\bSETTINGS\b")


def filters(tenant: str, run: Callable[[str], bytes]) -> str:
    """Return the value of additional_table_filters for a session of that tenant. `run` answers a statement of our own."""
    rows = [line.split("\t") for line in run(_TABLES).decode().splitlines()]
    own = f"TenantId = {_quoted(tenant)}"
    conditions = {
        f"{database}.{name}": own if has_tenant == "1" and engine.endswith("MergeTree") else "0"
        for database, name, engine, has_tenant in rows
        if engine != "View" and not (database == "system" and name in OPEN_SYSTEM_TABLES)
    }
    return "{" + ", ".join(f"{_quoted(table)}: {_quoted(condition)}" for table, condition in conditions.items()) + "}"


def check(unquoted: str, kind: str) -> None:
    """Raise StoreError if a tenant may not run a statement. `unquoted` is the formatter's text without quoted text; `kind` is
    the first word of the syntax tree."""
    if _SETTINGS.search(unquoted):
        raise StoreError("SETTINGS are not allowed here with a tenant's key: they could lift the limits to its rows")
    if kind not in KINDS and not kind.startswith("Show"):
        raise StoreError("a tenant's key runs SELECT, SHOW and DESCRIBE only")


def refused_table_functions(known: Iterable[str]) -> frozenset[str]:
    """Return the table functions that a tenant may not use. `known` are all of the engine's, in lower case."""
    return frozenset(known) - TABLE_FUNCTIONS


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
