"""When audits run by themselves, what they judge, and what is shown of it."""

import itertools

import pytest
from structlog.testing import capture_logs
from support.fakes.receiving import counted

from collector.app.scheduled_audit import ScheduledAudit
from collector.audit.findings import CONFIRMED, OPEN, AuditFinding
from collector.audit.report import Fault, Report, Window
from collector.config.process import Audit
from collector.store.contract import StoreUnavailable
from collector.telemetry.metrics import Metrics

S = 10**9
HOUR = 3600 * S
DELAY = 300 * S


class Kept:
    """Findings, as the store keeps them: the newest state of each."""

    def __init__(self) -> None:
        self.by_time: dict[tuple[int, int], AuditFinding] = {}
        self.is_away = False

    async def open(self) -> list[AuditFinding]:
        if self.is_away:
            raise StoreUnavailable("connection refused")
        return [finding for _, finding in sorted(self.by_time.items()) if finding.state == OPEN]

    async def confirmed(self, since: int) -> list[AuditFinding]:
        return [each for _, each in sorted(self.by_time.items()) if each.state == CONFIRMED and each.end > since]

    async def put(self, finding: AuditFinding) -> None:
        self.by_time[finding.start, finding.end] = finding

    def confirm(self) -> None:
        self.by_time = {time: finding._replace(state=CONFIRMED) for time, finding in self.by_time.items()}


class World:
    """A clock, a judge that answers as it is set, and the audit between them."""

    def __init__(self) -> None:
        self.now = 1_000_000 * S
        self.windows: list[Window] = []
        self.difference = 0
        self.behind = 0
        self.is_away = False
        self.is_ours = True
        self.newest = 0
        self.is_unknown = False
        # Where these are set: the start of the one window that differs, and the end of the first that can't be judged.
        self.only_from: int | None = None
        self.away_until: int | None = None
        # Differences by the start of their windows, and what reports say was not judged.
        self.differences: dict[int, int] = {}
        self.notes: list[str] = []
        self.log_lost = 0
        self.findings = Kept()
        self.start()

    def start(self) -> None:
        """A new process."""
        self.metrics = Metrics()
        self.audit = ScheduledAudit(
            self._judge, self._has_it, self._newest, self.findings, Audit(), self.metrics, lambda: self.now
        )

    async def _has_it(self) -> bool:
        return self.is_ours

    async def _newest(self) -> int:
        if self.is_unknown:
            raise StoreUnavailable("connection refused")
        return self.newest

    async def _judge(self, window: Window) -> Report:
        self.windows.append(window)
        if self.is_away or window.end == self.away_until:
            raise StoreUnavailable("connection refused")
        difference = self.difference if self.only_from is None or window.start == self.only_from else 0
        difference = self.differences.get(window.start, difference)
        faults = [Fault("batch", "acme", "then", "no receipt")] * difference
        return Report(
            window,
            window,
            self.behind,
            receipts_at_fault=difference,
            faults=faults,
            notes=self.notes,
            log_lost_messages=self.log_lost,
        )

    def results(self) -> dict[str, float]:
        names = ("adds_up", "difference", "not_judged", "failed")
        return {name: counted(self.metrics, "infrasage_audits_total", result=name) for name in names}

    def shown(self, name: str) -> float | None:
        """The gauge's value; None: it is not there."""
        name = f"infrasage_audit_{name}"
        there = f"\n{name} " in self.metrics.expose("")[0].decode()
        return counted(self.metrics, name) if there else None


async def test_windows_follow_one_another() -> None:
    """The first judges one interval, each later one goes on where the last judged."""
    world = World()
    assert world.shown("difference") is None, "before the first audit nothing is claimed"
    assert await world.audit.audit_once()
    world.now += HOUR
    assert await world.audit.audit_once()
    first, second = world.windows
    assert Window(world.now - 2 * HOUR - DELAY, world.now - HOUR - DELAY) == first
    assert Window(first.end, world.now - DELAY) == second
    assert 0 == world.shown("difference")
    assert second.end / S == world.shown("timestamp_seconds")


async def test_a_long_time_is_judged_in_pieces() -> None:
    """Each piece is a day. The difference of all is shown, and one that fails is where the next audit begins."""
    world = World()
    assert await world.audit.audit_once()
    begin = world.windows.pop().end
    world.now += 60 * HOUR
    world.difference = 3
    world.only_from = begin
    assert await world.audit.audit_once()
    assert [
        Window(begin, begin + 24 * HOUR),
        Window(begin + 24 * HOUR, begin + 48 * HOUR),
        Window(begin + 48 * HOUR, begin + 60 * HOUR),
    ] == world.windows
    assert 3 == world.shown("difference")
    assert (begin + 60 * HOUR) / S == world.shown("timestamp_seconds")
    world.windows.clear()
    world.now += 30 * HOUR
    world.away_until = begin + 90 * HOUR
    assert not await world.audit.audit_once()
    assert (begin + 84 * HOUR) / S == world.shown("timestamp_seconds")
    world.away_until = None
    assert await world.audit.audit_once()
    assert Window(begin + 84 * HOUR, begin + 90 * HOUR) == world.windows[-1]


