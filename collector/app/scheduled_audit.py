"""Audits on a schedule: what the command `audit` finds, as metrics, and a line at error where something does not add up.

Invariants:
1. Windows follow one another: a request is in the window of a judgement, whatever happened between two of them. A long time is
   judged in pieces. (test_windows_follow_one_another, test_a_long_time_is_judged_in_pieces)
2. A difference while messages still wait to be stored is not judged, and neither is anything while the store or Kafka is away.
   The same window, and what came since, is judged when that is over; until then the time in the metrics stays where it was.
   (test_what_cannot_be_judged_is_judged_later)
3. Of several writers one audits: the one that has the first partition of the metrics' topic. When another takes over, it begins
   where the one before may have stopped. (test_one_of_several_writers_audits)
4. The first audit begins where the process before may have stopped, by the newest receipt that it stored, however long ago
   that was. (test_the_first_audit_begins_before_a_stop)
5. A difference stays in the metrics, of the next process too, until an operator confirms it, or a later audit of the same time
   adds up; time that may not be judged any more explains nothing. (test_a_difference_stays_until_it_is_explained,
   test_a_difference_stays_until_it_is_confirmed, test_what_is_past_its_retention_explains_nothing)
6. What was confirmed is not found again where its time is judged again (test_what_was_confirmed_is_not_found_again).
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol

import structlog

from collector.api.query_socket import CaughtUp
from collector.app.audit import HeldByKafka, judged_from
from collector.app.foreign_topics import stored_topics
from collector.app.log_incidents import unconfirmed_messages
from collector.app.storage import Storage, kafka_options
from collector.audit import reconcile as auditing
from collector.audit.findings import EXPLAINED, OPEN, AuditFinding, AuditFindings
from collector.audit.report import Report, Window, moment, whole_number
from collector.broker.contract import METRICS_TOPIC, BrokerError, Partition
from collector.broker.kafka import KafkaProgress
from collector.config.process import Audit
from collector.config.settings import Settings
from collector.query.reader import ROWS_FORMAT, rows_of
from collector.runtime.errors import CannotRun
from collector.runtime.shutdown import running
from collector.store.contract import StoreError
from collector.telemetry.metrics import Metrics

# What is judged at once: so many intervals, or a day where that is longer.
_INTERVALS_AT_ONCE: Final = 24
_DAY_NS: Final = 86_400 * 10**9
_FAULTS_LOGGED_MAX: Final = 5
# Findings that one audit judges again: the newest.
_JUDGED_AGAIN_MAX: Final = 24
# From one look at who audits, and at whether findings were confirmed, to the next.
_LOOK_S: Final = 10.0
# The process that owns this partition audits for all.
_AUDITORS_PARTITION: Final = Partition(METRICS_TOPIC, 0)

log = structlog.get_logger(__name__)


class Findings(Protocol):
    """collector/audit/findings.py, for the event loop. Every method raises StoreError."""

    async def open(self) -> list[AuditFinding]:
        """Return those that are neither confirmed nor explained, the oldest first."""

    async def confirmed(self, since: int) -> list[AuditFinding]:
        """Return those that are confirmed and end after `since`, nanoseconds, the oldest first."""

    async def put(self, finding: AuditFinding) -> None:
        """Keep a finding as it is from now on."""


class _FindingsInThreads:
    """Those of a store."""

    def __init__(self, findings: AuditFindings) -> None:
        self._findings: Final = findings

    async def open(self) -> list[AuditFinding]:
        return await asyncio.to_thread(self._findings.open)

    async def confirmed(self, since: int) -> list[AuditFinding]:
        return await asyncio.to_thread(self._findings.confirmed, since)

    async def put(self, finding: AuditFinding) -> None:
        await asyncio.to_thread(self._findings.put, finding)


# Compares all that arrived in a window. Raises StoreError, BrokerError, CannotRun.
Judge = Callable[[Window], Awaitable[Report]]

_NEWEST_RECEIPT: Final = "SELECT toUnixTimestamp64Nano(max(ReceivedAt)) AS at FROM telemetry_batches"


class ScheduledAudit:
    """`run` in a task."""

    def __init__(
        self,
        judge: Judge,
        is_ours: Callable[[], Awaitable[bool]],
        newest_receipt: Callable[[], Awaitable[int]],
        findings: Findings,
        settings: Audit,
        metrics: Metrics,
        now_unix_nano: Callable[[], int] = time.time_ns,
    ) -> None:
        """`is_ours`: whether this process is the one that audits. Raises BrokerError. `newest_receipt`: when the newest request
        arrived whose receipt is stored, nanoseconds; 0: there is none. Raises StoreError. `findings`: of all audits."""
        self._judge: Final = judge
        self._is_ours: Final = is_ours
        self._newest_receipt: Final = newest_receipt
        self._findings: Final = findings
        self._settings: Final = settings
        self._metrics: Final = metrics
        self._now: Final = now_unix_nano
        self._interval_ns: Final = int(settings.interval_s * 1e9)
        self._delay_ns: Final = int(settings.delay_s * 1e9)
        # Nanoseconds. 0: nothing is known of audits before.
        self._judged_until = 0
        self._has_judged = False
        # Messages that the log has lost are in each audit until `log confirm`, whatever the time, and are no finding.
        self._log_lost = 0
        # Whether findings may change while nothing is audited: some are open, or this process has not looked yet.
        self._looks_on = True

    async def run(self) -> None:
        """Audit at every interval, and sooner after one that could not judge."""
        settings = self._settings
        await self.look_back()
        pause_s = settings.delay_s
        while True:
            await self._pause(min(pause_s, settings.interval_s))
            pause_s = settings.interval_s if await self.audit_once() else settings.delay_s

    async def _pause(self, seconds: float) -> None:
        """Meanwhile, show when somebody confirms what was found."""
        end_s = time.monotonic() + seconds
        while (rest_s := end_s - time.monotonic()) > 0:
            await self.show_findings()
            await asyncio.sleep(min(rest_s, _LOOK_S))

    async def show_findings(self) -> None:
        """Show what is open, which an audit before, or another process, may have found; where another audits now, nothing."""
        try:
            if not await self._is_ours():
                self._forget()
            elif self._looks_on:
                self._show(await self._findings.open())
        except (StoreError, BrokerError):
            return

    def _show(self, found: Sequence[AuditFinding]) -> None:
        self._looks_on = bool(found)
        if found or self._has_judged:
            difference = sum(finding.difference for finding in found) + self._log_lost
            self._metrics.audit_found(difference, min((finding.start for finding in found), default=0) / 1e9)
        else:
            self._metrics.forget_audit()  # before the first audit a difference of 0 would be a claim

    def _forget(self) -> None:
        """Another process audits. What is open is shown here once that is over."""
        self._metrics.forget_audit()
        self._has_judged, self._looks_on = False, True

    async def look_back(self) -> None:
        """Find where to begin, before this process stores anything of its own.

        The process before, if there was one, judged all that arrived earlier than one interval and the delay before its end.
        """
        now = self._now()
        try:
            newest = await self._newest_receipt()
        except StoreError:
            newest = now - _INTERVALS_AT_ONCE * self._interval_ns
        if newest:
            self._judged_until = min(newest, now) - self._delay_ns - self._interval_ns

    async def audit_once(self) -> bool:
        """Judge what arrived since the last judgement and long enough ago; whether that was possible, or is another's to do.

        What was found before, and is not confirmed, is judged again."""
        end = self._now() - self._delay_ns
        # Not later, though it has been judged, where the clock was set back: requests that came since have such times again.
        start = min(self._judged_until or end, end - self._interval_ns)
        began = time.monotonic()
        try:
            if not await self._is_ours():
                return self._leave_to_another(end)
            at_once = max(_INTERVALS_AT_ONCE * self._interval_ns, _DAY_NS)
            found = await self._judge_again()
            confirmed = await self._judge_confirmed(start)
            if confirmed is None:
                self._metrics.audited("not_judged", time.monotonic() - began)
                return False
            # Their times have been judged just now, and are not found twice.
            for window in _windows(start, end, sorted([*found, *confirmed]), at_once):
                began = time.monotonic()
                if not await self._is_ours():
                    return self._leave_to_another(end)
                report = await self._judge(window)
                seconds = time.monotonic() - began
                if not report.adds_up and report.messages_behind:
                    self._metrics.audited("not_judged", seconds)
                    return False
                await self._keep(report, window)
                self._metrics.audited("adds_up" if report.adds_up else "difference", seconds)
                self._judged_until = window.end
            self._judged_until = end
            self._has_judged = True
            self._show(await self._findings.open())
            self._metrics.audit_judged(end / 1e9)
        except (StoreError, BrokerError, CannotRun) as error:
            log.warning("a scheduled audit failed, and is repeated", error=str(error))
            self._metrics.audited("failed", time.monotonic() - began)
            return False
        return True

    def _leave_to_another(self, end: int) -> bool:
        """Another has judged until then, or will. It may end before its next audit."""
        self._forget()
        self._judged_until = end - self._interval_ns
        return True

    async def _keep(self, report: Report, window: Window) -> None:
        """Keep and show what was found. Raises StoreError."""
        if found := _own_difference(report):
            await self._findings.put(AuditFinding(window.start, window.end, found))
        self._has_judged, self._log_lost = True, report.log_lost_messages
        self._show(await self._findings.open())
        self._metrics.audit_judged(window.end / 1e9)
        if not report.adds_up:
            _log_difference(report, window)

    async def _judge_again(self) -> Sequence[AuditFinding]:
        """Judge the times of what is open; return it. Raises StoreError, BrokerError, CannotRun."""
        found = await self._findings.open()
        for finding in found[-_JUDGED_AGAIN_MAX:]:
            report = await self._judge(Window(finding.start, finding.end))
            difference = _own_difference(report)
            if difference == finding.difference or (difference and report.messages_behind):
                continue
            if not difference and report.notes:
                continue  # not all of it could be judged
            if finding not in await self._findings.open():
                continue  # somebody has confirmed it meanwhile
            if not difference:
                log.info("what an audit found adds up now", **{"from": moment(finding.start)}, to=moment(finding.end))
            await self._findings.put(
                finding._replace(difference=difference) if difference else finding._replace(state=EXPLAINED)
            )
        return found

    async def _judge_confirmed(self, since: int) -> Sequence[AuditFinding] | None:
        """Judge the times of what was confirmed and is to be audited again, as by the first audit of a process; return it. More
        than was confirmed opens it again. None: it can't be judged now. Raises StoreError, BrokerError, CannotRun."""
        found = await self._findings.confirmed(since)
        for finding in found:
            report = await self._judge(Window(finding.start, finding.end))
            difference = _own_difference(report)
            if difference <= finding.difference:
                continue
            if report.messages_behind:
                return None
            await self._findings.put(finding._replace(difference=difference, state=OPEN, actor=""))
            _log_difference(report, Window(finding.start, finding.end))
        return found


