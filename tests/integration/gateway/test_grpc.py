"""OTLP over gRPC, through real channels."""

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import cramjam
import grpc
import h2.connection
import h2.events
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from h2.errors import ErrorCodes
from h2.events import StreamEnded
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.fakes.receiving import Receivers, grpc_receivers, otlp_logs, receivers
from support.http2 import frame, http2
from support.otlp_grpc import EACH_SERVICE, LOGS, METRICS, TRACES, UNCOMPRESSED, Service, export, refused
from support.waiting import eventually
from support.ways import retry_delay_s

from collector.broker.contract import BrokerDown, BrokerFull
from collector.receivers.grpc.server import GrpcServer
from collector.receivers.grpc.status import quoted


@asynccontextmanager
async def receiving(made: Receivers | None = None, **keywords: Any) -> AsyncIterator[tuple[Receivers, GrpcServer, aio.Channel]]:
    async with (
        grpc_receivers(made, **keywords) as (listening, server),
        aio.insecure_channel(f"127.0.0.1:{server.port}", options=UNCOMPRESSED) as channel,
    ):
        yield listening, server, channel


async def code_of(answering: Awaitable[bytes]) -> grpc.StatusCode:
    try:
        await answering
    except aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@EACH_SERVICE
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_what_is_sent_is_kept_and_counted(service: Service, compression: grpc.Compression) -> None:
    """Plain or in gzip; success is an empty response."""
    async with receiving() as (made, _, channel):
        answer = await export(channel, service, service.body(good=2), compression=compression)
        assert answer == b""
        assert made.producer.item_count() == 2
        assert made.counted("infrasage_ingestion_events_total", status="accepted") == 2
        assert made.counted("infrasage_grpc_requests_total", method=f"{service.name}/Export", code="OK") == 1
        assert made.in_flight.bytes_held == 0


@EACH_SERVICE
async def test_partial_success_has_the_exact_count(service: Service) -> None:
    async with receiving() as (made, _, channel):
        partial = service.response.FromString(await export(channel, service, service.body(good=1, late=2))).partial_success
        assert getattr(partial, service.rejected_field) == 2
        expected = f"2 of 3 {service.noun} rejected: 2 timestamp_too_old (Timestamp is more than 24h in the past)"
        assert partial.error_message == expected
        assert made.producer.item_count() == 1


@EACH_SERVICE
@pytest.mark.parametrize("body", [b"\xff\xff", b"\x0a\x7f"])
async def test_what_does_not_decode_is_invalid_argument(service: Service, body: bytes) -> None:
    async with receiving() as (made, _, channel):
        error, status = await refused(channel, service, body)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "cannot decode" in status.message
        assert retry_delay_s(status) is None
        assert made.counted("infrasage_requests_refused_total", reason="invalid_protobuf") == 1


@EACH_SERVICE
@pytest.mark.parametrize("problem", [BrokerDown("disk gone"), BrokerFull("8 GiB held")])
async def test_what_cannot_be_stored_now_is_unavailable_with_a_delay(service: Service, problem: Exception) -> None:
    """The answer has RetryInfo, without which Go and the Collector would not send again."""
    async with receiving() as (made, _, channel):
        made.producer.error = problem
        error, status = await refused(channel, service, service.body(good=1, late=1))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert retry_delay_s(status) == 3.0
        assert made.counted("infrasage_ingestion_events_total", status="failed") == 2
        assert made.counted("infrasage_ingestion_events_total") == 2


