"""Read the headers of a message's records without their items, and write a record's fields in their order.

Invariants:
1. A header is what protobuf's own parser reads (tests/unit/adapters/test_record_headers.py, test_headers_are_those_of_records).
2. `header_first` moves fields, and changes none (test_the_header_comes_first_and_nothing_is_lost).
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.wire import Cursor, put_bytes
from adapters.record_tags import BATCH_ID, BATCH_PART, ITEM_COUNT, RECEIPT, RECEIVED, RECORD, TENANT, VERSION

_UINT32_MASK: Final = (1 << 32) - 1


class RecordHeader:
    """A `RecordHeader` is the header of one record. `receipt` is the encoded receipt, or None if the record has none."""

    def __init__(self, tenant: bytes, received_time_unix_nano: int, batch_id: bytes, items: int, receipt: bytes | None) -> None:
        self.tenant: Final = tenant
        self.received_time_unix_nano: Final = received_time_unix_nano
        self.batch_id: Final = batch_id
        self.item_count: Final = items
        self.receipt: Final = receipt


def record_headers(payload: bytes) -> list[RecordHeader]:
    """Return the headers of a message (TelemetryBatch) in the current form. Raises NonCanonical."""
    cursor = Cursor(payload)
    end: i64 = len(payload)
    headers: list[RecordHeader] = []
    while cursor.position < end:
        if cursor.field(end) == RECORD:
            headers.append(_header(cursor))
    return headers


def _header(cursor: Cursor) -> RecordHeader:
    """Return the header of the record that was read last. Raises NonCanonical."""
    buffer = cursor.buffer
    end: i64 = cursor.position
    tenant, batch_id, received, items = b"", b"", 0, 0
    receipt: bytes | None = None
    cursor.position = cursor.start
    while cursor.position < end:
        tag: i64 = cursor.field(end)
        if tag == TENANT:
            tenant = buffer[cursor.start : cursor.position]
        elif tag == RECEIVED:
            received = int.from_bytes(buffer[cursor.start : cursor.position], "little")
        elif tag == BATCH_ID:
            batch_id = buffer[cursor.start : cursor.position]
        elif tag == ITEM_COUNT:
            items = int(cursor.value) & _UINT32_MASK
        elif tag == RECEIPT:
            receipt = (receipt or b"") + buffer[cursor.start : cursor.position]
    return RecordHeader(tenant, received, batch_id, items, receipt)


def header_first(batch: bytes) -> bytes:
    """Return a message (TelemetryBatch) with the fields of each record in our order: the header, the resource and its groups,
    and the fields that are known only at the end. Protobuf's encoder writes them by number. Raises NonCanonical."""
    cursor = Cursor(batch)
    end: i64 = len(batch)
    ordered = BytesWriter()
    while cursor.position < end:
        at: i64 = cursor.position
        if cursor.field(end) == RECORD:
            put_bytes(ordered, RECORD, _ordered(cursor))
        else:
            ordered.write(batch[at : cursor.position])
    return ordered.getvalue()


def _ordered(cursor: Cursor) -> bytes:
    """Return the record that was read last, with its fields in our order. Raises NonCanonical."""
    buffer = cursor.buffer
    end: i64 = cursor.position
    version, header, resource, behind = BytesWriter(), BytesWriter(), BytesWriter(), BytesWriter()
    cursor.position = cursor.start
    while cursor.position < end:
        at: i64 = cursor.position
        tag: i64 = cursor.field(end)
        if tag == VERSION:
            version.write(buffer[at : cursor.position])
        elif tag < TENANT:
            resource.write(buffer[at : cursor.position])
        elif tag < BATCH_PART:
            header.write(buffer[at : cursor.position])
        else:
            behind.write(buffer[at : cursor.position])
    for part in (header, resource, behind):
        version.write(part.getvalue())
    return version.getvalue()
