"""Runs the writer, which moves messages from the broker into the store."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import structlog

from collector.api.query_socket import CaughtUp
from collector.app.data_dir import is_embedded
from collector.app.foreign_topics import foreign_topics_of
from collector.app.storage import Storage, data_disk
from collector.broker.contract import BrokerError
from collector.config.settings import Settings
from collector.runtime.shutdown import WRITER_SHARE, GracefulShutdown
from collector.telemetry.metrics import Metrics
from collector.writer.repetitions import Repetitions
from collector.writer.store_refusals import RefusedRecords
from collector.writer.writer import Writer, WriterLimits

log = structlog.get_logger(__name__)


class Writing(NamedTuple):
    """The writer, and the task that runs it, which ends only with the process."""

    writer: Writer
    task: asyncio.Task[None]


def _writer(settings: Settings, storage: Storage, metrics: Metrics) -> Writer:
    keep = RefusedRecords(storage.broker, settings.message_bytes_largest, time.time_ns).keep
    limits = WriterLimits(**settings.writer.model_dump(exclude={"port"}))
    repetitions = Repetitions(storage.store, settings.repetitions.window_s, settings.repetitions.keys_max, metrics)
    is_disk_low = _is_disk_low(settings)
    return Writer(
        storage.broker,
        storage.store,
        keep,
        limits,
        metrics,
        repetitions=repetitions,
        of_others=foreign_topics_of(settings, storage.broker, metrics),
        is_disk_low=is_disk_low,
    )


def _is_disk_low(settings: Settings) -> Callable[[], bool]:
    """Return a function that returns whether the embedded store's disk is low. A server's operator looks after its disk."""
    if not is_embedded(settings):
        return lambda: False
    return data_disk(settings, warning=None).is_low_now


@asynccontextmanager
async def written(settings: Settings, storage: Storage, metrics: Metrics) -> AsyncIterator[Writer]:
    """Store the broker's messages inside this context."""
    writer = _writer(settings, storage, metrics)
    writing = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        writer.stop()
        await writing


@asynccontextmanager
async def running_writer(
    settings: Settings, storage: Storage, metrics: Metrics, stopping: GracefulShutdown
) -> AsyncIterator[Writing]:
    """Run the writer inside this context. At the end, store the remaining messages of the local log, as far as time permits."""
    writer = _writer(settings, storage, metrics)
    task = asyncio.create_task(writer.run(), name="writer")
    try:
        yield Writing(writer, task)
    finally:
        # Kafka keeps its records for other writers and for the next start, so the stop does not wait for them.
        drains = not settings.kafka.bootstrap
        if drains and not task.done() and not await writer.drained(stopping.left_s(WRITER_SHARE)):
            log.warning("the log is not empty; the next start continues from there")
        writer.stop()
        await asyncio.wait({task})


def caught_up_with(storage: Storage, writer: Writer) -> CaughtUp:
    """Return a function that waits until acknowledged messages are stored, and returns how many are not."""

    async def caught_up(wait_s: float) -> int:
        if await writer.drained(wait_s):
            return 0
        try:
            return max(1, sum((await storage.broker.lag()).values()))
        except BrokerError:
            return 1  # at least: the number is not known

    return caught_up
