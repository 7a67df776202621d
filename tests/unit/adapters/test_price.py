"""What costs too much, in elements or bytes of rows, is refused before it is paid, with its numbers; nothing else is."""

import bisect
import math
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.prometheus.v1 import write_pb2 as v1
from infrasage.prometheus.v2 import write_pb2 as v2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from support.attacks import (
    JSON,
    NATIVE_BATCH,
    PROTOBUF,
    REFUSED,
    REMOTE_WRITE,
    SMALL,
    Attack,
    collector_batch,
    histogram_v1,
    json_log,
    json_logs,
    label_v1,
    native_attributes,
    sample_v1,
    text_attribute,
)
from support.attacks import LOGS as LOGS_PATH
from support.attacks import METRICS as METRICS_PATH
from support.attacks import WRITE_V2 as WRITE_V2_HEADERS
from support.examples import examples
from support.fakes.receiving import NOW, NOW_UNIX_NANO
from support.limits import DEFAULT
from support.machine_speed import scaled
from support.references.otlp import REQUESTS
from support.references.remote_write import length_delimited, write_request, write_request_v2
from support.strategies.otlp import messages

from adapters.codec.json_parts import check_json_parts, count_json_parts
from adapters.errors import EXCEEDS_PLAN, PAYLOAD_TOO_LARGE, RECORD_TOO_LARGE, RequestRefused
from adapters.native.request import adapt_batch
from adapters.otlp import logs, metrics, traces
from adapters.otlp.field_tables import LOG_RECORD, METRIC, SPAN
from adapters.otlp.json import logs_to_wire
from adapters.otlp.patches import PATCHES_MAX
from adapters.otlp.row_price import check_rows
from adapters.price import ElementsCount, Shape, check_elements, shape_of
from adapters.prometheus import write_v1, write_v2
from adapters.prometheus.price import check_rows_v1, check_rows_v2
from adapters.record import Adapted, Header
from adapters.rows import ROW_BYTES
from adapters.rules import Rules
from collector.ingest.validate import LimitRules, Limits
from collector.receivers.http.telemetry_request import Format
from collector.receivers.routes import http_routes
from collector.runtime.version import is_compiled

ELEMENTS_MAX = 1_000
CPU_S_MAX = 0.05
MEMORY_BYTES_MAX = 32 << 20
MESSAGE_BYTES_MAX = 512 << 10

LOGS = shape_of(ExportLogsServiceRequest)
METRICS = shape_of(ExportMetricsServiceRequest)
TRACES = shape_of(ExportTraceServiceRequest)
WRITE_V1 = shape_of(v1.WriteRequest)
WRITE_V2 = shape_of(v2.Request)


TABLES = {"metrics": METRIC, "logs": LOG_RECORD, "traces": SPAN}


def limited_to(row_bytes_max: int) -> Rules:
    rules = Rules()
    rules.request_row_bytes_max = row_bytes_max
    return rules


def nest(payload: bytes, *fields: int) -> bytes:
    """`payload` in messages in each other, by their field numbers from the outermost on."""
    for field in reversed(fields):
        payload = length_delimited(field, payload)
    return payload


