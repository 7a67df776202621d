"""A piece is the part of a range that one insert stores. Pieces can be halved, down to a single item.

A piece is cut between messages if it has several; then between the records of a message, the groups of a record, the items of
a group, and the points of a metric. So a range is a binary tree of pieces. The place of a piece in the tree, and so its token,
depends only on the range's messages.

Invariants:
1. The two halves of a piece have its items, each once and in their order, under the same header, resource and scope. Each half
   says how many items it has (test_piece.py, test_halves_have_the_items_of_the_whole).
2. A piece that has no halves is a single item, or bytes that no adapter wrote (test_piece.py,
   test_halving_ends_at_the_item).
3. A piece has the same token however often its range is read, and different pieces of a range have different tokens
   (test_piece.py, test_tokens_tell_pieces_apart).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self

from adapters.codec.wire import Cursor, NonCanonical, divides, length_of
from adapters.record_tags import GROUP, ITEM, ITEM_COUNT, RECORD
from adapters.rows import row_bytes
from collector.broker.contract import DEAD_LETTERS_TOPIC, METRICS_TOPIC, Partition, Payload, Range

_ITEM_COUNT_TAG: Final = length_of(ITEM_COUNT)  # in two bytes
# Of a Metric: gauge, sum, histogram, exponential_histogram, summary.
_DATA: Final = frozenset({0x2A, 0x3A, 0x4A, 0x52, 0x5A})
_POINT: Final = 0x0A  # `data_points` of each of them
_LENGTH_BYTES_MAX: Final = 5


@dataclass(frozen=True)
class Piece:
    """Some consecutive messages of a range, or some records of one message, or some groups of one record, or some items of one
    group."""

    partition: Partition
    log: str  # the identity of the log that the range was read from
    topic: str  # the topic of ours that it is stored as
    token: str  # the range's token, and the path in the tree to this piece
    offset: int  # the offset of the first message
    parts: Sequence[Payload]
    messages: int  # how many whole messages it has
    record_index: int = 0  # the index of the first record in its message, if there is no whole message
    item_index: int | None = None  # the index of the first item in its record, if the record was divided
    is_part_of_group: bool = False
    level: int = 0  # how often the range was halved for this piece
    divides: bool = True  # whether a message may be divided

    @classmethod
    def whole(cls, range_: Range) -> Self:
        token = _token(range_, f"{range_.partition.topic}/{range_.partition.index}/{range_.start}-{range_.end}")
        return cls(range_.partition, range_.log, range_.stored_as, token, range_.start, range_.payloads, len(range_.payloads))

    @classmethod
    def replays(cls, range_: Range, topic: str, payloads: Sequence[bytes]) -> Self:
        """Return a piece with the replays for `topic` in a range of dead letters. Its offsets count the payloads."""
        token = _token(range_, f"replays/{topic}/{range_.partition.index}/{range_.start}-{range_.end}")
        return cls(range_.partition, range_.log, topic, token, 0, payloads, len(payloads), divides=False)

    @property
    def payload(self) -> bytes:
        return b"".join(self.parts)

    @property
    def path(self) -> tuple[int, ...]:
        """Return the position of the piece's first record, or item, in its message."""
        return (self.record_index,) if self.item_index is None else (self.record_index, self.item_index)

    def halves(self) -> Sequence["Piece"]:
        """Return the two halves, whose tokens end in /0 and /1; none if the piece is one item, or can't be cut."""
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
        if not self.parts or not self.divides or (self.topic == DEAD_LETTERS_TOPIC and not self.messages):
            return ()
        if self.messages:
            return replace(self, parts=_records(bytes(self.parts[0])), messages=0).halves()
        cut = _cut(bytes(self.parts[0]), has_points=self.topic == METRICS_TOPIC)
        if cut is None:
            return ()
        first, is_part_of_group = self.item_index or 0, cut.is_part_of_group
        return (
            self._half(0, (cut.first,), item_index=first, is_part_of_group=is_part_of_group),
            self._half(1, (cut.second,), item_index=first + cut.first_items, is_part_of_group=is_part_of_group),
        )

    def without_items(self) -> "Piece | None":
        """Return a piece without items, but with the header, resource and scope that the piece's items share. An insert of it
        stores nothing. Return None unless the piece is one whole record, or one whole group of a record."""
        parts = _records(bytes(self.parts[0])) if self.messages == 1 and self.divides else self.parts
        if len(parts) != 1 or self.is_part_of_group or self.topic == DEAD_LETTERS_TOPIC:
            return None
        try:
            record = _record_of(bytes(parts[0]))
            if not record.groups or (len(record.groups) > 1 and self.item_index is not None):
                return None
            groups: list[_Field] = []  # several groups have different scopes, which are tested when the groups are divided
            if len(record.groups) == 1:
                group = _group_of(record.groups[0])
                if not group.items:
                    return None
                groups.append(group.with_items(()))
        except (NonCanonical, ValueError):
            return None
        return replace(self, token=f"{self.token}/bare", parts=(record.batch(groups, 0),), messages=0)

    def records(self) -> Iterator["Piece"]:
        """Yield a piece for each record, or one for bytes that can't be divided into records."""
        if len(self.parts) > 1:
            for half in self.halves():
                yield from half.records()
        elif self.messages and self.divides:
            yield from replace(self, parts=_records(bytes(self.parts[0])), messages=0).records()
        else:
            yield self

    def is_framed(self) -> bool:
        """Return whether every part is whole, if there are several. The store reads them as one text, so a part of another
        producer that ends too early would spoil the part behind it."""
        return len(self.parts) < 2 or all(_is_framed(part) for part in self.parts)

    def _half(self, which: int, parts: Sequence[Payload], **place: Any) -> "Piece":
        return replace(self, token=f"{self.token}/{which}", parts=parts, level=self.level + 1, **place)

    def row_bytes(self) -> int:
        """Return the bytes of the piece's rows in the store. For dead letters it is the piece's size, since their rows repeat
        nothing."""
        if self.topic == DEAD_LETTERS_TOPIC:
            return sum(map(len, self.parts))
        return sum(row_bytes(bytes(part)) for part in self.parts)


