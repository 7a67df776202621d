"""What one insert takes of a range, and how it is cut in halves: between messages, then between the records of a message, then
between the items of a record.

A range is a binary tree of pieces. A piece's place in the tree, and so its token, depends on the range's messages alone.

Invariants:
1. The halves of a piece have its items, each once, in their order, under the same header, resource and scope; each half says
   how many it has (test_piece.py, test_halves_have_the_items_of_the_whole).
2. A piece that has no halves is a single item, or nothing of ours (test_piece.py, test_halving_ends_at_the_item).
3. A token is the same however often a range is read, and differs for each piece of it
   (test_piece.py, test_tokens_tell_pieces_apart).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self

from adapters.codec.wire import Cursor, NonCanonical, divides, length_of
from adapters.rows import row_bytes
from collector.broker.contract import DEAD_LETTERS_TOPIC, Partition, Payload, Range

_RECORD: Final = 0x0A  # TelemetryBatch.records
# Of a TelemetryRecord.
_METRIC: Final = 0x5A
_ITEMS: Final = frozenset({_METRIC, 0x62, 0x6A})  # metrics, log_records, spans
_ITEM_COUNT: Final = 0x78
# Of a Metric: gauge, sum, histogram, exponential_histogram, summary.
_DATA: Final = frozenset({0x2A, 0x3A, 0x4A, 0x52, 0x5A})
_POINT: Final = 0x0A  # `data_points` of each of them


@dataclass(frozen=True)
class Piece:
    """Some consecutive messages of a range, or some records of one message, or some items of one record."""

    partition: Partition
    log: str  # the identity of the log that it was read from
    topic: str  # which of the store's it is for
    token: str  # that of the range, and the way to this piece: so it is the same however often the range is repeated
    offset: int  # of the first message
    parts: Sequence[Payload]
    messages: int  # how many whole ones
    record_index: int = 0  # of the first record in its message, where there are no whole ones
    item_index: int | None = None  # of the first item in its record, where the record was divided
    level: int = 0  # how often the range was halved to get here
    divides: bool = True  # a message may be stored in part

    @classmethod
    def whole(cls, range_: Range) -> Self:
        token = _token(range_, f"{range_.partition.topic}/{range_.partition.index}/{range_.start}-{range_.end}")
        return cls(
            range_.partition, range_.log, range_.partition.topic, token, range_.start, range_.payloads, len(range_.payloads)
        )

    @classmethod
    def replays(cls, range_: Range, topic: str, payloads: Sequence[bytes]) -> Self:
        """For `topic`, of a range of dead letters. Offsets count the payloads."""
        token = _token(range_, f"replays/{topic}/{range_.partition.index}/{range_.start}-{range_.end}")
        return cls(range_.partition, range_.log, topic, token, 0, payloads, len(payloads), divides=False)

    @property
    def payload(self) -> bytes:
        return b"".join(self.parts)

    @property
    def path(self) -> tuple[int, ...]:
        """Return the position of its first record, or item, in its message."""
        return (self.record_index,) if self.item_index is None else (self.record_index, self.item_index)

    def halves(self) -> Sequence["Piece"]:
        """Two; none where it is one item, or can't be cut. Their tokens end in the way to them: /0 and /1."""
        if len(self.parts) > 1:
            middle = len(self.parts) // 2
            whole_messages = middle if self.messages else 0
            return (
                self._half(0, self.parts[:middle], messages=whole_messages),
                self._half(
                    1,
                    self.parts[middle:],
                    offset=self.offset + whole_messages,
                    messages=self.messages - whole_messages,
                    record_index=self.record_index + (0 if self.messages else middle),
                ),
            )
        if not self.parts or not self.divides:
            return ()
        if self.messages:
            return replace(self, parts=_records(bytes(self.parts[0])), messages=0).halves()
        cut = _cut(bytes(self.parts[0]))
        if cut is None:
            return ()
        first = self.item_index or 0
        return (
            self._half(0, (cut.first,), item_index=first),
            self._half(1, (cut.second,), item_index=first + cut.first_items),
        )

    def bare(self) -> "Piece | None":
        """Its record without the items, where it is one whole record: nothing is stored of it. None: it is something else."""
        parts = _records(bytes(self.parts[0])) if self.messages == 1 and self.divides else self.parts
        if len(parts) != 1 or self.item_index is not None:
            return None
        try:
            ((tag, _, record),) = _fields(bytes(parts[0]))
            fields = list(_fields(record))
        except (NonCanonical, ValueError):
            return None
        if tag != _RECORD or not any(field.tag in _ITEMS for field in fields):
            return None
        return replace(self, token=f"{self.token}/bare", parts=(_record(fields, (), 0),), messages=0)

    def records(self) -> Iterator["Piece"]:
        """Its records, each alone; or what can't be divided into records."""
        if len(self.parts) > 1:
            for half in self.halves():
                yield from half.records()
        elif self.messages and self.divides:
            yield from replace(self, parts=_records(bytes(self.parts[0])), messages=0).records()
        else:
            yield self

    def is_framed(self) -> bool:
        """Return whether each part of several is whole. The store reads them as one: a part that ends too early, of another
        producer, would take what follows it along."""
        return len(self.parts) < 2 or all(divides(bytes(part)) for part in self.parts)

    def _half(self, which: int, parts: Sequence[Payload], **place: Any) -> "Piece":
        return replace(self, token=f"{self.token}/{which}", parts=parts, level=self.level + 1, **place)

    def row_bytes(self) -> int:
        """Return the bytes of its rows in the store. A piece of dead letters counts as it is: they do not repeat anything."""
        if self.topic == DEAD_LETTERS_TOPIC:
            return sum(map(len, self.parts))
        return sum(row_bytes(bytes(part)) for part in self.parts)