async def test_errors_are_trailers_only_on_the_wire() -> None:
    """One HEADERS frame, which has the status and ends the stream."""
    async with receiving() as (made, server, _):
        made.producer.error = BrokerDown("x")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        client = h2.connection.H2Connection()
        client.initiate_connection()
        body = otlp_logs()
        head = {
            ":method": "POST",
            ":scheme": "http",
            ":path": LOGS.method,
            ":authority": "a",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        client.send_headers(1, list(head.items()))
        client.send_data(1, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=True)
        writer.write(client.data_to_send())
        answers: list[h2.events.ResponseReceived] = []
        while not answers:
            events = client.receive_data(await asyncio.wait_for(reader.read(65536), 5))
            answers += [event for event in events if isinstance(event, h2.events.ResponseReceived)]
        assert dict(answers[0].headers)[b"grpc-status"] == b"14"
        assert answers[0].stream_ended is not None
        writer.close()


async def test_over_the_budget_is_unavailable_with_a_delay() -> None:
    async with receiving(receivers(in_flight_bytes_max=100)) as (made, _, channel):
        error, status = await refused(channel, LOGS, otlp_logs(padding=200))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert retry_delay_s(status) == 3.0
        assert made.in_flight.bytes_held == 0
        assert await export(channel, LOGS, otlp_logs()) == b""


async def test_too_many_requests_at_once_are_unavailable_with_a_delay() -> None:
    """The code is not RESOURCE_EXHAUSTED, at which senders drop."""
    async with receiving(concurrent_requests_max=1) as (made, _, channel):
        made.producer.gate.clear()
        first = asyncio.create_task(export(channel, LOGS, otlp_logs()))
        await made.producer.waiting.wait()
        error, status = await refused(channel, LOGS, otlp_logs())
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert error.details() == "1 requests run; at most 1 run at once (grpc.concurrent_requests_max)"
        assert retry_delay_s(status) == 3.0
        made.producer.gate.set()
        assert await first == b""


@EACH_SERVICE
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_exactly_at_the_limit_passes_and_one_byte_more_is_exhausted(
    service: Service, compression: grpc.Compression
) -> None:
    """RESOURCE_EXHAUSTED without RetryInfo: nobody should send it again."""
    limit = 20_000
    padding = limit - len(service.body())
    while len(service.body(padding=padding)) > limit:
        padding -= 1
    async with receiving(message_bytes_max=limit) as (_, _, channel):
        assert len(service.body(padding=padding)) == limit
        assert await export(channel, service, service.body(padding=padding), compression=compression) == b""
        error, status = await refused(channel, service, service.body(padding=padding + 1), compression=compression)
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert compression != grpc.Compression.NoCompression or "(grpc.message_bytes_max)" in str(error.details())
        assert not status.details
        assert await export(channel, service, service.body()) == b""


async def test_a_gzip_bomb_is_refused() -> None:
    """64 MiB of zeros in 64 KB, four times over the limit."""
    async with receiving(message_bytes_max=16 << 20) as (made, _, channel):
        with pytest.raises(aio.AioRpcError) as info:
            await export(channel, LOGS, bytes(64 << 20), compression=grpc.Compression.Gzip)
        assert info.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert made.producer.appends == 0


async def test_a_defect_is_internal_and_names_the_batch() -> None:
    async with receiving() as (made, _, channel):
        made.producer.error = KeyError("a secret")
        error, status = await refused(channel, LOGS, otlp_logs())
        assert error.code() == grpc.StatusCode.INTERNAL
        assert "batch" in status.message
        assert "secret" not in status.message
        assert made.counted("infrasage_ingestion_events_total", status="failed") == 1


async def test_what_a_client_that_hangs_up_has_sent_is_kept_and_counted() -> None:
    """It was taken: the client will hear nothing, but the numbers add up and the budget is released."""
    async with receiving() as (made, _, channel):
        made.producer.gate.clear()
        method: Any = channel.unary_unary(LOGS.method)
        call = method(otlp_logs())
        waiting = asyncio.ensure_future(call)
        await made.producer.waiting.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert made.in_flight.bytes_held > 0
        made.producer.gate.set()
        await eventually(lambda: not made.in_flight.bytes_held)
        assert made.producer.item_count() == 1
        assert made.counted("infrasage_ingestion_events_total", status="accepted") == 1


@pytest.mark.parametrize(
    ("encoding", "body", "code"),
    [
        ("gzip", gzip.compress(otlp_logs(), mtime=0), grpc.StatusCode.OK),
        ("deflate", zlib.compress(otlp_logs()), grpc.StatusCode.OK),
        ("zstd", cramjam.zstd.compress(otlp_logs()), grpc.StatusCode.OK),
        ("snappy", cramjam.snappy.compress_raw(otlp_logs()), grpc.StatusCode.OK),
        ("snappy", cramjam.snappy.compress(otlp_logs()), grpc.StatusCode.OK),
        ("lz4", cramjam.lz4.compress(otlp_logs()), grpc.StatusCode.UNIMPLEMENTED),
    ],
    ids=["gzip", "deflate", "zstd", "snappy", "framed snappy", "lz4"],
)
async def test_encodings_on_the_wire(encoding: str, body: bytes, code: grpc.StatusCode) -> None:
    """An unknown encoding is UNIMPLEMENTED, the answer lists the known ones, and the connection goes on."""
    async with receiving() as (made, server, _), http2(server.port) as client:
        head = (("te", "trailers"), ("grpc-encoding", encoding))
        for expected in (code, code):
            message = b"\1" + len(body).to_bytes(4, "big") + bytes(body)
            answer = await client.response(client.request(LOGS.method, "application/grpc", message, *head))
            assert answer.headers["grpc-accept-encoding"] == "identity, deflate, gzip, snappy, zstd"
            assert int(answer.headers.get("grpc-status", 0)) == expected.value[0]
        assert made.producer.item_count() == (2 if code is grpc.StatusCode.OK else 0)


async def test_an_answer_that_no_window_has_room_for_is_dropped() -> None:
    """Its client has closed its half, so its windows can't grow: the connection ends. What it sent is durable."""
    async with receiving(body_timeout_s=600) as (made, server, _), http2(server.port) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        message = b"\0" + len(otlp_logs()).to_bytes(4, "big") + otlp_logs()
        client.request(LOGS.method, "application/grpc", message, ("te", "trailers"))
        while not any(isinstance(event, h2.events.ResponseReceived) for event in client.events):
            assert await client.read()
        client.writer.write_eof()
        await asyncio.wait_for(client.reader.read(), 60)
        assert 1 == made.producer.item_count()


async def test_connections_are_bounded_and_must_begin_in_time() -> None:
    """Connections over the limit are closed, and so is one that sends nothing."""
    async with grpc_receivers(connections_max=2, handshake_timeout_s=0.5) as (_, server):
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        async with asyncio.timeout(5):
            assert await opened[2][0].read() == b""
            for reader, _ in opened[:2]:
                await reader.read()
        for _, writer in opened:
            writer.close()
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            assert await export(channel, LOGS, otlp_logs()) == b""


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"", "cannot decode the call: 0 bytes came, and no message"),
        (b"\0\0\0", "cannot decode the call: 3 bytes came, and no message"),
        (b"\0\0\0\0\x0aabc", "cannot decode the message: 10 bytes, truncated at 3"),
        (b"\0\0\0\0\0\0", "1 bytes follow the message, and a call has only one"),
        (b"\1\0\0\0\0", "the message is marked as compressed (1), but no grpc-encoding says how"),
        (b"\7\0\0\0\0", "the message's first byte is 7; 0 is plain and 1 is compressed"),
    ],
)
async def test_calls_that_are_not_one_message_are_invalid(message: bytes, says: str) -> None:
    async with receiving() as (made, server, _), http2(server.port) as client:
        stream_id = client.request(LOGS.method, "application/grpc", None, ("te", "trailers"))
        client.send(stream_id, message, end=True)
        answer = await client.response(stream_id)
        assert answer.headers["grpc-status"] == "3"
        assert answer.headers["grpc-message"] == says.replace("%", "%25")
        assert made.in_flight.bytes_held == 0


