"""Every route over real sockets and both servers: what is asked, and to the byte what is answered."""

import asyncio
import gzip
import itertools
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_NATIVE_JSON
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from support.costs import cost_of
from support.examples import examples
from support.fakes.receiving import (
    NOW,
    Receivers,
    Response,
    connection,
    http_receivers,
    native_batch,
    otlp_logs,
    post,
    post_chunked,
    receivers,
    remote_write,
)
from support.waiting import eventually
from support.ways import JSON, PATHS, PROTOBUF, SERVERS, WAYS, WAYS_BY_NAME, Way, snappy, told

from adapters.codec.json_parts import JsonPartsCount
from collector.broker.contract import BrokerDown, BrokerFull
from collector.ingest.reading import Input
from collector.receivers.http.telemetry_request import Format, Route
from collector.receivers.responses import NATIVE

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TOO_OLD = "Timestamp is more than 24h in the past"


@pytest.fixture(params=SERVERS)
async def made(request: pytest.FixtureRequest) -> AsyncIterator[Receivers]:
    async with http_receivers(request.param) as made:
        yield made
        assert made.in_flight.bytes_held == 0


@asynccontextmanager
async def client(made: Receivers) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=made.url, timeout=20) as client:
        yield client


async def send(made: Receivers, way: Way, body: bytes, **headers: str) -> httpx.Response:
    """Compressed where the protocol always is."""
    async with client(made) as http:
        return await http.post(way.path, content=way.as_sent(body), headers={"content-type": way.content_type} | headers)


def error_of(way: Way, answer: httpx.Response | Response) -> str:
    """The error of an answer, in the protocol's own shape, which is checked; with its reason where the answer has one."""
    body = answer.content if isinstance(answer, httpx.Response) else answer.body
    found = told(way, answer.headers["content-type"], body)
    return f"{found.error}: {found.message}" if found.error else found.message


# Success.


@WAYS_BY_NAME
async def test_what_is_sent_is_kept_and_counted(made: Receivers, way: Way) -> None:
    """An answer of success means: in the broker, under a batch id that the sender gets, and counted as accepted."""
    answer = await send(made, way, way.body())
    assert answer.status_code == way.status
    assert made.producer.item_count() == 1
    assert len(answer.headers["x-infrasage-batch-id"]) == 36
    assert made.counted("infrasage_ingestion_events_total", status="accepted") == 1
    assert made.counted("infrasage_ingestion_events_total") == 1
    assert made.counted("infrasage_http_requests_total", endpoint=way.path, code=str(way.status)) == 1
    assert made.counted("infrasage_http_request_duration_seconds_count", endpoint=way.path) == 1


@pytest.mark.parametrize(
    ("way", "body"),
    [
        (WAYS[0], b'{"status":"ok","queued":1}'),
        (WAYS[1], b'{"status":"ok","queued":1,"failed":0,"failures":[]}'),
        *[(way, b"{}" if way.content_type == JSON else b"") for way in WAYS[2:]],
    ],
)
async def test_success_is_answered_to_the_letter(made: Receivers, way: Way, body: bytes) -> None:
    """OTLP: an empty response message, of exactly the request's media type. Remote write: 204 without a body."""
    answer = await send(made, way, way.body())
    assert answer.content == body
    if way.status == 204:
        assert "content-type" not in answer.headers
        assert "content-length" not in answer.headers
    else:
        assert answer.headers["content-type"] == way.content_type


@pytest.mark.parametrize("path", ["/v1/metrics", "/v1/logs", "/v1/traces"])
@pytest.mark.parametrize(("content_type", "body"), [(PROTOBUF, b""), (JSON, b"{}")])
async def test_an_empty_export_is_a_success(made: Receivers, path: str, content_type: str, body: bytes) -> None:
    answer = await send(made, Way(path, content_type, otlp_logs), body)
    assert answer.status_code == 200
    assert answer.content == body
    assert made.producer.appends == 0


