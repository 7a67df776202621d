"""The connection for large answers, against a broker that says what the test tells it to."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.errors import KafkaConnectionError
from support.waiting import eventually

from collector.broker.kafka.transport import Frames

BODY = b"a request"


class Broker:
    """One connection to it."""

    def __init__(self) -> None:
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.connected = asyncio.Event()

    async def asked(self) -> tuple[int, bytes]:
        """The id and the body of the next request."""
        (size,) = struct.unpack(">i", await self.reader.readexactly(4))
        request = await self.reader.readexactly(size)
        key, version, id_, client_size = struct.unpack(">hhih", request[:10])
        assert (key, version, request[10 : 10 + client_size]) == (1, 4, b"tests")
        return id_, request[10 + client_size :]

    def answer(self, id_: int, body: bytes) -> bytes:
        return struct.pack(">ii", 4 + len(body), id_) + body


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Broker, Frames]]:
    """Both ends, as they are once aiokafka has opened the connection."""
    broker = Broker()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker.reader, broker.writer = reader, writer
        broker.connected.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    await broker.connected.wait()
    frames = Frames(writer, "tests")
    frames.take_over()
    try:
        yield broker, frames
    finally:
        frames.close()
        broker.writer.close()
        server.close()
        del reader


def ask(frames: Frames) -> "asyncio.Task[bytes]":
    async def asks() -> bytes:
        return bytes(await frames.ask((1, 4), [BODY[:3], b"", BODY[3:]]))

    return asyncio.create_task(asks())


@pytest.mark.parametrize("size", [0, 1, 100, 3_000_000])
@pytest.mark.parametrize("piece", [1, 5, 1 << 20])
async def test_an_answer_comes_whole_however_it_is_cut(size: int, piece: int) -> None:
    async with opened() as (broker, frames):
        for fill in (b"a", b"b"):
            asking = ask(frames)
            id_, body = await broker.asked()
            assert body == BODY
            answer = broker.answer(id_, fill * size)
            step = max(piece, len(answer) // 50)
            for at in range(0, len(answer), step):
                broker.writer.write(answer[at : at + step])
                await asyncio.sleep(0)
            assert await asking == fill * size


async def test_what_has_come_of_an_answer_is_reported() -> None:
    """As it comes, and of the answer that was asked with that only; the id is not passed on."""
    async with opened() as (broker, frames):
        told: list[tuple[int, int, bytes]] = []

        def came(answer: memoryview, have: int) -> None:
            told.append((len(answer), have, bytes(answer[:have])))

        asking = asyncio.create_task(frames.ask((1, 4), [BODY], came))
        id_, _ = await broker.asked()
        answer = broker.answer(id_, b"0123456789" * 1000)
        for start, end in ((0, 3), (3, 6), (6, 8), (8, 9), (9, 5000), (5000, len(answer))):
            broker.writer.write(answer[start:end])
            await asyncio.sleep(0.05)
        body = bytes(await asking)
        assert [have for _, have, _ in told] == [1, 4992, 10_000]
        assert all(size == 10_000 and part == body[:have] for size, have, part in told)
        told.clear()
        again = ask(frames)
        id_, _ = await broker.asked()
        broker.writer.write(broker.answer(id_, b"other"))
        assert await again == b"other"
        assert not told


async def test_what_is_held_of_an_answer_stays_as_it_is() -> None:
    """The rest costs no new memory."""
    async with opened() as (broker, frames):
        held: list[memoryview] = []
        addresses = set()
        for number in range(9):
            asking = asyncio.create_task(frames.ask((1, 4), [BODY]))
            id_, _ = await broker.asked()
            broker.writer.write(broker.answer(id_, bytes([number]) * (1000 - number)))
            answer = await asking
            assert bytes(answer) == bytes([number]) * (1000 - number)
            addresses.add(id(answer.obj))
            if number % 3 == 1:
                held.append(answer[10:20])
            del answer, asking
        assert [bytes(part) for part in held] == [bytes([number]) * 10 for number in (1, 4, 7)]
        assert len({id(part.obj) for part in held}) == 3
        assert len(addresses) == 4


async def test_a_small_answer_takes_no_large_ones_place() -> None:
    """A range of messages is a large answer and often a small one, both held; the next large one needs no new memory."""
    async with opened() as (broker, frames):

        async def answered(size: int) -> memoryview:
            asking = asyncio.create_task(frames.ask((1, 4), [BODY]))
            id_, _ = await broker.asked()
            broker.writer.write(broker.answer(id_, bytes(size)))
            return await asking

        buffers = set()
        for large, small in ((80_000, 10), (82_000, 500), (81_000, 20)):
            first = await answered(large)
            second = await answered(small)
            third = await answered(small)
            assert len({id(one.obj) for one in (first, second, third)}) == 3
            buffers.add(id(first.obj))
            keep = first.obj  # else another may have its address
            del first, second, third
        assert len(buffers) == 1
        assert keep is not None


async def test_what_is_outgrown_is_let_go() -> None:
    """When answers grow, there is one buffer of their size, not two."""
    async with opened() as (broker, frames):
        for size in (1000, 2000, 3000, 10):
            asking = ask(frames)
            id_, _ = await broker.asked()
            broker.writer.write(broker.answer(id_, bytes(size)))
            assert len(await asking) == size
        assert sorted(len(buffer) > 0 for buffer in frames._buffers) == [False, True]
        assert 3000 < max(map(len, frames._buffers)) < 4000


async def test_an_answer_to_another_request_ends_the_connection() -> None:
    async with opened() as (broker, frames):
        asking = ask(frames)
        id_, _ = await broker.asked()
        broker.writer.write(broker.answer(id_ + 1, b""))
        with pytest.raises(KafkaConnectionError, match="belongs to another request"):
            await asking
        assert not frames.is_open


@pytest.mark.parametrize("size", [-1, 0, 3, 2**31 - 1])
async def test_what_is_no_answer_is_not_waited_for(size: int) -> None:
    """No memory is allocated for it, either."""
    async with opened() as (broker, frames):
        asking = ask(frames)
        await broker.asked()
        broker.writer.write(struct.pack(">i", size))
        with pytest.raises(KafkaConnectionError, match="not an answer from Kafka"):
            await asking


async def test_what_was_not_asked_for_ends_the_connection() -> None:
    async with opened() as (broker, frames):
        broker.writer.write(broker.answer(1, b"abc"))
        await eventually(lambda: not frames.is_open)
        with pytest.raises(KafkaConnectionError):
            await ask(frames)


async def test_a_waiter_gets_an_error_if_the_connection_is_gone() -> None:
    async with opened() as (broker, frames):
        asking = ask(frames)
        await broker.asked()
        broker.writer.close()
        with pytest.raises(KafkaConnectionError, match="closed the connection"):
            await asking
        with pytest.raises(KafkaConnectionError):
            await ask(frames)


async def test_who_does_not_wait_ends_the_connection() -> None:
    """The answer may still come, and would be taken for that to another request."""
    async with opened() as (broker, frames):
        asking = ask(frames)
        await broker.asked()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not frames.is_open
        assert await broker.reader.read() == b""
