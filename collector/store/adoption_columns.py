"""The columns of an adopted table: what the union of the exporter's rows and ours shows in each.

A column of the exporter's table that ours lacks has no value in our rows. If its expression reads only columns that both tables
have, the union computes it for our rows. Every other such column is among the differences, which `schema adopt` prints.

Invariants (tests/integration/clickhouse/test_adoption_columns.py):
1. A column of the exporter's table has the same value in an old row, in the copy of that row, and in a new row like it, or
   `differences` names it (test_each_kind_of_column_answers_as_before).
2. A stored value is never computed again by a function that may answer otherwise, such as now()
   (test_values_that_can_not_be_computed_again_are_named).
"""

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from collector.store.contract import StoreError, StoreUnavailable
from collector.store.migrations import identifier, literal

_JSON: Final = re.compile(r"\bJSON\b")
# Both have no influence on the values that a query reads.
_FORM_OF_TYPE: Final = re.compile(r"LowCardinality\((\w+)\)|SimpleAggregateFunction\(\w+, (\w+)\)")
_FUNCTION: Final = re.compile(r"(\w+)\(")


class LiveColumn(NamedTuple):
    """A column of an existing table: its type, and its kind (empty, DEFAULT, MATERIALIZED, ALIAS, EPHEMERAL) with the
    expression of that kind."""

    type: str
    kind: str
    expression: str


Columns = Mapping[str, LiveColumn]
Select = Callable[[str], str]


class UnionColumns(NamedTuple):
    """The columns of the exporter's table that can be read, those of ours, and the expressions that compute columns which only
    the exporter's table has."""

    old: Columns
    ours: Columns
    computed: Mapping[str, str]

    @property
    def has_defaults(self) -> bool:
        """Return whether a column with a DEFAULT is computed: an insert may have given it another value."""
        return any(self.old[name].kind == "DEFAULT" for name in self.computed)

    def differences(self) -> Iterator[str]:
        """Yield a sentence for each kind of difference, with the columns."""
        added = {name: live for name, live in self.old.items() if name not in self.ours}
        empty = [name for name in added if name not in self.computed and not self.is_of_keys(name)]
        if empty:
            yield f"in new and in copied rows these columns are empty: {', '.join(empty)}"
        given = [name for name in self.computed if self.old[name].kind == "DEFAULT"]
        if given:
            yield f"in new and in copied rows these columns have the value of their DEFAULT: {', '.join(given)}"
        both = {name: (live.type, self.ours[name].type) for name, live in self.old.items() if name in self.ours}
        types = [f"{name} {now} (was {was})" for name, (was, now) in both.items() if _is_other_type(was, now)]
        if types:
            yield f"these columns have another type: {', '.join(types)}"
        made = [name for name in both if self._is_made_otherwise(name)]
        if made:
            yield f"in new and in copied rows these columns are computed in another way: {', '.join(made)}"

    def _is_made_otherwise(self, name: str) -> bool:
        now = self.ours[name]
        return now.kind == "MATERIALIZED" and now.expression != self.old[name].expression

    def is_of_keys(self, name: str) -> bool:
        """Return whether it is the exporter's column with the keys of a JSON column."""
        return is_json(self.old) and keys_of(name) in self.ours


def union_columns(select: Select, old: Columns, ours: Columns, our_table: str, casts: Mapping[str, str]) -> UnionColumns:
    """Return the columns of a union. `casts` are the expressions that a computed column reads in place of our columns of that
    name."""
    readable = {name: live for name, live in old.items() if live.kind != "EPHEMERAL"}
    waiting = {name: live for name, live in readable.items() if name not in ours and live.expression}
    varying = _varying_functions(select, waiting)
    computed: dict[str, str] = dict(casts)
    repeatable = dict(computed)
    has_found = True
    while has_found:  # a column may read another that is computed
        has_found = False
        for name, live in list(waiting.items()):
            is_stored = live.kind != "ALIAS"
            is_repeatable = not varying & _functions(live.expression)
            if is_stored and not is_repeatable:
                continue
            if _can_run(select, repeatable if is_stored else computed, live.expression, our_table):
                computed[name] = live.expression
                if is_repeatable:
                    repeatable[name] = live.expression
                del waiting[name]
                has_found = True
    return UnionColumns(readable, ours, {name: made for name, made in computed.items() if name not in casts})


def _can_run(select: Select, given: Mapping[str, str], expression: str, table: str) -> bool:
    """Return whether a row of the table can answer the expression, with columns that are computed already."""
    columns = "".join(f"{made} AS {identifier(name)}, " for name, made in given.items())
    try:
        select(f"SELECT {columns}{expression} FROM {table} AS ours LIMIT 0")  # noqa: S608 - the table's own expressions
    except StoreUnavailable:
        raise
    except StoreError:
        return False
    return True


def _varying_functions(select: Select, columns: Columns) -> set[str]:
    """Return the functions of the columns' expressions that may answer otherwise when they are asked again, in lower case."""
    names = {name for live in columns.values() for name in _functions(live.expression)}
    if not names:
        return set()
    # The column was called is_deterministic in earlier versions.
    found = select(
        "SELECT name, COLUMNS('^(is_)?deterministic$') FROM system.functions"  # noqa: S608 - words
        f" WHERE lower(name) IN ({', '.join(map(literal, sorted(names)))})"
    )
    rows = (line.split("\t") for line in found.splitlines())
    known = {name.lower(): is_deterministic == "1" for name, is_deterministic in rows}
    return {name for name in names if not known.get(name, True)}


def _functions(expression: str) -> set[str]:
    return {name.lower() for name in _FUNCTION.findall(expression)}


def _is_other_type(was: str, now: str) -> bool:
    def plain(type_: str) -> str:
        return _FORM_OF_TYPE.sub(lambda found: found[1] or found[2], type_)

    return not _JSON.search(was) and plain(was) != plain(now)


def keys_of(name: str) -> str:
    """Return the JSON column whose keys are in the exporter's column `name`."""
    return name.removesuffix("Keys")


def columns_of(select: Select, database: str, table: str) -> dict[str, LiveColumn]:
    """Return the columns of a table, in their order; none if the table does not exist."""
    found = select(
        "SELECT base64Encode(name), base64Encode(type), default_kind, base64Encode(default_expression) FROM system.columns"  # noqa: S608
        f" WHERE database = {literal(database)} AND table = {literal(table)} ORDER BY position"
    )
    rows = (line.split("\t") for line in found.splitlines())
    return {
        b64decode(name).decode(): LiveColumn(b64decode(type_).decode(), kind, b64decode(expression).decode())
        for name, type_, kind, expression in rows
    }


def is_json(columns: Columns) -> bool:
    """Return whether the exporter's table has attributes of type JSON."""
    return any(is_json_type(column.type) for column in columns.values())


def is_json_type(type_: str) -> bool:
    """Return whether the type is JSON, or has JSON in it."""
    return _JSON.search(type_) is not None
