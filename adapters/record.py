"""The result of an adapter: messages of records, the rejected items, and the counts of both. And the header that all records
of a request share."""

from typing import Final

from librt.strings import BytesWriter, write_i64_le
from mypy_extensions import i64

from adapters.codec.wire import put_bytes, put_varint, varint_size
from adapters.record_tags import (
    BATCH_ID,
    RECEIVED,
    RECORD_VERSION,
    SOURCE,
    TENANT,
    VERSION,
)

# The values of infrasage.v1.Type.
TYPE_METRIC: Final = 1
TYPE_LOG: Final = 2
TYPE_TRACE: Final = 3
TYPE_EVENT: Final = 4
TYPE_PROFILE: Final = 5
TYPE_SLO: Final = 6
TYPE_NAMES: Final = ("unspecified", "metric", "log", "trace", "event", "profile", "slo")

# The values of infrasage.v1.Source.
SOURCE_NATIVE: Final = 1
SOURCE_OTLP: Final = 2
SOURCE_PROMETHEUS_WRITE_V1: Final = 3
SOURCE_PROMETHEUS_WRITE_V2: Final = 4

# A signal decides a message's topic and the type of its items: Metrics, LogRecords or Spans.
METRICS: Final = 11
LOGS: Final = 12
TRACES: Final = 13

# At most this many rejections are reported one by one, with their payloads; more are only counted by reason.
REJECTIONS_KEPT_MAX: Final = 10_000

UNKNOWN_SERVICE: Final = b"unknown_service"


def put_attribute(writer: BytesWriter, tag: i64, key: bytes, text: bytes) -> None:
    """Write a KeyValue in the normal form, with a string as its value, as field `tag`, which is below 128."""
    key_bytes: i64 = len(key)
    text_bytes: i64 = len(text)
    value_bytes: i64 = 1 + varint_size(text_bytes) + text_bytes
    writer.append(int(tag))
    if key_bytes:
        put_varint(writer, 2 + varint_size(key_bytes) + key_bytes + varint_size(value_bytes) + value_bytes)
        writer.append(0x0A)
        put_varint(writer, key_bytes)
        writer.write(key)
    else:
        put_varint(writer, 1 + varint_size(value_bytes) + value_bytes)
    writer.append(0x12)
    put_varint(writer, value_bytes)
    writer.append(0x0A)
    put_varint(writer, text_bytes)
    writer.write(text)


class Header:
    """A `Header` holds the fields that all records of a request share, encoded once: the version, and most of the header."""

    def __init__(self, tenant_id: str, source: int, received_time_unix_nano: int, batch_id: bytes) -> None:
        """Encode the fields. `batch_id` has 16 bytes."""
        writer = BytesWriter()
        put_varint(writer, VERSION)
        put_varint(writer, RECORD_VERSION)
        put_bytes(writer, TENANT, tenant_id.encode())
        put_varint(writer, SOURCE)
        put_varint(writer, source)
        put_varint(writer, RECEIVED)
        write_i64_le(writer, received_time_unix_nano)
        put_bytes(writer, BATCH_ID, batch_id)
        self.prefix: bytes = writer.getvalue()
        self.received_time_unix_nano: int = received_time_unix_nano


class Part:
    """A `Part` is one message for one topic: a serialized TelemetryBatch. adapters.rows.row_bytes returns its `row_bytes`;
    `fingerprint` is empty if its repetitions are not recognized."""

    def __init__(self, signal: int, payload: bytes, item_count: int, row_bytes: int, fingerprint: bytes = b"") -> None:
        self.signal: Final = signal
        self.item_count: Final = item_count
        self.row_bytes: Final = row_bytes
        self.fingerprint: Final = fingerprint
        self._payload = payload
        self._writer: BytesWriter | None = None

    @staticmethod
    def written(signal: int, writer: BytesWriter, item_count: int, row_bytes: int) -> "Part":
        """Return a part whose payload is in a writer, so that one more record can be appended before it is copied."""
        part = Part(signal, b"", item_count, row_bytes)
        part._writer = writer
        return part

    @property
    def payload(self) -> bytes:
        writer = self._writer
        if writer is not None:
            self._payload = writer.getvalue()
            self._writer = None
        return self._payload

    @property
    def payload_bytes(self) -> int:
        writer = self._writer
        return len(self._payload) if writer is None else len(writer)

    def with_record(self, record: bytes, row_bytes: int, fingerprint: bytes) -> "Part":
        """Return this message with one more record, a serialized TelemetryBatch whose rows have `row_bytes` bytes."""
        writer = self._writer
        if writer is None:
            payload = self._payload + record
        else:
            # Both parts have the longer payload then: a large message is not copied twice.
            writer.write(record)
            payload = self.payload
        return Part(self.signal, payload, self.item_count, self.row_bytes + row_bytes, fingerprint)


class Rejection:
    """A `Rejection` describes one rejected item.

    `index` counts the request's items from 0. `service_id` is the service under which the item would have been stored (OTLP,
    remote write: unknown_service if none is named); it is empty if a record names none, or one whose name is too long.
    `payload` is the item in its adapter's own form, which the adapter's docstring describes; it is empty if the budget for
    payloads was spent. `payload_bytes` is the payload's whole size: if no message can hold it, only its beginning is kept.
    """

    def __init__(
        self,
        index: int,
        type_: int,
        reason: int,
        message: str,
        service_id: bytes = b"",
        payload: bytes = b"",
        payload_bytes: int = 0,
    ) -> None:
        self.index: Final = index
        self.type: Final = type_
        self.reason: Final = reason
        self.message: Final = message
        self.service_id: Final = service_id
        self.payload: Final = payload
        self.payload_bytes: Final = payload_bytes or len(payload)


class Adapted:
    """An `Adapted` holds the results for all items of a request."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        # The bytes of all parts' rows.
        self.row_bytes: int = 0
        # The number of accepted items by type: the index is a TYPE_ constant.
        self.accepted: list[int] = [0, 0, 0, 0, 0, 0, 0]
        # The number of rejected items by (type, reason); and the first REJECTIONS_KEPT_MAX of them.
        self.rejected: dict[tuple[int, int], int] = {}
        self.rejections: list[Rejection] = []
        # The number of repairs by kind (adapters/repairs.py).
        self.repaired: dict[int, int] | None = None
        # If a request that is not empty has no items: its unknown fields; else the fields that would hold items elsewhere.
        self.unknown_fields: list[str] | None = None
        # The number of rejections that have a payload, and the bytes of these payloads.
        self.dead_letter_items: int = 0
        self.dead_letter_bytes: int = 0
        # The number of rejected items that can never be kept as dead letters.
        self.not_kept: int = 0
        # Remote write's answers count what was accepted by kind; other protocols do not set these.
        self.samples: int = 0
        self.histograms: int = 0
        self.exemplars: int = 0

    # These are loops, since `sum` over a compiled generator takes 1,100 instructions, and a loop 100.

    def accepted_count(self) -> int:
        count = 0
        for items in self.accepted:
            count += items
        return count

    def rejected_count(self) -> int:
        count = 0
        for items in self.rejected.values():
            count += items
        return count
