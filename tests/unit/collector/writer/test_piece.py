"""How a range is cut in halves: down to the item, and by the bytes of its rows."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.telemetry_pb2 import SOURCE_OTLP, TYPE_LOG, TYPE_METRIC, TYPE_TRACE, TelemetryBatch, TelemetryRecord
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from support.batches import NOW, gauge, logs, metrics, record, traces
from support.records import encoded, flat
from support.references.otlp import single_items
from support.strategies.batches import batches

from adapters.codec.wire import divides
from adapters.record_headers import header_first
from adapters.record_upgrade import current
from adapters.rows import row_bytes
from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, Partition, Payload, Range
from collector.store.payload_index import contents
from collector.writer.piece import Piece, bounded

MADE = {METRICS_TOPIC: metrics, LOGS_TOPIC: logs, TRACES_TOPIC: traces}
SIGNALS = {METRICS_TOPIC: ("metrics", TYPE_METRIC), LOGS_TOPIC: ("log_records", TYPE_LOG), TRACES_TOPIC: ("spans", TYPE_TRACE)}


def range_of(*payloads: Payload, topic: str = METRICS_TOPIC, start: int = 7, log: str = "log") -> Range:
    return Range(Partition(topic, 3), start, start + len(payloads), payloads, log=log)


def leaves(piece: Piece) -> list[Piece]:
    halves = piece.halves()
    return [leaf for half in halves for leaf in leaves(half)] if halves else [piece]


def all_of(piece: Piece) -> list[Piece]:
    return [piece, *(each for half in piece.halves() for each in all_of(half))]


def items(pieces: Sequence[Piece]) -> list[bytes]:
    return [item for piece in pieces for item in items_of(flat(piece.payload))]


def items_of(batch: TelemetryBatchV1) -> list[bytes]:
    for one in batch.records:
        kept = [metric for metric in one.metrics if metric.WhichOneof("data")]
        del one.metrics[:]
        one.metrics.extend(kept)
    return single_items(batch)


@pytest.mark.parametrize("topic", MADE)
def test_halves_have_the_items_of_the_whole(topic: str) -> None:
    """Each once and in their order, at every level; the counts of a message's items add up."""
    payloads = [encoded(MADE[topic](number, "acme")) for number in range(3)]
    whole = Piece.whole(range_of(*payloads, topic=topic))
    for piece in all_of(whole):
        halves = piece.halves()
        if halves:
            assert items([piece]) == items(halves)
            counted: Counter[object] = Counter()
            for half in halves:
                counted.update(contents(half.payload).items)
            assert contents(piece.payload).items == counted


@pytest.mark.parametrize("topic", MADE)
def test_halving_ends_at_the_item(topic: str) -> None:
    """This holds for each kind of metric, for logs and spans: a piece without halves has one item, or no points."""
    whole = Piece.whole(range_of(encoded(MADE[topic](1, "acme")), topic=topic))
    found = leaves(whole)
    assert {0, 1} >= {len(items([leaf])) for leaf in found}
    assert len(items([whole])) == sum(len(items([leaf])) for leaf in found)
    for leaf in found:
        (one,) = flat(leaf.payload).records
        assert one.item_count == len(items([leaf]))


@given(st.data(), st.sampled_from(list(SIGNALS)))
def test_any_batch_is_cut(data: st.DataObject, topic: str) -> None:
    """Its items and the fields of its records are all there, whatever an adapter may write."""
    signal, type_ = SIGNALS[topic]
    batch = data.draw(batches(signal, "acme", 1))
    batch.records[0].type, batch.records[0].source = type_, SOURCE_OTLP
    payload = encoded(batch)
    found = leaves(Piece.whole(range_of(payload, topic=topic)))
    assert sorted(items_of(flat(payload))) == sorted(items(found))
    for leaf in found:
        for one in flat(leaf.payload).records:
            of = batch.records[leaf.record_index]
            assert (of.tenant_id, of.batch_id, of.batch_part, of.resource, of.scope) == (
                one.tenant_id,
                one.batch_id,
                one.batch_part,
                one.resource,
                one.scope,
            )


def test_tokens_tell_pieces_apart() -> None:
    """They differ by the way to the piece, and by the log. Without a known log they are those of former versions."""
    payloads = [encoded(metrics(number, "acme")) for number in range(3)]
    tokens = [piece.token for piece in all_of(Piece.whole(range_of(*payloads)))]
    assert len(tokens) == len(set(tokens))
    assert f"log/{METRICS_TOPIC}/3/7-10" == tokens[0]
    assert tokens == [piece.token for piece in all_of(Piece.whole(range_of(*payloads)))]
    other = [piece.token for piece in all_of(Piece.whole(range_of(*payloads, log="other")))]
    assert not set(tokens) & set(other)
    assert f"{METRICS_TOPIC}/3/7-10" == Piece.whole(range_of(*payloads, log="")).token