def bounded(messages: Range, row_bytes_max: int) -> Range:
    """Return the part of a range without an intent that one insert may take: its first messages. If one message is too large
    alone, return all of it, with the depth at which each piece is small enough or a single item."""
    if messages.partition.topic == DEAD_LETTERS_TOPIC:
        return messages
    total = 0
    for index, payload in enumerate(messages.payloads):
        total += row_bytes(bytes(payload))
        if total <= row_bytes_max:
            continue
        # Where offsets are missing in between, it is not known which message has which.
        contiguous = messages.end - messages.start == len(messages.payloads)
        keeps = max(1, index) if contiguous else len(messages.payloads)
        kept = messages
        if keeps < len(messages.payloads):
            kept = messages._replace(end=messages.start + keeps, payloads=messages.payloads[:keeps])
        return kept._replace(depth=_depth(Piece.whole(kept), row_bytes_max))
    return messages


def _depth(piece: Piece, row_bytes_max: int) -> int:
    """Return how often it is halved until each piece is small enough, or a single item."""
    if piece.row_bytes() <= row_bytes_max:
        return 0
    return max((1 + _depth(half, row_bytes_max) for half in piece.halves()), default=0)


def _token(range_: Range, place: str) -> str:
    """An intent without an identity is of a version whose tokens had none: its repetition has the same."""
    return f"{range_.log}/{place}" if range_.log else place


class _Field(NamedTuple):
    tag: int
    whole: bytes  # with its tag and length
    content: bytes  # of a length-delimited field


def _fields(message: bytes) -> Iterator[_Field]:
    """Raises NonCanonical."""
    cursor = Cursor(message)
    end = len(message)
    while (begin := cursor.position) < end:
        tag = cursor.field(end)
        yield _Field(int(tag), message[begin : cursor.position], message[cursor.start : cursor.position])


def _records(batch: bytes) -> list[bytes]:
    """Return a TelemetryBatch for each record, undecoded; the whole batch if it does not even divide into fields."""
    try:
        return [field.whole for field in _fields(batch)]
    except NonCanonical:
        return [batch]


class _Cut(NamedTuple):
    """Two batches of one record, and how many items the first has."""

    first: bytes
    second: bytes
    first_items: int


def _cut(batch: bytes) -> _Cut | None:
    """The halves of a batch of one record. None: it has one item, or is none of ours."""
    try:
        ((tag, _, record),) = _fields(batch)
        fields = list(_fields(record))
        if tag != _RECORD:
            return None
        items = [field for field in fields if field.tag in _ITEMS]
        if len(items) > 1:
            middle = len(items) // 2
            halves = items[:middle], items[middle:]
        elif len(items) == 1 and items[0].tag == _METRIC and (metrics := _cut_metric(items[0].content)) is not None:
            halves = [metrics[0]], [metrics[1]]
        else:
            return None
        counts = [sum(map(_item_count, half)) for half in halves]
    except (NonCanonical, ValueError):
        return None
    first, second = (_record(fields, half, count) for half, count in zip(halves, counts, strict=True))
    return _Cut(first, second, counts[0])


def _cut_metric(metric: bytes) -> tuple[_Field, _Field] | None:
    """Two metrics with half of the points each. None: it has one, or none. Raises NonCanonical."""
    fields = list(_fields(metric))
    data = [field for field in fields if field.tag in _DATA]
    if len(data) != 1:
        return None
    about = [field for field in _fields(data[0].content) if field.tag != _POINT]
    points = [field for field in _fields(data[0].content) if field.tag == _POINT]
    if len(points) < 2:
        return None
    middle = len(points) // 2

    def with_points(some: Sequence[_Field]) -> _Field:
        halved = _delimited(data[0].tag, b"".join(field.whole for field in [*some, *about]))
        return _delimited(_METRIC, b"".join(halved.whole if field is data[0] else field.whole for field in fields))

    return with_points(points[:middle]), with_points(points[middle:])


def _item_count(item: _Field) -> int:
    """Raises NonCanonical."""
    if item.tag != _METRIC:
        return 1
    data = [field for field in _fields(item.content) if field.tag in _DATA]
    return sum(1 for each in data for field in _fields(each.content) if field.tag == _POINT)


def _record(fields: Sequence[_Field], items: Sequence[_Field], count: int) -> bytes:
    """Return a batch of one record: the fields of another record, with these items instead of its own."""
    before = [field.whole for field in fields if field.tag < _METRIC]
    after = [field.whole for field in fields if field.tag >= _METRIC and field.tag not in _ITEMS and field.tag != _ITEM_COUNT]
    counted = bytes([_ITEM_COUNT]) + length_of(count) if count else b""
    return _delimited(_RECORD, b"".join([*before, *(item.whole for item in items), counted, *after])).whole


def _delimited(tag: int, content: bytes) -> _Field:
    return _Field(tag, bytes([tag]) + length_of(len(content)) + content, content)
