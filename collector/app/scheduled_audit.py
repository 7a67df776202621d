"""Audits on a schedule: what the command `audit` finds, as metrics, and a line at error where something does not add up.

Invariants:
1. Windows follow one another: a request is in the window of one judgement, whatever happened between two of them, as far back
   as _INTERVALS_MAX intervals. (test_windows_follow_one_another)
2. A difference while messages still wait to be stored is not judged, and neither is anything while the store or Kafka is away.
   The same window, and what came since, is judged when that is over; until then the time in the metrics stays where it was.
   (test_what_cannot_be_judged_is_judged_later)
3. Of several writers one audits: the one that has the first partition of the metrics' topic.
   (test_one_of_several_writers_audits)
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import structlog

from collector.api.query_socket import CaughtUp
from collector.app.audit import HeldByKafka, judged_from
from collector.app.log_incidents import unconfirmed_messages
from collector.app.storage import Storage, kafka_options
from collector.audit import reconcile as auditing
from collector.audit import report as audit_report
from collector.broker.contract import METRICS_TOPIC, TOPICS, BrokerError, Partition
from collector.broker.kafka import KafkaProgress
from collector.config.process import Audit
from collector.config.settings import Settings
from collector.query.reader import ROWS_FORMAT, rows_of
from collector.runtime.errors import CannotRun
from collector.runtime.shutdown import running
from collector.store.contract import StoreError
from collector.telemetry.metrics import Metrics

_INTERVALS_MAX: Final = 24
_FAULTS_LOGGED_MAX: Final = 5
# The process that owns this partition audits for all.
_AUDITORS_PARTITION: Final = Partition(METRICS_TOPIC, 0)

log = structlog.get_logger(__name__)

# Compares all that arrived in a window. Raises StoreError, BrokerError, CannotRun.
Judge = Callable[[audit_report.Window], Awaitable[audit_report.Report]]


class ScheduledAudit:
    """`run` in a task."""

    def __init__(
        self,
        judge: Judge,
        is_ours: Callable[[], Awaitable[bool]],
        settings: Audit,
        metrics: Metrics,
        now_unix_nano: Callable[[], int] = time.time_ns,
    ) -> None:
        """`is_ours`: whether this process is the one that audits. Raises BrokerError."""
        self._judge: Final = judge
        self._is_ours: Final = is_ours
        self._settings: Final = settings
        self._metrics: Final = metrics
        self._now: Final = now_unix_nano
        self._judged_until = 0

    async def run(self) -> None:
        """Audit at every interval, and sooner after one that could not judge."""
        settings = self._settings
        pause_s = settings.delay_s
        while True:
            await asyncio.sleep(min(pause_s, settings.interval_s))
            pause_s = settings.interval_s if await self.audit_once() else settings.delay_s

    async def audit_once(self) -> bool:
        """Judge what arrived since the last judgement and long enough ago; whether that was possible, or is another's to do."""
        interval_ns = int(self._settings.interval_s * 1e9)
        end = self._now() - int(self._settings.delay_s * 1e9)
        start = max(self._judged_until or end - interval_ns, end - _INTERVALS_MAX * interval_ns)
        began = time.monotonic()
        try:
            if not await self._is_ours():
                self._metrics.forget_audit()
                return True
            report = await self._judge(audit_report.Window(start, end))
        except (StoreError, BrokerError, CannotRun) as error:
            log.warning("a scheduled audit failed, and is repeated", error=str(error))
            self._metrics.audited("failed", time.monotonic() - began)
            return False
        seconds = time.monotonic() - began
        if not report.adds_up and report.messages_behind:
            self._metrics.audited("not_judged", seconds)
            return False
        self._metrics.audited("adds_up" if report.adds_up else "difference", seconds)
        self._metrics.audit_judged(report.difference, end / 1e9)
        self._judged_until = end
        if not report.adds_up:
            log.error(
                "the audit found that something does not add up; `infrasage-collector audit` over the same time lists it",
                difference=report.difference,
                **{"from": audit_report.moment(start)},
                to=audit_report.moment(end),
                faults=[f"{fault.batch_id} {fault.what}" for fault in report.faults[:_FAULTS_LOGGED_MAX]],
            )
        return True


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


async def _judge(
    settings: Settings, storage: Storage, caught_up: CaughtUp, is_ending: threading.Event, window: audit_report.Window
) -> audit_report.Report:
    behind = await (_behind_kafka(settings) if settings.kafka.bootstrap else caught_up(settings.query.wait_s))

    def ask(sql: str) -> list[dict[str, Any]]:
        if is_ending.is_set():
            raise CannotRun("the collector ends")
        return rows_of(storage.store.read(sql, ROWS_FORMAT))

    def compare() -> audit_report.Report:
        broker = HeldByKafka(settings, is_ending.is_set) if settings.kafka.bootstrap else None
        report = auditing.audit(ask, window, broker=broker, judged_from=judged_from(settings, time.time_ns()))
        if not settings.kafka.bootstrap:
            report.log_lost_messages = unconfirmed_messages(settings)
        return report

    report = await asyncio.to_thread(compare)
    report.messages_behind = behind
    return report


async def _behind_kafka(settings: Settings) -> int:
    progress = KafkaProgress(kafka_options(settings), TOPICS)
    try:
        return await progress.caught_up(settings.query.wait_s)
    finally:
        await progress.close()