EMPTY = 10 * ELEMENTS_MAX
# Each has ten times as many elements of one kind as are allowed.
MANY: dict[str, tuple[Shape, bytes]] = {
    "resources": (TRACES, b"\x0a\0" * EMPTY),
    "resource attributes": (TRACES, nest(b"\x0a\0" * EMPTY, 1, 1)),
    "scopes": (LOGS, nest(b"\x12\0" * EMPTY, 1)),
    "scope attributes": (LOGS, nest(b"\x1a\0" * EMPTY, 1, 2, 1)),
    "spans": (TRACES, nest(b"\x12\0" * EMPTY, 1, 2)),
    "span attributes": (TRACES, nest(b"\x4a\0" * EMPTY, 1, 2, 2)),
    "events": (TRACES, nest(b"\x5a\0" * EMPTY, 1, 2, 2)),
    "event attributes": (TRACES, nest(b"\x1a\0" * EMPTY, 1, 2, 2, 11)),
    "links": (TRACES, nest(b"\x6a\0" * EMPTY, 1, 2, 2)),
    "log records": (LOGS, nest(b"\x12\0" * EMPTY, 1, 2)),
    "values of an attribute": (LOGS, nest(b"\x0a\0" * EMPTY, 1, 2, 2, 6, 2, 5)),
    "values of a body": (LOGS, nest(b"\x0a\0" * EMPTY, 1, 2, 2, 5, 5)),
    "pairs of a body": (LOGS, nest(b"\x0a\0" * EMPTY, 1, 2, 2, 5, 6)),
    "values deep in a body": (LOGS, nest(b"\x0a\0" * EMPTY, 1, 2, 2, 5, 5, 1, 5, 1, 5)),
    "metrics": (METRICS, nest(b"\x12\0" * EMPTY, 1, 2)),
    "metadata of a metric": (METRICS, nest(b"\x62\0" * EMPTY, 1, 2, 2)),
    "points": (METRICS, nest(b"\x0a\0" * EMPTY, 1, 2, 2, 5)),
    "attributes of a point": (METRICS, nest(b"\x3a\0" * EMPTY, 1, 2, 2, 7, 1)),
    "exemplars": (METRICS, nest(b"\x2a\0" * EMPTY, 1, 2, 2, 5, 1)),
    "buckets": (METRICS, nest(bytes(8 * EMPTY), 1, 2, 2, 9, 1, 6)),
    "exponential buckets": (METRICS, nest(bytes(2 * EMPTY), 1, 2, 2, 10, 1, 8, 2)),
    "quantiles": (METRICS, nest(b"\x32\0" * EMPTY, 1, 2, 2, 11, 1)),
    "unknown fields of a span": (TRACES, nest(b"\xa2\x1f\0" * EMPTY, 1, 2, 2)),
    "unknown numbers of a span": (TRACES, nest(b"\xa0\x1f\0" * EMPTY, 1, 2, 2)),
    "series": (WRITE_V1, b"\x0a\0" * EMPTY),
    "labels": (WRITE_V1, nest(b"\x0a\0" * EMPTY, 1)),
    "samples": (WRITE_V1, nest(b"\x12\0" * EMPTY, 1)),
    "exemplars of a series": (WRITE_V1, nest(b"\x1a\0" * EMPTY, 1)),
    "labels of an exemplar": (WRITE_V1, nest(b"\x0a\0" * EMPTY, 1, 3)),
    "metadata": (WRITE_V1, b"\x1a\0" * EMPTY),
    "spans of a histogram": (WRITE_V1, nest(b"\x5a\0" * EMPTY, 1, 4)),
    "deltas of a histogram": (WRITE_V1, nest(bytes(2 * EMPTY), 1, 4, 12)),
    "symbols": (WRITE_V2, b"\x22\0" * EMPTY),
    "references": (WRITE_V2, nest(bytes(2 * EMPTY), 5, 1)),
    "samples of 2.0": (WRITE_V2, nest(b"\x12\0" * EMPTY, 5)),
}


@pytest.mark.parametrize("kind", MANY)
def test_each_kind_of_element_counts(kind: str) -> None:
    """Ten times as many of any of them as are allowed are refused; the message has the size, the limit and the setting."""
    shape, body = MANY[kind]
    with pytest.raises(RequestRefused) as caught:
        check_elements(body, shape, ELEMENTS_MAX)
    assert PAYLOAD_TOO_LARGE == caught.value.reason
    assert (
        f"the request of {len(body)} bytes holds more than {ELEMENTS_MAX} elements (messages, attributes, labels, values):"
        " send smaller batches, or raise validation.request_elements_max"
    ) == caught.value.message


@pytest.mark.parametrize("kind", MANY)
def test_a_limit_that_is_high_enough_refuses_none_of_them(kind: str) -> None:
    """Twelve bytes a message are more than any of these has."""
    shape, body = MANY[kind]
    check_elements(body, shape, EMPTY + 20)


@pytest.mark.parametrize("size", [1, 7, 100, 4_099])
@pytest.mark.parametrize("kind", MANY)
def test_pieces_have_the_elements_of_the_whole(kind: str, size: int) -> None:
    """They have them wherever they are cut. The message says how much was read."""
    shape, body = MANY[kind]
    at_most = elements_of(body, shape)
    assert not refused_by_pieces(body, shape, at_most, size)
    assert refused_by_pieces(body, shape, at_most - 1, size)
    assert re.fullmatch(
        r"the first \d+ bytes of the request hold more than 1000 elements \(messages, attributes, labels, values\):"
        " send smaller batches, or raise validation.request_elements_max",
        refused_by_pieces(body, shape, ELEMENTS_MAX, size),
    )


@examples(50)
@given(data=st.data(), size=st.integers(1, 300), signal=st.sampled_from(sorted(REQUESTS)))
def test_pieces_of_any_message_are_counted(data: st.DataObject, size: int, signal: str) -> None:
    """Texts, numbers, lists and long values, whose fields are cut anywhere."""
    body = data.draw(messages(REQUESTS[signal].DESCRIPTOR)).SerializeToString()
    shape = shape_of(REQUESTS[signal])
    at_most = elements_of(body, shape)
    assert not refused_by_pieces(body, shape, at_most, size)
    if at_most:
        assert refused_by_pieces(body, shape, at_most - 1, size)


