"""Fetch requests and their answers, and the messages in them: bytes in, bytes out.

A message is a view of what the broker sent: nothing of it is copied, or touched but for its checksum, and that while it comes
in (`Arriving`). What others wrote is read by foreign_records.py, and batches older than Kafka 0.11 by aiokafka. Source:
kafka.apache.org, "Fetch API" version 10, and "Record batch".
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import google_crc32c
from aiokafka.record.memory_records import MemoryRecords

from collector.broker.contract import MessageContext, Payload
from collector.broker.kafka.protocol import foreign_records
from collector.broker.kafka.protocol.compression import pieces
from collector.broker.kafka.protocol.foreign_records import BatchHead, Wanted

# Its key, and the first version that brings batches in zstd: brokers since Kafka 2.1 (2018) take it.
FETCH_API: Final = (1, 10)

_ANSWER: Final = struct.Struct(">ihii")
_UNKNOWN: Final = -1  # Kafka's code for an error that has no other
_STRING_LENGTH: Final = struct.Struct(">h")
_COUNT: Final = struct.Struct(">i")
_PARTITION: Final = struct.Struct(">ihqqq")  # its number, an error, the high watermark, the last stable and the first offset
_ABORTED_BYTES: Final = 16
# Of every format: the base offset, the length of what follows it, something, and which format.
_HEAD: Final = struct.Struct(">qiib")
_LENGTH_END: Final = 12
# Of this one: checksum, attributes, the last offset's delta; then two timestamps and the producer; at last how many records.
_BATCH: Final = struct.Struct(">Ihi")
_TIMESTAMPS: Final = struct.Struct(">qq")  # the first, and the largest
_TIMESTAMPS_AT: Final = 27
_FORMAT: Final = 2
_CHECKED_FROM: Final = 21
_RECORDS_AT: Final = 61
# The checksum's library takes no views: so much at a time is copied for it, and stays in the processor's cache meanwhile.
_CHECKED_BYTES: Final = 64 * 1024
_COMPRESSION: Final = 0x07
_APPEND_TIME: Final = 0x08  # the broker's time, which is the largest, is that of each message
_CONTROL: Final = 0x20


class WrongChecksum(Exception):
    """What the broker sent is not what was written."""


class Batch(NamedTuple):
    """Messages, each with its offset, and the offset after the last, which may not be there any more. `leader_epoch`: of the
    leader that wrote it; -1 where its format has none. `contexts`: of each message, where others wrote them. `is_whole`: the
    batch has no more messages behind these."""

    messages: list[tuple[int, Payload]]
    next_offset: int
    size_bytes: int
    leader_epoch: int
    contexts: Sequence[MessageContext] = ()
    is_whole: bool = True


def fetch_request(topic: str, index: int, offset: int, bytes_max: int) -> bytes:
    """For what is there now; at least one batch, however large."""
    name = topic.encode()
    # No replica, no waiting, a byte at least; uncommitted too; in no session; one topic.
    head = struct.pack(">iiiibiii", -1, 0, 1, bytes_max, 0, 0, -1, 1)
    # One partition, whatever its leader's epoch; at last no topics to forget.
    return head + struct.pack(f">h{len(name)}siiiqqii", len(name), name, 1, index, -1, offset, -1, bytes_max, 0)


def fetch_answer(answer: memoryview) -> tuple[int, memoryview]:
    """The error's code, and the batches, a part of it, of an answer to a request about one partition. Raises ValueError."""
    code, start, end = _fetched(answer)
    return code, answer[start:end]


def _fetched(answer: memoryview) -> tuple[int, int, int]:
    """The error's code, and where the batches begin and end; of these nothing need be there. Raises ValueError."""
    try:
        # Behind the time that the broker has held it back, an error of the session, and that; one topic.
        _, session_code, _, topics = _ANSWER.unpack_from(answer, 0)
        if session_code or topics != 1:
            return session_code or _UNKNOWN, 0, 0
        at = _ANSWER.size
        at += 2 + _STRING_LENGTH.unpack_from(answer, at)[0]
        at += 4  # the number of partitions
        _, code, _, _, _ = _PARTITION.unpack_from(answer, at)
        at += _PARTITION.size
        at += 4 + max(0, _COUNT.unpack_from(answer, at)[0]) * _ABORTED_BYTES
        size: int = _COUNT.unpack_from(answer, at)[0]
        return code, at + 4, at + 4 + max(0, size)
    except struct.error as error:
        raise ValueError(f"{len(answer)} bytes are no answer to a fetch") from error


