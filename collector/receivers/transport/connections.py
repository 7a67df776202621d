"""The state that the connections of one server share, whatever their protocol.

Invariants:
1. Every open connection is in `open`, so that it is counted, watched, and ended with the server
   (test_connections_over_the_limit_are_refused, test_stopping_ends_in_time).
2. An old connection is asked to end, and no request in flight is lost (test_an_old_connection_is_asked_to_end).
3. A connection is refused only if no open connection can be evicted (test_the_longest_idle_connection_makes_room).
4. A server that leaves answers every request until it ends, and each answer says that its connection ends
   (test_a_server_that_leaves_answers_and_says_so).
"""

import asyncio
from collections.abc import Coroutine
from math import inf
from random import uniform
from time import monotonic
from typing import Any, Final, Protocol

import structlog

from collector.config.receivers import Grpc, Http
from collector.receivers.transport.eviction import Eviction
from collector.runtime.descriptors import Descriptors
from collector.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

# The part of a connection's maximum age by which it may end sooner or later.
_AGE_JITTER: Final = 0.1
_HELD_BACK_S: Final = 0.25
_DEFECT_LOG_S: Final = 60.0
# The bytes of a waiting answer (or all of it) that must be taken in each `answer_timeout_s`: a frame of HTTP/2's usual size.
PROGRESS_BYTES: Final = 16_384
# The states of a connection, in their order: it never goes back. Integers, since compiled code compares them at no cost.
OPEN: Final = 0
"""Requests that the client begins are answered."""
LEAVING: Final = 1
"""The client was asked to begin no more requests here. Requests that it begins are answered."""
ENDING: Final = 2
"""Requests that the client has begun are answered, and those that cross the announcement; then the connection closes."""
REFUSING: Final = 3
"""New requests are refused, or not read. Requests that the client has begun are answered; then the connection closes."""
CLOSED: Final = 4
# Balancers check the health at least this often: Kubernetes every 10 s, nginx, HAProxy and Envoy more often.
_UNUSED_S: Final = 10.0


class Connection(Protocol):
    """One connection, as its server sees it."""

    def close_if_late(self, now: float) -> None:
        """Close the connection if its client should have sent or read something by now. `now` is the loop's time."""

    def idle_since(self) -> float:
        """Return the loop's time since when it has no request; BUSY while it has one."""

    def evict(self) -> None:
        """Close the idle connection, and notify the client if the protocol can."""

    def leave(self) -> None:
        """Ask the client to connect elsewhere, and continue to answer."""

    def shutdown(self) -> None:
        """Take no more requests, and close once those that have begun are answered."""

    def abort(self) -> None:
        """Close at once."""