def elements_of(body: bytes, shape: Shape) -> int:
    """Return the lowest limit by which the body is not refused."""
    limits = range(len(body) + 1)
    count = limits[
        bisect.bisect_left(limits, True, key=lambda limit: not refused_by_pieces(body, shape, limit, len(body) or 1))
    ]
    if 0 < count < len(body) // 2:
        with pytest.raises(RequestRefused):
            check_elements(body, shape, count - 1)
    check_elements(body, shape, count)
    return count


def test_a_body_that_was_counted_in_pieces_is_not_counted_again() -> None:
    """Another one is: what was repaired, or made of JSON."""
    body = b"\x0a\0" * 5_000
    rules = Rules()
    rules.counted_body = body
    check_elements(body, TRACES, 1_000, rules)
    check_json_parts(body, 1_000, rules)
    with pytest.raises(RequestRefused):
        check_elements(bytes(bytearray(body)), TRACES, 1_000, rules)


def test_an_odd_field_ends_the_count_of_pieces() -> None:
    """It ends that of a whole body, too: the adapter reads it, and reports it."""
    count = ElementsCount(TRACES, 10)
    count.take(b"\x0b" + b"\x0a\0" * 5_000)
    count.take(b"\x0a\0" * 5_000)
    assert not count.is_exceeded
    assert not count.is_sure


def test_a_long_text_is_passed_over() -> None:
    """Its size is known before its bytes. What is behind it counts, however deep it was."""
    text = nest(b"x" * 10_000, 6, 2, 1)
    body = nest(text + b"\x12\0" * 20, 1, 2, 2) + b"\x0a\0" * 5 + (b"\x09" + bytes(8)) * 8
    count = ElementsCount(LOGS, 30)
    assert not count.pass_over(100)
    count.take(body[:100])
    assert count.pass_over(9_000)
    assert not count.pass_over(2_000)
    with pytest.raises(RequestRefused):
        count.take(body[9_100:])
    assert len(body) == count.size_bytes
    enough = ElementsCount(LOGS, 31)
    enough.take(body[:100])
    assert enough.pass_over(9_000)
    enough.take(body[9_100:])


def refused_by_pieces(body: bytes, shape: Shape, elements_max: int, size: int) -> str:
    """Return why a body of pieces of that size is refused; nothing where it is not."""
    # Behind its end come fields that do not count: the last bytes are not read before there are more.
    body += (b"\x09" + bytes(8)) * 8
    count = ElementsCount(shape, elements_max)
    try:
        for start in range(0, len(body), size):
            if not count.pass_over(min(size, len(body) - start)):
                count.take(body[start : start + size])
    except RequestRefused as refused:
        return refused.message if count.is_exceeded and body.startswith(count.beginning) else ""
    return ""


def test_small_bodies_are_not_counted() -> None:
    """An element takes two bytes: of a body of twice the limit, no more are possible. One more is one too many."""
    check_elements(b"\x0a\0" * ELEMENTS_MAX, TRACES, ELEMENTS_MAX)
    with pytest.raises(RequestRefused):
        check_elements(b"\x0a\0" * (ELEMENTS_MAX + 1), TRACES, ELEMENTS_MAX)


def test_usual_attributes_are_an_element_each() -> None:
    """A key with a text; a number and a long text are a few."""
    texts = nest(text_attribute(9, b"http.request.method", b"GET") * 500, 1, 2, 2)
    check_elements(texts, TRACES, 503)
    with pytest.raises(RequestRefused):
        check_elements(texts, TRACES, 502)


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_malformed_bodies_are_left_to_the_adapter(cut: int) -> None:
    """It says where they are malformed; none of the checks raises anything for that."""
    for shape, request in (
        (LOGS, _example_logs(300)),
        (WRITE_V1, write_request([({"__name__": "m"}, [(1.0, 1)] * 300)])),
        (WRITE_V2, write_request_v2([({"__name__": "m"}, [(1.0, 1)] * 300)])),
    ):
        body = request[:-cut]
        check_elements(body, shape, 10_000)
        check_elements(body + b"\x0b" * 30_000, shape, 10_000)
        if shape is LOGS:
            check_rows(body, limited_to(1 << 20), LOG_RECORD)
        elif shape is WRITE_V1:
            check_rows_v1(body, 1 << 20)
        else:
            check_rows_v2(body, 1 << 20)


