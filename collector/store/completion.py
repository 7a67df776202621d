"""Inserts the rows of a payload that the store lacks. It compares rows, and does not rely on deduplication tokens.

ClickHouse writes a block's token into the table's deduplication log before it commits the part. If the process dies between the
two, a token remains whose rows are missing. Each repetition of the insert is then dropped, and succeeds. A torn deduplication
log has the opposite effect: rows whose token is forgotten are stored again by a repetition.

So the rows of an interrupted insert are compared with the stored rows, in groups. A group is the rows of one message in one
partition of one table. An insert writes a group in one part, so a group is stored as a whole or not at all.

The payload is parsed into a temporary table with the columns of the landing table, and each view's own query is run over it. So
the expected rows are the rows that an insert would have written. A temporary table writes nothing to the disk. With another
kind of table, a full disk has left an empty definition, and the embedded engine did not start any more.

Invariants:
1. Rows are inserted only for groups without a stored row. The statement that inserts them checks this
   (test_completion.py, test_what_is_missing_is_completed, test_completing_twice_adds_nothing).
2. A group that is stored in part is not changed, and is reported (test_completion.py,
   test_a_group_that_is_stored_in_part_is_reported).
3. Rows of earlier pieces of the same message are distinguished from rows of this piece (test_completion.py,
   test_pieces_of_one_message_have_different_tokens).
4. Only the files of the inserted rows are written (test_completion.py,
   test_a_completion_writes_no_definition_of_a_table).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.store.contract import RECEIPTS, TABLES, TRACE_TIMES, Completed, StoreUnavailable
from collector.store.insert import LANDING, Settings
from collector.store.migrations import literal
from collector.store.payload_index import record_count

# The tables that have the rows of a topic.
TARGETS: Final = {
    METRICS_TOPIC: (*TABLES[METRICS_TOPIC], RECEIPTS),
    LOGS_TOPIC: (*TABLES[LOGS_TOPIC], RECEIPTS),
    TRACES_TOPIC: (*TABLES[TRACES_TOPIC], TRACE_TIMES, RECEIPTS),
}
# Engines that write the token before the part, and have all rows on one server. Other engines commit both at once, in Keeper.
_ENGINES: Final = frozenset({"MergeTree", "ReplacingMergeTree"})
_TABLE: Final = "infrasage_completing"
_TARGET: Final = re.compile(r"\sTO (?:`[^`]+`|\w+)\.`?(\w+)`?")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_CONTROL: Final = {"t": "\t", "n": "\n", "r": "\r", "0": "\0", "b": "\b", "f": "\f"}

# A message's key and a partition, as the store writes them.
_Group = tuple[str, str, str]


class _View(NamedTuple):
    """A view that writes rows of a payload into one table."""

    target: str
    select: str  # the view's query, reading the payload's own table
    partition: str  # an expression over the target's columns, as text
    counted: str  # an expression whose values add up over the pieces of a message


class Completion:
    """Completes interrupted inserts of one store. Only one thread at a time may use it."""

    def __init__(
        self,
        command: Callable[[str], object],
        text: Callable[[str], str],
        parse: Callable[[str, str, bytes], object],
        settings: Settings,
    ) -> None:
        """`command` runs a statement. `text` runs a query, and returns its answer, tab-separated. `parse` inserts a payload of
        a topic into a table. All use one session. `settings` are those of an insert."""
        self._command: Final = command
        self._text: Final = text
        self._parse: Final = parse
        self._settings: Final = settings

    def is_possible(self) -> bool:
        """Return whether all tables have an engine that needs completion, and for which it is correct."""
        names = ", ".join(literal(name) for name in sorted({name for names in TARGETS.values() for name in names}))
        engines = self._text(
            f"SELECT DISTINCT engine FROM system.tables WHERE database = currentDatabase() AND name IN ({names})"  # noqa: S608 - ours
        )
        return set(engines.split()) <= _ENGINES

    def complete(self, topic: str, payload: bytes, earlier: Sequence[bytes]) -> Completed:
        """Insert the missing rows of the payload. Return when every row is stored that can be stored.

        `earlier` are the earlier pieces of the same message. They are stored as a whole, each as it was inserted."""
        with self._table(topic) as table:
            views = self._views(topic, table)
            before: dict[str, Counter[_Group]] = {view.target: Counter() for view in views}
            for piece in earlier:
                self._fill(topic, table, piece)
                for view in views:
                    before[view.target].update(self._expected(view))
            self._fill(topic, table, payload)
            rows: Counter[str] = Counter()
            in_part: Counter[str] = Counter()
            for view in views:
                expected = self._expected(view)
                stored = self._stored(view, table) if expected else {}
                already = before[view.target]
                missing = [group for group in expected if stored.get(group, 0) <= already[group]]
                if missing:
                    self._insert(view, table, already)
                    rows[view.target] += sum(expected[group] for group in missing)
                for group in expected.keys() - missing:
                    lacks = already[group] + expected[group] - stored[group]
                    if lacks > 0:
                        in_part[view.target] += lacks
            self._check_filled(table, payload)
        return Completed(rows, in_part)

    @contextmanager
    def _table(self, topic: str) -> Iterator[str]:
        """Make a temporary table for payloads inside this context. If a failure leaves it, the end of the session removes it;
        in the embedded engine, the next completion removes it."""
        self._command(f"DROP TEMPORARY TABLE IF EXISTS {_TABLE}")
        self._command(f"CREATE TEMPORARY TABLE {_TABLE} AS {LANDING[topic].table} ENGINE = Memory")
        try:
            yield _TABLE
        finally:
            self._command(f"DROP TEMPORARY TABLE IF EXISTS {_TABLE}")

    def _fill(self, topic: str, table: str, payload: bytes) -> None:
        self._command(f"TRUNCATE TABLE `{table}`")
        self._parse(topic, table, payload)
        self._check_filled(table, payload)

    def _check_filled(self, table: str, payload: bytes) -> None:
        """Check that the table has all records of the payload. A record that is not in it would not count as missing. Raises
        StoreUnavailable."""
        found = int(self._text(f"SELECT count() FROM `{table}`"))  # noqa: S608 - our own name
        records = record_count(payload)
        if found != records:
            raise StoreUnavailable(f"cannot complete an insert: {found} of its {records} records are in the table {table}")

    def _views(self, topic: str, table: str) -> list[_View]:
        landing = LANDING[topic].table
        source = re.compile(rf"(?<![\w`.])(?:(?:`[^`]+`|\w+)\.)?`?{landing}`?(?![\w`.])")
        answer = self._text(
            "SELECT name, create_table_query, as_select FROM system.tables "
            "WHERE database = currentDatabase() AND engine = 'MaterializedView' ORDER BY name"
        )
        keys = self._partition_keys()
        views = []
        for line in answer.splitlines():
            name, create, select = (_unescaped(field) for field in line.split("\t"))
            target = _TARGET.search(create)
            if target is None or target[1] not in TARGETS[topic] or not source.search(select):
                continue
            if target[1] not in keys:
                raise StoreUnavailable(f"the view {name} writes into {target[1]}, which is not there")
            counted = "sum(SpanCount)" if target[1] == TRACE_TIMES else "count()"
            views.append(_View(target[1], source.sub(f"`{table}`", select), f"toString(tuple({keys[target[1]]}))", counted))
        lacking = set(TARGETS[topic]) - {view.target for view in views}
        if lacking:
            raise StoreUnavailable(f"no view writes from {landing} into {', '.join(sorted(lacking))}")
        return views

    def _partition_keys(self) -> Mapping[str, str]:
        answer = self._text("SELECT name, partition_key FROM system.tables WHERE database = currentDatabase()")
        rows = (line.split("\t") for line in answer.splitlines())
        return {name: _unescaped(key) for name, key in rows}

    def _expected(self, view: _View) -> dict[_Group, int]:
        return self._groups(
            f"SELECT BatchId, BatchPart, {view.partition}, {view.counted} FROM ({view.select}) GROUP BY 1, 2, 3"  # noqa: S608 - the view's own
        )

    def _stored(self, view: _View, table: str) -> dict[_Group, int]:
        return self._groups(
            f"SELECT BatchId, BatchPart, {view.partition}, {view.counted} FROM {view.target} "  # noqa: S608 - our own names
            f"WHERE BatchId IN (SELECT BatchId FROM `{table}`) GROUP BY 1, 2, 3"
        )

    def _groups(self, sql: str) -> dict[_Group, int]:
        rows = (line.split("\t") for line in self._text(sql).splitlines())
        return {(batch_id, part, _unescaped(partition)): int(number) for batch_id, part, partition, number in rows}

    def _insert(self, view: _View, table: str, already: Mapping[_Group, int]) -> None:
        """Insert the groups with no more stored rows than `already`, which the statement itself looks up."""
        columns = ", ".join(f"`{line.split(chr(9))[0]}`" for line in self._text(f"DESCRIBE TABLE ({view.select})").splitlines())
        earlier = _earlier_expression(already, view.partition)
        settings = ", ".join(
            f"{name} = {literal(value) if isinstance(value, str) else value}"
            for name, value in {**self._settings, "insert_deduplicate": 0}.items()
            if name != "deduplicate_insert"
        )
        key = f"BatchId, BatchPart, {view.partition}"
        self._command(
            f"INSERT INTO {view.target} ({columns}) SETTINGS {settings} "  # noqa: S608 - our own names, and the view's
            f"SELECT {columns} FROM ({view.select}) WHERE ({key}) NOT IN ("
            f"SELECT {key} FROM {view.target} WHERE BatchId IN (SELECT BatchId FROM `{table}`) "
            f"GROUP BY {key} HAVING {view.counted} > {earlier})"
        )


def _earlier_expression(already: Mapping[_Group, int], partition: str) -> str:
    """Return an expression for the number of a group's rows that earlier pieces stored."""
    if not already:
        return "0"
    groups = ", ".join(literal("/".join(group)) for group in already)
    counts = ", ".join(map(str, already.values()))
    return f"transform(concat(toString(BatchId), '/', toString(BatchPart), '/', {partition}), [{groups}], [{counts}], 0)"


def _unescaped(field: str) -> str:
    """Return the text of a TabSeparated field."""
    return _ESCAPED.sub(lambda found: _CONTROL.get(found[1], found[1]), field)
