"""adapters/otlp/json: OTLP/JSON means the same request as its protobuf twin."""

import json
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.adapted import batch_of
from support.examples import examples
from support.limits import DEFAULT, LOW, LOW_BUT_VALUES, LOW_CUMULATIVE
from support.references.otlp import REQUESTS
from support.references.otlp_json import to_json
from support.references.twins import NOW, adapt_otlp
from support.strategies.full_messages import FullMessages
from support.strategies.otlp import messages

from adapters.codec.json_reader import SLICE_BYTES
from adapters.errors import (
    INVALID_JSON,
    INVALID_RECORD,
    INVALID_TIMESTAMP,
    INVALID_VALUE,
    NESTED_TOO_DEEP,
    PAYLOAD_TOO_LARGE,
    Malformed,
    RequestRefused,
)
from adapters.otlp.json import logs_to_wire, metrics_to_wire, traces_to_wire
from adapters.otlp.json_fields import ENUM_NAMES, SNAKE_CASE
from adapters.record import REJECTIONS_KEPT_MAX
from adapters.repairs import EXEMPLAR_DROPPED, INVALID_TEXT, NUMBER_FORM, TEMPORALITY_ASSUMED, VALUE_LEFT_OUT
from adapters.rules import Rules
from collector.ingest.validate import LimitRules

ITEM_LISTS = ("logRecords", "spans", "dataPoints")
TO_WIRE = {"metrics": metrics_to_wire, "logs": logs_to_wire, "traces": traces_to_wire}


@pytest.mark.parametrize("signal", sorted(TO_WIRE))
@examples(40)
@given(data=st.data())
def test_json_means_the_same_request(signal: str, data: st.DataObject) -> None:
    """Every field of every message comes through, 64-bit integers and the doubles that JSON lacks included."""
    request = data.draw(messages(REQUESTS[signal].DESCRIPTOR))
    document = to_json(request, lambda: data.draw(st.booleans()))
    text = json.dumps(document, ensure_ascii=data.draw(st.booleans()))
    actual = REQUESTS[signal].FromString(TO_WIRE[signal](text.encode()))
    # Equal but for NaN's payload, which JSON can't carry; what is left over is compared as text.
    assert str(request) == str(actual)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Of each member of a document, and of all objects in it, the way to it; of those in lists, those of the first."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield (*path, key)
            yield from places(member, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def changed(document: Any, path: Sequence[str | int], value: Any) -> bytes:
    """A document with another value there; ...: without the member."""
    copy = json.loads(json.dumps(document))
    parent = copy
    for step in path[:-1]:
        parent = parent[step]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return json.dumps(copy).encode()


@pytest.mark.parametrize("signal", sorted(REQUESTS))
def test_null_is_absent_and_an_empty_list_is_none(signal: str) -> None:
    """Each field is tried: the result is the same to the byte as without it. A null in a list is left out."""
    descriptor: Any = REQUESTS[signal].DESCRIPTOR
    document = to_json(FullMessages(lambda _field, _turn: None).message(descriptor))
    to_wire = TO_WIRE[signal]
    lists = 0
    for path in places(document):
        without = to_wire(changed(document, path, ...))
        assert (path, to_wire(changed(document, path, None))) == (path, without)
        value: Any = document
        for step in path:
            value = value[step]
        if isinstance(value, list):
            lists += 1
            assert (path, to_wire(changed(document, path, []))) == (path, without)
            assert (path, to_wire(changed(document, path, [None]))) == (path, without)
            assert (path, to_wire(changed(document, path, [None, *value, None]))) == (
                path,
                to_wire(json.dumps(document).encode()),
            )
    assert lists > 5


def span(text: str) -> str:
    return f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{text}]}}]}}]}}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name":null,"kind":2}', {"kind": 2}),
        ('{"trace_id":"00","start_time_unix_nano":1,"unknown":{"deep":[{}]}}', {}),
        ('{"startTimeUnixNano":"18446744073709551615"}', {"start_time_unix_nano": 2**64 - 1}),
        ('{"startTimeUnixNano":18446744073709551615}', {"start_time_unix_nano": 2**64 - 1}),
        ('{"startTimeUnixNano":1e3}', {"start_time_unix_nano": 1000}),
        ('{"flags":4294967295}', {"flags": 2**32 - 1}),
        ('{"name":"a","name":"b"}', {"name": "b"}),
    ],
)
def test_what_the_specification_allows(text: str, expected: dict[str, Any]) -> None:
    """null is absent, snake_case is unknown, unknown is ignored, integers may be strings, the last key wins."""
    request = ExportTraceServiceRequest.FromString(traces_to_wire(span(text).encode()))
    actual = {field.name: value for field, value in request.resource_spans[0].scope_spans[0].spans[0].ListFields()}
    assert expected == actual


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '{"kind":"SPAN_KIND_SERVER"}',
            'Span.kind must be an enum\'s integer from -2147483648 to 2147483647; got "SPAN_KIND_SERVER"',
        ),
        ('{"traceId":"xyz"}', 'Span.traceId must be hex; got "xyz"'),
        ('{"traceId":5}', "Span.traceId must be hex; got 5"),
        ('{"name":5}', "Span.name must be a string; got 5"),
        ('{"startTimeUnixNano":-1}', "Span.startTimeUnixNano must be an integer from 0 to 18446744073709551615; got -1"),
        ('{"startTimeUnixNano":"18446744073709551616"}', "from 0 to 18446744073709551615"),
        ('{"startTimeUnixNano":1.5}', "got 1.5"),
        ('{"startTimeUnixNano":true}', "got true"),
        ('{"startTimeUnixNano":" 1 "}', "Span.startTimeUnixNano must be"),
        ('{"startTimeUnixNano":"%s"}' % ("9" * 1_000_000), "Span.startTimeUnixNano must be"),
        ('{"attributes":{"a":1}}', 'Span.attributes must be an array; got {"a":1}'),
        (
            '{"attributes":{"a":%s}}' % ("[" * 290 + "]" * 290),
            "Span.attributes must be an array; got a value that is nested too",
        ),
        ('{"status":[1]}', "Span.status must be an object; got [1]"),
        ('{"attributes":[{"key":"a","value":{"boolValue":1}}]}', "AnyValue.boolValue must be true or false; got 1"),
        ('{"attributes":[{"key":"a","value":{"doubleValue":"inf"}}]}', 'AnyValue.doubleValue must be a number; got "inf"'),
        ('{"attributes":[{"key":"a","value":{"bytesValue":"*"}}]}', 'AnyValue.bytesValue must be base64; got "*"'),
    ],
)
def test_what_does_not_fit_rejects_its_item_alone(text: str, complaint: str) -> None:
    """The message names the field, what it takes and what it got; the span beside it is kept."""
    good = f'{{"traceId":"{"1" * 32}","spanId":"{"2" * 16}","name":"good","startTimeUnixNano":"{NOW}"}}'
    adapted = adapt_otlp("traces", traces_to_wire(span(f"{text},{good}").encode()))
    [rejection] = adapted.rejections
    assert (0, 1) == (rejection.index, adapted.accepted_count())
    assert rejection.reason in (INVALID_RECORD, INVALID_VALUE, INVALID_TIMESTAMP)
    assert complaint in rejection.message
    assert len(rejection.message) < 300