def test_items_have_places_of_their_own() -> None:
    """Offset, record and item: two leaves are never at the same place."""
    payloads = [encoded(metrics(number, "acme")) for number in range(3)]
    found = leaves(Piece.whole(range_of(*payloads)))
    points = [leaf for leaf in found if items([leaf])]
    places = [(leaf.offset, *leaf.path) for leaf in points]
    assert len(places) == len(set(places))
    assert places == sorted(places)
    alone = [leaf for leaf in points if leaf.record_index == 1]  # the record with one point
    assert [(7, 1), (8, 1), (9, 1)] == [(leaf.offset, *leaf.path) for leaf in alone]


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"\x0a\xff", b"\x0a\x00", b"\x12\x01x", b"\x0a\x02\x12\x05", b"\x0a\x04\x12\x02\x12\x05"]
)
def test_what_is_no_record_is_left_whole(payload: bytes) -> None:
    assert () == Piece.whole(range_of(payload)).halves()


@given(st.data(), st.sampled_from(list(SIGNALS)))
def test_a_piece_is_framed_if_its_messages_are_whole(data: st.DataObject, topic: str) -> None:
    """A message that ends in the middle of a field would spoil the one behind it."""
    whole = b"".join(encoded(data.draw(batches(SIGNALS[topic][0], "acme", 2))) for _ in range(data.draw(st.integers(0, 2))))
    other = data.draw(
        st.sampled_from([b"", b"\x0a", b"\x0a\x80", b"\x0a\x80\x80\x80\x80\x80\0", b"\x12\1x", b"\x18\1", b"\x0b", b"\0"])
    )
    message = whole[: data.draw(st.integers(0, len(whole)))] + other
    for part in (message, memoryview(message)):
        piece = Piece.whole(range_of(encoded(metrics(1, "acme")), part))
        assert piece.is_framed() is divides(message)


def test_a_receipt_is_left_whole() -> None:
    """It is a record without items."""
    batch = gauge(1, 4)
    batch.records.add(batch_id=batch.records[0].batch_id, source=SOURCE_OTLP).receipt.received = 4
    found = leaves(Piece.whole(range_of(encoded(batch))))
    assert [1, 1, 1, 1, 0] == [len(items([leaf])) for leaf in found]
    assert contents(found[-1].payload).receipts


def test_the_record_of_a_replay_is_not_divided() -> None:
    """Its receipt says that it is stored, all of it."""
    piece = Piece.replays(range_of(b""), METRICS_TOPIC, [encoded(gauge(1, 4)), encoded(gauge(2, 4))])
    assert [4, 4] == [len(items([half])) for half in piece.halves()]
    assert [(), ()] == [half.halves() for half in piece.halves()]


def rows(payload: Payload) -> int:
    return row_bytes(bytes(payload))


def test_a_record_can_be_had_without_its_items() -> None:
    """The piece must be one whole record. The result has the same header, and no items."""
    batch = gauge(1, 4)
    (one,) = batch.records
    whole = Piece.whole(range_of(encoded(batch)))
    without_items = whole.without_items()
    assert without_items is not None
    (left,) = flat(without_items.payload).records
    assert (one.resource, one.scope, one.batch_id, 0, 0) == (
        left.resource,
        left.scope,
        left.batch_id,
        left.item_count,
        len(left.metrics),
    )
    assert whole.token != without_items.token
    letters = Piece.whole(range_of(encoded(batch), topic=DEAD_LETTERS_TOPIC))
    none = [*whole.halves(), Piece.whole(range_of(encoded(batch) * 2)), Piece.whole(range_of(b"\xff")), without_items, letters]
    assert [None] * 6 == [piece.without_items() for piece in none]


def scopes(counts: Sequence[int], topic: str = LOGS_TOPIC) -> bytes:
    """A message of one record that has a group of so many items for each scope."""
    number = 0
    one = TelemetryRecord(version=2, tenant_id="acme", type=SIGNALS[topic][1], source=SOURCE_OTLP, batch_id=b"b" * 16)
    one.resource.attributes.add(key="host.name").value.string_value = "a"
    for index, count in enumerate(counts):
        group = one.groups.add(schema_url=f"url {index}")
        group.scope.name = f"scope {index}"
        for _ in range(count):
            group.items.append(LogRecord(time_unix_nano=(number := number + 1)).SerializeToString())
    one.item_count, one.batch_part = number, 5
    return header_first(TelemetryBatch(records=[one]).SerializeToString())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9))
