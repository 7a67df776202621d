"""What an interrupted insert left out is completed from what is stored, whatever deduplication tokens are known."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from infrasage.v1.dead_letter_pb2 import DEAD_LETTER_ACTION_DISCARDED
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from support import letters
from support.processes.clickhouse_server import OPTIONS
from support.reopened_store import store_with_tables
from support.store_ranges import ITEMS_PER_KIND, MESSAGES, TABLES, messages, payload, topic_of, wrong_counts

from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, TRACES_TOPIC, Partition, Range
from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import StoreRefusedData
from collector.store.insert import LANDING
from collector.store.options import RequestedTables
from collector.store.payload_index import contents
from collector.store.retention import Retention
from collector.writer.piece import Piece

_ROUNDS = itertools.count(1)
# A record whose first field claims to be longer than the record.
BAD_RECORD = b"\x0a\x06\x0a\xc8\x01bad"
# One that ClickHouse reads, without the batch id that every record of ours has.
NAMELESS_RECORD = b"\x0a\x00"


@contextmanager
def opened(directory: Path) -> Iterator[ClickHouseStore]:
    store = store_with_tables(
        directory / "store", OPTIONS._replace(tables=RequestedTables(Retention(dead_letters=None), fsync=False))
    )
    try:
        store._command("SYSTEM STOP MERGES")
        yield store
    finally:
        store.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    """One for all tests, since opening one takes a second: each test has ranges of its own."""
    with opened(tmp_path_factory.mktemp("store")) as one:
        yield one


@pytest.fixture(params=range(3), ids=lambda kind: topic_of(kind).rpartition(".")[2])
def number(request: pytest.FixtureRequest) -> int:
    """A range of telemetry that no other test has."""
    kind: int = request.param
    return 100 * next(_ROUNDS) * 4 + kind


def count(store: ClickHouseStore, what: str, table: str, number: int) -> int:
    batch_id = next(iter(contents(messages(number)[0]).items))[0]
    return int(store.read(f"SELECT {what} FROM {table} WHERE BatchId = '{batch_id}'", "TabSeparated"))


def tables(store: ClickHouseStore) -> dict[str, Path]:
    """Where each has its parts."""
    sql = "SELECT name, data_paths[1] FROM system.tables WHERE database = currentDatabase()"
    lines = store.read(sql, "TabSeparated").decode().splitlines()
    return {name: Path(path) for name, _, path in (line.partition("\t") for line in lines)}


def parts(table: Path) -> set[Path]:
    return {path for path in table.iterdir() if path.name[0].isdigit()}


def test_what_is_missing_is_completed(tmp_path: Path) -> None:
    """A token is known and its part is gone, of any table of any topic: a repeated insert stores nothing, completion does.

    The state is that of a process which died between the entry in the deduplication log and the commit of the part.
    """
    # A range for each table, of which it loses a part.
    cases = [(kind + 4 * which, table) for kind in range(4) for which, table in enumerate(TABLES[topic_of(kind)])]
    lost: dict[int, Path] = {}
    with opened(tmp_path) as store:
        paths = tables(store)
        for number, table in cases:
            before = parts(paths[table])
            store.insert(topic_of(number), [payload(number)], f"token {number}")
            lost[number] = max(parts(paths[table]) - before)
    for part in lost.values():
        shutil.rmtree(part)
    with opened(tmp_path) as store:
        for number, table in cases:
            topic = topic_of(number)
            assert store.can_complete(topic, payload(number))
            store.insert(topic, [payload(number)], f"token {number}")
            assert not store.holds(topic, payload(number)), table
            done = store.complete(topic, payload(number), f"token {number}")
            assert store.holds(topic, payload(number)), table
            assert {} == done.in_part
            if topic != DEAD_LETTERS_TOPIC:
                assert {table} == set(done.rows)
        assert [] == wrong_counts(store, [number for number, _ in cases])


def test_completing_twice_adds_nothing(store: ClickHouseStore, number: int) -> None:
    """Nothing at all is stored, and everything is then: once, however often it is completed."""
    topic = topic_of(number)
    first = store.complete(topic, payload(number), "token")
    assert set(TABLES[topic]) == set(first.rows)
    assert ({}, {}) == store.complete(topic, payload(number), "token")
    assert [] == wrong_counts(store, [number], of_these_alone=True)


def test_neighbours_are_left_alone(store: ClickHouseStore, number: int) -> None:
    """Another range of the same days, and messages of this one that are stored under another token, gain and lose nothing."""
    topic = topic_of(number)
    store.insert(topic, [payload(number + 4)], f"neighbour {number}")
    store.insert(topic, [messages(number)[1]], f"one {number}")
    done = store.complete(topic, payload(number), "token")
    assert [] == wrong_counts(store, [number, number + 4], of_these_alone=True)
    assert MESSAGES - 1 == done.rows["telemetry_batches"]


@pytest.mark.parametrize("stored", [1, 2])
def test_pieces_of_one_message_have_different_tokens(store: ClickHouseStore, number: int, stored: int) -> None:
    """All pieces of a message have the same batch id and part: those before are stored, and this one is missing."""
    topic = topic_of(number)
    whole = Piece.whole(Range(Partition(topic, 0), 0, 1, [messages(number)[0]]))
    halves = [half for record in whole.records() for half in record.halves() or [record]]
    pieces = [half.payload for half in halves]
    assert len(pieces) >= 3
    for index, piece in enumerate(pieces[:stored]):
        store.insert(topic, [piece], f"piece {index} of {number}")
    for _ in range(2):
        store.complete(topic, pieces[stored], "token", pieces[:stored])
    items = sum(sum(contents(piece).items.values()) for piece in pieces[: stored + 1])
    mains = [table for table in TABLES[topic] if table.startswith("otel") and not table.endswith("_ts")]
    assert items == sum(count(store, "count()", table, number) for table in mains)
    if topic == TRACES_TOPIC:
        assert items == count(store, "sum(SpanCount)", "otel_traces_trace_id_ts", number)


def test_a_group_that_is_stored_in_part_is_reported(store: ClickHouseStore) -> None:
    """Nobody knows which of its rows are missing: it is left as it is, and the rows that it lacks are counted."""
    number = 100 * next(_ROUNDS) * 4 + 1
    assert LOGS_TOPIC == topic_of(number)
    half = Piece.whole(Range(Partition(LOGS_TOPIC, 0), 0, 1, [messages(number)[0]])).halves()[0].halves()[0].payload
    store.insert(LOGS_TOPIC, [half], f"half of {number}")
    done = store.complete(LOGS_TOPIC, payload(number), "token")
    assert 0 < done.in_part["otel_logs"] < ITEMS_PER_KIND
    assert MESSAGES * ITEMS_PER_KIND == count(store, "count()", "otel_logs", number) + done.in_part["otel_logs"]


def test_a_completion_writes_no_definition_of_a_table(store: ClickHouseStore, number: int) -> None:
    """On a full disk the engine once wrote an empty one, and did not start again. A completion can be repeated."""
    root = tables(store)["otel_logs"].parents[2]
    before = sorted(root.rglob("*.sql"))
    assert before
    store._sessions().writer.command(f"CREATE TEMPORARY TABLE infrasage_completing AS {LANDING[DEAD_LETTERS_TOPIC].table}")
    with store._completion()._table(topic_of(number)):
        assert before == sorted(root.rglob("*.sql"))
    store.complete(topic_of(number), payload(number), "token")
    assert [] == wrong_counts(store, [number], of_these_alone=True)


def test_bytes_that_are_not_ours_are_not_completed(store: ClickHouseStore, number: int) -> None:
    """They cannot be looked up: only the token tells whether they are stored."""
    topic = topic_of(number)
    assert store.can_complete(topic, payload(number))
    for odd in (BAD_RECORD, NAMELESS_RECORD):
        assert not store.can_complete(topic, payload(number) + odd)
    assert not store.can_complete(DEAD_LETTERS_TOPIC, letters.dead_letters(letters.letter(1, id=b"short")))


@pytest.mark.parametrize("field", ["batch_id", "fingerprint", "process_id"])
def test_what_a_view_would_refuse_is_refused_before_any_row_is_stored(store: ClickHouseStore, number: int, field: str) -> None:
    """An identifier that is too long: its neighbours would be stored twice, or their range never completed."""
    topic = topic_of(number)
    spoiled = TelemetryBatch.FromString(messages(number)[1])
    last = spoiled.records[-1]
    setattr(last.receipt if field == "process_id" else last, field, bytes(17))
    spoiled_payload = messages(number)[0] + spoiled.SerializeToString()
    for _ in range(2):
        with pytest.raises(StoreRefusedData):
            store.insert(topic, [spoiled_payload], f"spoiled {number}")
    if field != "batch_id":
        assert store.can_complete(topic, spoiled_payload)
        with pytest.raises(StoreRefusedData):
            store.complete(topic, spoiled_payload, f"spoiled {number}")
    assert [0] * len(TABLES[topic]) == [count(store, "count()", table, number) for table in TABLES[topic]]


@pytest.mark.parametrize("field", ["id", "dead_letter_id", "batch_id"])
def test_an_event_that_a_view_would_refuse_is_refused_before_any_row_is_stored(store: ClickHouseStore, field: str) -> None:
    """The entry beside it is inserted again with the next piece, and not now."""
    entry = letters.letter(next(_ROUNDS), 10**6)
    event = letters.event(entry, DEAD_LETTER_ACTION_DISCARDED)
    setattr(event, field, bytes(17))
    with pytest.raises(StoreRefusedData):
        store.insert(DEAD_LETTERS_TOPIC, [letters.dead_letters(entry, event)], f"spoiled event {field}")
    found = store.read(f"SELECT count() FROM telemetry_dead_letters WHERE Id = '{UUID(bytes=entry.id)}'", "TabSeparated")
    assert b"0\n" == found
