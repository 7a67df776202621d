"""A metric's type, help and unit from its sender, as OTLP's Metric has them.

Help is the description, and unit the unit. The type, in Prometheus's own word, is kept in the metric's metadata as
prometheus.type, which is where OpenTelemetry's receivers put it. 1.0 and 2.0 number the types alike.
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
    """A metric's type, and fields 2, 3 and 12 of Metric, encoded: nothing, where nothing is known. It was sent as start:end of
    the body."""

    def __init__(self, type_: i64, help_: bytes, unit: bytes, start: i64, end: i64) -> None:
        """A type that has no name here, of a later version, is as good as none."""
        self.start: i64 = start
        self.end: i64 = end
        self.type: i64 = type_
        # How many of its texts are not in the table of 2.0, and are left out.
        self.lost: i64 = 0
        # An item has it, taken or rejected.
        self.has_item: bool = False
        fields = BytesWriter()
        if help_:
            put_bytes(fields, 0x12, help_)
        if unit:
            put_bytes(fields, 0x1A, unit)
        if 0 < type_ < len(_TYPE_NAMES):
            put_attribute(fields, METADATA_TAG, b"prometheus.type", _TYPE_NAMES[type_])
        self.fields: bytes = fields.getvalue()
