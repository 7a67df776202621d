"""A TCP proxy that loses answers: what was asked for is done, and whoever asked does not hear of it."""

import asyncio
import random
import threading
from contextlib import suppress
from typing import Final, Self


class LossyNetwork:
    """Between its own port and `target`. Each piece of an answer is lost with probability `loss`, with its connection."""

    def __init__(self, target: int, loss: float, seed: int) -> None:
        self.port = 0
        self.lost = 0
        self._target: Final = target
        self._loss: Final = loss
        self._random: Final = random.Random(seed)
        self._loop: Final = asyncio.new_event_loop()
        self._thread: Final = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        writers = [writer]
        try:
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(target_writer)
            ends = {
                asyncio.create_task(self._pass(reader, target_writer, 0.0)),
                asyncio.create_task(self._pass(target_reader, writer, self._loss)),
            }
            with suppress(asyncio.CancelledError):
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        except OSError:
            return
        finally:
            for each in writers:
                each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, loss: float) -> None:
        with suppress(OSError):
            while piece := await reader.read(65_536):
                if loss and self._random.random() < loss:
                    self.lost += 1
                    return
                writer.write(piece)
                await writer.drain()
