"""Both HTTP servers, byte by byte: what real clients and strangers send, and how a server ends."""

import asyncio
import json
import signal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.fakes.receiving import (
    MemoryProducer,
    Receivers,
    connection,
    http_receivers,
    otlp_logs,
    post,
    post_chunked,
    receivers,
)
from support.fakes.wire import Wire, http_shared
from support.http2 import http2
from support.ports import free_port
from support.smuggling import Heard
from support.waiting import eventually

from collector.receivers.http.http1 import Http1Connection
from collector.receivers.http.server import SERVERS, HttpServer
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
EACH_SERVER = pytest.mark.parametrize("server", SERVERS)

# As the JDK's HttpClient sends it with every request on plain HTTP.
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA")


def logs(*headers: str) -> bytes:
    return post("/v1/logs", PROTOBUF, otlp_logs(), *headers)


def logs_chunked(*headers: str) -> bytes:
    return post_chunked("/v1/logs", PROTOBUF, otlp_logs(), *headers, chunk_bytes=5)


@EACH_SERVER
async def test_one_application_answers_on_several_ports(server: str) -> None:
    """Port 0 is a free one, and `ports` says which."""
    async with http_receivers(server, ports=2) as made, httpx.AsyncClient() as client:
        assert made.server is not None
        first, second = made.server.ports
        assert first != second
        for port in (first, second):
            answer = await client.post(
                f"http://127.0.0.1:{port}/v1/logs", content=otlp_logs(), headers={"content-type": PROTOBUF}
            )
            assert answer.status_code == 200
            assert "server" not in answer.headers
            assert answer.headers["date"].endswith(" GMT")
        assert made.producer.appends == 2


@EACH_SERVER
async def test_a_port_in_use_fails_loudly(server: str) -> None:
    """The other port is not listened on then."""
    async with http_receivers(server) as first:
        made = receivers(server=server)
        free = free_port()
        second = HttpServer(made.app, "127.0.0.1", [free, first.port], made.http_settings, made.metrics)
        with pytest.raises(OSError, match="Address already in use"):
            await second.start()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", free)


@EACH_SERVER
async def test_signals_are_left_alone(server: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with http_receivers(server):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# What real clients send.


@EACH_SERVER
@pytest.mark.parametrize("request_", [logs(*H2C), logs_chunked(*H2C)], ids=["length", "chunked"])
@pytest.mark.parametrize("cut", [0, 1, 30, 170, 240, 290, -1])
async def test_a_post_that_asks_for_h2c_is_answered_in_http_1_1(server: str, request_: bytes, cut: int) -> None:
    """The JDK's client asks with every request, body included; the connection goes on, upgrade or not, however it is cut."""
    async with http_receivers(server) as made, connection(made.port) as raw:
        for request in (request_, request_, logs(), request_):
            await raw.send(*([request[:cut], request[cut:]] if cut else [request]))
            answer = await raw.response()
            assert answer.status == 200
            assert answer.headers["content-type"] == PROTOBUF
            assert "upgrade" not in answer.headers
        assert made.producer.item_count() == 4


async def test_requests_that_ask_for_an_upgrade_may_be_pipelined() -> None:
    async with http_receivers() as made, connection(made.port) as raw:
        await raw.send(logs(*H2C) + logs_chunked(*H2C) + logs())
        for _ in range(3):
            assert (await raw.response()).status == 200
        assert made.producer.item_count() == 3


async def test_thousands_of_wishes_to_upgrade_in_one_packet_are_just_requests() -> None:
    async with http_receivers() as made, connection(made.port) as raw:
        raw.writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" * 3000)
        for _ in range(3000):
            assert (await raw.response()).status == 404


async def test_a_websocket_is_not_to_be_had() -> None:
    async with http_receivers(with_pages=True) as made, connection(made.port) as raw:
        headers = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ=="
        )
        await raw.send(f"GET /healthz HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n".encode())
        assert (await raw.response()).status == 200


@EACH_SERVER
async def test_pipelined_requests_are_answered_in_order(server: str) -> None:
    async with http_receivers(server) as made, connection(made.port) as raw:
        other = post("/v1/logs", "text/plain", b"abc")
        await raw.send((logs() + other + logs_chunked()) * 5)
        statuses = [(await raw.response()).status for _ in range(15)]
        assert statuses == [200, 415, 200] * 5
        assert made.producer.item_count() == 10