async def test_a_message_that_does_not_come_in_time_is_deadline_exceeded() -> None:
    """Its neighbours on the connection do not mind; nor does what comes of it later."""
    async with receiving(body_timeout_s=0.3) as (made, server, _), http2(server.port) as client:
        late = client.request(LOGS.method, "application/grpc", None, ("te", "trailers"))
        client.send(late, b"\0\0\0\0\xffabc")
        answer = await client.response(late)
        assert answer.headers["grpc-status"] == "4"
        assert answer.headers["grpc-message"] == "3 bytes of the request, and not its end, came within 0.3 s"
        body = otlp_logs()
        message = b"\0" + len(body).to_bytes(4, "big") + body
        again = await client.response(client.request(LOGS.method, "application/grpc", message, ("te", "trailers")))
        assert "grpc-status" not in again.headers  # it is in the trailers
        assert made.in_flight.bytes_held == 0
        assert made.counted("infrasage_grpc_requests_total", code="DEADLINE_EXCEEDED") == 1


_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
_REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
_EMPTY_MESSAGE = b"\0\0\0\0\0"


@pytest.mark.parametrize(
    ("method", "sent"),
    [
        (LOGS.method, b""),
        (LOGS.method, b"\0\0\0\0\xffabc"),
        (_HEALTH_CHECK, b""),
        (_HEALTH_CHECK, _EMPTY_MESSAGE),
        (_HEALTH_WATCH, b""),
        (_HEALTH_WATCH, b"\0\0"),
        (_REFLECTION, b""),
        (_REFLECTION, _EMPTY_MESSAGE),
    ],
)
async def test_calls_that_are_not_whole_end_at_their_own_deadline(method: str, sent: bytes) -> None:
    """Long before `body_timeout_s`. Without a deadline, or with a later one, they wait on."""
    async with receiving(body_timeout_s=600) as (made, server, _), http2(server.port) as client:
        waiting = [
            client.request(method, "application/grpc", None, ("te", "trailers"), *timeout)
            for timeout in ((), (("grpc-timeout", "8H"),), (("grpc-timeout", "200m"),))
        ]
        if sent:
            for stream_id in waiting:
                client.send(stream_id, sent)
        await client.response(waiting[-1], 30)
        ended = next(event for event in client.events if isinstance(event, StreamEnded))
        assert ended.stream_id == waiting[-1]
        trailers = client.trailers(waiting[-1])
        assert trailers["grpc-status"] == "4"
        assert "0.2 s" in trailers["grpc-message"]
        assert client.ended == {waiting[-1]}
        for stream_id in waiting[:-1]:
            client.reset(stream_id)
        await eventually(lambda: made.in_flight.bytes_held == 0)


