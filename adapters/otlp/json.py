"""Convert OTLP/JSON to OTLP/protobuf, so that one adapter serves both.

OTLP's own rules apply if they differ from protobuf's JSON mapping (the OTLP specification, "JSON Protobuf Encoding"): trace
and span ids are hex in any case, enums are integers only, keys are lowerCamelCase only, and unknown keys are ignored. With
`Rules.json_forms`, names of enums and keys in snake_case are also read, as in the OpenTelemetry Collector. 64-bit integers are
numbers or strings, doubles may be "NaN", "Infinity" and "-Infinity", and null is absent. If a member with items is repeated in
one object, all of its values are read, as in the Collector; of any other member, the last value counts. Ids in base64, ids and
bytes as numbers, and NaN and infinities without quotes are read and counted as repairs.

Nearly every body is read in one pass from its bytes (adapters/otlp/json_scan.py). A body that is not plain is read by way of
Python objects (adapters/otlp/json_large.py), and that reader decides.

Invariants:
1. JSON is converted to the protobuf of the same request (test_json_means_the_same_request).
2. A value that does not fit rejects its own item only (test_what_does_not_fit_rejects_its_item_alone). A value of a resource,
   a scope or a metric, which belongs to many items, is left out (test_what_does_not_fit_an_envelope_is_left_out).
3. A body that is read in one pass becomes the same bytes as in the reader over objects
   (tests/unit/adapters/otlp/test_json_scan.py, test_both_readers_agree).
"""

from google.protobuf.descriptor import Descriptor
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapters.codec.json_numbers import quote_constants, quote_long_numbers, with_minus_zeros
from adapters.codec.json_parts import check_json_parts
from adapters.codec.json_reader import shallow_json
from adapters.codec.json_repair import repaired_json
from adapters.codec.text import without_bom
from adapters.errors import Malformed
from adapters.otlp.json_large import converted, may_repeat_members
from adapters.otlp.json_notes import Inexact, Notes
from adapters.otlp.json_scan import scanned
from adapters.repairs import BYTES_FORM, ID_DROPPED, INTEGER_BEYOND_64_BITS, NULL_LIST_ENTRY, NUMBER_FORM, VALUE_LEFT_OUT
from adapters.rules import NO_RULES, Rules


def _to_wire(body: bytes, descriptor: Descriptor, rules: Rules, *, is_exact: bool = False, is_repaired: bool = False) -> bytes:
    """Return the message that the JSON describes, serialized. `is_exact` means that the numbers that a parser can't hold are in
    quotes, and `is_repaired` that the body has been repaired. Raises Malformed, RequestRefused."""
    check_json_parts(body, rules.request_elements_max, rules)
    notes = Notes(rules, is_exact=is_exact)
    wire = scanned(body, descriptor, rules, notes)
    if wire is None:
        body = with_minus_zeros(body, rules)
        notes = Notes(rules, is_exact=is_exact)
        try:
            wire = converted(body, descriptor, rules, notes)
            if may_repeat_members(body, descriptor, rules, notes):
                notes = Notes(rules, is_exact=is_exact)
                wire = converted(body, descriptor, rules, notes, is_walked=True)
        except Inexact:
            return _to_wire(quote_long_numbers(body, rules), descriptor, rules, is_exact=True, is_repaired=is_repaired)
        except Malformed:
            if is_repaired:
                raise
            repaired = shallow_json(repaired_json(body, rules), rules)
            quoted = quote_constants(repaired, rules, b"")
            constants = (len(quoted) - len(repaired)) // 2
            if constants:
                repaired = quoted
                rules.repair(NUMBER_FORM, constants)
            if repaired is body:
                raise
            return _to_wire(repaired, descriptor, rules, is_exact=is_exact, is_repaired=True)
    if notes.nulls:
        rules.repair(NULL_LIST_ENTRY, notes.nulls)
    if notes.unknown:
        rules.unknown_fields = notes.unknown
    if notes.misplaced:
        rules.misplaced_fields = list(notes.misplaced.values())
    if notes.ids:
        rules.repair(ID_DROPPED, notes.ids)
    if notes.forms:
        rules.repair(BYTES_FORM, notes.forms)
    if notes.integers:
        rules.repair(INTEGER_BEYOND_64_BITS, notes.integers)
    if notes.left_out:
        rules.repair(VALUE_LEFT_OUT, notes.left_out)
    return wire


def metrics_to_wire(body: bytes, rules: Rules = NO_RULES) -> bytes:
    """Return the serialized ExportMetricsServiceRequest that the JSON in `body` describes. Raises Malformed, RequestRefused."""
    return _to_wire(without_bom(body, rules), ExportMetricsServiceRequest.DESCRIPTOR, rules)


def logs_to_wire(body: bytes, rules: Rules = NO_RULES) -> bytes:
    """Return the serialized ExportLogsServiceRequest that the JSON in `body` describes. Raises Malformed, RequestRefused."""
    return _to_wire(without_bom(body, rules), ExportLogsServiceRequest.DESCRIPTOR, rules)


def traces_to_wire(body: bytes, rules: Rules = NO_RULES) -> bytes:
    """Return the serialized ExportTraceServiceRequest that the JSON in `body` describes. Raises Malformed, RequestRefused."""
    return _to_wire(without_bom(body, rules), ExportTraceServiceRequest.DESCRIPTOR, rules)
