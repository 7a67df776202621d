"""OTLP, item by item, over every transport and encoding: see items.py."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cramjam
import grpc
import pytest
from infrasage.v1.telemetry_v1_pb2 import TelemetryRecordV1
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from support.conformance import (
    EACH_GRPC_WAY,
    EACH_HTTP_WAY,
    EACH_JSON_WAY,
    EACH_PROTOBUF_WAY,
    EACH_SIGNAL,
    EACH_WAY,
    LOGS,
    METRICS,
    TRACES,
    Client,
    Signal,
    Way,
    collector,
)
from support.fakes.receiving import NOW_UNIX_NANO
from support.hostile import nested_logs, nested_logs_json
from support.references.remote_write import length_delimited, varint
from support.tenants import keyring, on_plans
from support.ways import retry_delay_s

from collector.broker.contract import BrokerDown, BrokerFull
from collector.rate_limit.local import LocalLimiter
from collector.tenancy.plans import Plan, Rate

OK = grpc.StatusCode
TIME = str(NOW_UNIX_NANO)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with collector() as client:
        yield client


def records(client: Client) -> list[TelemetryRecordV1]:
    """What was kept, without receipts."""
    return [record for record in client.made.producer.records() if record.item_count]


@EACH_WAY
@EACH_SIGNAL
async def test_otlp_01_every_signal_by_every_way(client: Client, way: Way, signal: Signal) -> None:
    """What is sent is kept; over HTTP the answer's media type is the request's (checked at every answer here)."""
    assert (await client.send(way, signal, signal.made(good=3))).is_success
    assert client.made.producer.item_count() == 3


@EACH_HTTP_WAY
@EACH_SIGNAL
async def test_otlp_01_media_types_have_parameters_and_any_case(client: Client, way: Way, signal: Signal) -> None:
    for content_type in (f"{way.content_type}; charset=utf-8", way.content_type.upper(), f"{way.content_type.title()} ;x=y"):
        told = await client.send(way, signal, signal.made(), **{"content-type": content_type})
        assert told.is_success
    assert client.made.producer.item_count() == 3


@EACH_WAY
@EACH_SIGNAL
async def test_otlp_02_success_is_an_empty_response(client: Client, way: Way, signal: Signal) -> None:
    told = await client.send(way, signal, signal.made())
    assert told.response == signal.response()
    if told.http is not None:
        assert told.http.content == (b"{}" if way.is_json else b"")


@EACH_WAY
@EACH_SIGNAL
async def test_otlp_03_nothing_is_a_success(client: Client, way: Way, signal: Signal) -> None:
    """No envelope at all, an envelope without scopes, a scope without items."""
    envelope = signal.request.DESCRIPTOR.fields[0].name
    scope = signal.request.DESCRIPTOR.fields[0].message_type.fields_by_name
    scopes = next(name for name in scope if name.startswith("scope_"))
    requests = [signal.request() for _ in range(3)]
    for request in requests[1:]:
        getattr(request, envelope).add()
    getattr(getattr(requests[2], envelope)[0], scopes).add()
    for request in requests:
        told = await client.send(way, signal, request)
        assert told.response == signal.response()
    assert client.made.producer.item_count() == 0


@EACH_WAY
@EACH_SIGNAL
@pytest.mark.parametrize(("good", "late"), [(2, 3), (0, 2), (1, 0)])
async def test_otlp_04_partial_success_is_exact(client: Client, way: Way, signal: Signal, good: int, late: int) -> None:
    """It is exact also if nothing is left. If nothing was rejected, the answer has no partial success."""
    told = await client.send(way, signal, signal.made(good, late))
    assert told.response is not None
    assert told.response.HasField("partial_success") == bool(late)
    partial = told.response.partial_success
    assert getattr(partial, signal.rejected_field) == late
    assert (f"{late} timestamp_too_old" in partial.error_message) == bool(late)
    assert client.made.producer.item_count() == good


@EACH_JSON_WAY
@EACH_SIGNAL
async def test_otlp_04_in_json_the_number_is_a_string(client: Client, way: Way, signal: Signal) -> None:
    told = await client.send(way, signal, signal.made(1, 2))
    assert told.http is not None
    partial = json.loads(told.http.content)["partialSuccess"]
    field = "".join(part.title() for part in signal.rejected_field.split("_"))
    assert partial[field[0].lower() + field[1:]] == "2"


@EACH_WAY
@EACH_SIGNAL
async def test_otlp_05_what_does_not_decode_is_bad_data(client: Client, way: Way, signal: Signal) -> None:
    """Never to be sent again."""
    for body in (b"{", b"[]", b'{"a"}') if way.is_json else (b"\xff\xff", b"\x0a\x7f", b"\x0a\x02\x0a\x09"):
        told = await client.send(way, signal, body)
        assert told.is_refused(http=400, code=OK.INVALID_ARGUMENT)
        assert told.status is not None
        assert retry_delay_s(told.status) is None
    assert client.made.producer.messages == []


@EACH_HTTP_WAY
@EACH_SIGNAL
async def test_otlp_06_errors_are_a_status_in_the_requests_encoding(client: Client, way: Way, signal: Signal) -> None:
    """Checked at every refusal here; an unknown media type is answered in JSON, a wrong method with what is right."""
    told = await client.send(way, signal, b"\xff")
    assert told.status is not None
    assert "cannot decode" in told.status.message
    answer = await client.http.post(signal.path, content=b"x", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.headers["content-type"]) == (415, "application/json")
    assert answer.json()["code"] == OK.INVALID_ARGUMENT.value[0]
    for method in ("GET", "PUT", "DELETE"):
        wrong = await client.http.request(method, signal.path, headers={"content-type": way.content_type})
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert wrong.headers["content-type"] == way.content_type


@EACH_WAY
@EACH_SIGNAL
async def test_otlp_07_exactly_at_the_limit_passes(way: Way, signal: Signal) -> None:
    """One byte more never passes, and its answer has no time to try again."""
    request = signal.made(good=5)
    size = len(way.encoded(request))
    for limit, passes in ((size, True), (size - 1, False)):
        async with collector(
            decompressed_bytes_max=limit,
            body_bytes_max=1 << 20 if way.is_gzip else limit,
            grpc_settings={"message_bytes_max": limit},
        ) as client:
            told = await client.send(way, signal, request)
            if passes:
                assert told.is_success
            elif told.error is not None:
                assert told.error.code() is OK.RESOURCE_EXHAUSTED
                assert told.status is not None
                assert retry_delay_s(told.status) is None
            else:
                assert told.http is not None
                assert told.http.status_code == 413
                assert "retry-after" not in told.http.headers


@EACH_HTTP_WAY
@EACH_SIGNAL
async def test_otlp_07_what_was_sent_is_limited_too(way: Way, signal: Signal) -> None:
    async with collector(body_bytes_max=40) as client:
        told = await client.send(way, signal, signal.made(good=5))
        assert told.http is not None
        assert told.http.status_code == 413


SMALL = Plan("Small", requests=Rate(1, 1), items=None, size_bytes=None)


@EACH_HTTP_WAY
@EACH_SIGNAL
@pytest.mark.parametrize("problem", [BrokerDown("away"), BrokerFull("full")], ids=["away", "full"])
async def test_otlp_08_what_cannot_be_stored_now_is_503(client: Client, way: Way, signal: Signal, problem: Exception) -> None:
    client.made.producer.error = problem
    told = await client.send(way, signal, signal.made())
    assert told.is_refused(http=503, code=OK.UNAVAILABLE)
    assert told.http is not None
    assert int(told.http.headers["retry-after"]) > 0


@EACH_HTTP_WAY
@EACH_SIGNAL
async def test_otlp_08_over_the_quota_is_429(way: Way, signal: Signal) -> None:
    async with collector(find=on_plans({"acme": SMALL}), limiter=LocalLimiter(lambda: 0)) as client:
        assert (await client.send(way, signal, signal.made(), **{"x-api-key": "acme"})).is_success
        told = await client.send(way, signal, signal.made(), **{"x-api-key": "acme"})
        assert told.is_refused(http=429, code=OK.RESOURCE_EXHAUSTED)
        assert told.http is not None
        assert int(told.http.headers["retry-after"]) > 0
        assert client.made.producer.item_count() == 1


@EACH_GRPC_WAY
@EACH_SIGNAL
@pytest.mark.parametrize("problem", [BrokerDown("away"), BrokerFull("full")], ids=["away", "full"])
async def test_otlp_09_what_cannot_be_stored_now_is_unavailable(
    client: Client, way: Way, signal: Signal, problem: Exception
) -> None:
    """The answer has RetryInfo, without which Go and the Collector would not send again."""
    client.made.producer.error = problem
    told = await client.send(way, signal, signal.made())
    assert told.is_refused(http=503, code=OK.UNAVAILABLE)
    assert told.status is not None
    assert (retry_delay_s(told.status) or 0) > 0


@EACH_GRPC_WAY
@EACH_SIGNAL
async def test_otlp_09_over_the_quota_is_resource_exhausted(way: Way, signal: Signal) -> None:
    async with collector(find=on_plans({"acme": SMALL}), limiter=LocalLimiter(lambda: 0)) as client:
        assert (await client.send(way, signal, signal.made(), **{"x-api-key": "acme"})).is_success
        told = await client.send(way, signal, signal.made(), **{"x-api-key": "acme"})
        assert told.is_refused(http=429, code=OK.RESOURCE_EXHAUSTED)
        assert told.status is not None
        assert (retry_delay_s(told.status) or 0) > 0


@EACH_WAY
@EACH_SIGNAL
async def test_otlp_10_keys_are_asked_for(tmp_path: Path, way: Way, signal: Signal) -> None:
    ring, texts = keyring(tmp_path)
    async with collector(find=ring.find, anonymous=None) as client:
        for key, http, code in (
            (None, 401, OK.UNAUTHENTICATED),
            ("isage_nobody", 401, OK.UNAUTHENTICATED),
            (texts["revoked"], 401, OK.UNAUTHENTICATED),
            (texts["readonly"], 403, OK.PERMISSION_DENIED),
        ):
            told = await client.send(way, signal, signal.made(), **({} if key is None else {"x-api-key": key}))
            assert told.is_refused(http=http, code=code)
        for headers in ({"x-api-key": texts["ingest"]}, {"authorization": f"Bearer {texts['ingest']}"}):
            assert (await client.send(way, signal, signal.made(), **headers)).is_success
        assert {record.tenant_id for record in records(client)} == {"ingest"}


@EACH_HTTP_WAY
@EACH_SIGNAL
async def test_otlp_11_codings_over_http(client: Client, way: Way, signal: Signal) -> None:
    """zstd too; what is corrupt is bad data, what is unknown is said to be; and no answer is compressed unasked."""
    body = way.encoded(signal.made())
    plain = {"content-type": way.content_type}
    for coding, content, status in (
        ("zstd", bytes(cramjam.zstd.compress(body)), 200),
        ("identity", body, 200),
        ("gzip", b"not gzip", 400),
        ("br", body, 415),
    ):
        answer = await client.http.post(signal.path, content=content, headers=plain | {"content-encoding": coding})
        assert answer.status_code == status
        assert "content-encoding" not in answer.headers
    assert client.made.producer.item_count() == 2


@EACH_GRPC_WAY
@EACH_SIGNAL
async def test_otlp_11_codings_over_grpc(client: Client, way: Way, signal: Signal) -> None:
    """None and gzip, one after the other on one connection."""
    for _ in range(2):
        assert (await client.send(way, signal, signal.made())).is_success
    assert client.made.producer.item_count() == 2


def span_document(**fields: object) -> dict[str, Any]:
    span = {"traceId": "0a" * 16, "spanId": "0b" * 8, "name": "s", "startTimeUnixNano": TIME, "endTimeUnixNano": TIME} | fields
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


async def sent_span(client: Client, way: Way, **fields: object) -> trace_pb2.Span:
    """As it was kept."""
    client.made.producer.messages.clear()
    told = await client.send(way, TRACES, json.dumps(span_document(**fields)).encode())
    assert told.response == TRACES.response()
    return records(client)[0].spans[0]


@EACH_JSON_WAY
async def test_otlp_12_json_by_its_own_rules(client: Client, way: Way) -> None:
    """Not protobuf's rules apply: ids are hex of any case, 64 bits a text or a number, unknown names ignored, null absent."""
    span = await sent_span(client, way, traceId="AbCdEf0123456789aBcDeF0123456789", parentSpanId="FF" * 8)
    assert (span.trace_id.hex(), span.parent_span_id) == ("abcdef0123456789abcdef0123456789", b"\xff" * 8)
    span = await sent_span(client, way, startTimeUnixNano=NOW_UNIX_NANO - 1, droppedAttributesCount=3, kind=2)
    assert (span.start_time_unix_nano, span.dropped_attributes_count, span.kind) == (NOW_UNIX_NANO - 1, 3, 2)
    span = await sent_span(client, way, trace_state="snake", unknown={"deep": [{"x": None}]}, traceState=None, events=None)
    assert (span.trace_state, len(span.events)) == ("snake", 0)
    value = {"key": "k", "value": {"bytesValue": base64.b64encode(b"\0\xff").decode()}}
    span = await sent_span(client, way, attributes=[value, {"key": "n", "value": {"intValue": "-9223372036854775808"}}])
    assert [each.value.string_value for each in span.attributes] == ["AP8=", "-9223372036854775808"]


