"""The command `audit`: reads the broker and the store, and compares what was acknowledged with what is stored."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final
from uuid import UUID

from collector.api.query_client import NotRunning, ask
from collector.app.data_dir import check_there, has_data_dir, offline_or_running
from collector.app.foreign_topics import stored_topics
from collector.app.log_incidents import unconfirmed_messages
from collector.app.retention import shortest_retention
from collector.app.storage import kafka_errors, kafka_options, open_server, open_storage
from collector.app.writer import caught_up_with, written
from collector.audit import reconcile as auditing
from collector.audit import report as audit_report
from collector.audit.broker_tally import BatchTally, Tally
from collector.broker.contract import TELEMETRY_TOPICS, BrokerError
from collector.broker.kafka import Beginnings, History, KafkaProgress
from collector.config.settings import Settings
from collector.ingest.validate import oldest_kept_s
from collector.query.reader import ROWS_FORMAT, rows_of
from collector.runtime.errors import CannotRun
from collector.store.contract import StoreError
from collector.telemetry import logs
from collector.telemetry.metrics import Metrics

# Requests that arrived within this time may still be in flight. If they do not add up, the audit is repeated.
_RECENT_NS: Final = 60 * 10**9
_ATTEMPTS: Final = 4
_PAUSE_S: Final = 1.0
# The largest expected difference between the time of arrival, by a gateway's clock, and the time of the append, by Kafka's.
_SLACK_NS: Final = 120 * 10**9
# The store adds calendar days. One of them has only 23 hours when daylight saving time begins.
_SHORT_DAY_NS: Final = 3600 * 10**9


def audit(settings: Settings, window: audit_report.Window, faults_max: int) -> audit_report.Report:
    """Return a report on whether everything in the window adds up. Requests that may still be in flight get a few seconds to
    be stored. Raises CannotRun."""
    logs.set_up_quietly(settings.logging)
    broker = KafkaTally(settings) if settings.kafka.bootstrap else None
    now = time.time_ns()

    def compare(ask_: auditing.Ask, behind: int) -> audit_report.Report:
        report = auditing.audit(ask_, window, broker=broker, judged_from=judged_from(settings, now), faults_max=faults_max)
        report.messages_behind = behind
        if not settings.kafka.bootstrap:
            report.log_lost_messages = unconfirmed_messages(settings)
        return report

    for attempt in range(1, _ATTEMPTS + 1):
        report, offline = _audit_once(settings, compare)
        settled = offline or report.adds_up or report.messages_behind or window.end < now - _RECENT_NS
        if settled or attempt == _ATTEMPTS:
            return report
        time.sleep(_PAUSE_S)
    raise AssertionError


def _audit_once(
    settings: Settings, compare: Callable[[auditing.Ask, int], audit_report.Report]
) -> tuple[audit_report.Report, bool]:
    """Audit once. Return the report, and whether nothing can be in flight, since no collector runs and no Kafka is used.
    Raises CannotRun."""
    try:
        if not has_data_dir(settings):
            behind = asyncio.run(_behind(settings))
            with contextlib.closing(open_server(settings)) as store:
                return compare(partial(_rows, store.read), behind), False

        def running() -> tuple[audit_report.Report, bool]:
            behind = ask(settings.data_dir, "SELECT 1", ROWS_FORMAT).messages_behind
            answers = partial(_rows, lambda sql, format_: ask(settings.data_dir, sql, format_, now=True).body)
            return compare(answers, behind), False

        def offline() -> tuple[audit_report.Report, bool]:
            return asyncio.run(_audit_offline(settings, compare)), not settings.kafka.bootstrap

        with contextlib.suppress(NotRunning):
            return running()
        return offline_or_running(settings, offline, running)
    except (StoreError, BrokerError) as error:
        raise CannotRun(str(error)) from error


async def _audit_offline(
    settings: Settings, compare: Callable[[auditing.Ask, int], audit_report.Report]
) -> audit_report.Report:
    check_there(settings.data_dir, str(settings.data_dir))
    metrics = Metrics()
    async with open_storage(settings, metrics, "audit") as storage:
        async with written(settings, storage, metrics) as writer:
            behind = await caught_up_with(storage, writer)(settings.query.wait_s)
        return await asyncio.to_thread(compare, partial(_rows, storage.store.read), behind)


async def _behind(settings: Settings) -> int:
    progress = KafkaProgress(kafka_options(settings), stored_topics(settings))
    try:
        return await progress.caught_up(settings.query.wait_s)
    finally:
        await progress.close()


def _rows(query: Callable[[str, str], bytes], sql: str) -> list[dict[str, Any]]:
    return rows_of(query(sql, ROWS_FORMAT))


def judged_from(settings: Settings, now: int) -> int:
    """Return the earliest arrival time, in nanoseconds since 1970, whose requests can be judged.

    Of a request that arrived earlier, items, receipts or dead letters may have been removed after their retention."""
    day_ns = 86_400 * 10**9
    bounds = [0]
    shortest = shortest_retention(settings)
    if shortest is not None:
        # An item older than this is rejected, whatever the settings of validation allow.
        past_max_s = min(_past_max_s(settings), oldest_kept_s(shortest))
        bounds.append(now - shortest * day_ns + past_max_s * 10**9 + _SHORT_DAY_NS)
    if settings.dead_letters.retention_days is not None:
        bounds.append(now - settings.dead_letters.retention_days * day_ns)
    return max(bounds)


def _past_max_s(settings: Settings) -> int:
    """Return the largest age in seconds that the settings allow for an item at its arrival. The age decides its day in the
    store."""
    validation = settings.validation
    of_plans = [plan.past_max_s for plan in settings.plans.values() if plan.past_max_s is not None]
    return max(
        validation.past_max_s,
        validation.own_time_past_max_s,
        validation.otlp_metrics_past_max_s,
        validation.otlp_logs_past_max_s,
        validation.otlp_traces_past_max_s,
        validation.remote_write_past_max_s,
        *of_plans,
    )


class KafkaTally:
    """Reads for an audit what Kafka holds. Every call reads Kafka again."""

    def __init__(self, settings: Settings, is_ending: Callable[[], bool] = lambda: False) -> None:
        """`is_ending` returns whether the result is no longer needed. Reading then ends with CannotRun."""
        self._options: Final = kafka_options(settings)
        self._is_ending: Final = is_ending

    def tally(self, window: audit_report.Window, batches: Collection[UUID]) -> audit_report.BrokerSums:
        """Return the sums of Kafka's messages in the window, and which of `batches` lack their receipt. Raises CannotRun,
        BrokerDown."""
        tally = Tally(window, batches)
        return tally.sums(*asyncio.run(self._read(window, tally.add)))

    def batches(self, window: audit_report.Window) -> Mapping[UUID, Mapping[str, int]]:
        """Return the number of items of each batch in the window, by batch id and topic. Raises CannotRun, BrokerDown."""
        tally = BatchTally(window)
        asyncio.run(self._read(window, tally.add))
        return tally.batches

    async def _read(self, window: audit_report.Window, add: Callable[[str, bytes], None]) -> Beginnings:
        """Call `add` with the topic and payload of each message of the window. Return since when Kafka holds messages. Raises
        CannotRun, BrokerDown."""
        with kafka_errors():
            async with await History.open(self._options, TELEMETRY_TOPICS) as history:
                beginnings = await history.beginnings()
                async for message in history.read(window.start - _SLACK_NS, window.end + _SLACK_NS):
                    if self._is_ending():
                        raise CannotRun("the collector ends")
                    add(message.topic, message.payload)
        return beginnings
