"""collector/ingest/validate where the adapters' twins do not reach: the ends of the time window."""

import pytest
from support.limits import DEFAULT

from adapters.errors import MISSING_TIMESTAMP, TIMESTAMP_IN_FUTURE, TIMESTAMP_TOO_OLD
from collector.ingest.validate import LimitRules, Limits

NOW = 1_775_822_400_000_000_000  # 2026-04-10T12:00:00Z
CENTURY_S = 3_155_760_000


def limits(past_max_s: int) -> Limits:
    return Limits(
        past_max_s=past_max_s,
        future_max_s=600,
        attributes_max=1,
        attribute_key_bytes_max=1,
        attribute_value_bytes_max=1,
        name_bytes_max=1,
    )


@pytest.mark.parametrize("past_max_s", [86_400, 1_775_822_400, CENTURY_S])
def test_a_window_never_reaches_back_to_no_time_at_all(past_max_s: int) -> None:
    """0 is missing, and an unsigned number beyond 2**63 is in the future, however wide the window is."""
    rules = LimitRules(limits(past_max_s), NOW)
    assert MISSING_TIMESTAMP == rules.check_time(0)
    assert TIMESTAMP_IN_FUTURE == rules.check_time(-1) == rules.check_time(-(2**63))
    assert (TIMESTAMP_TOO_OLD if past_max_s == 86_400 else 0) == rules.check_time(1)


def test_the_windows_ends_are_within() -> None:
    """To the nanosecond."""
    rules = LimitRules(limits(86_400), NOW)
    oldest, newest = NOW - 86_400 * 10**9, NOW + 600 * 10**9
    assert [0, 0] == [rules.check_time(oldest), rules.check_time(newest)]
    assert [TIMESTAMP_TOO_OLD, TIMESTAMP_IN_FUTURE] == [rules.check_time(oldest - 1), rules.check_time(newest + 1)]


def test_the_message_names_the_window_that_was_exceeded() -> None:
    """That of a time which has a newer one beside it, once such a time was too old."""
    rules = LimitRules(limits(86_400), NOW)
    assert "Timestamp is more than 24h in the past" == rules.message(TIMESTAMP_TOO_OLD)
    wider = LimitRules(DEFAULT, NOW)
    oldest = NOW - 14 * 86_400 * 10**9
    assert [0, TIMESTAMP_TOO_OLD] == [wider.check_own_time(oldest), wider.check_own_time(oldest - 1)]
    expected = "Timestamp is more than 24h in the past, or 336h where a log record's observed time or a span's end is newer"
    assert expected == wider.message(TIMESTAMP_TOO_OLD)


def test_rules_keep_no_dead_letters_unless_told_to() -> None:
    """The budget is the request's, and nothing by default."""
    bare = LimitRules(DEFAULT, NOW)
    told = LimitRules(DEFAULT, NOW, dead_letter_items_max=7, dead_letter_bytes_max=4_096)
    assert (0, 0) == (bare.dead_letter_items_max, bare.dead_letter_bytes_max)
    assert (7, 4_096) == (told.dead_letter_items_max, told.dead_letter_bytes_max)