async def test_watching_ends_at_its_own_deadline() -> None:
    """Its status came before."""
    async with receiving(body_timeout_s=600) as (_, _, channel):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=0.3)
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert await watching.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("method", [_HEALTH_CHECK, _HEALTH_WATCH])
@pytest.mark.parametrize(
    ("sent", "code", "says"),
    [
        (b"", "12", "the call has no message; this method takes exactly one"),
        (2 * _EMPTY_MESSAGE, "12", "the call has several messages; this method takes exactly one"),
        (_EMPTY_MESSAGE + b"\0\0", "3", "the call ends within a message: 2 bytes of it came"),
        (b"\0\0\0", "3", "the call ends within a message: 3 bytes of it came"),
        (b"\0\0\0\0\x02\xff\xff", "3", "cannot decode the HealthCheckRequest"),
    ],
)
async def test_health_takes_exactly_one_message(method: str, sent: bytes, code: str, says: str) -> None:
    """gRPC's list of codes has UNIMPLEMENTED for a wrong number of messages."""
    async with receiving() as (_, server, _), http2(server.port) as client:
        for at_once in (True, False):
            stream_id = client.request(method, "application/grpc", sent if at_once else None, ("te", "trailers"))
            if not at_once:
                for at in range(len(sent)):
                    client.send(stream_id, sent[at : at + 1])
                    await client.writer.drain()
                client.send(stream_id, b"", end=True)
            answer = await client.response(stream_id)
            assert answer.headers["grpc-status"] == code
            assert answer.headers["grpc-message"] == says


