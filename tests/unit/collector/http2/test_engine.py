"""HTTP/2's frames and streams, without a socket: what they cost, and how they may be cut."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, ResponseReceived, StreamEnded, TrailersReceived
from h2.settings import SettingCodes, Settings
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.fakes.receiving import MemoryProducer, otlp_logs, receivers
from support.fakes.wire import Wire, grpc_connection
from support.http2 import frame, pieces
from support.otlp_grpc import LOGS

from collector.http2.engine import PREFACE, STREAM_ID_MAX

BEGIN = PREFACE + frame(4)
PING = frame(6, bytes(8))
CALM = ErrorCodes.ENHANCE_YOUR_CALM
SIZE = ErrorCodes.FRAME_SIZE_ERROR
WRONG = ErrorCodes.PROTOCOL_ERROR


def head(stream_id: int, *, end: bool = False, **more: str) -> bytes:
    """Of a call, in no table."""
    client = H2Connection(H2Configuration(validate_outbound_headers=False))
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": LOGS.method,
        "content-type": "application/grpc",
    } | {name.replace("_", "-"): value for name, value in more.items()}
    client.encoder.header_table_size = 0
    block = client.encoder.encode(list(headers.items()))
    return frame(1, block, stream_id=stream_id, flags=4 | end)


def data(stream_id: int, content: bytes = b"x" * 16_384, *, end: bool = False) -> bytes:
    return frame(0, content, stream_id=stream_id, flags=int(end))


def goaway(written: bytes) -> int | None:
    """The code of the first GOAWAY that ends the connection."""
    at = 0
    while at < len(written):
        size, type_ = int.from_bytes(written[at : at + 3], "big"), written[at + 3]
        payload = written[at + 9 : at + 9 + size]
        at += 9 + size
        if type_ == 7 and int.from_bytes(payload[:4], "big") != STREAM_ID_MAX:
            return int.from_bytes(payload[4:8], "big")
    return None


def reset_at_once(number: int) -> bytes:
    return head(2 * number + 1) + frame(3, bytes(4), stream_id=2 * number + 1)


BAD_NAME: dict[str, Any] = {"x\x01": "1"}
# Begins one that is never whole.
MESSAGE = b"\0\0\x7f\xff\xff" + bytes(300)


async def said(parts: Sequence[bytes], **limits: int) -> bytes:
    """What is written on a connection to which that comes; nothing is held afterwards."""
    made = receivers()
    wire = Wire()
    limits = {"control_frames_max": 100, "header_bytes_max": 1024, "ping_interval_min_s": 0} | limits
    connection = grpc_connection(made, wire, **limits)
    for part in parts:
        if not wire.is_closed:
            connection.data_received(part)
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    assert made.in_flight.bytes_held == 0
    return bytes(wire.written)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([BEGIN, PING * 99], None),  # settings have cost one
        ([BEGIN, PING * 101], CALM),
        ([BEGIN, head(1), data(1, MESSAGE), data(1, b"x") * 116], None),  # the first 16 of a stream are free
        ([BEGIN, head(1), data(1, MESSAGE), data(1, b"x") * 117], CALM),
        (
            [BEGIN, head(1), data(1, MESSAGE), frame(0, b"\xff" + bytes(255), stream_id=1, flags=8) * 117],
            CALM,
        ),  # padding is nothing
        ([BEGIN, head(1), frame(8, bytes([0, 0, 0, 1]), stream_id=1) * 115], None),
        ([BEGIN, head(1), frame(8, bytes([0, 0, 0, 1]), stream_id=1) * 116], CALM),
        ([BEGIN, frame(8, bytes([0, 0, 0, 1])) * 100], CALM),
        ([BEGIN, *[reset_at_once(n) for n in range(1024 + 4)]], None),  # as many as there may be streams are free
        ([BEGIN, *[reset_at_once(n) for n in range(1024 + 5)]], CALM),
        ([BEGIN, head(1), data(1, MESSAGE), *([data(1)] * 30 + [PING * 50]) * 3], None),  # what is large pays
        ([BEGIN, *[head(2 * n + 1) for n in range(1024 + 99)]], None),  # requests are limited by how many are open
        ([BEGIN, *[head(2 * n + 1) for n in range(1024 + 101)]], CALM),  # beyond, each that is refused costs one
        ([BEGIN, frame(4, b"\0\4\0\0\xff\xff" * 99)], None),  # settings cost by their entries
        ([BEGIN, frame(4, b"\0\4\0\0\xff\xff" * 100)], CALM),
        ([BEGIN, frame(1, bytes(16_384), stream_id=1)], None),
        ([BEGIN, frame(1, bytes(16_384), stream_id=1), frame(9, b"x", stream_id=1)], CALM),
        ([BEGIN, b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"], SIZE),  # as soon as it is announced
        ([b"PRI * HTTP/3.0"], WRONG),
        ([PREFACE + PING], WRONG),  # settings come first
        ([PREFACE + frame(4, flags=1)], WRONG),
        ([BEGIN, frame(4, b"x")], SIZE),
        ([BEGIN, frame(4, b"x" * 6, flags=1)], SIZE),
        ([BEGIN, frame(4, stream_id=1)], WRONG),
        ([BEGIN, frame(4, b"\0\2\0\0\0\2")], WRONG),
        ([BEGIN, frame(4, b"\0\4\x80\0\0\0")], ErrorCodes.FLOW_CONTROL_ERROR),
        ([BEGIN, frame(4, b"\0\5\0\0\0\0")], WRONG),
        ([BEGIN, frame(6, b"1234567")], SIZE),
        ([BEGIN, frame(6, bytes(8), stream_id=1)], WRONG),
        ([BEGIN, frame(7, bytes(7))], SIZE),
        ([BEGIN, frame(8, bytes(4))], WRONG),
        ([BEGIN, frame(8, b"\x7f\xff\xff\xff")], ErrorCodes.FLOW_CONTROL_ERROR),
        ([BEGIN, frame(8, b"\0\0\0\1", stream_id=1)], WRONG),  # of a stream that never was
        ([BEGIN, frame(3, bytes(4), stream_id=1)], WRONG),
        ([BEGIN, data(1)], WRONG),
        ([BEGIN, data(0)], WRONG),
        ([BEGIN, frame(1, b"\x82", stream_id=2, flags=4)], WRONG),
        ([BEGIN, frame(1, b"", stream_id=1, flags=0x0C)], WRONG),  # padded, and no length of it
        ([BEGIN, frame(1, b"\5\x82", stream_id=1, flags=0x0C)], WRONG),
        ([BEGIN, frame(1, b"\xff\xff\xff\xff\xff\xff", stream_id=1, flags=4)], ErrorCodes.COMPRESSION_ERROR),
        ([BEGIN, frame(1, b"\x82", stream_id=1), PING], WRONG),  # within a head
        ([BEGIN, frame(9, b"", stream_id=1, flags=4)], WRONG),
        ([BEGIN, frame(5, bytes(8), stream_id=1)], WRONG),
        ([BEGIN, head(1), frame(0, b"\x09x", stream_id=1, flags=8)], WRONG),
        ([BEGIN, frame(2, bytes(4), stream_id=1)], SIZE),
        ([BEGIN, frame(99, b"what")], None),
    ],
)
async def test_why_a_connection_ends(parts: list[bytes], expected: ErrorCodes | None) -> None:
    assert goaway(await said(parts)) == expected


# Streams: 1 is open, 3 was reset by the client, 5 and 7 were ended by both, 9 and 11 never were, the server has reset 13.
CLOSED = [
    head(1),
    head(3) + frame(3, bytes(4), stream_id=3),
    head(5, end=True),
    head(7, end=True),
    head(13, content_length="1", end=True),
]


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        (data(5), ErrorCodes.STREAM_CLOSED),
        (head(5), ErrorCodes.STREAM_CLOSED),
        (head(7, end=True), ErrorCodes.STREAM_CLOSED),
        (data(3), ErrorCodes.STREAM_CLOSED),
        (head(3), ErrorCodes.STREAM_CLOSED),
        (head(9), WRONG),  # RFC 9113, 5.1.1: an identifier is larger than all before
        (head(11), WRONG),
        (data(9), ErrorCodes.STREAM_CLOSED),
        (data(15), WRONG),  # it is idle
        (frame(8, b"\0\0\0\1", stream_id=5), None),
        (frame(3, bytes(4), stream_id=5), None),
        (frame(2, bytes(5), stream_id=5), None),
        (head(13) + data(13, b"x"), None),  # may have been on their way
    ],
)
async def test_frames_on_closed_streams(late: bytes, expected: ErrorCodes | None) -> None:
    assert goaway(await said([BEGIN, *CLOSED, late])) == expected


async def test_resets_that_were_forgotten_are_no_errors() -> None:
    """Frames may be on their way to any stream that the server has reset, however many it has."""
    refused = [head(2 * n + 1, content_length="1", end=True) for n in range(1200)]
    late = [data(1, b"x"), head(1), data(2399, b"x"), head(2399)]
    assert goaway(await said([BEGIN, *refused, *late], control_frames_max=2000)) is None


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([head(1, content_length="3"), data(1, b"\0\0\0\0\0")], WRONG),
        ([head(1, content_length="9"), data(1, b"\0\0\0\0\0", end=True)], WRONG),
        ([head(1, content_length="9", end=True)], WRONG),
        ([head(1, te="gzip")], WRONG),
        ([head(1, content_length="9223372036854775808")], WRONG),
        ([head(1, content_length="1" + "0" * 30)], WRONG),
        ([head(1, content_length="1" * 300)], WRONG),
        ([head(1, content_length="-1")], WRONG),
        ([head(1, content_length="")], WRONG),
        ([head(1, content_length="5, 5")], WRONG),
        ([head(1, **BAD_NAME)], WRONG),
        ([head(1), head(1)], WRONG),  # a second head that does not end it
        ([head(1), frame(8, bytes(4), stream_id=1)], WRONG),
        ([head(1), frame(8, b"\x7f\xff\xff\xff", stream_id=1)], ErrorCodes.FLOW_CONTROL_ERROR),
    ],
)
async def test_why_a_stream_ends_and_nothing_else(parts: list[bytes], code: ErrorCodes | None) -> None:
    """The next one is answered."""
    body = otlp_logs()
    message = b"\0" + len(body).to_bytes(4, "big") + body
    written = await said([BEGIN, *parts, head(3), data(3, message, end=True)])
    assert goaway(written) is None
    if code is not None:
        assert frame(3, int(code).to_bytes(4, "big"), stream_id=1) in written
    assert b"grpc-status\x010" in written


async def test_settings_for_many_streams_cost_little() -> None:
    """The last of a frame are applied, once: 800 KB of them over 1,000 streams are no second of the loop, but a few windows."""
    heads = b"".join(head(2 * n + 1) for n in range(1000))
    settings = frame(4, (b"\0\4\0\0\xff\xff" + b"\0\4\0\0\xff\xfe") * 1365) * 50
    for limit, expected in ((1000, CALM), (1_000_000, None)):
        began = time.thread_time()
        written = await said([BEGIN, heads, settings], control_frames_max=limit)
        assert goaway(written) == expected
        assert time.thread_time() - began < 2  # most of it for heads, uncompiled
    one_by_one = b"".join(frame(4, b"\0\4\0\0\xff" + bytes([n % 256])) for n in range(1000))
    assert goaway(await said([BEGIN, heads, one_by_one], control_frames_max=1000)) == CALM  # each is a change of all


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 65_536])
async def test_a_client_may_shrink_the_table_of_heads(size: int) -> None:
    """It may at the beginning and between two calls. The next head announces it, as RFC 7541 (4.2) demands, no later one."""
    wire = Wire()
    connection = grpc_connection(receivers(), wire)
    client = H2Connection(H2Configuration(header_encoding=None))
    client.local_settings = Settings(client=True, initial_values={SettingCodes.HEADER_TABLE_SIZE: size})
    client.initiate_connection()

    async def call(stream_id: int) -> None:
        headers = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", LOGS.method)]
        client.send_headers(stream_id, [*headers, ("content-type", "application/grpc"), ("te", "trailers")])
        client.send_data(stream_id, bytes(5), end_stream=True)
        connection.data_received(client.data_to_send())
        for _ in range(20):
            await asyncio.sleep(0)
        events = client.receive_data(bytes(wire.written))
        wire.written.clear()
        (trailers,) = [dict(event.headers) for event in events if isinstance(event, TrailersReceived)]
        assert trailers[b"grpc-status"] == b"0"

    await call(1)
    await call(3)
    assert client.decoder.header_table_size == (0 if size < 4096 else 4096)
    for changed in (4096, size):
        client.update_settings({SettingCodes.HEADER_TABLE_SIZE: changed})
    await call(5)
    client.update_settings({SettingCodes.HEADER_TABLE_SIZE: 10})
    await call(7)
    assert client.decoder.header_table_size == 0
    connection.connection_lost(None)


@given(
    frames=st.lists(
        st.one_of(
            st.builds(
                frame,
                st.integers(0, 12),
                st.binary(max_size=300),
                stream_id=st.integers(0, 5),
                flags=st.sampled_from([0, 1, 4]),
            ),
            st.sampled_from([PING, head(1), head(3, end=True), head(5), data(1, b"\0\0\0\0\0", end=True), data(5)]),
        ),
        max_size=30,
    ),
    cuts=st.lists(st.integers(0, 100_000), max_size=20),
)
@examples(60)
def test_however_the_bytes_are_cut_the_verdict_is_the_same(frames: list[bytes], cuts: list[int]) -> None:
    """One frame is excepted: on a stream that is answered by then, it is an error of the connection, not of the stream."""
    whole = BEGIN + b"".join(frames)
    verdicts = {goaway(asyncio.run(said([whole]))), goaway(asyncio.run(said(pieces(whole, cuts))))}
    assert len(verdicts) == 1 or ErrorCodes.STREAM_CLOSED in verdicts


@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=6),
    window=st.sampled_from([0, 1, 3, 100, 65_535]),
    cuts=st.lists(st.integers(0, 1_000_000), max_size=10),
    padding=st.none() | st.integers(0, 255),
)
@examples(60)
def test_calls_pass_whole_whatever_the_windows_are(sizes: list[int], window: int, cuts: list[int], padding: int | None) -> None:
    """h2 as the client: every call is answered once, over any window, and each body is what was sent."""

    async def converse() -> None:
        made = receivers()
        wire = Wire()
        connection = grpc_connection(made, wire)
        client = H2Connection(H2Configuration(header_encoding=None))
        client.local_settings = Settings(client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: window})
        client.initiate_connection()
        connection.data_received(client.data_to_send())
        client.receive_data(bytes(wire.written))
        wire.written.clear()
        headers = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", LOGS.method)]
        headers += [("content-type", "application/grpc"), ("te", "trailers")]
        for number, size in enumerate(sizes):
            stream_id = 2 * number + 1
            body = otlp_logs(padding=size)
            message = b"\0" + len(body).to_bytes(4, "big") + body
            client.send_headers(stream_id, headers)
            for at in range(0, len(message), 16_000):
                piece = message[at : at + 16_000]
                client.send_data(stream_id, piece, end_stream=at + 16_000 >= len(message), pad_length=padding)
        for piece in pieces(client.data_to_send(), cuts):
            connection.data_received(piece)
        ended: set[int] = set()
        bodies: dict[int, bytes] = {}
        for _ in range(500):
            await asyncio.sleep(0)
            if wire.written:
                events = client.receive_data(bytes(wire.written))
                wire.written.clear()
                for event in events:
                    if isinstance(event, ResponseReceived):
                        assert dict(event.headers)[b":status"] == b"200"
                    elif isinstance(event, DataReceived):
                        assert event.stream_id is not None
                        bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                    elif isinstance(event, TrailersReceived):
                        assert dict(event.headers)[b"grpc-status"] == b"0"
                    elif isinstance(event, StreamEnded):
                        assert event.stream_id is not None
                        ended.add(event.stream_id)
            if len(ended) == len(sizes):
                break
            if window < 5:
                for number in range(len(sizes)):
                    if 2 * number + 1 not in ended:
                        client.increment_flow_control_window(1, 2 * number + 1)
            connection.data_received(client.data_to_send() or PING)
        assert len(ended) == len(sizes)
        assert set(bodies.values()) == {b"\0\0\0\0\0"}
        assert isinstance(made.producer, MemoryProducer)
        assert made.producer.item_count() == len(sizes)
        connection.connection_lost(None)
        assert made.in_flight.bytes_held == 0

    asyncio.run(converse())


@pytest.mark.parametrize("kind", ["fields", "pings", "settings"])
@pytest.mark.parametrize("ends", [False, True])
async def test_a_piece_of_many_steps_is_read_in_turns(kind: str, ends: bool) -> None:
    """Nothing is read from its client meanwhile. What came before the end of its half is read all the same."""
    made, wire = receivers(), Wire()
    connection = grpc_connection(made, wire, control_frames_max=100_000, header_bytes_max=1024, ping_interval_min_s=0)
    connection.data_received(BEGIN)
    # Each octet of the block is a field. That its head is too large does not end its reading.
    block = frame(1, b"\x84" * 9_000, stream_id=1, flags=4)
    flood = {"fields": block, "pings": PING * 9_000, "settings": frame(4) * 9_000}[kind]
    body = otlp_logs()
    message = b"\0" + len(body).to_bytes(4, "big") + body
    connection.data_received(flood + head(3) + data(3, message, end=True))
    assert not wire.is_read
    assert connection.unread
    assert isinstance(made.producer, MemoryProducer)
    if ends:
        assert connection.eof_received()
        assert connection.unread
    for _ in range(20):
        await asyncio.sleep(0)
    assert wire.is_read or ends
    assert not connection.unread
    assert made.producer.item_count() == 1
    assert wire.is_closed == ends
    connection.connection_lost(None)
    assert made.in_flight.bytes_held == 0


async def test_over_tls_nothing_is_read_at_once_since_the_client_ends() -> None:
    """asyncio calls with the client's end while more is unread, and closes: what is left is dropped then."""
    made, wire = receivers(), Wire(is_tls=True)
    connection = grpc_connection(made, wire, control_frames_max=100_000, ping_interval_min_s=0)
    connection.data_received(BEGIN)
    connection.data_received(PING * 30_000)
    unread = connection.unread
    assert unread
    assert not connection.eof_received()
    assert unread == connection.unread
    connection.connection_lost(None)
    assert not connection.unread
    await asyncio.sleep(0)
    assert not connection.unread


async def test_a_client_that_does_not_read_waits_with_what_is_left() -> None:
    made, wire = receivers(), Wire()
    connection = grpc_connection(made, wire, control_frames_max=100_000, ping_interval_min_s=0)
    connection.data_received(BEGIN)
    connection.data_received(PING * 20_000)
    connection.pause_writing()
    for _ in range(5):
        await asyncio.sleep(0)
    assert connection.unread
    connection.resume_writing()
    assert not wire.is_read
    for _ in range(5):
        await asyncio.sleep(0)
    assert wire.is_read
    assert not connection.unread