@pytest.mark.parametrize("request_", [b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_thousands_of_requests_in_one_packet_do_not_hold_up_others(request_: bytes) -> None:
    """Whether they are answered at once or by pages: another connection's request is answered long before the last of them."""
    count = 5_000
    async with http_receivers(with_pages=True) as made, connection(made.port) as honest:
        transport, flood = await asyncio.get_running_loop().create_connection(Heard, "127.0.0.1", made.port)
        await honest.send(logs())
        assert (await honest.response()).status == 200
        transport.write(request_ * count)
        while not flood.data:
            await asyncio.sleep(0)
        await honest.send(logs())
        assert (await honest.response()).status == 200
        assert len(flood.statuses()) < count / 2
        transport.abort()
    assert made.in_flight.bytes_held == 0


async def test_a_body_of_tiny_chunks_is_read_in_turns() -> None:
    """Others have theirs in between, and nothing more is read from its sender meanwhile."""
    made, wire = receivers(), Wire()
    connection: Any = Http1Connection(http_shared(made))
    connection.connection_made(wire)
    body = otlp_logs(padding=30_000)
    connection.data_received(post_chunked("/v1/logs", PROTOBUF, body, chunk_bytes=1))
    assert not wire.is_read
    turns = 0
    while not wire.written:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 4  # of 30,000 chunks one takes 4,096 and what is left of 16 KiB
    assert wire.written.startswith(b"HTTP/1.1 200 ")
    assert wire.is_read
    assert isinstance(made.producer, MemoryProducer)
    assert made.producer.item_count() == 1
    connection.connection_lost(None)
    assert made.in_flight.bytes_held == 0


async def test_large_heads_in_many_pieces_are_read_in_turns() -> None:
    """All that a socket has is read in one turn of the loop, piece by piece; not so heads of 60 KB."""
    made, wire = receivers(), Wire()
    connection: Any = Http1Connection(http_shared(made))
    connection.connection_made(wire)
    request = b"POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Type: " + b"a;" * 30_000 + b"\r\n\r\n"
    pieces = [request * 4] * 8
    turns = 0
    while pieces or wire.written.count(b"HTTP/1.1 415 ") < 32:
        before = wire.written.count(b"HTTP/1.1 415 ")
        while pieces and wire.is_read:
            connection.data_received(pieces.pop())
        await asyncio.sleep(0)
        assert wire.written.count(b"HTTP/1.1 415 ") - before <= 2
        turns += 1
    assert turns >= 16
    connection.connection_lost(None)


async def test_requests_of_every_form_in_one_packet_are_answered_in_order() -> None:
    """Small and large bodies, known lengths and chunks, refused and taken, with an end of the connection's half behind them."""
    large = otlp_logs(padding=20_000)
    forms = [
        (logs(), 200),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (post("/v1/logs", PROTOBUF, large), 200),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (logs_chunked(), 200),
        (post_chunked("/v1/logs", PROTOBUF, large, chunk_bytes=7_000), 200),
        (post("/v1/logs", "text/plain", large), 415),
        (logs(*H2C), 200),
        (post("/x", PROTOBUF, large), 404),
    ]
    async with http_receivers(with_pages=True) as made:
        transport, heard = await asyncio.get_running_loop().create_connection(Heard, "127.0.0.1", made.port)
        transport.write(b"".join(request for request, _ in forms) * 30)
        transport.write_eof()
        await asyncio.wait_for(heard.closed.wait(), 30)
        assert heard.statuses() == tuple(status for _, status in forms) * 30
        assert made.producer.item_count() == 30 * 5


@EACH_SERVER
async def test_bytes_may_come_one_by_one(server: str) -> None:
    async with http_receivers(server) as made, connection(made.port) as raw:
        for request in (logs(), logs_chunked()):
            for i in range(len(request)):
                raw.writer.write(request[i : i + 1])
                await asyncio.sleep(0)
            assert (await raw.response()).status == 200


@EACH_SERVER
async def test_http_1_0_is_answered_and_closed(server: str) -> None:
    async with http_receivers(server) as made, connection(made.port) as raw:
        await raw.send(logs().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert (await raw.response()).status == 200
        assert await raw.closed()


@EACH_SERVER
async def test_connection_close_is_kept(server: str) -> None:
    async with http_receivers(server) as made, connection(made.port) as raw:
        await raw.send(logs("Connection: close"))
        answer = await raw.response()
        assert answer.headers["connection"] == "close"
        assert await raw.closed()


async def test_a_sender_that_closes_its_half_still_hears_the_answer() -> None:
    """netcat closes its half so."""
    async with http_receivers() as made, connection(made.port) as raw:
        made.producer.gate.clear()
        await raw.send(logs())
        raw.half_close()
        await made.producer.waiting.wait()
        await asyncio.sleep(0.05)
        made.producer.gate.set()
        assert (await raw.response()).status == 200
        assert await raw.closed()


@EACH_SERVER
async def test_head_has_no_body(server: str) -> None:
    async with http_receivers(server, with_pages=True) as made, connection(made.port) as raw:
        for path, status in (("/healthz", 200), ("/v1/logs", 405), ("/x", 404)):
            await raw.send(f"HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            answer = await raw.response(to_head=True)
            assert answer.status == status
            assert int(answer.headers["content-length"]) > 0
        await raw.send(logs())
        assert (await raw.response()).status == 200


@EACH_SERVER
async def test_http_2_by_prior_knowledge_is_beside_both(server: str) -> None:
    """See test_http2.py for all the rest of it."""
    async with http_receivers(server) as made:
        async with http2(made.port) as client:
            assert (await client.response(client.request("/v1/logs", PROTOBUF, otlp_logs()))).status == 200
        async with connection(made.port) as raw:
            # Too late, after a request in HTTP/1.1; and by upgrade, as curl's --http2 has it.
            await raw.send(b"GET /x HTTP/1.1\r\nHost: a\r\n" + "\r\n".join(H2C).encode() + b"\r\n\r\n")
            assert (await raw.response()).status == 404
            await raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            assert (await raw.reader.read()).startswith(b"HTTP/1.1 4")


# What strangers send.

GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    b"hello\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\nCONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a\xff\xfe HTTP/1.1\r\n\r\n",
    b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/logs HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
    b"POST /v1/logs HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST /v1/logs HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
    b"POST /v1/logs HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/logs HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    b"POST /v1/logs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\n",
)


async def still_answers(made: Receivers) -> None:
    async with connection(made.port) as raw:
        await raw.send(logs())
        assert (await raw.response()).status == 200


@EACH_SERVER
async def test_spaces_around_a_headers_value_are_not_part_of_it(server: str) -> None:
    """RFC 9110, 5.5: a key that was copied with a space behind it works."""
    keys = {b"KEY": Caller("acme", Scope.INGEST, UNLIMITED, "")}
    async with http_receivers(server, find=keys.get, anonymous=None) as made, connection(made.port) as raw:
        for header in ("X-API-Key:KEY", "X-API-Key:  KEY ", "X-API-Key:\tKEY\t ", "Authorization: Bearer KEY \t"):
            await raw.send(logs(header))
            assert (await raw.response()).status == 200


ODD_HEADS = {
    b"GET /x HTTP/1.1\r\n\r\n": (400, "the Host header is missing"),
    b"GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n": (400, "more than one Host header"),
    b"GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n": (400, "more than one Host header"),
    b"GET /x HTTP/1.1\r\nHost: a b\r\n\r\n": (400, "not a host with or without a port"),
    b"GET /x HTTP/1.1\r\nHost: a:b\r\n\r\n": (400, "not a host with or without a port"),
    b"GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n": (400, "not a host with or without a port"),
    b"GET /x HTTP/1.1\r\nHost: a, b\r\n\r\n": (400, "not a host with or without a port"),
    b"GET /x HTTP/1.1\r\nHost: user@a\r\n\r\n": (400, "not a host with or without a port"),
    b"GET /x HTTP/1.1\r\nHost: [::1\r\n\r\n": (400, "not a host with or without a port"),
    b"GET /x HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"a" * 1025): (400, "not a host with or without a port"),
    b"GET /x HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n": (400, "not a host with or without a port"),
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n": (501, "Transfer-Encoding"),
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n": (501, "Transfer-Encoding"),
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n": (501, "Transfer-Encoding"),
    b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked;q=1\r\nHost: a\r\n\r\n0\r\n\r\n": (501, "Transfer-Encoding"),
    b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": (400, "HTTP/1.0 has no Transfer-Encoding"),
    b"GET /x\r\n\r\n": (400, "HTTP/0.9"),
    b"GET /x HTTP/0.9\r\n\r\n": (400, "HTTP/0.9"),
    b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n": (505, "use HTTP/1.1"),
    b"GET /x HTTP/2.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n": (505, "use HTTP/1.1"),
    b"GET /x HTTP/1.1\r\nConnection: keep-alive\r\n\r\n": (400, "the Host header is missing"),
    b"POST /x HTTP/1.0\r\nConnection: keep-alive\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": (
        400,
        "HTTP/1.0 has no Transfer-Encoding",
    ),
    b"GET /x HTTP/3.0\r\nHost: a\r\n\r\n": (505, "use HTTP/1.1"),
}


@pytest.mark.parametrize("head", ODD_HEADS, ids=lambda head: str(head[:100]))
async def test_odd_heads_are_refused_with_the_reason(head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The connection is closed, so that what follows is not taken for a request, also after one that was answered."""
    status, says = ODD_HEADS[head]
    async with http_receivers() as made:
        for before in (b"", logs()):
            async with connection(made.port) as raw:
                if before:
                    await raw.send(before)
                    assert (await raw.response()).status == 200
                await raw.send(head + logs())
                answer = await raw.response()
                assert (answer.status, answer.headers["connection"]) == (status, "close")
                assert says in answer.body.decode()
                assert await raw.closed()
        assert made.producer.appends == 1
    assert not caplog.records


@pytest.mark.parametrize(
    "host", ["", "a", "a:80", "a:", "127.0.0.1:8080", "[::1]:4318", "[fe80::1]", "a_b.c-d~e", "%41", "xn--nxa"]
)
async def test_hosts_of_every_form_are_taken(host: str) -> None:
    async with http_receivers() as made, connection(made.port) as raw:
        await raw.send(f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (await raw.response()).status == 404
        await raw.send(b"GET /x HTTP/1.0\r\n\r\n")
        assert (await raw.response()).status == 404


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_what_is_not_http_is_400_and_closed(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is not logged either: strangers could fill the disk."""
    async with http_receivers() as made:
        async with connection(made.port) as raw:
            await raw.send(garbage)
            assert (await raw.response()).status == 400
            assert await raw.closed()
        await still_answers(made)
    assert not caplog.records


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_hypercorn_survives_what_is_not_http(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """What it answers is its own affair; that it goes on, and logs nothing of it, is ours."""
    async with http_receivers("hypercorn") as made:
        async with connection(made.port) as raw:
            await raw.send(garbage)
            raw.half_close()
            answer = await asyncio.wait_for(raw.reader.read(), 10)
            assert not answer.startswith(b"HTTP/1.1 5")
        await still_answers(made)
    assert not caplog.records


@EACH_SERVER
@examples(30)
@given(
    data=st.lists(
        st.one_of(st.binary(max_size=50), st.sampled_from([*GARBAGE, logs(), logs_chunked(), logs(*H2C)])), max_size=6
    )
)
def test_no_bytes_stop_a_server(server: str, data: list[bytes]) -> None:
    """Whatever comes on one connection, others are answered."""

    async def check() -> None:
        async with http_receivers(server) as made:
            async with connection(made.port) as raw:
                raw.writer.write(b"".join(data))
                raw.half_close()
                try:
                    answers = await asyncio.wait_for(raw.reader.read(), 10)
                except ConnectionError:
                    answers = b""
                assert b"HTTP/1.1 500" not in answers
            await still_answers(made)
            assert made.in_flight.bytes_held == 0

    asyncio.run(check())


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: aaaaaaaaaa\r\n" * 500 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"X:\r\n" * 2000 + b"\r\n",
    ],
)
@pytest.mark.parametrize("pieces", [1, 40])
async def test_too_large_a_head_is_431(head: bytes, pieces: int) -> None:
    """This holds also for a head that never ends."""
    async with http_receivers(header_bytes_max=4096) as made:
        for whole in (head, head.removesuffix(b"\r\n\r\n")):
            async with connection(made.port) as raw:
                size = len(whole) // pieces
                answering = asyncio.create_task(raw.response())
                for i in range(0, len(whole), size):
                    if not answering.done():
                        raw.writer.write(whole[i : i + size])
                    await asyncio.sleep(0.002)
                assert (await answering).status == 431
                assert await raw.closed()
        await still_answers(made)


@pytest.mark.parametrize(("fields", "status"), [(240, 200), (300, 431)])
async def test_a_head_has_a_bounded_number_of_fields(fields: int, status: int) -> None:
    """Each takes more memory than bytes on the wire, also of a head that never ends."""
    async with http_receivers(with_pages=True) as made, connection(made.port) as raw:
        await raw.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"a:b\r\n" * fields + (b"\r\n" if status == 200 else b""))
        assert (await raw.response()).status == status


async def test_hypercorn_bounds_heads_too() -> None:
    async with http_receivers("hypercorn", header_bytes_max=4096) as made, connection(made.port) as raw:
        await raw.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 5000)
        assert (await raw.response()).status == 431


async def test_trailers_and_chunk_extensions_are_bounded() -> None:
    """They come when the head is long over; what the parser gathers of them must end some time all the same."""
    head = b"POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with http_receivers(header_bytes_max=4096) as made:
        for endless in (b"0\r\nX: ", b"5;x=", b"0\r\n" + b"X: aaaa\r\n" * 1000):
            async with connection(made.port) as raw:
                raw.writer.write(head + endless)
                answering = asyncio.create_task(raw.response())
                for _ in range(100):
                    if not answering.done():
                        raw.writer.write(b"a" * 1000)
                    await asyncio.sleep(0.002)
                assert (await answering).status in (400, 431)
        assert made.in_flight.bytes_held == 0


async def test_a_head_at_the_limit_passes() -> None:
    request = logs("X: " + "a" * 3000)
    async with http_receivers(header_bytes_max=4096) as made, connection(made.port) as raw:
        for _ in range(3):  # the count begins anew with each request
            await raw.send(request)
            assert (await raw.response()).status == 200


@EACH_SERVER
@pytest.mark.parametrize("piece", [b"", b"POST /v1/logs HTT", b"\r\n"])
async def test_a_head_that_does_not_come_is_not_waited_for_long(server: str, piece: bytes) -> None:
    async with http_receivers(server, body_timeout_s=0.3, keep_alive_s=1) as made, connection(made.port) as raw:
        await raw.send(piece)
        await asyncio.wait_for(raw.reader.read(), 4)  # hypercorn calls an empty line a bad request


async def test_a_head_that_trickles_is_not_waited_for_either() -> None:
    """Each byte is in time, but not the head."""
    async with http_receivers(body_timeout_s=0.3, keep_alive_s=60) as made, connection(made.port) as raw:
        closing = asyncio.create_task(raw.closed())
        for _ in range(100):
            if closing.done():
                break
            raw.writer.write(b"\r\n")
            await asyncio.sleep(0.05)
        assert await closing


async def test_the_rest_of_a_refused_body_is_not_waited_for_for_ever() -> None:
    async with http_receivers(body_timeout_s=0.2) as made, connection(made.port) as raw:
        await raw.send(post("/v1/logs", "text/plain", b"abc", length=1000))
        assert (await raw.response()).status == 415
        assert await raw.closed()


@EACH_SERVER
async def test_answers_that_nobody_reads_are_not_kept_for_ever(server: str) -> None:
    """They are more than the kernel's buffers hold: the connection ends. A few thousand of those would use up all."""
    async with http_receivers(server, with_pages=True, body_timeout_s=0.5) as made, connection(made.port) as raw:
        http = made.server
        assert http is not None
        raw.writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 1500)
        await eventually(http.connection_count)
        await eventually(lambda: not http.connection_count())
        await still_answers(made)