class Arriving:
    """Makes the checksums of the batches of an answer while it comes in, since what was just read is in the processor's cache.
    What it can't make sense of is left to `batches`."""

    def __init__(self) -> None:
        self.checksums: Final[dict[int, int]] = {}
        """By where a batch begins, of those that are there whole."""
        self._start = 0  # of the batches in the answer; 0: not there yet
        self._limit = 0  # and where they end
        self._at = 0  # the batch that comes in
        self._end = 0  # and where it ends; 0: its head is not there yet
        self._to = 0  # how far its checksum goes
        self._checksum = 0

    def came(self, answer: memoryview, have: int) -> None:
        """The first `have` bytes of the answer are there."""
        if not self._start:
            try:
                _, self._start, self._limit = _fetched(answer[:have])
            except ValueError:
                return  # too little, as yet
            self._at = self._start
        while self._end or self._begun(answer, have):
            upto = min(have, self._end)
            self._checksum = _extended(self._checksum, answer, self._to, upto)
            self._to = upto
            if upto < self._end:
                return
            self.checksums[self._at - self._start] = self._checksum
            self._at, self._end = self._end, 0

    def _begun(self, answer: memoryview, have: int) -> bool:
        """With the next batch: its head is there, and it will come whole."""
        if self._at + _CHECKED_FROM > min(have, self._limit):
            return False
        _, length, _, format_ = _HEAD.unpack_from(answer, self._at)
        self._to = self._at + _CHECKED_FROM
        end: int = self._at + _LENGTH_END + length
        if format_ != _FORMAT or not self._to <= end <= self._limit:
            self._limit = 0  # there is nothing more for us
            return False
        self._end = end
        self._checksum = 0
        return True


def batches(records: memoryview, checksums: Mapping[int, int], wanted: Wanted | None = None) -> Iterator[Batch]:
    """Those that came whole: the broker cuts the last where it likes. `checksums`: those that Arriving has made; what is not
    among them is made here. `wanted`: what is to be read of messages that others wrote; None: they are ours, and all of them
    are. Raises WrongChecksum; ValueError, of ours."""
    at = 0
    while at + _HEAD.size <= len(records):
        base, length, epoch, format_ = _HEAD.unpack_from(records, at)
        end = at + _LENGTH_END + length
        if end > len(records):
            return
        if format_ == _FORMAT:
            checksum, attributes, last_delta = _BATCH.unpack_from(records, at + _HEAD.size)
            known = checksums.get(at)
            if checksum != (_extended(0, records, at + _CHECKED_FROM, end) if known is None else known):
                raise WrongChecksum
            next_offset = base + last_delta + 1
            if attributes & _CONTROL:
                yield Batch([], next_offset, end - at, epoch)
            elif wanted is not None:
                first_ms, last_ms = _TIMESTAMPS.unpack_from(records, at + _TIMESTAMPS_AT)
                head = BatchHead(base, next_offset, epoch, first_ms, last_ms, last_ms if attributes & _APPEND_TIME else None)
                raw = records[at + _RECORDS_AT : end]
                found = foreign_records.read(head, raw, _decompressed(raw, attributes), wanted)
                yield Batch(found.messages, found.next_offset, end - at, epoch, found.contexts, found.is_whole)
            else:
                inside, first, last = _records(records, at, end, attributes)
                yield Batch(_messages(inside, first, last, base), next_offset, end - at, epoch)
        else:
            yield from _by_aiokafka(bytes(records[at:end]), wanted is not None)
        at = end


def _decompressed(raw: memoryview, attributes: int) -> Iterator[Payload]:
    """Raises Undecodable."""
    codec = attributes & _COMPRESSION
    return pieces(codec, bytes(raw)) if codec else iter([raw])


def _records(records: memoryview, at: int, end: int, attributes: int) -> tuple[memoryview, int, int]:
    """Where a batch's records are, and from where to where. Raises ValueError."""
    codec = attributes & _COMPRESSION
    if not codec:
        return records, at + _RECORDS_AT, end
    inside = memoryview(b"".join(pieces(codec, bytes(records[at + _RECORDS_AT : end]))))
    return inside, 0, len(inside)


def _extended(checksum: int, data: memoryview, start: int, end: int) -> int:
    """By so much of the data."""
    for at in range(start, end, _CHECKED_BYTES):
        checksum = google_crc32c.extend(checksum, bytes(data[at : min(at + _CHECKED_BYTES, end)]))
    return checksum


def _messages(records: memoryview, at: int, end: int, base: int) -> list[tuple[int, Payload]]:
    """Each record is its length, a byte of attributes, deltas of time and offset, a key, a value, and headers."""
    messages: list[tuple[int, Payload]] = []
    while at < end:
        length, at = _varint(records, at)
        after = at + length
        _, at = _varint(records, at + 1)
        delta, at = _varint(records, at)
        key_size, at = _varint(records, at)
        at += max(0, key_size)
        size, at = _varint(records, at)
        messages.append((base + delta, records[at : at + max(0, size)]))
        at = after
    return messages


def _varint(buffer: memoryview, at: int) -> tuple[int, int]:
    """A zigzag varint, and where it ends."""
    byte = buffer[at]
    at += 1
    value = byte & 127
    shift = 7
    while byte > 127:
        byte = buffer[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
    return value >> 1 ^ -(value & 1), at


def _by_aiokafka(batch: bytes, with_contexts: bool) -> Iterator[Batch]:
    """Of a format that has neither an epoch nor headers."""
    read = MemoryRecords(batch)
    while read.has_next():
        each = read.next_batch()
        if not each.validate_crc():
            raise WrongChecksum
        found = [(record.offset, record.value or b"", record.timestamp) for record in each]
        contexts: list[MessageContext] = []
        if with_contexts:
            contexts = [MessageContext(offset, -1, -1 if time_ms is None else time_ms, []) for offset, _, time_ms in found]
        yield Batch([(offset, value) for offset, value, _ in found], each.next_offset, len(batch), -1, contexts)