@pytest.mark.parametrize(
    ("way", "content_type"),
    [
        (WAYS[2], "Application/X-Protobuf"),
        (WAYS[2], "application/x-protobuf; messageType=x"),
        (WAYS[3], "application/json; charset=utf-8"),
        (WAYS[3], "APPLICATION/JSON;charset=UTF-8"),
        (WAYS[0], "Application/Json ; charset=utf-8"),
        (WAYS[8], "application/x-protobuf;proto=prometheus.WriteRequest"),
        (WAYS[8], 'application/x-protobuf; proto="prometheus.WriteRequest"; charset=utf-8'),
    ],
)
async def test_media_types_have_parameters_and_any_case(made: Receivers, way: Way, content_type: str) -> None:
    """The answer's media type has neither: Go's client takes a partial success for one only then."""
    answer = await send(made, way, way.body(), **{"content-type": content_type})
    assert answer.status_code == way.status
    if way.status != 204:
        assert answer.headers["content-type"] == way.content_type


@WAYS_BY_NAME
@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("ZSTD", zstd.compress)])
async def test_bodies_may_be_compressed(made: Receivers, way: Way, coding: str, compress: Callable[[bytes], bytes]) -> None:
    """gzip and zstd everywhere but in remote write, which has snappy alone. Answers are not compressed."""
    async with client(made) as http:
        headers = {"content-type": way.content_type, "content-encoding": coding, "accept-encoding": "gzip"}
        answer = await http.post(way.path, content=compress(way.body()), headers=headers)
    assert answer.status_code == (415 if way.status == 204 else 200)
    assert "content-encoding" not in answer.headers


@WAYS_BY_NAME
async def test_a_body_may_be_chunked(made: Receivers, way: Way) -> None:
    """Node always does, Java and Go when they compress."""
    body = way.body(good=1)
    async with connection(made.port) as raw:
        sent = snappy(body) if way.status == 204 else body
        await raw.send(post_chunked(way.path, way.content_type, sent, chunk_bytes=7))
        assert (await raw.response()).status == way.status
    assert made.producer.item_count() == 1


# Partial success.

PARTIAL = f"2 of 3 {{}} rejected: 2 timestamp_too_old ({TOO_OLD})"


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (WAYS[2], ("rejected_data_points", ExportMetricsServiceResponse, "data points")),
        (WAYS[4], ("rejected_log_records", ExportLogsServiceResponse, "log records")),
        (WAYS[6], ("rejected_spans", ExportTraceServiceResponse, "spans")),
    ],
)
async def test_partial_success_in_protobuf(made: Receivers, way: Way, expected: tuple[str, Any, str]) -> None:
    """It has the exact count, under the signal's own name, and says why."""
    field, response, noun = expected
    answer = await send(made, way, way.body(good=1, late=2))
    assert answer.status_code == 200
    partial = response.FromString(answer.content).partial_success
    assert getattr(partial, field) == 2
    assert partial.error_message == PARTIAL.format(noun)
    assert made.producer.item_count() == 1


@pytest.mark.parametrize(
    ("way", "field", "noun"),
    [
        (WAYS[3], "rejectedDataPoints", "data points"),
        (WAYS[5], "rejectedLogRecords", "log records"),
        (WAYS[7], "rejectedSpans", "spans"),
    ],
)
async def test_partial_success_in_json(made: Receivers, way: Way, field: str, noun: str) -> None:
    """int64 is a string there."""
    answer = await send(made, way, way.body(good=1, late=2))
    assert answer.status_code == 200
    assert json.loads(answer.content) == {"partialSuccess": {field: "2", "errorMessage": PARTIAL.format(noun)}}


@pytest.mark.parametrize("way", WAYS[2:8])
async def test_all_items_rejected_is_still_partial_success(made: Receivers, way: Way) -> None:
    answer = await send(made, way, way.body(good=0, late=3))
    assert answer.status_code == 200
    assert answer.content not in (b"", b"{}")
    assert made.counted("infrasage_ingestion_events_total", status="rejected") == 3
    assert made.counted("infrasage_validation_failures_total", reason="timestamp_too_old") == 3


async def test_the_batch_tells_which_records_failed(made: Receivers) -> None:
    """The failures have the form of the API's documentation; the rest is queued."""
    answer = await send(made, WAYS[1], native_batch(good=2, late=1))
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "queued": 2,
        "failed": 1,
        "failures": [{"index": 2, "error": "timestamp_too_old", "message": TOO_OLD}],
    }


