"""Runs statements that only read: those of users and of ClickHouse's protocol, which are checked first, and our own.

Invariants:
1. At most `concurrent_max` statements of users run at once in `query`, and as many of our own in `read`. Neither waits for the
   other, since a user's statement may run longer than time_max_s: the engine checks the time only between two blocks
   (tests/integration/clickhouse/test_embedded.py, test_our_own_statements_do_not_wait_for_users).

The callers of `answer` bound how many statements of ClickHouse's protocol run (collector/api/clickhouse/turns.py).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import Final
from uuid import uuid4

from clickhouse_connect.driver.exceptions import ClickHouseError

from collector.store.contract import Answered, Question, StoreError, StoreUnavailable
from collector.store.options import QueryLimits
from collector.store.read_only_sql import RefusedFunctions, format_of, reading_statement, refused_functions
from collector.store.server import describe
from collector.store.session_pool import SessionPool
from collector.store.sessions import Sessions

# The beginning of a parameter in a statement: {name:Type}.
_PARAMETER: Final = re.compile(r"\{(\w+)\s*:")


class _Escaped:
    """A parameter that came by ClickHouse's protocol, where it is escaped already. The driver would escape a str again, but
    takes the text of any other object as it is."""

    def __init__(self, text: str) -> None:
        self._text: Final = text

    def __str__(self) -> str:
        return self._text


_NO_PARAMETERS: Final[Mapping[str, _Escaped]] = MappingProxyType({})


class Queries:
    """Runs the reading statements of one store. Thread-safe."""

    def __init__(self, sessions: Callable[[], Sessions], limits: QueryLimits, pool: SessionPool | None) -> None:
        """`sessions` returns the sessions, and connects them if needed; it raises StoreUnavailable. `pool` has the sessions
        for statements of ClickHouse's protocol; None for a ClickHouse server, which answers its clients itself."""
        self.running: Final[set[str]] = set()
        """The query ids of our running queries, on a server."""

        self._sessions: Final = sessions
        self._limits: Final = limits
        self._pool: Final = pool
        self._refused_functions: RefusedFunctions | None = None  # None: not read from ClickHouse yet
        # The numbers of idle readers (`Sessions.readers`), for users' statements and for our own.
        self._users_idle: Final[SimpleQueue[int]] = SimpleQueue()
        self._own_idle: Final[SimpleQueue[int]] = SimpleQueue()
        for number in range(limits.concurrent_max):
            self._users_idle.put(number)
            self._own_idle.put(limits.concurrent_max + number)

    def query(self, sql: str, format_: str) -> bytes:
        """Answer a user's statement, if it only reads this store. Raises StoreError with ClickHouse's message."""
        return self._run(self._checked(sql, format_), self._users_idle)

    def answer(self, question: Question) -> Answered:
        """Answer a statement that came by ClickHouse's protocol, as `query` does, but only with rows of its tenant. Only for
        the embedded engine. Raises StoreError with ClickHouse's message."""
        assert self._pool is not None, "a server answers for itself"
        # With a parameter that the statement does not name, the driver would apply Python's % formatting to the statement.
        named = set(_PARAMETER.findall(question.sql))
        parameters = {name: _Escaped(value) for name, value in question.parameters.items() if name in named}
        statement = self._checked(question.sql, question.format, parameters, for_tenant=question.tenant is not None)
        with self._pool.session(question.tenant, question.settings, self._checking) as client, _store_errors():
            body = bytes(client.raw_query(statement, parameters=parameters or None))
        return Answered(body, format_of(statement))

    def read(self, sql: str, format_: str) -> bytes:
        """Answer a statement of our own. Raises StoreError with ClickHouse's message."""
        return self._run(f"{sql}\nFORMAT {format_}", self._own_idle)

    def _checked(
        self, sql: str, format_: str, parameters: Mapping[str, _Escaped] = _NO_PARAMETERS, *, for_tenant: bool = False
    ) -> str:
        """Check that `sql` is one statement that only reads, and return it in the form in which it runs. Raises StoreError."""
        if self._refused_functions is None:
            self._refused_functions = refused_functions(self._checking)

        def run(statement: str) -> bytes:
            return self._checking(statement, parameters)

        return reading_statement(sql, format_, run, self._refused_functions, for_tenant=for_tenant)

    def _checking(self, statement: str, parameters: Mapping[str, _Escaped] = _NO_PARAMETERS) -> bytes:
        """Answer a statement that the check of another one needs. Raises StoreError."""
        sessions = self._sessions()
        with _store_errors():
            settings = dict(sessions.checking or {})
            return bytes(sessions.checker.raw_query(statement, parameters=dict(parameters) or None, settings=settings))

    def _run(self, statement: str, idle: "SimpleQueue[int]") -> bytes:
        """Run a statement on a reader, as soon as one of `idle` is free. Raises StoreError."""
        sessions = self._sessions()
        with self._place(idle) as (place, name), _store_errors():
            settings = None if sessions.reading is None else {**sessions.reading, "query_id": name}
            return bytes(sessions.readers[place].raw_query(statement, settings=settings))

    @contextmanager
    def _place(self, idle: "SimpleQueue[int]") -> Iterator[tuple[int, str]]:
        """Wait for an idle reader. Yield its number, and a query id for the statement. Raises StoreUnavailable."""
        limits = self._limits
        try:
            place = idle.get(timeout=limits.time_max_s)
        except Empty:
            running = f"{limits.concurrent_max} queries are running"
            raise StoreUnavailable(f"{running}, and none ended in {limits.time_max_s:g} s (store.query_time_max_s)") from None
        name = f"infrasage-{uuid4()}"
        self.running.add(name)
        try:
            yield place, name
        finally:
            self.running.discard(name)
            idle.put(place)


@contextmanager
def _store_errors() -> Iterator[None]:
    """Raise ClickHouse's errors as StoreError."""
    try:
        yield
    except ClickHouseError as error:
        raise StoreError(describe(error)) from error