@pytest.mark.parametrize("padding", [0, 2 << 20], ids=["small", "large"])
@pytest.mark.parametrize(
    "deep",
    [
        '{"arrayValue":{"values":[' * 340 + "{}" + "]}}" * 340,
        '{"kvlistValue":{"values":[{"key":"a","value":' * 300 + "{}" + "}]}}" * 300,
        '{"unknown":' + "[" * 1_100 + '"]"' + "]" * 1_100 + ',"arrayValue":{"values":[' + "[" * 1_100 + "]" * 1_100 + "]}}",
    ],
    ids=["array", "list", "no value"],
)
def test_what_no_parser_reads_costs_its_item_at_most(deep: str, padding: int) -> None:
    """A value that is nested deeper than parsers go rejects its span, and is left out of a resource and a scope."""
    good = f'{{"traceId":"{"1" * 32}","spanId":"{"2" * 16}","name":"good","startTimeUnixNano":"{NOW}"'
    attribute = f'"attributes":[{{"key":"a","value":{deep}}}]'
    unknown = '"x":' + "[" * 1_100 + "]" * 1_100
    spans = f"{good}}},{good},{attribute}}},{good},{unknown}}}"
    body = f'{{"resourceSpans":[{{{unknown},"scopeSpans":[{{"scope":{{{unknown}}},"spans":[{spans}]}}]}}],{unknown}}}'
    adapted = adapt_otlp("traces", traces_to_wire(body.encode() + b" " * padding), limits=DEFAULT)
    assert ([1], 2) == ([rejection.index for rejection in adapted.rejections], adapted.accepted_count())
    assert adapted.rejections[0].reason in (NESTED_TOO_DEEP, INVALID_RECORD)


def metrics_of(text: str, resource: str = "{}") -> bytes:
    """A request with these metrics, and a good one before and behind them."""
    good = f'{{"name":"good","gauge":{{"dataPoints":[{{"timeUnixNano":"{NOW}","asInt":1}}]}}}}'
    scope = f'{{"scope":{{"name":"s"}},"metrics":[{good},{text},{good}]}}'
    return f'{{"resourceMetrics":[{{"resource":{resource},"scopeMetrics":[{scope}]}}]}}'.encode()


POINTS = f'"dataPoints":[{{"timeUnixNano":"{NOW}","asInt":2}}]'
LARGE = '"description":"%s",' % ("d" * (1 << 20))  # is read in slices
METRIC_DATA = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
SERVICE = '{"key":"service.name","value":{"stringValue":"shop"}}'