@EACH_SERVER
async def test_idle_connections_are_closed(server: str) -> None:
    async with http_receivers(server, keep_alive_s=1) as made, connection(made.port) as raw:
        await raw.send(logs())
        assert (await raw.response()).status == 200
        assert await raw.closed(within_s=4)


@EACH_SERVER
async def test_connections_over_the_limit_are_refused(server: str) -> None:
    """They get 503 and are counted. When one has closed, another may come."""
    async with http_receivers(server, connections_max=2) as made:
        http = made.server
        assert http is not None
        async with connection(made.port) as first, connection(made.port) as second:
            for raw in (first, second):
                await raw.send(logs())
                assert (await raw.response()).status == 200
            assert http.connection_count() == made.counted("infrasage_http_connections") == 2
            async with connection(made.port) as third:
                answer = await third.response()
                assert answer.status == 503
                assert answer.headers["retry-after"] == "1"
                assert await third.closed()
        await eventually(lambda: not http.connection_count())
        await still_answers(made)
        assert made.counted("infrasage_http_connections_refused_total") == 1


@pytest.mark.parametrize("path", ["/v1/logs", "/no-page"])
async def test_who_goes_on_after_a_refusal_makes_room(path: str) -> None:
    """The refusal came before the body, which never comes: such connections are closed for a new one, as idle ones are."""

    def find(_: bytes) -> None:
        """No key is valid."""

    async def is_taken() -> bool:
        async with connection(made.port) as raw:
            await raw.send(logs())
            return (await raw.response()).status == 200

    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: wrong\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
    async with (
        http_receivers(connections_max=2, with_pages=True, find=find) as made,
        connection(made.port) as first,
        connection(made.port) as second,
    ):
        for raw in (first, second):
            raw.writer.write(head.encode() + b"\r\n")
            assert (await raw.response()).status in (401, 404)
        # Within http.body_timeout_s, 30 s, after which they would be closed anyway.
        await eventually(is_taken, timeout_s=10)
        assert 1 == made.counted("infrasage_connections_evicted_total")


