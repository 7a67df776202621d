"""Connections of our own to brokers, for requests with large answers, and for those that are sent for every range.

Each broker has two. One is for messages, whose answers are large. So requests that the broker can answer at once do not wait
for large answers on a slow network.

Invariants:
1. A connection has one request at a time; the next request waits its turn. (test_in_turns)
2. A request that failed, or was not answered in time, reports its broker as lost, and ends its connection.
   (test_a_lost_broker_is_away_until_it_answers)
3. NotAsked is raised only if the broker can't have received the request. (test_a_broker_that_was_not_asked)
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError, KafkaError

from collector.broker.kafka.options import KafkaOptions, text
from collector.broker.kafka.protocol.fetch import FETCH_API
from collector.broker.kafka.transport import Frames, ReceiveCallback

# A connection that was not used for so long may be gone: a firewall or NAT between forgets it, and informs neither side.
_UNUSED_MAX_S: Final = 60.0


class NotAsked(KafkaConnectionError):  # type: ignore[misc]  # aiokafka has no types
    """There is no connection to the broker, so it got no request."""


@dataclass
class _Link:
    """One of the two connections to a broker."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    frames: Frames | None = None
    used_s: float = 0.0  # when it was last used, by the loop's clock


class Brokers:
    """Sends requests to brokers, and connects at the first. Belongs to the event loop that calls `ask`."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options: Final = options
        # By host, port, and whether it is for messages: two for each broker that the cluster has had.
        self._links: Final[dict[tuple[str, int, bool], _Link]] = {}
        self._closed: Final = asyncio.Event()

    async def ask(
        self, client: Any, node: int, api: tuple[int, int], request: Sequence[bytes], on_received: ReceiveCallback | None = None
    ) -> memoryview:
        """Return the answer of a broker, whose address is in the metadata of `client` (Client). `on_received` is as in
        Frames.ask. Messages may take `request_timeout_s`, other answers `answer_timeout_s`. Raises NotAsked, KafkaError,
        OSError, and IncompatibleBrokerVersion if the broker does not know this version of the request."""
        broker = client.cluster.broker_metadata(node)
        if broker is None:
            client.force_metadata_update()
            raise NotAsked(f"broker {node} is not known")
        is_large = api[0] == FETCH_API[0]
        link = self._links.setdefault((broker.host, broker.port, is_large), _Link())
        timeout_s = self._options.request_timeout_s
        if not is_large:
            timeout_s = min(timeout_s, self._options.answer_timeout_s)
        is_asked = False
        try:
            async with asyncio.timeout(timeout_s), link.turn:
                frames = await self._connected(link, broker.host, broker.port)
                first, last = frames.versions.get(api[0], (0, -1))
                if not first <= api[1] <= last:
                    raise IncompatibleBrokerVersion(
                        f"{broker.host}:{broker.port} knows versions {first} to {last} of request {api[0]}, not {api[1]}"
                    )
                is_asked = True
                return await frames.ask(api, request, on_received)
        except IncompatibleBrokerVersion:
            raise
        except (KafkaError, OSError) as error:  # TimeoutError is an OSError
            if not self._closed.is_set():
                client.lost(node)
            if not is_asked:
                raise NotAsked(f"cannot connect to {broker.host}:{broker.port}: {text(error)}") from error
            raise

    async def _connected(self, link: _Link, host: str, port: int) -> Frames:
        """Return an open connection. Raises KafkaError, OSError."""
        if self._closed.is_set():
            raise KafkaConnectionError("closed")
        now_s = asyncio.get_running_loop().time()
        if link.frames is not None and now_s - link.used_s > _UNUSED_MAX_S:
            link.frames.close()
        link.used_s = now_s
        if link.frames is None or not link.frames.is_open:
            link.frames = await Frames.open(self._options, host, port)
            if self._closed.is_set():
                link.frames.close()
        return link.frames

    def close(self) -> None:
        """Close all connections. Requests without an answer fail (KafkaConnectionError)."""
        self._closed.set()
        for link in self._links.values():
            if link.frames is not None:
                link.frames.close()