@pytest.mark.parametrize("padding", ["", pytest.param(LARGE, marks=pytest.mark.large)], ids=["small", "large"])
@pytest.mark.parametrize(
    ("metric", "accepted"),
    [
        ('{"name":"m","unit":5,"gauge":{POINTS}}', 3),
        ('{"name":"m","unit":{"a":[1e400]},"gauge":{POINTS}}', 3),
        ('{"name":"m","sum":{"aggregationTemporality":"X",POINTS}}', 3),
        ('{"name":"m","sum":{"aggregationTemporality":2,"isMonotonic":"yes",POINTS}}', 3),
        ('{"name":"m","metadata":[{"key":5},{"key":"a"}],"gauge":{POINTS}}', 3),
        ('{"name":"m","gauge":{"dataPoints":""}}', 2),
        ('{"name":"m","gauge":"","sum":{"aggregationTemporality":2,POINTS}}', 3),
        ('{"name":"m","sum":{"aggregationTemporality":2,POINTS},"gauge":[{POINTS}]}', 3),
        ('{"name":"m","gauge":[{POINTS}],"sum":{"aggregationTemporality":2,POINTS}}', 3),
    ],
)
def test_what_does_not_fit_an_envelope_is_left_out(metric: str, accepted: int, padding: str) -> None:
    """What does not fit is in a metric. The points are kept, and the answer says so."""
    rules = LimitRules(LOW_CUMULATIVE, NOW)
    metric = metric.replace("POINTS", POINTS)
    wire = metrics_to_wire(metrics_of(padding.join(["{", metric[1:]]) if metric[0] == "{" else metric), rules)
    assert {VALUE_LEFT_OUT: 1} == rules.repaired
    adapted = adapt_otlp("metrics", wire, 4 << 20, limits=LOW_CUMULATIVE)
    assert (accepted, 0) == (adapted.accepted_count(), adapted.rejected_count())


@pytest.mark.parametrize("padding", ["", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("zero", ["0", "0.0", '"0"', '"AGGREGATION_TEMPORALITY_UNSPECIFIED"', "null"])
@pytest.mark.parametrize("kind", ["sum", "histogram", "exponentialHistogram"])
def test_a_temporality_of_zero_is_none(kind: str, zero: str, padding: str) -> None:
    """It is not written, so a body of any size is read in one pass, and its points are stored as cumulative."""
    rules = LimitRules(LOW_CUMULATIVE, NOW)
    rules.json_forms = ENUM_NAMES
    points = f'"dataPoints":[{{"timeUnixNano":"{NOW}"}}]'
    with_zero = metrics_of(f'{{"name":"m",{padding}"{kind}":{{"aggregationTemporality":{zero},{points}}}}}')
    without = metrics_of(f'{{"name":"m",{padding}"{kind}":{{{points}}}}}')
    assert metrics_to_wire(without, rules) == metrics_to_wire(with_zero, rules)
    adapted = adapt_otlp("metrics", metrics_to_wire(with_zero, rules), 4 << 20, limits=LOW_CUMULATIVE)
    assert (3, 1) == (adapted.accepted_count(), (adapted.repaired or {})[TEMPORALITY_ASSUMED])


GOOD_EXEMPLAR = '{"asInt":4,"filteredAttributes":[{"key":"a"}]}'


@pytest.mark.parametrize("padding", ["", "point", "exemplar"])
@pytest.mark.parametrize(
    ("exemplars", "dropped"),
    [
        ('[GOOD,{"asInt":"x"PAD},GOOD]', 1),
        ('[GOOD,{"timeUnixNano":{}PAD},GOOD,{"asDouble":"4x"},{"filteredAttributes":{"a":1}}]', 3),
        ('[GOOD,{"filteredAttributes":[{"key":5}]PAD},5,["x"],null,"x",GOOD]', 4),
        ('[GOOD,GOOD,{"filteredAttributes":[{"key":"a","value":DEEP}]PAD}]', 1),
        ('[GOOD,{"unread":[1,{}]PAD},"PADDING",GOOD]', 1),
    ],
)
def test_an_exemplar_that_does_not_fit_is_left_out_alone(exemplars: str, dropped: int, padding: str) -> None:
    """Its point and the other exemplars are kept, whatever it is, and however large it or its point is."""
    deep = '{"arrayValue":{"values":[' * 70 + "{}" + "]}}" * 70
    text = "x" * SLICE_BYTES
    exemplars = exemplars.replace("GOOD", GOOD_EXEMPLAR).replace("DEEP", deep)
    exemplars = exemplars.replace("PADDING", text if padding == "exemplar" else "")
    exemplars = exemplars.replace("PAD", f',"pad":"{text}"' if padding == "exemplar" else "")
    pad = f'"pad":"{text}",' if padding == "point" else ""
    point = f'{{"timeUnixNano":"{NOW}",{pad}"asInt":2,"exemplars":{exemplars}}}'
    wire = metrics_to_wire(metrics_of(f'{{"name":"m","gauge":{{"dataPoints":[{point}]}}}}'), LimitRules(DEFAULT, NOW))
    adapted = adapt_otlp("metrics", wire, 4 << 20, limits=DEFAULT)
    assert (3, 0, {EXEMPLAR_DROPPED: dropped}) == (adapted.accepted_count(), adapted.rejected_count(), adapted.repaired)
    [stored] = batch_of(adapted).records[0].metrics[1].gauge.data_points
    assert [4, 4] == [each.as_int for each in stored.exemplars if each.filtered_attributes]


@pytest.mark.parametrize("exemplars", ["5", '"x"', '{"asInt":4}', '"%s"' % ("x" * SLICE_BYTES)], ids=lambda text: text[:9])
def test_exemplars_that_are_no_list_are_left_out(exemplars: str) -> None:
    """They cost no point."""
    point = f'{{"timeUnixNano":"{NOW}","exemplars":{exemplars},"asInt":2}}'
    adapted = adapt_otlp("metrics", metrics_to_wire(metrics_of(f'{{"name":"m","gauge":{{"dataPoints":[{point}]}}}}')))
    assert (3, {EXEMPLAR_DROPPED: 1}) == (adapted.accepted_count(), adapted.repaired)


def test_a_point_that_does_not_fit_is_rejected_in_its_own_words() -> None:
    """Its words are its own, whatever is wrong with its exemplars."""
    point = f'{{"timeUnixNano":"{NOW}","asInt":"x","exemplars":[5]}}'
    adapted = adapt_otlp("metrics", metrics_to_wire(metrics_of(f'{{"name":"m","gauge":{{"dataPoints":[{point}]}}}}')))
    [rejection] = adapted.rejections
    assert (2, None) == (adapted.accepted_count(), adapted.repaired)
    assert rejection.message.startswith("NumberDataPoint.asInt must be an integer")


def test_what_does_not_fit_is_rejected_in_a_body_that_is_written_anew() -> None:
    """A temporality of 0 that is written out, or a count of dropped attributes before too many of them, changes no verdict."""
    point = f'{{"timeUnixNano":"{NOW}","asInt":"x"}},{{"timeUnixNano":"{NOW}","asInt":1}}'
    metric = f'{{"name":"m","sum":{{"aggregationTemporality":0,"dataPoints":[{point}]}}}}'
    adapted = adapt_otlp("metrics", metrics_to_wire(metrics_of(metric)), limits=LOW_CUMULATIVE)
    assert [(1, INVALID_VALUE)] == [(each.index, each.reason) for each in adapted.rejections]
    assert (3, {TEMPORALITY_ASSUMED: 1}) == (adapted.accepted_count(), adapted.repaired)
    many = ",".join(f'{{"key":"k{n}"}}' for n in range(LOW.attributes_max + 1))
    odd = f'{{"droppedAttributesCount":1,"attributes":[{many}],'
    good = f'"traceId":"{"1" * 32}","spanId":"{"2" * 16}","startTimeUnixNano":"{NOW}"}}'
    adapted = adapt_otlp("traces", traces_to_wire(span(f'{odd}{good},{{"name":5,{good}').encode()))
    assert [(1, INVALID_RECORD)] == [(each.index, each.reason) for each in adapted.rejections]
    logs = f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{odd}"timeUnixNano":"{NOW}"}},{{"severityNumber":"x"}}]}}]}}]}}'
    adapted = adapt_otlp("logs", logs_to_wire(logs.encode()))
    assert [(1, INVALID_VALUE)] == [(each.index, each.reason) for each in adapted.rejections]