async def test_reflection_takes_any_number_of_whole_messages() -> None:
    async with receiving() as (_, server, _), http2(server.port) as client:
        none = client.request(_REFLECTION, "application/grpc", b"", ("te", "trailers"))
        assert (await client.response(none)).headers["grpc-status"] == "0"
        request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        message = b"\0" + len(request).to_bytes(4, "big") + request
        cut = client.request(_REFLECTION, "application/grpc", 2 * message + b"\0\0\0", ("te", "trailers"))
        answer = await client.response(cut)
        assert answer.body.count(LOGS.name.encode()) == 2
        assert client.trailers(cut)["grpc-status"] == "3"
        assert client.trailers(cut)["grpc-message"] == "the call ends within a message: 3 bytes of it came"


async def test_what_is_no_grpc_is_answered_so() -> None:
    """Another content type, another method; and HTTP/1.1, whose sender has mistaken the port. All hear which is right."""
    async with receiving() as (_, server, _), http2(server.port) as client:
        server.set_http_places("port 4444 or 8888")
        answer = await client.response(client.request(LOGS.method, "application/json", b"{}"))
        assert (415, True) == (answer.status, b"OTLP over HTTP is taken on port 4444 or 8888." in answer.body)
        assert (await client.response(client.request(LOGS.method, "application/grpcs", b"{}"))).status == 415
        assert (await client.response(client.request(LOGS.method, "application/grpc", b"", method="GET"))).status == 405
        for content_type in ("application/grpc", "text/plain"):
            answer = await client.response(client.request(LOGS.method, content_type, b"", method="HEAD"))
            assert (answer.status, answer.body) == (405, b"")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /v1/logs HTTP/1.1\r\nHost: a\r\n\r\n")
        said = await asyncio.wait_for(reader.read(), 5)
        assert said.startswith(b"HTTP/1.1 505 ")
        assert b"OTLP over HTTP is taken on port 4444 or 8888." in said
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HEAD /v1/logs HTTP/1.1\r\nHost: a\r\n\r\n")
        told = await asyncio.wait_for(reader.read(), 5)
        assert told == said[: said.index(b"\r\n\r\n") + 4]
        writer.close()


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/grpc;charset=utf-8"])
async def test_content_types_of_grpc(content_type: str) -> None:
    async with receiving() as (made, server, _), http2(server.port) as client:
        body = otlp_logs()
        await client.response(client.request(LOGS.method, content_type, b"\0" + len(body).to_bytes(4, "big") + body))
        assert made.producer.item_count() == 1


async def test_too_much_metadata_is_resource_exhausted() -> None:
    """It costs its own call only, however much it is, and wherever the content type is."""
    async with receiving(header_bytes_max=1024) as (made, server, _), http2(server.port) as client:
        body = otlp_logs()
        message = b"\0" + len(body).to_bytes(4, "big") + body
        for long in ([("x-long", "a" * 1500)], [("x-long", "a" * 10_000)], [("x-many", "~" * 500)] * 25):
            answer = await client.response(client.request(LOGS.method, "application/grpc", message, *long))
            assert answer.headers["grpc-status"] == "8"
            assert "at most 1024 are taken (grpc.header_bytes_max)" in answer.headers["grpc-message"]
            await client.response(client.request(LOGS.method, "application/grpc", message))
        assert made.producer.item_count() == 3


async def test_metadata_without_end_ends_the_connection() -> None:
    async with receiving(header_bytes_max=1024) as (_, server, _), http2(server.port) as client:
        client.writer.write(frame(1, bytes(16), stream_id=1) + frame(9, bytes(4000), stream_id=1) * 5)
        assert await client.closed() == ErrorCodes.ENHANCE_YOUR_CALM


async def test_pings_too_often_are_answered_in_grpcs_own_words() -> None:
    """`too_many_pings` makes its clients ping less often. Those that come with work are no matter."""
    async with receiving(ping_interval_min_s=60) as (_, server, _), http2(server.port) as client:
        for _ in range(10):
            client.h2.ping(b"12345678")
            await client.response(client.request("/a/b", "application/grpc", b""))
        for _ in range(5):
            client.h2.ping(b"12345678")
            client.flush()
        assert await client.closed() == ErrorCodes.ENHANCE_YOUR_CALM
        assert client.goaways[-1].additional_data == b"too_many_pings"