# How it ends.


@EACH_SERVER
async def test_stopping_finishes_what_is_in_flight(server: str) -> None:
    """New connections are refused at once, idle ones closed, and the request under way is answered."""
    async with http_receivers(server) as made, connection(made.port) as idle, connection(made.port) as busy:
        await idle.send(logs())
        assert (await idle.response()).status == 200
        made.producer.gate.clear()
        made.producer.waiting.clear()
        await busy.send(logs())
        await made.producer.waiting.wait()
        assert made.server is not None
        port = made.port
        stopping = asyncio.create_task(made.server.stop(5))
        assert await idle.closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert not stopping.done()
        made.producer.gate.set()
        assert (await busy.response()).status == 200
        await asyncio.wait_for(stopping, 2)


@EACH_SERVER
async def test_stopping_ends_in_time(server: str) -> None:
    """What is not done by then is answered that it may be sent again, and has failed. A slow sender is cut off."""
    async with http_receivers(server) as made, connection(made.port) as busy, connection(made.port) as slow:
        made.producer.gate.clear()
        await busy.send(logs())
        await slow.send(post("/v1/logs", PROTOBUF, b"abc", length=100))
        await made.producer.waiting.wait()
        assert made.server is not None
        await asyncio.wait_for(made.server.stop(0.3), 2)
        answer = await busy.response()
        assert answer.status == 503
        assert answer.headers["retry-after"] == "3"
        assert await busy.closed()
        assert made.counted("infrasage_ingestion_events_total", status="failed") == 1
        assert made.in_flight.bytes_held == 0


