"""File descriptors: their limit, and the reserve that connections leave to the log, the store and Kafka.

Invariants:
1. At start the soft limit is raised to the need of all connections and the reserve, as far as the hard limit allows. If that is
   too low, a warning has the numbers and the remedy. (test_the_limit_is_raised, test_a_limit_that_is_too_low_is_a_warning)
2. A connection whose own descriptor is within the reserve, the highest numbers, is refused. The kernel hands out the lowest
   free descriptor. So all lower ones were open then, and no connection that is kept takes one of the reserve.
   (test_connections_leave_the_reserve)
3. If connections of any server are idle, the longest idle one is closed first, and its descriptor taken
   (test_connections.py, test_the_longest_idle_of_all_servers_makes_room).
4. However many connections are refused, there is one log line a minute, and a metric. (test_a_shortage_is_one_line_a_minute)
"""

import resource
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog

_LOG_S: Final = 60.0
# If the limit is too low for the reserve, the reserve has half of it, and connections have the other half.
_RESERVE_SHARE_MAX: Final = 0.5

log = structlog.get_logger(__name__)


class Evictions(Protocol):
    """A server whose idle connections can be closed."""

    def idle_since(self, now: float) -> float:
        """Return since when its longest idle connection is idle; infinity if none is."""

    def evict(self, now: float, limit: str) -> bool:
        """Close its longest idle connection. Return False if none is idle."""


class Descriptors:
    """Limits the descriptors of this process's connections. Call `has_room` before a connection is kept."""

    def __init__(
        self, limit: int, reserve: int, refused: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`refused` counts a connection that found no room. `clock` is in seconds."""
        self.limit: Final = limit
        self.evictions: Final[list[Evictions]] = []
        """The servers whose idle connections can be closed."""
        self.reserve: Final = min(reserve, int(limit * _RESERVE_SHARE_MAX))
        self._refused: Final = refused
        self._clock: Final = clock
        self._logged_s = -_LOG_S

    def has_room(self, descriptor: int) -> bool:
        """Return whether a connection that was accepted with this descriptor may be kept."""
        return descriptor < self.limit - self.reserve

    def evict(self, now: float) -> bool:
        """Close the connection of any server that has been idle for longest. Return False if none is idle. `now` is the loop's
        time."""
        if not self.evictions:
            return False
        return min(self.evictions, key=lambda eviction: eviction.idle_since(now)).evict(now, "open files")

    def ran_out(self) -> None:
        """Count and log that a connection could not be kept, or not even accepted."""
        self._refused()
        now = self._clock()
        if now - self._logged_s >= _LOG_S:
            self._logged_s = now
            log.error(
                "connections are refused: the file descriptors that are left are for the log and the store; raise the limit"
                " (ulimit -n, LimitNOFILE=) or lower http.connections_max and grpc.connections_max",
                open_files_max=self.limit,
                open_files_reserve=self.reserve,
            )


def prepare(connections_max: int, reserve: int, refused: Callable[[], None]) -> Descriptors:
    """Raise this process's soft limit to the need of `connections_max` and the reserve. Log a warning if it stays too low."""
    needed = connections_max + reserve
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = _raised(needed if hard == resource.RLIM_INFINITY else min(needed, hard), soft, hard)
    limit = needed if soft == resource.RLIM_INFINITY else soft
    if limit < needed:
        log.warning(
            "this process may open fewer files than its settings may need: connections will be refused before connections_max;"
            " raise the limit (ulimit -n, LimitNOFILE=) or lower http.connections_max and grpc.connections_max",
            open_files_max=limit,
            needed=needed,
            connections_max=connections_max,
            open_files_reserve=reserve,
        )
    return Descriptors(limit, reserve, refused)


def _raised(requested: int, soft: int, hard: int) -> int:
    """Raise the soft limit to `requested`, if that is higher and allowed. Return the soft limit that is then in force."""
    if requested <= soft:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (requested, hard))
    except (OSError, ValueError) as error:  # a system-wide bound
        log.warning("cannot raise the limit of open files", wanted=requested, open_files_max=soft, error=str(error))
        return soft
    return requested
