"""Count the requests that wait for the rest of a body, and their connections, by tenant, so that no tenant can use up all.

Such a request takes some kilobytes of memory for a few bytes from its client, and a connection may have a thousand requests.

Invariants:
1. At most `requests_max` requests of a server wait for the rest of a body
   (tests/unit/collector/receivers/test_unfinished_bodies.py, test_requests_are_bounded).
2. A tenant with half of the allowed requests, or connections, may not begin another if nine tenths of the allowed number wait
   for the rest of a body (the same file, test_one_tenant_leaves_room_for_another).
3. A connection counts once, however many of its requests are unfinished (the same file, test_a_connection_counts_once).
"""

from typing import Final

from collector.config.receivers import Grpc, Http
from collector.ingest.produce import Overloaded, ShareExceeded

# As fractions of the allowed number: a tenant's share, and the total below which no tenant is refused.
_SHARE: Final = 0.5
_NEARLY_ALL: Final = 0.9


class _Shared:
    """The number of requests or connections that wait, by tenant."""

    def __init__(self, most: int, name: str, setting: str) -> None:
        """`most` is the allowed number. `name` is "requests" or "connections", for messages."""
        self.all: int = 0
        self._most: Final[int] = most
        self._name: Final = name
        self._setting: Final = setting
        self._share: Final[int] = max(1, int(most * _SHARE))
        self._nearly_all: Final[int] = max(1, int(most * _NEARLY_ALL))
        self._of_tenants: Final[dict[str, int]] = {}

    def check(self, tenant: str) -> None:
        """Raise Overloaded if the tenant may not begin another."""
        own = self._of_tenants.get(tenant, 0)
        if own >= self._share and self.all >= self._nearly_all:
            raise ShareExceeded(
                f"{own} {self._name} of tenant {tenant} wait for the rest of a body, and its share is {self._share}: half of"
                f" {self._setting} = {self._most}"
            )
        if self.all >= self._most:
            raise Overloaded(
                f"{self.all} {self._name} wait for the rest of a body, and at most {self._most} may ({self._setting})"
            )

    def add(self, tenant: str) -> None:
        self._of_tenants[tenant] = self._of_tenants.get(tenant, 0) + 1
        self.all += 1

    def remove(self, tenant: str) -> None:
        own = self._of_tenants[tenant] - 1
        if own:
            self._of_tenants[tenant] = own
        else:
            del self._of_tenants[tenant]
        self.all -= 1


class UnfinishedBodies:
    """The requests and connections of one server. It has no locks, since one event loop uses it."""

    def __init__(self, limits: Http | Grpc) -> None:
        """`limits` is the server's section of the settings."""
        section = "grpc" if isinstance(limits, Grpc) else "http"
        self.connections: Final = _Shared(limits.connections_max, "connections", f"{section}.connections_max")
        self.requests: Final = _Shared(limits.concurrent_requests_max, "requests", f"{section}.concurrent_requests_max")


class ConnectionBodies:
    """The unfinished bodies of one connection. The connection counts for the tenant whose body began first."""

    def __init__(self, all_: UnfinishedBodies) -> None:
        self._all: Final = all_
        self._tenant: str = ""
        self._unfinished: int = 0

    def begin(self, tenant: str) -> None:
        """Note that a body begins. Raises Overloaded."""
        every = self._all
        every.requests.check(tenant)
        if not self._unfinished:
            every.connections.check(tenant)
            every.connections.add(tenant)
            self._tenant = tenant
        every.requests.add(tenant)
        self._unfinished += 1

    def end(self, tenant: str) -> None:
        """Note that a body of that tenant is whole, or is no longer waited for."""
        self._unfinished -= 1
        self._all.requests.remove(tenant)
        if not self._unfinished:
            self._all.connections.remove(self._tenant)
