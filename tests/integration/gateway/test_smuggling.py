"""Requests that two readers may frame differently are refused, and end their connection; all others are answered, each once."""

import asyncio

import pytest
from hpack import Encoder
from support.fakes.receiving import Receivers, http_receivers, post
from support.http2 import Http2Client, frame, http2
from support.smuggling import BODY, HTTP1, HTTP2, Case, Field, Head, Heard

# So many bytes are sent one by one; what is longer comes in pieces.
_SINGLE_BYTES_MAX = 1_000


async def statuses(port: int, case: Case, *, singly: bool) -> tuple[int, ...]:
    """Of all that is answered until the server closes, where the honest request behind the case asks for that."""
    data = case.data + post("/v1/logs", "application/x-protobuf", BODY, "Connection: close")
    transport, heard = await asyncio.get_running_loop().create_connection(Heard, "127.0.0.1", port)
    step = 1 if len(data) <= _SINGLE_BYTES_MAX else 10_000
    for at in range(0, len(data), step) if singly else ():
        if transport.is_closing():
            break
        transport.write(data[at : at + step])
        await asyncio.sleep(0)
    if not singly:
        transport.write(data)
    # A body that is too large is waited for, so that its sender reads the refusal.
    if case.statuses[-1] == 413:
        while not heard.data:
            await asyncio.sleep(0)
    else:
        await asyncio.wait_for(heard.closed.wait(), 10)
    transport.abort()
    return heard.statuses()


async def found(made: Receivers, case: Case) -> set[tuple[int, ...]]:
    """What was answered, by each port, at once and byte by byte. Nothing is stored that was not answered 200."""
    assert made.server is not None
    ways = set()
    for port in made.server.ports:
        for singly in (False, True):
            before = made.producer.appends
            answered = await statuses(port, case, singly=singly)
            assert made.producer.appends - before <= answered.count(200), case
            ways.add(answered)
    return ways


@pytest.mark.parametrize("about", HTTP1)
async def test_a_request_is_framed_in_one_way_or_refused(about: str, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal is the last answer, whether bytes come at once or singly, on each port; and none of it is logged."""
    async with http_receivers(ports=2, with_pages=True) as made:
        answered = {case: await found(made, case) for case in HTTP1[about]}
    assert {f"{case.section} {case.what}": ways for case, ways in answered.items()} == {
        f"{case.section} {case.what}": {case.statuses} for case in HTTP1[about]
    }
    assert not caplog.records


async def test_pages_and_routes_that_are_not_there_end_the_connection_too() -> None:
    """They are refused by their head where their body is at fault; whatever follows is not answered."""
    refused = [
        case for cases in HTTP1.values() for case in cases if case.statuses in ((400,), (501,)) and b"/v1/logs" in case.data
    ]
    assert len(refused) > 100
    refusals = {(), (400,), (404,), (405,), (501,)}
    async with http_receivers(ports=2, with_pages=True) as made:
        for path in (b"/healthz", b"/x"):
            cases = [case._replace(data=case.data.replace(b"/v1/logs", path)) for case in refused]
            assert [case for case in cases if not await found(made, case) <= refusals] == []
        assert made.producer.appends == 0


async def status_or_reset(client: Http2Client, case: Head) -> int | None:
    """What becomes of that request, whatever a client's library thinks of it."""
    # The library learns of the stream from a head of its own; the one on the wire is the case's.
    stream_id = client.h2.get_next_available_stream_id()
    client.h2.send_headers(stream_id, [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")])
    client.h2.data_to_send()

    def head(fields: list[Field]) -> bytes:
        return Encoder().encode(fields, huffman=False)

    client.writer.write(frame(1, head(case.fields), stream_id=stream_id, flags=4))
    client.writer.write(frame(0, case.body, stream_id=stream_id, flags=0 if case.trailers else 1))
    if case.trailers:
        client.writer.write(frame(1, head(case.trailers), stream_id=stream_id, flags=5))
    async with asyncio.timeout(10):
        while stream_id not in client.ended and stream_id not in client.resets:
            assert await client.read(), f"{case}: closed; {client.goaways}"
    if stream_id in client.ended:
        return client.status(stream_id)
    assert client.resets[stream_id] == 1  # PROTOCOL_ERROR
    return None


async def test_a_head_of_http_2_that_another_reads_as_two_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Each is refused alone: the connection goes on, and nothing of it is stored. Sections are of RFC 9113."""
    async with http_receivers(with_pages=True) as made, http2(made.port) as client:
        found = {}
        for case in HTTP2:
            before = made.producer.appends
            found[case.what] = await status_or_reset(client, case)
            assert made.producer.appends - before == (case.status == 200), case
        assert {c.what: (found[c.what], c.status) for c in HTTP2 if found[c.what] != c.status} == {}
    assert not caplog.records
