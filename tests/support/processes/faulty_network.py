"""A TCP proxy whose network can be made faulty, for what is between the collector and Kafka, or the store.

Runs in a thread with an event loop of its own, so that tests that block may use it. Use as a context; `fault` sets what happens
from now on, to connections that are open too, and `heal` ends it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Literal

from support.processes.tcp_proxy import TcpProxy

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


class FaultyNetwork(TcpProxy):
    """Between its own port and `target`, both on the loopback interface."""

    def __init__(self, target: int, port: int = 0) -> None:
        super().__init__(target, port)
        self._fault: Fault = "none"
        self._changed = asyncio.Event()  # set, and replaced, when the fault is

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def fault(self, fault: Fault) -> None:
        """From now on."""
        self._do(self._set(fault))

    def heal(self) -> None:
        """Bytes pass again, those that were held back too."""
        self.fault("none")

    async def _set(self, fault: Fault) -> None:
        self._fault = fault
        self._changed.set()
        self._changed = asyncio.Event()

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, writers: list[asyncio.StreamWriter]
    ) -> None:
        await self._until(lambda: self._fault != "drop")
        if self._fault == "refuse":
            return
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target)
        writers.append(target_writer)
        await asyncio.gather(
            self._pass(reader, target_writer, writers, is_answer=False),
            self._pass(target_reader, writer, writers, is_answer=True),
        )

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