# In the place of a list, and of an object that holds one, at each level of a request.
LOSSES = {
    "metrics": [
        *(
            ("Metric." + name, '"metrics":[GOOD,{"name":"m","DATA":[{POINTS}]},GOOD]'.replace("DATA", name))
            for name in METRIC_DATA
        ),
        ("Metric.gauge", '"metrics":[GOOD,{"name":"m","gauge":5},GOOD]'),
        ("Gauge.dataPoints", '"metrics":[GOOD,{"name":"m","gauge":{"dataPoints":{"0":1}}},GOOD]'),
        ("Sum.dataPoints", '"metrics":[GOOD,{"name":"m","sum":{"aggregationTemporality":2,"dataPoints":"p"}},GOOD]'),
        ("ScopeMetrics.metrics", '"metrics":[GOOD,5,GOOD]'),
        ("ScopeMetrics.metrics", '"metrics":[GOOD,[{"name":"m"}],GOOD]'),
        ("ScopeMetrics.metrics", '"metrics":[GOOD,GOOD]},{"metrics":GOOD'),
        ("ResourceMetrics.scopeMetrics", '"metrics":[GOOD,GOOD]},[{"metrics":[GOOD]}],{"metrics":[]'),
        ("ResourceMetrics.scopeMetrics", '"metrics":[GOOD,GOOD]}]},{"scopeMetrics":{"metrics":[GOOD]},"x":[{"x":1'),
        ("resourceMetrics", '"metrics":[GOOD,GOOD]}]},"a resource",{"scopeMetrics":[{"metrics":[]'),
    ],
    "logs": [
        ("ScopeLogs.logRecords", '"logRecords":[GOOD,GOOD]},{"logRecords":GOOD'),
        ("ResourceLogs.scopeLogs", '"logRecords":[GOOD,GOOD]},[{"logRecords":[GOOD]}],{"logRecords":[]'),
        ("ResourceLogs.scopeLogs", '"logRecords":[GOOD,GOOD]}]},{"scopeLogs":{"logRecords":[GOOD]},"x":[{"x":1'),
        ("resourceLogs", '"logRecords":[GOOD,GOOD]}]},7,{"scopeLogs":[{"logRecords":[]'),
    ],
    "traces": [
        ("ScopeSpans.spans", '"spans":[GOOD,GOOD]},{"spans":GOOD'),
        ("ResourceSpans.scopeSpans", '"spans":[GOOD,GOOD]},"scope",{"spans":[]'),
        ("ResourceSpans.scopeSpans", '"spans":[GOOD,GOOD]}]},{"scopeSpans":{"spans":[GOOD]},"x":[{"x":1'),
        ("resourceSpans", '"spans":[GOOD,GOOD]}]},[1],{"scopeSpans":[{"spans":[]'),
    ],
}
GOODS = {
    "metrics": '{"name":"good","gauge":{POINTS}}',
    "logs": f'{{"timeUnixNano":"{NOW}"}}',
    "traces": f'{{"traceId":"{"1" * 32}","spanId":"{"2" * 16}","startTimeUnixNano":"{NOW}"}}',
}
RESOURCES = {"metrics": "resourceMetrics", "logs": "resourceLogs", "traces": "resourceSpans"}


