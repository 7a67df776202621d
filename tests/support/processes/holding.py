"""Between a client and Kafka: holds back the answer to a produce request, until the test lets it go."""

import asyncio
import struct
from contextlib import suppress

_PRODUCE = 0  # Kafka's number of the request


class HoldingProxy:
    """Use: `start`; then `hold`, and `held` is set when the next produce request has passed; `release`, `close`."""

    def __init__(self, port: int, kafka_port: int) -> None:
        self.held = asyncio.Event()
        self._released = asyncio.Event()
        self._armed = False
        self._port = port
        self._kafka_port = kafka_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    def hold(self) -> None:
        self._armed = True

    def release(self) -> None:
        self._released.set()

    def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kafka_reader, kafka_writer = await asyncio.open_connection("127.0.0.1", self._kafka_port)
        goes_on = asyncio.Event()
        goes_on.set()
        for coroutine in (self._ask(reader, kafka_writer, goes_on), self._answer(kafka_reader, writer, goes_on)):
            task = asyncio.create_task(coroutine)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, reader: asyncio.StreamReader, kafka: asyncio.StreamWriter, goes_on: asyncio.Event) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readexactly(6)
                size, request = struct.unpack(">ih", head)
                kafka.write(head + await reader.readexactly(size - 2))
                if self._armed and request == _PRODUCE:
                    self._armed = False
                    goes_on.clear()
                    self.held.set()
                    await self._released.wait()
                    goes_on.set()
        kafka.close()

    async def _answer(self, kafka: asyncio.StreamReader, writer: asyncio.StreamWriter, goes_on: asyncio.Event) -> None:
        with suppress(OSError):
            while piece := await kafka.read(65536):
                await goes_on.wait()
                writer.write(piece)
        writer.close()
