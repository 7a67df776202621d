"""adapters/otlp: the normal form by example, cutting to size, depth, and damage at every byte."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1, TelemetryRecordV1
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, NumberDataPoint
from support.adapted import batch_of
from support.hostile import nested_logs
from support.limits import DEFAULT
from support.records import flat
from support.references.otlp import REQUESTS, reference, single_items
from support.references.otlp_json import to_json
from support.references.remote_write import length_delimited
from support.strategies.wire_forms import Forms

from adapters import errors
from adapters.errors import INVALID_PROTOBUF, REASON, Malformed
from adapters.otlp import logs, metrics, traces
from adapters.otlp.json import logs_to_wire
from adapters.record import SOURCE_OTLP, Adapted, Header
from adapters.repairs import EXEMPLAR_DROPPED, ID_DROPPED, VALUE_MISSING
from collector.ingest.validate import LimitRules

NOW = 1_775_822_400_000_000_000
LIMITS = DEFAULT
HEADER: dict[str, Any] = {"tenant_id": "acme", "source": 2, "received_time_unix_nano": NOW, "batch_id": bytes(16)}
ADAPT = {"metrics": metrics.adapt, "logs": logs.adapt, "traces": traces.adapt}


def adapt(signal: str, body: bytes, message_bytes_max: int = 1 << 20) -> Adapted:
    return ADAPT[signal](body, Header("acme", SOURCE_OTLP, NOW, bytes(16)), LimitRules(LIMITS, NOW), message_bytes_max)


def log_with(**fields: Any) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=NOW, **fields)
    return request


def records(adapted: Adapted) -> list[TelemetryRecordV1]:
    return list(flat(b"".join(part.payload for part in adapted.parts)).records)


def pairs(attributes: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in attributes}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (AnyValue(), ""),
        (AnyValue(string_value=""), ""),
        (AnyValue(string_value="été"), "été"),
        (AnyValue(string_value="x" * 1000), "x" * 1000),
        (AnyValue(bool_value=True), "true"),
        (AnyValue(bool_value=False), "false"),
        (AnyValue(int_value=0), "0"),
        (AnyValue(int_value=-(2**63)), "-9223372036854775808"),
        (AnyValue(int_value=2**63 - 1), "9223372036854775807"),
        (AnyValue(double_value=1.0), "1.0"),
        (AnyValue(double_value=0.1), "0.1"),
        (AnyValue(double_value=-0.0), "-0.0"),
        (AnyValue(double_value=1e300), "1e+300"),
        (AnyValue(double_value=float("nan")), "NaN"),
        (AnyValue(double_value=float("inf")), "Infinity"),
        (AnyValue(double_value=float("-inf")), "-Infinity"),
        (AnyValue(bytes_value=b"\x00\xff"), "AP8="),
        (AnyValue(array_value=ArrayValue()), "[]"),
        (AnyValue(kvlist_value=KeyValueList()), "{}"),
        (
            AnyValue(
                array_value=ArrayValue(
                    values=[
                        AnyValue(),
                        AnyValue(int_value=1),
                        AnyValue(double_value=float("nan")),
                        AnyValue(string_value='"\n'),
                    ]
                )
            ),
            '[null,1,"NaN","\\"\\n"]',
        ),
        (
            AnyValue(
                kvlist_value=KeyValueList(
                    values=[
                        KeyValue(key="a", value=AnyValue(int_value=1)),
                        KeyValue(key="b", value=AnyValue(bytes_value=b"\x00")),
                        KeyValue(key="a", value=AnyValue(array_value=ArrayValue(values=[AnyValue(bool_value=True)]))),
                    ]
                )
            ),
            '{"b":"AA==","a":[true]}',
        ),
    ],
)
def test_every_value_is_a_string(value: AnyValue, expected: str) -> None:
    """An attribute and a body of any type become the text of the data dictionary; twice, the second from the cache."""
    body = log_with(body=value, attributes=[KeyValue(key="k", value=value)]).SerializeToString()
    for _ in range(2):
        (record,) = records(adapt("logs", body))
        assert {"k": expected} == pairs(record.log_records[0].attributes)
        assert expected == record.log_records[0].body.string_value


def test_nesting_of_64_passes_and_of_65_is_refused_alone() -> None:
    """An attribute nested too deep is a rejected item; its neighbour is kept."""
    body = nested_logs(64, 65, 10_000, 0)
    adapted = adapt("logs", body)
    assert [(1, "nested_too_deep"), (2, "nested_too_deep")] == [
        (rejection.index, REASON[rejection.reason].name) for rejection in adapted.rejections
    ]
    (record,) = records(adapted)
    assert "[" * 64 + '"deep"' + "]" * 64 == pairs(record.log_records[0].attributes)["k"]
    assert 2 == len(record.log_records)


def test_the_last_of_equal_keys_wins_among_many() -> None:
    """Each number of attributes is tried, with keys that differ only in their middle."""
    for count in (2, 3, 17, 64, 128):
        keys = [f"prefix.{index:03}.suffix.of.some.length" for index in range(count - 1)]
        attributes = [KeyValue(key=key, value=AnyValue(string_value=key)) for key in keys]
        attributes.append(KeyValue(key=keys[0], value=AnyValue(string_value="last")))
        (record,) = records(adapt("logs", log_with(attributes=attributes).SerializeToString()))
        expected = {**{key: key for key in keys}, keys[0]: "last"}
        assert expected == pairs(record.log_records[0].attributes)
        assert count - 1 == len(record.log_records[0].attributes)


def whole_request(signal: str, items: int) -> bytes:
    """A request of two resources with `items` items, strings and integers among their attributes."""
    request = REQUESTS[signal]()
    for name in ("checkout", "payment"):
        if isinstance(request, ExportMetricsServiceRequest):
            metrics_entry = request.resource_metrics.add(schema_url="r")
            resource, scope = metrics_entry.resource, metrics_entry.scope_metrics.add(schema_url="s")
            metric = scope.metrics.add(name="requests", unit="1", description="how many")
            metric.sum.is_monotonic = True
            for index in range(items // 2):
                point = metric.sum.data_points.add(time_unix_nano=NOW, as_int=index)
                point.attributes.add(key="i").value.int_value = index
            metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            metric.metadata.add(key="m").value.int_value = 7
        elif isinstance(request, ExportLogsServiceRequest):
            logs_entry = request.resource_logs.add(schema_url="r")
            resource, logs_scope = logs_entry.resource, logs_entry.scope_logs.add(schema_url="s")
            for index in range(items // 2):
                logs_scope.log_records.add(time_unix_nano=NOW).body.int_value = index
        else:
            traces_entry = request.resource_spans.add(schema_url="r")
            resource, spans_scope = traces_entry.resource, traces_entry.scope_spans.add(schema_url="s")
            for index in range(items // 2):
                span = spans_scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=NOW, name=str(index))
                span.events.add(name="e").attributes.add(key="i").value.int_value = index
                span.links.add(trace_id=b"l" * 16).attributes.add(key="d").value.double_value = index
        resource.attributes.add(key="service.name").value.string_value = name
        resource.attributes.add(key="host.cpus").value.int_value = 8
    body: bytes = request.SerializeToString()
    return body


@pytest.mark.parametrize("keys", [[], ["a", "b"], ["a", "a"]])
@pytest.mark.parametrize("message_bytes_max", [400, 1 << 20])
def test_a_list_without_elements_is_left_out(keys: list[str], message_bytes_max: int) -> None:
    """ClickHouse refuses it. To the byte as if it had not been sent: beside attributes that are normal, rewritten, sent twice;
    in metrics that are copied whole and in those that are cut."""
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    bounded = scope.metrics.add(name="bounded").histogram
    exponential = scope.metrics.add(name="exponential").exponential_histogram
    for points in (bounded, exponential):
        points.aggregation_temporality = cumulative
        for _ in range(10):
            point = points.data_points.add(time_unix_nano=NOW, count=1)
            for key in keys:
                point.attributes.add(key=key).value.int_value = 1
    for number, exponential_point in enumerate(exponential.data_points):
        exponential_point.positive.offset = number
        exponential_point.negative.SetInParent()
    odd = Forms(random.Random(0), ["list_empty"], 1.0).form(request)
    assert odd.count(b"\x32\x00\x3a\x00") == 10
    assert odd.count(b"\x12\x00") >= 20
    expected = adapt("metrics", request.SerializeToString(), message_bytes_max)
    assert expected.accepted_count() == 20
    actual = adapt("metrics", odd, message_bytes_max)
    assert records(actual) == records(expected)
    assert sum(len(part.payload) for part in actual.parts) == sum(len(part.payload) for part in expected.parts)


@pytest.mark.parametrize("signal", sorted(ADAPT))
@pytest.mark.parametrize("message_bytes_max", [230, 300, 1_000, 10_000, 1 << 20])
def test_a_request_is_cut_between_items(signal: str, message_bytes_max: int) -> None:
    """No message exceeds the limit, together they hold what one would, and parts are numbered, items counted."""
    body = whole_request(signal, 200)
    adapted = adapt(signal, body, message_bytes_max)
    assert max(len(part.payload) for part in adapted.parts) <= message_bytes_max
    _, expected = reference(signal, body, LIMITS, NOW, HEADER)
    assert single_items(expected) == single_items(TelemetryBatchV1(records=records(adapted)))
    for number, part in enumerate(adapted.parts):
        batch = flat(part.payload)
        assert {number} == {record.batch_part for record in batch.records}
        assert part.item_count == sum(record.item_count for record in batch.records) == len(single_items(batch))


@pytest.mark.parametrize("signal", sorted(ADAPT))
def test_an_item_too_large_for_a_message_is_refused_alone(signal: str) -> None:
    """Its neighbours are kept, and the reason says which it was."""
    request = REQUESTS[signal].FromString(whole_request(signal, 6))
    big = KeyValue(key="big", value=AnyValue(string_value="x" * 2_000))
    if signal == "metrics":
        request.resource_metrics[1].scope_metrics[0].metrics[0].sum.data_points[1].attributes.append(big)
    elif signal == "logs":
        request.resource_logs[1].scope_logs[0].log_records[1].attributes.append(big)
    else:
        request.resource_spans[1].scope_spans[0].spans[1].attributes.append(big)
    adapted = adapt(signal, request.SerializeToString(), 1_500)
    assert [(4, errors.RECORD_TOO_LARGE)] == [(rejection.index, rejection.reason) for rejection in adapted.rejections]
    assert 5 == adapted.accepted_count() == sum(len(single_items(flat(part.payload))) for part in adapted.parts)


def test_a_point_fits_a_message_among_others_as_it_does_alone() -> None:
    """It is accepted or refused to the byte, whatever is beside it."""

    def request(sizes: list[int]) -> bytes:
        made = ExportMetricsServiceRequest()
        metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="m", description="d" * 40)
        for size in sizes:
            point = metric.gauge.data_points.add(time_unix_nano=NOW)
            point.attributes.add(key="k").value.string_value = "v" * size
        return made.SerializeToString()

    verdicts = []
    for message_bytes_max in range(240, 340):
        alone = adapt("metrics", request([100]), message_bytes_max)
        among = adapt("metrics", request([1, 100, 1, 100]), message_bytes_max)
        expected = [] if alone.accepted_count() else [1, 3]
        assert expected == [rejection.index for rejection in among.rejections]
        assert 4 == among.accepted_count() + among.rejected_count()
        verdicts.append(alone.accepted_count())
    assert {0, 1} == set(verdicts)


@pytest.mark.parametrize("signal", sorted(ADAPT))
def test_a_resource_too_large_for_a_message_refuses_its_items_only(signal: str) -> None:
    body = REQUESTS[signal].FromString(whole_request(signal, 6))
    entry = (body.resource_metrics if signal == "metrics" else body.resource_logs if signal == "logs" else body.resource_spans)[
        0
    ]
    entry.resource.attributes.add(key="big").value.string_value = "x" * 2_000
    adapted = adapt(signal, body.SerializeToString(), 1_500)
    assert [0, 1, 2] == [rejection.index for rejection in adapted.rejections]
    assert {"payment"} == {record.service_id for record in records(adapted)}


@pytest.mark.parametrize("signal", sorted(ADAPT))
def test_truncated_at_every_byte_gets_protobufs_verdict(signal: str) -> None:
    """A cut body is malformed, with where it ended, or it is a shorter request that protobuf reads too."""
    body = whole_request(signal, 4)
    for length in range(len(body)):
        try:
            verdicts, _ = reference(signal, body[:length], LIMITS, NOW, HEADER)
        except DecodeError:
            with pytest.raises(Malformed) as caught:
                adapt(signal, body[:length])
            assert INVALID_PROTOBUF == caught.value.reason
            assert f"{length} bytes" in caught.value.message
        else:
            assert len(verdicts) == adapt(signal, body[:length]).accepted_count()


def test_a_large_body_that_is_oddly_written_is_refused() -> None:
    """Protobuf's parser would take a gigabyte for it; the message says where it is odd and how large it may be."""
    odd = length_delimited(15, bytes(16_799_995)) + b"\x0b"
    with pytest.raises(Malformed) as caught:
        adapt("logs", odd)
    assert caught.value.message == (
        "cannot decode ExportLogsServiceRequest: 16800001 bytes, not in canonical form at byte 16800001;"
        " such a body may have 16777216 bytes: check that it is complete, or send smaller batches"
    )


