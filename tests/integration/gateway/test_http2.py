"""HTTP/2 at the level of frames: what real clients do, what strangers do, and how a connection ends. Plain and over TLS."""

import asyncio
import contextlib
import gzip
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived, InformationalResponseReceived, ResponseReceived
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from support.certificates import Files, client_context
from support.examples import examples
from support.fakes.receiving import (
    Receivers,
    connection,
    http_receivers,
    otlp_logs,
    otlp_logs_json,
    otlp_metrics,
    post,
    receivers,
)
from support.http2 import Http2Client, frame, http2

from collector.receivers.http.server import HttpServer

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
EACH_WAY = pytest.mark.parametrize("tls", [False, True], ids=["h2c", "h2"])
PING = frame(6, b"12345678")


@asynccontextmanager
async def receiving(tmp_path: Path, *, tls: bool = False, **keywords: Any) -> AsyncIterator[tuple[Receivers, Http2Client]]:
    """Receivers and one connection to them."""
    certificates = Files(tmp_path).load() if tls else None
    async with http_receivers(certificates=certificates, **keywords) as made, another(made, tls=tls) as client:
        yield made, client


def another(made: Receivers, *, tls: bool = False, acknowledges: bool = True) -> Any:
    return http2(made.port, client_context(alpn=("h2",)) if tls else None, acknowledges=acknowledges)


async def ask(client: Http2Client, body: bytes | None = None) -> int:
    """The status of an ordinary request."""
    stream_id = client.request("/v1/logs", PROTOBUF, otlp_logs() if body is None else body)
    return (await client.response(stream_id)).status


async def still_answers(made: Receivers, *, tls: bool = False) -> None:
    """To anybody else, in both versions."""
    async with another(made, tls=tls) as client:
        assert await ask(client) == 200
    if not tls:
        async with connection(made.port) as raw:
            await raw.send(post("/v1/logs", PROTOBUF, otlp_logs()))
            assert (await raw.response()).status == 200


# What real clients do.


@EACH_WAY
async def test_requests_are_answered_as_in_http_1_1(tls: bool, tmp_path: Path) -> None:
    async with receiving(tmp_path, tls=tls) as (made, client):
        answer = await client.response(client.request("/v1/logs", PROTOBUF, otlp_logs(good=3)))
        assert answer.status == 200
        assert answer.headers["content-type"] == PROTOBUF
        assert answer.headers["date"].endswith(" GMT")
        assert made.producer.item_count() == 3
        assert made.counted("infrasage_http_requests_total", endpoint="/v1/logs", code="200") == 1
        assert made.counted("infrasage_http_connections") == 1
    assert made.in_flight.bytes_held == 0


@EACH_WAY
async def test_many_requests_at_once_on_one_connection(tls: bool, tmp_path: Path) -> None:
    """Each waits for itself alone: what the broker holds up does not hold up what needs none."""
    async with receiving(tmp_path, tls=tls) as (made, client):
        made.producer.gate.clear()
        held = [client.request("/v1/logs", PROTOBUF, otlp_logs()) for _ in range(50)]
        refused = client.request("/nowhere", PROTOBUF, otlp_logs())
        assert (await client.response(refused)).status == 404
        made.producer.gate.set()
        for stream_id in held:
            assert (await client.response(stream_id)).status == 200
        assert made.producer.item_count() == 50


@EACH_WAY
async def test_a_body_larger_than_every_window_passes(tls: bool, tmp_path: Path) -> None:
    """What was taken is acknowledged, and what was refused, too: otherwise the connection would be of no more use."""
    body = otlp_logs(padding=3 << 20)
    async with (
        receiving(tmp_path, tls=tls, body_bytes_max=4 << 20) as (made, _),
        httpx.AsyncClient(http1=False, http2=True, verify=client_context()) as client,
    ):
        url = made.url.replace("http://127.0.0.1", "https://localhost") if tls else made.url
        for _ in range(3):
            answer = await client.post(f"{url}/v1/logs", content=body, headers={"content-type": PROTOBUF})
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            refused = await client.post(f"{url}/v1/logs", content=bytes(8 << 20), headers={"content-type": PROTOBUF})
            assert refused.status_code == 413
    assert made.in_flight.bytes_held == 0


