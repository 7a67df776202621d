"""What real clients do, each as it was seen on the wire: see items.py. `make test-clients` runs the clients themselves."""

import asyncio
import gzip
import struct
from collections.abc import AsyncIterator

import cramjam
import grpc
import httpx
import pytest
from infrasage.prometheus.v2 import write_pb2 as v2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from support.conformance import (
    EACH_GRPC_WAY,
    EACH_HTTP_WAY,
    EACH_SIGNAL,
    EACH_WAY,
    LOGS,
    TRACES,
    Client,
    Signal,
    Way,
    collector,
)
from support.fakes.receiving import NOW_UNIX_NANO, connection, grpc_receivers, otlp_logs, post, post_chunked, remote_write
from support.http2 import http2
from support.otlp_grpc import LOGS as LOGS_SERVICE
from support.references.remote_write import write_request, write_request_v2
from support.tenants import on_plans
from support.ways import retry_delay_s

from collector.broker.contract import BrokerDown
from collector.config.broker import Kafka
from collector.config.repetitions import RepetitionsSection
from collector.rate_limit.local import LocalLimiter
from collector.tenancy.plans import Plan, Rate

V1 = "application/x-protobuf"
V2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
PROTOBUF = "application/x-protobuf"
NOW_MS = NOW_UNIX_NANO // 10**6
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with collector() as client:
        yield client


def written(answer: httpx.Response) -> list[str | None]:
    return [answer.headers.get(f"x-prometheus-remote-write-{kind}-written") for kind in ("samples", "histograms", "exemplars")]


@EACH_GRPC_WAY
@EACH_SIGNAL
async def test_clients_01_grpc_errors_are_trailers_only(client: Client, way: Way, signal: Signal) -> None:
    for body, problem in ((b"\xff", None), (signal.body(good=1), BrokerDown("away"))):
        client.made.producer.error = problem
        told = await client.send(way, signal, body)
        assert told.error is not None
        assert not told.error.initial_metadata()


@pytest.mark.parametrize("coding", ["zstd", "snappy"])
async def test_clients_02_grpc_bodies_in_other_codings(coding: str) -> None:
    """zstd and snappy are taken; what is not known is UNIMPLEMENTED, with those that are."""
    packed = bytes(cramjam.zstd.compress(otlp_logs()) if coding == "zstd" else cramjam.snappy.compress(otlp_logs()))
    async with grpc_receivers() as (made, server), http2(server.port) as raw:
        message = b"\1" + len(packed).to_bytes(4, "big") + packed
        head = (("te", "trailers"), ("grpc-encoding", coding))
        answer = await raw.response(raw.request(LOGS_SERVICE.method, "application/grpc", message, *head))
        assert answer.headers["grpc-accept-encoding"] == "identity, deflate, gzip, snappy, zstd"
        if coding not in ("zstd", "snappy"):
            assert int(answer.headers["grpc-status"]) == grpc.StatusCode.UNIMPLEMENTED.value[0]
        plain = b"\0" + len(otlp_logs()).to_bytes(4, "big") + otlp_logs()
        again = await raw.response(raw.request(LOGS_SERVICE.method, "application/grpc", plain, ("te", "trailers")))
        assert again.headers.get("grpc-status", "0") == "0"
        assert made.producer.item_count() == (2 if coding in ("zstd", "snappy") else 1)


async def test_clients_03_exemplars_come_without_samples(client: Client) -> None:
    request = v2.Request(symbols=["", "__name__", "m"])
    request.timeseries.add(labels_refs=[1, 2]).samples.add(value=1, timestamp=NOW_MS)
    request.timeseries.add(labels_refs=[1, 2]).exemplars.add(value=1, timestamp=NOW_MS)
    answer = await client.write(V2, request.SerializeToString())
    assert (answer.status_code, written(answer)) == (204, ["1", "0", "1"])


async def test_clients_04_what_was_written_is_answered_to_2_0_alone(client: Client) -> None:
    series = [({"__name__": "m"}, [(1.0, NOW_MS)])]
    assert written(await client.write(V1, write_request(series))) == [None] * 3
    assert written(await client.write(V2, write_request_v2(series))) == ["1", "0", "0"]
    assert written(await client.write(V2, b"\xff")) == ["0", "0", "0"]


@pytest.mark.parametrize("content_type", [V1, V2])
async def test_clients_05_stale_markers_of_histograms_are_float_samples(client: Client, content_type: str) -> None:
    """They are float samples also in a series that had histograms before."""
    (stale,) = struct.unpack(">d", bytes.fromhex("7ff0000000000002"))
    if content_type == V2:
        request = v2.Request(symbols=["", "__name__", "h"])
        request.timeseries.add(labels_refs=[1, 2]).histograms.add(count_int=1, zero_count_int=1, sum=0.0, timestamp=NOW_MS)
        assert (await client.write(V2, request.SerializeToString())).status_code == 204
    write = write_request_v2 if content_type == V2 else write_request
    assert (await client.write(content_type, write([({"__name__": "h"}, [(stale, NOW_MS + 1)])]))).status_code == 204
    kept = [message.payload for message in client.made.producer.messages]
    assert bytes.fromhex("7ff0000000000002")[::-1] in kept[-1]


@EACH_WAY
@EACH_SIGNAL
async def test_clients_06_a_stop_answers_what_was_begun(way: Way, signal: Signal) -> None:
    async with collector() as client:
        client.made.producer.gate.clear()
        sending = asyncio.create_task(client.send(way, signal, signal.made()))
        await client.made.producer.waiting.wait()
        assert client.made.server is not None
        stopping = asyncio.create_task(client.made.server.stop(5))
        await asyncio.sleep(0.05)
        assert not sending.done()
        client.made.producer.gate.set()
        assert (await sending).is_success
        await stopping


