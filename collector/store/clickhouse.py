"""ClickHouse as the store: embedded in this process (chDB), or a server.

A server may be unavailable. Calls then fail as StoreUnavailable, and succeed when it is back.

Invariants:
1. Payloads go in as the bytes that arrived, and the engine parses them (test_every_field).
2. One token is stored once, in every table that it reaches (test_same_token_everywhere).
3. Queries only read. They do not wait for inserts, nor do inserts wait for them (test_query_reads_only,
   test_inserts_beside_queries).
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Self
from uuid import UUID, uuid4

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from collector.broker.contract import DEAD_LETTERS_TOPIC, METRICS_TOPIC, SIGNAL_TOPICS, TRACES_TOPIC, Payload
from collector.store.asked import AskedSessions
from collector.store.completion import TRACE_TIMES, Completion
from collector.store.contract import (
    NOTHING,
    TABLES,
    Answered,
    Completed,
    Question,
    StoreError,
    StoreOutOfMemory,
    StoreOutOfSpace,
    StoreRefusedData,
    StoreUnavailable,
)
from collector.store.damaged_parts import PUT_ASIDE_COUNT, DamagedParts
from collector.store.engine import load_engine
from collector.store.insert import SETTINGS, Insert, Settings, embedded_inserts, server_inserts
from collector.store.migrations import migrate, migrations, on_cluster
from collector.store.payload_index import MessageKey, can_be_looked_up, contents, dead_letter_ids
from collector.store.read_only_sql import RefusedFunctions, format_of, reading_statement, refused_functions
from collector.store.server import ServerOptions, describe

# By which column a table's rows grow old.
_TIME_COLUMNS: Final = {
    **dict.fromkeys(TABLES[METRICS_TOPIC], "TimeUnix"),
    "otel_logs": "Timestamp",
    "otel_traces": "Timestamp",
    TRACE_TIMES: "Start",
    "telemetry_batches": "ReceivedAt",
}
_SIGNALS: Final = {signal: TABLES[topic] for signal, topic in SIGNAL_TOPICS.items()}
_NEWEST_ITEMS: Final = "SELECT signal, max(newest) FROM ({}) WHERE items > 0 GROUP BY signal".format(  # noqa: S608 - our own names
    " UNION ALL ".join(
        f"SELECT '{signal}' AS signal, toUnixTimestamp64Nano(max({_TIME_COLUMNS[table]})) / 1e9 AS newest, count() AS items"  # noqa: S608
        f" FROM {table}"
        for signal, tables in _SIGNALS.items()
        for table in tables
    )
)
# Dead letters have a retention of their own. An event must not go before its entry, which would then look open again; and both
# go whole days at a time, some hours late.
_DEAD_LETTERS: Final = ("telemetry_dead_letters", "KeptAt")
_EVENTS: Final = ("telemetry_dead_letter_events", "At")
_EVENTS_STAY_DAYS: Final = 7

_MERGE_TREES: Final = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"

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

# An insert that had too little memory. 240 is the same in a call to the system that makes a buffer larger.
_MEMORY_ERRORS: Final = frozenset(["MEMORY_LIMIT_EXCEEDED", "CANNOT_ALLOCATE_MEMORY", "CANNOT_MREMAP"])
# An insert for whose parts the disk has too little room: ClickHouse asks for about twice the insert's bytes before it begins.
_SPACE_ERROR: Final = "NOT_ENOUGH_SPACE"
# The limit of one query, `max_memory_usage`, as newer and older versions name it. Others are the user's and the server's.
_OF_ONE_QUERY: Final = re.compile(r"query memory limit exceeded|memory limit \(for query\) exceeded", re.IGNORECASE)

# {name:Type}, in a statement.
_PARAMETER: Final = re.compile(r"\{(\w+)\s*:")

_IDS_PER_LOOKUP: Final = 1000
_PING_TIMEOUT_S: Final = 3.0
# For parsing a statement, however long query.sql_bytes_max lets it be.
_CHECK_MEMORY_BYTES_MAX: Final = 1024**3


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


_DEFAULTS: Final = StoreOptions()


class _Escaped:
    """A parameter as ClickHouse's protocol has it, escaped already: the driver takes what is no str as it is."""

    def __init__(self, text: str) -> None:
        self._text: Final = text

    def __str__(self) -> str:
        return self._text