async def test_a_body_of_unknown_length_is_taken_and_limited(tmp_path: Path) -> None:
    """It comes without Content-Length, in as many frames as its sender likes."""
    async with receiving(tmp_path, body_bytes_max=5000) as (made, client):
        stream_id = client.request("/v1/logs", PROTOBUF)
        body = otlp_logs(padding=1000)
        for at in range(0, len(body), 100):
            client.send(stream_id, body[at : at + 100])
        client.send(stream_id, b"", end=True)
        assert (await client.response(stream_id)).status == 200
        stream_id = client.request("/v1/logs", PROTOBUF)
        client.send(stream_id, bytes(6000))
        answer = await client.response(stream_id)
        assert answer.status == 413
        client.send(stream_id, bytes(6000), end=True)  # what still comes is let pass
        assert await ask(client) == 200
        assert made.producer.item_count() == 2


async def test_gzip_and_the_expectation_to_go_on(tmp_path: Path) -> None:
    async with receiving(tmp_path) as (made, client):
        body = gzip.compress(otlp_logs(good=2))
        stream_id = client.request("/v1/logs", PROTOBUF, None, ("content-encoding", "gzip"), ("expect", "100-continue"))
        while not any(type(event).__name__ == "InformationalResponseReceived" for event in client.events):
            assert await client.read()
        client.send(stream_id, body, end=True)
        assert (await client.response(stream_id)).status == 200
        assert made.producer.item_count() == 2
        stream_id = client.request("/v1/logs", "text/plain", None, ("expect", "100-continue"))
        assert (await client.response(stream_id)).status == 415


async def test_head_has_no_body_and_pages_are_the_same(tmp_path: Path) -> None:
    async with receiving(tmp_path, with_pages=True) as (_, client):
        got = await client.response(client.request("/healthz?x=1", body=b"", method="GET"))
        head = await client.response(client.request("/healthz", body=b"", method="HEAD"))
        assert (got.status, head.status) == (200, 200)
        assert int(got.headers["content-length"]) == len(got.body)
        assert head.headers["content-length"] == got.headers["content-length"]
        assert head.body == b""
        docs = await client.response(client.request("/metrics", body=b"", method="GET"))
        assert b"infrasage_http_requests_total" in docs.body


async def test_the_preface_may_come_byte_by_byte(tmp_path: Path) -> None:
    async with http_receivers() as made, connection(made.port) as raw:
        client = Http2Client(raw.reader, raw.writer)
        client.h2.initiate_connection()
        for byte in client.h2.data_to_send():
            raw.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert await ask(client) == 200


async def test_trailers_are_let_pass(tmp_path: Path) -> None:
    async with receiving(tmp_path) as (made, client):
        stream_id = client.request("/v1/logs", PROTOBUF)
        client.h2.send_data(stream_id, otlp_logs())
        client.h2.send_headers(stream_id, [("x-checksum", "1")], end_stream=True)
        client.flush()
        assert (await client.response(stream_id)).status == 200
        assert made.producer.item_count() == 1


async def test_what_a_client_cancels_is_kept_if_it_was_whole(tmp_path: Path) -> None:
    """It was taken, though nobody hears of it, as over HTTP/1.1. Half a body is nothing, and holds nothing."""
    async with receiving(tmp_path) as (made, client):
        made.producer.gate.clear()
        whole = client.request("/v1/logs", PROTOBUF, otlp_logs())
        half = client.request("/v1/logs", PROTOBUF)
        client.send(half, otlp_logs()[:10])
        await made.producer.waiting.wait()
        client.reset(whole)
        client.reset(half)
        made.producer.gate.set()
        assert await ask(client) == 200
        assert made.producer.item_count() == 2
    assert made.in_flight.bytes_held == 0


async def test_an_application_that_fails_is_500() -> None:
    async def fails(*_: object) -> None:
        raise KeyError("a secret")

    made = receivers()
    server = HttpServer(fails, "127.0.0.1", [0], made.http_settings, made.metrics)
    await server.start()
    async with http2(server.ports[0]) as client:
        answer = await client.response(client.request("/x", body=b"", method="GET"))
        assert (answer.status, answer.body) == (500, b"")
    await server.stop(2)


