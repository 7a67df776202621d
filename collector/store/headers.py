"""What a payload says about itself without being decoded: which messages it holds, and how many items each.

The law: only the fields before and after a record's items are read; the items, which are nearly all of its bytes, are skipped.
"""

from typing import Final
from uuid import UUID

from adapters.wire import Cursor, NotPlain

_RECORDS: Final = 0x0A  # TelemetryBatch.records
_BATCH_ID: Final = 0x2A  # TelemetryRecord.batch_id
_BATCH_PART: Final = 0x70
_ITEM_COUNT: Final = 0x78
_BATCH_ID_BYTES: Final = 16


def item_counts(payload: bytes) -> dict[tuple[UUID, int], int]:
    """Items by (batch id, batch part), over all records of concatenated TelemetryBatch payloads.

    Raises ValueError where these are not bytes that our adapters wrote.
    """
    counts: dict[tuple[UUID, int], int] = {}
    cursor = Cursor(payload)
    end = len(payload)
    try:
        while cursor.position < end:
            if cursor.field(end) != _RECORDS:
                continue
            after = cursor.position
            cursor.position = cursor.start
            batch_id, part, items = b"", 0, 0
            while cursor.position < after:
                tag = cursor.field(after)
                if tag == _BATCH_ID:
                    batch_id = payload[cursor.start : cursor.position]
                elif tag == _BATCH_PART:
                    part = cursor.value
                elif tag == _ITEM_COUNT:
                    items = cursor.value
            if len(batch_id) != _BATCH_ID_BYTES:
                raise ValueError(f"a record's batch id has {len(batch_id)} bytes, not {_BATCH_ID_BYTES}")
            key = (UUID(bytes=batch_id), int(part))
            counts[key] = counts.get(key, 0) + int(items)
    except NotPlain as error:
        raise ValueError(f"not a TelemetryBatch: {end} bytes, malformed at {error.position}") from error
    return counts
