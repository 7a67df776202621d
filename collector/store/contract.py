"""The contract of a store, for the writer and the `query` command.

Invariants:
1. Inserting the same payloads twice under the same token stores them once (tests/contracts/test_store_contract.py,
   test_same_token).
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, Payload

# The tables of each topic: each item is stored in one of them.
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
# Tables and a view for ClickStack, which the settings can request (collector/store/clickstack.py).
ROLLUPS: Final = ("otel_logs_kv_rollup_15m", "otel_traces_kv_rollup_15m")
SESSIONS: Final = "hyperdx_sessions"

NOTHING: Final[Mapping[tuple[UUID, int], int]] = MappingProxyType({})


class StoreError(Exception):
    """Raised if a call of the store fails."""


class StoreUnavailable(StoreError):
    """Raised if the store cannot be reached, or is overloaded or out of space. The same call may succeed later."""


class StoreShortage(StoreUnavailable):
    """Raised if an insert needed more memory or disk than available. A part of it may be stored. A smaller insert may
    succeed."""


class StoreOutOfSpace(StoreShortage):
    """The store's disk has too little room for the insert."""


class StoreOutOfMemory(StoreShortage):
    """There is too little memory for the insert."""

    def __init__(self, message: str, *, of_this_insert: bool) -> None:
        """`of_this_insert` is whether the insert exceeded the limit for one insert, so that the same insert would fail again.
        Otherwise the server's limit was exceeded, to which other work contributes."""
        super().__init__(message)
        self.of_this_insert: Final = of_this_insert


class StoreMisconfigured(StoreUnavailable):
    """Raised if the store answers, but cannot be used until an operator changes a setting or the store.

    At the start this ends the process. Later, for example after a change of the password, the caller waits as for other
    failures."""


class StoreRefusedData(StoreError):
    """Raised if the store can never read these bytes. It has stored none of them."""


class Completed(NamedTuple):
    """The rows that a completion has stored, and the rows that it could not store, by table."""

    rows: Mapping[str, int]  # rows that were missing, and are stored now
    in_part: Mapping[str, int]  # rows that stay missing, since their group is stored in part


class Question(NamedTuple):
    """A statement that arrived over ClickHouse's protocol.

    `format` is used if the statement names none. If `tenant` is not None, the statement may see only this tenant's rows.
    `settings` and `parameters` are the statement's, by name."""

    sql: str
    format: str
    tenant: str | None
    settings: Mapping[str, str]
    parameters: Mapping[str, str]


class Answered(NamedTuple):
    """The answer to a Question, and its format."""

    body: bytes
    format: str


class Store(Protocol):
    """A store of telemetry. Its calls block: run them in a thread."""

    @property
    def insert_outlives_s(self) -> float:
        """Return how long an insert without an answer may still be running, in seconds."""

    def insert(self, topic: str, payloads: Sequence[Payload], token: str) -> None:
        """Store the payloads of `topic` as one insert. Each is a TelemetryBatch, or a DeadLetterBatch for dead letters. Raises
        StoreUnavailable, StoreShortage, StoreRefusedData."""

    def holds(self, topic: str, payload: bytes, besides: Mapping[tuple[UUID, int], int] = NOTHING) -> bool:
        """Return whether everything in these payloads is stored already. Items and receipts are looked up by batch id and batch
        part, dead letters and events by their ids. Return False if that is not certain, since it is always right to insert
        again under the same token. `besides` counts the stored items, by batch id and batch part, that are not in `payload`."""

    def untouched(self, topic: str, payload: bytes, besides: Mapping[tuple[UUID, int], int] = NOTHING) -> bool:
        """Return whether no item and no receipt of these payloads is stored, so that they may be inserted in other pieces.
        Return False if that is not certain. Dead letters and events may always be inserted in other pieces."""

    def can_complete(self, topic: str, payload: bytes) -> bool:
        """Return whether `complete` may be called: the store may know a token although its rows are missing, and look-ups of
        these payloads are certain. Return False for bytes that no adapter can have made: for them only the token decides.
        Raises StoreUnavailable."""

    def complete(self, topic: str, payload: bytes, token: str, earlier: Sequence[bytes] = ()) -> Completed:
        """Store the missing rows of these payloads, without regard to the tokens that the store knows.

        Call it only if `can_complete` returned True, and while no insert of these payloads is running. It may be repeated.
        `earlier` has the earlier pieces of the same message, which are stored, each as it was inserted. Raises the same errors
        as `insert`."""

    def stored_batches(self, batch_ids: Collection[UUID], besides_part: int) -> set[UUID]:
        """Return which of these batches have both a receipt and an item stored under a batch part other than `besides_part`.
        A receipt alone does not count, since an interrupted insert may have left it. Raises StoreUnavailable."""

    def copies(
        self,
        topic: str,
        asked: Mapping[tuple[bytes, bytes], int],
        besides: Collection[tuple[UUID, int]],
        since_ns: int,
        until_ns: int,
    ) -> dict[tuple[bytes, bytes], list[int]]:
        """Return when messages of these tenants and fingerprints were received, in nanoseconds since the Unix epoch.

        A message counts if it was received from `since_ns` to `until_ns`, and if at least `asked` of its items are stored.
        `asked` is by tenant and fingerprint. The items are counted since an interrupted insert may have stored only the row of
        the fingerprint.

        A message also counts if it was left out because an equal message is stored. Messages in `besides` never count. Raises
        StoreUnavailable."""

    def query(self, sql: str, format_: str) -> bytes:
        """Answer a user's statement, in one of ClickHouse's formats. Refuse a statement that does more than read this store.
        Raises StoreError with ClickHouse's message."""

    def read(self, sql: str, format_: str) -> bytes:
        """Answer a statement of our own, without a FORMAT clause, in one of ClickHouse's formats. Raises StoreError."""

    def ping(self) -> None:
        """Raise StoreUnavailable if the store can't be reached. If an insert has reached the store since the last call, no
        request is made."""
