from opentelemetry.proto.common.v1 import common_pb2 as _common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2 as _resource_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_NATIVE: _ClassVar[Source]
    SOURCE_OTLP: _ClassVar[Source]
    SOURCE_PROMETHEUS_WRITE_V1: _ClassVar[Source]
    SOURCE_PROMETHEUS_WRITE_V2: _ClassVar[Source]

class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TYPE_UNSPECIFIED: _ClassVar[Type]
    TYPE_METRIC: _ClassVar[Type]
    TYPE_LOG: _ClassVar[Type]
    TYPE_TRACE: _ClassVar[Type]
    TYPE_EVENT: _ClassVar[Type]
    TYPE_PROFILE: _ClassVar[Type]
    TYPE_SLO: _ClassVar[Type]
SOURCE_UNSPECIFIED: Source
SOURCE_NATIVE: Source
SOURCE_OTLP: Source
SOURCE_PROMETHEUS_WRITE_V1: Source
SOURCE_PROMETHEUS_WRITE_V2: Source
TYPE_UNSPECIFIED: Type
TYPE_METRIC: Type
TYPE_LOG: Type
TYPE_TRACE: Type
TYPE_EVENT: Type
TYPE_PROFILE: Type
TYPE_SLO: Type

class TelemetryBatch(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[TelemetryRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[TelemetryRecord, _Mapping]]] = ...) -> None: ...

class TelemetryRecord(_message.Message):
    __slots__ = ("version", "tenant_id", "source", "type", "received_time_unix_nano", "batch_id", "service_id", "resource", "groups", "schema_url", "batch_part", "item_count", "receipt", "fingerprint", "repeated_items")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_TIME_UNIX_NANO_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_URL_FIELD_NUMBER: _ClassVar[int]
    BATCH_PART_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    REPEATED_ITEMS_FIELD_NUMBER: _ClassVar[int]
    version: int
    tenant_id: str
    source: Source
    type: Type
    received_time_unix_nano: int
    batch_id: bytes
    service_id: str
    resource: _resource_pb2.Resource
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    schema_url: str
    batch_part: int
    item_count: int
    receipt: Receipt
    fingerprint: bytes
    repeated_items: int
    def __init__(self, version: _Optional[int] = ..., tenant_id: _Optional[str] = ..., source: _Optional[_Union[Source, str]] = ..., type: _Optional[_Union[Type, str]] = ..., received_time_unix_nano: _Optional[int] = ..., batch_id: _Optional[bytes] = ..., service_id: _Optional[str] = ..., resource: _Optional[_Union[_resource_pb2.Resource, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ..., schema_url: _Optional[str] = ..., batch_part: _Optional[int] = ..., item_count: _Optional[int] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., fingerprint: _Optional[bytes] = ..., repeated_items: _Optional[int] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("scope", "items", "schema_url")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_URL_FIELD_NUMBER: _ClassVar[int]
    scope: _common_pb2.InstrumentationScope
    items: _containers.RepeatedScalarFieldContainer[bytes]
    schema_url: str
    def __init__(self, scope: _Optional[_Union[_common_pb2.InstrumentationScope, _Mapping]] = ..., items: _Optional[_Iterable[bytes]] = ..., schema_url: _Optional[str] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("route", "received", "accepted", "rejected", "dead_letters", "parts", "process_id", "sequence", "settled", "failed", "repaired")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    REPAIRED_FIELD_NUMBER: _ClassVar[int]
    route: str
    received: int
    accepted: _containers.RepeatedCompositeFieldContainer[AcceptedItems]
    rejected: _containers.RepeatedCompositeFieldContainer[RejectedItems]
    dead_letters: int
    parts: int
    process_id: bytes
    sequence: int
    settled: int
    failed: _containers.RepeatedCompositeFieldContainer[SequenceRange]
    repaired: _containers.RepeatedCompositeFieldContainer[Repaired]
    def __init__(self, route: _Optional[str] = ..., received: _Optional[int] = ..., accepted: _Optional[_Iterable[_Union[AcceptedItems, _Mapping]]] = ..., rejected: _Optional[_Iterable[_Union[RejectedItems, _Mapping]]] = ..., dead_letters: _Optional[int] = ..., parts: _Optional[int] = ..., process_id: _Optional[bytes] = ..., sequence: _Optional[int] = ..., settled: _Optional[int] = ..., failed: _Optional[_Iterable[_Union[SequenceRange, _Mapping]]] = ..., repaired: _Optional[_Iterable[_Union[Repaired, _Mapping]]] = ...) -> None: ...

class Repaired(_message.Message):
    __slots__ = ("reason", "count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    count: int
    def __init__(self, reason: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class AcceptedItems(_message.Message):
    __slots__ = ("type", "items")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    type: Type
    items: int
    def __init__(self, type: _Optional[_Union[Type, str]] = ..., items: _Optional[int] = ...) -> None: ...

class RejectedItems(_message.Message):
    __slots__ = ("type", "reason", "items")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    type: Type
    reason: str
    items: int
    def __init__(self, type: _Optional[_Union[Type, str]] = ..., reason: _Optional[str] = ..., items: _Optional[int] = ...) -> None: ...

class SequenceRange(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...
