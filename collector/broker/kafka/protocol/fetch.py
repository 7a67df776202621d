"""Fetch requests and their answers, and the messages in them: bytes in, bytes out.

A message is a view of the answer's buffer. Its bytes are not copied, and are read only for the checksum, while the answer comes
in (`Arriving`). foreign_records.py reads batches that others wrote, and aiokafka those of formats before Kafka 0.11. Source:
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
from collector.broker.kafka.protocol.foreign_records import BatchHead, ForeignRecordLimits
from collector.broker.kafka.protocol.produce import BATCH_FORMAT

# The API's key, and the first version whose answers may have batches in zstd: brokers since Kafka 2.1 (2018) have it.
FETCH_API: Final = (1, 10)

_ANSWER: Final = struct.Struct(">ihii")
_UNKNOWN: Final = -1  # Kafka's code for an error that has no other
_STRING_LENGTH: Final = struct.Struct(">h")
_COUNT: Final = struct.Struct(">i")
_PARTITION: Final = struct.Struct(">ihqqq")  # its number, an error, the high watermark, the last stable and the first offset
_ABORTED_BYTES: Final = 16
# The head of a batch in every format: base offset, length of the rest, a field that differs by format, and the format.
_HEAD: Final = struct.Struct(">qiib")
_LENGTH_END: Final = 12
# Then in BATCH_FORMAT: checksum, attributes, the last offset's delta. After these: timestamps, the producer, the number of
# records.
_BATCH: Final = struct.Struct(">Ihi")
_TIMESTAMPS: Final = struct.Struct(">qq")  # the first, and the largest
_TIMESTAMPS_AT: Final = 27
_CHECKED_FROM: Final = 21
_RECORDS_AT: Final = 61
# The checksum's library takes no views, so the data is copied in pieces of this size, which fit the processor's cache.
_CHECKED_BYTES: Final = 64 * 1024
_COMPRESSION: Final = 0x07
_APPEND_TIME: Final = 0x08  # each message has the broker's time, which is the batch's largest timestamp
_CONTROL: Final = 0x20


class WrongChecksum(Exception):
    """A batch from the broker does not have its checksum, so it is damaged."""


class Batch(NamedTuple):
    """Messages of a batch, each with its offset. `next_offset` is the offset after the batch's last message, even if compaction
    has removed that message. `leader_epoch` is that of the leader that wrote the batch; -1 if its format has none. `contexts`
    has one entry for each message that others wrote. `is_whole`: the batch has no more messages behind these."""

    messages: list[tuple[int, Payload]]
    next_offset: int
    size_bytes: int
    leader_epoch: int
    contexts: Sequence[MessageContext] = ()
    is_whole: bool = True


def fetch_request(topic: str, index: int, offset: int, bytes_max: int) -> bytes:
    """Return a request for the messages that the broker has now: at least one batch, however large."""
    name = topic.encode()
    # No replica; no waiting; at least one byte; also uncommitted messages; no session; one topic.
    head = struct.pack(">iiiibiii", -1, 0, 1, bytes_max, 0, 0, -1, 1)
    # One partition, with any leader epoch; and at the end no topics to forget.
    return head + struct.pack(f">h{len(name)}siiiqqii", len(name), name, 1, index, -1, offset, -1, bytes_max, 0)


def fetch_answer(answer: memoryview) -> tuple[int, memoryview]:
    """Return the error code of an answer about one partition, and its batches, as a view. Raises ValueError."""
    code, start, end = _fetched(answer)
    return code, answer[start:end]


def _fetched(answer: memoryview) -> tuple[int, int, int]:
    """Return the error code, and where the batches begin and end. They need not have come yet. Raises ValueError."""
    try:
        # The time for which a quota has delayed the answer, the session's error, its id, and the number of topics.
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
        raise ValueError(f"{len(answer)} bytes are not an answer to a fetch") from error


class Arriving:
    """Computes the checksums of an answer's batches while the answer comes in, since bytes that were just read are in the
    processor's cache. Batches that it can't parse are left to `batches`."""

    def __init__(self) -> None:
        self.checksums: Final[dict[int, int]] = {}
        """The checksums of the batches that are whole, by where each begins."""
        self._start = 0  # where the batches begin in the answer; 0: not known yet
        self._limit = 0  # where the batches end
        self._at = 0  # where the current batch begins
        self._end = 0  # where the current batch ends; 0: its head has not come yet
        self._to = 0  # up to where its checksum is computed
        self._checksum = 0

    def received(self, answer: memoryview, have: int) -> None:
        """Compute checksums as far as possible, since the first `have` bytes of the answer have come."""
        if not self._start:
            try:
                _, self._start, self._limit = _fetched(answer[:have])
            except ValueError:
                return  # too few bytes have come
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
        """Begin with the next batch. Return False if its head has not come yet, or the batch is not whole in the answer."""
        if self._at + _CHECKED_FROM > min(have, self._limit):
            return False
        _, length, _, format_ = _HEAD.unpack_from(answer, self._at)
        self._to = self._at + _CHECKED_FROM
        end: int = self._at + _LENGTH_END + length
        if format_ != BATCH_FORMAT or not self._to <= end <= self._limit:
            self._limit = 0  # compute no more checksums for this answer
            return False
        self._end = end
        self._checksum = 0
        return True


def batches(records: memoryview, checksums: Mapping[int, int], limits: ForeignRecordLimits | None = None) -> Iterator[Batch]:
    """Yield the batches that came whole, since the broker may cut the last one anywhere. `checksums` has those that Arriving
    computed; missing ones are computed here. `limits` says which messages to read of a topic that others write; None: the topic
    is ours, and all messages are read. Raises WrongChecksum, and ValueError for topics of ours."""
    at = 0
    while at + _HEAD.size <= len(records):
        base, length, epoch, format_ = _HEAD.unpack_from(records, at)
        end = at + _LENGTH_END + length
        if end > len(records):
            return
        if format_ == BATCH_FORMAT:
            checksum, attributes, last_delta = _BATCH.unpack_from(records, at + _HEAD.size)
            known = checksums.get(at)
            if checksum != (_extended(0, records, at + _CHECKED_FROM, end) if known is None else known):
                raise WrongChecksum
            next_offset = base + last_delta + 1
            if attributes & _CONTROL:
                yield Batch([], next_offset, end - at, epoch)
            elif limits is not None:
                first_ms, last_ms = _TIMESTAMPS.unpack_from(records, at + _TIMESTAMPS_AT)
                head = BatchHead(base, next_offset, epoch, first_ms, last_ms, last_ms if attributes & _APPEND_TIME else None)
                raw = records[at + _RECORDS_AT : end]
                found = foreign_records.read(head, raw, _decompressed(raw, attributes), limits)
                yield Batch(found.messages, found.next_offset, end - at, epoch, found.contexts, found.is_whole)
            else:
                inside, first, last = _records(records, at, end, attributes)
                yield Batch(_messages(inside, first, last, base), next_offset, end - at, epoch)
        else:
            yield from _by_aiokafka(bytes(records[at:end]), limits is not None)
        at = end


def _decompressed(raw: memoryview, attributes: int) -> Iterator[Payload]:
    """Yield the records of a batch, decompressed. Raises Undecodable."""
    codec = attributes & _COMPRESSION
    return pieces(codec, bytes(raw)) if codec else iter([raw])


def _records(records: memoryview, at: int, end: int, attributes: int) -> tuple[memoryview, int, int]:
    """Return a buffer with a batch's records, decompressed, and where they begin and end in it. Raises ValueError."""
    codec = attributes & _COMPRESSION
    if not codec:
        return records, at + _RECORDS_AT, end
    inside = memoryview(b"".join(pieces(codec, bytes(records[at + _RECORDS_AT : end]))))
    return inside, 0, len(inside)


def _extended(checksum: int, data: memoryview, start: int, end: int) -> int:
    """Return the checksum extended by data[start:end]."""
    for at in range(start, end, _CHECKED_BYTES):
        checksum = google_crc32c.extend(checksum, bytes(data[at : min(at + _CHECKED_BYTES, end)]))
    return checksum


def _messages(records: memoryview, at: int, end: int, base: int) -> list[tuple[int, Payload]]:
    """Return the value of each record with its offset. A record has a length, a byte of attributes, deltas of time and offset,
    a key, a value, and headers."""
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
    """Return the zigzag varint that begins at `at`, and where it ends."""
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
    """Read a batch of an older format, which has neither an epoch nor headers."""
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
