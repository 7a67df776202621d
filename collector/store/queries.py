"""Statements that read: those of users, checked first, those of ClickHouse's protocol, and our own.

Invariants:
1. At most `concurrent_max` statements of `query` run at once, and as many of our own beside them: a user's may take longer than
   time_max_s, since the engine looks at the time between two blocks only, and no page of ours waits for it. Who asks by
   `answer` bounds how many run (collector/api/clickhouse/turns.py).
   (tests/integration/clickhouse/test_embedded.py, test_our_own_statements_do_not_wait_for_users)
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import Final
from uuid import uuid4

from clickhouse_connect.driver.exceptions import ClickHouseError

from collector.store.asked import AskedSessions
from collector.store.contract import Answered, Question, StoreError, StoreUnavailable
from collector.store.options import QueryLimits
from collector.store.read_only_sql import RefusedFunctions, format_of, reading_statement, refused_functions
from collector.store.server import describe
from collector.store.sessions import Sessions

# {name:Type}, in a statement.
_PARAMETER: Final = re.compile(r"\{(\w+)\s*:")


class _Escaped:
    """A parameter as ClickHouse's protocol has it, escaped already: the driver takes what is no str as it is."""

    def __init__(self, text: str) -> None:
        self._text: Final = text

    def __str__(self) -> str:
        return self._text


_NO_PARAMETERS: Final[Mapping[str, _Escaped]] = MappingProxyType({})


class Queries:
    """Of one store. Any thread may call."""

    def __init__(self, sessions: Callable[[], Sessions], limits: QueryLimits, asked: AskedSessions | None) -> None:
        """`sessions`: connected, now if not before; raises StoreUnavailable. `asked`: what answers who comes by ClickHouse's
        protocol; a server answers for itself."""
        self.running: Final[set[str]] = set()
        """The queries' own names, on a server."""

        self._sessions: Final = sessions
        self._limits: Final = limits
        self._asked: Final = asked
        self._refused_functions: RefusedFunctions | None = None  # in statements of others; None: not asked for yet
        # Numbers of readers.
        self._users_idle: Final[SimpleQueue[int]] = SimpleQueue()
        self._own_idle: Final[SimpleQueue[int]] = SimpleQueue()
        for number in range(limits.concurrent_max):
            self._users_idle.put(number)
            self._own_idle.put(limits.concurrent_max + number)

    def query(self, sql: str, format_: str) -> bytes:
        """Answer a user's statement, if it reads this store and does nothing else. Raises StoreError with ClickHouse's
        message."""
        return self._run(self._checked(sql, format_), self._users_idle)

    def answer(self, question: Question) -> Answered:
        """Answer a statement that came by ClickHouse's protocol, as `query` does, but only with rows of its tenant. Only the
        embedded engine does. Raises StoreError with ClickHouse's message."""
        assert self._asked is not None, "a server answers for itself"
        # One that the statement does not name would have the driver take the statement for Python's % formatting.
        named = set(_PARAMETER.findall(question.sql))
        parameters = {name: _Escaped(value) for name, value in question.parameters.items() if name in named}
        statement = self._checked(question.sql, question.format, parameters, for_tenant=question.tenant is not None)
        with self._asked.session(question.tenant, question.settings, self._checking) as client, _store_errors():
            body = bytes(client.raw_query(statement, parameters=parameters or None))
        return Answered(body, format_of(statement))

    def read(self, sql: str, format_: str) -> bytes:
        """Answer a statement of our own. Raises StoreError with ClickHouse's message."""
        return self._run(f"{sql}\nFORMAT {format_}", self._own_idle)

    def _checked(
        self, sql: str, format_: str, parameters: Mapping[str, _Escaped] = _NO_PARAMETERS, *, for_tenant: bool = False
    ) -> str:
        """The one statement of `sql` as it may run. Raises StoreError."""
        if self._refused_functions is None:
            self._refused_functions = refused_functions(self._checking)

        def run(statement: str) -> bytes:
            return self._checking(statement, parameters)

        return reading_statement(sql, format_, run, self._refused_functions, for_tenant=for_tenant)

    def _checking(self, statement: str, parameters: Mapping[str, _Escaped] = _NO_PARAMETERS) -> bytes:
        """Answer what a check asks. Raises StoreError."""
        sessions = self._sessions()
        with _store_errors():
            settings = dict(sessions.checking or {})
            return bytes(sessions.checker.raw_query(statement, parameters=dict(parameters) or None, settings=settings))

    def _run(self, statement: str, idle: "SimpleQueue[int]") -> bytes:
        """In the place of one of the readers, as soon as one is free. Raises StoreError."""
        sessions = self._sessions()
        with self._place(idle) as (place, name), _store_errors():
            settings = None if sessions.reading is None else {**sessions.reading, "query_id": name}
            return bytes(sessions.readers[place].raw_query(statement, settings=settings))

    @contextmanager
    def _place(self, idle: "SimpleQueue[int]") -> Iterator[tuple[int, str]]:
        """One of the queries that may run at once: its number, and a name for it. Raises StoreUnavailable."""
        limits = self._limits
        try:
            place = idle.get(timeout=limits.time_max_s)
        except Empty:
            running = f"{limits.concurrent_max} queries are running"
            raise StoreUnavailable(f"{running}, and none ended in {limits.time_max_s:g} s") from None
        name = f"infrasage-{uuid4()}"
        self.running.add(name)
        try:
            yield place, name
        finally:
            self.running.discard(name)
            idle.put(place)


@contextmanager
def _store_errors() -> Iterator[None]:
    """ClickHouse's errors as StoreError."""
    try:
        yield
    except ClickHouseError as error:
        raise StoreError(describe(error)) from error