def _is_framed(part: Payload) -> bool:
    """Return whether a part is a sequence of whole fields. Its records, which are nearly all of it, are passed by their
    lengths, without a copy."""
    end = len(part)
    position = 0
    while position < end and part[position] == RECORD:
        length_at = position + 1
        # A length has five bytes at most.
        cursor = Cursor(bytes(part[length_at : length_at + _LENGTH_BYTES_MAX]))
        try:
            length = cursor.varint(min(end - length_at, _LENGTH_BYTES_MAX))
        except NonCanonical:
            return False
        position = length_at + int(cursor.position) + int(length)
    return position == end or (position < end and divides(bytes(part[position:])))


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
        # If offsets are missing in the range, the offset of a message is not known.
        contiguous = messages.end - messages.start == len(messages.payloads)
        keeps = max(1, index) if contiguous else len(messages.payloads)
        kept = messages
        if keeps < len(messages.payloads):
            kept = messages._replace(end=messages.start + keeps, payloads=messages.payloads[:keeps])
        return kept._replace(depth=_depth(Piece.whole(kept), row_bytes_max))
    return messages


def _depth(piece: Piece, row_bytes_max: int) -> int:
    """Return how often the piece is halved until each part is small enough, or a single item."""
    if piece.row_bytes() <= row_bytes_max:
        return 0
    return max((1 + _depth(half, row_bytes_max) for half in piece.halves()), default=0)


def _token(range_: Range, place: str) -> str:
    """Return a token. If the range's intent has no identity, it is from a version whose tokens had none, and neither has this
    one: a repetition needs the same token."""
    return f"{range_.log}/{place}" if range_.log else place


class _Field(NamedTuple):
    tag: int
    whole: bytes  # with its tag and length
    content: bytes  # of a length-delimited field


def _fields(message: bytes) -> Iterator[_Field]:
    """Yield the fields of a message. Raises NonCanonical."""
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


class _Group(NamedTuple):
    """The fields of a group: its items, and the others."""

    about: Sequence[_Field]
    items: Sequence[_Field]

    def with_items(self, items: Sequence[_Field]) -> _Field:
        """Return the group with these items instead, in our order: the scope first, and its schema URL last."""
        before = [field.whole for field in self.about if field.tag < ITEM]
        after = [field.whole for field in self.about if field.tag > ITEM]
        return _delimited(GROUP, b"".join([*before, *(item.whole for item in items), *after]))


def _group_of(group: _Field) -> _Group:
    """Divide a group into its fields. Raises NonCanonical."""
    fields = list(_fields(group.content))
    return _Group([field for field in fields if field.tag != ITEM], [field for field in fields if field.tag == ITEM])