class _Sessions(NamedTuple):
    """Who asks. Embedded, each client is one session and serializes its own calls; on a server one client is all of them.

    `insert`: by the writer. `checker` parses statements of others. `reading`, `checking`: settings of every query of the
    readers and of the checker, where their sessions do not have them.
    """

    writer: Client
    control: Client  # does what must not wait for the others
    readers: tuple[Client, ...]
    checker: Client
    insert: Insert
    inserting: Settings  # of an insert
    reading: Mapping[str, str | int | float] | None = None
    checking: Mapping[str, str | int | float] | None = None


class ClickHouseStore:
    """A `Store`. Any thread may call; inserts take turns, queries run beside them."""

    def __init__(
        self,
        connect: Callable[[], _Sessions],
        options: StoreOptions,
        *,
        server: ServerOptions | None = None,
        cluster: str = "",
        looks_up: bool = True,
        asked: AskedSessions | None = None,
    ) -> None:
        """Made by its constructors, below. `connect` is called until it succeeds once, and raises StoreUnavailable until then.
        `looks_up`: rows that can be read are there to stay. `asked`: what answers who comes by ClickHouse's protocol."""
        self._asked: Final = asked
        self._connect: Final = connect
        self._options: Final = options
        self._server: Final = server
        self._cluster: Final = cluster
        self._looks_up: Final = looks_up
        self._connected: _Sessions | None = None
        self._connecting: Final = threading.Lock()
        # Embedded, the tables are there before the store is handed to anyone; a server may have been away until now.
        self._has_schema = server is None
        self._idle: Final[SimpleQueue[int]] = SimpleQueue()
        for number in range(options.queries.concurrent_max):
            self._idle.put(number)
        self._running: Final[set[str]] = set()  # the queries' own names, on a server
        self._refused_functions: RefusedFunctions | None = None  # in statements of others; None: not asked for yet
        self._inserted = False  # since the last ping
        self._can_complete: bool | None = None  # None: not asked for yet
        # A server's parts are its operator's.
        self._damaged_parts: Final = DamagedParts(self._command, self._ask) if server is None else None

    @classmethod
    def embedded(cls, path: Path, options: StoreOptions = _DEFAULTS) -> Self:
        """The engine in this process, its data under the directory `path`, which no other process may have open.

        Raises StoreUnavailable where it can't be opened.
        """
        opened: list[Client] = []
        load_engine(options.engine_idle_threads_max)

        def session(settings: Mapping[str, str | int | float]) -> Client:
            client = clickhouse_connect.get_client(interface="chdb", path=str(path), settings=dict(settings))
            opened.append(client)
            return client

        try:
            path.mkdir(parents=True, exist_ok=True)
            writer = session({})
            readers = tuple(session(_reader_settings(options.queries)) for _ in range(options.queries.concurrent_max))
            checker = session(_checker_settings(options.queries))
            inserting = _inserting(options)
            inserts = embedded_inserts(writer, inserting)
            sessions = _Sessions(writer, session({}), readers, checker, inserts, inserting)
        except (ClickHouseError, OSError) as error:
            for client in opened:
                client.close()
            raise StoreUnavailable(f"cannot open the store in {path}: {_one_line(error)}") from error
        asked = AskedSessions(
            lambda settings: clickhouse_connect.get_client(interface="chdb", path=str(path), settings=dict(settings)),
            _reader_settings(options.queries),
        )
        store = cls(lambda: sessions, options, asked=asked)
        store._sessions()
        return store

    @classmethod
    def server(
        cls,
        url: str,
        options: StoreOptions = _DEFAULTS,
        *,
        user: str = "default",
        password: str = "",
        database: str = "default",
        cluster: str = "",
        ca_file: Path | None = None,
        verify: bool = True,
        connect_timeout_s: float = 5.0,
        request_timeout_s: float = 300.0,
        insert_quorum: int | Literal["auto"] = 0,
    ) -> Self:
        """A server at `url` (http://HOST:PORT, https://HOST:PORT), or several behind it that are replicas of one another.

        No request is made yet, so it may be unavailable. The first call connects; the first insert applies the schema, where
        `apply_schema` has not been called. `ca_file`: certificates that the server's is checked against; None: the system's.
        `insert_quorum`: so many replicas have an insert before it counts as done; 0: the one that took it. With a quorum
        nothing is looked up, since rows can be read that no quorum has yet: what is in doubt is repeated, under its token.
        """
        where = ServerOptions(url, user, password, database, ca_file, verify, connect_timeout_s, request_timeout_s)

        def connect() -> _Sessions:
            client = where.connect()
            # A server that does not know one of these has no such behaviour to be switched off.
            known = {name: value for name, value in _inserting(options).items() if name in client.server_settings}
            quorum: Settings = {"insert_quorum": insert_quorum} if insert_quorum else {}
            inserting: Settings = {**known, **quorum}
            return _Sessions(
                client,
                client,
                (client,) * options.queries.concurrent_max,
                client,
                server_inserts(client, inserting),
                inserting,
                _reader_settings(options.queries),
                _checker_settings(options.queries),
            )

        return cls(connect, options, server=where, cluster=cluster, looks_up=not insert_quorum)

    def apply_schema(self) -> list[str]:
        """Bring tables and their settings up to date; the names of the migrations applied. Raises SchemaTooNew,
        StoreUnavailable, and StoreMisconfigured where a server refuses."""
        self._sessions()
        with self._errors():
            if self._server is not None:
                self._make_database(self._server.database)
            applied = migrate(self._command, self._text, migrations(), self._cluster)
            for table, column in _TIME_COLUMNS.items():
                self._keep(table, column, self._options.retention_days)
            days = self._options.dead_letters_retention_days
            self._keep(*_DEAD_LETTERS, days)
            self._keep(*_EVENTS, None if days is None else days + _EVENTS_STAY_DAYS)
            if self._damaged_parts is not None:
                self._damaged_parts.report()
        self._has_schema = True
        return applied

    def insert(self, topic: str, payloads: Sequence[Payload], token: str) -> None:
        """Store the batches of `topic`, as one. Raises StoreUnavailable, StoreShortage, StoreRefusedData."""
        self._insert(topic, payloads, token)
        self._inserted = True

    def _insert(self, topic: str, payloads: Sequence[Payload], token: str, into: str | None = None, session: str = "") -> None:
        sessions = self._with_schema()
        with self._errors_of_inserts():
            try:
                done = sessions.insert(topic, payloads, token, into, session)
            except DatabaseError as error:
                if error.name in _DATA_ERRORS:
                    raise StoreRefusedData(describe(error)) from error
                raise
            except OSError as error:  # the embedded engine is handed the bytes in a temporary file
                raise StoreUnavailable(f"cannot hand {sum(map(len, payloads))} bytes to ClickHouse: {error}") from error
        if self._server is not None and not done.query_id():
            raise StoreUnavailable(f"{self._server}: an answer that is not ClickHouse's: success without the name of the query")

    @contextmanager
    def _errors_of_inserts(self) -> Iterator[None]:
        """ClickHouse's errors as StoreShortage and StoreUnavailable."""
        try:
            yield
        except ClickHouseError as error:
            name = error.name if isinstance(error, DatabaseError) else None
            message = describe(error) if self._server is None else f"{self._server}: {describe(error)}"
            if name in _MEMORY_ERRORS:
                of_one_query = _OF_ONE_QUERY.search(str(error)) is not None
                raise StoreOutOfMemory(message, of_this_insert=of_one_query) from error
            if name == _SPACE_ERROR:
                raise StoreOutOfSpace(message) from error
            with self._errors():
                raise

    def can_complete(self, topic: str, payload: bytes) -> bool:
        """Return whether a token may be known whose rows are missing, and look-ups of these payloads are certain."""
        if not self._looks_up or not can_be_looked_up(topic, payload):
            return False
        if self._can_complete is None:
            self._with_schema()
            with self._errors():
                self._can_complete = self._completion().is_possible()
        return self._can_complete

    def complete(self, topic: str, payload: bytes, token: str, earlier: Sequence[bytes] = ()) -> Completed:
        """Store what is missing of these payloads, whatever tokens are known."""
        if topic == DEAD_LETTERS_TOPIC:
            # The tables keep one of those that have the same id.
            self._insert(topic, [payload], f"{token}/{uuid4()}")
            letters, events = dead_letter_ids(payload)
            return Completed({_DEAD_LETTERS[0]: len(letters), _EVENTS[0]: len(events)}, {})
        self._with_schema()
        with self._errors_of_inserts():
            return self._completion().complete(topic, payload, earlier)

    @property
    def insert_outlives_s(self) -> float:
        """An embedded insert has ended when its call has; a server goes on with a request whose connection broke."""
        return 0.0 if self._server is None else self._server.request_timeout_s

    def holds(self, topic: str, payload: bytes, besides: Mapping[MessageKey, int] = NOTHING) -> bool:
        """Return whether every item and receipt of these payloads is stored already, and `besides`; every dead letter and
        event."""
        if not self._looks_up:
            return False
        try:
            if topic == DEAD_LETTERS_TOPIC:
                letters, events = dead_letter_ids(payload)
                return self._has(_DEAD_LETTERS[0], letters) and self._has(_EVENTS[0], events)
            expected, receipts = contents(payload)
        except ValueError:
            return False  # nor can it be inserted: which is for `insert` to say
        messages = list(expected)
        self._with_schema()
        with self._errors():
            for start in range(0, len(messages), _IDS_PER_LOOKUP):
                some = messages[start : start + _IDS_PER_LOOKUP]
                stored = self._stored(topic, {batch_id for batch_id, _ in some})
                if any(stored.get(message, 0) < expected[message] + besides.get(message, 0) for message in some):
                    return False
        return not receipts or receipts <= self._receipts({batch_id for batch_id, _ in receipts})

    def untouched(self, topic: str, payload: bytes, besides: Mapping[MessageKey, int] = NOTHING) -> bool:
        """Return whether no item and no receipt of these payloads is stored: no more items of their messages than `besides`."""
        if topic == DEAD_LETTERS_TOPIC:
            return True  # the tables keep one of those that have the same id
        try:
            expected, receipts = contents(payload)
        except ValueError:
            return False
        if not self._looks_up:
            return False
        self._with_schema()
        with self._errors():
            for some in _lookups({batch_id for batch_id, _ in expected}):
                for found in self._counts(topic, set(some)):
                    if any(found.get(message, 0) > besides.get(message, 0) for message in expected):
                        return False
        return not receipts & self._receipts({batch_id for batch_id, _ in receipts})

    def stored_batches(self, batch_ids: Collection[UUID], besides_part: int) -> set[UUID]:
        """Which of these have a receipt that is stored, under another batch part than this."""
        return {batch_id for batch_id, part in self._receipts(batch_ids) if part != besides_part}

    def fingerprints(
        self, asked: Collection[tuple[bytes, bytes]], since_unix_nano: int, until_unix_nano: int
    ) -> dict[tuple[bytes, bytes], list[int]]:
        """Return which of these pairs of tenant and fingerprint have a row that was received from `since` to `until`, and
        when."""
        self._with_schema()
        found: dict[tuple[bytes, bytes], list[int]] = {}
        values = sorted({value for _, value in asked})
        with self._errors():
            for start in range(0, len(values), _IDS_PER_LOOKUP):
                among = _among([UUID(bytes=value) for value in values[start : start + _IDS_PER_LOOKUP]])
                answer = self._text(
                    "SELECT hex(TenantId), Fingerprint, toUnixTimestamp64Nano(ReceivedAt) FROM telemetry_batches"  # noqa: S608 - numbers
                    f" WHERE ReceivedAt >= fromUnixTimestamp64Nano(toInt64({since_unix_nano}))"
                    f" AND ReceivedAt <= fromUnixTimestamp64Nano(toInt64({until_unix_nano})) AND Fingerprint IN ({among})"
                )
                for line in answer.splitlines():
                    tenant, value, received = line.split("\t")
                    pair = bytes.fromhex(tenant), UUID(value).bytes
                    if pair in asked:
                        found.setdefault(pair, []).append(int(received))
        return found

    def query(self, sql: str, format_: str) -> bytes:
        """Answer a user's statement, if it reads this store and does nothing else. Raises StoreError with ClickHouse's
        message."""
        return self._run(self._checked(sql, format_))

    def _checked(
        self, sql: str, format_: str, parameters: Mapping[str, "_Escaped"] = MappingProxyType({}), *, for_tenant: bool = False
    ) -> str:
        """The one statement of `sql` as it may run. Raises StoreError."""
        if self._refused_functions is None:
            self._refused_functions = refused_functions(self._checking)

        def run(statement: str) -> bytes:
            return self._checking(statement, parameters)

        return reading_statement(sql, format_, run, self._refused_functions, for_tenant=for_tenant)

    def _checking(self, statement: str, parameters: Mapping[str, "_Escaped"] = MappingProxyType({})) -> bytes:
        """Answer what a check asks. Raises StoreError."""
        sessions = self._sessions()
        with _store_errors():
            settings = dict(sessions.checking or {})
            return bytes(sessions.checker.raw_query(statement, parameters=dict(parameters) or None, settings=settings))

    def version_and_timezone(self) -> tuple[str, str]:
        """ClickHouse's. Raises StoreError."""
        version, timezone = self.read("SELECT version(), timezone()", "TabSeparated").decode().split()
        return version, timezone

    def answer(self, question: Question) -> Answered:
        """Answer a statement that came by ClickHouse's protocol, as `query` does, but only with rows of its tenant. Only the
        embedded engine does. Raises StoreError with ClickHouse's message."""
        assert self._asked is not None, "a server answers for itself"
        # One that the statement does not name would have the driver take the statement for Python's % formatting.
        named = set(_PARAMETER.findall(question.sql))
        parameters = {name: _Escaped(value) for name, value in question.parameters.items() if name in named}
        statement = self._checked(question.sql, question.format, parameters, for_tenant=question.tenant is not None)
        with self._place(), self._asked.session(question.tenant, question.settings, self._checking) as client, _store_errors():
            body = bytes(client.raw_query(statement, parameters=parameters or None))
        return Answered(body, format_of(statement))

    def read(self, sql: str, format_: str) -> bytes:
        """Answer a statement of our own. Raises StoreError with ClickHouse's message."""
        return self._run(f"{sql}\nFORMAT {format_}")

    def _run(self, statement: str) -> bytes:
        """In the place of one of the readers, as soon as one is free. Raises StoreError."""
        sessions = self._sessions()
        with self._place() as (place, name), _store_errors():
            settings = None if sessions.reading is None else {**sessions.reading, "query_id": name}
            return bytes(sessions.readers[place].raw_query(statement, settings=settings))

    @contextmanager
    def _place(self) -> Iterator[tuple[int, str]]:
        """One of the queries that may run at once: its number, and a name for it. Raises StoreUnavailable."""
        limits = self._options.queries
        try:
            place = self._idle.get(timeout=limits.time_max_s)
        except Empty:
            running = f"{limits.concurrent_max} queries are running"
            raise StoreUnavailable(f"{running}, and none ended in {limits.time_max_s:g} s") from None
        name = f"infrasage-{uuid4()}"
        self._running.add(name)
        try:
            yield place, name
        finally:
            self._running.discard(name)
            self._idle.put(place)

    def open_dead_letters(self) -> int:
        """Return how many wait for someone: neither replayed nor discarded. Raises StoreError."""
        return int(self.read("SELECT count() FROM dead_letters WHERE IsOpen", "TabSeparated"))

    def damaged_parts(self) -> int:
        """Return how many parts are damaged, put aside, and not removed by anyone yet; of a server 0: its parts are its
        operator's. Raises StoreError."""
        return 0 if self._damaged_parts is None else int(self.read(PUT_ASIDE_COUNT, "TabSeparated"))

    def newest_items(self) -> dict[str, float]:
        """When the newest item of each signal was, in seconds since 1970; nothing of a signal without items. Raises StoreError.

        The engine knows it of each part without reading rows: the tables' partitions are days of these times."""
        found = self.read(_NEWEST_ITEMS, "TabSeparated").decode()
        return {signal: float(newest) for signal, newest in (line.split("\t") for line in found.splitlines())}

    def freeze(self, name: str) -> None:
        """Link the parts that each table has now into `shadow/NAME` of the embedded store. Raises StoreUnavailable."""
        with self._errors():
            for table in self._text(_MERGE_TREES).split():
                self._command(f"ALTER TABLE `{table}` FREEZE WITH NAME '{name}'")

    def ping(self) -> None:
        """Raises StoreUnavailable. Where it has taken an insert since the last time, it is not asked."""
        inserted, self._inserted = self._inserted, False
        if inserted:
            return
        if not self._sessions().control.ping(_PING_TIMEOUT_S):
            raise StoreUnavailable(f"{self._server or 'the engine'} does not answer")

    def close(self) -> None:
        """End our queries that run, wait for an insert that does, and let go of the data directory or the connections."""
        sessions = self._connected
        if sessions is None:
            return
        if running := list(self._running):
            if self._server is None:
                with self._errors():
                    self._command("KILL QUERY WHERE query_kind != 'Insert' ASYNC")
            else:
                named = ", ".join(f"'{name}'" for name in running)
                with suppress(ClickHouseError):
                    self._command(f"KILL QUERY WHERE query_id IN ({named}) ASYNC")
        if self._asked is not None:
            self._asked.close()
        for client in {
            id(client): client for client in (*sessions.readers, sessions.checker, sessions.control, sessions.writer)
        }.values():
            client.close()
            if self._server is not None:
                client.close_connections()

    def _sessions(self) -> _Sessions:
        """Connected, now if not before."""
        with self._connecting:
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _with_schema(self) -> _Sessions:
        if not self._has_schema:
            self.apply_schema()
        return self._sessions()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """ClickHouse's errors as StoreUnavailable, and as StoreMisconfigured where a server refuses."""
        if self._server is not None:
            with self._server.errors():
                yield
            return
        try:
            yield
        except ClickHouseError as error:
            raise StoreUnavailable(_one_line(error)) from error

    def _command(self, sql: str) -> None:
        self._sessions().control.command(sql)

    def _completion(self) -> Completion:
        """In a session of its own, to which its temporary table belongs: on a server a new one, since one whose answer was lost
        stays locked; embedded that of the writer's client."""
        sessions = self._sessions()
        session = "" if self._server is None else str(uuid4())
        settings = {"session_id": session} if session else {}

        def command(sql: str) -> None:
            sessions.writer.command(sql, settings=settings)

        def ask(sql: str) -> str:
            return bytes(sessions.writer.raw_query(sql, settings=settings, fmt="TabSeparated")).decode()

        def parse(topic: str, table: str, payload: bytes) -> None:
            self._insert(topic, [payload], table, table, session)

        return Completion(command, lambda sql: self._text(sql, ask), parse, sessions.inserting)

    def _text(self, sql: str, ask: Callable[[str], str] | None = None) -> str:
        """Answer a question of our own; once more where a damaged part was in its way. `ask`: in which session."""
        ask = ask or self._ask
        try:
            return ask(sql)
        except DatabaseError as error:
            if self._damaged_parts is None or not self._damaged_parts.put_aside(error.name, describe(error)):
                raise
            return ask(sql)

    def _ask(self, sql: str) -> str:
        return bytes(self._sessions().control.raw_query(sql, fmt="TabSeparated")).decode()

    def _make_database(self, name: str) -> None:
        """Create the database if it does not exist. system.databases shows it; any statement that names it would fail."""
        quoted = name.replace("\\", "\\\\").replace("'", "\\'").replace("`", "\\`")
        control = self._sessions().control
        found = control.raw_query(
            f"SELECT count() FROM system.databases WHERE name = '{quoted}'",  # noqa: S608 - escaped
            fmt="TabSeparated",
            use_database=False,
        )
        if bytes(found).strip() == b"0":
            control.command(on_cluster(f"CREATE DATABASE IF NOT EXISTS `{quoted}`", self._cluster), use_database=False)

    def _receipts(self, batch_ids: Collection[UUID]) -> set[MessageKey]:
        """Return the receipts of these batches that are stored."""
        self._with_schema()
        found: set[MessageKey] = set()
        with self._errors():
            for some in _lookups(batch_ids):
                answer = self._text(
                    f"SELECT BatchId, BatchPart FROM telemetry_batches WHERE BatchId IN ({_among(some)})"  # noqa: S608 - UUIDs
                )
                rows = (line.split("\t") for line in answer.splitlines())
                found.update((UUID(batch_id), int(part)) for batch_id, part in rows)
        return found

    def _has(self, table: str, ids: Collection[UUID]) -> bool:
        """Return whether a row of each is stored."""
        self._with_schema()
        with self._errors():
            return all(
                int(self._text(f"SELECT uniqExact(Id) FROM {table} WHERE Id IN ({_among(some)})")) == len(some)  # noqa: S608 - ours, and UUIDs
                for some in _lookups(ids)
            )

    def _stored(self, topic: str, batch_ids: set[UUID]) -> dict[MessageKey, int]:
        """Return how many items of these batches are stored, by message."""
        counts = self._counts(topic, batch_ids)
        # A span counts once its trace's row is there too: the two are written one after the other.
        return {message: min(found.get(message, 0) for found in counts) for message in counts[0]}

    def _counts(self, topic: str, batch_ids: set[UUID]) -> list[dict[MessageKey, int]]:
        """How many items of these batches are in the tables, by message; of spans, also how many their traces' rows count."""
        among = _among(batch_ids)

        def count(table: str, what: str) -> dict[MessageKey, int]:
            answer = self._text(
                f"SELECT BatchId, BatchPart, {what} FROM {table} "  # noqa: S608 - our own names, and UUIDs
                f"WHERE BatchId IN ({among}) GROUP BY BatchId, BatchPart"
            )
            rows = (line.split("\t") for line in answer.splitlines())
            return {(UUID(batch_id), int(part)): int(number) for batch_id, part, number in rows}

        stored: Counter[MessageKey] = Counter()
        for table in TABLES[topic]:
            stored.update(count(table, "count()"))
        if topic == TRACES_TOPIC:
            return [stored, count(TRACE_TIMES, "sum(SpanCount)")]
        return [stored]

    def _keep(self, table: str, column: str, days: int | None) -> None:
        """Give a table this retention, and the durability that the options ask for, where it has others."""
        engine = self._text(f"SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = '{table}'")  # noqa: S608 - ours
        found = re.search(r" TTL (.+?) SETTINGS ", engine)
        wanted = None if days is None else f"toDateTime({column}) + toIntervalDay({days})"

        def alter(what: str) -> None:
            self._command(on_cluster(f"ALTER TABLE {table} {what}", self._cluster))

        if (found[1] if found else None) != wanted:
            alter(f"MODIFY TTL {wanted}" if wanted else "REMOVE TTL")
        for setting in ("fsync_after_insert", "fsync_part_directory"):
            if f"{setting} = {self._options.fsync:d}" not in engine:
                alter(f"MODIFY SETTING {setting} = {self._options.fsync:d}")