def test_a_record_is_cut_between_groups_first(counts: list[int]) -> None:
    """Then within them. Each item stays in its scope, and has its place among all of the record."""
    piece = Piece.whole(range_of(scopes(counts), topic=LOGS_TOPIC))
    expected = [(f"scope {n}", f"url {n}") for n, count in enumerate(counts) for _ in range(count)]
    found = [leaf for leaf in leaves(piece) if items([leaf])]
    if sum(counts) > 1:
        assert list(range(sum(counts))) == [leaf.item_index for leaf in found]
    records = [one for leaf in found for one in flat(leaf.payload).records if one.log_records]
    assert expected == [(one.scope.name, one.scope_schema_url) for one in records]
    assert list(range(1, sum(counts) + 1)) == [one.log_records[0].time_unix_nano for one in records]
    for each in all_of(piece):
        (one,) = TelemetryBatch.FromString(each.payload).records
        assert (sum(len(group.items) for group in one.groups), 5) == (one.item_count, one.batch_part)
        assert header_first(each.payload) == each.payload
        if len({name for name, _ in expected}) > 1 and each.level == 1:
            assert not each.is_part_of_group


def test_a_group_can_be_had_without_its_items() -> None:
    """If a record has several, first comes what they share, the resource. Then, for one, its scope."""
    whole = Piece.whole(range_of(scopes([2, 1, 3]), topic=LOGS_TOPIC))

    def names(piece: Piece) -> list[str] | None:
        without_items = piece.without_items()
        if without_items is None:
            return None
        (one,) = TelemetryBatch.FromString(without_items.payload).records
        assert ("a", 0, []) == (
            one.resource.attributes[0].value.string_value,
            one.item_count,
            [item for group in one.groups for item in group.items],
        )
        return [group.scope.name for group in one.groups]

    assert [] == names(whole)
    first, others = whole.halves()
    assert ["scope 0"] == names(first)
    assert names(others) is None, "the resource was looked at before"
    assert [["scope 1"], ["scope 2"]] == [names(half) for half in others.halves()]
    assert [None, None] == [names(half) for half in first.halves()]
    single = Piece.whole(range_of(scopes([2]), topic=LOGS_TOPIC))
    assert ["scope 0"] == names(single)


def test_a_message_of_version_1_has_the_same_tree() -> None:
    """An earlier version may have stored a part of it: the places of items, and so tokens and ids of dead letters, are those
    that its own halves had: records, then the middle of a record's items."""
    batch = TelemetryBatchV1()
    one = record(batch, TYPE_LOG, 1)
    for n in range(5):
        one.log_records.add(time_unix_nano=n + 1)
    one.item_count = 5
    found = leaves(Piece.whole(range_of(current(batch.SerializeToString()), topic=LOGS_TOPIC, log="")))
    places = [(leaf.token.removeprefix(f"{LOGS_TOPIC}/3/7-8"), leaf.path) for leaf in found]
    assert [("/0/0", (0, 0)), ("/0/1", (0, 1)), ("/1/0", (0, 2)), ("/1/1/0", (0, 3)), ("/1/1/1", (0, 4))] == places


def large(records: int, size: int) -> bytes:
    """One message of so many logs under one resource attribute of that size."""
    batch = TelemetryBatchV1()
    one = record(batch, TYPE_LOG, 1)
    one.resource.attributes.add(key="big").value.string_value = "x" * size
    for n in range(records):
        one.log_records.add(time_unix_nano=NOW + n)
    one.item_count = records
    return encoded(batch)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2000)), min_size=1, max_size=9), st.integers(500, 20_000))
def test_a_range_is_bounded_by_the_bytes_of_its_rows(made: list[tuple[int, int]], row_bytes_max: int) -> None:
    """Its first messages, as many as fit; of a single message that does not, pieces that do, or single items."""
    whole = range_of(*(large(*each) for each in made), topic=LOGS_TOPIC)
    kept = bounded(whole, row_bytes_max)
    count = len(kept.payloads)
    assert whole._replace(end=whole.start + count, payloads=whole.payloads[:count], depth=kept.depth) == kept
    total = sum(map(rows, kept.payloads))
    if count < len(made):
        assert total + rows(whole.payloads[count]) > row_bytes_max
    if kept.depth:
        assert 1 == count
        assert total > row_bytes_max

    def pieces(piece: Piece) -> list[Piece]:
        halves = piece.halves() if piece.level < kept.depth else ()
        return [each for half in halves for each in pieces(half)] if halves else [piece]

    for piece in pieces(Piece.whole(kept)):
        assert piece.row_bytes() <= row_bytes_max or 1 == len(items([piece]))


def test_where_offsets_are_missing_a_range_is_not_shortened() -> None:
    """It is not known which message has which: it is inserted in pieces."""
    whole = range_of(*(large(4, 1000) for _ in range(4)), topic=LOGS_TOPIC)
    gaps = whole._replace(end=whole.end + 2)
    kept = bounded(gaps, 12_000)
    assert (gaps.payloads, gaps.end, 1) == (kept.payloads, kept.end, kept.depth - 1)


def test_dead_letters_are_not_bounded() -> None:
    """Their rows repeat nothing."""
    whole = range_of(large(9, 1000), topic=DEAD_LETTERS_TOPIC)
    assert whole is bounded(whole, 1)
