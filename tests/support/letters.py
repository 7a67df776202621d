"""Messages of infrasage.dead_letters, and receipts, to store."""

import time
from collections.abc import Sequence
from typing import Any

from infrasage.v1.dead_letter_pb2 import (
    PAYLOAD_FORM_NATIVE_JSON,
    DeadLetter,
    DeadLetterAction,
    DeadLetterBatch,
    DeadLetterEvent,
    DeadLetterRecord,
)
from infrasage.v1.telemetry_pb2 import SOURCE_NATIVE, TYPE_LOG, Receipt, TelemetryBatch
from support.batches import NOW, batch_id

from collector.records.dead_letter import item_id


def letter(number: int, index: int = 0, tenant_id: str = "tenant-a", **changes: Any) -> DeadLetter:
    """A gateway's, of the batch with this number. Kept now, or it would be too old to stay."""
    given: dict[str, Any] = {
        "id": item_id(batch_id(number), index),
        "tenant_id": tenant_id,
        "received_time_unix_nano": NOW,
        "kept_time_unix_nano": time.time_ns(),
        "source": SOURCE_NATIVE,
        "type": TYPE_LOG,
        "route": "/api/v1/telemetry",
        "reason": "missing_body",
        "message": "body is required",
        "service_id": "payment-api",
        "batch_id": batch_id(number),
        "item_index": index,
        "item_count": 1,
        "payload": b'{"n": "\x00\xff\\"}',
        "payload_form": PAYLOAD_FORM_NATIVE_JSON,
        "payload_size_bytes": 12,
    }
    return DeadLetter(**{**given, **changes})


def event(of: DeadLetter, action: DeadLetterAction, number: int = 0, at: int = 0, **changes: Any) -> DeadLetterEvent:
    """`at`: nanoseconds after the entry was kept."""
    given: dict[str, Any] = {
        "id": item_id(of.id, number),
        "dead_letter_id": of.id,
        "tenant_id": of.tenant_id,
        "action": action,
        "time_unix_nano": of.kept_time_unix_nano + at,
        "actor": "ada",
        "note": f"note {number}",
    }
    return DeadLetterEvent(**{**given, **changes})


def dead_letters(*of: DeadLetter | DeadLetterEvent) -> bytes:
    """A message."""
    records = [DeadLetterRecord(letter=one) if isinstance(one, DeadLetter) else DeadLetterRecord(event=one) for one in of]
    return DeadLetterBatch(records=records).SerializeToString()


def receipt(number: int, what: Receipt, tenant_id: str = "tenant-a", part: int = 0) -> bytes:
    """A message of a receipt alone."""
    batch = TelemetryBatch()
    batch.records.add(
        tenant_id=tenant_id,
        source=SOURCE_NATIVE,
        received_time_unix_nano=NOW,
        batch_id=batch_id(number),
        batch_part=part,
        receipt=what,
    )
    return batch.SerializeToString()


def any_receipt(failed: Sequence[tuple[int, int]] = ()) -> Receipt:
    """With every field set."""
    made = Receipt(
        route="/v1/logs", received=12, dead_letters=2, parts=3, process_id=b"p" * 16, sequence=2**63, settled=2**64 - 1
    )
    made.accepted.add(type=TYPE_LOG, items=5)
    made.accepted.add(type=4, items=2**40)  # event
    for type_, reason, items in ((1, "invalid_value", 1), (2, "missing_body", 2), (4, "missing_body", 4)):
        made.rejected.add(type=type_, reason=reason, items=items)
    for first, last in failed:
        made.failed.add(first=first, last=last)
    return made