async def test_a_silent_client_is_pinged_and_one_that_is_gone_is_closed() -> None:
    async with receiving(keep_alive_s=1, keep_alive_timeout_s=1) as (_, server, _):
        async with http2(server.port) as client:
            async with asyncio.timeout(5):
                while not any(isinstance(event, h2.events.PingReceived) for event in client.events):
                    await client.read()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4))
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 6)
        writer.close()


async def test_as_many_small_calls_at_once_as_announced_are_served() -> None:
    """One message in two frames and an end of its own, as some clients have it: no flood, though nothing is answered yet."""
    async with receiving() as (made, server, _), http2(server.port) as client:
        made.producer.gate.clear()
        body = otlp_logs()
        prefix = b"\0" + len(body).to_bytes(4, "big")
        for _ in range(1024):
            stream_id = client.request(LOGS.method, "application/grpc", None, ("te", "trailers"))
            client.h2.send_data(stream_id, prefix)
            client.h2.send_data(stream_id, body)
            client.h2.send_data(stream_id, b"", end_stream=True)
        client.flush()
        await eventually(lambda: made.producer.appends == 1024)
        made.producer.gate.set()
        while len(client.ended) < 1024:
            assert await client.read()
        assert not client.resets
        assert made.producer.item_count() == 1024


async def test_as_many_calls_as_announced_may_be_cancelled_at_once() -> None:
    """They are cancelled together when the deadline of all passes; new ones are served."""
    async with receiving(concurrent_streams_max=200) as (made, server, _), http2(server.port) as client:
        streams = [client.request(LOGS.method, "application/grpc", None, ("te", "trailers")) for _ in range(200)]
        for stream_id in streams:
            client.reset(stream_id)
        body = otlp_logs()
        message = b"\0" + len(body).to_bytes(4, "big") + body
        await client.response(client.request(LOGS.method, "application/grpc", message))
        assert made.producer.item_count() == 1


async def test_an_answer_that_nobody_reads_ends() -> None:
    async with receiving(body_timeout_s=0.5) as (_, server, _), http2(server.port, acknowledges=False) as client:
        client.h2.update_settings({4: 0})
        client.flush()
        message = health_pb2.HealthCheckRequest().SerializeToString()
        framed = b"\0" + len(message).to_bytes(4, "big") + message
        stream_id = client.request("/grpc.health.v1.Health/Watch", "application/grpc", framed, ("te", "trailers"))
        assert await client.reset_code(stream_id) == ErrorCodes.CANCEL


@pytest.mark.parametrize("content_type", ["application/grpc+json", "application/grpc+thrift;x=y"])
async def test_other_codings_of_messages_are_unimplemented(content_type: str) -> None:
    async with receiving() as (_, server, _), http2(server.port) as client:
        answer = await client.response(client.request(LOGS.method, content_type, b"\0\0\0\0\2{}", ("te", "trailers")))
        assert answer.headers["grpc-status"] == "12"
        assert answer.headers["grpc-message"].startswith(f"content-type {content_type} is not taken")


@pytest.mark.parametrize("timeout", ["", "S", "10", "1s", "-1S", "1.5S", "123456789S", " ", "10 S", "1S, 1S"])
async def test_a_malformed_timeout_is_invalid(timeout: str) -> None:
    async with receiving() as (made, server, _), http2(server.port) as client:
        for method in (LOGS.method, _HEALTH_CHECK, _HEALTH_WATCH, _REFLECTION):
            answer = await client.response(
                client.request(method, "application/grpc", b"", ("te", "trailers"), ("grpc-timeout", timeout))
            )
            assert answer.headers["grpc-status"] == "3"
            assert answer.headers["grpc-message"].startswith(f"grpc-timeout {timeout.strip()!r} is not")
        assert made.producer.appends == 0


@pytest.mark.parametrize("timeout", ["1H", "99999999n", "0m", "10S", "5M", "100u"])
async def test_timeouts_in_every_unit_are_taken(timeout: str) -> None:
    async with receiving() as (made, server, _), http2(server.port) as client:
        body = otlp_logs()
        message = b"\0" + len(body).to_bytes(4, "big") + body
        await client.response(client.request(LOGS.method, "application/grpc", message, ("grpc-timeout", timeout)))
        assert made.producer.appends == 1