@pytest.mark.parametrize("size", [0, pytest.param(SLICE_BYTES, marks=pytest.mark.large)], ids=["small", "large"])
@pytest.mark.parametrize(
    ("signal", "field", "inner"), [(signal, *loss) for signal, losses in LOSSES.items() for loss in losses]
)
def test_items_that_are_lost_with_their_envelope_are_rejected(signal: str, field: str, inner: str, size: int) -> None:
    """They are one rejection, in words that name the field, and a dead letter that is rejected again. Neighbours are kept."""
    scopes = RESOURCES[signal].replace("resource", "scope")
    inner = inner.replace("GOOD", GOODS[signal]).replace("POINTS", POINTS)
    padding = f'{{"unknown":"{"x" * size}"}}'
    body = f'{{"{RESOURCES[signal]}":[{{"resource":{padding},"{scopes}":[{{{inner}}}]}}]}}'
    rules = Rules()
    wire = TO_WIRE[signal](body.encode(), rules)
    adapted = adapt_otlp(signal, wire, 4 << 20, limits=DEFAULT)
    [rejection] = adapted.rejections
    assert (2, INVALID_RECORD, None) == (adapted.accepted_count(), rejection.reason, rules.repaired)
    assert field in rejection.message
    assert " must " in rejection.message


@pytest.mark.large
@pytest.mark.parametrize("signal", sorted(LOSSES))
def test_a_large_envelope_that_is_lost_is_rejected(signal: str) -> None:
    """It is rejected as a small one is; a list of megabytes is one item."""
    scopes = RESOURCES[signal].replace("resource", "scope")
    items = GOODS[signal].replace("POINTS", POINTS)
    many = ",".join([items] * (SLICE_BYTES // 16))
    for text in (f'{{"{scopes}":{{"x":[{many}]}}}}', f"[{many}]"):
        adapted = adapt_otlp(signal, TO_WIRE[signal](f'{{"{RESOURCES[signal]}":[{text}]}}'.encode()))
        assert [INVALID_RECORD] == [rejection.reason for rejection in adapted.rejections]


@pytest.mark.parametrize("size", [0, pytest.param(1 << 20, marks=pytest.mark.large)], ids=["small", "large"])
@pytest.mark.parametrize(
    ("resource", "service"),
    [
        ("5", "unknown_service"),
        ('{"attributes":{"a":1}}', "unknown_service"),
        ('{"attributes":[5,SERVICE]}', "shop"),
        ('{"attributes":[{"key":"a","value":{"intValue":1.5}},SERVICE]}', "shop"),
        ('{"attributes":[SERVICE],"droppedAttributesCount":-1}', "shop"),
        ('{"attributes":[{"key":"a","value":{"intValue":"%s"}},SERVICE]}' % ("x" * SLICE_BYTES), "shop"),
        ('{"attributes":[{"key":"a","value":{"bytesValue":"%s"}},SERVICE]}' % ("!" * SLICE_BYTES), "shop"),
    ],
)
def test_what_does_not_fit_a_resource_is_left_out(resource: str, service: str, size: int) -> None:
    """An attribute alone, or a field; every item is kept."""
    rules = LimitRules(LOW, NOW)
    resource = resource.replace("SERVICE", SERVICE)
    unknown = '{"name":"m","unknown":"%s"}' % ("u" * size)
    adapted = adapt_otlp("metrics", metrics_to_wire(metrics_of(unknown, resource), rules))
    assert ({VALUE_LEFT_OUT: 1}, 2, 0) == (rules.repaired, adapted.accepted_count(), adapted.rejected_count())
    assert [service] == [record.service_id for record in batch_of(adapted).records]


ATTRIBUTES = '"attributes":[{"key":"a","value":{"doubleValue":DOUBLE}}]'
DOUBLES = {
    "logs": '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{ATTRIBUTES,"body":{"doubleValue":DOUBLE}}]}]}],REST}',
    "metrics": '{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"asDouble":DOUBLE}]}},'
    '{"summary":{"dataPoints":[{"sum":DOUBLE,"quantileValues":[{"value":DOUBLE}]}]}},'
    '{"histogram":{"dataPoints":[{"min":DOUBLE,"explicitBounds":[1,DOUBLE],"exemplars":[{"asDouble":DOUBLE}]}]}}]}]}],REST}',
    "traces": '{"resourceSpans":[{"resource":{ATTRIBUTES},"scopeSpans":[{"spans":[{"events":[{ATTRIBUTES}]}]}]}],REST}',
}


@pytest.mark.parametrize("size", [0, pytest.param(SLICE_BYTES, marks=pytest.mark.large)], ids=["small", "large"])
@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("signal", sorted(REQUESTS))
def test_a_constant_without_quotes_is_read_as_with(signal: str, constant: str, size: int) -> None:
    """Python's json writes it so. A text that has it is left alone. Beside it a text may be no UTF-8, and a number beyond a
    double."""
    template = (
        DOUBLES[signal].replace("ATTRIBUTES", ATTRIBUTES).replace("REST", f'"u":"NaN,-Infinity","v":1e999,"w":"{"u" * size}"')
    )
    text = template.replace("DOUBLE", constant).encode().replace(b'"u":"', b'"u":"\xff')
    quoted = template.replace("DOUBLE", f'"{constant}"').encode()
    rules, expected = Rules(), Rules()
    assert TO_WIRE[signal](quoted, expected) == TO_WIRE[signal](text, rules)
    assert expected.repaired is None
    assert {NUMBER_FORM: template.count("DOUBLE"), INVALID_TEXT: 1} == rules.repaired


@pytest.mark.parametrize("size", [0, SLICE_BYTES], ids=["small", "large"])
def test_a_constant_that_does_not_fit_costs_its_item_alone(size: int) -> None:
    """It costs its item as any value does; in a body of many, each is counted."""
    point = f'"timeUnixNano":"{NOW}"'
    odd = f'{{{point},"asInt":NaN,"u":[-Infinity,Infinity],"v":"{"u" * size}"}}'
    metric = f'{{"name":"m","gauge":{{"dataPoints":[{odd},{{{point},"asDouble":1}}]}}}}'
    rules = LimitRules(DEFAULT, NOW)
    body = f'{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}'
    adapted = adapt_otlp("metrics", metrics_to_wire(body.encode(), rules))
    assert ({NUMBER_FORM: 3}, 1, 1) == (rules.repaired, adapted.accepted_count(), adapted.rejected_count())


@pytest.mark.parametrize("size", [0, SLICE_BYTES], ids=["small", "large"])
@pytest.mark.parametrize("signal", sorted(REQUESTS))
def test_an_empty_object_is_an_empty_list_and_the_reverse(signal: str, size: int) -> None:
    """Each field is tried: Lua has one kind of empty table, and so has PHP."""
    descriptor: Any = REQUESTS[signal].DESCRIPTOR
    document = to_json(FullMessages(lambda _field, _turn: None).message(descriptor))
    document["unknown"] = "u" * size
    paths = [path for path in places(document) if isinstance(path[-1], str) and path != ("unknown",)]
    compared = 0
    for path in paths[:: 1 if not size else 20]:
        value: Any = document
        for step in path:
            value = value[step]
        if isinstance(value, (list, dict)):
            empty: Any = {} if isinstance(value, dict) else []
            other: Any = [] if isinstance(value, dict) else {}
            rules = Rules()
            found = TO_WIRE[signal](changed(document, path, other), rules)
            expected = TO_WIRE[signal](changed(document, path, empty))
            assert (path, REQUESTS[signal].FromString(expected)) == (path, REQUESTS[signal].FromString(found))
            assert rules.repaired is None
            compared += 1
    assert compared > (0 if size else 10)


@pytest.mark.parametrize("size", [0, 1 << 20], ids=["small", "large"])
def test_an_item_that_is_no_object_is_rejected(size: int) -> None:
    """The others are kept."""
    good = f'{{"traceId":"{"1" * 32}","spanId":"{"2" * 16}","name":"good","startTimeUnixNano":"{NOW}"}}'
    long = good.replace("{", '{"unknown":"%s",' % ("u" * size), 1)
    adapted = adapt_otlp("traces", traces_to_wire(span(f'{long},"text",{good},5').encode()))
    assert [(1, INVALID_RECORD), (3, INVALID_RECORD)] == [(each.index, each.reason) for each in adapted.rejections]
    assert 2 == adapted.accepted_count()


@pytest.mark.parametrize(
    "number", ["1e400.5", "1e400-3", "1e400+", "1e999e999", "01e400", "1.e400", "0" * 20, "1" * 400 + "e5e5", "-" + "0" * 400]
)
@pytest.mark.parametrize("field", ["intValue", "doubleValue"])
def test_a_long_text_that_is_not_a_number_is_not_json(number: str, field: str) -> None:
    """It is refused as a short one is: a number beyond a double would cost its item only."""
    with pytest.raises(Malformed, match="cannot decode ExportTraceServiceRequest"):
        traces_to_wire(span(f'{{"attributes":[{{"key":"d","value":{{"{field}":{number}}}}}]}}').encode())


def test_items_whose_rejection_is_not_kept_have_no_words_of_it() -> None:
    """Otherwise a body of items of two bytes would become one of thirty times the size."""
    items = 16 * REJECTIONS_KEPT_MAX + 50_000
    wire = traces_to_wire(span(",".join(["5"] * items)).encode())
    assert len(wire) < 16 * REJECTIONS_KEPT_MAX * 64 + 50_000 * 16
    adapted = adapt_otlp("traces", wire)
    assert (items, REJECTIONS_KEPT_MAX) == (adapted.rejected_count(), len(adapted.rejections))
    assert all("must be an object; got 5" in each.message for each in adapted.rejections)


@pytest.mark.parametrize("size", [0, pytest.param(1 << 20, marks=pytest.mark.large)], ids=["small", "large"])
@pytest.mark.parametrize("number", ["1e400", "-1E+400", "1" + "0" * 400, "1" + "0" * 400 + ".5"])
def test_a_number_beyond_a_double_costs_its_item_at_most(number: str, size: int) -> None:
    """A double rejects its span. An attribute's integer becomes its text, if it is written without an exponent."""
    good = f'{{"traceId":"{"1" * 32}","spanId":"{"2" * 16}","unknown":"{"u" * size}","startTimeUnixNano":"{NOW}"'
    double = f'{good},"attributes":[{{"key":"d","value":{{"doubleValue":{number}}}}}]}}'
    integer = f'{good},"attributes":[{{"key":"i","value":{{"intValue":{number}}}}}]}}'
    unknown = f'{good},"unknown2":[{number}]}}'
    adapted = adapt_otlp(
        "traces", traces_to_wire(span(f"{double},{integer},{good}}},{unknown}").encode()), limits=LOW_BUT_VALUES
    )
    is_integer = number.isdigit()
    assert [(n, INVALID_VALUE) for n in ((0,) if is_integer else (0, 1))] == [
        (each.index, each.reason) for each in adapted.rejections
    ]
    assert (3 if is_integer else 2) == adapted.accepted_count()
    if is_integer:
        [record] = batch_of(adapted).records
        assert [number] == [pair.value.string_value for each in record.spans for pair in each.attributes]


def repeated(document: Any, path: Sequence[str | int], name: str) -> str:
    """Return the JSON of a document in which the last member on the path comes twice, the second time under that name."""
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    last = str(path[-1])
    parent["SECOND"] = parent[last]
    text = json.dumps(document).replace('"SECOND"', f'"{name}"')
    del parent["SECOND"]
    return text


@pytest.mark.parametrize("padding", [0, pytest.param(1 << 20, marks=pytest.mark.large)], ids=["small", "large"])
@pytest.mark.parametrize("signal", sorted(REQUESTS))
def test_members_that_come_twice_are_both_read(signal: str, padding: int) -> None:
    """No item is lost of those that hold items, however they are written and whatever else is odd in the body."""
    document = to_json(FullMessages(lambda _field, _turn: None).message(REQUESTS[signal].DESCRIPTOR))
    resource, scope, items = {
        "logs": ("resourceLogs", "scopeLogs", "logRecords"),
        "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
        "traces": ("resourceSpans", "scopeSpans", "spans"),
    }[signal]
    paths: list[tuple[str | int, ...]] = [(resource,), (resource, 0, scope), (resource, 0, scope, 0, items)]
    if signal == "metrics":
        [data] = {"gauge", "sum", "histogram", "exponentialHistogram", "summary"} & set(
            document[resource][0][scope][0][items][0]
        )
        paths += [(*paths[-1], 0, data), (*paths[-1], 0, data, "dataPoints")]
    rules = Rules()
    rules.json_forms = SNAKE_CASE
    once = item_count(signal, TO_WIRE[signal](json.dumps(document).encode()))
    for path in paths:
        for name in (str(path[-1]), re.sub("[A-Z]", lambda found: f"_{found.group().lower()}", str(path[-1]))):
            for odd in [""] if padding else ["", '"odd":[1e400],']:
                body = "{" + f'{odd}"unknown":"{"u" * padding}",' + repeated(document, path, name)[1:]
                found = item_count(signal, TO_WIRE[signal](body.encode(), rules))
                assert once + item_count_at(document, path) == found, (path, name, odd)


def item_count(signal: str, wire: bytes) -> int:
    """Return how many log records, spans or points a request has."""
    return item_count_at(to_json(REQUESTS[signal].FromString(wire)), ())


def item_count_at(document: Any, path: Sequence[str | int]) -> int:
    """Return how many items are there in a document."""
    for step in path:
        document = document[step]
    if path and path[-1] in ITEM_LISTS:
        return len(document)
    members = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return sum(len(each) if name in ITEM_LISTS else item_count_at(each, ()) for name, each in members)


@pytest.mark.parametrize("name", ["intGauge", "doubleSum", "int_histogram"])
def test_data_of_old_metrics_is_named_beside_metrics_that_are_read(name: str) -> None:
    """Its points are not stored, so its sender has to hear of it."""
    rules = Rules()
    metrics_to_wire(metrics_of(f'{{"name":"m","{name}":{{"dataPoints":[{{"value":"1"}}]}}}}'), rules)
    assert rules.misplaced_fields is not None
    [told] = rules.misplaced_fields
    assert f'Metric has no field "{name}": OTLP 1.0 has {re.split("_|(?=[GSH])", name)[1].lower()}' == told


@pytest.mark.parametrize("padding", [0, pytest.param(1 << 20, marks=pytest.mark.large)], ids=["small", "large"])
@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ('"name":"a"', '"name":"b"', {"name": "b"}),
        ('"name":5', '"name":"b"', {"name": "b"}),
        ('"name":"a"', '"name":null', {}),
        ('"attributes":[{"key":"a"}]', '"attributes":[{"key":"b"}]', {"attributes": [{"key": "b"}]}),
        ('"attributes":[{"key":"a"}]', '"attributes":[]', {}),
        ('"links":[{"traceState":"a"}]', '"links":[{},{}]', {"links": [{}, {}]}),
        ('"status":{"message":"a"}', '"status":{"code":2}', {"status": {"code": 2}}),
        ('"kind":2', '"kind":3', {"kind": 3}),
    ],
)
def test_of_a_field_that_comes_twice_the_last_one_wins(first: str, last: str, expected: Any, padding: int) -> None:
    """This holds however large its object is: another reader reads it from a megabyte on."""
    item = f'{{"traceId":"{"1" * 32}",{first},"traceState":"{"u" * padding}",{last}}}'
    wire = traces_to_wire(span(item).encode())
    [found] = ExportTraceServiceRequest.FromString(wire).resource_spans[0].scope_spans[0].spans
    document = to_json(found)
    assert "1" * 32 == document.pop("traceId")
    assert padding == len(document.pop("traceState", ""))
    assert expected == document


