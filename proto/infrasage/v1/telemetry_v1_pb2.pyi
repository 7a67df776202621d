from infrasage.v1 import telemetry_pb2 as _telemetry_pb2
from opentelemetry.proto.common.v1 import common_pb2 as _common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2 as _logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2 as _metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2 as _resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2 as _trace_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TelemetryBatchV1(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[TelemetryRecordV1]
    def __init__(self, records: _Optional[_Iterable[_Union[TelemetryRecordV1, _Mapping]]] = ...) -> None: ...

class TelemetryRecordV1(_message.Message):
    __slots__ = ("tenant_id", "source", "type", "received_time_unix_nano", "batch_id", "service_id", "resource", "resource_schema_url", "scope", "scope_schema_url", "metrics", "log_records", "spans", "batch_part", "item_count", "receipt", "fingerprint", "repeated_items")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_TIME_UNIX_NANO_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_SCHEMA_URL_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_SCHEMA_URL_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LOG_RECORDS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    BATCH_PART_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    REPEATED_ITEMS_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    source: _telemetry_pb2.Source
    type: _telemetry_pb2.Type
    received_time_unix_nano: int
    batch_id: bytes
    service_id: str
    resource: _resource_pb2.Resource
    resource_schema_url: str
    scope: _common_pb2.InstrumentationScope
    scope_schema_url: str
    metrics: _containers.RepeatedCompositeFieldContainer[_metrics_pb2.Metric]
    log_records: _containers.RepeatedCompositeFieldContainer[_logs_pb2.LogRecord]
    spans: _containers.RepeatedCompositeFieldContainer[_trace_pb2.Span]
    batch_part: int
    item_count: int
    receipt: _telemetry_pb2.Receipt
    fingerprint: bytes
    repeated_items: int
    def __init__(self, tenant_id: _Optional[str] = ..., source: _Optional[_Union[_telemetry_pb2.Source, str]] = ..., type: _Optional[_Union[_telemetry_pb2.Type, str]] = ..., received_time_unix_nano: _Optional[int] = ..., batch_id: _Optional[bytes] = ..., service_id: _Optional[str] = ..., resource: _Optional[_Union[_resource_pb2.Resource, _Mapping]] = ..., resource_schema_url: _Optional[str] = ..., scope: _Optional[_Union[_common_pb2.InstrumentationScope, _Mapping]] = ..., scope_schema_url: _Optional[str] = ..., metrics: _Optional[_Iterable[_Union[_metrics_pb2.Metric, _Mapping]]] = ..., log_records: _Optional[_Iterable[_Union[_logs_pb2.LogRecord, _Mapping]]] = ..., spans: _Optional[_Iterable[_Union[_trace_pb2.Span, _Mapping]]] = ..., batch_part: _Optional[int] = ..., item_count: _Optional[int] = ..., receipt: _Optional[_Union[_telemetry_pb2.Receipt, _Mapping]] = ..., fingerprint: _Optional[bytes] = ..., repeated_items: _Optional[int] = ...) -> None: ...
