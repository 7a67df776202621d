"""Composes the parts that answer SQL queries and requests for dead letters."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from collector.api.query_socket import CaughtUp, QuerySocket
from collector.app.backup import Pause, Snapshots
from collector.app.data_dir import is_embedded
from collector.app.foreign_topics import stored_topics
from collector.app.retention import keys_file_days, limits_of
from collector.app.storage import Storage, kafka_options, open_server
from collector.audit.findings import AuditFindings
from collector.broker.contract import Producer
from collector.broker.kafka import KafkaProgress
from collector.config.settings import Settings
from collector.dead_letters.queries import DeadLetterReports
from collector.dead_letters.replay import DeadLetterReplayer
from collector.dead_letters.service import DeadLetterService
from collector.query.live_records import Answering
from collector.query.reader import Reader
from collector.receivers.routes import PAYLOAD_ADAPTERS
from collector.store.contract import Store
from collector.telemetry.metrics import Metrics


def dead_letter_reports(settings: Settings, store: Store, caught_up: CaughtUp, wait_s: float) -> DeadLetterReports:
    """Return the reports of dead letters in `store`. Each waits at most `wait_s` until acknowledged messages are stored."""
    return DeadLetterReports(Reader(store.read, caught_up, wait_s), settings.dead_letters.retention_days)


@asynccontextmanager
async def reports_of_servers(settings: Settings, wait_s: float) -> AsyncIterator[DeadLetterReports | None]:
    """Yield the reports of the ClickHouse server that separate writers fill; None if no server is configured."""
    if is_embedded(settings):
        yield None
        return
    store = open_server(settings)
    progress = KafkaProgress(kafka_options(settings), stored_topics(settings))
    try:
        yield dead_letter_reports(settings, store, progress.caught_up, wait_s)
    finally:
        await progress.close()
        await asyncio.to_thread(store.close)


def replayer_of(settings: Settings, producer: Producer, reports: DeadLetterReports) -> DeadLetterReplayer:
    """Return the replayer of dead letters. It appends their messages by `producer`."""
    days = keys_file_days(settings)
    return DeadLetterReplayer(
        reports,
        producer.append,
        PAYLOAD_ADAPTERS,
        limits_of(settings, days.of if days is not None else None),
        message_bytes_max=settings.broker.message_bytes_max,
        now_unix_nano=time.time_ns,
    )


@asynccontextmanager
async def open_query_socket(
    settings: Settings, storage: Storage, caught_up: CaughtUp, pause: Pause, metrics: Metrics, live: Answering
) -> AsyncIterator[None]:
    """Open the query socket in the data directory inside this context. `pause` pauses the writer. `live` answers with live
    records."""
    reports = dead_letter_reports(settings, storage.store, caught_up, settings.query.wait_s)
    desk = DeadLetterService(reports, replayer_of(settings, storage.broker, reports))
    snapshots = Snapshots(settings, storage, pause)
    query_socket = QuerySocket(
        settings.data_dir,
        storage.store,
        caught_up,
        settings.query,
        desk,
        metrics,
        live,
        snapshots,
        AuditFindings(storage.store),
    )
    try:
        await snapshots.remove()  # a killed process may have left one, which keeps parts that the store has deleted
        await query_socket.start()
        yield
    finally:
        await query_socket.close()