def _example_logs(records: int) -> bytes:
    now = time.time_ns()
    request = ExportLogsServiceRequest()
    entry = request.resource_logs.add()
    entry.resource.attributes.add(key="k").value.string_value = "v" * 1_000
    for scope in ("a", "b"):
        scoped = entry.scope_logs.add()
        scoped.scope.name = scope
        for n in range(records):
            scoped.log_records.add(time_unix_nano=now).body.string_value = f"line {n}"
    return request.SerializeToString()


def _example_metrics(points: int) -> bytes:
    now = time.time_ns()
    request = ExportMetricsServiceRequest()
    entry = request.resource_metrics.add()
    entry.resource.attributes.add(key="k").value.string_value = "v" * 1_000
    for name in ("a", "b"):
        metric = entry.scope_metrics.add().metrics.add(name=name, description="d" * 500)
        for n in range(points):
            metric.gauge.data_points.add(time_unix_nano=now, as_double=n)
    return request.SerializeToString()


def _example_traces(spans: int) -> bytes:
    now = time.time_ns()
    request = ExportTraceServiceRequest()
    entry = request.resource_spans.add()
    entry.resource.attributes.add(key="k").value.string_value = "v" * 1_000
    scope = entry.scope_spans.add()
    for _ in range(spans):
        scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="n", start_time_unix_nano=now, end_time_unix_nano=now)
    return request.SerializeToString()


Adapt = Callable[[bytes, Header, LimitRules, int], Adapted]
OTLP: dict[str, tuple[Adapt, Callable[[int], bytes]]] = {
    "logs": (logs.adapt, _example_logs),
    "metrics": (metrics.adapt, _example_metrics),
    "traces": (traces.adapt, _example_traces),
}


def _adapted(adapt: Adapt, body: bytes) -> Adapted:
    now = time.time_ns()
    return adapt(body, Header("acme", 2, now, bytes(16)), LimitRules(DEFAULT, now), MESSAGE_BYTES_MAX)


@pytest.mark.parametrize("signal", OTLP)
def test_rows_are_counted_as_the_builder_counts_them(signal: str) -> None:
    """Our own header adds at most 150 bytes to each row: the limit that refuses lies between the two."""
    adapt, example = OTLP[signal]
    body = example(1_000)
    adapted = _adapted(adapt, body)
    rows = adapted.accepted_count()
    assert rows >= 1_000
    check_rows(body, limited_to(adapted.row_bytes), TABLES[signal])
    with pytest.raises(RequestRefused) as caught:
        check_rows(body, limited_to(adapted.row_bytes - 150 * rows), TABLES[signal])
    assert PAYLOAD_TOO_LARGE == caught.value.reason
    assert f"rows of more than {adapted.row_bytes - 150 * rows} bytes" in caught.value.message
    assert "validation.request_row_bytes_max" in caught.value.message


def test_rows_of_remote_write_are_counted() -> None:
    """Each sample repeats its labels in both versions."""
    now_ms = time.time_ns() // 10**6
    series = [({"__name__": f"metric_{n}", "job": "j", "long": "x" * 500}, [(1.0, now_ms)] * 50) for n in range(100)]
    for adapt, check, body in (
        (write_v1.adapt, check_rows_v1, write_request(series)),
        (write_v2.adapt, check_rows_v2, write_request_v2(series)),
    ):
        adapted = _adapted(adapt, body)
        assert 5_000 == adapted.accepted_count()
        check(body, adapted.row_bytes)
        with pytest.raises(RequestRefused) as caught:
            check(body, 5_000 * (500 + ROW_BYTES))
        assert "validation.request_row_bytes_max" in caught.value.message


@pytest.mark.parametrize(
    ("check", "body"),
    [
        (check_rows_v1, length_delimited(3, length_delimited(2, b"m")) * 2_000),
        (
            check_rows_v2,
            b"".join(length_delimited(4, symbol) for symbol in (b"", b"long", b"x" * 10_000))
            + length_delimited(5, length_delimited(4, length_delimited(1, b"\1\2")) * 100),
        ),
    ],
)
def test_what_a_remote_write_becomes_is_known_before(check: Callable[[bytes, int], None], body: bytes) -> None:
    """Descriptions, and the texts of exemplars: of a limit of rows they may take half."""
    check(body, 4_100_000)
    with pytest.raises(RequestRefused) as caught:
        check(body, 1_900_000)
    assert "becomes more than 950000" in caught.value.message


