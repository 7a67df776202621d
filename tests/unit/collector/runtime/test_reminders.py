"""A failure that lasts is logged at once, then every half minute."""

from collector.runtime.reminders import Reminder


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_first_failure_is_logged() -> None:
    """Whenever it comes."""
    assert Reminder().due()


def test_a_lasting_failure_is_logged_at_least_once_a_minute() -> None:
    """An attempt each second for ten minutes: at 0 s, 30 s, …, 600 s."""
    clock = Clock()
    reminder = Reminder(clock)
    logged = []
    for second in range(601):
        clock.now_s = second
        if reminder.due("away"):
            logged.append(second)
    assert list(range(0, 601, 30)) == logged


def test_another_cause_is_logged_at_once() -> None:
    """A change is news."""
    reminder = Reminder(Clock())
    assert [True, False, True, False] == [reminder.due(cause) for cause in ("refused", "refused", "timeout", "timeout")]


def test_what_fails_anew_is_logged_at_once() -> None:
    """`over` ends a failure, and says whether there was one."""
    reminder = Reminder(Clock())
    assert not reminder.over()
    assert reminder.due()
    assert reminder.over()
    assert not reminder.over()
    assert reminder.due()
