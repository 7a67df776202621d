"""Queries by pages and commands against the store. They read their own writes, and take any text as values.

Invariants:
1. An answer contains everything that was acknowledged before the query, or reports by how many messages it lags
   (test_what_was_acknowledged_is_waited_for).
2. Text from outside is a literal of the statement, never a part of it (test_no_text_ends_its_literal).
3. The store answers one question about a tenant (the parameter `tenant`) at a time, and the tenant's other questions wait. So a
   tenant's key takes one of the threads, however much it asks (test_a_tenant_asks_one_question_at_a_time).
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from collector.runtime.turns import Turns

# A text, a whole number, a UUID, a moment (with its zone), or several of them: for IN.
Value = str | int | UUID | datetime | Sequence["Value"]

# The format of ClickHouse for answers that are read here.
ROWS_FORMAT: Final = "JSONEachRow"

# Questions that wait for the store at once; it answers query.concurrent_max of them.
_THREADS_MAX: Final = 4

_PLACE: Final = re.compile(r"\{(\w+)\}")
_ESCAPED: Final = str.maketrans({"\\": "\\\\", "'": "\\'", "\0": "\\0", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class Rows(NamedTuple):
    """The rows of an answer, and how many acknowledged messages are not in them yet."""

    rows: list[dict[str, Any]]
    messages_behind: int


class Reader:
    """Asks the store for one process. Any number of tasks may ask."""

    def __init__(self, query: Callable[[str, str], bytes], caught_up: Callable[[float], Awaitable[int]], wait_s: float) -> None:
        """`query` is a store's method, which takes SQL and a format, and blocks. `caught_up` waits at most the given seconds
        until every message acknowledged before the call is stored, and returns how many are not."""
        self._query: Final = query
        self._caught_up: Final = caught_up
        self._wait_s: Final = wait_s
        # Not the common threads: slow questions must not occupy those in which keys and certificates are read.
        self._threads: Final = ThreadPoolExecutor(_THREADS_MAX, "reader")
        # The turns of tenants with a question now.
        self._turns: Final = Turns()

    async def messages_behind(self) -> int:
        """Wait, at most `wait_s`, until every acknowledged message is stored. Return how many are not."""
        return await self._caught_up(self._wait_s)

    async def messages_behind_now(self) -> int:
        """Return how many acknowledged messages are not stored at this moment."""
        return await self._caught_up(0)

    async def read(self, sql: str, parameters: Mapping[str, Value]) -> Rows:
        """Answer a statement once every acknowledged message is stored, or the time for that is up. Each {name} in `sql` is the
        parameter of that name. Raises StoreError."""
        behind = await self.messages_behind()
        return Rows(await self.rows_now(sql, parameters), behind)

    async def rows(self, sql: str, parameters: Mapping[str, Value]) -> list[dict[str, Any]]:
        """Return the rows of `read`, without how far they lag. Raises StoreError."""
        return (await self.read(sql, parameters)).rows

    async def rows_now(self, sql: str, parameters: Mapping[str, Value]) -> list[dict[str, Any]]:
        """Return the same as `rows` without waiting, for callers that have waited already. Raises StoreError."""
        asked = statement(sql, parameters)
        tenant = parameters.get("tenant")
        if not isinstance(tenant, str) or not tenant:
            return await self._asked(asked)
        async with self._turns.of(tenant):
            return await self._asked(asked)

    async def _asked(self, sql: str) -> list[dict[str, Any]]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._rows, sql)

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        return rows_of(self._query(sql, ROWS_FORMAT))


def rows_of(answer: bytes) -> list[dict[str, Any]]:
    """Return the rows of a store's answer in ROWS_FORMAT. Bytes that are not UTF-8 are replaced."""
    return [json.loads(line.decode(errors="replace")) for line in answer.split(b"\n") if line]


def statement(sql: str, parameters: Mapping[str, Value]) -> str:
    """Return `sql` with each {name} replaced by a literal. Raises KeyError."""
    return _PLACE.sub(lambda place: literal(parameters[place[1]]), sql)


def literal(value: Value) -> str:
    """Return a literal of ClickHouse's SQL. A moment is a number of nanoseconds, as toUnixTimestamp64Nano returns it."""
    if isinstance(value, str):
        return f"'{value.translate(_ESCAPED)}'"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, UUID):
        return f"toUUID('{value}')"
    if isinstance(value, datetime):
        return str(int(value.timestamp()) * 10**9 + value.microsecond * 1000)
    return f"({', '.join(map(literal, value))})"