def _windows(start: int, end: int, besides: Sequence[AuditFinding], ns_max: int) -> Iterator[Window]:
    """What is between the two and in none of these, which are sorted, in pieces of `ns_max` at most."""
    for finding in (*besides, AuditFinding(end, end, 0)):
        until = min(finding.start, end)
        while start < until:
            piece = Window(start, min(until, start + ns_max))
            yield piece
            start = piece.end
        start = max(start, finding.end)


def _own_difference(report: Report) -> int:
    """What is of the window alone."""
    return report.difference - report.log_lost_messages


def _log_difference(report: Report, window: Window) -> None:
    log.error(
        "the audit found that something does not add up; `infrasage-collector audit` over the same time lists it",
        difference=report.difference,
        **{"from": moment(window.start)},
        to=moment(window.end),
        faults=[f"{fault.batch_id} {fault.what}" for fault in report.faults[:_FAULTS_LOGGED_MAX]],
    )


@asynccontextmanager
async def auditing_on_schedule(
    settings: Settings, storage: Storage, metrics: Metrics, caught_up: CaughtUp
) -> AsyncIterator[None]:
    """Meanwhile, unless audit.interval_s is 0. `caught_up`: with the local log; Kafka is asked about all writers."""
    if not settings.audit.interval_s:
        yield
        return
    metrics.audits_scheduled()
    is_ending = threading.Event()
    audit = ScheduledAudit(
        partial(_judge, settings, storage, caught_up, is_ending),
        partial(_is_ours, settings, storage),
        partial(_newest_receipt, storage),
        _FindingsInThreads(AuditFindings(storage.store)),
        settings.audit,
        metrics,
    )
    async with running(audit.run(), "audit"):
        try:
            yield
        finally:
            is_ending.set()  # the thread of an audit can't be cancelled