async def test_an_application_that_takes_bodies_hears_them() -> None:
    """What it has not read uses the window of its stream alone, so another stream goes on."""
    go_on = asyncio.Event()

    async def repeats(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/waits":
            await go_on.wait()
        body, has_more = b"", True
        while has_more:
            message = await receive()
            body += message["body"]
            has_more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body[-3:] + b"%d" % len(body)})

    made = receivers()
    server = HttpServer(repeats, "127.0.0.1", [0], made.http_settings, made.metrics, takes_page_bodies=True)
    await server.start()
    async with http2(server.ports[0]) as client:
        assert b"0" == (await client.response(client.request("/", body=b"", method="GET"))).body
        waiting = client.request("/waits")
        while window := min(client.h2.local_flow_control_window(waiting), 16_384):
            client.send(waiting, bytes(window))
        for _ in range(8):  # far more than the connection's window
            stream = client.request("/")
            left = 250_000
            while left:
                if window := min(client.h2.local_flow_control_window(stream), 16_384, left):
                    client.send(stream, bytes(window))
                    left -= window
                else:
                    assert await client.read()
            client.send(stream, b"abc", end=True)
            assert b"abc250003" == (await client.response(stream)).body
        assert 0 == client.h2.local_flow_control_window(waiting)
        go_on.set()
        while client.h2.local_flow_control_window(waiting) < 3:
            assert await client.read()
        client.send(waiting, b"abc", end=True)
        assert (await client.response(waiting)).body.startswith(b"abc655")
        stream = client.request("/", "", None, ("expect", "100-continue"))
        while not any(isinstance(event, InformationalResponseReceived) for event in client.events):
            assert await client.read()
        client.send(stream, b"abc", end=True)
        assert b"abc3" == (await client.response(stream)).body
    await server.stop(2)


# Limits and deadlines.


async def test_more_requests_than_allowed_are_refused_to_be_sent_again(tmp_path: Path) -> None:
    """Those that were cancelled count as long as they work here."""
    async with receiving(tmp_path, concurrent_streams_max=3) as (made, client):
        made.producer.gate.clear()
        held = [client.request("/v1/logs", PROTOBUF, otlp_logs()) for _ in range(3)]
        while made.producer.appends < 3:
            await client.read()
        client.reset(held[0])
        assert await client.reset_code(client.request("/v1/logs", PROTOBUF, otlp_logs())) == ErrorCodes.REFUSED_STREAM
        made.producer.gate.set()
        for stream_id in held[1:]:
            assert (await client.response(stream_id)).status == 200
        assert await ask(client) == 200


