"""Audits on a schedule. The result of each audit is in metrics; a difference is also logged at level error.

Invariants:
1. Windows follow one another without gaps, so each request is in the window of some audit, also if audits failed between. A
   long time is judged in several windows. (test_windows_follow_one_another, test_a_long_time_is_judged_in_pieces)
2. A difference is not judged while messages still wait to be stored. Nothing is judged while the store or Kafka does not
   answer. A later audit judges the same window together with the time since. Until then the time in the metrics does not
   change. (test_what_cannot_be_judged_is_judged_later)
3. Of several writers only the owner of the first partition of the metrics' topic audits. When another writer takes over, it
   begins where the earlier one may have stopped. (test_one_of_several_writers_audits)
4. The first audit begins where the earlier process may have stopped. The time of its newest stored receipt shows this, however
   long ago it is. If the store cannot be read, the first audit begins 24 intervals before the start.
   (test_the_first_audit_begins_before_a_stop)
5. A difference stays in the metrics, also of the next process, until an operator confirms it or a later audit of the same time
   adds up. An audit that cannot judge all of that time does not remove it. (test_a_difference_stays_until_it_is_explained,
   test_a_difference_stays_until_it_is_confirmed, test_what_is_past_its_retention_explains_nothing)
6. If the time of a confirmed finding is judged again, the same difference is not reported again
   (test_what_was_confirmed_is_not_found_again).
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
from collector.app.audit import KafkaTally, judged_from
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

# The longest window: 24 intervals, or one day if that is longer.
_INTERVALS_AT_ONCE: Final = 24
_DAY_NS: Final = 86_400 * 10**9
_FAULTS_LOGGED_MAX: Final = 5
# How many open findings one audit judges again. It chooses the newest.
_JUDGED_AGAIN_MAX: Final = 24
# The time between two checks of which process audits, and of which findings are confirmed.
_LOOK_S: Final = 10.0
# The process that owns this partition audits for all processes.
_AUDITORS_PARTITION: Final = Partition(METRICS_TOPIC, 0)

log = structlog.get_logger(__name__)


class Findings(Protocol):
    """The methods of AuditFindings (collector/audit/findings.py) for the event loop. Every method raises StoreError."""

    async def open(self) -> list[AuditFinding]:
        """Return the findings that are neither confirmed nor explained, the oldest first."""

    async def confirmed(self, since: int) -> list[AuditFinding]:
        """Return the confirmed findings that end after `since`, in nanoseconds since 1970, the oldest first."""

    async def put(self, finding: AuditFinding) -> None:
        """Store a finding, or the new state of one."""


class _FindingsInThreads:
    """Runs the methods of AuditFindings in threads."""

    def __init__(self, findings: AuditFindings) -> None:
        self._findings: Final = findings

    async def open(self) -> list[AuditFinding]:
        return await asyncio.to_thread(self._findings.open)

    async def confirmed(self, since: int) -> list[AuditFinding]:
        return await asyncio.to_thread(self._findings.confirmed, since)

    async def put(self, finding: AuditFinding) -> None:
        await asyncio.to_thread(self._findings.put, finding)


# Compares everything that arrived in a window, and returns the report. Raises StoreError, BrokerError, CannotRun.
Judge = Callable[[Window], Awaitable[Report]]

_NEWEST_RECEIPT: Final = "SELECT toUnixTimestamp64Nano(max(ReceivedAt)) AS at FROM telemetry_batches"


class ScheduledAudit:
    """Audits at intervals while `run` runs in a task."""

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
        """`judge` audits one window. `findings` has the findings of all audits.

        `is_ours` returns whether this process is the one that audits. It raises BrokerError.
        `newest_receipt` returns the arrival time of the newest stored receipt, in nanoseconds since 1970, or 0 if the store has
        no receipt. It raises StoreError.
        `now_unix_nano` returns the time in nanoseconds since 1970."""
        self._judge: Final = judge
        self._is_ours: Final = is_ours
        self._newest_receipt: Final = newest_receipt
        self._findings: Final = findings
        self._settings: Final = settings
        self._metrics: Final = metrics
        self._now: Final = now_unix_nano
        self._interval_ns: Final = int(settings.interval_s * 1e9)
        self._delay_ns: Final = int(settings.delay_s * 1e9)
        # In nanoseconds since 1970. 0: no earlier audit is known.
        self._judged_until = 0
        self._has_judged = False
        # Each audit counts the messages that the log has lost until `log confirm`, whatever its window. They are no finding.
        self._log_lost = 0
        # Whether findings may change between audits: some are open, or this process has not read them yet.
        self._looks_on = True

    async def run(self) -> None:
        """Audit at every interval. If an audit could not judge, repeat it after audit.delay_s. Does not return."""
        settings = self._settings
        await self.set_start()
        pause_s = settings.delay_s
        while True:
            await self._pause(min(pause_s, settings.interval_s))
            pause_s = settings.interval_s if await self.audit_once() else settings.delay_s

    async def _pause(self, seconds: float) -> None:
        """Wait, and update the metrics meanwhile if an operator confirms findings."""
        end_s = time.monotonic() + seconds
        while (rest_s := end_s - time.monotonic()) > 0:
            await self.show_findings()
            await asyncio.sleep(min(rest_s, _LOOK_S))

    async def show_findings(self) -> None:
        """Update the metrics of open findings, also of findings of earlier processes. Show none if another process
        audits."""
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
            self._metrics.forget_audit()  # before the first audit nobody knows that the difference is 0

    def _forget(self) -> None:
        """Remove the audit from the metrics, since another process audits. If this process audits again, it shows open findings
        again."""
        self._metrics.forget_audit()
        self._has_judged, self._looks_on = False, True

    async def set_start(self) -> None:
        """Set the time from which the first audit judges. This is called before this process stores anything.

        An earlier process has judged all requests except those of the last interval and delay before its end."""
        now = self._now()
        try:
            newest = await self._newest_receipt()
        except StoreError:
            newest = now - _INTERVALS_AT_ONCE * self._interval_ns
        if newest:
            self._judged_until = min(newest, now) - self._delay_ns - self._interval_ns

    async def audit_once(self) -> bool:
        """Audit the time from the last audit to audit.delay_s ago, and the times of open findings again.

        Return False if the audit could not judge, so that it has to be repeated. Return True if it has judged, or if another
        process audits."""
        end = self._now() - self._delay_ns
        # At least one interval is judged, even if it was judged before. If the clock was set back, new requests have these
        # times.
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
            # The times of these findings are left out, so that no difference is reported twice.
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
        """Leave the audit up to `end` to another process. Return True. If that process ends before its next audit, this one
        begins one interval before `end`."""
        self._forget()
        self._judged_until = end - self._interval_ns
        return True

    async def _keep(self, report: Report, window: Window) -> None:
        """Store a finding if the report has a difference, and update the metrics and the log. Raises StoreError."""
        if found := _own_difference(report):
            await self._findings.put(AuditFinding(window.start, window.end, found))
        self._has_judged, self._log_lost = True, report.log_lost_messages
        self._show(await self._findings.open())
        self._metrics.audit_judged(window.end / 1e9)
        if not report.adds_up:
            _log_difference(report, window)

    async def _judge_again(self) -> Sequence[AuditFinding]:
        """Judge the times of the newest open findings again, and update these findings. Return all findings that were open.
        Raises StoreError, BrokerError, CannotRun."""
        found = await self._findings.open()
        for finding in found[-_JUDGED_AGAIN_MAX:]:
            report = await self._judge(Window(finding.start, finding.end))
            difference = _own_difference(report)
            if difference == finding.difference or (difference and report.messages_behind):
                continue
            if not difference and report.notes:
                continue  # a part of the time could not be judged
            if finding not in await self._findings.open():
                continue  # an operator has confirmed it meanwhile
            if not difference:
                log.info("an audit's finding is explained", **{"from": moment(finding.start)}, to=moment(finding.end))
            await self._findings.put(
                finding._replace(difference=difference) if difference else finding._replace(state=EXPLAINED)
            )
        return found

    async def _judge_confirmed(self, since: int) -> Sequence[AuditFinding] | None:
        """Judge again the times of confirmed findings that end after `since`, and return these findings. The first audit of a
        process has such findings. A difference larger than the confirmed one opens a finding again. Return None if one of them
        cannot be judged now. Raises StoreError, BrokerError, CannotRun."""
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
    """Yield the windows from `start` to `end` that no finding of `besides` covers, each at most `ns_max` nanoseconds long.
    `besides` must be sorted by time."""
    for finding in (*besides, AuditFinding(end, end, 0)):
        until = min(finding.start, end)
        while start < until:
            piece = Window(start, min(until, start + ns_max))
            yield piece
            start = piece.end
        start = max(start, finding.end)


def _own_difference(report: Report) -> int:
    """Return the difference of the window itself, without the messages that the log has lost at any time."""
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
    """Audit on a schedule inside this context, unless audit.interval_s is 0. `caught_up` is used with the local log; with
    Kafka, the lag of all writers is read from Kafka."""
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
            is_ending.set()  # the thread of an audit cannot be cancelled


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
        broker = KafkaTally(settings, is_ending.is_set) if settings.kafka.bootstrap else None
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
