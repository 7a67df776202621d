"""ClickHouse as the store: embedded in this process (chDB).

The law: bytes go in as they came and the engine parses them; one token is stored once, in every table that it reaches; queries
only read, and neither wait for inserts nor make them wait.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple, Self
from uuid import UUID

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.store.contract import StoreError, StoreRefusedData, StoreUnavailable
from collector.store.headers import item_counts
from collector.store.migrations import LANDING_FORMAT, migrate, migrations
from collector.store.statement import reading_statement

_LANDING: Final = {METRICS_TOPIC: "landing_metrics", LOGS_TOPIC: "landing_logs", TRACES_TOPIC: "landing_traces"}

# Where the items of a topic end up: each in one of these tables.
_TABLES: Final = {
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

# By which column a table's rows grow old.
_TIME_COLUMNS: Final = {
    **dict.fromkeys(_TABLES[METRICS_TOPIC], "TimeUnix"),
    "otel_logs": "Timestamp",
    "otel_traces": "Timestamp",
    "otel_traces_trace_id_ts": "Start",
}

# A repeat must be cut into blocks exactly as the first attempt was, or its tokens would not match: so nothing runs in parallel,
# and whatever decides where a block ends is said here, since the engine's defaults may change between the two attempts.
_INSERT_SETTINGS: Final[Mapping[str, str | int]] = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_threads": 1,
    "max_insert_threads": 1,
    "input_format_parallel_parsing": 0,
    "parallel_view_processing": 0,
    "max_block_size": 65_409,
    "max_insert_block_size": 1_048_449,
    "min_insert_block_size_rows": 1_048_449,
    "min_insert_block_size_bytes": 268_402_944,
    "min_insert_block_size_rows_for_materialized_views": 1_048_449,
    "min_insert_block_size_bytes_for_materialized_views": 268_402_944,
    # Data of many days at once is slow, but it is no reason to refuse it.
    "max_partitions_per_insert_block": 0,
}

# What the engine says when the bytes are at fault. Everything else may pass by itself, and is tried again.
_DATA_ERRORS: Final = frozenset(
    [
        "ATTEMPT_TO_READ_AFTER_EOF",
        "CANNOT_READ_ALL_DATA",
        "INCORRECT_DATA",
        "PROTOBUF_BAD_CAST",
        "TOO_LARGE_STRING_SIZE",  # a batch id that is not 16 bytes
        "UNKNOWN_PROTOBUF_FORMAT",
        "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
    ]
)

_MESSAGES_PER_LOOKUP: Final = 1000


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
    `fsync`: an insert returns only once its rows would survive a power cut.
    `insert_memory_bytes_max`: an insert that needs more fails as StoreUnavailable.
    """

    retention_days: int | None = None
    fsync: bool = True
    insert_memory_bytes_max: int = 2 * 1024**3
    queries: QueryLimits = QueryLimits()


_DEFAULTS: Final = StoreOptions()