@EACH_SERVER
async def test_stopping_waits_for_no_refused_body(server: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its sender was answered already; and its end is no error to log."""
    async with http_receivers(server) as made, connection(made.port) as raw:
        await raw.send(post("/v1/logs", "text/plain", b"abc", length=1000))
        assert (await raw.response()).status == 415
        assert made.server is not None
        await asyncio.wait_for(made.server.stop(0.1), 1)
        await asyncio.wait_for(raw.reader.read(), 1)
    assert not caplog.records


@EACH_SERVER
async def test_stopping_an_idle_server_is_quick(server: str) -> None:
    async with http_receivers(server) as made:
        assert made.server is not None
        await asyncio.wait_for(made.server.stop(10), 1)


async def test_the_last_answer_says_that_it_closes() -> None:
    async with http_receivers() as made, connection(made.port) as raw:
        await raw.send(post("/api/v1/telemetry", JSON, json.dumps({}).encode()))
        assert (await raw.response()).status == 400
        made.producer.gate.clear()
        made.producer.waiting.clear()
        await raw.send(logs())
        await made.producer.waiting.wait()
        assert made.server is not None
        stopping = asyncio.create_task(made.server.stop(5))
        await asyncio.sleep(0.05)
        made.producer.gate.set()
        assert (await raw.response()).headers["connection"] == "close"
        await stopping