@pytest.mark.parametrize("adapt", [logs.adapt, write_v1.adapt, write_v2.adapt])
def test_rows_beyond_the_plan_are_refused_before_they_are_made(adapt: Callable[..., Adapted]) -> None:
    """Their reason is another one: the limit is the tenant's, and not the collector's."""
    body = {
        logs.adapt: nest(b"\x12\0" * 5_000, 1, 2),
        write_v1.adapt: length_delimited(1, b"\x12\0" * 5_000),
        write_v2.adapt: b"\x22\0" + length_delimited(5, b"\x12\0" * 5_000),
    }[adapt]
    rules = LimitRules(DEFAULT, NOW_UNIX_NANO)
    rules.plan_row_bytes_max = 5_000 * ROW_BYTES
    header = Header("acme", 1, NOW_UNIX_NANO, bytes(16))
    with pytest.raises(RequestRefused) as caught:
        adapt(body, header, rules, MESSAGE_BYTES_MAX)
    assert EXCEEDS_PLAN == caught.value.reason
    assert f"more than {5_000 * ROW_BYTES} bytes" in caught.value.message


@pytest.mark.parametrize("item", [b"{}", b"7"], ids=["plain", "rejected"])
def test_rows_beyond_the_plan_are_refused_while_json_is_read(item: bytes) -> None:
    """They are refused before all of it is protobuf: each item is a row, whatever is in it, rejected ones, too."""
    body = json_logs(b",".join([item] * 5_000))
    rules = LimitRules(DEFAULT, NOW_UNIX_NANO)
    assert logs_to_wire(body, rules)
    rules.plan_row_bytes_max = 4_999 * ROW_BYTES
    with pytest.raises(RequestRefused) as caught:
        logs_to_wire(body, rules)
    assert EXCEEDS_PLAN == caught.value.reason
    rules.request_row_bytes_max = 4_999 * ROW_BYTES
    with pytest.raises(RequestRefused) as caught:
        logs_to_wire(body, rules)
    assert PAYLOAD_TOO_LARGE == caught.value.reason


