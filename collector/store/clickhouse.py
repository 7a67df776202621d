"""The store in ClickHouse: embedded in this process (chDB), or a server.

A server may be unavailable. Calls then fail with StoreUnavailable, and succeed when it is back.

Invariants:
1. Payloads are inserted as the bytes that arrived, and the engine parses them (test_every_field).
2. An insert with a known token stores no row again, in any table (test_same_token_everywhere).
3. Queries only read. Queries and inserts do not wait for each other (test_query_reads_only, test_inserts_beside_queries).
4. If other directories have replaced those of the store, the rows in them do not count as stored (collector/store/place.py).
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, Self
from uuid import UUID, uuid4

from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from collector.broker.contract import DEAD_LETTERS_TOPIC, SIGNAL_TOPICS, Payload
from collector.store.completion import Completion
from collector.store.contract import (
    NOTHING,
    TABLES,
    Answered,
    Completed,
    Question,
    StoreUnavailable,
)
from collector.store.damaged_parts import PUT_ASIDE_COUNT, DamagedParts
from collector.store.insert_errors import refusals, shortages
from collector.store.lookups import Lookups
from collector.store.migrations import migrations
from collector.store.options import StoreOptions
from collector.store.payload_index import CopyKey, MessageKey, can_be_looked_up, dead_letter_ids
from collector.store.place import NOWHERE, StorePlace
from collector.store.queries import Queries
from collector.store.retention import DEAD_LETTERS, EVENTS, TIME_COLUMNS
from collector.store.server import ServerOptions, describe, has_database, make_database, one_line
from collector.store.session_pool import SessionPool
from collector.store.sessions import Sessions, close_sessions, connect_embedded, connector, embedded_sessions, reader_settings
from collector.store.table_changes import TableChanges
from collector.store.table_plan import SchemaPlan

_SIGNALS: Final = {signal: TABLES[topic] for signal, topic in SIGNAL_TOPICS.items()}
_NEWEST_ITEMS: Final = "SELECT signal, max(newest) FROM ({}) WHERE items > 0 GROUP BY signal".format(  # noqa: S608 - our own names
    " UNION ALL ".join(
        f"SELECT '{signal}' AS signal, toUnixTimestamp64Nano(max({TIME_COLUMNS[table]})) / 1e9 AS newest, count() AS items"  # noqa: S608
        f" FROM {table}"
        for signal, tables in _SIGNALS.items()
        for table in tables
    )
)
_PLACES: Final = (
    "SELECT arrayJoin(data_paths) FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
)
_MERGE_TREES: Final = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"

# A TTL names each tenant with a separate retention twice. The default of 256 KiB suffices for some thousands of tenants.
_COMMAND_SETTINGS: Final = {"max_query_size": 64 * 1024 * 1024}
_PING_TIMEOUT_S: Final = 3.0
_DEFAULTS: Final = StoreOptions()


class ClickHouseStore:
    """A `Store` in ClickHouse. Thread-safe: inserts take turns, and queries run at the same time."""

    def __init__(
        self,
        connect: Callable[[], Sessions],
        options: StoreOptions,
        *,
        server: ServerOptions | None = None,
        cluster: str = "",
        looks_up: bool = True,
        pool: SessionPool | None = None,
        place: StorePlace = NOWHERE,
    ) -> None:
        """Use `embedded` or `server`. `connect` is called until it succeeds once, and raises StoreUnavailable until then.
        `looks_up` is whether rows that can be read are stored for good. `pool` has the sessions for clients of ClickHouse's
        protocol. `place` has the directories of an embedded store."""
        self._pool: Final = pool
        self._place: Final = place
        self._connect: Final = connect
        self._options: Final = options
        self._server: Final = server
        self._cluster: Final = cluster
        self._looks_up: Final = looks_up
        self._connected: Sessions | None = None
        self._connecting: Final = threading.Lock()
        # An embedded store has its tables before it is used. A server may have been unavailable until now.
        self._has_schema = server is None
        self._queries: Final = Queries(self._sessions, options.queries, pool)
        self._inserted = False  # whether an insert succeeded since the last ping
        self._can_complete: bool | None = None  # None: not known yet
        self._lookups: Final = Lookups(self._look_up)
        where = str(server or "the embedded engine")
        self._table_changes: Final = TableChanges(self._command, self._text, options.tables, where, cluster)
        # The operator of a server watches its parts.
        self._damaged_parts: Final = DamagedParts(self._command, self._ask) if server is None else None

    @classmethod
    def embedded(cls, path: Path, options: StoreOptions = _DEFAULTS) -> Self:
        """Return a store of the engine in this process, with its data under the directory `path`. No other process may have the
        directory open. Raises StoreUnavailable if it cannot be opened."""
        sessions = embedded_sessions(path, options)
        pool = SessionPool(
            lambda settings: connect_embedded(path, settings),
            reader_settings(options.queries),
        )
        store = cls(lambda: sessions, options, pool=pool, place=StorePlace(path.absolute()))
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
        """Return a store of a server at `url` (http://HOST:PORT, https://HOST:PORT), or of replicas behind it.

        No request is made yet, so the server may be unavailable. The first call connects. The first insert applies the schema,
        unless `apply_schema` was called. `ca_file` has the CA certificates for the server's; None uses the system's.

        `insert_quorum` is how many replicas must have an insert before it counts as done; with 0, one replica suffices. With a
        quorum no rows are looked up, since rows may be readable before a quorum has them. A range in doubt is then repeated
        under its token."""
        where = ServerOptions(url, user, password, database, ca_file, verify, connect_timeout_s, request_timeout_s)

        return cls(connector(where, options, insert_quorum), options, server=where, cluster=cluster, looks_up=not insert_quorum)

    def apply_schema(self) -> SchemaPlan:
        """Bring tables and their settings up to date, and return the executed plan. Raises SchemaTooNew, StoreUnavailable, and
        StoreMisconfigured if a server refuses, or the settings are impossible."""
        self._sessions()
        with self._errors():
            if self._server is not None:
                make_database(self._sessions().control, self._server.database, self._cluster)
            done = self._table_changes.apply()
            if self._damaged_parts is not None:
                self._damaged_parts.report()
                self._place.note_tables(self._text(_PLACES).splitlines())
        self._has_schema = True
        return done

    def schema_plan(self) -> SchemaPlan:
        """Return the plan that `apply_schema` would execute. Raises the same errors."""
        with self._errors():
            if self._server is not None and not has_database(self._sessions().control, self._server.database):
                return SchemaPlan(tuple(migration.name for migration in migrations()), ())
            return self._table_changes.plan()

    def administer(self, statement: str) -> None:
        """Run a statement of ours that changes users or grants. Raises StoreUnavailable, StoreMisconfigured."""
        self._sessions()
        with self._errors():
            self._command(statement)

    def insert(self, topic: str, payloads: Sequence[Payload], token: str) -> None:
        """Store payloads of `topic` as one insert. Raises StoreUnavailable, StoreShortage, StoreRefusedData."""
        self._insert(topic, payloads, token)
        self._place.check()
        self._inserted = True

    def _insert(self, topic: str, payloads: Sequence[Payload], token: str, into: str | None = None, session: str = "") -> None:
        sessions = self._with_schema()
        with self._errors(), shortages(self._server), refusals():
            try:
                done = sessions.insert(topic, payloads, token, into, session)
            except OSError as error:  # the embedded engine gets the bytes in a temporary file
                raise StoreUnavailable(f"cannot hand {sum(map(len, payloads))} bytes to ClickHouse: {error}") from error
        if self._server is not None and not done.query_id():
            raise StoreUnavailable(f"{self._server}: an answer that is not ClickHouse's: success without the name of the query")

    def can_complete(self, topic: str, payload: bytes) -> bool:
        """Return whether the store may know a token whose rows are missing, and look-ups of these payloads are certain."""
        if not self._looks_up or not can_be_looked_up(topic, payload):
            return False
        if self._can_complete is None:
            self._with_schema()
            with self._errors():
                self._can_complete = self._completion().is_possible()
        return self._can_complete

    def complete(self, topic: str, payload: bytes, token: str, earlier: Sequence[bytes] = ()) -> Completed:
        """Store the missing rows of these payloads, without regard to the tokens that the store knows."""
        if topic == DEAD_LETTERS_TOPIC:
            # The tables keep one of the rows with the same id.
            self.insert(topic, [payload], f"{token}/{uuid4()}")
            letters, events = dead_letter_ids(payload)
            return Completed({DEAD_LETTERS[0]: len(letters), EVENTS[0]: len(events)}, {})
        self._with_schema()
        with self._errors(), shortages(self._server):
            completed = self._completion().complete(topic, payload, earlier)
        self._place.check()
        return completed

    @property
    def insert_outlives_s(self) -> float:
        """Return 0 for the embedded engine, whose insert ends with its call. A server continues without the connection."""
        return 0.0 if self._server is None else self._server.request_timeout_s

    def holds(self, topic: str, payload: bytes, besides: Mapping[MessageKey, int] = NOTHING) -> bool:
        """Return whether every item and receipt of these payloads and of `besides` is stored; for dead letters, every entry and
        event."""
        return self._looks_up and self._lookups.holds(topic, payload, besides)

    def untouched(self, topic: str, payload: bytes, besides: Mapping[MessageKey, int] = NOTHING) -> bool:
        """Return whether no item and no receipt of these payloads is stored: no more items of their messages than `besides`."""
        if topic == DEAD_LETTERS_TOPIC:
            return True  # the tables keep one of the rows with the same id
        return self._looks_up and self._lookups.untouched(topic, payload, besides)

    def stored_batches(self, batch_ids: Collection[UUID], besides_part: int) -> set[UUID]:
        """Return the batches that have a receipt and an item stored under another batch part than `besides_part`."""
        return self._lookups.stored_batches(batch_ids, besides_part)

    def copies(
        self, topic: str, asked: Mapping[CopyKey, int], besides: Collection[MessageKey], since_ns: int, until_ns: int
    ) -> dict[CopyKey, list[int]]:
        """Return when stored messages, or messages that were left out, were received, by tenant and fingerprint."""
        return self._lookups.copies(topic, asked, besides, since_ns, until_ns)

    def query(self, sql: str, format_: str) -> bytes:
        """Answer a user's statement, if it reads this store and does nothing else. Raises StoreError with ClickHouse's
        message."""
        return self._queries.query(sql, format_)

    def answer(self, question: Question) -> Answered:
        """Answer a statement of ClickHouse's protocol as `query` does, but only with rows of its tenant. Requires the embedded
        engine. Raises StoreError with ClickHouse's message."""
        return self._queries.answer(question)

    def read(self, sql: str, format_: str) -> bytes:
        """Answer a statement of our own. Raises StoreError with ClickHouse's message."""
        return self._queries.read(sql, format_)

    def version_and_timezone(self) -> tuple[str, str]:
        """Return ClickHouse's version and time zone. Raises StoreError."""
        version, timezone = self.read("SELECT version(), timezone()", "TabSeparated").decode().split()
        return version, timezone

    def open_dead_letters(self) -> int:
        """Return how many dead letters are open: neither replayed nor discarded. Raises StoreError."""
        return int(self.read("SELECT count() FROM dead_letters WHERE IsOpen", "TabSeparated"))

    def damaged_parts(self) -> int:
        """Return how many damaged parts were moved aside and are not removed yet; 0 for a server, whose operator watches its
        parts. Raises StoreError."""
        return 0 if self._damaged_parts is None else int(self.read(PUT_ASIDE_COUNT, "TabSeparated"))

    def newest_items(self) -> dict[str, float]:
        """Return the time of each signal's newest item, in seconds since 1970, if it has items. Raises StoreError. The engine
        finds these times without reading rows, since the tables' partitions are days of these times."""
        found = self.read(_NEWEST_ITEMS, "TabSeparated").decode()
        return {signal: float(newest) for signal, newest in (line.split("\t") for line in found.splitlines())}

    def freeze(self, name: str) -> None:
        """Link the parts that each table has now into `shadow/NAME` of the embedded store. Raises StoreUnavailable."""
        self._place.check()
        with self._errors():
            for table in self._text(_MERGE_TREES).split():
                self._command(f"ALTER TABLE `{table}` FREEZE WITH NAME '{name}'")

    def ping(self) -> None:
        """Raise StoreUnavailable if ClickHouse does not answer. If an insert succeeded since the last call, ask nothing."""
        inserted, self._inserted = self._inserted, False
        if inserted:
            return
        if not self._sessions().control.ping(_PING_TIMEOUT_S):
            raise StoreUnavailable(f"{self._server or 'the engine'} does not answer")

    def close(self) -> None:
        """End our running queries, wait for a running insert, and release the data directory or the connections."""
        sessions = self._connected
        if sessions is None:
            return
        if running := list(self._queries.running):
            if self._server is None:
                with self._errors():
                    self._command("KILL QUERY WHERE query_kind != 'Insert' ASYNC")
            else:
                named = ", ".join(f"'{name}'" for name in running)
                with suppress(ClickHouseError):
                    self._command(f"KILL QUERY WHERE query_id IN ({named}) ASYNC")
        if self._pool is not None:
            self._pool.close()
        close_sessions(sessions, is_server=self._server is not None)

    def _sessions(self) -> Sessions:
        """Return the sessions. Connect if that is not done yet."""
        with self._connecting:
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _with_schema(self) -> Sessions:
        if not self._has_schema:
            self.apply_schema()
        self._place.check()
        return self._sessions()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise ClickHouse's errors as StoreUnavailable, or as StoreMisconfigured if a server refuses."""
        if self._server is not None:
            with self._server.errors():
                yield
            return
        try:
            yield
        except ClickHouseError as error:
            raise StoreUnavailable(one_line(error)) from error

    def _command(self, sql: str) -> None:
        self._sessions().control.command(sql, settings=_COMMAND_SETTINGS)

    def _completion(self) -> Completion:
        """Return a completion with a session, to which its temporary table belongs. On a server it is a new session, since a
        session whose answer was lost stays locked. In the embedded engine it is the session of the writer's client."""
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

    def _look_up(self, sql: str) -> str:
        self._with_schema()
        with self._errors():
            return self._text(sql)

    def _text(self, sql: str, ask: Callable[[str], str] | None = None) -> str:
        """Answer a statement of our own. If it fails because of a damaged part, move the part aside and repeat the statement.
        `ask` runs a statement in a session."""
        ask = ask or self._ask
        try:
            return ask(sql)
        except DatabaseError as error:
            if self._damaged_parts is None or not self._damaged_parts.put_aside(error.name, describe(error)):
                raise
            return ask(sql)

    def _ask(self, sql: str) -> str:
        return bytes(self._sessions().control.raw_query(sql, fmt="TabSeparated")).decode()