async def test_the_first_audit_begins_before_a_stop() -> None:
    """The process before may have stopped just before its next audit, a week ago: the end of its time is judged too."""
    world = World()
    world.newest = world.now - 168 * HOUR
    await world.audit.set_start()
    world.now += DELAY
    assert await world.audit.audit_once()
    assert world.newest - DELAY - HOUR == world.windows[0].start
    assert world.now - DELAY == world.windows[-1].end
    assert all(one.end == next_.start for one, next_ in itertools.pairwise(world.windows))


@pytest.mark.parametrize(("newest", "is_unknown", "intervals"), [(0, False, 1), (2_000_000 * S, False, 1), (5, True, 24)])
async def test_the_first_audit_begins_at_the_latest_one_interval_ago(newest: int, is_unknown: bool, intervals: int) -> None:
    """This holds for an empty store and for a newest time in the future. If the store is away, it is a day ago."""
    world = World()
    world.newest, world.is_unknown = newest, is_unknown
    started = world.now
    await world.audit.set_start()
    world.now += DELAY
    assert await world.audit.audit_once()
    assert 0 <= started - intervals * HOUR - world.windows[0].start <= DELAY + HOUR


async def test_a_clock_that_is_set_back_leaves_nothing_unjudged() -> None:
    """Requests that came since it was have times that were judged before."""
    world = World()
    assert await world.audit.audit_once()
    world.now -= 5 * HOUR
    assert await world.audit.audit_once()
    assert Window(world.now - DELAY - HOUR, world.now - DELAY) == world.windows[-1]


async def test_what_cannot_be_judged_is_judged_later() -> None:
    """Messages that wait, and a store that is away, leave the last judgement in the metrics, and the window to the next."""
    world = World()
    assert await world.audit.audit_once()
    judged_until = world.shown("timestamp_seconds")
    world.now += HOUR
    world.difference, world.behind = 3, 7
    with capture_logs() as logs:
        assert not await world.audit.audit_once()
        world.is_away = True
        assert not await world.audit.audit_once()
    assert ["a scheduled audit failed, and is repeated"] == [entry["event"] for entry in logs]
    assert (0, judged_until) == (world.shown("difference"), world.shown("timestamp_seconds"))
    world.difference, world.behind, world.is_away = 0, 0, False
    world.now += 10 * S
    assert await world.audit.audit_once()
    assert Window(world.windows[0].end, world.now - DELAY) == world.windows[-1]
    assert {"adds_up": 2, "difference": 0, "not_judged": 1, "failed": 1} == world.results()


async def test_a_difference_is_shown_and_logged() -> None:
    """It is logged at level error, with the first faults."""
    world = World()
    world.difference = 6
    with capture_logs() as logs:
        assert await world.audit.audit_once()
    (entry,) = logs
    assert ("error", 6, ["batch no receipt"] * 5) == (entry["log_level"], entry["difference"], entry["faults"])
    assert 6 == world.shown("difference")
    assert {"adds_up": 0, "difference": 1, "not_judged": 0, "failed": 0} == world.results()


async def found_once(difference: int) -> tuple[World, Window]:
    """A world whose first audit found that, and where an hour has gone by in which everything adds up."""
    world = World()
    world.difference = difference
    assert await world.audit.audit_once()
    (window,) = world.windows
    world.differences[window.start] = difference
    world.difference = 0
    world.now += HOUR
    return world, window


async def test_a_difference_stays_until_it_is_explained() -> None:
    """Audits of later requests add up; the time of the difference is judged again with each of them."""
    world, window = await found_once(6)
    for _ in range(3):
        assert await world.audit.audit_once()
        assert (6, window.start / S) == (world.shown("difference"), world.shown("difference_timestamp_seconds"))
        world.now += HOUR
    assert 4 == world.windows.count(window)
    world.differences[window.start] = 2
    assert await world.audit.audit_once()
    assert 2 == world.shown("difference")
    world.differences[window.start] = 0
    world.now += HOUR
    assert await world.audit.audit_once()
    assert (0, None) == (world.shown("difference"), world.shown("difference_timestamp_seconds"))
    assert {"adds_up": 5, "difference": 1, "not_judged": 0, "failed": 0} == world.results()


async def test_a_difference_stays_until_it_is_confirmed() -> None:
    """It stays also in the next process, before its first audit. A confirmation is seen without one, and lasts."""
    world, window = await found_once(6)
    world.start()
    await world.audit.show_findings()
    assert (6, window.start / S) == (world.shown("difference"), world.shown("difference_timestamp_seconds"))
    assert world.shown("timestamp_seconds") is None
    assert await world.audit.audit_once()
    assert 6 == world.shown("difference")
    world.findings.confirm()
    await world.audit.show_findings()
    assert 0 == world.shown("difference")
    world.now += HOUR
    assert await world.audit.audit_once()
    assert 0 == world.shown("difference")


