"""Receipts report the outcome of each request and are stored with it. Their sequence numbers show if a request was lost.

Receipts are encoded by hand, since every request has one; infrasage.v1.Receipt is the message.

Invariants:
1. Every number below `settled` of a durable receipt either has a durable receipt of its own or is listed in `failed` of this
   receipt or an earlier durable one. A number in neither set is an acknowledged request that was lost
   (test_what_is_not_reported_yet_does_not_look_lost).
2. A failure is reported in each receipt until one that reports it is durable
   (test_a_failure_is_reported_until_that_is_durable).
3. The encoding is the one that protobuf would write (test_a_receipt_is_what_protobuf_would_write).
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from librt.strings import BytesWriter

from adapters.codec.wire import put_bytes, put_varint
from adapters.errors import REASONS
from adapters.fingerprint import put_fingerprint
from adapters.record import LOGS, METRICS, TRACES, TYPE_EVENT, TYPE_LOG, TYPE_TRACE, Adapted, Header, Part
from adapters.record_tags import BATCH_PART, RECEIPT, RECORD
from adapters.repairs import REPAIRS
from adapters.rows import row_bytes

# The most ranges of failed requests in one receipt. More ranges wait for the next receipt.
FAILED_REPORTED_MAX: Final = 100

_NAMES: Final = {reason.code: reason.name.encode() for reason in REASONS}
_REPAIRS: Final = {repair.code: repair.name.encode() for repair in REPAIRS}
# The topic of a receipt if no item was accepted. The topic of any signal could take it.
_SIGNALS: Final = {TYPE_LOG: LOGS, TYPE_EVENT: LOGS, TYPE_TRACE: TRACES}

# The first and the last number; both belong to the range.
SequenceRange = tuple[int, int]


class Receipt:
    """The receipt of one request. `record` is a serialized TelemetryBatch, to be appended to the request's last message."""

    def __init__(self, sequence: int, reported: Sequence[SequenceRange], record: bytes, content: bytes) -> None:
        self.sequence: Final = sequence
        self.reported: Final = reported  # the failures that it reports
        self.record: Final = record
        self.content: Final = content  # infrasage.v1.Receipt alone


class Receipts:
    """The receipts of one process. It has no locks, since one event loop uses it. Its memory is bounded by the number of
    requests in flight."""

    def __init__(self, process_id: bytes) -> None:
        """`process_id` is 16 bytes, and unique to this process."""
        writer = BytesWriter()
        put_bytes(writer, 0x3A, process_id)
        self._process: Final = writer.getvalue()
        self._next = 1
        self._settled = 1  # every number below it is settled: kept or failed
        self._settled_above: Final[set[int]] = set()
        self._failed: list[SequenceRange] = []  # not durably reported yet; in order, with gaps between them

    def begin(self, header: Header, route: bytes, adapted: Adapted, dead_letters: int, fingerprint: bytes = b"") -> Receipt:
        """Return the receipt of a request that is about to be appended. After the append, call `kept` or `failed`.

        `dead_letters` is how many of the request's rejected items are appended with it. `fingerprint` is that of its last part;
        empty if repetitions of the request are not recognized."""
        sequence = self._next
        self._next += 1
        settled = self._settled
        reported: Sequence[SequenceRange] = ()
        if self._failed:
            reported = self._failed[:FAILED_REPORTED_MAX]
            if len(self._failed) > FAILED_REPORTED_MAX:
                # A failure that is not reported yet must not look lost.
                settled = min(settled, self._failed[FAILED_REPORTED_MAX][0])
        writer = BytesWriter()
        _put_outcome(writer, route, adapted, dead_letters)
        writer.write(self._process)
        writer.append(0x40)
        put_varint(writer, sequence)
        writer.append(0x48)
        put_varint(writer, settled)
        for first, last in reported:
            range_ = BytesWriter()
            range_.append(0x08)
            put_varint(range_, first)
            range_.append(0x10)
            put_varint(range_, last)
            put_bytes(writer, 0x52, range_.getvalue())
        part = len(adapted.parts) - 1 if fingerprint else 0
        content = writer.getvalue()
        return Receipt(sequence, reported, _record(header, content, part, fingerprint), content)

    def kept(self, receipt: Receipt) -> None:
        """Note that the receipt is durable, and with it the failures that it reports."""
        self._settle(receipt.sequence)
        if receipt.reported:
            self._failed = _without(self._failed, receipt.reported)

    def failed(self, receipt: Receipt) -> None:
        """Note that the request failed. Its sender, if still connected, is asked to send all of it again."""
        self._settle(receipt.sequence)
        first = last = receipt.sequence
        failed = self._failed
        at = bisect_left(failed, (first, last))
        if at < len(failed) and failed[at][0] == last + 1:
            last = failed.pop(at)[1]
        if at and failed[at - 1][1] == first - 1:
            at -= 1
            first = failed.pop(at)[0]
        failed.insert(at, (first, last))

    def _settle(self, sequence: int) -> None:
        if sequence == self._settled:
            self._settled += 1
        else:
            self._settled_above.add(sequence)
        while self._settled in self._settled_above:
            self._settled_above.remove(self._settled)
            self._settled += 1