@pytest.mark.parametrize("padding", [0, 1 << 20], ids=["small", "large"])
def test_of_an_attribute_that_comes_twice_in_an_envelope_the_last_one_wins(padding: int) -> None:
    """A resource, a scope and a key-value pair, beside what is read twice."""
    resource = [f'"resource":{{"attributes":[{{"key":"{key}","key":"b{key}"}}]}}' for key in "ac"]
    scope = [f'"scope":{{"name":"{name}","version":"{"v" * padding}"}}' for name in "ab"]
    scopes = f'"scopeSpans":[{{{",".join(scope)},"spans":[{{}}]}}]'
    text = f'{{"resourceSpans":[{{{resource[0]},{scopes},{resource[1]}}}]}}'
    [found] = ExportTraceServiceRequest.FromString(traces_to_wire(text.encode())).resource_spans
    assert ["bc"] == [pair.key for pair in found.resource.attributes]
    assert ["b"] == [each.scope.name for each in found.scope_spans]
    assert 1 == len(found.scope_spans[0].spans)


@pytest.mark.large
def test_a_long_name_costs_nothing() -> None:
    """No field has it, so its member is skipped, wherever it is; it must be JSON."""
    good = f'{{"traceId":"{"1" * 32}","spanId":"{"2" * 16}","name":"good"}}'
    name = "n" * (1 << 20)
    for text in (f'{{"{name}":1,{good[1:]}', f'{good},{{"{name}":[1e400]}}'):
        request = ExportTraceServiceRequest.FromString(traces_to_wire(span(text).encode()))
        assert "good" == request.resource_spans[0].scope_spans[0].spans[0].name
    for body in (f'{{"{name}":1,"resourceSpans":[]}}', f'{{"resourceSpans":[{{"{name}":1}}]}}'):
        assert ExportTraceServiceRequest.FromString(traces_to_wire(body.encode())).ByteSize() < 3
    with pytest.raises(Malformed):
        traces_to_wire(span(f'{{"{name}\\x":1}}').encode())


