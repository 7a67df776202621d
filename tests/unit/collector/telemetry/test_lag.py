"""How long the oldest message waits, as far as looks at offsets can tell."""

from hypothesis import given
from hypothesis import strategies as st

from collector.broker.contract import LOGS_TOPIC, Partition, Position
from collector.telemetry.lag import _NOTES_MAX, LagClock

FIRST, SECOND = Partition(LOGS_TOPIC, 0), Partition(LOGS_TOPIC, 1)


class Clock:
    """As it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5), st.integers(0, 5)), max_size=60))
def test_the_lag_is_the_age_of_the_oldest_message(steps: list[tuple[int, int, int]]) -> None:
    """At each look it is the exact time since the first look that saw the oldest message that is not committed."""
    clock = Clock()
    lag = LagClock(clock)
    seen: list[float] = []  # by offset: when a look first saw that message
    committed = 0
    for seconds, appended, stored in steps:
        clock.now += seconds
        seen += [clock.now] * appended
        committed = min(len(seen), committed + stored)
        expected = clock.now - seen[committed] if committed < len(seen) else 0.0
        assert {FIRST: expected} == lag.update({FIRST: Position(committed, len(seen))})


def test_notes_are_thinned_without_shortening_the_lag() -> None:
    """A store that is away for days: the oldest message's time stays exact, the notes are bounded, and when it drains the lag
    is off by no more than a few looks."""
    clock = Clock()
    lag = LagClock(clock)
    looks = 10 * _NOTES_MAX
    for look in range(looks):
        clock.now = 3.0 * look
        assert {FIRST: 3.0 * look} == lag.update({FIRST: Position(0, 10 * (look + 1))})
        assert len(lag._notes[FIRST]) <= _NOTES_MAX
    for done in range(0, looks, looks // 7):
        exact = clock.now - 3.0 * done
        (waited,) = lag.update({FIRST: Position(10 * done, 10 * looks)}).values()
        assert exact - 3.0 * looks / 100 <= waited <= exact


def test_a_partition_that_moves_away_is_forgotten() -> None:
    """When it comes back its messages have waited since then, as far as this process knows."""
    clock = Clock()
    lag = LagClock(clock)
    lag.update({FIRST: Position(0, 5), SECOND: Position(0, 5)})
    clock.now += 60
    assert {SECOND: 60.0} == lag.update({SECOND: Position(0, 5)})
    assert {FIRST: 0.0, SECOND: 60.0} == lag.update({FIRST: Position(0, 5), SECOND: Position(0, 5)})


def test_a_log_that_begins_anew_begins_anew() -> None:
    """An end that is lower than before is another log's: what the former one held says nothing of it."""
    clock = Clock()
    lag = LagClock(clock)
    lag.update({FIRST: Position(100, 500)})
    clock.now += 60
    assert {FIRST: 0.0} == lag.update({FIRST: Position(0, 3)})
    clock.now += 5
    assert {FIRST: 5.0} == lag.update({FIRST: Position(0, 4)})