async def test_a_single_bad_record_is_400_with_its_reason(made: Receivers) -> None:
    record = b'{"service_id":"a","metric_name":"m","value":NaN,"timestamp":"' + NOW.encode() + b'"}'
    answer = await send(made, WAYS[0], record)
    assert answer.status_code == 400
    assert answer.json() == {
        "status": "error",
        "error": "invalid_value",
        "message": "value must be a finite float64; got NaN",
    }
    assert made.counted("infrasage_ingestion_events_total", type="metric", status="rejected") == 1


async def test_remote_write_says_400_when_not_all_of_it_was_written(made: Receivers) -> None:
    """The answer has counts and reasons; the valid rest is kept."""
    answer = await send(made, WAYS[8], remote_write(good=1, late=2))
    assert answer.status_code == 400
    assert answer.text == PARTIAL.format("samples") + "\n"
    assert made.producer.item_count() == 1


# Refusals.


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_405_with_allow(made: Receivers, path: str, method: str) -> None:
    async with client(made) as http:
        answer = await http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    if method != "HEAD":
        way = next(way for way in reversed(WAYS) if way.path == path)  # OTLP: without a media type, JSON
        assert f"{method} is not allowed for {path}: use POST" in error_of(way, answer)


@pytest.mark.parametrize("path", ["/", "/v1/metrics//", "/v1/profiles", "/api/v1/telemetry/x", "/%00", "/static-offline-docs"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unknown_paths_are_404_in_the_native_shape(made: Receivers, path: str, method: str) -> None:
    """They are counted under no name that a client could invent."""
    async with connection(made.port) as raw:
        await raw.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
        answer = await raw.response()
    assert answer.status == 404
    assert json.loads(answer.body)["error"] == "not_found"
    assert made.counted("infrasage_http_requests_total", code="404") == 1
    assert made.counted("infrasage_http_requests_total", endpoint=path) == 0


@WAYS_BY_NAME
@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded", "é", "application/json, a/b"])
async def test_unknown_media_types_are_415(made: Receivers, way: Way, content_type: str) -> None:
    """OTLP has a JSON Status, and no body is looked at. Remote write takes two media types that its senders use."""
    async with connection(made.port) as raw:
        await raw.send(post(way.path, content_type, b"x" * 100))
        answer = await raw.response()
    if way.path == "/api/v1/prometheus/write" and content_type in ("text/plain", ""):
        assert answer.status == 400  # known senders of remote write name it so: the body is read, and is no snappy
        return
    assert answer.status == 415
    shape = way._replace(content_type=JSON) if way.path.startswith("/v1/") else way
    assert "Content-Type" in error_of(shape, answer)
    assert made.counted("infrasage_requests_refused_total", reason="unsupported_media_type") == 1


@WAYS_BY_NAME
@pytest.mark.parametrize("coding", ["br", "compress", "gzip, gzip", "snappy-framed", "identity, zstd"])
async def test_unknown_content_encodings_are_415(made: Receivers, way: Way, coding: str) -> None:
    answer = await send(made, way, way.body(), **{"content-encoding": coding})
    assert answer.status_code == 415
    assert "Content-Encoding" in error_of(way, answer)


async def test_a_content_encoding_sent_twice_is_415(made: Receivers) -> None:
    async with connection(made.port) as raw:
        await raw.send(post("/v1/logs", PROTOBUF, b"", "Content-Encoding: gzip", "Content-Encoding: gzip"))
        assert (await raw.response()).status == 415


@WAYS_BY_NAME
async def test_what_does_not_decompress_is_400(made: Receivers, way: Way) -> None:
    headers = {"content-type": way.content_type, "content-encoding": "snappy" if way.status == 204 else "gzip"}
    async with client(made) as http:
        answer = await http.post(way.path, content=b"\x1f\x8b nothing of the kind", headers=headers)
    assert answer.status_code == 400
    assert "cannot decompress" in error_of(way, answer)


@WAYS_BY_NAME
@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"{", b"\x0a\x05abc"])
async def test_what_does_not_decode_is_400(made: Receivers, way: Way, body: bytes) -> None:
    answer = await send(made, way, body)
    assert answer.status_code == 400
    assert "cannot decode" in error_of(way, answer)
    assert made.counted("infrasage_ingestion_events_total") == 0


