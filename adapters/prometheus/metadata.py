"""Convert a metric's type, help and unit from its sender to fields of OTLP's Metric.

The help becomes the description, and the unit stays the unit. The type, as Prometheus's own word, becomes the metric's
metadata prometheus.type, as in OpenTelemetry's receivers. 1.0 and 2.0 use the same numbers for the types.
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.wire import put_bytes
from adapters.record import put_attribute

COUNTER: Final = 1
HISTOGRAM: Final = 3
SUMMARY: Final = 5

# Metric.metadata
METADATA_TAG: Final = 0x62

_TYPE_NAMES: Final = (b"", b"counter", b"gauge", b"histogram", b"gaugehistogram", b"summary", b"info", b"stateset")


class Description:
    """A `Description` holds a metric's type, and the encoded fields 2, 3 and 12 of Metric; empty if none is known. It was sent
    as start:end of the body."""

    def __init__(self, type_: i64, help_: bytes, unit: bytes, start: i64, end: i64) -> None:
        """Encode the fields. A type that has no name here, from a later version, is ignored."""
        self.start: i64 = start
        self.end: i64 = end
        self.type: i64 = type_
        # The number of its texts that are not in the table of 2.0, and are left out.
        self.lost: i64 = 0
        # Whether an item, accepted or rejected, has this description.
        self.has_item: bool = False
        fields = BytesWriter()
        if help_:
            put_bytes(fields, 0x12, help_)
        if unit:
            put_bytes(fields, 0x1A, unit)
        if 0 < type_ < len(_TYPE_NAMES):
            put_attribute(fields, METADATA_TAG, b"prometheus.type", _TYPE_NAMES[type_])
        self.fields: bytes = fields.getvalue()