class _Record(NamedTuple):
    """The fields of the only record of a batch, without its number of items."""

    before: Sequence[_Field]  # the fields before the groups
    groups: Sequence[_Field]
    after: Sequence[_Field]

    def batch(self, groups: Sequence[_Field], count: int) -> bytes:
        """Return a batch of this record with these groups instead of its own, and `count` as the number of its items."""
        counted = _ITEM_COUNT_TAG + length_of(count) if count else b""
        whole = [*(field.whole for field in (*self.before, *groups, *self.after)), counted]
        return _delimited(RECORD, b"".join(whole)).whole


def _record_of(batch: bytes) -> _Record:
    """Divide the only record of a batch into its fields. Raises NonCanonical, and ValueError if there is not one record."""
    ((tag, _, content),) = _fields(batch)
    if tag != RECORD:
        raise ValueError(f"a field of tag {tag}, and no record")
    before: list[_Field] = []
    groups: list[_Field] = []
    after: list[_Field] = []
    for field in _fields(content):
        if field.tag == GROUP:
            groups.append(field)
        elif field.tag != ITEM_COUNT:
            (after if groups else before).append(field)
    return _Record(before, groups, after)


class _Cut(NamedTuple):
    """Two batches of one record, and how many items the first has."""

    first: bytes
    second: bytes
    first_items: int
    is_part_of_group: bool


def _cut(batch: bytes, *, has_points: bool) -> _Cut | None:
    """Return the halves of a batch of one record. None: the batch has one item, or no adapter wrote it."""
    try:
        record = _record_of(batch)
        if len(record.groups) > 1:
            halves = _halves(record.groups)
        elif record.groups and (cut := _cut_group(record.groups[0], has_points=has_points)) is not None:
            halves = [cut[0]], [cut[1]]
        else:
            return None
        counts = [sum(_item_count(group, has_points=has_points) for group in half) for half in halves]
    except (NonCanonical, ValueError):
        return None
    first, second = (record.batch(half, count) for half, count in zip(halves, counts, strict=True))
    return _Cut(first, second, counts[0], is_part_of_group=len(record.groups) == 1)


def _cut_group(field: _Field, *, has_points: bool) -> tuple[_Field, _Field] | None:
    """Return two groups with half of the items each. None: the group has fewer than two. Raises NonCanonical."""
    group = _group_of(field)
    if len(group.items) > 1:
        first, second = _halves(group.items)
    elif has_points and len(group.items) == 1 and (metrics := _cut_metric(group.items[0].content)) is not None:
        first, second = [metrics[0]], [metrics[1]]
    else:
        return None
    return group.with_items(first), group.with_items(second)


def _cut_metric(metric: bytes) -> tuple[_Field, _Field] | None:
    """Return two metrics with half of the points each. None: the metric has fewer than two. Raises NonCanonical."""
    fields = list(_fields(metric))
    data = [field for field in fields if field.tag in _DATA]
    if len(data) != 1:
        return None
    about = [field for field in _fields(data[0].content) if field.tag != _POINT]
    points = [field for field in _fields(data[0].content) if field.tag == _POINT]
    if len(points) < 2:
        return None

    def with_points(some: Sequence[_Field]) -> _Field:
        halved = _delimited(data[0].tag, b"".join(field.whole for field in [*some, *about]))
        return _delimited(ITEM, b"".join(halved.whole if field is data[0] else field.whole for field in fields))

    first, second = _halves(points)
    return with_points(first), with_points(second)


def _halves(fields: Sequence[_Field]) -> tuple[Sequence[_Field], Sequence[_Field]]:
    middle = len(fields) // 2
    return fields[:middle], fields[middle:]


def _item_count(group: _Field, *, has_points: bool) -> int:
    """Return how many items a group has. Raises NonCanonical."""
    items = _group_of(group).items
    return sum(_point_count(item.content) for item in items) if has_points else len(items)


def _point_count(metric: bytes) -> int:
    """Return how many points a metric has. Raises NonCanonical."""
    data = [field for field in _fields(metric) if field.tag in _DATA]
    return sum(1 for each in data for field in _fields(each.content) if field.tag == _POINT)


def _delimited(tag: int, content: bytes) -> _Field:
    return _Field(tag, bytes([tag]) + length_of(len(content)) + content, content)