@EACH_JSON_WAY
async def test_otlp_12_enums_are_integers_or_their_names(client: Client, way: Way) -> None:
    span = await sent_span(client, way, kind="SPAN_KIND_SERVER")
    assert 2 == span.kind
    told = await client.send(way, TRACES, json.dumps(span_document(kind="SERVER")).encode())
    assert told.response is not None
    assert told.response.partial_success.rejected_spans == 1


@EACH_JSON_WAY
@pytest.mark.parametrize(("text", "bits"), [("NaN", "7ff8"), ("Infinity", "7ff0"), ("-Infinity", "fff0")])
async def test_otlp_12_doubles_that_json_has_no_numbers_for(client: Client, way: Way, text: str, bits: str) -> None:
    point = {"timeUnixNano": TIME, "asDouble": text}
    document = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "gauge": {"dataPoints": [point]}}]}]}]}
    assert (await client.send(way, METRICS, json.dumps(document).encode())).is_success
    [kept] = records(client)[0].metrics[0].gauge.data_points
    single = metrics_pb2.NumberDataPoint(as_double=kept.as_double).SerializeToString()
    assert single[-1:-3:-1].hex() == bits


@EACH_WAY
async def test_otlp_13_spans_without_valid_ids_are_rejected(client: Client, way: Way) -> None:
    request = TRACES.made(good=6)
    spans = request.resource_spans[0].scope_spans[0].spans
    spans[1].trace_id = bytes(16)
    spans[2].trace_id = b"short"
    spans[3].span_id = bytes(8)
    spans[4].ClearField("span_id")
    told = await client.send(way, TRACES, request)
    assert told.response is not None
    assert told.response.partial_success.rejected_spans == 4
    assert "2 invalid_trace_id" in told.response.partial_success.error_message
    assert client.made.producer.item_count() == 2