def parts_with_receipt(
    header: Header, adapted: Adapted, receipt: Receipt, prints: list[bytes], message_bytes_max: int, message_row_bytes_max: int
) -> list[Part]:
    """Return the parts to produce. The receipt is in the last message, or in a message of its own if there is no other message,
    or the last one has no room within the two limits. Each message ends with its fingerprint, which is one of `prints`."""
    parts = adapted.parts
    if prints and len(parts) > 1:
        parts = [
            _with_fingerprint(header, part, index, prints[index]) if index < len(parts) - 1 else part
            for index, part in enumerate(parts)
        ]
    receipt_row_bytes = row_bytes(receipt.record)
    if parts:
        last = parts[-1]
        rows = last.row_bytes + receipt_row_bytes
        payload_bytes = last.payload_bytes + len(receipt.record)
        if payload_bytes <= message_bytes_max and rows <= message_row_bytes_max:
            print_ = prints[-1] if prints else b""
            return [*parts[:-1], last.with_record(receipt.record, receipt_row_bytes, print_)]
        if prints:
            parts = [*parts[:-1], _with_fingerprint(header, last, len(parts) - 1, prints[-1])]
            record = _record(header, receipt.content, len(parts), b"")
            return [*parts, Part(last.signal, record, 0, row_bytes(record))]
    signal = parts[-1].signal if parts else _SIGNALS.get(next(iter(adapted.rejected))[0], METRICS)
    return [*parts, Part(signal, receipt.record, 0, receipt_row_bytes)]


def unnumbered_record(header: Header, route: bytes, adapted: Adapted, dead_letters: int = 0) -> bytes:
    """Return a receipt without a sequence number, for a replay or a message that others wrote: a serialized TelemetryBatch."""
    writer = BytesWriter()
    _put_outcome(writer, route, adapted, dead_letters)
    return _record(header, writer.getvalue(), 0, b"")


def _put_outcome(writer: BytesWriter, route: bytes, adapted: Adapted, dead_letters: int) -> None:
    """Write the fields 1 to 6, and 11, of infrasage.v1.Receipt."""
    put_bytes(writer, 0x0A, route)
    writer.append(0x10)
    put_varint(writer, adapted.accepted_count() + adapted.rejected_count())
    for type_, items in enumerate(adapted.accepted):
        if items:
            accepted = BytesWriter()
            accepted.append(0x08)
            put_varint(accepted, type_)
            accepted.append(0x10)
            put_varint(accepted, items)
            put_bytes(writer, 0x1A, accepted.getvalue())
    for (type_, reason), items in adapted.rejected.items():
        rejected = BytesWriter()
        rejected.append(0x08)
        put_varint(rejected, type_)
        put_bytes(rejected, 0x12, _NAMES[reason])
        rejected.append(0x18)
        put_varint(rejected, items)
        put_bytes(writer, 0x22, rejected.getvalue())
    if dead_letters:
        writer.append(0x28)
        put_varint(writer, dead_letters)
    if adapted.parts:
        writer.append(0x30)
        put_varint(writer, len(adapted.parts))
    if adapted.repaired:
        for kind, count in adapted.repaired.items():
            repaired = BytesWriter()
            put_bytes(repaired, 0x0A, _REPAIRS[kind])
            repaired.append(0x10)
            put_varint(repaired, count)
            put_bytes(writer, 0x5A, repaired.getvalue())


def _with_fingerprint(header: Header, part: Part, index: int, fingerprint: bytes) -> Part:
    record = _record(header, b"", index, fingerprint)
    return part.with_record(record, row_bytes(record), fingerprint)


def _record(header: Header, receipt: bytes, part: int, fingerprint: bytes) -> bytes:
    record = BytesWriter()
    record.write(header.prefix)
    if part:
        put_varint(record, BATCH_PART)
        put_varint(record, part)
    if receipt:
        put_bytes(record, RECEIPT, receipt)
    if fingerprint:
        put_fingerprint(record, fingerprint)
    batch = BytesWriter()
    put_bytes(batch, RECORD, record.getvalue())
    return batch.getvalue()


def _without(ranges: Sequence[SequenceRange], others: Sequence[SequenceRange]) -> list[SequenceRange]:
    """Return the parts of `ranges` that no other range covers. Both are in order, and so is the result."""
    left: list[SequenceRange] = []
    for first, last in ranges:
        start = first
        for other_first, other_last in others:
            if other_first > last:
                break
            if other_last >= start:
                if other_first > start:
                    left.append((start, other_first - 1))
                start = other_last + 1
        if start <= last:
            left.append((start, last))
    return left