async def test_repeated_headers_that_decide_are_refused() -> None:
    """Nobody guesses which of them is meant."""
    async with receiving() as (made, server, _), http2(server.port) as client:
        twice = (("grpc-encoding", "gzip"), ("grpc-encoding", "identity"))
        answer = await client.response(client.request(LOGS.method, "application/grpc", b"", *twice))
        assert answer.headers["grpc-status"] == "12"
        assert answer.headers["grpc-message"].startswith("grpc-encoding 'gzip, identity' is not one of")
        twice = (("grpc-timeout", "1S"), ("grpc-timeout", "2S"))
        answer = await client.response(client.request(LOGS.method, "application/grpc", b"", *twice))
        assert answer.headers["grpc-status"] == "3"
        assert made.producer.appends == 0


async def test_more_calls_than_a_connection_may_have_are_refused_to_be_sent_again() -> None:
    """They are refused also while those that were cancelled still work."""
    async with receiving(concurrent_streams_max=2) as (made, server, _), http2(server.port) as client:
        made.producer.gate.clear()
        body = otlp_logs()
        message = b"\0" + len(body).to_bytes(4, "big") + body
        first, second = (client.request(LOGS.method, "application/grpc", message) for _ in range(2))
        await eventually(lambda: made.producer.appends == 2)
        client.reset(first)
        third = client.request(LOGS.method, "application/grpc", message)
        assert await client.reset_code(third) == ErrorCodes.REFUSED_STREAM
        made.producer.gate.set()
        await client.response(second)
        await client.response(client.request(LOGS.method, "application/grpc", message))
        assert made.producer.item_count() == 3


async def test_what_is_cancelled_before_it_is_whole_is_nothing() -> None:
    async with receiving() as (made, server, _), http2(server.port) as client:
        stream_id = client.request(LOGS.method, "application/grpc", None)
        client.send(stream_id, b"\0\0\0\1\0abcdef")
        client.reset(stream_id)
        client.h2.ping(bytes(8))
        client.flush()
        await eventually(lambda: made.counted("infrasage_grpc_requests_total", code="CANCELLED") == 1)
        assert made.in_flight.bytes_held == 0
        assert made.producer.appends == 0


@given(message=st.text())
def test_messages_of_errors_are_coded_and_bounded(message: str) -> None:
    """A head has room for any of them, and they keep their text, or its beginning."""
    coded = quoted(message)
    assert len(coded) <= 2048
    assert all(32 <= byte < 127 for byte in coded)
    assert message.encode(errors="replace").decode().startswith(unquote(coded.decode()).removesuffix("…"))
    assert unquote(quoted("é" * 1000).decode()) == "é" * 200 + "…"


async def test_rapid_resets_do_not_hurt_others() -> None:
    """Thousands of requests that are cancelled at once: who is on another connection is answered, and nothing is held."""
    async with receiving() as (made, server, channel), http2(server.port) as client:
        with contextlib.suppress(ConnectionError):
            for _ in range(3000):
                client.h2.reset_stream(client.request(LOGS.method, "application/grpc", None, ("te", "trailers")))
                client.flush()
            await client.writer.drain()
        for _ in range(5):
            assert await export(channel, LOGS, otlp_logs()) == b""
        assert made.in_flight.bytes_held == 0