def test_a_log_without_any_time_is_kept() -> None:
    """It happened when it was received, as far as anyone knows."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "when?"
    assert 1 == adapt("logs", request.SerializeToString()).accepted_count()


def test_a_long_span_is_as_late_as_its_end() -> None:
    """A span that began two days ago and ended now is kept; one that ended two days ago is too old."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    day = 86_400 * 10**9
    for start, end in ((NOW - 2 * day, NOW), (NOW - 2 * day, NOW - 2 * day + 1), (NOW - 2 * day, 0), (NOW + day, NOW + day)):
        scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=start, end_time_unix_nano=end)
    adapted = adapt("traces", request.SerializeToString())
    assert [
        (1, "Timestamp is more than 24h in the past"),
        (2, "Timestamp is more than 24h in the past"),
        (3, "Timestamp is more than 10m in the future"),
    ] == [(rejection.index, rejection.message) for rejection in adapted.rejections]


def test_an_end_before_the_start_makes_no_span_late() -> None:
    """It is of a clock that was set, or in another unit: the start counts, and is judged as it is."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    day = 86_400 * 10**9
    for start, end in ((NOW, 1), (NOW, NOW - 2 * day), (NOW - 2 * day, 1), (NOW, 2**64 - 1)):
        scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=start, end_time_unix_nano=end)
    adapted = adapt("traces", request.SerializeToString())
    assert [
        (2, "Timestamp is more than 24h in the past"),
        (3, "Timestamp is more than 10m in the future"),
    ] == [(rejection.index, rejection.message) for rejection in adapted.rejections]


@pytest.mark.parametrize("kind", ["gauge", "sum"])
def test_a_point_without_a_value_is_kept_and_counted(kind: str) -> None:
    """It is left out if its flags say that it has none. A value of 0 is one, and an exemplar's is not the point's."""
    request = ExportMetricsServiceRequest()
    data = getattr(request.resource_metrics.add().scope_metrics.add().metrics.add(name="m"), kind)
    if kind == "sum":
        data.aggregation_temporality = 2
    data.data_points.add(time_unix_nano=NOW, as_double=0.0)
    data.data_points.add(time_unix_nano=NOW, as_int=0)
    data.data_points.add(time_unix_nano=NOW, flags=1)
    assert not adapt("metrics", request.SerializeToString()).repaired
    data.data_points.add(time_unix_nano=NOW)
    data.data_points.add(time_unix_nano=NOW).exemplars.add(time_unix_nano=NOW, as_double=1.0)
    data.data_points.add(time_unix_nano=1)  # too old: a rejected item's repairs are not counted
    adapted = adapt("metrics", request.SerializeToString())
    assert (5, {VALUE_MISSING: 2}) == (adapted.accepted_count(), adapted.repaired)


def test_clean_metrics_are_one_slice_of_the_body() -> None:
    """What is normal already is copied as it is, unknown fields of later OTLP versions included."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.gauge.data_points.add(time_unix_nano=NOW, as_double=1.5).attributes.add(key="a").value.string_value = "b"
    (part,) = adapt("metrics", request.SerializeToString()).parts
    assert metric.SerializeToString() in part.payload