async def _is_ours(settings: Settings, storage: Storage) -> bool:
    return not settings.kafka.bootstrap or _AUDITORS_PARTITION in await storage.broker.progress()


async def _newest_receipt(storage: Storage) -> int:
    rows = rows_of(await asyncio.to_thread(storage.store.read, _NEWEST_RECEIPT, ROWS_FORMAT))
    return whole_number(rows[0]["at"])


async def _judge(
    settings: Settings, storage: Storage, caught_up: CaughtUp, is_ending: threading.Event, window: Window
) -> Report:
    behind = await (_behind_kafka(settings) if settings.kafka.bootstrap else caught_up(settings.query.wait_s))

    def ask(sql: str) -> list[dict[str, Any]]:
        if is_ending.is_set():
            raise CannotRun("the collector ends")
        return rows_of(storage.store.read(sql, ROWS_FORMAT))

    def compare() -> Report:
        broker = HeldByKafka(settings, is_ending.is_set) if settings.kafka.bootstrap else None
        report = auditing.audit(ask, window, broker=broker, judged_from=judged_from(settings, time.time_ns()))
        if not settings.kafka.bootstrap:
            report.log_lost_messages = unconfirmed_messages(settings)
        return report

    report = await asyncio.to_thread(compare)
    report.messages_behind = behind
    return report


async def _behind_kafka(settings: Settings) -> int:
    progress = KafkaProgress(kafka_options(settings), stored_topics(settings))
    try:
        return await progress.caught_up(settings.query.wait_s)
    finally:
        await progress.close()