async def test_unknown_methods_are_unimplemented() -> None:
    async with receiving() as (_, _, channel):
        for service in (LOGS._replace(name="x.Y"), LOGS._replace(name=LOGS.name.removesuffix("Service"))):
            with pytest.raises(aio.AioRpcError) as info:
                await export(channel, service, b"")
            assert info.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_health_is_serving_for_all_and_each() -> None:
    async with receiving() as (_, _, channel):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", METRICS.name, LOGS.name, TRACES.name):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        (LOGS.name, "opentelemetry/proto/collector/logs/v1/logs_service.proto"),
        (f"{LOGS.name}.Export", "opentelemetry/proto/collector/logs/v1/logs_service.proto"),
        ("grpc.health.v1.Health.Watch", "grpc_health/v1/health.proto"),
        ("opentelemetry.proto.logs.v1.SeverityNumber", "opentelemetry/proto/logs/v1/logs.proto"),
        (f"{LOGS.name}.Import", None),
        ("nothing.Here", None),
        ("Nothing", None),
    ],
)
@pytest.mark.parametrize("version", ["v1alpha", "v1"])
async def test_reflection_finds_services_methods_and_types_by_name(symbol: str, file: str | None, version: str) -> None:
    """ghz asks for the method that it is to call."""
    async with receiving() as (_, _, channel):
        request: Any = reflection_pb2.ServerReflectionRequest
        call: Any = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        asked = request(file_containing_symbol=symbol).SerializeToString()
        answers = [reflection_pb2.ServerReflectionResponse.FromString(answer) async for answer in call(iter([asked]))]
        described = [
            FileDescriptorProto.FromString(file_).name for file_ in answers[0].file_descriptor_response.file_descriptor_proto
        ]
        assert (file in described) if file else answers[0].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_reflection_describes_the_services() -> None:
    """grpcurl can list and call them without having our files."""
    async with receiving() as (_, _, channel):
        make_stub: Any = reflection_pb2_grpc.ServerReflectionStub
        stub = make_stub(channel)

        request: Any = reflection_pb2.ServerReflectionRequest

        async def requests() -> AsyncIterator[Any]:
            yield request(list_services="")
            yield request(file_containing_symbol=LOGS.name)

        listed, described = [answer async for answer in stub.ServerReflectionInfo(requests())]
        names = {service.name for service in listed.list_services_response.service}
        assert {METRICS.name, LOGS.name, TRACES.name, "grpc.health.v1.Health"} <= names
        assert described.file_descriptor_response.file_descriptor_proto


async def test_a_port_in_use_fails_loudly() -> None:
    """Two collectors do not share a port."""
    async with receiving() as (_, first, _):
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{first.port}"):
            async with grpc_receivers(port=first.port):
                pass


async def test_stopping_finishes_what_is_in_flight() -> None:
    """Health says NOT_SERVING, new requests are refused, and the one under way is answered."""
    async with receiving() as (made, server, channel):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        made.producer.gate.clear()
        sending = asyncio.create_task(export(channel, LOGS, otlp_logs()))
        await made.producer.waiting.wait()
        stopping = asyncio.create_task(server.stop(5))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as other:
            with pytest.raises(aio.AioRpcError) as info:
                await export(other, LOGS, otlp_logs())
            assert info.value.code() == grpc.StatusCode.UNAVAILABLE
        made.producer.gate.set()
        assert await sending == b""
        await asyncio.wait_for(stopping, 3)


async def test_stopping_ends_in_time() -> None:
    """A request that is not done by then is answered that it may be sent again, and has failed."""
    async with receiving() as (made, server, channel):
        made.producer.gate.clear()
        sending = asyncio.create_task(refused(channel, LOGS, otlp_logs()))
        await made.producer.waiting.wait()
        await asyncio.wait_for(server.stop(0.3), 2.5)
        error, status = await sending
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert retry_delay_s(status) == 3.0
        assert made.counted("infrasage_ingestion_events_total", status="failed") == 1
        assert made.in_flight.bytes_held == 0


@examples(15)
@given(bodies=st.lists(st.binary(max_size=100), min_size=10, max_size=20))
def test_no_body_makes_a_server_error(bodies: list[bytes]) -> None:
    """The answer is success or INVALID_ARGUMENT, whatever the body is."""

    async def check() -> None:
        async with receiving() as (made, _, channel):
            for body in bodies:
                for service in (METRICS, LOGS, TRACES):
                    assert await code_of(export(channel, service, body)) in (
                        grpc.StatusCode.OK,
                        grpc.StatusCode.INVALID_ARGUMENT,
                    )
            assert made.in_flight.bytes_held == 0

    asyncio.run(check())
