"""Pages over our own HTTP/1.1: whatever an ASGI application does, the connection hears one well-formed answer, or ends."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from support.fakes.receiving import RawConnection, connection, receivers

from collector.receivers.http.server import HttpServer

GET = b"GET /page?a=%20b HTTP/1.1\r\nHost: a\r\n\r\n"


@asynccontextmanager
async def asked(app: ASGIApp, *, takes_bodies: bool = False) -> AsyncIterator[tuple[HttpServer, RawConnection]]:
    """A server of that application, and a connection to it."""
    made = receivers()
    server = HttpServer(app, "127.0.0.1", [0], made.http_settings, made.metrics, takes_page_bodies=takes_bodies)
    await server.start()
    try:
        async with connection(server.ports[0]) as raw:
            yield server, raw
    finally:
        await server.stop(1)


def says(*bodies: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> ASGIApp:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for body in bodies[:-1]:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": bodies[-1]})

    return app


async def test_a_page_hears_what_was_asked() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        assert (await receive())["body"] == b""
        await says(b"", headers=((b"content-length", b"0"),))(scope, receive, send)

    async with asked(app) as (server, raw):
        await raw.send(b"POST /%C3%A4/b?c=%20d HTTP/1.1\r\nHost: a\r\nX-Y: z\r\nContent-Length: 3\r\n\r\nabc")
        assert (await raw.response()).status == 200
        (scope,) = scopes
        assert (scope["method"], scope["path"], scope["raw_path"]) == ("POST", "/ä/b", b"/%C3%A4/b")
        assert (scope["query_string"], scope["http_version"], scope["scheme"]) == (b"c=%20d", "1.1", "http")
        assert (b"x-y", b"z") in scope["headers"]
        assert scope["server"] == ("127.0.0.1", server.ports[0])


async def test_a_page_of_unknown_length_is_chunked() -> None:
    async with asked(says(b"one", b"", b"two", b"")) as (_, raw):
        for _ in range(2):  # and the connection goes on
            await raw.send(GET)
            head = await raw.reader.readuntil(b"\r\n\r\n")
            assert b"transfer-encoding: chunked\r\n" in head
            assert await raw.reader.readexactly(21) == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_http_1_0_reads_it_to_the_end() -> None:
    async with asked(says(b"one", b"two")) as (_, raw):
        await raw.send(GET.replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await raw.reader.read()
        assert answer.endswith(b"\r\n\r\nonetwo")
        assert b"connection: close\r\n" in answer


@pytest.mark.parametrize("status", [204, 304])
async def test_what_has_no_body_has_no_length(status: int) -> None:
    async with asked(says(b"", status=status)) as (_, raw):
        await raw.send(GET + GET)
        for _ in range(2):
            head = await raw.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"content-length" not in head
            assert b"transfer-encoding" not in head


async def test_head_is_answered_with_the_length_alone() -> None:
    async with asked(says(b"abc", headers=((b"content-length", b"3"),))) as (_, raw):
        await raw.send(GET.replace(b"GET", b"HEAD") + GET)
        assert (await raw.response(to_head=True)).headers["content-length"] == "3"
        assert (await raw.response()).body == b"abc"


async def fails(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise ValueError("a defect")


async def says_nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    pass


@pytest.mark.parametrize("app", [fails, says_nothing])
async def test_a_page_that_fails_is_500(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    async with asked(app) as (_, raw):
        await raw.send(GET)
        assert (await raw.response()).status == 500
        assert await raw.closed()


async def test_a_message_out_of_turn_is_not_sent() -> None:
    """A body before its start, and one after the end, raise in the application; what was whole stays whole."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError, match=r"http\.response\.body is out of turn"):
            await send({"type": "http.response.body", "body": b"early"})
        await says(b"abc", headers=((b"content-length", b"3"),))(scope, receive, send)
        with pytest.raises(RuntimeError, match=r"http\.response\.body is out of turn"):
            await send({"type": "http.response.body", "body": b"late"})

    async with asked(app) as (_, raw):
        for _ in range(2):
            await raw.send(GET)
            assert (await raw.response()).body == b"abc"


async def test_a_page_that_stops_in_the_middle_ends_the_connection() -> None:
    """So nobody takes the half for the whole."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": ()})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("a defect")

    async with asked(app) as (_, raw):
        await raw.send(GET)
        assert (await asyncio.wait_for(raw.reader.read(), 5)).endswith(b"4\r\nhalf\r\n")


async def test_a_page_hears_that_nobody_waits() -> None:
    heard = asyncio.Event()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        heard.set()

    async with asked(app) as (_, raw):
        await raw.send(GET)
        await asyncio.sleep(0.05)
        # With a reset: a mere end of what it sends may be netcat's, which still waits.
        raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.writer.transport.abort()
        await asyncio.wait_for(heard.wait(), 5)


async def test_a_page_that_never_ends_is_cut_off_at_a_stop() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    async with asked(app) as (server, raw):
        await raw.send(GET)
        await asyncio.sleep(0.05)
        await asyncio.wait_for(server.stop(0.1), 3)
        assert await raw.closed()


# Applications that take bodies.


async def repeats(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body, and with how many messages it came in."""
    body, count, has_more = b"", 0, True
    while has_more:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        has_more = message["more_body"]
        count += 1
    headers = ((b"content-length", b"%d" % len(body)), (b"x-messages", b"%d" % count))
    await says(body, headers=headers)(_scope, receive, send)


async def test_an_application_that_takes_bodies_hears_them() -> None:
    """Bodies have a length or come in chunks, pipelined, or there is none. One message has what was there when it asked."""
    async with asked(repeats, takes_bodies=True) as (_, raw):
        await raw.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n" + GET
        )
        assert [b"abc", b"def", b""] == [(await raw.response()).body for _ in range(3)]
        await raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert (await raw.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await raw.send(b"abc")
        assert b"abc" == (await raw.response()).body


async def test_a_large_body_is_heard_whole() -> None:
    body = bytes(range(256)) * 8_000
    async with asked(repeats, takes_bodies=True) as (_, raw):
        for _ in range(2):
            await raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            answer = await raw.response()
            assert body == answer.body
            assert int(answer.headers["x-messages"]) > 1


@pytest.mark.parametrize("reads", [True, False])
async def test_a_body_that_the_application_does_not_read_is_held_back(reads: bool) -> None:
    """The connection stops reading, until the application reads or has answered."""
    go_on = asyncio.Event()
    taken = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal taken
        await go_on.wait()
        more = reads
        while more:
            message = await receive()
            taken += len(message["body"])
            more = message["more_body"]
        await says(b"ok", headers=((b"content-length", b"2"),))(scope, receive, send)

    size = 32 * 1024 * 1024
    async with asked(app, takes_bodies=True) as (_, raw):
        await raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        raw.writer.write(bytes(size))
        await asyncio.sleep(0.3)
        # What neither side's buffers in the kernel hold is not taken.
        assert raw.writer.transport.get_write_buffer_size() > size // 2
        go_on.set()
        assert b"ok" == (await raw.response()).body
        assert (size if reads else 0) == taken
        await raw.writer.drain()
        await raw.send(GET)
        assert b"ok" == (await raw.response()).body


async def test_an_application_may_close_the_connection() -> None:
    """`connection: close` ends it with the answer, though the rest of the body is still to come."""
    app = says(b"no", status=408, headers=((b"content-length", b"2"), (b"connection", b"close")))
    async with asked(app, takes_bodies=True) as (_, raw):
        await raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        answer = await asyncio.wait_for(raw.reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert 1 == answer.count(b"connection: close\r\n")
