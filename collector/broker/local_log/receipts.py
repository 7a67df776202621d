"""Read the receipt in a message, which names its request. Used only if messages are damaged or lost."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf.message import DecodeError

from adapters.codec.wire import NonCanonical
from adapters.record_headers import record_headers
from adapters.record_upgrade import current


def receipt_of(payload: bytes) -> Mapping[str, Any] | None:
    """Return the last request of a message, for reports; None if the message has no readable receipt."""
    from infrasage.v1.telemetry_pb2 import Receipt  # noqa: PLC0415  # a log without damage does not need it

    try:
        headers = record_headers(current(payload))
    except NonCanonical:
        return None
    for header in reversed(headers):
        if header.receipt is not None and len(header.batch_id) == 16:
            try:
                receipt = Receipt.FromString(header.receipt)
            except DecodeError:
                return None
            received = datetime.fromtimestamp(header.received_time_unix_nano / 1e9, UTC)
            return {
                "batch_id": str(UUID(bytes=header.batch_id)),
                "process": receipt.process_id.hex(),
                "sequence": receipt.sequence,
                "received_at": received.isoformat(timespec="milliseconds"),
            }
    return None
