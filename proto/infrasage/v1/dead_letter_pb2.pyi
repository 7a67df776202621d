from infrasage.v1 import telemetry_pb2 as _telemetry_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PayloadForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAYLOAD_FORM_UNSPECIFIED: _ClassVar[PayloadForm]
    PAYLOAD_FORM_NATIVE_JSON: _ClassVar[PayloadForm]
    PAYLOAD_FORM_OTLP_METRICS: _ClassVar[PayloadForm]
    PAYLOAD_FORM_OTLP_LOGS: _ClassVar[PayloadForm]
    PAYLOAD_FORM_OTLP_TRACES: _ClassVar[PayloadForm]
    PAYLOAD_FORM_PROMETHEUS_WRITE_V1: _ClassVar[PayloadForm]
    PAYLOAD_FORM_PROMETHEUS_WRITE_V2: _ClassVar[PayloadForm]
    PAYLOAD_FORM_TELEMETRY_BATCH: _ClassVar[PayloadForm]
    PAYLOAD_FORM_UNREADABLE: _ClassVar[PayloadForm]
    PAYLOAD_FORM_REQUEST: _ClassVar[PayloadForm]

class DeadLetterAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEAD_LETTER_ACTION_UNSPECIFIED: _ClassVar[DeadLetterAction]
    DEAD_LETTER_ACTION_REPLAYED: _ClassVar[DeadLetterAction]
    DEAD_LETTER_ACTION_REJECTED_AGAIN: _ClassVar[DeadLetterAction]
    DEAD_LETTER_ACTION_DISCARDED: _ClassVar[DeadLetterAction]
PAYLOAD_FORM_UNSPECIFIED: PayloadForm
PAYLOAD_FORM_NATIVE_JSON: PayloadForm
PAYLOAD_FORM_OTLP_METRICS: PayloadForm
PAYLOAD_FORM_OTLP_LOGS: PayloadForm
PAYLOAD_FORM_OTLP_TRACES: PayloadForm
PAYLOAD_FORM_PROMETHEUS_WRITE_V1: PayloadForm
PAYLOAD_FORM_PROMETHEUS_WRITE_V2: PayloadForm
PAYLOAD_FORM_TELEMETRY_BATCH: PayloadForm
PAYLOAD_FORM_UNREADABLE: PayloadForm
PAYLOAD_FORM_REQUEST: PayloadForm
DEAD_LETTER_ACTION_UNSPECIFIED: DeadLetterAction
DEAD_LETTER_ACTION_REPLAYED: DeadLetterAction
DEAD_LETTER_ACTION_REJECTED_AGAIN: DeadLetterAction
DEAD_LETTER_ACTION_DISCARDED: DeadLetterAction

class DeadLetterBatch(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[DeadLetterRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[DeadLetterRecord, _Mapping]]] = ...) -> None: ...

class DeadLetterRecord(_message.Message):
    __slots__ = ("letter", "event")
    LETTER_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    letter: DeadLetter
    event: DeadLetterEvent
    def __init__(self, letter: _Optional[_Union[DeadLetter, _Mapping]] = ..., event: _Optional[_Union[DeadLetterEvent, _Mapping]] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("topic", "partition", "offset", "error", "payload", "id", "tenant_id", "received_time_unix_nano", "kept_time_unix_nano", "source", "type", "route", "reason", "message", "service_id", "batch_id", "item_index", "record_index", "item_count", "payload_form", "payload_size_bytes")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_TIME_UNIX_NANO_FIELD_NUMBER: _ClassVar[int]
    KEPT_TIME_UNIX_NANO_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_INDEX_FIELD_NUMBER: _ClassVar[int]
    RECORD_INDEX_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FORM_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offset: int
    error: str
    payload: bytes
    id: bytes
    tenant_id: str
    received_time_unix_nano: int
    kept_time_unix_nano: int
    source: _telemetry_pb2.Source
    type: _telemetry_pb2.Type
    route: str
    reason: str
    message: str
    service_id: str
    batch_id: bytes
    item_index: int
    record_index: int
    item_count: int
    payload_form: PayloadForm
    payload_size_bytes: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., error: _Optional[str] = ..., payload: _Optional[bytes] = ..., id: _Optional[bytes] = ..., tenant_id: _Optional[str] = ..., received_time_unix_nano: _Optional[int] = ..., kept_time_unix_nano: _Optional[int] = ..., source: _Optional[_Union[_telemetry_pb2.Source, str]] = ..., type: _Optional[_Union[_telemetry_pb2.Type, str]] = ..., route: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., service_id: _Optional[str] = ..., batch_id: _Optional[bytes] = ..., item_index: _Optional[int] = ..., record_index: _Optional[int] = ..., item_count: _Optional[int] = ..., payload_form: _Optional[_Union[PayloadForm, str]] = ..., payload_size_bytes: _Optional[int] = ...) -> None: ...

class DeadLetterEvent(_message.Message):
    __slots__ = ("id", "dead_letter_id", "tenant_id", "action", "time_unix_nano", "actor", "note", "reason", "message", "batch_id", "topic", "payload")
    ID_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTER_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TIME_UNIX_NANO_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    dead_letter_id: bytes
    tenant_id: str
    action: DeadLetterAction
    time_unix_nano: int
    actor: str
    note: str
    reason: str
    message: str
    batch_id: bytes
    topic: str
    payload: bytes
    def __init__(self, id: _Optional[bytes] = ..., dead_letter_id: _Optional[bytes] = ..., tenant_id: _Optional[str] = ..., action: _Optional[_Union[DeadLetterAction, str]] = ..., time_unix_nano: _Optional[int] = ..., actor: _Optional[str] = ..., note: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., batch_id: _Optional[bytes] = ..., topic: _Optional[str] = ..., payload: _Optional[bytes] = ...) -> None: ...