class Connections:
    """The connections and tasks of a server, and their limits."""

    def __init__(
        self,
        metrics: Metrics,
        limits: Http | Grpc,
        descriptors: Descriptors | None = None,
        *,
        answer_timeout_s: float | None = None,
    ) -> None:
        """`limits` is the server's section of the settings. `descriptors` limits the connections' file descriptors.
        `answer_timeout_s` is how long a client may read nothing of its answer; None uses body_timeout_s."""
        self.metrics: Final = metrics
        self.descriptors: Final = descriptors
        self.connections_max: Final[int] = limits.connections_max
        self._limit: Final = "grpc.connections_max" if isinstance(limits, Grpc) else "http.connections_max"
        self.handshake_timeout_s: Final[float] = limits.handshake_timeout_s
        self.body_timeout_s: Final[float] = limits.body_timeout_s
        self.answer_timeout_s: Final[float] = limits.body_timeout_s if answer_timeout_s is None else answer_timeout_s
        self.header_bytes_max: Final[int] = limits.header_bytes_max
        self.streams_max: Final[int] = limits.concurrent_streams_max
        self.control_frames_max: Final[int] = limits.control_frames_max
        self._age_max_s: Final[float] = limits.connection_age_max_s
        # How long an old connection may wait until no request is in flight.
        self.age_grace_s: Final[float] = limits.connection_age_max_s * _AGE_JITTER
        # How long an old connection of HTTP/2 is not read before it ends, so that its client reads its answers.
        self.held_back_s: float = _HELD_BACK_S
        self.open: Final[set[Connection]] = set()
        self.tasks: Final[set[asyncio.Task[Any]]] = set()
        self._defect_logged: float = -_DEFECT_LOG_S
        self.is_leaving: bool = False
        """Whether each answer is the last of its connection."""
        self.is_ending: bool = False
        """Whether the server takes no more connections."""
        self._used_at: float = -_UNUSED_S  # the loop's time
        self.eviction: Final = Eviction(self.open, self.open.discard, metrics.connection_evicted)
        if descriptors is not None:
            descriptors.evictions.append(self.eviction)

    def defect(self, error: BaseException) -> None:
        """Log the defect that ended a connection, at most once a minute: strangers could repeat it and fill the disk."""
        now = monotonic()
        if now - self._defect_logged >= _DEFECT_LOG_S:
            self._defect_logged = now
            log.error("a connection is closed by a defect", exc_info=error)

    def ends_at(self, now: float) -> float:
        """Return when a connection that begins now is old enough to end, by the loop's time; infinity for never. Connections
        that began together do not end together."""
        if not self._age_max_s:
            return inf
        return now + self._age_max_s * uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER)  # noqa: S311  # no secret

    def is_full(self, now: float) -> bool:
        """Return whether the limit is reached and no idle connection could be closed instead. `now` is the loop's time."""
        return len(self.open) >= self.connections_max and not self.eviction.evict(now, self._limit)

    def has_descriptor_for(self, descriptor: int) -> bool:
        """Return whether a connection that was accepted with this descriptor may keep it."""
        return self.descriptors is None or self.descriptors.has_room(descriptor)

    def makes_room(self, now: float) -> bool:
        """Close an idle connection to free a descriptor. Return whether there was one. `now` is the loop's time."""
        return self.descriptors is not None and self.descriptors.evict(now)

    def refused(self) -> None:
        """Count a connection that is not accepted."""
        self.metrics.connection_refused()

    def accepted(self, now: float) -> None:
        """Note that a client has connected. `now` is the loop's time."""
        self._used_at = now

    def is_used(self, now: float) -> bool:
        """Return whether a client is connected, or was within the last 10 s. `now` is the loop's time."""
        return bool(self.open) or now - self._used_at < _UNUSED_S

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task of the server."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def leave(self) -> None:
        """Ask all clients to connect elsewhere, and continue to answer."""
        self.is_leaving = True
        for connection in list(self.open):
            connection.leave()

    def end(self) -> None:
        """Take no more connections, and end the open ones when their requests are answered."""
        self.is_leaving = True
        self.is_ending = True
        for connection in list(self.open):
            connection.shutdown()

    def tick(self, now: float) -> None:
        """Close connections that are too slow. `now` is the loop's time. Raises nothing, since it enforces all deadlines."""
        if self.open:
            self._used_at = now
        for connection in list(self.open):
            try:
                connection.close_if_late(now)
            except Exception:
                log.exception("a connection whose deadline could not be looked at is closed")
                self.open.discard(connection)
                connection.abort()


class Stall:
    """Detects that a client has read too little of its waiting answers for too long."""

    def __init__(self, timeout_s: float) -> None:
        self.written_bytes: int = 0
        """The bytes that the owner has written. If it does not count them, any change of the waiting bytes is progress."""
        self._timeout_s: Final = timeout_s
        self._waiting_bytes: int = 0
        self._taken_bytes: int = 0
        self._since: float = 0.0

    def is_over(self, transport: asyncio.WriteTransport, now: float) -> bool:
        """Return whether the client has stalled. Call it regularly. `now` is the loop's time."""
        waiting_bytes = transport.get_write_buffer_size()
        taken_bytes = self.written_bytes - waiting_bytes
        if self.written_bytes:
            moves = taken_bytes - self._taken_bytes >= PROGRESS_BYTES
        else:
            moves = waiting_bytes != self._waiting_bytes
        if not waiting_bytes or moves:
            self._waiting_bytes = waiting_bytes
            self._taken_bytes = taken_bytes
            self._since = now
            return False
        return now - self._since > self._timeout_s
