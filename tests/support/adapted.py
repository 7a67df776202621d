"""What tests of adapters look at in what those return."""

import struct

from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support.records import flat

from adapters.record import Adapted


def batch_of(adapted: Adapted) -> TelemetryBatchV1:
    """All of its messages, as one, flat."""
    return flat(b"".join(part.payload for part in adapted.parts))


def reasons(adapted: Adapted) -> list[tuple[int, int]]:
    """(index, reason) of each rejection that is reported."""
    return [(rejection.index, rejection.reason) for rejection in adapted.rejections]


def bits(value: float) -> bytes:
    """Of a double: NaN is not equal to NaN."""
    return struct.pack("<d", value)