async def test_a_confirmation_before_the_first_audit_of_a_process_is_seen() -> None:
    """A difference of 0 would be a claim, since nothing has been judged."""
    world, _ = await found_once(6)
    world.start()
    await world.audit.show_findings()
    assert 6 == world.shown("difference")
    world.findings.confirm()
    await world.audit.show_findings()
    assert (None, None) == (world.shown("difference"), world.shown("difference_timestamp_seconds"))
    assert await world.audit.audit_once()
    assert 0 == world.shown("difference")


async def test_differences_of_several_times_are_added() -> None:
    world, window = await found_once(6)
    world.difference = 3
    assert await world.audit.audit_once()
    assert (9, window.start / S) == (world.shown("difference"), world.shown("difference_timestamp_seconds"))


async def test_what_was_found_is_not_found_twice() -> None:
    """A new process begins before the end of the one before: what is the time of a finding is judged once."""
    world, window = await found_once(6)
    world.start()
    world.newest = window.end
    await world.audit.set_start()
    world.windows.clear()
    assert await world.audit.audit_once()
    assert [
        window,
        Window(window.start - DELAY, window.start),
        Window(window.end, world.now - DELAY),
    ] == world.windows


async def test_what_was_confirmed_is_not_found_again() -> None:
    """The first audit of a new process judges its time again; only more than was confirmed opens it."""
    world, window = await found_once(6)
    world.findings.confirm()
    for difference, shown in ((6, 0), (2, 0), (7, 7)):
        world.start()
        world.newest = window.end
        await world.audit.set_start()
        world.windows.clear()
        world.differences[window.start] = difference
        assert await world.audit.audit_once()
        assert window in world.windows
        assert not [
            other for other in world.windows if other != window and other.start < window.end and window.start < other.end
        ]
        assert shown == world.shown("difference")
    assert [window] == [Window(finding.start, finding.end) for finding in await world.findings.open()]
    world.findings.confirm()
    world.start()
    world.differences[window.start] = 8
    world.behind = 1
    await world.audit.set_start()
    assert not await world.audit.audit_once()
    assert 1 == world.results()["not_judged"]


async def test_what_is_past_its_retention_explains_nothing() -> None:
    world, window = await found_once(6)
    world.differences[window.start] = 0
    world.notes = ["before then rows may have been dropped by their retention: not judged"]
    assert await world.audit.audit_once()
    assert 6 == world.shown("difference")


async def test_messages_that_the_log_has_lost_are_no_finding() -> None:
    """They are in every audit, until `log confirm`."""
    world = World()
    world.log_lost = 4
    for _ in range(2):
        assert await world.audit.audit_once()
        world.now += HOUR
        assert 4 == world.shown("difference")
    assert world.findings.by_time == {}
    world.log_lost = 0
    assert await world.audit.audit_once()
    assert 0 == world.shown("difference")


async def test_a_finding_that_can_not_be_kept_is_found_again() -> None:
    world = World()
    world.difference = 6
    world.findings.is_away = True
    assert not await world.audit.audit_once()
    world.findings.is_away = False
    assert await world.audit.audit_once()
    assert 6 == world.shown("difference")


async def test_messages_that_wait_do_not_hide_that_all_adds_up() -> None:
    """What is judged is older than what waits: under constant load there are always some."""
    world = World()
    world.behind = 40
    assert await world.audit.audit_once()
    assert 0 == world.shown("difference")


async def test_one_of_several_writers_audits() -> None:
    """The others ask nothing, show nothing, and begin where they have to when it becomes theirs."""
    world = World()
    world.is_ours = False
    assert await world.audit.audit_once()
    assert ([], None) == (world.windows, world.shown("difference"))
    judged_by_another = world.now
    world.now += HOUR
    world.is_ours = True
    assert await world.audit.audit_once()
    assert [Window(judged_by_another - DELAY - HOUR, world.now - DELAY)] == world.windows
    assert 0 == world.shown("difference")


async def test_what_was_found_is_past_where_another_audits() -> None:
    """Its difference would be an alert for as long as the process lives, and its time nobody's."""
    world = World()
    world.difference = 3
    assert await world.audit.audit_once()
    assert 3 == world.shown("difference")
    world.is_ours = False
    assert await world.audit.audit_once()
    assert (None, None) == (world.shown("difference"), world.shown("timestamp_seconds"))


async def test_what_is_open_is_shown_by_the_process_that_audits_only() -> None:
    """It does not wait for the next audit: elsewhere it would outlast its confirmation, and here the alert would end."""
    world, _ = await found_once(6)
    world.is_ours = False
    await world.audit.show_findings()
    assert (None, None) == (world.shown("difference"), world.shown("timestamp_seconds"))
    assert await world.audit.audit_once()
    world.is_ours = True
    await world.audit.show_findings()
    assert 6 == world.shown("difference")
