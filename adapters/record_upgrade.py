"""Convert records of version 1 (infrasage.v1.TelemetryRecordV1) to the current form.

Kafka, the local log and dead letters keep messages of earlier versions. Each reader of messages passes them to `current` first.
The fields are copied, not decoded: the items are the same bytes.

Invariants:
1. A message in the current form is returned unchanged, and so is a message that has neither form
   (tests/unit/adapters/test_record_upgrade.py, test_what_is_no_record_of_version_1_is_left_alone).
2. A message of version 1 has the same items, in the same order, under the same headers
   (test_record_upgrade.py, test_a_message_of_version_1_keeps_what_it_says).
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.wire import Cursor, NonCanonical, put_bytes, put_varint
from adapters.record_tags import (
    BATCH_ID,
    BATCH_PART,
    FINGERPRINT,
    GROUP,
    ITEM,
    ITEM_COUNT,
    RECEIPT,
    RECEIVED,
    RECORD,
    RECORD_VERSION,
    REPEATED_ITEMS,
    RESOURCE,
    RESOURCE_SCHEMA_URL,
    SCOPE,
    SCOPE_SCHEMA_URL,
    SERVICE,
    SOURCE,
    TENANT,
    TYPE,
    VERSION,
)

# Tags of version 1, and the current tags.
_SOURCE_V1: Final = 0x10
_RECEIVED_V1: Final = 0x21
_HEADER: Final = {0x0A: TENANT, _SOURCE_V1: SOURCE, 0x18: TYPE, _RECEIVED_V1: RECEIVED, 0x2A: BATCH_ID, 0x32: SERVICE}
_RESOURCE: Final = {0x3A: RESOURCE, 0x42: RESOURCE_SCHEMA_URL}
_GROUP: Final = {0x4A: SCOPE, 0x52: SCOPE_SCHEMA_URL, 0x5A: ITEM, 0x62: ITEM, 0x6A: ITEM}
_END: Final = {0x70: BATCH_PART, 0x78: ITEM_COUNT, 0x82: RECEIPT, 0x8A: FINGERPRINT, 0x90: REPEATED_ITEMS}
# The tag of the version, which adapters write right behind the length of the first record.
_VERSION_BYTES: Final = b"\xa0\x3f"
_LENGTH_BYTES_MAX: Final = 5
# The bytes of a message that `is_current` needs.
HEAD_BYTES: Final = 1 + _LENGTH_BYTES_MAX + 2


def is_current(head: bytes) -> bool:
    """Return whether a message that begins with `head` is as adapters write it now. Others may have the current form, too."""
    if head[:1] != b"\x0a":
        return False
    at: i64 = 1
    end: i64 = min(len(head), 1 + _LENGTH_BYTES_MAX)
    while at < end and head[at] > 127:
        at += 1
    return head[at + 1 : at + 3] == _VERSION_BYTES


def current(payload: bytes) -> bytes:
    """Return a message (TelemetryBatch) in the current form."""
    if payload[:1] != b"\x0a" or is_current(payload):
        return payload
    try:
        return upgraded(payload) if _is_version_1(payload) else payload
    except NonCanonical:
        return payload


def _is_version_1(payload: bytes) -> bool:
    """Return whether a message's first record has version 1. Raises NonCanonical."""
    cursor = Cursor(payload)
    cursor.field(len(payload))
    end: i64 = cursor.position
    cursor.position = cursor.start
    while cursor.position < end:
        tag: i64 = cursor.field(end)
        if tag == _SOURCE_V1 or tag == _RECEIVED_V1:
            return True
        if tag == VERSION:
            return False
    return False


def upgraded(payload: bytes) -> bytes:
    """Return a message of version 1 in the current form. Raises NonCanonical if it is not of version 1."""
    cursor = Cursor(payload)
    end: i64 = len(payload)
    batch = BytesWriter()
    while cursor.position < end:
        tag: i64 = cursor.field(end)
        if tag != RECORD:
            raise NonCanonical(cursor.start)
        after: i64 = cursor.position
        put_bytes(batch, RECORD, _upgraded_record(cursor, cursor.start, after))
        cursor.position = after
    return batch.getvalue()


def _upgraded_record(cursor: Cursor, start: i64, end: i64) -> bytes:
    """Return the record at start:end in the current form. Raises NonCanonical."""
    buffer = cursor.buffer
    header = BytesWriter()
    put_varint(header, VERSION)
    put_varint(header, RECORD_VERSION)
    resource = BytesWriter()
    group = BytesWriter()
    behind = BytesWriter()
    cursor.position = start
    while cursor.position < end:
        at: i64 = cursor.position
        tag = int(cursor.field(end))
        if tag in _HEADER:
            writer, tag_now = header, _HEADER[tag]
        elif tag in _RESOURCE:
            writer, tag_now = resource, _RESOURCE[tag]
        elif tag in _GROUP:
            writer, tag_now = group, _GROUP[tag]
        elif tag in _END:
            writer, tag_now = behind, _END[tag]
        else:
            raise NonCanonical(int(at))
        put_varint(writer, tag_now)
        writer.write(buffer[_tag_end(buffer, at) : cursor.position])
    record = BytesWriter()
    record.write(header.getvalue())
    record.write(resource.getvalue())
    if len(group):
        put_bytes(record, GROUP, group.getvalue())
    record.write(behind.getvalue())
    return record.getvalue()


def _tag_end(buffer: bytes, at: i64) -> i64:
    """Return where the tag at `at` ends. It has been read before."""
    while buffer[at] > 127:
        at += 1
    return at + 1