@pytest.mark.parametrize("signal", sorted(REQUESTS))
def test_a_byte_order_mark_is_ignored(signal: str) -> None:
    """It may be ignored (RFC 8259, 8.1), and some senders write one. Two are no JSON."""
    body = json.dumps(to_json(FullMessages(lambda _field, _turn: None).message(REQUESTS[signal].DESCRIPTOR))).encode()
    assert TO_WIRE[signal](body) == TO_WIRE[signal](b"\xef\xbb\xbf" + body)
    with pytest.raises(Malformed):
        TO_WIRE[signal](b"\xef\xbb\xbf" * 2 + body)


@pytest.mark.parametrize("text", ['{"name":Nan}', '{"name":-NaN}', '{"name":NaN,}', "[" * 100_000])
def test_what_is_not_json_is_malformed(text: str) -> None:
    with pytest.raises(Malformed, match="cannot decode ExportTraceServiceRequest") as caught:
        traces_to_wire(span(text).encode())
    assert caught.value.reason == INVALID_JSON
    assert len(caught.value.message) < 300


def test_json_that_would_take_gigabytes_is_refused() -> None:
    """30 MB of empty objects are refused before they are parsed; the message has the numbers."""
    with pytest.raises(RequestRefused) as caught:
        traces_to_wire(b'{"resourceSpans":[' + b"{}," * 10_000_000 + b"{}]}")
    assert caught.value.reason == PAYLOAD_TOO_LARGE
    assert "the JSON of 30000022 bytes holds more than 5000000 elements" in caught.value.message


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"\xff", b"{", b'{"resourceSpans":1}'])
def test_a_body_that_is_no_request_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        traces_to_wire(body)


