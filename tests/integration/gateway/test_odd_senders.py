"""What senders of this field send beside what the specifications ask for, over both servers: it is taken."""

import zlib
from collections.abc import Callable

import cramjam
import grpc
import httpx
import pytest
from grpc import aio
from support.fakes.receiving import NOW, Receivers, http_receivers, remote_write
from support.otlp_grpc import LOGS, METRICS, TRACES, Service, export
from support.ways import JSON, SERVERS, WAYS, WAYS_BY_NAME, Way

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "deflate": zlib.compress,
    "zlib": zlib.compress,
    "Deflate": lambda body: zlib.compress(body, wbits=-15),
    "snappy": lambda body: bytes(cramjam.snappy.compress_raw(body)),
    "x-snappy-framed": lambda body: bytes(cramjam.snappy.compress(body)),
}
WAYS_BY_PATH = {way.path: way for way in WAYS if way.content_type == JSON}
EACH_SERVER = pytest.mark.parametrize("server", SERVERS)


async def send(made: Receivers, path: str, body: bytes, headers: list[tuple[str, str]]) -> httpx.Response:
    async with httpx.AsyncClient(base_url=made.url, timeout=20) as http:
        return await http.post(path, content=body, headers=headers)


@EACH_SERVER
@pytest.mark.parametrize("coding", PACKED)
@pytest.mark.parametrize("way", [way for way in WAYS if not way.is_remote_write], ids=lambda way: way.name)
async def test_deflate_and_snappy_over_http(server: str, way: Way, coding: str) -> None:
    """They are taken as by the Collector's receivers; snappy in its block format or framed."""
    async with http_receivers(server) as made:
        packed = PACKED[coding](way.body(good=1))
        headers = [("content-type", way.content_type), ("content-encoding", coding)]
        assert way.status == (await send(made, way.path, packed, headers)).status_code
        if coding == "x-snappy-framed":
            headers[1] = ("content-encoding", "snappy")
            assert way.status == (await send(made, way.path, packed, headers)).status_code
        assert 400 == (await send(made, way.path, packed[:-1], headers)).status_code


@EACH_SERVER
@WAYS_BY_NAME
async def test_odd_slashes_and_a_content_type_twice(server: str, way: Way) -> None:
    """A slash too many at the end of an endpoint or of the path. A proxy that sets what was there already changes nothing, with
    parameters or in one header; two that differ are still refused."""
    async with http_receivers(server) as made:
        body = way.as_sent(way.body(good=1))
        twice = [("content-type", way.content_type)] * 2
        assert way.status == (await send(made, f"{way.path}/", body, twice)).status_code
        with_charset = [("content-type", way.content_type), ("content-type", f"{way.content_type}; charset=utf-8")]
        joined = [("content-type", f"{way.content_type},{way.content_type}")]
        assert way.status == (await send(made, way.path, body, with_charset)).status_code
        answer = await httpx.AsyncClient(base_url=f"{made.url}/", timeout=20).post(
            f"{made.url}/{way.path}", content=body, headers=joined
        )
        assert way.status == answer.status_code
        other = [("content-type", way.content_type), ("content-type", "text/html")]
        assert 415 == (await send(made, way.path, body, other)).status_code
        assert 3 == made.producer.item_count()


@EACH_SERVER
@WAYS_BY_NAME
async def test_a_long_value_is_not_parsed(server: str, way: Way) -> None:
    """A Content-Type of 36 KB that means the same as a short one: taking apart 60 KB took 20 ms of the event loop."""
    async with http_receivers(server) as made:
        body = way.as_sent(way.body(good=1))
        for content_type, status in (
            (f"{way.content_type};a=" + "x" * (1024 - len(way.content_type) - 3), way.status),
            (f"{way.content_type};a=" + "x" * (1025 - len(way.content_type) - 3), 415),
            (",".join([way.content_type] * 600), 415),
        ):
            answer = await send(made, way.path, body, [("content-type", content_type)])
            assert status == answer.status_code
            if status == 415:
                assert f"({len(content_type)} bytes) is not one of application/" in answer.text
        coding = "gzip" + " " * 200 + "x"
        answer = await send(made, way.path, body, [("content-type", way.content_type), ("content-encoding", coding)])
        assert 415 == answer.status_code
        assert f"({len(coding)} bytes) is not one of" in answer.text


async def test_a_refused_content_type_names_those_that_are_taken() -> None:
    """Each is named once, as it is written."""
    async with http_receivers() as made:
        answer = await send(made, "/api/v1/prometheus/write", b"", [("content-type", "text/html")])
        assert (
            "unsupported_media_type: Content-Type 'text/html' is not one of application/x-protobuf, text/plain, application/"
            in (answer.text)
        )
        assert "application/x-protobuf;proto=io.prometheus.write.v2.Request" in answer.text