IDS: dict[str, Callable[[int], bytes]] = {
    "zeros": bytes,
    "zeros of a wrong length": lambda size: bytes(size - 1),
    "too short": lambda size: b"x" * (size - 1),
    "too long": lambda size: b"x" * (size + 1),
    "one": lambda size: b"x" * size,
}


# Keys of every length up to 130 bytes: of lengths that take one byte and two, with the same ends.
KEYS = [f"{'k' * (number % 130)}{number // 130}" for number in range(1, 700)]


@pytest.mark.parametrize("where", ["resource", "item"])
@pytest.mark.parametrize("count", [2, 20, 60, 120])
def test_of_a_key_that_comes_twice_the_last_value_is_kept(count: int, where: str) -> None:
    """It is kept however many attributes there are, wherever the first is, and behind one without key and value."""
    for again in ("", *(KEYS[first] for first in sorted({0, 1, count // 3, count - 1}))):
        request = log_with()
        resource = request.resource_logs[0].resource
        attributes = (
            resource.attributes if where == "resource" else request.resource_logs[0].scope_logs[0].log_records[0].attributes
        )
        attributes.add()
        expected = {"": ""}
        for number in range(count):
            key = KEYS[number % len(KEYS)]
            attributes.add(key=key).value.string_value = f"{number}"
            expected[key] = f"{number}"
        attributes.add(key=again).value.int_value = 7
        expected[again] = "7"
        (record,) = records(adapt("logs", request.SerializeToString()))
        found = record.resource.attributes if where == "resource" else record.log_records[0].attributes
        assert len(expected) == len(found), again
        assert expected == pairs(found), again


@pytest.mark.parametrize("repeated_key", [False, True])
@pytest.mark.parametrize("kind", IDS)
def test_an_id_that_is_none_is_left_out(kind: str, repeated_key: bool) -> None:
    """A log record, parent, link or exemplar keeps its item. Zeros are no mistake; a wrong length is reported."""
    make = IDS[kind]
    traces = REQUESTS["traces"]()
    span = (
        traces.resource_spans.add()
        .scope_spans.add()
        .spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=NOW, parent_span_id=make(8))
    )
    link = span.links.add(trace_id=make(16), span_id=make(8))
    metrics = REQUESTS["metrics"]()
    data = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="m").gauge.data_points
    point = data.add(time_unix_nano=NOW, as_double=1)
    point.exemplars.add(time_unix_nano=NOW, trace_id=make(16), span_id=make(8))
    for message in (span, link, point):
        for _ in range(1 + repeated_key):
            message.attributes.add(key="k").value.string_value = "v"
    logs = REQUESTS["logs"]()
    log = logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=NOW, trace_id=make(16), span_id=make(8))
    for _ in range(1 + repeated_key):
        log.attributes.add(key="k").value.string_value = "v"
    found = adapt("logs", logs.SerializeToString())
    assert (1, {ID_DROPPED: 2} if kind.startswith("too") else None) == (found.accepted_count(), found.repaired)
    record = batch_of(found).records[0].log_records[0]
    assert ((b"x" * 16, b"x" * 8) if kind == "one" else (b"", b"")) == (record.trace_id, record.span_id)
    dropped = {ID_DROPPED: 3} if kind.startswith("too") else None
    found = adapt("traces", traces.SerializeToString())
    assert (1, dropped) == (found.accepted_count(), found.repaired)
    stored = batch_of(found).records[0].spans[0]
    ids = [stored.parent_span_id, stored.links[0].span_id, stored.links[0].trace_id]
    found = adapt("metrics", metrics.SerializeToString())
    assert (1, {ID_DROPPED: 2} if dropped else None) == (found.accepted_count(), found.repaired)
    exemplar = batch_of(found).records[0].metrics[0].gauge.data_points[0].exemplars[0]
    ids += [exemplar.span_id, exemplar.trace_id]
    assert ([b"x" * 8, b"x" * 8, b"x" * 16, b"x" * 8, b"x" * 16] if kind == "one" else [b""] * 5) == ids


@pytest.mark.parametrize("repeated_key", [False, True])
@pytest.mark.parametrize("kind", ["gauge", "sum", "histogram", "exponential_histogram"])
def test_an_exemplar_that_can_not_be_taken_is_left_out_alone(kind: str, repeated_key: bool) -> None:
    """Its point is kept, with the other exemplars, however it is rewritten; what is repaired of it is not counted."""
    request = ExportMetricsServiceRequest()
    data = getattr(request.resource_metrics.add().scope_metrics.add().metrics.add(name="m"), kind)
    if kind != "gauge":
        data.aggregation_temporality = 2
    for bad in ((), (1,), (0, 1, 3), (0, 1, 2, 3)):
        point = data.data_points.add(time_unix_nano=NOW, attributes=[{"key": "k"}] * (1 + repeated_key))
        if "histogram" not in kind:
            point.as_int = 1
        for n in range(4):
            exemplar = point.exemplars.add(as_int=n, span_id=b"odd")
            exemplar.filtered_attributes.add(key="a" * (1_025 if n in bad else 1))
            exemplar.filtered_attributes.add(key="b").value.string_value = "c"
    data.data_points.add(time_unix_nano=1).exemplars.add().filtered_attributes.add(key="a" * 1_025)
    adapted = adapt("metrics", request.SerializeToString())
    assert [(4, errors.TIMESTAMP_TOO_OLD)] == [(each.index, each.reason) for each in adapted.rejections]
    assert (4, {EXEMPLAR_DROPPED: 8, ID_DROPPED: 8}) == (adapted.accepted_count(), adapted.repaired)
    points = getattr(records(adapted)[0].metrics[0], kind).data_points
    assert [[0, 1, 2, 3], [0, 2, 3], [2], []] == [[each.as_int for each in point.exemplars] for point in points]
    assert all(["a", "b"] == [pair.key for pair in each.filtered_attributes] for point in points for each in point.exemplars)


@pytest.mark.parametrize("attribute", ["key", "value", "depth"])
def test_what_may_not_be_stored_costs_its_exemplar_alone(attribute: str) -> None:
    """This holds also for a point that fits a message only without it."""
    pair = KeyValue(key="k" * (1_025 if attribute == "key" else 1))
    pair.value.string_value = "v" * (262_145 if attribute == "value" else 1)
    value = pair.value.SerializeToString()
    for _ in range(65 if attribute == "depth" else 0):
        value = length_delimited(5, length_delimited(1, value))
    exemplar = length_delimited(7, length_delimited(1, pair.key.encode()) + length_delimited(2, value))
    point = NumberDataPoint(time_unix_nano=NOW, as_int=1).SerializeToString() + length_delimited(5, exemplar)
    metric = length_delimited(1, b"m") + length_delimited(5, 2 * length_delimited(1, point))
    body = length_delimited(1, length_delimited(2, length_delimited(2, metric)))
    adapted = adapt("metrics", body, 1 << 17)
    assert (2, {EXEMPLAR_DROPPED: 2}) == (adapted.accepted_count(), adapted.repaired)
    assert not any(stored.exemplars for stored in records(adapted)[0].metrics[0].gauge.data_points)


def in_tables(place: str) -> ExportLogsServiceRequest:
    """A request that has keys and values as profiles have them."""
    request = log_with()
    entry = request.resource_logs[0]
    log = entry.scope_logs[0].log_records[0]
    if place == "body":
        log.body.string_value_strindex = 3
        log.attributes.add(key_strindex=2)
    elif place == "nested":
        pair = log.body.kvlist_value.values.add(key_strindex=2)
        pair.value.array_value.values.add().string_value_strindex = 1
    else:
        message: Any = {"resource": entry.resource, "scope": entry.scope_logs[0].scope, "item": log}[place]
        message.attributes.add(key_strindex=2).value.string_value_strindex = 3
    return request


@pytest.mark.parametrize("form", ["protobuf", "json", "large json"])
@pytest.mark.parametrize("place", ["resource", "scope", "item", "body", "nested"])
def test_references_to_a_table_of_strings_are_reported(place: str, form: str) -> None:
    """Each time: only profiles have such a table, so keys and values are lost with them. The item is kept."""
    body = in_tables(place).SerializeToString()
    if form != "protobuf":
        document = to_json(in_tables(place)) | {"unknown": "u" * (1 << 20) if form == "large json" else ""}
        body = json.dumps(document).encode()
    for _ in range(2):
        rules = LimitRules(LIMITS, NOW)
        wire = body if form == "protobuf" else logs_to_wire(body, rules)
        found = logs.adapt(wire, Header("acme", SOURCE_OTLP, NOW, bytes(16)), rules, 1 << 20)
        assert (1, None) == (found.accepted_count(), found.repaired)
        assert found.unknown_fields is not None
        assert {"KeyValue.key_strindex", "AnyValue.string_value_strindex"} == {
            words.partition(" refers to a table of strings, which profiles alone have")[0] for words in found.unknown_fields
        }
