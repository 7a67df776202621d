"""What one insert takes of a range, and how it is cut in halves: between messages, then between the records of a message, then
between the groups of a record, then between the items of a group, then between the points of a metric.

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
from adapters.record_tags import GROUP, ITEM, ITEM_COUNT, RECORD
from adapters.rows import row_bytes
from collector.broker.contract import DEAD_LETTERS_TOPIC, METRICS_TOPIC, Partition, Payload, Range

_ITEM_COUNT_TAG: Final = length_of(ITEM_COUNT)  # in two bytes
# Of a Metric: gauge, sum, histogram, exponential_histogram, summary.
_DATA: Final = frozenset({0x2A, 0x3A, 0x4A, 0x52, 0x5A})
_POINT: Final = 0x0A  # `data_points` of each of them


@dataclass(frozen=True)
class Piece:
    """Some consecutive messages of a range, or some records of one message, or some groups of one record, or some items of one
    group."""

    partition: Partition
    log: str  # the identity of the log that it was read from
    topic: str  # which of the store's it is for
    token: str  # that of the range, and the way to this piece: so it is the same however often the range is repeated
    offset: int  # of the first message
    parts: Sequence[Payload]
    messages: int  # how many whole ones
    record_index: int = 0  # of the first record in its message, where there are no whole ones
    item_index: int | None = None  # of the first item in its record, where the record was divided
    is_part_of_group: bool = False
    level: int = 0  # how often the range was halved to get here
    divides: bool = True  # a message may be stored in part

    @classmethod
    def whole(cls, range_: Range) -> Self:
        token = _token(range_, f"{range_.partition.topic}/{range_.partition.index}/{range_.start}-{range_.end}")
        return cls(range_.partition, range_.log, range_.stored_as, token, range_.start, range_.payloads, len(range_.payloads))

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

    def bare(self) -> "Piece | None":
        """What all of its items have in common, where it is one whole record, or one whole group of a record: nothing is stored
        of it. None: it is something else."""
        parts = _records(bytes(self.parts[0])) if self.messages == 1 and self.divides else self.parts
        if len(parts) != 1 or self.is_part_of_group or self.topic == DEAD_LETTERS_TOPIC:
            return None
        try:
            record = _record_of(bytes(parts[0]))
            if not record.groups or (len(record.groups) > 1 and self.item_index is not None):
                return None
            groups: list[_Field] = []  # what they do not have in common is looked at once they are divided
            if len(record.groups) == 1:
                group = _group_of(record.groups[0])
                if not group.items:
                    return None
                groups.append(group.with_items(()))
        except (NonCanonical, ValueError):
            return None
        return replace(self, token=f"{self.token}/bare", parts=(record.batch(groups, 0),), messages=0)

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


class _Group(NamedTuple):
    """One of a record, divided."""

    about: Sequence[_Field]
    items: Sequence[_Field]

    def with_items(self, items: Sequence[_Field]) -> _Field:
        """The same with these, in our order: the scope first, and its schema URL last."""
        before = [field.whole for field in self.about if field.tag < ITEM]
        after = [field.whole for field in self.about if field.tag > ITEM]
        return _delimited(GROUP, b"".join([*before, *(item.whole for item in items), *after]))


def _group_of(group: _Field) -> _Group:
    """Raises NonCanonical."""
    fields = list(_fields(group.content))
    return _Group([field for field in fields if field.tag != ITEM], [field for field in fields if field.tag == ITEM])


class _Record(NamedTuple):
    """The only one of a batch, divided. The number of items is in none of its fields."""

    before: Sequence[_Field]  # the groups
    groups: Sequence[_Field]
    after: Sequence[_Field]

    def batch(self, groups: Sequence[_Field], count: int) -> bytes:
        """Return a batch of this record with these groups instead of its own, and so many items."""
        counted = _ITEM_COUNT_TAG + length_of(count) if count else b""
        whole = [*(field.whole for field in (*self.before, *groups, *self.after)), counted]
        return _delimited(RECORD, b"".join(whole)).whole


def _record_of(batch: bytes) -> _Record:
    """Raises NonCanonical; ValueError where it is not one record."""
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
    """The halves of a batch of one record. None: it has one item, or is none of ours."""
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
    """Two groups with half of the items each. None: it has one, or none. Raises NonCanonical."""
    group = _group_of(field)
    if len(group.items) > 1:
        first, second = _halves(group.items)
    elif has_points and len(group.items) == 1 and (metrics := _cut_metric(group.items[0].content)) is not None:
        first, second = [metrics[0]], [metrics[1]]
    else:
        return None
    return group.with_items(first), group.with_items(second)


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

    def with_points(some: Sequence[_Field]) -> _Field:
        halved = _delimited(data[0].tag, b"".join(field.whole for field in [*some, *about]))
        return _delimited(ITEM, b"".join(halved.whole if field is data[0] else field.whole for field in fields))

    first, second = _halves(points)
    return with_points(first), with_points(second)


def _halves(fields: Sequence[_Field]) -> tuple[Sequence[_Field], Sequence[_Field]]:
    middle = len(fields) // 2
    return fields[:middle], fields[middle:]


def _item_count(group: _Field, *, has_points: bool) -> int:
    """Raises NonCanonical."""
    items = _group_of(group).items
    return sum(_point_count(item.content) for item in items) if has_points else len(items)


def _point_count(metric: bytes) -> int:
    """Raises NonCanonical."""
    data = [field for field in _fields(metric) if field.tag in _DATA]
    return sum(1 for each in data for field in _fields(each.content) if field.tag == _POINT)


def _delimited(tag: int, content: bytes) -> _Field:
    return _Field(tag, bytes([tag]) + length_of(len(content)) + content, content)
