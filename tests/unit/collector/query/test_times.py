"""Times in questions: what is RFC 3339, and what the store can hold."""

from contextlib import closing
from pathlib import Path

import pytest
from support.reopened_store import store_with_tables

from collector.dead_letters.filters import Filter
from collector.dead_letters.queries import DeadLetterReports
from collector.query.reader import Reader
from collector.query.times import unix_nano_of

HELD = {
    "1970-01-01T00:00:00.000000001Z": 1,
    "2026-04-10T12:00:00Z": 1_775_822_400_000_000_000,
    "2026-04-10t14:00:00.123456789+02:00": 1_775_822_400_123_456_789,
    "2262-04-11T23:47:15.999999999Z": 9_223_372_035_999_999_999,
    # Before anything can have arrived: as good as no bound.
    "1970-01-01T00:00:00Z": 0,
    "1969-12-31T23:59:59Z": 0,
    "1900-01-01T00:00:00Z": 0,
}


@pytest.mark.parametrize("text", HELD)
def test_what_the_store_can_hold(text: str) -> None:
    """The limits are exact to the nanosecond."""
    assert HELD[text] == unix_nano_of("since", text)


@pytest.mark.parametrize(
    "text",
    ["2262-04-11T23:47:16Z", "2299-12-31T23:59:59Z", "9999-12-31T23:59:59Z", "1899-12-31T23:59:59Z", "0001-01-01T00:00:00Z"],
)
def test_what_it_cannot(text: str) -> None:
    """The message has the parameter, the value and the limits."""
    with pytest.raises(ValueError, match=r"^until must be from 1900-01-01T00:00:00Z to 2262-04-11T23:47:15Z, .* not '" + text):
        unix_nano_of("until", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-04-10",
        "2026-04-10T12:00:00",
        "2026-13-10T12:00:00Z",
        "1775822400",
        "２０２６-04-10T12:00:00Z",
        "\udcff",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"^since must be RFC 3339, as 2026-04-10T12:00:00Z, not "):
        unix_nano_of("since", text)


async def test_the_engine_takes_every_time_that_is_let_through(tmp_path: Path) -> None:
    """It answers, and does not fail or turn the time into another one."""

    async def caught_up(_wait_s: float) -> int:
        return 0

    with closing(store_with_tables(tmp_path / "store")) as store:
        reader = Reader(store.read, caught_up, 1)
        reports = DeadLetterReports(reader, 30)
        for text, expected in HELD.items():
            which = Filter.of({"since": text, "until": text}, None)
            assert [] == (await reports.page(which, 10, None)).entries
            sql = "SELECT toString(toUnixTimestamp64Nano(fromUnixTimestamp64Nano(toInt64({at})))) AS at"
            assert [{"at": str(expected)}] == await reader.rows(sql, {"at": which.since_unix_nano or 0})
