"""Messages as tests write and read them: flat, in the form of version 1, whose records have one scope and decoded items.

`encoded` makes a message of today of it, `flat` reads one.
"""

from typing import Any, Final

from infrasage.v1.telemetry_pb2 import SOURCE_OTLP, TYPE_EVENT, TYPE_LOG, TYPE_TRACE, TelemetryBatch, TelemetryRecord
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1, TelemetryRecordV1
from librt.strings import BytesWriter
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from adapters.codec.wire import Cursor, put_bytes
from adapters.record_tags import GROUP, RECORD
from adapters.record_upgrade import upgraded

_SAME: Final = ("tenant_id", "source", "type", "received_time_unix_nano", "batch_id", "service_id", "batch_part")


def encoded(batch: TelemetryBatchV1) -> bytes:
    """A message of today that says the same."""
    return upgraded(batch.SerializeToString())


def unpadded(payload: bytes, tag: int = RECORD) -> bytes:
    """A message whose lengths of records and groups are as short as can be, and that is the same otherwise."""
    cursor = Cursor(payload)
    writer = BytesWriter()
    while cursor.position < len(payload):
        at = cursor.position
        if cursor.field(len(payload)) == tag:
            content = payload[cursor.start : cursor.position]
            put_bytes(writer, tag, unpadded(content, GROUP) if tag == RECORD else content)
        else:
            writer.write(payload[at : cursor.position])
    return writer.getvalue()


def flat(payload: bytes) -> TelemetryBatchV1:
    """A record for each group of each record; of a record without items, one."""
    batch = TelemetryBatchV1()
    for record in TelemetryBatch.FromString(payload).records:
        batch.records.extend(flat_records(record))
    return batch


def flat_records(record: TelemetryRecord) -> list[TelemetryRecordV1]:
    found = []
    for group in record.groups:
        one = _alike(record)
        if group.HasField("scope"):
            one.scope.CopyFrom(group.scope)
        one.scope_schema_url = group.schema_url
        items: Any = getattr(one, signal_of(record))
        for item in group.items:
            items.add().ParseFromString(item)
        one.item_count = item_count(one)
        found.append(one)
    if found:
        return found
    one = _alike(record)
    one.item_count = record.item_count
    if record.HasField("receipt"):
        one.receipt.CopyFrom(record.receipt)
    one.fingerprint = record.fingerprint
    one.repeated_items = record.repeated_items
    return [one]


def signal_of(record: TelemetryRecord) -> str:
    """The field of a flat record that its items are in. Only OTLP has spans: the native API's traces are points."""
    if record.type in (TYPE_LOG, TYPE_EVENT):
        return "log_records"
    return "spans" if record.type == TYPE_TRACE and record.source == SOURCE_OTLP else "metrics"


def item_count(record: TelemetryRecordV1) -> int:
    return sum(map(point_count, record.metrics)) + len(record.log_records) + len(record.spans)


def point_count(metric: Metric) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind else 0


def _alike(record: TelemetryRecord) -> TelemetryRecordV1:
    one = TelemetryRecordV1(**{name: getattr(record, name) for name in _SAME})
    if record.HasField("resource"):
        one.resource.CopyFrom(record.resource)
    one.resource_schema_url = record.schema_url
    return one
