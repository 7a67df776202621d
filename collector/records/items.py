"""The types of a record's items, which are encoded in a record of any signal."""

from collections.abc import Mapping
from typing import Final

from google.protobuf.message import Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC

ITEM_MESSAGES: Final[Mapping[str, type[Message]]] = {METRICS_TOPIC: Metric, LOGS_TOPIC: LogRecord, TRACES_TOPIC: Span}
"""The type of the items, by topic."""