@WAYS_BY_NAME
@pytest.mark.parametrize(
    ("error", "reason"), [(BrokerDown("disk gone"), "storage_unavailable"), (BrokerFull("8 GiB held"), "storage_full")]
)
async def test_what_cannot_be_stored_now_is_503_with_retry_after(
    made: Receivers, way: Way, error: Exception, reason: str
) -> None:
    """Never 429 or 500, at which senders drop; and its items, those that would have been rejected too, have failed."""
    made.producer.error = error
    answer = await send(made, way, way.body(good=1))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "3"
    assert str(error) in error_of(way, answer)
    assert made.counted("infrasage_ingestion_events_total", status="failed") == 1
    assert made.counted("infrasage_ingestion_events_total") == 1
    assert made.counted("infrasage_requests_refused_total", reason=reason) == 1


@WAYS_BY_NAME
async def test_over_the_budget_is_503_and_nothing_is_kept(way: Way) -> None:
    """Both the announced size and the real one of a body count."""
    async with http_receivers(in_flight_bytes_max=1000) as made:
        for request in (post, post_chunked):
            async with connection(made.port) as raw:
                body = b"x" * 1001
                await raw.send(request(way.path, way.content_type, body))
                answer = await raw.response()
            assert answer.status == 503
            assert answer.headers["retry-after"] == "3"
            assert "in flight" in error_of(way, answer)
        assert made.in_flight.bytes_held == 0
        assert made.producer.appends == 0
        assert (await send(made, way, way.body())).status_code == way.status


async def test_the_budget_is_held_until_the_answer() -> None:
    """It is held also for what a body decompresses to, and for what its rows have beyond that."""
    async with http_receivers() as made:
        made.producer.gate.clear()
        body = otlp_logs(padding=10_000)
        packed = gzip.compress(body)
        sending = asyncio.create_task(send(made, WAYS[4], packed, **{"content-encoding": "gzip"}))
        await made.producer.waiting.wait()
        assert made.in_flight.bytes_held == len(packed) + cost_of(WAYS[4].path, WAYS[4].content_type, body, "anonymous")
        made.producer.gate.set()
        assert (await sending).status_code == 200
        assert made.in_flight.bytes_held == 0


async def test_a_defect_is_500_and_logged_with_its_batch(capsys: pytest.CaptureFixture[str]) -> None:
    """The sender gets the batch id, and no more; the log has both."""

    def broken(*_: object) -> Any:
        raise KeyError("line\nforged")

    route = Route(
        "/v1/broken",
        {JSON: Format(Input(broken, JsonPartsCount, 1, "/v1/broken", PAYLOAD_FORM_NATIVE_JSON), NATIVE, {b"": "identity"})},
        otherwise=NATIVE,
    )
    async with http_receivers(routes=lambda _: {"/v1/broken": route}) as made, client(made) as http:
        answer = await http.post("/v1/broken", content=b"{}", headers={"content-type": JSON})
        assert answer.status_code == 500
        assert answer.json()["error"] == "internal"
        assert "forged" not in answer.text
        batch_id = answer.json()["message"].split()[-1]
        assert len(batch_id) == 36
        logged = capsys.readouterr().out
        assert batch_id in logged
        assert "KeyError" in logged


# Sizes.

LIMIT = 20_000
CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "zstd": ("zstd", zstd.compress),
    "snappy": ("snappy", snappy),
}


def sized(way: Way, size_bytes: int) -> bytes:
    """A good body of exactly that size."""
    padding = size_bytes - len(way.body())
    while (excess := len(way.body(padding=padding)) - size_bytes) > 0:
        padding -= excess
    body = way.body(padding=padding)
    assert len(body) == size_bytes
    return body


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("coding", CODINGS)
async def test_exactly_at_the_limit_passes_and_one_byte_more_is_413(server: str, chunked: bool, coding: str) -> None:
    """This holds for every route, before and after decompression, with and without an announced length."""
    name, compress = CODINGS[coding]
    limit: dict[str, Any] = {"body_bytes_max": LIMIT} if coding == "plain" else {"decompressed_bytes_max": LIMIT}
    async with http_receivers(server, **limit) as made, connection(made.port) as raw:
        for way in WAYS:
            if (way.status == 204) != (coding == "snappy"):
                continue
            for size_bytes, status in ((LIMIT, way.status), (LIMIT + 1, 413), (LIMIT, way.status)):
                body = compress(sized(way, size_bytes))
                request = post_chunked if chunked else post
                await raw.send(request(way.path, way.content_type, body, f"Content-Encoding: {name}"))
                answer = await raw.response()
                assert answer.status == status, (way, size_bytes, answer)
                if status == 413:
                    assert str(LIMIT) in error_of(way, answer)
        assert made.in_flight.bytes_held == 0


