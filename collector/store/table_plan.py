"""Plans the changes of tables that the settings request beyond the migrations, as statements.

Retention, tiers, durability, materialized attributes and text indexes are settings. A plan compares them with the live tables.
docs/adr/0044 has the reasons.

Invariants (tests/integration/clickhouse/test_table_plan.py):
1. After a plan was executed, the next plan is empty. So a start with nothing to change only reads
   (test_a_plan_that_was_applied_is_empty).
2. A plan may be interrupted at any statement, also during it: the next plan has the rest
   (test_a_plan_that_was_interrupted_goes_on, test_a_ttl_that_was_interrupted_reaches_every_part).
3. No statement loses or doubles a row. A TTL drops only the rows that are too old (test_rows_stay_through_every_change;
   test_schema_apply.py, under load and with kills).
4. An index is never replaced by another type of index under the same name. The files of a dropped index stay in the parts until
   a mutation has removed them, and would be read as those of the new index (test_an_index_has_a_name_of_its_own).
"""

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, get_args

from collector.store import clickstack
from collector.store.contract import ROLLUPS
from collector.store.migrations import identifier, literal, migrations, pending
from collector.store.options import RequestedTables, TextIndexes
from collector.store.retention import DEAD_LETTERS, EVENTS, TIME_COLUMNS, tenants_that_differ

MATERIALIZED_PREFIX: Final = "__otel_materialized_"
_MATERIALIZED_TABLE: Final = "otel_logs"
_MAPS: Final = {
    "otel_logs": {"res": "ResourceAttributes", "scope": "ScopeAttributes", "log": "LogAttributes"},
    "otel_traces": {"res": "ResourceAttributes", "span": "SpanAttributes"},
}
# This text is at the end of a table's comment from before a change of its TTL until the mutation exists that updates all parts.
TTL_PENDING: Final = "[parts have yet to learn of the TTL]"
# The number of the longest tenants' names that fit a query.
_TENANTS_ASKED_AT_ONCE: Final = 250
METADATA_ONLY: Final = "metadata only"


class TableChange(NamedTuple):
    """A statement, its cost in plain words, and the settings that ask for it."""

    table: str
    statement: str
    cost: str
    settings: str


class SchemaPlan(NamedTuple):
    """The missing parts of the schema: names of migrations, and then the changes that the settings ask for."""

    migrations: tuple[str, ...]
    changes: tuple[TableChange, ...]


class _LiveTable(NamedTuple):
    """The present state of a table. `size_bytes` is the size of its parts. `columns` has the bytes of each column that plans
    change or read, and `indexes` those of each index."""

    engine: str
    comment: str
    size_bytes: int
    columns: Mapping[str, int]
    indexes: Mapping[str, int]


def schema_plan(select: Callable[[str], str], requested: RequestedTables) -> SchemaPlan:
    """Return the missing parts of the schema. The plan lacks the changes of tables that a pending migration will make.

    `select` answers a query as TabSeparated text."""
    return SchemaPlan(pending(select, migrations()), tuple(changes(select, requested)))


def changes(select: Callable[[str], str], requested: RequestedTables) -> Iterator[TableChange]:
    """Yield the missing changes, in the order in which to run them. A table that does not exist yet is left out.

    `select` answers a query as TabSeparated text.
    """
    for made in clickstack.changes(
        select, lambda table: _storage(table, requested), rollups=requested.rollups, sessions=requested.sessions
    ):
        yield TableChange(*made, "schema.clickstack_rollups, schema.clickstack_sessions")
    for table, live in _tables(select).items():
        if table in ROLLUPS and not requested.rollups:
            continue
        yield from _settings_changes(table, live, requested)
        yield from _retention_changes(select, table, live, requested)
        if table == _MATERIALIZED_TABLE:
            yield from _column_changes(table, live, requested.materialized_attributes)
        if table in _MAPS:
            yield from _index_changes(table, live, requested.text_indexes)