@EACH_GRPC_WAY
async def test_clients_07_resource_exhausted_says_whether_to_try_again(way: Way) -> None:
    plan = Plan("Small", requests=Rate(1, 1), items=None, size_bytes=None)
    settings = {"find": on_plans({"acme": plan}), "limiter": LocalLimiter(lambda: 0)}
    async with collector(grpc_settings={"message_bytes_max": 1000}, **settings) as client:
        large = await client.send(way, LOGS, LOGS.made(good=500))
        assert large.error is not None
        assert large.error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert large.status is not None
        assert retry_delay_s(large.status) is None
        for _ in range(2):
            told = await client.send(way, LOGS, LOGS.made(), **{"x-api-key": "acme"})
        assert told.is_refused(http=429, code=grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert told.status is not None
        assert retry_delay_s(told.status) is not None


async def test_clients_08_retries_with_the_same_bytes_are_taken(client: Client) -> None:
    body = remote_write()
    client.made.producer.error = BrokerDown("away")
    refused = await client.write(V1, body)
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    client.made.producer.error = None
    assert (await client.write(V1, body, **{"retry-attempt": "1"})).status_code == 204
    assert client.made.producer.item_count() == 1


@EACH_HTTP_WAY
async def test_clients_09_media_types_of_answers_have_no_parameters(client: Client, way: Way) -> None:
    told = await client.send(way, TRACES, TRACES.made(1, 1), **{"content-type": f"{way.content_type}; charset=utf-8"})
    assert told.http is not None
    assert told.http.headers["content-type"] == way.content_type
    assert isinstance(told.response, ExportTraceServiceResponse)
    assert told.response.partial_success.rejected_spans == 1


@EACH_HTTP_WAY
async def test_clients_10_a_request_sent_again_is_one_of_its_own(client: Client, way: Way) -> None:
    """We can't know that it is the same: so each has a batch id, which shows what is stored twice."""
    ids = set()
    for _ in range(2):
        told = await client.send(way, LOGS, LOGS.made())
        assert told.http is not None
        ids.add(told.http.headers["x-infrasage-batch-id"])
    kept = {record.batch_id for record in client.made.producer.records()}
    assert (len(ids), len(kept)) == (2, 2)


def test_clients_11_what_is_sent_again_after_a_deadline_is_stored_once() -> None:
    """The Collector's deadline is 5 s, and Kafka takes 9 s to find that a broker is gone. An append is waited for longer than
    that, so that its outcome is known, and by default a request that is sent again meanwhile is found out."""
    assert 9 < Kafka().append_timeout_s < RepetitionsSection().window_s


@EACH_SIGNAL
async def test_clients_12_bodies_are_chunked_and_parallel(client: Client, signal: Signal) -> None:
    """They come without Content-Length, cut anywhere, compressed or not, on several connections at once."""
    body = signal.body(good=5)
    packed = gzip.compress(body)

    async def send(chunk_bytes: int) -> None:
        async with connection(client.made.port) as raw:
            await raw.send(post_chunked(signal.path, PROTOBUF, body, chunk_bytes=chunk_bytes))
            assert (await raw.response()).status == 200
            await raw.send(post_chunked(signal.path, PROTOBUF, packed, "Content-Encoding: gzip", chunk_bytes=chunk_bytes))
            assert (await raw.response()).status == 200

    await asyncio.gather(*(send(size) for size in (1, 7, 100, 10_000)))
    assert client.made.producer.item_count() == 40


@EACH_SIGNAL
async def test_clients_13_a_wish_for_h2c_is_answered_in_http_1_1(client: Client, signal: Signal) -> None:
    async with connection(client.made.port) as raw:
        for _ in range(3):
            await raw.send(post(signal.path, PROTOBUF, signal.body(good=1), *H2C))
            answer = await raw.response()
            assert answer.status == 200
            assert "upgrade" not in answer.headers
    assert client.made.producer.item_count() == 3


async def test_clients_14_odd_heads_are_served(client: Client) -> None:
    """A User-Agent of `/` over HTTP; over gRPC a ping at once, and no timeout."""
    async with connection(client.made.port) as raw:
        await raw.send(post("/v1/logs", PROTOBUF, otlp_logs(), "User-Agent: /"))
        assert (await raw.response()).status == 200
    async with grpc_receivers() as (made, server), http2(server.port) as peer:
        peer.h2.ping(b"8 bytes.")
        peer.flush()
        message = b"\0" + len(otlp_logs()).to_bytes(4, "big") + otlp_logs()
        head = (("te", "trailers"), ("user-agent", "/"))
        answer = await peer.response(peer.request(LOGS_SERVICE.method, "application/grpc", message, *head))
        assert answer.headers.get("grpc-status", "0") == "0"
        assert made.producer.item_count() == 1


@EACH_WAY
@EACH_SIGNAL
async def test_clients_15_what_was_acknowledged_is_there(client: Client, way: Way, signal: Signal) -> None:
    """Item by item, of several requests at once; and what was refused is not."""
    told = await asyncio.gather(*(client.send(way, signal, signal.made(good, late=1)) for good in range(1, 8)))
    assert all(each.is_success for each in told)
    assert client.made.producer.item_count() == sum(range(1, 8))
    rejected = [getattr(each.response.partial_success, signal.rejected_field) for each in told if each.response is not None]
    assert rejected == [1] * 7
    assert client.made.counted("infrasage_ingestion_events_total", status="accepted") == sum(range(1, 8))