@pytest.mark.parametrize(("size", "status"), [(3000, 200), (5000, 431), (40_000, 431)])
async def test_too_large_a_head_is_431(size: int, status: int, tmp_path: Path) -> None:
    """Compressed to nothing or not, in one field or many. The connection goes on, its table in step."""
    async with receiving(tmp_path, header_bytes_max=4096) as (_, client):
        for headers in ([("x-long", "a" * size)], [("x-long", "aZ9~" * (size // 4))], [("x-long", "b" * 500)] * (size // 533)):
            answer = await client.response(client.request("/v1/logs", PROTOBUF, otlp_logs(), *headers))
            assert answer.status == status
        assert await ask(client) == 200


async def test_a_head_without_end_costs_its_connection(tmp_path: Path) -> None:
    """Its frames never say that they are the last."""
    async with http_receivers(header_bytes_max=4096) as made:
        async with another(made) as client:
            client.writer.write(frame(1, bytes(16), stream_id=1) + frame(9, bytes(5000), stream_id=1) * 14)
            assert await client.closed() == ErrorCodes.ENHANCE_YOUR_CALM
        await still_answers(made)


@EACH_WAY
async def test_a_body_that_does_not_come_in_time_is_408(tls: bool, tmp_path: Path) -> None:
    """Its neighbours on the connection do not mind."""
    async with receiving(tmp_path, tls=tls, body_timeout_s=0.3) as (made, client):
        slow = client.request("/v1/logs", PROTOBUF)
        client.send(slow, b"abc")
        assert await ask(client) == 200
        assert (await client.response(slow)).status == 408
        assert await client.reset_code(slow) == ErrorCodes.NO_ERROR  # its sender need not go on
        assert await ask(client) == 200
        assert made.in_flight.bytes_held == 0


@pytest.mark.parametrize(
    "piece",
    [b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM", frame(1, bytes(100), stream_id=1)[:50]],
    ids=["preface", "longer preface", "frame"],
)
async def test_what_never_gets_whole_is_not_waited_for(piece: bytes) -> None:
    """Half a preface, half a frame: each byte is in time, but not the whole."""
    async with http_receivers(body_timeout_s=0.4, keep_alive_s=60) as made, connection(made.port) as raw:
        if not piece.startswith(b"PRI"):
            client = Http2Client(raw.reader, raw.writer)
            client.begin()
        await raw.send(piece)
        await asyncio.wait_for(raw.reader.read(), 4)
        await still_answers(made)


@EACH_WAY
async def test_idle_connections_are_closed(tls: bool, tmp_path: Path) -> None:
    """Pings do not keep them open."""
    async with receiving(tmp_path, tls=tls, keep_alive_s=1) as (_, client):
        assert await ask(client) == 200
        closing = asyncio.create_task(client.closed())
        while not closing.done():
            client.writer.write(PING)
            await asyncio.sleep(0.1)
        assert await closing == ErrorCodes.NO_ERROR


async def test_as_many_requests_as_announced_are_served(tmp_path: Path) -> None:
    """A stream that is answered makes room for the next at once; a page and telemetry are the same in that."""
    async with receiving(tmp_path, with_pages=True) as (made, client):
        announced = client.h2.remote_settings.max_concurrent_streams
        while announced > 1000:  # its settings are on their way
            assert await client.read()
            announced = client.h2.remote_settings.max_concurrent_streams
        assert announced == 128
        client.h2.config.header_encoding = None  # no need to decode 500 times
        begun, body = 0, otlp_logs()
        while begun < 500 or client.h2.open_outbound_streams:
            while begun < 500 and client.h2.open_outbound_streams < announced:
                begun += 1
                if begun % 5:
                    client.request("/v1/logs", PROTOBUF, body)
                else:
                    client.request("/healthz", body=b"", method="GET")
            assert await client.read()
        assert not client.resets
        assert made.producer.item_count() == 400


async def test_an_answer_that_is_read_byte_by_byte_ends(tmp_path: Path) -> None:
    """Each window is in time, but so few bytes are no progress. What the page held is free then."""
    async with http_receivers(with_pages=True, body_timeout_s=0.5) as made, another(made, acknowledges=False) as client:
        client.h2.update_settings({4: 0})
        client.flush()
        stream_id = client.request("/openapi.json", body=b"", method="GET")
        resetting = asyncio.create_task(client.reset_code(stream_id))
        while not resetting.done():
            with contextlib.suppress(ProtocolError):
                client.h2.increment_flow_control_window(1, stream_id)
                client.flush()
            await asyncio.sleep(0.02)
        assert await resetting == ErrorCodes.CANCEL
        assert made.counted("infrasage_http_requests_total", endpoint="/openapi.json", code="200") == 1
        assert await ask(client) == 200


async def test_answers_of_a_connection_take_turns(tmp_path: Path) -> None:
    """A frame of each, so that none makes no progress because another is not whole; and all are whole in the end."""
    async with http_receivers(with_pages=True) as made, another(made, acknowledges=False) as client:
        client.h2.update_settings({4: 2**24})
        client.flush()
        streams = [client.request("/openapi.json", body=b"", method="GET") for _ in range(8)]

        def taken() -> list[DataReceived]:
            return [event for event in client.events if isinstance(event, DataReceived)]

        window = 65_535
        while len(client.ended) < 8:
            while sum(event.flow_controlled_length or 0 for event in taken()) < window and len(client.ended) < 8:
                assert await client.read()
            client.h2.increment_flow_control_window(16_384)
            client.flush()
            window += 16_384
        before = next(n for n in range(len(taken())) if sum(len(e.data) for e in taken()[: n + 1]) >= 65_535)
        assert len({event.stream_id for event in taken()[before + 1 : before + 8]}) == 7
        bodies = {(await client.response(stream_id)).body for stream_id in streams}
        assert len(bodies) == 1


async def test_an_answer_that_nobody_reads_ends(tmp_path: Path) -> None:
    """Its stream is reset; others on the connection are answered."""
    async with http_receivers(with_pages=True, body_timeout_s=0.5) as made, another(made, acknowledges=False) as client:
        stream_id = client.request("/openapi.json", body=b"", method="GET")
        client.h2.update_settings({4: 0})  # no window for new streams, and less than none for this one
        client.flush()
        small = client.request("/metrics", body=b"", method="GET")
        assert await client.reset_code(small) == ErrorCodes.CANCEL
        assert stream_id != small
        assert await ask(client) == 200


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_connections_over_the_limit_are_refused(tls: bool, tmp_path: Path) -> None:
    """Connections of each version are counted together. When one has closed, another may come."""
    async with receiving(tmp_path, tls=tls, connections_max=2) as (made, client):
        assert await ask(client) == 200
        async with another(made, tls=tls) as second:
            assert await ask(second) == 200
            with pytest.raises((OSError, AssertionError, ProtocolError, ssl.SSLError)):
                async with another(made, tls=tls) as third:
                    await ask(third)
            assert made.counted("infrasage_http_connections_refused_total") == 1
        assert made.server is not None
        while made.server.connection_count() > 1:
            await asyncio.sleep(0.01)
        async with another(made, tls=tls) as third:
            assert await ask(third) == 200


async def test_what_is_refused_early_takes_no_memory(tmp_path: Path) -> None:
    """After 100 requests that are answered before they are whole, the rest of 16 may still come."""
    async with receiving(tmp_path, find={}.get, anonymous=None) as (made, client):
        streams = [client.request("/v1/logs", JSON, None) for _ in range(100)]
        for stream_id in streams:
            assert (await client.response(stream_id)).status == 401
        for stream_id in streams[16:]:
            assert await client.reset_code(stream_id) == ErrorCodes.NO_ERROR
        assert client.resets.keys() == set(streams[16:])
        client.send(streams[0], b"{}", end=True)
        client.reset(streams[1])
        # Two may go on instead of those.
        others = [client.request("/v1/logs", JSON, None) for _ in range(3)]
        assert await client.reset_code(others[2]) == ErrorCodes.NO_ERROR
        assert client.resets.keys() == {*streams[16:], others[2]}
        assert made.in_flight.bytes_held == 0


# What strangers do.

FLOODS = {
    "pings": PING * 3000,
    "settings": frame(4) * 3000,
    "empty data": frame(0, stream_id=1) * 3000,
    "one byte at a time": frame(0, b"x", stream_id=1) * 3000,
    "windows": frame(8, (1).to_bytes(4, "big")) * 3000,
    "priorities": frame(2, (0).to_bytes(4, "big") + b"x", stream_id=3) * 3000,
    "unknown": frame(99, b"x") * 3000,
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_of_tiny_frames_ends_its_connection(flood: str, caplog: pytest.LogCaptureFixture) -> None:
    """Soon enough not to be felt, and without a word in the log."""
    async with http_receivers() as made, another(made) as client:
        client.request("/v1/logs", PROTOBUF)
        began = time.thread_time()
        client.writer.write(FLOODS[flood])
        assert await client.closed() == ErrorCodes.ENHANCE_YOUR_CALM
        assert time.thread_time() - began < 1
        await still_answers(made)
        assert made.in_flight.bytes_held == 0
    assert not caplog.records


async def test_rapid_resets_end_their_connection(caplog: pytest.LogCaptureFixture) -> None:
    """CVE-2023-44487: requests that are cancelled as soon as they are made, so that no limit on open ones counts them."""
    async with http_receivers() as made, another(made) as client:
        made.producer.gate.clear()
        for _ in range(1000):
            client.h2.reset_stream(client.request("/v1/logs", PROTOBUF, otlp_logs()))
        client.flush()
        assert await client.closed() == ErrorCodes.ENHANCE_YOUR_CALM
        assert made.producer.appends <= 128
        made.producer.gate.set()
        await still_answers(made)
    assert not caplog.records


async def test_work_that_is_answered_may_go_on_for_ever(tmp_path: Path) -> None:
    """Each request with two frames too many, and a cancelled one among twenty: no flood."""
    async with receiving(tmp_path, control_frames_max=100) as (_, client):
        for number in range(300):
            client.writer.write(PING * 2)
            if number % 20 == 0:
                client.reset(client.request("/v1/metrics", PROTOBUF))
            assert await ask(client) == 200


GARBAGE = {
    "a frame that is too large": b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "data for nothing": frame(0, b"x", stream_id=1),
    "a head of stream 0": frame(1, b"x"),
    "a head of an even stream": frame(1, b"\x82", stream_id=2, flags=5),
    "a head that hpack does not know": frame(1, b"\xff\xff\xff\xff\xff\xff\xff\xff", stream_id=1, flags=5),
    "settings of odd length": frame(4, b"x"),
    "an odd ping": frame(6, b"x"),
    "a promise": frame(5, bytes(10), stream_id=1, flags=4),
    "a continuation of nothing": frame(9, b"x", stream_id=1),
    "a window too large": frame(8, (2**31 - 1).to_bytes(4, "big")) * 2,
    "HTTP/1.1": post("/v1/logs", PROTOBUF, b"x" * 20),
}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_what_is_not_http_2_ends_the_connection(garbage: str, caplog: pytest.LogCaptureFixture) -> None:
    """The GOAWAY has the reason, and nothing is logged."""
    async with http_receivers() as made:
        async with another(made) as client:
            client.writer.write(GARBAGE[garbage])
            assert await client.closed() not in (None, ErrorCodes.NO_ERROR)
        await still_answers(made)
    assert not caplog.records


HEADS: dict[str, list[tuple[str, str]]] = {
    "CONNECT": [(":method", "CONNECT"), (":authority", "a:80")],
    "no path": [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "*")],
    "an odd path": [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/\xff\xfe")],
    "an odd method": [(":method", "G\xff"), (":scheme", "http"), (":authority", "a"), (":path", "/")],
    "an odd length": [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
        ("content-length", "-1"),
    ],
    "a header of a connection": [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
        ("connection", "close"),
    ],
    "a name in capitals": [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("X-A", "1")],
}


@pytest.mark.parametrize("head", HEADS)
async def test_odd_heads_are_400_or_end_their_stream(head: str, caplog: pytest.LogCaptureFixture) -> None:
    async with http_receivers() as made:
        async with another(made) as client:
            client.h2.config.normalize_outbound_headers = False
            client.h2.send_headers(1, [(n.encode("latin-1"), v.encode("latin-1")) for n, v in HEADS[head]], end_stream=True)
            client.flush()
            try:
                assert (await client.response(1)).status in (400, 404)
            except AssertionError:
                assert client.resets[1] == ErrorCodes.PROTOCOL_ERROR
                assert await ask(client) == 200
        await still_answers(made)
    assert not caplog.records


FRAMES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([*GARBAGE.values(), PING]),
    st.builds(
        frame,
        st.integers(0, 10),
        st.binary(max_size=60),
        stream_id=st.integers(0, 9),
        flags=st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D]),
    ),
)


@examples(40)
@given(data=st.lists(FRAMES, max_size=8))
def test_no_frames_stop_a_server(data: list[bytes]) -> None:
    """Whatever comes on one connection, others are answered."""
    records: list[dict[str, Any]] = []

    async def check() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: records.append(context))
        async with http_receivers() as made:
            async with another(made) as client:
                client.request("/v1/logs", PROTOBUF)
                client.writer.write(b"".join(data))
                client.writer.write_eof()
                with contextlib.suppress(ConnectionError):
                    await asyncio.wait_for(client.reader.read(), 10)
            await still_answers(made)
            assert made.in_flight.bytes_held == 0

    asyncio.run(check())
    assert not records


# How it ends.


@pytest.mark.parametrize("ends_first", [False, True])
async def test_an_answer_that_no_window_has_room_for_is_dropped(ends_first: bool) -> None:
    """Its client has closed its half, so its windows can't grow: the connection ends, whichever came first."""
    async with http_receivers(body_timeout_s=600) as made, http2(made.port) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        made.producer.gate.clear()
        client.request("/v1/logs", JSON, otlp_logs_json())
        await made.producer.waiting.wait()
        if ends_first:
            client.writer.write_eof()
            await asyncio.sleep(0.05)
            made.producer.gate.set()
        else:
            made.producer.gate.set()
            while not any(isinstance(event, ResponseReceived) for event in client.events):
                assert await client.read()
            client.writer.write_eof()
        await asyncio.wait_for(client.reader.read(), 60)
        assert 1 == len(made.producer.messages)


@EACH_WAY
async def test_stopping_finishes_what_is_in_flight(tls: bool, tmp_path: Path) -> None:
    """A request that was on its way when the client had not heard of the end is answered. Idle connections close at once."""
    async with receiving(tmp_path, tls=tls) as (made, busy), another(made, tls=tls) as idle:
        assert await ask(idle) == 200
        made.producer.gate.clear()
        made.producer.waiting.clear()
        first = busy.request("/v1/logs", PROTOBUF, otlp_logs())
        await made.producer.waiting.wait()
        assert made.server is not None
        stopping = asyncio.create_task(made.server.stop(5))
        await asyncio.sleep(0.05)
        crossing = busy.request("/v1/metrics", PROTOBUF, otlp_metrics())  # before it reads that there is an end
        assert await idle.closed() == ErrorCodes.NO_ERROR
        assert not stopping.done()
        while len(busy.goaways) < 2:
            await busy.read()
        assert [goaway.last_stream_id for goaway in busy.goaways] == [2**31 - 1, crossing]
        made.producer.gate.set()
        for stream_id in (first, crossing):
            assert (await busy.response(stream_id)).status == 200
        await busy.closed()
        await asyncio.wait_for(stopping, 2)


@EACH_WAY
async def test_stopping_ends_in_time(tls: bool, tmp_path: Path) -> None:
    """What is not done by then is answered that it may be sent again, and has failed. A slow sender is cut off."""
    async with receiving(tmp_path, tls=tls) as (made, busy), another(made, tls=tls) as slow:
        made.producer.gate.clear()
        held = busy.request("/v1/logs", PROTOBUF, otlp_logs())
        half = slow.request("/v1/logs", PROTOBUF)
        slow.send(half, b"abc")
        await made.producer.waiting.wait()
        assert made.server is not None
        await asyncio.wait_for(made.server.stop(0.3), 2)
        answer = await busy.response(held)
        assert (answer.status, answer.headers["retry-after"]) == (503, "3")
        await busy.closed()
        assert made.counted("infrasage_ingestion_events_total", status="failed") == 1
        assert made.in_flight.bytes_held == 0


async def test_a_client_that_says_goodbye_still_hears_its_answers(tmp_path: Path) -> None:
    """Node's `session.close()` does so."""
    async with receiving(tmp_path) as (made, client):
        made.producer.gate.clear()
        held = client.request("/v1/logs", PROTOBUF, otlp_logs())
        await made.producer.waiting.wait()
        client.writer.write(frame(7, bytes(8)) + PING)
        await asyncio.sleep(0.05)
        made.producer.gate.set()
        assert (await client.response(held)).status == 200
        assert await client.closed() is None


async def test_after_the_end_is_known_new_requests_are_refused_to_be_sent_again(tmp_path: Path) -> None:
    """They are refused also if the client ignores the end."""
    async with receiving(tmp_path) as (made, client):
        made.producer.gate.clear()
        held = client.request("/v1/logs", PROTOBUF, otlp_logs())
        await made.producer.waiting.wait()
        assert made.server is not None
        stopping = asyncio.create_task(made.server.stop(5))
        while len(client.goaways) < 2:
            await client.read()
        late = client.request("/v1/logs", PROTOBUF, otlp_logs())
        assert await client.reset_code(late) == ErrorCodes.REFUSED_STREAM
        made.producer.gate.set()
        assert (await client.response(held)).status == 200
        await stopping