def _tables(select: Callable[[str], str]) -> dict[str, _LiveTable]:
    """Return the current state of the tables."""
    names = ", ".join(map(literal, (*TIME_COLUMNS, DEAD_LETTERS[0], EVENTS[0])))
    times = ", ".join(map(literal, sorted(set(TIME_COLUMNS.values()))))

    def rows(sql: str) -> Iterator[list[str]]:
        return (line.split("\t") for line in select(sql).splitlines())

    def sizes(sql: str) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for table, name, size in rows(f"{sql} AND database = currentDatabase() AND table IN ({names})"):
            found.setdefault(table, {})[b64decode(name).decode()] = int(size)
        return found

    columns = sizes(
        "SELECT table, base64Encode(name), data_compressed_bytes FROM system.columns"  # noqa: S608 - our own names
        f" WHERE (startsWith(name, '{MATERIALIZED_PREFIX}') OR name IN ({times}))"
    )
    indexes = sizes("SELECT table, base64Encode(name), data_compressed_bytes FROM system.data_skipping_indices WHERE TRUE")
    tables = rows(
        "SELECT name, base64Encode(engine_full), base64Encode(comment), ifNull(total_bytes, 0) FROM system.tables"  # noqa: S608 - the same
        f" WHERE database = currentDatabase() AND name IN ({names}) AND engine LIKE '%MergeTree' ORDER BY name"
    )
    return {
        name: _LiveTable(
            b64decode(engine).decode(),
            b64decode(comment).decode(),
            int(size),
            columns.get(name, {}),
            indexes.get(name, {}),
        )
        for name, engine, comment, size in tables
    }


def _storage(table: str, requested: RequestedTables) -> str:
    """Return the TTL and the settings of a new table, so that the next plan has no change for it."""
    ttl = requested.retention.ttl(table)
    settings = {"index_granularity": "8192", "non_replicated_deduplication_window": "10000"}
    settings |= {name: value for name, (value, _) in _table_settings(table, requested).items()}
    return (f"TTL {ttl}\n" if ttl else "") + f"SETTINGS {', '.join(f'{name} = {value}' for name, value in settings.items())}"


def _table_settings(table: str, requested: RequestedTables) -> dict[str, tuple[str, str]]:
    """Return the settings that a table should have, each with its value and the collector's setting that asks for it."""
    settings = dict.fromkeys(("fsync_after_insert", "fsync_part_directory"), (f"{requested.fsync:d}", "store.fsync"))
    if table in TIME_COLUMNS:
        # A part is dropped as a whole once all of its rows are too old. With separate retentions of tenants, merges remove
        # rows.
        settings["ttl_only_drop_parts"] = (
            f"{not requested.retention.tenants:d}",
            "store.tenant_retention_days, retention_days of [plans]",
        )
        if requested.storage_policy:
            settings["storage_policy"] = literal(requested.storage_policy), "store.storage_policy"
    return settings


def _settings_changes(table: str, live: _LiveTable, requested: RequestedTables) -> Iterator[TableChange]:
    lacking = {
        f"{name} = {value}": asked_by
        for name, (value, asked_by) in _table_settings(table, requested).items()
        if not re.search(rf"\b{name} = {re.escape(value)}(?:,|$)", live.engine)
    }
    if lacking:
        asked_by = ", ".join(dict.fromkeys(lacking.values()))
        # Mutations of the table that are in progress can hold up the change of this setting.
        may_wait = any(change.startswith("ttl_only_drop_parts ") for change in lacking)
        cost = f"{METADATA_ONLY}; it may wait for mutations in progress" if may_wait else METADATA_ONLY
        yield TableChange(table, f"ALTER TABLE {table} MODIFY SETTING {', '.join(lacking)}", cost, asked_by)


def _retention_changes(
    select: Callable[[str], str], table: str, live: _LiveTable, requested: RequestedTables
) -> Iterator[TableChange]:
    """Yield the changes of a table's TTL. Each part has a record of how long its rows are kept. After a change of the TTL, a
    mutation updates these records.

    ClickHouse changes the TTL first, and then begins the mutation. A crash between the two would leave parts that no TTL
    removes, without a sign of it. So the two are separate statements, and the table's comment notes that the second is pending.
    If only tenants without rows get another retention, no part needs the mutation."""
    found = re.search(r" TTL (.+?) SETTINGS ", live.engine)
    live_ttl = found[1] if found else ""
    ttl = requested.retention.ttl(table)
    is_pending = live.comment.endswith(TTL_PENDING)
    comment = live.comment.removesuffix(TTL_PENDING)
    asked_by = "the retention in [store], [plans] and [dead_letters], store.cold_volume and store.cold_after_days"

    def change(what: str, cost: str = METADATA_ONLY) -> TableChange:
        return TableChange(table, f"ALTER TABLE {table} {what}", cost, asked_by)

    if live_ttl != ttl:
        if not ttl:
            yield change("REMOVE TTL")
        else:
            if not is_pending and _concerns_rows(select, table, live_ttl, ttl):
                yield change(f"MODIFY COMMENT {literal(comment + TTL_PENDING)}")
                is_pending = True
            yield change(f"MODIFY TTL {ttl} SETTINGS materialize_ttl_after_modify = 0")
    if not is_pending:
        return
    if ttl:
        if table in TIME_COLUMNS and requested.retention.tenants:
            cost = f"a mutation that rewrites {live.size_bytes:,} bytes without the rows that are too old, in the background"
        else:
            read = sum(size for name, size in live.columns.items() if name in TIME_COLUMNS.values())
            cost = f"a mutation that reads {read:,} bytes of times, and rewrites small parts, in the background"
        yield change("MATERIALIZE TTL", cost)
    yield change(f"MODIFY COMMENT {literal(comment)}")