@pytest.mark.parametrize("server", SERVERS)
async def test_a_compressed_body_is_also_limited_as_it_was_sent(server: str) -> None:
    body = gzip.compress(otlp_logs(), 0)
    for size_max, status in ((len(body), 200), (len(body) - 1, 413)):
        async with http_receivers(server, body_bytes_max=size_max) as made:
            assert (await send(made, WAYS[4], body, **{"content-encoding": "gzip"})).status_code == status


async def test_too_long_a_batch_is_refused_as_a_whole() -> None:
    """A batch at the limit passes."""
    async with http_receivers(batch_items_max=3) as made:
        assert (await send(made, WAYS[1], native_batch(good=3))).status_code == 200
        answer = await send(made, WAYS[1], native_batch(good=4))
        assert answer.status_code == 400
        assert answer.json()["error"] == "batch_too_large"
        assert made.producer.item_count() == 3


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
async def test_an_announced_size_over_the_limit_is_refused_before_the_body(server: str, path: str) -> None:
    """Nothing of the body has to come."""
    async with http_receivers(server) as made, connection(made.port) as raw:
        way = next((way for way in WAYS if way.path == path), WAYS[0])
        await raw.send(post(path, way.content_type, b"", length=1 << 40))
        answer = await raw.response()
        assert answer.status == (404 if path == "/nowhere" else 413)
        assert path == "/nowhere" or b"are taken (http.body_bytes_max)" in answer.body


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_sender_that_is_refused_early_hears_it_while_it_still_sends(server: str, chunked: bool) -> None:
    """The rest of its body is let pass, and the connection is good for the next request."""
    async with http_receivers(server, body_bytes_max=1000) as made, connection(made.port) as raw:
        request = post_chunked if chunked else post
        await raw.send(request("/v1/logs", PROTOBUF, bytes(8 << 20)))
        answer = await raw.response()
        assert (answer.status, True) == (413, b"are taken (http.body_bytes_max)" in answer.body)
        await raw.send(post("/v1/logs", PROTOBUF, otlp_logs()))
        assert (await raw.response()).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        ("Expect: 100-Continue",),
        ("Expect: 100-continue", "Expect: 100-continue"),
        ("Expect: 100-continue", "Expect: other"),
        ("Expect: other", "Expect: 100-continue"),
        ("Expect: other, 100-continue",),
    ],
)
async def test_expect_100_continue_beside_others(headers: tuple[str, ...]) -> None:
    """A client that waits for it gets it, once."""
    async with http_receivers() as made, connection(made.port) as raw:
        body = otlp_logs()
        await raw.send(post("/v1/logs", PROTOBUF, b"", *headers, length=len(body)))
        assert (await raw.response()).status == 100
        await raw.send(body)
        assert (await raw.response()).status == 200


@pytest.mark.parametrize("server", SERVERS)
async def test_expect_100_continue(server: str) -> None:
    """A sender that asks first gets 100 Continue, or the reason why not, before it has sent its body."""
    async with http_receivers(server) as made:
        async with connection(made.port) as raw:
            body = otlp_logs()
            await raw.send(post("/v1/logs", PROTOBUF, b"", "Expect: 100-continue", length=len(body)))
            assert (await raw.response()).status == 100
            await raw.send(body)
            assert (await raw.response()).status == 200
        async with connection(made.port) as raw:
            await raw.send(post("/v1/logs", "text/plain", b"", "Expect: 100-continue", length=1000))
            answer = await raw.response()
            if answer.status == 100:
                assert server == "hypercorn", "our own judges the head first"
                answer = await raw.response()
            else:
                assert answer.headers["connection"] == "close"
                assert await raw.closed()
            assert answer.status == 415


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("piece", [b"", b"abc"])
async def test_a_body_that_does_not_come_in_time_is_408(server: str, piece: bytes) -> None:
    async with http_receivers(server, body_timeout_s=0.2) as made, connection(made.port) as raw:
        await raw.send(post("/v1/logs", PROTOBUF, piece, length=10))
        answer = await raw.response()
        assert answer.status == 408
        assert f"{len(piece)} bytes" in error_of(WAYS[4], answer)
        assert await raw.closed()
        assert made.in_flight.bytes_held == 0


