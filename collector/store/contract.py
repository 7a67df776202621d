"""What the writer and the `query` command need from a store.

Invariants:
1. Inserting the same payloads twice under the same token stores them once (tests/contracts/test_store_contract.py,
   test_same_token).
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, Payload

# Where the items of a topic end up: each in one of these tables.
TABLES: Final = {
    METRICS_TOPIC: (
        "otel_metrics_gauge",
        "otel_metrics_sum",
        "otel_metrics_histogram",
        "otel_metrics_exponential_histogram",
        "otel_metrics_summary",
    ),
    LOGS_TOPIC: ("otel_logs",),
    TRACES_TOPIC: ("otel_traces",),
}
RECEIPTS: Final = "telemetry_batches"
TRACE_TIMES: Final = "otel_traces_trace_id_ts"
# For ClickStack, where the settings ask for them (collector/store/clickstack.py).
ROLLUPS: Final = ("otel_logs_kv_rollup_15m", "otel_traces_kv_rollup_15m")
SESSIONS: Final = "hyperdx_sessions"

NOTHING: Final[Mapping[tuple[UUID, int], int]] = MappingProxyType({})


class StoreError(Exception):
    """The store could not do it."""


class StoreUnavailable(StoreError):
    """Away, overloaded or out of space: the same call may succeed later."""


class StoreShortage(StoreUnavailable):
    """An insert needed more room than it could have, so a smaller one may succeed. Some of it may be stored. It has ended."""


class StoreOutOfSpace(StoreShortage):
    """The store's disk has too little room for the insert."""


class StoreOutOfMemory(StoreShortage):
    """There is too little memory for the insert."""

    def __init__(self, message: str, *, of_this_insert: bool) -> None:
        """`of_this_insert`: the limit is that of one insert, so the same insert would fail again. Else it is the server's, and
        others use it too."""
        super().__init__(message)
        self.of_this_insert: Final = of_this_insert


class StoreMisconfigured(StoreUnavailable):
    """It is there, but does not let us in, or is not what we need: so until someone changes a setting, or the store. At start a
    reason to end; later, when a password has changed, say, one to wait like any other."""


class StoreRefusedData(StoreError):
    """The store can't read these bytes, and never will. Nothing of them was stored."""


class Completed(NamedTuple):
    """What a completion did, by table."""

    rows: Mapping[str, int]  # that were missing, and are stored now
    in_part: Mapping[str, int]  # rows that are missing of groups that are stored in part, and stay so


class Question(NamedTuple):
    """A statement as it came by ClickHouse's protocol. `format`: where it names none. `tenant`: whose rows it may see; None:
    everyone's. `settings`, `parameters`: of the statement, by name."""

    sql: str
    format: str
    tenant: str | None
    settings: Mapping[str, str]
    parameters: Mapping[str, str]


class Answered(NamedTuple):
    """The answer to a Question, and the format that it is in."""

    body: bytes
    format: str


class Store(Protocol):
    """Calls block: run them in a thread."""

    @property
    def insert_outlives_s(self) -> float:
        """Return how long an insert without an answer may still be running, in seconds."""

    def insert(self, topic: str, payloads: Sequence[Payload], token: str) -> None:
        """Store the batches of `topic` (TelemetryBatch; of dead letters, DeadLetterBatch), as one. Raises StoreUnavailable,
        StoreShortage, StoreRefusedData."""

    def holds(self, topic: str, payload: bytes, besides: Mapping[tuple[UUID, int], int] = NOTHING) -> bool:
        """Return whether every item and receipt of these payloads is stored already, found by batch id and batch part; every
        dead letter and event, by its id. False where that is not certain: inserting again under the same token is always
        right. `besides`: so many items of these messages, by batch id and batch part, are stored and are not in
        `payload`."""

    def untouched(self, topic: str, payload: bytes, besides: Mapping[tuple[UUID, int], int] = NOTHING) -> bool:
        """Return whether no item and no receipt of these payloads is stored, so that they may be inserted in other pieces.
        False where that is not certain. Dead letters and events may always be."""

    def can_complete(self, topic: str, payload: bytes) -> bool:
        """Return whether a token may be known whose rows are missing, and look-ups of these payloads are certain, so that
        `complete` is right. False for bytes that adapters can't have made: for these the token decides. Raises
        StoreUnavailable."""

    def complete(self, topic: str, payload: bytes, token: str, earlier: Sequence[bytes] = ()) -> Completed:
        """Store what is missing of these payloads, whatever tokens are known. Call it only where `can_complete` says so, and
        while no insert of them is going on. May be repeated. `earlier`: the pieces of the same message that were stored before,
        each as it was inserted. Raises as `insert`."""

    def stored_batches(self, batch_ids: Collection[UUID], besides_part: int) -> set[UUID]:
        """Return which of these have a receipt and an item that are stored under another batch part than this. An insert that
        broke off may have left the receipt alone. Raises StoreUnavailable."""

    def copies(
        self,
        topic: str,
        asked: Mapping[tuple[bytes, bytes], int],
        besides: Collection[tuple[UUID, int]],
        since_ns: int,
        until_ns: int,
    ) -> dict[tuple[bytes, bytes], list[int]]:
        """Return which of these pairs of tenant and fingerprint have a message, received from `since` to `until`, and when,
        nanoseconds since the Unix epoch: one of which as many items are stored as `asked` says, since an insert that broke off
        may have left its row alone; or one that was left out, for another that is stored. None of `besides` counts. Raises
        StoreUnavailable."""

    def query(self, sql: str, format_: str) -> bytes:
        """Answer a user's statement, in one of ClickHouse's formats. Refuse one that does more than read this store. Raises
        StoreError with ClickHouse's message."""

    def read(self, sql: str, format_: str) -> bytes:
        """Answer a statement of our own, without a FORMAT clause, in one of ClickHouse's formats. Raises StoreError."""

    def ping(self) -> None:
        """Raise StoreUnavailable if the store can't be reached. No request is made if an insert has reached it since the last
        call."""
