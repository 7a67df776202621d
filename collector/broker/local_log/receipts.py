"""The receipt in a message: which request it is of. Read only where messages are damaged or lost."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf.message import DecodeError


def receipt_of(payload: bytes) -> Mapping[str, Any] | None:
    """Return what names the last request of a message; None where it has no receipt that can be read."""
    from infrasage.v1.telemetry_pb2 import TelemetryBatch  # noqa: PLC0415  # a log without damage does not need it

    try:
        records = TelemetryBatch.FromString(payload).records
    except DecodeError:
        return None
    for record in reversed(records):
        if record.HasField("receipt") and len(record.batch_id) == 16:
            received = datetime.fromtimestamp(record.received_time_unix_nano / 1e9, UTC)
            return {
                "batch_id": str(UUID(bytes=record.batch_id)),
                "process": record.receipt.process_id.hex(),
                "sequence": record.receipt.sequence,
                "received_at": received.isoformat(timespec="milliseconds"),
            }
    return None
