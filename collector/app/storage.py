"""Opens the broker (Kafka or the local log) and the store (a ClickHouse server or the embedded engine), by the settings."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import structlog

from collector.api.query_client import is_listening
from collector.app.data_dir import LOOK_S, DataDirWait, has_data_dir, is_embedded, locked_data_dir, store_dir
from collector.app.foreign_topics import foreign_names
from collector.app.retention import keys_file_days, retention_of
from collector.app.store_history import StoreHistory
from collector.broker.contract import (
    TOPICS,
    BrokerDown,
    Consumer,
    Producer,
)
from collector.broker.kafka import KafkaConsumer, KafkaOptions, KafkaProducer, KafkaUnavailable, KafkaUnusable
from collector.broker.lazy import LazyBroker
from collector.broker.local_log import LocalLog, LocalLogLimits, LocalLogUnusable
from collector.config.settings import Settings
from collector.config.values import attribute_keys, secret_text
from collector.runtime.disk import Disk, measure
from collector.runtime.errors import CannotRun
from collector.runtime.lockfile import Locked
from collector.runtime.shutdown import GracefulShutdown, running
from collector.store.contract import StoreError, StoreMisconfigured, StoreUnavailable
from collector.store.migrations import SchemaTooNew
from collector.store.options import QueryLimits, RequestedTables, StoreOptions
from collector.telemetry.metrics import Metrics

if TYPE_CHECKING:
    # Imported where it is used: most gateways do not need it, and it takes a tenth of their memory.
    from collector.store.clickhouse import ClickHouseStore

# How long the start waits for Kafka. After that the process continues without Kafka, and connects in the background.
KAFKA_WAIT_S: Final = 5.0
log = structlog.get_logger(__name__)


class Broker(Producer, Consumer, Protocol):
    """A broker with both sides, and its state."""

    @property
    def failure(self) -> str | None:
        """Return why the broker does not accept messages; None if no failure is known."""

    @property
    def unproven(self) -> str | None:
        """Return why the last appends failed; None if an append has succeeded since."""

    async def ping(self) -> None:
        """Check whether a broker that failed works again. Raises BrokerError if it does not."""


class Opened(NamedTuple):
    """A broker, and the task that has to run beside it; None if it needs no task."""

    broker: Broker
    task: asyncio.Task[None] | None = None

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        return [self.task] if self.task is not None else []


class Storage(NamedTuple):
    """The broker, which has the messages, and the store."""

    opened: Opened
    store: "ClickHouseStore"

    @property
    def broker(self) -> Broker:
        return self.opened.broker


class StoppedWaiting(Exception):
    """Raised if the process is asked to stop while it waits for the data directory."""


@asynccontextmanager
async def open_storage(settings: Settings, metrics: Metrics, command: str) -> AsyncIterator[Storage]:
    """Do the same as open_storage_when_free for a command that ends by itself, but raise Locked if the directory is in use."""
    with locked_data_dir(settings, is_needed=has_data_dir(settings), command=command):
        async with _open_in_data_dir(settings, metrics) as storage:
            yield storage


@asynccontextmanager
async def open_storage_when_free(settings: Settings, metrics: Metrics, stopping: GracefulShutdown) -> AsyncIterator[Storage]:
    """Open the broker and the store inside this context, and bring the store's tables up to date. If either is in the data
    directory, lock the directory, and wait for a process that has locked it (DataDirWait). Raises CannotRun, StoppedWaiting."""
    with ExitStack() as stack:
        await _enter_when_free(stack, settings, stopping)
        async with _open_in_data_dir(settings, metrics) as storage:
            yield storage


async def _enter_when_free(stack: ExitStack, settings: Settings, stopping: GracefulShutdown) -> None:
    wait = DataDirWait(settings)
    while True:
        try:
            stack.enter_context(locked_data_dir(settings, is_needed=has_data_dir(settings), command=""))
        except Locked as locked:
            if is_listening(settings.data_dir):
                raise
            wait.check(locked)
        else:
            return
        if stopping.is_asked:
            raise StoppedWaiting
        await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def _open_in_data_dir(settings: Settings, metrics: Metrics) -> AsyncIterator[Storage]:
    has_kafka = bool(settings.kafka.bootstrap)
    async with open_kafka(settings, metrics, reads=True) if has_kafka else _open_local(settings) as opened:
        is_new_store = is_embedded(settings) and not store_dir(settings.data_dir).exists()
        store = await _opened_store(settings)
        if is_embedded(settings):
            await asyncio.to_thread(_report_new_log, opened.broker, store)
        if is_new_store and isinstance(opened.broker, LocalLog):
            await _report_new_store(opened.broker)
        if is_embedded(settings) and isinstance(opened.broker, LocalLog):
            await opened.broker.witness_in_store()
            await asyncio.to_thread(_report_old_store, opened.broker, store_dir(settings.data_dir))
        try:
            yield Storage(opened, store)
        finally:
            await asyncio.to_thread(store.close)


def _report_new_log(broker: Broker, store: "ClickHouseStore") -> None:
    """Warn if the local log was made just now and the embedded store has data: a former log was removed."""
    if not isinstance(broker, LocalLog) or not broker.is_new:
        return
    if store.read("SELECT 1 FROM telemetry_batches LIMIT 1", "TSV"):
        log.warning(
            "the local log is new, but the store beside it has data: messages that the former log still held are not stored;"
            " records that are accepted from now on are",
            log=broker.identity,
        )


async def _report_new_store(broker: LocalLog) -> None:
    """Report if the store was made just now and the local log has stored messages: a former store was removed."""
    stored = sum(position.committed for position in (await broker.positions()).values())
    if stored:
        log.error(
            "the store is new, but the local log beside it has stored messages: the rows of the former store are gone, unless"
            " this log came from elsewhere",
            messages=stored,
            log=broker.identity,
        )


def _report_old_store(broker: LocalLog, directory: Path) -> None:
    """Report messages that the log has stored into another store, until an operator confirms them. Then note this start in the
    store."""
    try:
        history = StoreHistory(directory, broker.starts)
        broker.stored_beside(history.has)
        missed = broker.lacking_in_store(history.lacks())
        history.note()
    except OSError as error:  # such as a full disk: the log has noted this start, so the next start knows of it
        log.warning("cannot note in the store that the local log was started beside it", error=str(error))
        return
    if missed:
        log.error(
            "the store is older than the local log beside it: what the log had stored meanwhile is not in this store, unless"
            " it was put into another one; where a copy was put back, put the newer store in its place; confirm with"
            " `log confirm`",
            messages=missed,
            log=broker.identity,
        )


async def _opened_store(settings: Settings) -> "ClickHouseStore":
    """Open the store, and bring its tables up to date. If a server is unavailable, this is done before the first insert. Raises
    CannotRun."""
    try:
        store = await asyncio.to_thread(open_store, settings)
        try:
            await asyncio.to_thread(store.apply_schema)
        except (SchemaTooNew, StoreMisconfigured):
            raise
        except StoreUnavailable as error:
            if is_embedded(settings):
                raise
            log.warning("ClickHouse is not available yet: waiting for it", error=str(error))
    except StoreError as error:
        raise CannotRun(str(error)) from error
    return store


@asynccontextmanager
async def _open_local(settings: Settings) -> AsyncIterator[Opened]:
    limits = LocalLogLimits(**settings.local_log.model_dump())
    try:
        store = store_dir(settings.data_dir) if is_embedded(settings) else None
        local_log = await LocalLog.open(settings.data_dir / "log", limits, TOPICS, store=store)
    except LocalLogUnusable as error:
        raise CannotRun(str(error)) from error
    async with local_log:
        yield Opened(local_log)


@asynccontextmanager
async def open_kafka(settings: Settings, metrics: Metrics, *, reads: bool) -> AsyncIterator[Opened]:
    """Open Kafka inside this context. If it cannot be reached within KAFKA_WAIT_S, continue, and open it in the background.
    `reads` is whether a consumer is opened too. Raises CannotRun."""
    options = kafka_options(settings)

    async def producer() -> KafkaProducer:
        with kafka_errors():
            return await KafkaProducer.open(options, TOPICS, metrics)

    async def consumer() -> KafkaConsumer:
        with kafka_errors():
            return await KafkaConsumer.open(options, TOPICS, foreign_names(settings))

    broker = LazyBroker(producer, consumer if reads else None)
    try:
        async with running(broker.run(), "kafka") as opening:
            tried = asyncio.create_task(broker.wait_until_tried(KAFKA_WAIT_S))
            await asyncio.wait({tried, opening}, return_when=asyncio.FIRST_COMPLETED)
            tried.cancel()
            if opening.done():
                opening.result()  # raises an error that waiting cannot change
            yield Opened(broker, opening)
    finally:
        await broker.close()


def data_disk(settings: Settings, *, warning: str | None) -> Disk:
    """Return the disk of the data directory and of the store in it, with its reserve. `warning` is as in Disk."""
    limits = settings.local_log
    return Disk(
        settings.data_dir,
        limits.reserve_percent,
        limits.reserve_bytes_min,
        limits.reserve_bytes_max,
        mounts=[store_dir(settings.data_dir)],
        warning=warning,
        measured=measure,
    )


def kafka_options(settings: Settings) -> KafkaOptions:
    """Return the options for Kafka in the settings."""
    kafka = settings.kafka
    return KafkaOptions(
        bootstrap=kafka.bootstrap.split(","),
        security=kafka.security,
        sasl_mechanism=kafka.sasl_mechanism,
        username=kafka.username,
        password=secret_text(kafka.password),
        ca_file=kafka.ca_file,
        cert_file=kafka.cert_file,
        key_file=kafka.key_file,
        client_id=kafka.client_id,
        group_id=kafka.group_id,
        create_topics=kafka.create_topics,
        topic_partitions=kafka.topic_partitions,
        topic_replication=kafka.topic_replication,
        topic_brokers_wait_s=kafka.topic_brokers_wait_s,
        message_bytes_max=settings.message_bytes_largest,
        message_bytes_setting="broker.message_bytes_max"
        if settings.broker.message_bytes_max == settings.message_bytes_largest
        else "validation.item_bytes_max",
        value_bytes_max=settings.http.decompressed_bytes_max,
        compression=kafka.compression,
        requests_in_flight_max=kafka.requests_in_flight_max,
        linger_ms=kafka.linger_ms,
        waiting_bytes_max=kafka.waiting_bytes_max,
        append_timeout_s=kafka.append_timeout_s,
        request_timeout_s=kafka.request_timeout_s,
        answer_timeout_s=kafka.answer_timeout_s,
        metadata_refresh_s=kafka.metadata_refresh_s,
        start_timeout_s=1,  # LazyBroker tries again, and meanwhile its `failure` is the reason
        session_timeout_s=kafka.session_timeout_s,
    )


@contextmanager
def kafka_errors() -> Iterator[None]:
    """Convert errors of Kafka's clients: KafkaUnavailable to BrokerDown, since another attempt may succeed, and KafkaUnusable
    to CannotRun."""
    try:
        yield
    except KafkaUnavailable as error:
        raise BrokerDown(str(error)) from error
    except KafkaUnusable as error:
        raise CannotRun(str(error)) from error


def open_store(settings: Settings) -> "ClickHouseStore":
    """Return the store of the settings: the embedded engine, or a server. Raises StoreError."""
    from collector.store.clickhouse import ClickHouseStore  # noqa: PLC0415  # as above

    if is_embedded(settings):
        return ClickHouseStore.embedded(store_dir(settings.data_dir), _store_options(settings))
    return open_server(settings)


def open_server(settings: Settings) -> "ClickHouseStore":
    """Return the store of the ClickHouse server, without a request to it."""
    from collector.store.clickhouse import ClickHouseStore  # noqa: PLC0415  # as above

    clickhouse = settings.clickhouse
    return ClickHouseStore.server(
        clickhouse.url,
        _store_options(settings),
        user=clickhouse.user,
        password=secret_text(clickhouse.password),
        database=clickhouse.database,
        cluster=clickhouse.cluster,
        ca_file=clickhouse.ca_file,
        verify=clickhouse.verify,
        connect_timeout_s=clickhouse.connect_timeout_s,
        request_timeout_s=clickhouse.request_timeout_s,
        insert_quorum=clickhouse.insert_quorum,
    )


def requested_tables(settings: Settings) -> RequestedTables:
    """Return the properties of tables that the settings request. The keys file is read when the tables are planned."""
    days = keys_file_days(settings)
    return RequestedTables(
        retention=retention_of(settings),
        fsync=settings.store.fsync,
        storage_policy=settings.store.storage_policy,
        materialized_attributes=attribute_keys(settings.schema.materialized_attributes),
        text_indexes=settings.schema.text_indexes,
        rollups=settings.schema.clickstack_rollups,
        sessions=settings.schema.clickstack_sessions,
        days_of_plans=days.by_tenant if days is not None else None,
    )


def _store_options(settings: Settings) -> StoreOptions:
    limits = settings.store
    return StoreOptions(
        tables=requested_tables(settings),
        insert_memory_bytes_max=limits.insert_memory_bytes_max,
        engine_idle_threads_max=limits.engine_idle_threads_max,
        queries=query_limits(settings),
    )


def query_limits(settings: Settings) -> QueryLimits:
    """Return the limits of a query."""
    limits = settings.store
    return QueryLimits(
        time_max_s=limits.query_time_max_s,
        memory_bytes_max=limits.query_memory_bytes_max,
        result_rows_max=limits.query_rows_max,
        result_bytes_max=limits.query_result_bytes_max,
        concurrent_max=settings.query.concurrent_max,
    )
