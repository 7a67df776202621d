"""Reads the messages of a batch that others wrote, one by one while the batch is decompressed.

Kafka does not limit the decompressed size of a batch: 30 KB can become one message of a gigabyte, or millions of messages. So
only the wanted part is held in memory. If a message is too large or can't be read, its context says why (`unread`).

Invariants:
1. Whatever a batch contains, each of its offsets is returned as a message, or is covered by a last message that says why the
   rest of the batch can't be read (tests/unit/collector/broker/kafka/protocol/test_foreign_records.py,
   test_a_damaged_batch_is_read_as_far_as_it_goes, test_a_batch_of_too_much_is_read_as_far_as_it_goes).
2. A value of at most `value_bytes_max` bytes is kept whole; of a longer value, only the beginning is kept
   (test_of_a_value_that_is_too_large_the_beginning_is_read).
3. A message is the same, wherever in its batch reading begins and however much is read at once
   (test_parts_of_a_batch_are_the_whole).
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from collector.broker.contract import MessageContext, Payload, Unread
from collector.broker.kafka.protocol.compression import Undecodable

# The most bytes that are kept of a message that is too large or can't be read.
_BEGINNING_BYTES: Final = 1 << 20
_HEADERS_BYTES_MAX: Final = 1 << 20
# No telemetry has larger batches. The limits exist since a poll that begins inside a batch reads it again from its beginning.
_BATCH_BYTES_MAX: Final = 1 << 30
_BATCH_MESSAGES_MAX: Final = 1_000_000
# The most messages that one call returns, since even messages with small values are objects in memory.
_MESSAGES_AT_ONCE: Final = 100_000
_MIB: Final = 1 << 20


class _TooLarge(Undecodable):
    pass


class ForeignRecordLimits(NamedTuple):
    """Which messages to read: at least one from `offset` on, and more until together they have `bytes_max` bytes.

    A value of more than `value_bytes_max` bytes is not read whole. `value_setting` is the setting of that limit."""

    offset: int
    bytes_max: int
    value_bytes_max: int
    value_setting: str = "http.decompressed_bytes_max"


class BatchHead(NamedTuple):
    """The head of a batch. `end_offset` is the offset after its last message. `fixed_time_ms` is the timestamp of every
    message; None: each message has its own, relative to `first_time_ms`."""

    base: int
    end_offset: int
    leader_epoch: int
    first_time_ms: int
    last_time_ms: int
    fixed_time_ms: int | None


class ForeignRecords(NamedTuple):
    """Messages of a batch. `next_offset` is the offset after the last one. `is_whole`: the batch has no more messages."""

    messages: list[tuple[int, Payload]]
    contexts: list[MessageContext]
    next_offset: int
    is_whole: bool


def read(head: BatchHead, raw: Payload, pieces: Iterator[Payload], limits: ForeignRecordLimits) -> ForeignRecords:
    """Return messages of a batch. `raw` is its records as they were written; `pieces` are the same records, decompressed."""
    stream = _Stream(pieces)
    messages: list[tuple[int, Payload]] = []
    contexts: list[MessageContext] = []
    size = count = 0
    following = head.base
    try:
        while not stream.is_at_end():
            if messages and (size >= limits.bytes_max or len(messages) == _MESSAGES_AT_ONCE):
                return ForeignRecords(messages, contexts, following, False)
            if stream.position > _BATCH_BYTES_MAX:
                raise _TooLarge(f"its batch decompresses to more than {_BATCH_BYTES_MAX // _MIB} MiB")
            if count == _BATCH_MESSAGES_MAX:
                raise _TooLarge(f"its batch has more than {_BATCH_MESSAGES_MAX} messages")
            count += 1
            length = stream.varint()
            end = stream.position + length
            stream.skip(1)
            time_delta = stream.varint()
            offset = head.base + stream.varint()
            if offset >= limits.offset:
                time_ms = head.first_time_ms + time_delta if head.fixed_time_ms is None else head.fixed_time_ms
                value, context = _message(stream, end, MessageContext(offset, head.leader_epoch, time_ms, []), limits)
                messages.append((offset, value))
                contexts.append(context)
                size += len(value) + sum(len(name) + len(text) for name, text in context.headers)
            stream.skip(end - stream.position)
            following = offset + 1
    except Undecodable as error:
        first = max(following, limits.offset)
        if messages and messages[-1][0] >= first:  # its value was read, but what follows the value was not
            messages.pop()
            contexts.pop()
        if first < head.end_offset:
            left = f"messages {first} to {head.end_offset - 1}" if first < head.end_offset - 1 else f"message {first}"
            messages.append((first, bytes(raw[:_BEGINNING_BYTES])))
            unread = Unread(f"{left} can not be read: {error}", isinstance(error, _TooLarge), len(raw))
            contexts.append(MessageContext(first, head.leader_epoch, head.last_time_ms, [], unread))
    return ForeignRecords(messages, contexts, head.end_offset, True)


def _message(
    stream: "_Stream", end: int, context: MessageContext, limits: ForeignRecordLimits
) -> tuple[Payload, MessageContext]:
    """Read the rest of a message, which begins with its key. Return its value and its context. Raises Undecodable."""
    stream.skip(max(0, stream.varint()))
    size = max(0, stream.varint())
    why = ""
    if size > limits.value_bytes_max:
        why = f"the message has {size} bytes, the limit ({limits.value_setting}) is {limits.value_bytes_max}"
    value = stream.take(min(size, _BEGINNING_BYTES) if why else size)
    stream.skip(size - len(value))
    headers_bytes = end - stream.position
    if headers_bytes > _HEADERS_BYTES_MAX:
        why = why or f"the message's headers have {headers_bytes} bytes, the limit is {_HEADERS_BYTES_MAX}"
        return value[:_BEGINNING_BYTES], context._replace(unread=Unread(why, True, size))
    headers: list[tuple[str, bytes]] = []
    for _ in range(stream.varint()):
        name = str(stream.take(stream.varint()), "utf-8", "replace")
        headers.append((name, bytes(stream.take(max(0, stream.varint())))))
    return value, context._replace(headers=headers, unread=Unread(why, True, size) if why else None)


class _Stream:
    """Reads pieces as if they were one buffer."""

    def __init__(self, pieces: Iterator[Payload]) -> None:
        self._pieces: Final = pieces
        self._piece: memoryview = memoryview(b"")
        self._at = 0
        self._before = 0  # bytes of the pieces before the current one

    @property
    def position(self) -> int:
        """Return how many bytes were read."""
        return self._before + self._at

    def is_at_end(self) -> bool:
        """Return whether all pieces are read. Raises Undecodable."""
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return True
            self._before += len(self._piece)
            self._piece = memoryview(piece)
            self._at = 0
        return False

    def varint(self) -> int:
        """Read a zigzag varint. Raises Undecodable."""
        value = shift = 0
        byte = 128
        while byte > 127:
            if self.is_at_end():
                raise Undecodable("its batch ends too soon")
            byte = self._piece[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            shift += 7
            if shift > 70:
                raise Undecodable("a number in its batch has no end")
        return value >> 1 ^ -(value & 1)

    def take(self, size: int) -> Payload:
        """Return the next bytes, as a view if all of them are in one piece. Raises Undecodable."""
        end = self._at + size
        if size >= 0 and end <= len(self._piece):
            taken = self._piece[self._at : end]
            self._at = end
            return taken
        return b"".join(self._parts(size))

    def skip(self, size: int) -> None:
        """Pass over the next bytes. Raises Undecodable."""
        for _ in self._parts(size):
            pass

    def _parts(self, size: int) -> Iterator[memoryview]:
        if size < 0:
            raise Undecodable("a length in its batch is wrong")
        while size:
            if self.is_at_end():
                raise Undecodable("its batch ends too soon")
            part = self._piece[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            yield part