def _inserting(options: StoreOptions) -> dict[str, str | int]:
    return {**SETTINGS, "max_memory_usage": options.insert_memory_bytes_max}


def _reader_settings(limits: QueryLimits) -> dict[str, str | int | float]:
    return {
        "max_execution_time": limits.time_max_s,
        "max_memory_usage": limits.memory_bytes_max,
        "max_result_rows": limits.result_rows_max,
        "max_result_bytes": limits.result_bytes_max,
        "result_overflow_mode": "throw",
        # The engine would go by its own standard output, which is the collector's and not that of the client.
        "output_format_pretty_color": 0,
        "readonly": 1,  # the last, since it forbids SET
    }


def _checker_settings(limits: QueryLimits) -> dict[str, str | int | float]:
    """As those of readers, but for the size of the answer: a syntax tree is not what was asked for."""
    return {
        "max_execution_time": limits.time_max_s,
        "max_memory_usage": _CHECK_MEMORY_BYTES_MAX,
        "readonly": 1,
    }


@contextmanager
def _store_errors() -> Iterator[None]:
    """ClickHouse's errors as StoreError."""
    try:
        yield
    except ClickHouseError as error:
        raise StoreError(describe(error)) from error


def _lookups(ids: Collection[UUID]) -> Iterator[list[UUID]]:
    """In numbers that one statement may name."""
    all_ = list(ids)
    return (all_[start : start + _IDS_PER_LOOKUP] for start in range(0, len(all_), _IDS_PER_LOOKUP))


def _among(ids: Collection[UUID]) -> str:
    return ", ".join(f"'{id_}'" for id_ in ids)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