@EACH_WAY
async def test_otlp_13_points_without_time_or_temporality_or_with_odd_buckets_are_rejected(client: Client, way: Way) -> None:
    """One flagged as without a value is kept, flag and all; a sum that says no temporality is kept as cumulative."""
    request = METRICS.made(good=3)
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    points = metrics[0].gauge.data_points
    points[0].time_unix_nano = 0
    points[1].flags = 1
    points[1].ClearField("as_double")
    metrics.add(name="sum").sum.data_points.add(time_unix_nano=NOW_UNIX_NANO, as_int=1)
    other = metrics.add(name="other").sum
    other.aggregation_temporality = 3
    other.data_points.add(time_unix_nano=NOW_UNIX_NANO, as_int=1)
    histogram = metrics.add(name="histogram").histogram
    histogram.aggregation_temporality = 2
    histogram.data_points.add(time_unix_nano=NOW_UNIX_NANO, count=3, bucket_counts=[1, 2], explicit_bounds=[1, 2])
    told = await client.send(way, METRICS, request)
    assert told.response is not None
    assert told.response.partial_success.rejected_data_points == 3
    for reason in ("missing_timestamp", "unspecified_temporality", "invalid_histogram"):
        assert f"1 {reason}" in told.response.partial_success.error_message
    assert "repaired: 1 temporality_assumed" in told.response.partial_success.error_message
    assert [2] == [m.sum.aggregation_temporality for record in records(client) for m in record.metrics if m.HasField("sum")]
    kept = [point for record in records(client) for metric in record.metrics for point in metric.gauge.data_points]
    assert sorted(point.flags for point in kept) == [0, 1]


