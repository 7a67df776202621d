"""collector/receivers/http/http1_bodies.py: connections that are not read where their bodies have no room, and for how long."""

import asyncio
from typing import NamedTuple

import pytest
from support.fakes.receiving import Receivers, receivers
from support.fakes.wire import Wire, http_shared
from support.waiting import eventually

from collector.ingest.room import WholeBody
from collector.receivers.http.http1 import Http1Connection

# Of the share, a quarter is less than what one body brings at first, and half of it more than two bring.
SHARE_BYTES = 500_000
BODY_BYTES = 200_000
FIRST_BYTES = 130_000
TIMEOUT_S = 30.0


class Client(NamedTuple):
    """A connection and its two ends."""

    wire: Wire
    connection: Http1Connection

    def send(self, size: int) -> None:
        self.connection.data_received(bytes(size))

    def check(self) -> None:
        """As its server does, twice a second."""
        self.connection.close_if_late(asyncio.get_running_loop().time())

    def status(self) -> bytes:
        """What it was answered."""
        return bytes(self.wire.written[9:12])


class Sent(NamedTuple):
    """Three connections with a large body each: the first is the first to go on, the others are held back."""

    made: Receivers
    clients: list[Client]

    def read(self) -> list[bool]:
        return [client.wire.is_read for client in self.clients]

    def close(self) -> None:
        for client in self.clients:
            client.connection.connection_lost(None)


class Clock:
    """The loop's, put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._offset_s = 0.0
        loop = asyncio.get_running_loop()
        time = loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + self._offset_s)

    def advance(self, seconds: float) -> None:
        self._offset_s += seconds


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def connected(made: Receivers) -> Client:
    client = Client(Wire(), Http1Connection(http_shared(made)))
    client.connection.connection_made(client.wire)  # type: ignore[arg-type]
    return client


def sent(framing: bytes = b"content-length: %d" % BODY_BYTES) -> Sent:
    made = receivers(in_flight_bytes_max=10 * SHARE_BYTES, tenant_bytes_max=SHARE_BYTES)
    it = Sent(made, [connected(made) for _ in range(3)])
    head = b"POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n" + framing + b"\r\n\r\n"
    for client in it.clients:
        client.connection.data_received(head)
        if framing.startswith(b"transfer"):
            client.connection.data_received(b"%x\r\n" % BODY_BYTES)
        client.send(FIRST_BYTES)
    return it


@pytest.mark.parametrize("framing", [b"content-length: %d" % BODY_BYTES, b"transfer-encoding: chunked"])
async def test_bodies_beyond_the_room_are_not_read(framing: bytes) -> None:
    """They are when others are whole, or gone."""
    it = sent(framing)
    assert it.read() == [True, False, False]
    assert it.made.in_flight.bytes_held == 3 * FIRST_BYTES
    it.clients[1].connection.connection_lost(None)
    it.clients[0].send(BODY_BYTES - FIRST_BYTES)
    if framing.startswith(b"transfer"):
        assert it.read() == [True, False, False]
        it.clients[0].connection.data_received(b"\r\n0\r\n\r\n")
    await eventually(lambda: it.clients[2].wire.is_read)
    await eventually(lambda: it.clients[0].status() == b"400")  # zeros are no records
    it.close()


async def test_small_bodies_are_always_read() -> None:
    it = sent()
    small = connected(it.made)
    body = b"POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 65536\r\n\r\n"
    small.connection.data_received(body)
    small.send(65_535)
    assert small.wire.is_read
    small.send(1)
    await eventually(lambda: small.status() == b"400")
    it.close()


async def test_no_body_waits_for_ever(clock: Clock) -> None:
    """The time does not count as its client's."""
    it = sent()
    await it.made.in_flight.share("anonymous").room.begin(WholeBody(1), 60)  # somebody is at work all the time
    held = it.clients[2]
    clock.advance(4 * TIMEOUT_S - 1)
    held.check()
    assert it.read() == [True, False, False]
    clock.advance(2)
    held.check()
    assert it.read() == [True, False, True]
    clock.advance(TIMEOUT_S - 1)
    held.check()
    assert held.status() == b""
    clock.advance(2)
    held.check()
    assert held.status() == b"408"
    it.close()


async def test_a_client_has_no_more_time_for_each_wait(clock: Clock) -> None:
    """What it had used before counts."""
    it = sent()
    first = it.clients[0]
    for _ in range(2):
        clock.advance(TIMEOUT_S / 2 - 1)
        first.connection.pause_writing()
        assert not first.wire.is_read
        clock.advance(TIMEOUT_S)
        first.connection.resume_writing()
        assert first.wire.is_read
        first.check()
        assert first.status() == b""
    clock.advance(3)
    first.check()
    assert first.status() == b"408"
    it.close()


async def test_no_body_waits_for_those_that_nobody_ends(clock: Clock) -> None:
    it = sent()
    clock.advance(4)
    it.clients[2].check()
    assert it.read() == [True, False, False]
    clock.advance(2)
    it.clients[2].check()
    assert it.read() == [True, True, True]
    it.close()


async def test_a_body_that_does_not_get_on_lets_others_go_on() -> None:
    it = sent()
    for _ in range(3):
        it.clients[0].check()
    await eventually(lambda: it.read() == [True, True, False])
    it.close()


async def test_a_body_that_is_late_lets_others_go_on(clock: Clock) -> None:
    """It is answered, and its client may still send the rest."""
    it = sent()
    clock.advance(TIMEOUT_S + 1)
    it.clients[0].check()
    assert it.clients[0].status() == b"408"
    await eventually(lambda: it.read()[1])
    it.close()


async def test_a_body_that_is_refused_is_not_held_back() -> None:
    """Its client may still send the rest, or something that is no part of it."""
    it = sent(b"transfer-encoding: chunked")
    held = it.clients[1]
    it.clients[0].connection.connection_lost(None)
    await eventually(lambda: held.wire.is_read)
    share = it.made.in_flight.share("anonymous")
    share.reserve(SHARE_BYTES - share.bytes_held)
    held.send(BODY_BYTES - FIRST_BYTES)
    assert held.status() == b"503"
    assert held.wire.is_read
    held.connection.data_received(b"nonsense")
    assert held.wire.is_closed
    it.close()


async def test_nothing_is_left_of_connections_that_are_lost() -> None:
    it = sent()
    it.close()
    await asyncio.sleep(0)
    assert it.made.in_flight.bytes_held == 0
    assert not it.made.in_flight.share("anonymous").room.is_waited_for