@EACH_SERVER
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/octet-stream", "application/vnd.google.protobuf"])
async def test_remote_write_with_no_content_type_or_an_odd_one(server: str, content_type: str | None) -> None:
    """It is 1.0."""
    async with http_receivers(server) as made:
        headers = [] if content_type is None else [("content-type", content_type)]
        body = bytes(cramjam.snappy.compress_raw(remote_write()))
        assert 204 == (await send(made, "/api/v1/prometheus/write", body, headers)).status_code
        assert 1 == made.producer.item_count()


async def test_an_object_that_holds_the_array_is_answered_what_to_send() -> None:
    """The answer says to send the array by itself, and for an array of records it names the route of batches."""
    record = {"service_id": "s", "metric_name": "m", "value": 1, "timestamp": NOW}
    async with http_receivers() as made, httpx.AsyncClient(base_url=made.url, timeout=20) as http:
        batch = (await http.post("/api/v1/telemetry/batch", json={"records": [record]}, headers={"content-type": JSON})).json()
        assert batch["message"] == 'a batch must be a JSON array of records; got object: send the array "records" by itself'
        for name, route in (("resourceLogs", "/v1/logs"), ("resourceSpans", "/v1/traces"), ("resourceMetrics", "/v1/metrics")):
            batch = (await http.post("/api/v1/telemetry/batch", json={name: []}, headers={"content-type": JSON})).json()
            assert f"got object: this is OTLP, which is for {route}" in batch["message"]
        single = (await http.post("/api/v1/telemetry", json={"records": [record]})).json()
        assert ("missing_service_id", True) == (single["error"], "/api/v1/telemetry/batch" in single["message"])


@EACH_SERVER
@pytest.mark.parametrize("prefix", ["/collector", "/a/b"])
async def test_every_route_answers_under_the_prefix_too(server: str, prefix: str) -> None:
    """A proxy may pass the prefix. Pages answer, too, with links under it. Without the prefix all answer as before."""
    async with (
        http_receivers(server, path_prefix=prefix, with_pages=True) as made,
        httpx.AsyncClient(base_url=made.url, timeout=20) as http,
    ):
        for path in (f"{prefix}/v1/logs", f"{prefix}/v1/logs/", "/v1/logs"):
            answer = await http.post(path, content=WAYS_BY_PATH["/v1/logs"].body(), headers={"content-type": JSON})
            assert (path, 200) == (path, answer.status_code)
        for path in ("/healthz", "/metrics", "/docs", "/openapi.json"):
            assert (path, 200) == (path, (await http.get(f"{prefix}{path}")).status_code)
            assert (path, 200) == (path, (await http.get(path)).status_code)
        assert f"{prefix}/openapi.json" in (await http.get(f"{prefix}/docs")).text
        assert f"{prefix}/" not in (await http.get("/docs")).text
        for wrong in (f"{prefix}x/v1/logs", f"{prefix}{prefix}/v1/logs", prefix, f"{prefix}/v1"):
            assert (wrong, 404) == (wrong, (await http.post(wrong, content=b"")).status_code)
        assert 401 == (await http.get(f"{prefix}/api/v1/usage")).status_code


@pytest.mark.parametrize("service", [LOGS, METRICS, TRACES], ids=lambda service: service.noun)
async def test_grpc_on_a_port_of_http_hears_where_grpc_is_spoken(service: Service) -> None:
    """The answer is in gRPC, since its client reads nothing else: UNIMPLEMENTED, which is not sent again."""
    async with http_receivers() as made:
        made.app.receiver.grpc_places = "port 4317"
        async with aio.insecure_channel(f"127.0.0.1:{made.port}") as channel:
            for body in (service.body(), bytes(1 << 20)):
                with pytest.raises(aio.AioRpcError) as refused:
                    await export(channel, service, body)
                assert grpc.StatusCode.UNIMPLEMENTED == refused.value.code()
                told = refused.value.details() or ""
                assert told.startswith("this port takes OTLP over HTTP; OTLP over gRPC is taken on port 4317")
        assert 2 == made.counted("infrasage_requests_refused_total", reason="unsupported_media_type")


async def test_grpc_by_the_oldest_http_hears_it_too() -> None:
    """gRPC-Web, say, on a path of ours or another."""
    async with http_receivers() as made:
        for path in ("/v1/logs", LOGS.method):
            headers = [("content-type", "application/grpc-web+proto")]
            answer = await send(made, path, b"", headers)
            assert (200, "12") == (answer.status_code, answer.headers["grpc-status"])
            assert "port 4317" in answer.headers["grpc-message"]
