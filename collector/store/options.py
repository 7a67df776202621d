"""How the store keeps data, and what a query may use of it."""

from typing import NamedTuple


class QueryLimits(NamedTuple):
    """What one query may use, and how many may run at once."""

    time_max_s: float = 60.0
    memory_bytes_max: int = 2 * 1024**3
    result_rows_max: int = 1_000_000
    result_bytes_max: int = 256 * 1024**2
    concurrent_max: int = 2


class StoreOptions(NamedTuple):
    """How the store keeps data.

    `retention_days`: rows older than this are dropped, a day's partition at a time; None keeps them for ever.
    `dead_letters_retention_days`: the same, for dead letters.
    `fsync`: an insert returns only once its rows would survive a power cut.
    `insert_memory_bytes_max`: an insert that needs more fails as StoreUnavailable.
    `engine_idle_threads_max`: threads that a pool of the embedded engine keeps, or uses to load and remove parts.
    """

    retention_days: int | None = None
    dead_letters_retention_days: int | None = 30
    fsync: bool = True
    insert_memory_bytes_max: int = 2 * 1024**3
    engine_idle_threads_max: int = 8
    queries: QueryLimits = QueryLimits()
