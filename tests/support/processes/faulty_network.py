"""A TCP proxy whose network can be made faulty, for what is between the collector and Kafka, or the store.

Runs in a thread with an event loop of its own, so that tests that block may use it. Use as a context; `fault` sets what happens
from now on, to connections that are open too, and `heal` ends it.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Final, Literal, Self

# none: bytes pass. delay: each piece comes 300 ms later. drop: no byte passes, and nothing is closed. half_open: requests pass,
# answers do not. reset: RST in the middle of a request. cut: RST in the middle of an answer. slow: 50 kB/s. refuse: connections
# are closed at once.
Fault = Literal["none", "delay", "drop", "half_open", "reset", "cut", "slow", "refuse"]

FAULTS: Final[tuple[Fault, ...]] = ("delay", "drop", "half_open", "reset", "cut", "slow", "refuse")
_DELAY_S: Final = 0.3
_BYTES_PER_S: Final = 50_000
_PIECE_BYTES: Final = 16_384
_SLOW_PIECE_BYTES: Final = 2_500
# So many bytes pass before a connection is broken: something is under way by then.
_BROKEN_AFTER_BYTES: Final = {"reset": 3_000, "cut": 700}


class FaultyNetwork:
    """Between its own port and `target`, both on the loopback interface."""

    def __init__(self, target: int, port: int = 0) -> None:
        """`port`: 0 takes one that is free."""
        self.port = port
        self._target: Final = target
        self._fault: Fault = "none"
        self._changed = asyncio.Event()  # set, and replaced, when the fault is
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

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def fault(self, fault: Fault) -> None:
        """From now on."""
        self._do(self._set(fault))

    def heal(self) -> None:
        """Bytes pass again, those that were held back too."""
        self.fault("none")

    def _do(self, work: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _set(self, fault: Fault) -> None:
        self._fault = fault
        self._changed.set()
        self._changed = asyncio.Event()

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
            await self._until(lambda: self._fault != "drop")
            if self._fault == "refuse":
                return
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(target_writer)
            await asyncio.gather(
                self._pass(reader, target_writer, writers, is_answer=False),
                self._pass(target_reader, writer, writers, is_answer=True),
            )
        except (OSError, asyncio.CancelledError):
            return  # its target is away; or the test is over
        finally:
            for each in writers:
                each.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        both: Sequence[asyncio.StreamWriter],
        *,
        is_answer: bool,
    ) -> None:
        passed = 0
        with suppress(OSError):
            while piece := await reader.read(_SLOW_PIECE_BYTES if self._fault == "slow" else _PIECE_BYTES):
                passed += len(piece)
                fault = self._fault
                if fault == "delay":
                    await asyncio.sleep(_DELAY_S)
                elif fault == "slow":
                    await asyncio.sleep(len(piece) / _BYTES_PER_S)
                elif fault == "refuse" or (fault == ("cut" if is_answer else "reset") and passed > _BROKEN_AFTER_BYTES[fault]):
                    writer.write(piece[: len(piece) // 2])
                    await asyncio.sleep(0)  # or nothing of it would be sent
                    for each in both:
                        each.transport.abort()
                    return
                await self._until(lambda: self._fault != "drop" and not (self._fault == "half_open" and is_answer))
                writer.write(piece)
                await writer.drain()
        with suppress(OSError):
            writer.write_eof()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await self._changed.wait()