@EACH_WAY
async def test_otlp_13_a_log_record_loses_no_more_than_its_association(client: Client, way: Way) -> None:
    """An id of a wrong length is reported, one of zeros is no id. Of a repeated key, the last value stays."""
    request = LOGS.made(good=1)
    record = request.resource_logs[0].scope_logs[0].log_records[0]
    record.trace_id = b"short"
    record.span_id = bytes(8)
    for text in ("first", "last"):
        record.attributes.add(key="k").value.string_value = text
    told = await client.send(way, LOGS, request)
    assert told.response is not None
    assert told.response.partial_success.rejected_log_records == 0
    assert "repaired: 1 id_dropped" in told.response.partial_success.error_message
    [kept] = records(client)[0].log_records
    assert (kept.trace_id, kept.span_id) == (b"", b"")
    assert [(each.key, each.value.string_value) for each in kept.attributes] == [("k", "last")]


@EACH_PROTOBUF_WAY
@EACH_SIGNAL
async def test_otlp_14_unknown_fields_are_ignored(client: Client, way: Way, signal: Signal) -> None:
    """Unknown fields of every wire type, at every level, are ignored."""
    unknown = varint(1000 << 3) + b"\x05" + varint(1001 << 3 | 1) + bytes(8) + length_delimited(1002, b"x")
    unknown += varint(1003 << 3 | 5) + bytes(4)
    request = signal.made(good=2)
    envelope = request.DESCRIPTOR.fields[0].name
    entry = getattr(request, envelope)[0].SerializeToString()
    body = unknown + length_delimited(1, unknown + entry + unknown) + unknown
    assert (await client.send(way, signal, body)).response == signal.response()
    assert client.made.producer.item_count() == 2


