"""No success without a word: what is read of OTLP/JSON beside its specification, and what is said where nothing was taken."""

import json
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from grpc import StatusCode, aio
from support.fakes.receiving import Receivers, grpc_receivers, http_receivers, otlp_logs, otlp_metrics, otlp_traces
from support.otlp_grpc import LOGS, METRICS, TRACES, export, refused
from support.references.otlp import REQUESTS

BODIES = {"metrics": otlp_metrics, "logs": otlp_logs, "traces": otlp_traces}


async def send(made: Receivers, signal: str, document: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=made.url, timeout=20) as http:
        return await http.post(f"/v1/{signal}", json=document)


def document_of(signal: str, *, snake_case: bool = False) -> Any:
    """A request of one item, as protobuf's own JSON has it, ids in hex."""
    message = REQUESTS[signal].FromString(BODIES[signal](good=1))
    document = MessageToDict(message, preserving_proto_field_name=snake_case)
    for name, size in (("traceId", 32), ("trace_id", 32), ("spanId", 16), ("span_id", 16)):
        document = with_value(document, name, "ab" * (size // 2))
    return document


def with_value(value: Any, name: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: new if key == name else with_value(inner, name, new) for key, inner in value.items()}
    return [with_value(inner, name, new) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("padding", [0, 2 << 20])
@pytest.mark.parametrize("signal", BODIES)
async def test_snake_case_is_read_as_the_collector_does(signal: str, padding: int) -> None:
    """The same item as of lowerCamelCase, in small bodies and in those that are read piece by piece."""
    async with http_receivers(validation={"otlp_json_snake_case": True}) as made, httpx.AsyncClient(base_url=made.url) as http:
        for snake_case in (False, True):
            body = json.dumps(document_of(signal, snake_case=snake_case)).encode() + b" " * padding
            answer = await http.post(f"/v1/{signal}", content=body, headers={"content-type": "application/json"}, timeout=30)
            assert (200, {}) == (answer.status_code, answer.json())
        camel, snake = (record for record in made.producer.records() if record.item_count)
        camel.batch_id = snake.batch_id
        assert camel == snake


async def test_names_of_enums_are_read() -> None:
    """A span's kind, a temporality, a severity; a name that there is not rejects its item, with a word."""
    async with http_receivers() as made:
        for signal, name, at in (("traces", "SPAN_KIND_SERVER", "kind"), ("logs", "SEVERITY_NUMBER_ERROR", "severityNumber")):
            document = document_of(signal)
            scope = document[f"resource{'Spans' if signal == 'traces' else 'Logs'}"][0]
            item = scope["scopeSpans" if signal == "traces" else "scopeLogs"][0][
                "spans" if signal == "traces" else "logRecords"
            ][0]
            item[at] = name
            assert {} == (await send(made, signal, document)).json()
            item[at] = "OTHER"
            told = (await send(made, signal, document)).json()["partialSuccess"]["errorMessage"]
            assert f".{at} must be an enum's name, or an integer" in told
        spans, logs = (record for record in made.producer.records() if record.item_count)
        assert (2, 17) == (spans.spans[0].kind, logs.log_records[0].severity_number)


WRONG = {
    "/v1/traces": ("logs", "resourceLogs", "/v1/logs"),
    "/v1/logs": ("metrics", "resourceMetrics", "/v1/metrics"),
    "/v1/metrics": ("traces", "resourceSpans", "/v1/traces"),
}


@pytest.mark.parametrize("padding", [0, 2 << 20])
@pytest.mark.parametrize("path", WRONG)
async def test_another_signals_request_is_referred_to_its_route(path: str, padding: int) -> None:
    """200 with a warning, since nothing was wrong with the JSON: the field that is unknown, and where it belongs."""
    signal, field, right = WRONG[path]
    async with http_receivers() as made, httpx.AsyncClient(base_url=made.url) as http:
        body = json.dumps(document_of(signal)).encode() + b" " * padding
        answer = await http.post(path, content=body, headers={"content-type": "application/json"}, timeout=30)
        [partial] = answer.json().values()
        assert 200 == answer.status_code
        assert f'has no field "{field}", which is for {right}' in partial["errorMessage"]
        assert [] == made.producer.messages


def document_field(path: str) -> str:
    return {"/v1/logs": "resourceLogs", "/v1/metrics": "resourceMetrics", "/v1/traces": "resourceSpans"}[path]


@pytest.mark.parametrize("padding", [0, 2 << 20])
@pytest.mark.parametrize("path", WRONG)
async def test_a_native_record_is_referred_to_its_route(path: str, padding: int) -> None:
    """Alone, by a warning; an array of them, which is no request at all, by the refusal."""
    async with http_receivers() as made, httpx.AsyncClient(base_url=made.url) as http:
        for body, status, told in (
            (b'{"service_id": "s", "body": "b"}', 200, 'has no field "service_id", which is for /api/v1/telemetry'),
            (b'[{"service_id": "s"}]', 400, "; an array of records of the native API is for /api/v1/telemetry/batch"),
            (b"[]", 400, f'must be one JSON object, with the member "{document_field(path)}"'),
        ):
            headers = {"content-type": "application/json"}
            answer = await http.post(path, content=body + b" " * padding, headers=headers, timeout=30)
            assert status == answer.status_code
            assert told in json.dumps(answer.json()).replace('\\"', '"')


@pytest.mark.parametrize("padding", [0, 2 << 20])
async def test_another_signals_items_beside_the_routes_own_are_reported(padding: int) -> None:
    """They may be in one body, or in a scope under its old name: what was taken is stored, and the answer names the rest."""
    async with http_receivers() as made, httpx.AsyncClient(base_url=made.url) as http:
        both = document_of("logs") | document_of("traces")
        old = document_of("logs")
        old["resourceLogs"].append({"instrumentationLibraryLogs": [{"logs": [{}]}]})
        for document, told in (
            (both, '"resourceSpans", which is for /v1/traces'),
            (old, '"instrumentationLibraryLogs": OTLP 1.0'),
        ):
            body = json.dumps({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1} | document).encode() + b" " * padding
            answer = await http.post("/v1/logs", content=body, headers={"content-type": "application/json"}, timeout=30)
            partial = answer.json()["partialSuccess"]
            assert "0" == partial["rejectedLogRecords"]
            assert partial["errorMessage"].startswith("a part of the request was not taken: ")
            assert told in partial["errorMessage"]
        assert 2 == sum(len(record.log_records) for record in made.producer.records())


@pytest.mark.parametrize("padding", [0, 2 << 20])
@pytest.mark.parametrize(
    ("signal", "path", "told"),
    [
        ("logs", ["scopeLogs", 0, "records"], 'ScopeLogs has no field "records"'),
        ("logs", ["scope_spans"], 'ResourceLogs has no field "scope_spans"'),
        ("traces", ["scopeSpans", 0, "Spans"], 'ScopeSpans has no field "Spans"'),
        ("metrics", ["scopeMetrics", 0, "metrics", 0, "counter"], 'Metric has no field "counter"'),
        ("metrics", ["scopeMetrics", 0, "metrics", 0, "gauge", "points"], 'Gauge has no field "points"'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_may_be_items_is_named_beside_those_that_are_taken(
    signal: str, path: list[str | int], told: str, padding: int
) -> None:
    """They are under a name that nobody reads, however deep. What is beside it is stored."""
    document = document_of(signal)
    place: Any = next(iter(document.values()))[0]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = [{"unread": "x" * padding}]
    async with http_receivers() as made:
        partial = (await send(made, signal, document)).json()["partialSuccess"]
        assert 1 == made.producer.item_count()
    assert f"a part of the request was not taken: {told}" == partial["errorMessage"]


VALUE = {"stringValue": "x"}


@pytest.mark.parametrize(
    "value", [{"value": VALUE}, {"Value": {"StringValue": "x"}}, {"text": "x"}, {"arrayValue": {"values": [{"value": VALUE}]}}]
)
@pytest.mark.parametrize("place", ["body", "attribute", "resource"])
async def test_values_that_nobody_reads_are_named(place: str, value: Any) -> None:
    """Encoders of structures write such values. Their items are stored, and silently the values would be missing."""
    document = document_of("logs")
    resource = document["resourceLogs"][0]
    record = resource["scopeLogs"][0]["logRecords"][0]
    if place == "body":
        record["body"] = value
    else:
        owner = record if place == "attribute" else resource.setdefault("resource", {})
        owner.setdefault("attributes", []).append({"key": "k", "value": value})
    async with http_receivers() as made:
        partial = (await send(made, "logs", document)).json()["partialSuccess"]
        assert 0 < sum(len(stored.log_records) for stored in made.producer.records())
    assert "0" == partial["rejectedLogRecords"]
    name = next(iter(value)) if "arrayValue" not in value else "value"
    assert f'a part of the request was not taken: AnyValue has no field "{name}"' == partial["errorMessage"]


@pytest.mark.parametrize("padding", [0, 2 << 20])
@pytest.mark.parametrize(
    ("attribute", "told"),
    [
        ({"Key": "k", "value": VALUE}, 'KeyValue has no field "Key"'),
        ({"key": "k", "Value": VALUE}, 'KeyValue has no field "Value"'),
        ({"key": "k", "value": {"kvlistValue": {"a": VALUE}}}, 'KeyValueList has no field "a"'),
        ({"key": "k", "value": {"arrayValue": {"items": [VALUE]}}}, 'ArrayValue has no field "items"'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_the_parts_of_values_that_nobody_reads_are_named(attribute: Any, told: str, padding: int) -> None:
    """A key or a value is missing where its item is stored, in small bodies and in values that are read piece by piece."""
    document = document_of("logs")
    if padding:
        document["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["body"] = {"stringValue": "x" * padding}
    document["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0].setdefault("attributes", []).append(attribute)
    async with http_receivers() as made:
        partial = (await send(made, "logs", document)).json()["partialSuccess"]
        assert 1 == sum(len(stored.log_records) for stored in made.producer.records())
    assert "0" == partial["rejectedLogRecords"]
    assert f"a part of the request was not taken: {told}" == partial["errorMessage"]


@pytest.mark.parametrize("padding", [0, 2 << 20])
async def test_a_point_without_a_value_is_named(padding: int) -> None:
    """JavaScript writes NaN so: the point is stored, and its value is read as 0."""
    document = document_of("metrics")
    [metric] = document["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    [point] = metric["gauge"]["dataPoints"]
    padded = point | {"attributes": [{"key": "k", "value": {"stringValue": "x" * padding}}]}
    metric["gauge"]["dataPoints"] = [padded, point | {"asDouble": None}]
    async with http_receivers() as made:
        answer = await send(made, "metrics", document)
    partial = answer.json()["partialSuccess"]
    assert "0" == partial["rejectedDataPoints"]
    assert "1 value_missing" in partial["errorMessage"]
    assert "value_missing=1" in answer.headers["x-infrasage-repaired"]


async def test_what_is_unknown_is_named_where_nothing_was_taken() -> None:
    """It may be of an old version, of snake_case, of anything. It is not named beside an item, or in an empty request."""
    strict = {"otlp_json_snake_case": False, "otlp_json_enum_names": False}
    async with http_receivers(validation=strict) as made:
        old: Any = {"resourceSpans": [{"instrumentationLibrarySpans": [{"spans": [{}]}]}]}
        for signal, document, told in (
            ("traces", old, '"instrumentationLibrarySpans": OTLP 1.0 has scopeSpans'),
            ("logs", document_of("logs", snake_case=True), '"resource_logs", which is for /v1/logs'),
            ("metrics", {"a\nb": 1, "c": 2}, 'has no field "a\\nb"; ExportMetricsServiceRequest has no field "c"'),
        ):
            [partial] = (await send(made, signal, document)).json().values()
            assert told in partial["errorMessage"]
            assert "0" == next(value for name, value in partial.items() if name.startswith("rejected"))
        quiet: list[Any] = [
            {},
            {"resourceLogs": []},
            {"resourceLogs": [{"scopeLogs": [{}]}]},
            {"foo": None} | document_of("logs"),
        ]
        for nothing in quiet:
            assert {} == (await send(made, "logs", nothing)).json()


PROTOBUF = {"content-type": "application/x-protobuf"}
SERVICES = {"metrics": METRICS, "logs": LOGS, "traces": TRACES}
UNKNOWN = bytes([0xC2, 0x3E, 3]) + b"new"  # field 1000


def within(levels: int) -> bytes:
    """An unknown field in that many messages, each the first or second field of the one around it."""
    body = UNKNOWN
    for level in range(levels):
        body = bytes([0x0A if level == levels - 1 else 0x12, len(body)]) + body
    return body


@pytest.mark.parametrize("levels", [0, 1, 2])
@pytest.mark.parametrize("signal", SERVICES)
async def test_protobuf_of_which_nothing_was_taken_is_reported(signal: str, levels: int) -> None:
    """HTTP and gRPC report it: for the request, a resource and a scope."""
    service = SERVICES[signal]
    async with (
        http_receivers() as made,
        grpc_receivers(made) as (_, server),
        httpx.AsyncClient(base_url=made.url) as http,
        aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        by_http = await http.post(f"/v1/{signal}", content=within(levels), headers=PROTOBUF)
        assert 200 == by_http.status_code
        for body in (by_http.content, await export(channel, service, within(levels))):
            partial = service.response.FromString(body).partial_success
            assert 0 == getattr(partial, service.rejected_field)
            assert "nothing was taken of the request" in partial.error_message
            assert "has no field 1000" in partial.error_message
        for quiet in (b"", UNKNOWN + service.body()):
            assert b"" == (await http.post(f"/v1/{signal}", content=quiet, headers=PROTOBUF)).content


@pytest.mark.parametrize(("sent", "route"), [("metrics", "logs"), ("logs", "metrics"), ("logs", "traces")])
async def test_protobuf_of_another_signal_is_refused(sent: str, route: str) -> None:
    """Their fields have the same numbers and other types: protobuf's parser takes those for unknown, and reads empty items."""
    body = BODIES[sent](good=1)
    async with (
        http_receivers() as made,
        grpc_receivers(made) as (_, server),
        httpx.AsyncClient(base_url=made.url) as http,
        aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        answer = await http.post(f"/v1/{route}", content=body, headers=PROTOBUF)
        assert 400 == answer.status_code
        assert b"check that the request is sent to the route of its signal" in answer.content
        error, _ = await refused(channel, SERVICES[route], body)
        assert StatusCode.INVALID_ARGUMENT == error.code()
        assert [] == made.producer.messages
