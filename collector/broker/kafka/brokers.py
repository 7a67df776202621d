"""Connections of our own to brokers, one to each: for what is large, or asked for every range."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError, NodeNotReadyError

from collector.broker.kafka.connection import KafkaOptions
from collector.broker.kafka.frames import Came, Frames

# A connection that was not used for so long may be gone: what lies between forgets it, and tells neither side.
_UNUSED_MAX_S: Final = 60.0


@dataclass
class _Link:
    """To one broker."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    frames: Frames | None = None
    used_s: float = 0.0  # when, by the loop's clock


class Brokers:
    """Connects where something is to be asked. Belongs to the event loop that asks. Whoever asks a broker that is being asked
    waits his turn."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options: Final = options
        self._links: Final[dict[tuple[str, int], _Link]] = {}  # by host and port: as many as the cluster has had brokers
        self._closed: Final = asyncio.Event()

    async def ask(
        self, client: Any, node: int, api: tuple[int, int], request: Sequence[bytes], came: Came | None = None
    ) -> memoryview:
        """The answer of that broker, where `client` (AIOKafkaClient) says that it is; `came` as Frames has it. Raises
        KafkaError, OSError; IncompatibleBrokerVersion where the broker does not know this version of the request."""
        broker = client.cluster.broker_metadata(node)
        if broker is None:
            client.force_metadata_update()
            raise NodeNotReadyError(f"broker {node} is not known")
        address = (broker.host, broker.port)
        link = self._links.setdefault(address, _Link())
        async with link.turn:
            if self._closed.is_set():
                raise KafkaConnectionError("closed")
            now_s = asyncio.get_running_loop().time()
            if link.frames is not None and now_s - link.used_s > _UNUSED_MAX_S:
                link.frames.close()
            link.used_s = now_s
            if link.frames is None or not link.frames.is_open:
                link.frames = await Frames.open(self._options, *address)
                if self._closed.is_set():
                    link.frames.close()
            first, last = link.frames.versions.get(api[0], (0, -1))
            if not first <= api[1] <= last:
                raise IncompatibleBrokerVersion(
                    f"{broker.host}:{broker.port} knows versions {first} to {last} of request {api[0]}, not {api[1]}"
                )
            return await link.frames.ask(api, request, came)

    def close(self) -> None:
        """Whatever is asked now has no answer (KafkaConnectionError)."""
        self._closed.set()
        for link in self._links.values():
            if link.frames is not None:
                link.frames.close()
