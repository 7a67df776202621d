"""Reader: what it asks, and when."""

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.query.reader import Reader, Value, literal, statement
from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import StoreUnavailable


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("it's", r"'it\'s'"),
        ("\\", r"'\\'"),
        ("' OR 1 -- ", r"'\' OR 1 -- '"),
        (7, "7"),
        (UUID(int=1), "toUUID('00000000-0000-0000-0000-000000000001')"),
        (datetime(2026, 4, 10, 12, 0, 0, 1, tzinfo=UTC), "1775822400000001000"),
        (("a", "b'"), r"('a', 'b\'')"),
    ],
)
def test_a_value_is_a_literal(value: Value, expected: str) -> None:
    assert expected == literal(value)


@given(text=st.text())
def test_no_text_ends_its_literal(text: str) -> None:
    """Unescaped quotes are at both ends only; a place's name in it is text like any other."""
    sql = statement("{a}{b}", {"a": text, "b": "{a}"})
    inside = sql[1:].removesuffix("'{a}'").removesuffix("'")
    position = 0
    while position < len(inside):
        assert inside[position] != "'"
        position += 2 if inside[position] == "\\" else 1
    assert position == len(inside)


async def test_the_engine_reads_every_text_back(tmp_path: Path) -> None:
    """It is the same text, whatever is in it."""
    texts = ["", "'", "\\", "\\'", "\0\n\r\t\b\x7f", "{x}", "' UNION ALL SELECT 1 -- ", "ü€\U0001f600", "; DROP TABLE x", "$$"]
    store = ClickHouseStore.embedded(tmp_path / "store")

    async def caught_up(_wait_s: float) -> int:
        return 0

    try:
        reader = Reader(store.read, caught_up, 1)
        for text in texts:
            assert [{"x": text}] == await reader.rows("SELECT {x} AS x", {"x": text})
            found = await reader.rows("SELECT count() AS n FROM system.one WHERE {x} IN {all}", {"x": text, "all": texts})
            assert [{"n": 1}] == found
    finally:
        store.close()


async def test_what_was_acknowledged_is_waited_for() -> None:
    """It is waited for before the query, as long as the settings say. The answer says how much is missing then."""
    seen: list[object] = []

    async def caught_up(wait_s: float) -> int:
        seen.append(wait_s)
        return 3

    def query(sql: str, format_: str) -> bytes:
        seen.append((sql, format_))
        return b'{"a":1}\n{"a":2}\n'

    assert ([{"a": 1}, {"a": 2}], 3) == await Reader(query, caught_up, 2.5).read("SELECT {n}", {"n": 1})
    assert [2.5, ("SELECT 1", "JSONEachRow")] == seen


async def test_a_tenant_asks_one_question_at_a_time() -> None:
    """Another tenant's query does not wait for its queries, nor do those that are about no tenant alone."""
    asked: list[str] = []
    goes_on = threading.Event()

    async def caught_up(_wait_s: float) -> int:
        return 0

    def query(sql: str, _format: str) -> bytes:
        asked.append(sql)
        if "noisy" in sql:
            assert goes_on.wait(30)
        return b"{}\n"

    reader = Reader(query, caught_up, 1)
    noisy = [asyncio.create_task(reader.rows("SELECT {tenant}", {"tenant": "noisy"})) for _ in range(8)]
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        assert [{}] == await reader.rows("SELECT {tenant}", {"tenant": "quiet"})
        assert [{}] == await reader.rows("SELECT 1", {"tenant": ""})
        assert ["SELECT 'noisy'", "SELECT 'quiet'", "SELECT 1"] == sorted(asked)
        goes_on.set()
        await asyncio.gather(*noisy)
    assert 10 == len(asked)


async def test_a_store_that_is_away_is_an_error() -> None:
    async def caught_up(_wait_s: float) -> int:
        return 0

    def query(_sql: str, _format: str) -> bytes:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        await Reader(query, caught_up, 1).rows("SELECT 1", {})
