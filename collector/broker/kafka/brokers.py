"""Connections of our own to brokers, one to each: for what is large, or asked for every range."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiokafka.errors import KafkaConnectionError, NodeNotReadyError

from collector.broker.kafka.connection import KafkaOptions
from collector.broker.kafka.frames import Frames


class Brokers:
    """Connects where something is to be asked. Belongs to the event loop that asks. Whoever asks a broker that is being asked
    waits his turn."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options: Final = options
        # By host and port: as many as the cluster has had brokers.
        self._frames: Final[dict[tuple[str, int], Frames]] = {}
        self._turns: Final[dict[tuple[str, int], asyncio.Lock]] = {}
        self._closed = False

    async def ask(self, client: Any, node: int, api: tuple[int, int], request: Sequence[bytes]) -> memoryview:
        """The answer of that broker, where `client` (AIOKafkaClient) says that it is. Raises
        KafkaError, OSError."""
        broker = client.cluster.broker_metadata(node)
        if broker is None:
            client.force_metadata_update()
            raise NodeNotReadyError(f"broker {node} is not known")
        address = (broker.host, broker.port)
        async with self._turns.setdefault(address, asyncio.Lock()):
            frames = self._frames.get(address)
            if frames is None or not frames.is_open:
                frames = await Frames.open(self._options, *address)
                self._frames[address] = frames
            if self._closed:
                frames.close()
                raise KafkaConnectionError("closed")
            return await frames.ask(api, request)

    def close(self) -> None:
        """Whatever is asked now has no answer (KafkaConnectionError)."""
        self._closed = True
        for frames in self._frames.values():
            frames.close()