class ClickHouseStore:
    """A `Store`. Any thread may call; inserts take turns, queries run beside them."""

    def __init__(
        self,
        writer: Client,
        control: Client,
        readers: Sequence[Client],
        landing: Mapping[str, str],
        options: StoreOptions,
    ) -> None:
        """Made by its constructors, below. Each client is one session and serializes its own calls: `writer` inserts,
        `readers` are read-only and answer queries, `control` does what must not wait for either. `landing` are the
        settings by which the engine finds landing.proto."""
        self._writer: Final = writer
        self._control: Final = control
        self._readers: Final = tuple(readers)
        self._idle: Final[SimpleQueue[Client]] = SimpleQueue()
        for reader in readers:
            self._idle.put(reader)
        self._options: Final = options
        self._insert_settings: Final = {
            **_INSERT_SETTINGS,
            **landing,
            "max_memory_usage": options.insert_memory_bytes_max,
        }

    @classmethod
    def embedded(cls, path: Path, options: StoreOptions = _DEFAULTS) -> Self:
        """The engine in this process, its data under the directory `path`, which no other process may have open.

        Raises StoreUnavailable where it can't be opened.
        """
        opened: list[Client] = []

        def session(settings: Mapping[str, str | int | float]) -> Client:
            client = clickhouse_connect.get_client(interface="chdb", path=str(path), settings=dict(settings))
            opened.append(client)
            return client

        try:
            path.mkdir(parents=True, exist_ok=True)
            # By its path: given as text, the engine would write it into whatever directory we run in.
            landing = {"format_schema_source": "file", "format_schema": f"{LANDING_FORMAT}:Record"}
            readers = [session(_reader_settings(options.queries)) for _ in range(options.queries.concurrent_max)]
            return cls(session({}), session({}), readers, landing, options)
        except (ClickHouseError, OSError) as error:
            for client in opened:
                client.close()
            raise StoreUnavailable(f"cannot open the store in {path}: {_one_line(error)}") from error

    def apply_schema(self) -> list[str]:
        """Bring tables and their settings up to date; the names of the migrations applied. Raises SchemaTooNew, StoreError."""
        with _errors(StoreUnavailable):
            applied = migrate(self._control.command, self._text, migrations())
            for table, column in _TIME_COLUMNS.items():
                self._keep(table, column)
            return applied

    def insert(self, topic: str, payload: bytes, token: str) -> None:
        """Store one or more concatenated TelemetryBatch payloads of `topic`. Raises StoreUnavailable, StoreRefusedData."""
        settings = {**self._insert_settings, "insert_deduplication_token": token}
        block = _varint(len(payload)) + payload
        try:
            self._writer.raw_insert(_LANDING[topic], insert_block=block, fmt="ProtobufList", settings=settings)
        except ClickHouseError as error:
            at_fault = isinstance(error, DatabaseError) and error.name in _DATA_ERRORS
            raise (StoreRefusedData if at_fault else StoreUnavailable)(_one_line(error)) from error
        except OSError as error:  # the embedded engine is handed the bytes in a temporary file
            raise StoreUnavailable(f"cannot hand {len(payload)} bytes to the engine: {error}") from error

    def holds(self, topic: str, payload: bytes) -> bool:
        """Whether every item of these payloads is stored already, found by batch id and batch part."""
        try:
            expected = item_counts(payload)
        except ValueError:
            return False  # nor can it be inserted: which is for `insert` to say
        messages = list(expected)
        with _errors(StoreUnavailable):
            for start in range(0, len(messages), _MESSAGES_PER_LOOKUP):
                some = messages[start : start + _MESSAGES_PER_LOOKUP]
                stored = self._stored(topic, {batch_id for batch_id, _ in some})
                if any(stored.get(message, 0) < expected[message] for message in some):
                    return False
        return True

    def query(self, sql: str, format_: str) -> bytes:
        """The answer of a reading statement, in one of ClickHouse's formats. Raises StoreError with ClickHouse's message."""
        statement = reading_statement(sql, format_)
        limits = self._options.queries
        try:
            reader = self._idle.get(timeout=limits.time_max_s)
        except Empty:
            running = f"{limits.concurrent_max} queries are running"
            raise StoreUnavailable(f"{running}, and none ended in {limits.time_max_s:g} s") from None
        try:
            with _errors(StoreError):
                return bytes(reader.raw_query(statement))
        finally:
            self._idle.put(reader)

    def ping(self) -> None:
        """Raises StoreUnavailable."""
        if not self._control.ping():
            raise StoreUnavailable("the engine does not answer")

    def close(self) -> None:
        """End the queries that run, wait for an insert that does, and let go of the data directory."""
        if self._idle.qsize() < len(self._readers):
            with _errors(StoreUnavailable):
                self._control.command("KILL QUERY WHERE query_kind != 'Insert' ASYNC")
        for client in (*self._readers, self._control, self._writer):
            client.close()

    def _text(self, sql: str) -> str:
        return bytes(self._control.raw_query(sql, fmt="TabSeparated")).decode()

    def _stored(self, topic: str, batch_ids: set[UUID]) -> dict[tuple[UUID, int], int]:
        """How many items of these batches are stored, by message."""
        among = ", ".join(f"'{batch_id}'" for batch_id in batch_ids)

        def count(table: str, what: str) -> dict[tuple[UUID, int], int]:
            answer = self._text(
                f"SELECT BatchId, BatchPart, {what} FROM {table} "  # noqa: S608 - our own names, and UUIDs
                f"WHERE BatchId IN ({among}) GROUP BY BatchId, BatchPart"
            )
            rows = (line.split("\t") for line in answer.splitlines())
            return {(UUID(batch_id), int(part)): int(number) for batch_id, part, number in rows}

        stored: Counter[tuple[UUID, int]] = Counter()
        for table in _TABLES[topic]:
            stored.update(count(table, "count()"))
        if topic == TRACES_TOPIC:
            # A span counts once its trace's row is there too: the two are written one after the other.
            indexed = count("otel_traces_trace_id_ts", "sum(SpanCount)")
            return {message: min(spans, indexed.get(message, 0)) for message, spans in stored.items()}
        return stored

    def _keep(self, table: str, column: str) -> None:
        """Give a table the retention and durability that the options ask for, where it has others."""
        engine = self._text(f"SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = '{table}'")  # noqa: S608 - ours
        found = re.search(r" TTL (.+?) SETTINGS ", engine)
        days = self._options.retention_days
        wanted = None if days is None else f"toDateTime({column}) + toIntervalDay({days})"
        if (found[1] if found else None) != wanted:
            self._control.command(f"ALTER TABLE {table} " + (f"MODIFY TTL {wanted}" if wanted else "REMOVE TTL"))
        for setting in ("fsync_after_insert", "fsync_part_directory"):
            if f"{setting} = {self._options.fsync:d}" not in engine:
                self._control.command(f"ALTER TABLE {table} MODIFY SETTING {setting} = {self._options.fsync:d}")


def _reader_settings(limits: QueryLimits) -> dict[str, str | int | float]:
    return {
        "max_execution_time": limits.time_max_s,
        "max_memory_usage": limits.memory_bytes_max,
        "max_result_rows": limits.result_rows_max,
        "max_result_bytes": limits.result_bytes_max,
        "result_overflow_mode": "throw",
        "readonly": 1,  # the last, since it forbids SET
    }


@contextmanager
def _errors(kind: type[StoreError]) -> Iterator[None]:
    """ClickHouse's errors as one of ours, on one line."""
    try:
        yield
    except ClickHouseError as error:
        raise kind(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)
