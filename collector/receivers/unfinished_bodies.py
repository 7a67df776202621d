"""Connections that wait for the rest of a body, by tenant: so that one tenant's leave room for those of others.

Invariants:
1. Where nine tenths of the connections that may be open wait for the rest of a body, a tenant that has half of them begins no
   other (tests/unit/collector/receivers/test_unfinished_bodies.py, test_one_tenant_leaves_room_for_another).
2. A connection counts once, however many of its requests are unfinished (the same, test_a_connection_counts_once).
"""

from typing import Final

from collector.ingest.produce import ShareExceeded

# Parts of the connections that may be open: so many are a tenant's share, and below so few nobody is refused.
_SHARE: Final = 0.5
_NEARLY_ALL: Final = 0.9


class UnfinishedBodies:
    """Of one server. One event loop's: no locks."""

    def __init__(self, connections_max: int, limit: str) -> None:
        """`limit`: the setting's name, for messages."""
        self._limit: Final = limit
        self._connections_max: Final[int] = connections_max
        self._share: Final[int] = max(1, int(connections_max * _SHARE))
        self._nearly_all: Final[int] = max(1, int(connections_max * _NEARLY_ALL))
        self._connections: Final[dict[str, int]] = {}  # by tenant
        self._all: int = 0

    def begin(self, tenant: str) -> None:
        """Count a connection whose first body begins. Raises ShareExceeded."""
        own = self._connections.get(tenant, 0)
        if own >= self._share and self._all >= self._nearly_all:
            raise ShareExceeded(
                f"{own} connections of tenant {tenant} wait for the rest of a request, and its share is {self._share}: half of"
                f" {self._limit} = {self._connections_max}"
            )
        self._connections[tenant] = own + 1
        self._all += 1

    def end(self, tenant: str) -> None:
        """Count one less: its last body is whole, or is not waited for."""
        own = self._connections[tenant] - 1
        if own:
            self._connections[tenant] = own
        else:
            del self._connections[tenant]
        self._all -= 1


class ConnectionBodies:
    """Of one connection. It counts for the tenant whose body began first."""

    def __init__(self, all_: UnfinishedBodies) -> None:
        self._all: Final = all_
        self._tenant: str = ""
        self._unfinished: int = 0

    def begin(self, tenant: str) -> None:
        """Note that a body begins. Raises ShareExceeded."""
        if not self._unfinished:
            self._all.begin(tenant)
            self._tenant = tenant
        self._unfinished += 1

    def end(self) -> None:
        """Note that one is whole, or is not waited for."""
        self._unfinished -= 1
        if not self._unfinished:
            self._all.end(self._tenant)
