"""A TCP proxy that loses answers: what was asked for is done, and its client gets no answer."""

import asyncio
import random
from contextlib import suppress
from typing import Final

from support.processes.tcp_proxy import TcpProxy


class LossyNetwork(TcpProxy):
    """Between its own port and `target`. Each piece of an answer is lost with probability `loss`, with its connection."""

    def __init__(self, target: int, loss: float, seed: int) -> None:
        super().__init__(target)
        self.lost = 0
        self._loss: Final = loss
        self._random: Final = random.Random(seed)

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, writers: list[asyncio.StreamWriter]
    ) -> None:
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

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, loss: float) -> None:
        with suppress(OSError):
            while piece := await reader.read(65_536):
                if loss and self._random.random() < loss:
                    self.lost += 1
                    return
                writer.write(piece)
                await writer.drain()