@pytest.mark.parametrize("number", ["-0", "-0.0", '"-0"', "-0e3", "0", "-0.5", "-10"])
@pytest.mark.parametrize("before", ["", '"later":1,"later":2,', f'"later":"{"x" * 400_000} -0",'])
def test_a_zero_keeps_its_sign(number: str, before: str) -> None:
    """Go writes minus zero as -0, which a parser reads as an integer. Read in one pass, by the other reader, and in slices."""
    point = f'{{"asDouble":{number}}},{{"asInt":-0}},{{"asDouble": {number} }}'
    metrics = f'[{{"name":"pod-0","gauge":{{"dataPoints":[{point}]}}}}]'
    body = f'{{{before}"resourceMetrics":[{{"scopeMetrics":[{{"metrics":{metrics}}}]}}]}}'
    request = ExportMetricsServiceRequest.FromString(metrics_to_wire(body.encode(), LimitRules(LOW, NOW)))
    (metric,) = request.resource_metrics[0].scope_metrics[0].metrics
    first, integer, last = metric.gauge.data_points
    expected = struct.pack("d", float(number.strip('"')))
    assert [expected] * 2 == [struct.pack("d", each.as_double) for each in (first, last)]
    assert ("pod-0", 0, "as_int") == (metric.name, integer.as_int, integer.WhichOneof("value"))
