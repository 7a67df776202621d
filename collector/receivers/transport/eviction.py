"""Make room for a new connection: close the connection that has had no request for longest.

Invariants:
1. A connection with an open request is not evicted, unless the request is answered and only the rest of its body is missing
   (tests/integration/gateway/test_http_servers.py, test_who_goes_on_after_a_refusal_makes_room; test_room.py,
   test_who_goes_on_after_a_refusal_over_http_2_makes_room), its client reads nothing of the answer
   (test_answers_that_nobody_reads_make_room), or it only watches health or calls reflection
   (test_clients_that_watch_make_room). A connection whose last request was within FRESH_S is not evicted either: its next
   request may be on its way (tests/unit/collector/receivers/transport/test_eviction.py,
   test_only_idle_connections_are_evicted).
2. The connection that has been idle for longest is evicted (test_the_longest_idle_goes_first).
3. However many connections come, all are examined once for _CANDIDATES evictions, or once in _RESCAN_S if none is idle
   (test_looking_for_idle_connections_is_bounded).
4. If descriptors ran short, a connection that is kept gets a low number, so the reserve stays whole
   (tests/system/test_descriptors.py, test_idle_connections_make_room).
"""

import asyncio
import heapq
import os
import socket
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any, Final, Protocol

import structlog

from collector.runtime.descriptors import Descriptors

log = structlog.get_logger(__name__)

FRESH_S: Final = 1.0
"""How old a connection must be before the server may close it without a request: its first may be on its way."""
BUSY: Final = float("inf")
"""The time since when a connection with a request is idle."""
# How many of the longest idle connections are found at once.
_CANDIDATES: Final = 64
_RESCAN_S: Final = 0.1
_LOG_S: Final = 60.0
# How long an evicted connection may still send that it ends, to a client that may not read any more.
_LAST_WORDS_S: Final = 0.5
# The descriptor of an evicted connection is free after a few turns of the loop.
_TRIES: Final = 20
_TRY_S: Final = 0.005


class Evictable(Protocol):
    """A connection that may be closed to make room."""

    def idle_since(self) -> float:
        """Return the loop's time since when it has no request; BUSY while it has one."""

    def evict(self) -> None:
        """Close the connection, and notify the client if the protocol can."""

    def abort(self) -> None:
        """Close at once."""


class Eviction:
    """Evicts idle connections of one server."""

    def __init__(self, connections: Collection[Evictable], remove: Callable[[Any], None], evicted: Callable[[], None]) -> None:
        """`connections` are the open ones. `remove` removes a connection from them, and `evicted` counts it."""
        self._connections: Final = connections
        self._remove: Final = remove
        self._evicted: Final = evicted
        self._candidates: list[tuple[float, int, Evictable]] = []  # the longest idle connection last
        self._scanned: float = -_RESCAN_S
        self._logged: float = -_LOG_S

    def idle_since(self, now: float) -> float:
        """Return since when the longest idle connection is idle; BUSY if none can be evicted. `now` is the loop's time."""
        candidate = self._candidate(now)
        return BUSY if candidate is None else candidate[0]

    def evict(self, now: float, limit: str) -> bool:
        """Close the longest idle connection. Return False if there is none. `limit` names the reached limit, for the log."""
        candidate = self._candidate(now)
        if candidate is None:
            return False
        connection = self._candidates.pop()[2]
        # It makes room at once.
        self._remove(connection)
        connection.evict()
        asyncio.get_running_loop().call_later(_LAST_WORDS_S, connection.abort)
        self._evicted()
        now_s = monotonic()
        if now_s - self._logged >= _LOG_S:
            self._logged = now_s
            log.warning(
                "idle connections are closed to make room for new ones: raise the limit, or lower http.keep_alive_s",
                limit=limit,
                idle_s=round(now - candidate[0], 1),
            )
        return True

    def _candidate(self, now: float) -> tuple[float, int, Evictable] | None:
        """Return the last candidate that was idle since it was found. If there is none, find new candidates."""
        found = self._last_candidate(now)
        if found is None and now - self._scanned >= _RESCAN_S:
            self._scanned = now
            self._candidates = heapq.nsmallest(
                _CANDIDATES, ((connection.idle_since(), id(connection), connection) for connection in self._connections)
            )[::-1]
            found = self._last_candidate(now)
        return found

    def _last_candidate(self, now: float) -> tuple[float, int, Evictable] | None:
        while self._candidates:
            since, _, connection = found = self._candidates[-1]
            if connection in self._connections and connection.idle_since() == since and now - since >= FRESH_S:
                return found
            self._candidates.pop()
        return None


class Renumbered(asyncio.Protocol):
    """A connection that was accepted with a descriptor of the reserve. It begins again once it has a lower descriptor.

    The client does not notice.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        descriptors: Descriptors,
        protocol: Callable[[], asyncio.Protocol],
        refuse: Callable[[asyncio.Transport], None],
    ) -> None:
        """`protocol` makes the protocol of the connection. `refuse` ends it if no descriptor becomes free."""
        self._transport: Final = transport
        self._descriptors: Final = descriptors
        self._protocol: Final = protocol
        self._refuse: Final = refuse
        self._data = b""
        self._is_lost = False
        transport.set_protocol(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._is_lost = True

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Keep the connection open: the lower descriptor reads the end again."""
        return True

    async def run(self) -> None:
        """Wait until the connection has a lower descriptor, or has ended."""
        descriptor: int = self._transport.get_extra_info("socket").fileno()
        lower = await lower_descriptor(descriptor, self._descriptors, lambda: self._is_lost)
        if self._is_lost:
            if lower is not None:
                lower.close()
            return
        if lower is None:
            self._descriptors.ran_out()
            self._refuse(self._transport)
            return
        self._transport.abort()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: _Resumed(self._protocol(), self._data), lower)


class _Resumed(asyncio.Protocol):
    """Passes the bytes that had already come to the connection's own protocol."""

    def __init__(self, protocol: asyncio.Protocol, data: bytes) -> None:
        self._protocol: Final = protocol
        self._data: Final = data

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a listener's are of that type
        transport.set_protocol(self._protocol)
        self._protocol.connection_made(transport)
        if self._data:
            self._protocol.data_received(self._data)


async def lower_descriptor(
    descriptor: int, descriptors: Descriptors, is_over: Callable[[], bool] = lambda: False
) -> socket.socket | None:
    """Return the connection with a descriptor below the reserve, once there is one; None if none became free."""
    for _ in range(_TRIES):
        await asyncio.sleep(_TRY_S)
        if is_over():
            return None
        lower = os.dup(descriptor)
        if descriptors.has_room(lower):
            return socket.socket(fileno=lower)
        os.close(lower)
    return None