def _concerns_rows(select: Callable[[str], str], table: str, live_ttl: str, ttl: str) -> bool:
    """Return whether the new TTL may remove a stored row at another time."""
    changed = tenants_that_differ(live_ttl, ttl)
    if changed is None:
        return True
    names = [literal(tenant) for tenant in sorted(changed)]
    return any(
        select(f"SELECT 1 FROM {table} WHERE TenantId IN ({', '.join(names[at : at + _TENANTS_ASKED_AT_ONCE])}) LIMIT 1")  # noqa: S608 - literals
        for at in range(0, len(names), _TENANTS_ASKED_AT_ONCE)
    )


def _column_changes(table: str, live: _LiveTable, attributes: Sequence[str]) -> Iterator[TableChange]:
    requested = {MATERIALIZED_PREFIX + key: f"ResourceAttributes[{literal(key)}]" for key in attributes}
    asked_by = "schema.materialized_attributes"
    made = [
        f"ADD COLUMN IF NOT EXISTS {identifier(name)} LowCardinality(String) MATERIALIZED {expression} CODEC(ZSTD(1))"
        for name, expression in requested.items()
        if name not in live.columns
    ]
    if made:
        cost = f"{METADATA_ONLY}; parts that exist get the columns when they are merged, until then they are computed"
        yield TableChange(table, f"ALTER TABLE {table} {', '.join(made)}", cost, asked_by)
    dropped = [name for name in live.columns if name.startswith(MATERIALIZED_PREFIX) and name not in requested]
    if dropped:
        what = ", ".join(f"DROP COLUMN IF EXISTS {identifier(name)}" for name in dropped)
        cost = _removal(sum(live.columns[name] for name in dropped))
        yield TableChange(table, f"ALTER TABLE {table} {what} SETTINGS alter_sync = 0", cost, asked_by)


def _index_changes(table: str, live: _LiveTable, mode: TextIndexes) -> Iterator[TableChange]:
    requested = _indexes(table, mode)
    others = {name for every in get_args(TextIndexes) for name in _indexes(table, every)} - requested.keys()
    asked_by = "schema.text_indexes"
    made = [f"ADD INDEX IF NOT EXISTS {name} {index}" for name, index in requested.items() if name not in live.indexes]
    if made:
        cost = f"{METADATA_ONLY}; parts that exist ({live.size_bytes:,} bytes) get the indexes when they are merged"
        yield TableChange(table, f"ALTER TABLE {table} {', '.join(made)}", cost, asked_by)
    dropped = sorted(others & live.indexes.keys())
    if dropped:
        what = ", ".join(f"DROP INDEX IF EXISTS {name}" for name in dropped)
        cost = _removal(sum(live.indexes[name] for name in dropped))
        yield TableChange(table, f"ALTER TABLE {table} {what} SETTINGS alter_sync = 0", cost, asked_by)


def _indexes(table: str, mode: TextIndexes) -> dict[str, str]:
    """Return the definitions of the indexes that depend on the mode, by name."""
    made = {}
    columns = {"trace_id": ("TraceId", "0.001")}
    for whose, attributes in _MAPS[table].items():
        columns[f"{whose}_attr_key"] = f"mapKeys({attributes})", "0.01"
        columns[f"{whose}_attr_value"] = f"mapValues({attributes})", "0.01"
    for name, (column, false_positives) in columns.items():
        if mode == "all":
            made[f"text_{name}"] = f"{column} TYPE text(tokenizer = 'array')"
        else:
            made[f"idx_{name}"] = f"{column} TYPE bloom_filter({false_positives}) GRANULARITY 1"
    if table == "otel_logs":
        if mode == "none":
            made["idx_lower_body"] = "lower(Body) TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8"
        else:
            made["text_lower_body"] = "lower(Body) TYPE text(tokenizer = 'splitByNonAlpha')"
    return made


def _removal(size_bytes: int) -> str:
    return f"a mutation that removes {size_bytes:,} bytes of files and links the others, in the background"
