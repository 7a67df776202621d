"""The options of a store: how it keeps data, and the limits of a query."""

from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

from collector.store.retention import Retention


class QueryLimits(NamedTuple):
    """The limits of one query, and how many may run at once."""

    time_max_s: float = 60.0
    memory_bytes_max: int = 2 * 1024**3
    result_rows_max: int = 1_000_000
    result_bytes_max: int = 256 * 1024**2
    concurrent_max: int = 2


EXPORTERS_ATTRIBUTES: Final = (
    "k8s.cluster.name",
    "k8s.container.name",
    "k8s.deployment.name",
    "k8s.namespace.name",
    "k8s.node.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "deployment.environment.name",
)
"""The attributes of a log's resource that the OpenTelemetry exporter makes columns of."""

TextIndexes = Literal["none", "body", "all"]


class RequestedTables(NamedTuple):
    """The properties of tables that the settings request.

    - `fsync`: whether an insert returns only after its rows would survive a power failure.
    - `storage_policy`: the policy of all tables of telemetry; with an empty text it is not changed.
    - `materialized_attributes`: the attributes of a log's resource that are columns too.
    - `text_indexes`: which bloom filters are replaced by text indexes.
    - `rollups`, `sessions`: whether the tables and the view for ClickStack are made.
    - `days_of_plans`: a function that returns the current retention of tenants by their plans, in days, and raises
      KeysUnusable. It is None if no plan has a retention.
    """

    retention: Retention = Retention()
    fsync: bool = True
    storage_policy: str = ""
    materialized_attributes: tuple[str, ...] = EXPORTERS_ATTRIBUTES
    text_indexes: TextIndexes = "none"
    rollups: bool = False
    sessions: bool = False
    days_of_plans: Callable[[], Mapping[str, int]] | None = None

    def as_of_now(self) -> "RequestedTables":
        """Return a copy with the tenants' current retention by their plans. The retention of a tenant in the settings takes
        precedence."""
        if self.days_of_plans is None:
            return self
        tenants = {**self.days_of_plans(), **self.retention.tenants}
        return self._replace(retention=self.retention._replace(tenants=tenants), days_of_plans=None)


class StoreOptions(NamedTuple):
    """The options of a store.

    An insert that needs more than `insert_memory_bytes_max` fails with StoreOutOfMemory, a StoreUnavailable.
    `engine_idle_threads_max` is how many threads each pool of the embedded engine keeps, or uses to load and remove parts."""

    tables: RequestedTables = RequestedTables()
    insert_memory_bytes_max: int = 2 * 1024**3
    engine_idle_threads_max: int = 8
    queries: QueryLimits = QueryLimits()