@pytest.mark.parametrize("server", SERVERS)
async def test_a_sender_that_goes_away_leaves_nothing_behind(server: str) -> None:
    async with http_receivers(server) as made:
        async with connection(made.port) as raw:
            await raw.send(post("/v1/logs", PROTOBUF, bytes(5000), length=100_000))
            await eventually(lambda: made.in_flight.bytes_held)
        await eventually(lambda: not made.in_flight.bytes_held)
        await eventually(lambda: made.counted("infrasage_http_requests_total", code="499"))
        assert made.producer.appends == 0


# Whatever comes.


async def call(made: Receivers, method: str, path: str, headers: dict[str, str], body: bytes) -> int:
    """The application alone: the status of its answer."""
    statuses: list[int] = []
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    await made.app(scope, receive, send)
    return statuses[0]


GOOD = st.sampled_from([compress(way.body(3)) for way in WAYS for _, compress in CODINGS.values()])


@st.composite
def almost(draw: st.DrawFn) -> bytes:
    """A good body with some bytes changed, cut or put in."""
    body = bytearray(draw(GOOD))
    for _ in range(draw(st.integers(0, 4))):
        i = draw(st.integers(0, len(body)))
        body[i : i + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(body[: draw(st.integers(0, len(body)))] if draw(st.booleans()) else body)


@examples(300)
@given(
    way=st.sampled_from(WAYS),
    body=st.one_of(st.binary(max_size=300), almost(), st.recursive(st.none(), st.lists).map(lambda v: json.dumps(v).encode())),
    coding=st.sampled_from(["identity", "gzip", "zstd", "snappy", ""]),
)
def test_no_body_makes_a_5xx(way: Way, body: bytes, coding: str) -> None:
    """Nothing is held after any body, and every item that was found has one outcome."""

    async def check() -> None:
        made = receivers()
        headers = {"content-type": way.content_type, "content-encoding": coding}
        assert await call(made, "POST", way.path, headers, body) < 500
        assert made.in_flight.bytes_held == 0
        assert made.counted("infrasage_ingestion_events_total", status="accepted") == made.producer.item_count()

    asyncio.run(check())


WITH_PAGES = receivers(with_pages=True)


@examples(100)
@given(
    method=st.sampled_from(["POST", "GET", "PROPFIND"]),
    path=st.sampled_from([*PATHS, "/healthz", "/metrics", "/x"]),
    content_type=st.text(st.characters(max_codepoint=255), max_size=40),
    coding=st.text(st.characters(max_codepoint=255), max_size=20),
)
def test_no_head_makes_a_5xx(method: str, path: str, content_type: str, coding: str) -> None:
    status = asyncio.run(call(WITH_PAGES, method, path, {"content-type": content_type, "content-encoding": coding}, b"{}"))
    assert status < 500


@pytest.mark.parametrize("way", WAYS)
def test_items_are_counted_once_each_whatever_happens(way: Way) -> None:
    """accepted + rejected + rate_limited + failed is what was sent."""

    async def check() -> None:
        made = receivers()
        sent = 0
        for good, late, error in itertools.product((0, 2), (0, 3), (None, BrokerDown("x"))):
            if way.path == "/api/v1/telemetry" and (good == 0) == (late == 0):
                continue
            made.producer.error = error
            headers = {"content-type": way.content_type}
            body = way.body(good=good, late=late)
            await call(made, "POST", way.path, headers, snappy(body) if way.status == 204 else body)
            sent += 1 if way.path == "/api/v1/telemetry" else good + late
        assert made.counted("infrasage_ingestion_events_total") == sent
        assert made.counted("infrasage_ingestion_batch_size_sum") == sent

    asyncio.run(check())