@EACH_PROTOBUF_WAY
async def test_otlp_14_fields_may_be_split_repeated_and_out_of_order(client: Client, way: Way) -> None:
    """The last scalar wins, messages merge."""
    time = b"\x09" + NOW_UNIX_NANO.to_bytes(8, "little")
    old = b"\x09" + bytes(8)
    record = length_delimited(3, b"FIRST") + old + length_delimited(3, b"LAST") + time
    half, other = (
        length_delimited(1, length_delimited(1, b"a")),
        length_delimited(1, length_delimited(2, length_delimited(1, b"b"))),
    )
    resource = length_delimited(1, half) + length_delimited(1, other)  # two attributes: of two Resources that are merged
    body = length_delimited(1, length_delimited(2, length_delimited(2, record)) + resource)
    assert (await client.send(way, LOGS, body)).response == LOGS.response()
    [kept] = records(client)
    assert (kept.log_records[0].severity_text, kept.log_records[0].time_unix_nano) == ("LAST", NOW_UNIX_NANO)
    assert [(each.key, each.value.string_value) for each in kept.resource.attributes] == [("a", ""), ("", "b")]


@EACH_WAY
async def test_otlp_15_nesting_is_bounded(client: Client, way: Way) -> None:
    """64 deep passes, 65 is rejected by itself, and 5,000 never crash anything."""
    nested = nested_logs_json if way.is_json else nested_logs
    told = await client.send(way, LOGS, nested(64, 65))
    assert told.response is not None
    assert told.response.partial_success.rejected_log_records == 1
    assert "nested_too_deep" in told.response.partial_success.error_message
    deepest = await client.send(way, LOGS, nested(5_000))
    assert deepest.is_success or deepest.is_refused(http=400, code=OK.INVALID_ARGUMENT)
    assert client.made.producer.item_count() == 1
