"""collector/receivers/http2_bodies.py: bodies that are held back by their windows, and for how long."""

import asyncio
from typing import NamedTuple

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, WindowUpdated
from support.fakes.receiving import Receivers, receivers
from support.fakes.wire import Wire, grpc_connection
from support.otlp_grpc import LOGS

from collector.ingest.room import WholeBody
from collector.receivers.grpc.connection import GrpcConnection
from collector.receivers.grpc.unary_call import UnaryStream
from collector.receivers.http2_bodies import BodyStream

# Of the share, a quarter is less than what one stream may send at once, and all of it more than three send.
SHARE_BYTES = 300_000
TIMEOUT_S = 30.0


class Sent(NamedTuple):
    """A connection with three large calls: the first was roomy, the second is the first to go on, the third is held back."""

    made: Receivers
    wire: Wire
    client: H2Connection
    connection: GrpcConnection

    def events(self) -> list[Event]:
        """What the client hears."""
        data = bytes(self.wire.written)
        self.wire.written.clear()
        return list(self.client.receive_data(data))

    def windows(self) -> list[int]:
        """The streams whose windows were opened."""
        return [event.stream_id for event in self.events() if isinstance(event, WindowUpdated) and event.stream_id]

    def send(self, stream_id: int, size: int) -> None:
        for at in range(0, size, 16_384):
            self.client.send_data(stream_id, bytes(min(16_384, size - at)))
        self.flush()

    def flush(self) -> None:
        self.connection.data_received(self.client.data_to_send())

    def stream(self, stream_id: int) -> BodyStream:
        stream = self.connection.streams[stream_id]
        assert isinstance(stream, BodyStream)
        return stream

    def late_s(self, stream_id: int, seconds: float) -> float:
        """By when it is that many seconds later."""
        return self.stream(stream_id).late_s(asyncio.get_running_loop().time() + seconds, TIMEOUT_S)


def sent() -> Sent:
    made = receivers(in_flight_bytes_max=10 * SHARE_BYTES, tenant_bytes_max=SHARE_BYTES)
    wire = Wire()
    client = H2Connection(H2Configuration())
    client.initiate_connection()
    it = Sent(made, wire, client, grpc_connection(made, wire))
    it.flush()
    it.events()
    for stream_id in (1, 3, 5):
        head = {":method": "POST", ":scheme": "http", ":path": LOGS.method, ":authority": "x"}
        client.send_headers(stream_id, [*head.items(), ("content-type", "application/grpc")])
        client.send_data(stream_id, b"\0\0\2\0\0")  # 128 KiB follow
        it.send(stream_id, 60_000)
    assert it.windows() == [1, 3]
    assert made.in_flight.bytes_held == 180_000
    return it


async def test_a_body_goes_on_when_another_is_gone() -> None:
    it = sent()
    it.client.reset_stream(3, ErrorCodes.CANCEL)
    it.flush()
    await asyncio.sleep(0)
    assert it.windows() == [5]
    it.send(5, 131_072 - 60_000)
    assert it.made.in_flight.bytes_held == 60_000 + 131_072
    it.connection.abort()


async def test_no_body_waits_for_ever() -> None:
    """The time does not count as its client's."""
    it = sent()
    await it.made.in_flight.share("anonymous").room.begin(WholeBody(1), 60)  # somebody is at work all the time
    assert it.late_s(5, 4 * TIMEOUT_S - 1) < 1
    assert it.windows() == []
    assert it.late_s(5, 4 * TIMEOUT_S + 1) < 1
    assert it.windows() == [5]
    assert it.late_s(5, TIMEOUT_S + 1) > TIMEOUT_S
    it.connection.abort()


async def test_no_body_waits_for_those_that_nobody_ends() -> None:
    it = sent()
    assert it.late_s(5, 4) < 1
    assert it.windows() == []
    assert it.late_s(5, 6) < 1
    assert it.windows() == [5]
    it.connection.abort()


async def test_a_call_that_is_answered_is_not_held_back() -> None:
    """Its client may still send the rest."""
    it = sent()
    stream = it.stream(5)
    assert isinstance(stream, UnaryStream)
    stream.call.timed_out(1)
    it.connection.send_answer(stream)
    it.connection.flush()
    assert [type(event) for event in it.events()] == [WindowUpdated, ResponseReceived, StreamEnded, StreamReset]
    it.connection.abort()


async def test_nothing_is_left_of_a_connection_that_is_lost() -> None:
    it = sent()
    it.connection.connection_lost(None)
    await asyncio.sleep(0)
    assert it.made.in_flight.bytes_held == 0
    room = it.made.in_flight.share("anonymous").room
    assert not room.is_waited_for
    assert not [event for event in it.events() if isinstance(event, DataReceived)]