@pytest.mark.parametrize("field", [b"\x7d\0\0\0\0", b"\x79" + bytes(8), b"\x78\x80\0", b"\x7a\1\0"])
def test_counting_rests(field: bytes) -> None:
    """It rests for each 256 KiB, whatever they hold: fields of fixed size count for nothing, and take time."""
    rests = 0

    def pause() -> None:
        nonlocal rests
        rests += 1

    body = field * ((1 << 20) // len(field))
    check_elements(body, LOGS, 400_000, LimitRules(DEFAULT, NOW_UNIX_NANO, pause=pause))
    assert 4 >= rests >= 3


def rests_of(path: str, headers: dict[str, str], body: bytes) -> int:
    """How often the body's adapter rests."""
    rests = 0

    def pause() -> None:
        nonlocal rests
        rests += 1

    format_ = http_routes(10_000)[path].format(headers["content-type"].encode())
    assert format_ is not None
    header = Header("acme", format_.input.source, NOW_UNIX_NANO, bytes(16))
    format_.input.adapt(body, header, LimitRules(DEFAULT, NOW_UNIX_NANO, pause=pause), MESSAGE_BYTES_MAX)
    return rests


@pytest.mark.parametrize("attack", SMALL[1:5], ids=lambda attack: attack.name)
def test_rejected_items_rest_often(attack: Attack) -> None:
    """Otherwise nothing could leave them in time: 16,000 take 40 ms."""
    items = int(attack.name.partition(" ")[0].replace(",", ""))
    assert rests_of(attack.path, attack.headers, attack.body()) >= items // 1_000


ONE_ITEM: dict[str, tuple[str, dict[str, str], Callable[[int], bytes]]] = {
    "fields of a sample": (REMOTE_WRITE, PROTOBUF, lambda n: sample_v1((b"\x09" + bytes(8)) * n)),
    "unknown fields of a sample": (REMOTE_WRITE, PROTOBUF, lambda n: sample_v1(b"\x7d\0\0\0\0" * n)),
    "fields of a histogram": (REMOTE_WRITE, PROTOBUF, lambda n: histogram_v1((b"\x19" + bytes(8)) * n)),
    "counts of a histogram": (REMOTE_WRITE, PROTOBUF, lambda n: histogram_v1(length_delimited(12, bytes(n)))),
    "custom bounds": (
        REMOTE_WRITE,
        PROTOBUF,
        lambda n: histogram_v1(b"\x20\x69", length_delimited(16, struct.pack(f"<{n}d", *range(n)))),
    ),
    "unknown fields of a label": (REMOTE_WRITE, PROTOBUF, lambda n: label_v1(b"\x7d\0\0\0\0" * n)),
    "symbols": (REMOTE_WRITE, WRITE_V2_HEADERS, lambda n: b"\x22\0" * n),
    "unknown members of a log record": (
        LOGS_PATH,
        JSON,
        lambda n: json_log(b",".join([b'"unknown.%07d":0' % number for number in range(n)])),
    ),
}


@pytest.mark.parametrize("kind", ONE_ITEM)
def test_one_item_of_many_fields_is_read_with_rests(kind: str) -> None:
    """An item may be nearly all of a request, so each loop over its fields rests."""
    path, headers, body = ONE_ITEM[kind]
    few, many = rests_of(path, headers, body(10)), rests_of(path, headers, body(70_000))
    assert many - few >= 4


def buckets_of(last_bound: float) -> bytes:
    """Metrics of one point whose counts and bounds have more than 256 KiB each."""
    bounds = [*map(float, range(39_999)), last_bound]
    point = b"\x19" + NOW_UNIX_NANO.to_bytes(8, "little") + length_delimited(6, bytes(8 * 40_001))
    points = length_delimited(1, point + length_delimited(7, struct.pack("<40000d", *bounds))) + b"\x10\x02"
    return nest(length_delimited(1, b"m") + length_delimited(9, points), 1, 2, 2)


def test_buckets_are_checked_and_written_anew_with_rests() -> None:
    """There are two loops over them, and two copies each of the counts and the bounds where infinity is left out."""
    in_disorder, finite, infinite = (
        rests_of(METRICS_PATH, PROTOBUF, buckets_of(bound)) for bound in (-1.0, 40_000.0, math.inf)
    )
    assert finite - in_disorder >= 3
    assert infinite - finite >= 4


def test_records_of_many_attributes_are_packed_with_rests() -> None:
    """They are nearly as many as where the text is read: only copies are left, but four of each record."""
    few, many = (rests_of(NATIVE_BATCH, JSON, native_attributes(records, 400)) for records in (100, 300))
    assert many - few >= 1.4 * 200 * len(native_attributes(1, 400)) / (256 << 10)


def test_an_item_of_very_many_changes_is_too_large() -> None:
    """Each is at least two bytes of it, so it would fit no message: no more changes are noted than fit one."""
    events = b"\x5a\2\x1a\0" * (PATCHES_MAX // 2 + 1)
    span = (
        length_delimited(1, b"\1" * 16)
        + length_delimited(2, b"\1" * 8)
        + b"\x39"
        + NOW_UNIX_NANO.to_bytes(8, "little")
        + b"\x41"
        + NOW_UNIX_NANO.to_bytes(8, "little")
    )
    header = Header("acme", 1, NOW_UNIX_NANO, bytes(16))
    rules = LimitRules(DEFAULT, NOW_UNIX_NANO)
    adapted = traces.adapt(nest(span + events, 1, 2, 2) + nest(span, 1, 2, 2), header, rules, MESSAGE_BYTES_MAX)
    assert 1 == adapted.accepted_count()
    assert [RECORD_TOO_LARGE] == [rejection.reason for rejection in adapted.rejections]
    point = b"\x19" + NOW_UNIX_NANO.to_bytes(8, "little")
    exemplars = b"\x2a\2\x3a\0" * (PATCHES_MAX // 2 + 1)
    points = length_delimited(1, point + exemplars) + length_delimited(1, point)
    adapted = metrics.adapt(
        nest(length_delimited(1, b"m") + length_delimited(5, points), 1, 2, 2), header, rules, MESSAGE_BYTES_MAX
    )
    assert 1 == adapted.accepted_count()
    assert [RECORD_TOO_LARGE] == [rejection.reason for rejection in adapted.rejections]


def test_the_builder_refuses_what_only_becomes_large() -> None:
    """If no check before can know, the sum of the rows made so far refuses, as soon as it is over."""
    attribute = "x" * 2_000
    record = f'{{"service_id":"s","metric_name":"m","value":1,"timestamp":"{NOW}","attributes":{{"k":"{attribute}"}}}}'
    rules = LimitRules(DEFAULT, NOW_UNIX_NANO)
    rules.request_row_bytes_max = 1 << 20
    header = Header("acme", 1, NOW_UNIX_NANO, bytes(16))
    with pytest.raises(RequestRefused) as caught:
        adapt_batch(f"[{','.join([record] * 1_000)}]".encode(), header, rules, MESSAGE_BYTES_MAX, 10_000)
    assert "rows of more than 1048576 bytes" in caught.value.message


def test_the_largest_batch_of_the_collector_s_defaults_is_taken() -> None:
    """8,192 items with 30 attributes each under a resource of 8 KB, by our defaults."""
    adapted = _adapted(logs.adapt, collector_batch())
    assert 8_192 == adapted.accepted_count()


@pytest.mark.parametrize("text", [b'{"a,b":"[{,\\"","c":[1,2]}', b'["\\\\",{}]', b'"unfinished, text', b'[1,2,"\\', b""])
def test_json_is_counted_outside_of_its_strings(text: bytes) -> None:
    """A comma in a text is text, also behind an escaped quote."""
    outside = 0
    inside = escaped = False
    for byte in text:
        if inside:
            inside, escaped = escaped or byte != 0x22, byte == 0x5C and not escaped
        elif byte == 0x22:
            inside, escaped = True, False
        else:
            outside += byte in b"{[,"
    assert outside == count_json_parts(text, 1_000)


def test_json_whose_texts_are_full_of_commas_is_taken() -> None:
    """They cost nothing; as many elements would."""
    body = b'{"a":"' + b",{[" * 20_000 + b'"}'
    check_json_parts(body, 1_000)
    with pytest.raises(RequestRefused):
        check_json_parts(b"[" + b"0," * 20_000 + b"0]", 1_000)


@pytest.mark.skipif(not is_compiled(), reason="the numbers are the compiled build's")
@pytest.mark.parametrize("attack", REFUSED, ids=lambda attack: attack.name.replace(" ", "-"))
def test_a_refusal_costs_little(attack: Attack) -> None:
    """At most 50 ms of CPU (`scaled`) and 32 MiB of memory beside the body, and the message names the limit and its setting."""
    now = time.time_ns()
    route = http_routes(10_000)[attack.path]
    format_ = route.format(attack.headers["content-type"].encode())
    assert isinstance(format_, Format)
    header = Header("acme", 2, now, bytes(16))
    body = attack.body()
    peak_before = _peak_bytes(reset=True)
    costs_s: list[float] = []
    for _ in range(3):  # another process's turn makes one of them dearer
        began = time.process_time()
        with pytest.raises(RequestRefused) as caught:
            format_.input.adapt(body, header, LimitRules(DEFAULT, now), MESSAGE_BYTES_MAX)
        costs_s.append(time.process_time() - began)
    cpu_s = min(costs_s)
    memory_bytes = _peak_bytes() - peak_before
    assert PAYLOAD_TOO_LARGE == caught.value.reason
    assert "validation.request_" in caught.value.message
    cpu_s_max = scaled(CPU_S_MAX, cpu_s)
    assert cpu_s_max >= cpu_s, f"{cpu_s * 1000:.0f} ms, where {cpu_s_max * 1000:.0f} ms are allowed"
    assert MEMORY_BYTES_MAX >= memory_bytes, f"{memory_bytes >> 20} MiB"


def _peak_bytes(*, reset: bool = False) -> int:
    """The most memory that this process had since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_each_way_in_is_attacked() -> None:
    """Every route in every format that it takes."""
    ways = {
        (path, media_type)
        for path, route in http_routes(10_000).items()
        for media_type, format_ in route.formats.items()
        # Other names of remote write 1.0 are the same way.
        if format_ is not route.formats.get("application/x-protobuf") or media_type == "application/x-protobuf"
    }
    assert ways == {(attack.path, attack.headers["content-type"].lower()) for attack in REFUSED}


CUT = Limits(
    past_max_s=86_400,
    future_max_s=600,
    attributes_max=4,
    attribute_key_bytes_max=50,
    attribute_value_bytes_max=100,
    name_bytes_max=50,
    attribute_value_too_long="truncate",
)
REJECTED = Limits(
    past_max_s=86_400,
    future_max_s=600,
    attributes_max=4,
    attribute_key_bytes_max=50,
    attribute_value_bytes_max=100,
    name_bytes_max=50,
    attribute_value_too_long="reject",
)


def many(attributes: Any) -> None:
    for n in range(1_000):
        attributes.add(key=f"k{n}").value.string_value = "v" * 90


OVER: dict[str, Callable[[Any], Any]] = {
    "a value": lambda attributes: attributes.add(key="k").value.MergeFrom(AnyValue(string_value="v" * 100_000)),
    "a list": lambda attributes: attributes.add(key="k").value.array_value.values.add(string_value="v" * 100_000),
    "a key": lambda attributes: attributes.add(key="k" * 100_000).value.MergeFrom(AnyValue(string_value="v")),
    "many": many,
}


def over(signal: str, place: str, kind: str) -> bytes:
    """A request of a hundred items that share attributes over a limit, or of ten that have some each."""
    request: Any = REQUESTS[signal]()
    entry = getattr(request, "resource_spans" if signal == "traces" else f"resource_{signal}").add()
    scope = getattr(entry, "scope_spans" if signal == "traces" else f"scope_{signal}").add()
    count = 100 if place != "item" else 10
    if signal == "metrics":
        metric = scope.metrics.add(name="m")
        items = [metric.gauge.data_points.add(time_unix_nano=NOW_UNIX_NANO) for _ in range(count)]
        if place == "metadata":
            OVER[kind](metric.metadata)
    elif signal == "logs":
        items = [scope.log_records.add(time_unix_nano=NOW_UNIX_NANO) for _ in range(count)]
    else:
        fields = {"trace_id": b"t" * 16, "span_id": b"s" * 8, "start_time_unix_nano": NOW_UNIX_NANO}
        items = [scope.spans.add(**fields) for _ in range(count)]
    if place in ("resource", "scope"):
        OVER[kind](entry.resource.attributes if place == "resource" else scope.scope.attributes)
    for item in items if place == "item" else ():
        OVER[kind](item.attributes if signal != "traces" else item.events.add().attributes)
    body: bytes = request.SerializeToString()
    return body


@pytest.mark.parametrize("is_plan", [False, True])
@pytest.mark.parametrize("kind", OVER)
@pytest.mark.parametrize(
    ("signal", "place"),
    [("metrics", "metadata"), *((signal, place) for signal in OTLP for place in ("resource", "scope", "item"))],
)
def test_rows_are_counted_as_they_are_cut(signal: str, place: str, kind: str, is_plan: bool) -> None:
    """A request that is within the limit then is taken; of what is to be rejected, each item is a row."""
    body = over(signal, place, kind)
    rows_max = 300_000
    for limits in (CUT, REJECTED):
        rules = LimitRules(limits, NOW_UNIX_NANO)
        if is_plan:
            rules.plan_row_bytes_max = rows_max
        else:
            rules.request_row_bytes_max = rows_max
        if limits is REJECTED and place == "item" and kind != "many":
            continue  # they are what they are
        adapted = OTLP[signal][0](body, Header("acme", 2, NOW_UNIX_NANO, bytes(16)), rules, MESSAGE_BYTES_MAX)
        items = 10 if place == "item" else 100
        assert items == (adapted.accepted_count() if limits is CUT or kind == "many" else adapted.rejected_count())
        assert adapted.row_bytes <= rows_max
    with pytest.raises(RequestRefused):
        check_rows(body, limited_to(rows_max), TABLES[signal])
    rules = LimitRules(CUT, NOW_UNIX_NANO)
    rules.request_row_bytes_max = 2_000
    with pytest.raises(RequestRefused) as caught:
        check_rows(body, rules, TABLES[signal])
    assert "rows of more than 2000 bytes" in caught.value.message


def test_copies_of_resources_are_counted_as_they_are_cut() -> None:
    """Each scope's records repeat them."""
    request: Any = REQUESTS["logs"]()
    entry = request.resource_logs.add()
    OVER["a value"](entry.resource.attributes)
    for _ in range(100):
        entry.scope_logs.add().log_records.add(time_unix_nano=NOW_UNIX_NANO)
    rules = LimitRules(CUT, NOW_UNIX_NANO)
    rules.request_row_bytes_max = 300_000
    adapted = logs.adapt(request.SerializeToString(), Header("acme", 2, NOW_UNIX_NANO, bytes(16)), rules, MESSAGE_BYTES_MAX)
    assert 100 == adapted.accepted_count()


@pytest.mark.parametrize("place", ["name", "value"])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_label_that_is_too_long_does_not_cost_the_request(version: str, place: str) -> None:
    """It costs its series: none of its samples is a row that has it."""
    label = {"k" * 100_000: "v"} if place == "name" else {"k": "v" * 100_000}
    samples = [(1.0, NOW_UNIX_NANO // 10**6)] * 100
    series = [({"__name__": "m"} | label, samples), ({"__name__": "good"}, samples[:1])]
    rules = LimitRules(CUT, NOW_UNIX_NANO)
    rules.request_row_bytes_max = 300_000
    adapter, encode = (write_v1, write_request) if version == "v1" else (write_v2, write_request_v2)
    adapted = adapter.adapt(encode(series), Header("acme", 3, NOW_UNIX_NANO, bytes(16)), rules, MESSAGE_BYTES_MAX)
    assert (1, 100) == (adapted.accepted_count(), adapted.rejected_count())
