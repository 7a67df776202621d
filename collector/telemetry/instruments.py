"""The counters of one endpoint and of one tenant, and the closed sets of their labels."""

from collections.abc import Callable
from typing import Final, NamedTuple

from infrasage.v1.telemetry_pb2 import Source

from adapters.record import Adapted
from adapters.repairs import REPAIR
from collector.telemetry.counters import Count, Distribution
from collector.tenancy.plans import DIMENSIONS, Dimension

STATUSES: Final = ("accepted", "rejected", "rate_limited", "failed")
TENANT_REQUEST_STATUSES: Final = (
    "accepted",
    "rejected",
    "refused",
    "failed",
    *(f"limited_by_{dimension}" for dimension in DIMENSIONS),
)
APPEND_ERRORS: Final = ("full", "unavailable", "cancelled", "defect")

# The adapters that make records.
SOURCES: Final = tuple(Source.Name(source).removeprefix("SOURCE_").lower() for source in Source.values())


class Age:
    """The age of the time `unix_s`. `now` is the same clock."""

    def __init__(self, unix_s: float, now: Callable[[], float]) -> None:
        self._unix_s: Final = unix_s
        self._now: Final = now

    def seconds(self) -> float:
        return self._now() - self._unix_s


class Described(NamedTuple):
    """One metric, as /metrics shows it."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str


class Endpoint:
    """Counts the requests to one route or one gRPC method: their number, times and bytes."""

    def __init__(self, requests: Callable[[str], Count], seconds: Distribution, body_bytes: Count) -> None:
        self._requests: Final = requests
        self._seconds: Final = seconds
        self._body_bytes: Final = body_bytes
        self._by_code: Final[dict[int | str, Count]] = {}

    def answered(self, code: int | str, seconds: float, body_bytes: int) -> None:
        """Count a request. `code` is an HTTP status or the name of a gRPC status. `body_bytes` are still compressed."""
        requests = self._by_code.get(code)
        if requests is None:
            requests = self._by_code[code] = self._requests(str(code))
        requests.inc()
        self._seconds.observe(seconds)
        self._body_bytes.inc(body_bytes)


class Produced:
    """Counts the batches of one topic that Kafka has acknowledged."""

    def __init__(self, seconds: Distribution, messages: Count, size_bytes: Count) -> None:
        self._seconds: Final = seconds
        self._messages: Final = messages
        self._size_bytes: Final = size_bytes

    def batch(self, messages: int, size_bytes: int, seconds: float) -> None:
        self._seconds.observe(seconds)
        self._messages.inc(messages)
        self._size_bytes.inc(size_bytes)


class Tenant:
    """Counts the requests, items and bytes of one tenant."""

    def __init__(
        self,
        requests: Callable[[str], Count],
        items: Callable[[str], Count],
        body_bytes: Count,
        repaired: Callable[[str], Count],
    ) -> None:
        """`requests` and `items` return the counter of a status, `repaired` that of a repair. A counter gets its series when it
        first counts, since there may be many tenants."""
        self._repaired: Final = repaired
        self._new_requests: Final = requests
        self._new_items: Final = items
        self._body_bytes: Final = body_bytes
        self._requests: Final[dict[str, Count]] = {}
        self._items: Final[dict[str, Count]] = {}

    def ingested(self, adapted: Adapted, body_bytes: int) -> None:
        """Count an answered request. `body_bytes` are decompressed, as plans count them."""
        accepted = adapted.accepted_count()
        # A request all of whose items were rejected is a rejected one.
        self._count_request("accepted" if accepted or not adapted.rejected else "rejected")
        self._count_items("accepted", accepted)
        if adapted.rejected:
            self._count_items("rejected", adapted.rejected_count())
        if adapted.repaired:
            for kind, count in adapted.repaired.items():
                self._repaired(REPAIR[kind].name).inc(count)
        self._body_bytes.inc(body_bytes)

    def refused(self) -> None:
        """Count a request that was refused for good: unreadable, too large, or more than the plan ever allows at once."""
        self._count_request("refused")

    def limited(self, dimension: Dimension) -> None:
        """Count a request that was over the plan."""
        self._count_request(f"limited_by_{dimension}")

    def rate_limited(self, adapted: Adapted) -> None:
        """Count the items of a request over the plan that was already decoded when that was known."""
        self._count_items("rate_limited", adapted.accepted_count() + adapted.rejected_count())

    def failed(self, adapted: Adapted) -> None:
        """Count a request that could not be kept."""
        self._count_request("failed")
        self._count_items("failed", adapted.accepted_count() + adapted.rejected_count())

    def _count_request(self, status: str) -> None:
        counter = self._requests.get(status)
        if counter is None:
            counter = self._requests[status] = self._new_requests(status)
        counter.inc()

    def _count_items(self, status: str, items: int) -> None:
        counter = self._items.get(status)
        if counter is None:
            counter = self._items[status] = self._new_items(status)
        counter.inc(items)
