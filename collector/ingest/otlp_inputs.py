"""The adapters of OTLP, by encoding and signal: for bodies of requests, and for messages of topics that others write."""

from typing import Final

from infrasage.v1.dead_letter_pb2 import (
    PAYLOAD_FORM_OTLP_LOGS,
    PAYLOAD_FORM_OTLP_METRICS,
    PAYLOAD_FORM_OTLP_TRACES,
    PayloadForm,
)

import adapters.otlp.json
import adapters.otlp.logs
import adapters.otlp.metrics
import adapters.otlp.traces
from adapters.record import LOGS, METRICS, TRACES, Adapted, Header
from adapters.rules import Rules
from collector.ingest.reading import Adapt


def _metrics_json(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    wire = adapters.otlp.json.metrics_to_wire(body, rules)
    return adapters.otlp.metrics.adapt(wire, header, rules, message_bytes_max)


def _logs_json(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    wire = adapters.otlp.json.logs_to_wire(body, rules)
    return adapters.otlp.logs.adapt(wire, header, rules, message_bytes_max)


def _traces_json(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    wire = adapters.otlp.json.traces_to_wire(body, rules)
    return adapters.otlp.traces.adapt(wire, header, rules, message_bytes_max)


OTLP_FORMS: Final[dict[int, PayloadForm]] = {
    METRICS: PAYLOAD_FORM_OTLP_METRICS,
    LOGS: PAYLOAD_FORM_OTLP_LOGS,
    TRACES: PAYLOAD_FORM_OTLP_TRACES,
}
OTLP_PROTOBUF: Final[dict[int, Adapt]] = {
    METRICS: adapters.otlp.metrics.adapt,
    LOGS: adapters.otlp.logs.adapt,
    TRACES: adapters.otlp.traces.adapt,
}
OTLP_JSON: Final[dict[int, Adapt]] = {METRICS: _metrics_json, LOGS: _logs_json, TRACES: _traces_json}
