"""A TCP proxy between its own port and another, both on the loopback interface.

Runs in a thread with an event loop of its own, so that tests that block may use it. Use as a context.
"""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Final, Self

Writers = list[asyncio.StreamWriter]


class TcpProxy(ABC):
    """What passes between the two, and how, is for `_relay` to decide."""

    def __init__(self, target: int, port: int = 0) -> None:
        """`port`: 0 takes one that is free."""
        self.port = port
        self._target: Final = target
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._loop: Final = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread: Final = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @abstractmethod
    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, writers: list[asyncio.StreamWriter]
    ) -> None:
        """Serve one connection. What is added to `writers` is aborted with it. May raise OSError."""

    def _do(self, work: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
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
            await self._relay(reader, writer, writers)
        except (OSError, asyncio.CancelledError):
            return  # its target is away; or the test is over
        finally:
            for each in writers:
                each.transport.abort()
