"""The composition root: the only file that names the parts that can be swapped, and the order in which they start and end.

The law: receivers start last and stop first, so that nothing is accepted that could not be kept; and if a part ends that should
not, the process ends, with an error, rather than go on without it. All that was acknowledged is in the broker by then: whatever
happens to the process, the next start takes it from there.

Three commands are made of the same parts: `serve` of all, `gateway` of the receivers and the broker, `writer` of the broker and
the store. The broker is Kafka or the local log, the store a ClickHouse server or the embedded engine, as the settings say.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

import structlog
import uvloop
from pydantic import SecretStr

from collector import logs
from collector.broker.contract import (
    DEAD_LETTERS_TOPIC,
    LOGS_TOPIC,
    METRICS_TOPIC,
    TRACES_TOPIC,
    BrokerDown,
    BrokerError,
    Consumer,
    Producer,
)
from collector.broker.kafka import History, KafkaAway, KafkaConsumer, KafkaOptions, KafkaProducer, KafkaProgress, KafkaUnusable
from collector.broker.late import LateBroker
from collector.broker.local import LocalLog, LocalLogLimits, LocalLogUnusable
from collector.combined import Snapshot
from collector.config import Settings
from collector.dead_letters import Caps, DeadLetters
from collector.errors import CannotRun
from collector.lifetime import RECEIVERS_SHARE, WRITER_SHARE, Stopping
from collector.limit.contract import Limiter
from collector.limit.local import LocalLimiter
from collector.listening import announcement, check_port, ports, writer_announcement
from collector.lock import DataDirLock, Locked
from collector.memory import keep_memory
from collector.metrics import Metrics
from collector.pipeline import Pipeline
from collector.produce import InFlight, Produce
from collector.query import SOCKET, Answer, CaughtUp, NotRunning, QueryFailed, QuerySocket, ask, ask_dead_letters
from collector.receipts import Receipts
from collector.receive.grpc.server import GrpcServer
from collector.receive.health import writer_pages
from collector.receive.http import HttpApplication
from collector.receive.native import PAGE_PATHS, pages
from collector.receive.reading import reading
from collector.receive.responses import explain
from collector.receive.routes import GRPC_SERVICES, PAYLOAD_ADAPTERS, http_routes
from collector.receive.servers import HttpServer
from collector.receive.tls import Certificates
from collector.refused import RefusedRecords
from collector.reports import audit as auditing
from collector.reports.batches import BatchReports, RecentBatches
from collector.reports.dead_letters import DeadLetterReports
from collector.reports.desk import Desk, Wrong
from collector.reports.held import BatchTally, Tally
from collector.reports.mending import Mending
from collector.reports.reader import ROWS_FORMAT, Reader, rows_of
from collector.standing import Standing
from collector.store.contract import StoreError, StoreMisconfigured, StoreUnavailable
from collector.store.migrations import SchemaTooNew, schema_sql
from collector.tenancy import keys
from collector.tenancy.access import Access
from collector.tenancy.callers import Caller
from collector.tenancy.keyring import Keyring
from collector.tenancy.scopes import Scope
from collector.validate import Limits
from collector.version import VERSION, is_compiled
from collector.workers import Job, Link
from collector.write import Writer, WriterLimits

if TYPE_CHECKING:
    # Imported where they are used, which most gateways don't: a tenth of their memory.
    from collector.limit.redis import RedisLimiter
    from collector.store.clickhouse import ClickHouseStore, StoreOptions

TOPICS: Final = (METRICS_TOPIC, LOGS_TOPIC, TRACES_TOPIC, DEAD_LETTERS_TOPIC)

# How long a collector that holds the data directory may take to open its query socket: it is starting.
STARTING_MAX_S: Final = 10.0
# What arrived so short a time ago may be under way still, and is looked at again, so often and after such a pause.
AUDIT_RECENT_NS: Final = 60 * 10**9
AUDIT_ATTEMPTS: Final = 4
AUDIT_PAUSE_S: Final = 1.0
# How far the clocks of gateways and Kafka, and arrival and append, may be apart.
AUDIT_SLACK_NS: Final = 120 * 10**9
# How long the start waits for Kafka; then it goes on, and Kafka is waited for in the background.
KAFKA_WAIT_S: Final = 5.0

Say = Callable[[str], None]
T = TypeVar("T")

log = structlog.get_logger(__name__)


# The commands.


def serve(settings: Settings, say: Say) -> int:
    """Run until SIGTERM or SIGINT; the exit status. `say` is given what to print once it is ready. Raises CannotRun."""
    return _run(settings, lambda: _serve(settings, say))


def gateway(settings: Settings, say: Say) -> int:
    """As `serve`, but nothing is stored here: writers do that."""
    began_s = time.monotonic()
    for key, port in ports(settings).items():
        check_port(key, settings.host, port)
    return _run(settings, lambda: _gateway(settings, began_s, say))


def work(job: Job, connection: socket.socket) -> int:
    """`gateway` as one of several processes (collector/workers.py). What keeps it from running is logged, and status 1."""
    structlog.contextvars.bind_contextvars(worker=job.worker)
    try:
        return _run(job.settings, lambda: _work(job, connection))
    except CannotRun as error:
        log.critical("cannot run", error=str(error))
        return 1


def writer(settings: Settings, say: Say) -> int:
    """As `serve`, but nothing is received here: gateways do that."""
    return _run(settings, lambda: _write(settings, say))


def query_offline(settings: Settings, sql: str, format_: str) -> Answer:
    """Answer from the data directory itself, once what its log holds is in the store. Raises CannotRun, QueryFailed."""
    data_dir = settings.data_dir
    if not _store_dir(data_dir).is_dir():
        raise CannotRun(f"there is no store in {data_dir}: no collector has ever run there; --data-dir names another directory")
    logs.set_up(settings.logging.model_copy(update={"level": "warning"}))
    return _offline_or_running(
        settings, lambda: asyncio.run(_query_offline(settings, sql, format_)), lambda: ask(data_dir, sql, format_)
    )


def query_server(settings: Settings, sql: str, format_: str) -> Answer:
    """The ClickHouse server's answer: what is stored now, whatever is still on its way. Raises QueryFailed."""
    logs.set_up(settings.logging.model_copy(update={"level": "warning"}))
    try:
        with contextlib.closing(_open_server(settings)) as store:
            return Answer(store.query(sql, format_), 0)
    except StoreError as error:
        raise QueryFailed(str(error)) from error


def dead_letters(settings: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    """Desk.answer, of the broker and the store themselves. Raises CannotRun."""
    logs.set_up(settings.logging.model_copy(update={"level": "warning"}))
    if not settings.kafka.bootstrap and not _store_dir(settings.data_dir).parent.is_dir():
        raise CannotRun(f"there is no {settings.data_dir}: no collector has ever run there; --data-dir names another directory")
    production = settings.kafka.bootstrap and not _is_embedded(settings)
    answer = _dead_letters_of_servers if production else _dead_letters_offline
    try:
        return _offline_or_running(
            settings,
            lambda: asyncio.run(answer(settings, request)),
            lambda: ask_dead_letters(settings.data_dir, request),
        )
    except (Wrong, StoreError, BrokerError) as error:
        raise CannotRun(str(error)) from error


def audit(settings: Settings, window: auditing.Window, faults_max: int) -> auditing.Report:
    """Whether everything adds up. What is under way just now is given a few seconds. Raises CannotRun."""
    logs.set_up(settings.logging.model_copy(update={"level": "warning"}))
    broker = _HeldByKafka(settings) if settings.kafka.bootstrap else None
    now = time.time_ns()

    def compare(ask_: auditing.Ask, behind: int) -> auditing.Report:
        report = auditing.audit(ask_, window, broker=broker, judged_from=_judged_from(settings, now), faults_max=faults_max)
        report.messages_behind = behind
        return report

    for attempt in range(1, AUDIT_ATTEMPTS + 1):
        report, offline = _audit_once(settings, compare)
        settled = offline or report.adds_up or report.messages_behind or window.end < now - AUDIT_RECENT_NS
        if settled or attempt == AUDIT_ATTEMPTS:
            return report
        time.sleep(AUDIT_PAUSE_S)
    raise AssertionError


def _audit_once(settings: Settings, compare: Callable[[auditing.Ask, int], auditing.Report]) -> tuple[auditing.Report, bool]:
    """By whoever can be asked; and whether that was nobody, so that nothing is under way. Raises CannotRun."""
    try:
        if not _has_data_dir(settings):
            behind = asyncio.run(_behind(settings))
            with contextlib.closing(_open_server(settings)) as store:
                return compare(partial(_rows, store.query), behind), False

        def running() -> tuple[auditing.Report, bool]:
            behind = ask(settings.data_dir, "SELECT 1", ROWS_FORMAT).messages_behind
            answers = partial(_rows, lambda sql, format_: ask(settings.data_dir, sql, format_, now=True).body)
            return compare(answers, behind), False

        def offline() -> tuple[auditing.Report, bool]:
            return asyncio.run(_audit_offline(settings, compare)), not settings.kafka.bootstrap

        with contextlib.suppress(NotRunning):
            return running()
        return _offline_or_running(settings, offline, running)
    except (StoreError, BrokerError) as error:
        raise CannotRun(str(error)) from error


def _offline_or_running(settings: Settings, offline: Callable[[], T], running: Callable[[], T]) -> T:
    """What `offline` gives, which opens the data directory itself; or, where someone else has it, who may just be starting,
    what `running` does, which asks that one. Raises CannotRun, and what they raise but Locked and NotRunning."""
    until = time.monotonic() + STARTING_MAX_S
    while True:
        try:
            return offline()
        except Locked as locked:
            try:
                return running()
            except NotRunning:
                if time.monotonic() > until:
                    raise CannotRun(f"{locked}, which does not answer at {settings.data_dir / SOCKET}") from None
                time.sleep(0.1)


async def _audit_offline(settings: Settings, compare: Callable[[auditing.Ask, int], auditing.Report]) -> auditing.Report:
    if not settings.data_dir.is_dir():
        raise CannotRun(f"there is no {settings.data_dir}: no collector has ever run there; --data-dir names another directory")
    metrics = Metrics()
    async with open_storage(settings, metrics) as storage:
        async with _written(settings, storage, metrics) as writer:
            behind = await _caught_up(storage, writer)(settings.query.wait_s)
        return await asyncio.to_thread(compare, partial(_rows, storage.store.query), behind)


async def _behind(settings: Settings) -> int:
    progress = KafkaProgress(_kafka_options(settings), TOPICS)
    try:
        return await progress.caught_up(settings.query.wait_s)
    finally:
        await progress.close()


def _rows(query: Callable[[str, str], bytes], sql: str) -> list[dict[str, Any]]:
    return rows_of(query(sql, ROWS_FORMAT))


def _judged_from(settings: Settings, now: int) -> int:
    """What arrived before has items, receipts or dead letters whose days may be over."""
    day_ns = 86_400 * 10**9
    bounds = [0]
    if settings.store.retention_days is not None:
        bounds.append(now - settings.store.retention_days * day_ns + settings.validation.past_max_s * 10**9)
    if settings.dead_letters.retention_days is not None:
        bounds.append(now - settings.dead_letters.retention_days * day_ns)
    return max(bounds)


class _HeldByKafka:
    """What Kafka holds, for an audit: read anew for each question."""

    def __init__(self, settings: Settings) -> None:
        self._options: Final = _kafka_options(settings)

    def held(self, window: auditing.Window, batches: Mapping[UUID, int]) -> auditing.Held:
        tally = Tally(window, batches)
        return tally.held(asyncio.run(self._read(window, tally.add)))

    def batches(self, window: auditing.Window) -> Mapping[UUID, Mapping[str, int]]:
        tally = BatchTally(window)
        asyncio.run(self._read(window, tally.add))
        return tally.batches

    async def _read(self, window: auditing.Window, add: Callable[[str, bytes], None]) -> int:
        """From when on Kafka holds everything. Raises CannotRun, BrokerDown."""
        with _kafka_errors():
            async with await History.open(self._options, auditing.TOPICS) as history:
                begins = await history.begins()
                async for message in history.read(window.start - AUDIT_SLACK_NS, window.end + AUDIT_SLACK_NS):
                    add(message.topic, message.payload)
        return begins


def schema_text(settings: Settings) -> str:
    """The statements of every migration, in order."""
    return schema_sql(settings.clickhouse.cluster)


def schema_apply(settings: Settings) -> str:
    """Bring the store's tables up to date, and tell what was done. Raises CannotRun."""
    logs.set_up(settings.logging.model_copy(update={"level": "warning"}))
    try:
        with _data_dir(settings, wanted=_is_embedded(settings)), contextlib.closing(_open_store(settings)) as store:
            applied = store.apply_schema()
    except Locked as locked:
        raise CannotRun(f"{locked}, which brought its tables up to date when it started") from None
    except StoreError as error:
        raise CannotRun(str(error)) from error
    return f"applied {', '.join(applied)}" if applied else "the tables are up to date"


def _run(settings: Settings, main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    logs.set_up(settings.logging)
    keep_memory()
    if not is_compiled():
        log.warning(
            "the hot path is not compiled: the same, but several times slower; install with a C compiler to change that"
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


# What each command is made of, in the order of its start. The end is the reverse.


async def _serve(settings: Settings, say: Say) -> int:
    began_s = time.monotonic()
    stopping = Stopping(settings.shutdown.timeout_s)
    for key, port in ports(settings).items():
        check_port(key, settings.host, port)
    async with AsyncExitStack() as stack:
        metrics = Metrics(settings.tenants.shown_max)
        certificates = await stack.enter_async_context(_certificates(settings, metrics))
        storage = await stack.enter_async_context(open_storage(settings, metrics))
        admin_key = _first_key(settings)
        tenancy = await stack.enter_async_context(_tenancy(settings, processes=1, anonymous_by_default=True))
        writing = await stack.enter_async_context(_writing(settings, storage, metrics, stopping))
        caught_up = _caught_up(storage, writing.writer)
        if _has_data_dir(settings):
            await stack.enter_async_context(_query_socket(settings, storage, caught_up))
        standing = _standing(settings, storage.broker, metrics, storage.store, writing.writer, tenancy)
        watching = await stack.enter_async_context(_watching(standing))
        reports = _reports(settings, storage.store, caught_up, settings.query.page_wait_s)
        listening = await stack.enter_async_context(
            _receiving(settings, storage.broker, metrics, tenancy, standing, stopping, certificates, reports, began_s)
        )
        _freeze()
        say(announcement(settings, *listening, stores=True, admin_key=admin_key))
        return await _until_the_end(stopping, writing.task, watching, *tenancy.tasks, *storage.opened.tasks)


async def _gateway(settings: Settings, began_s: float, say: Say) -> int:
    stopping = Stopping(settings.shutdown.timeout_s)
    async with AsyncExitStack() as stack:
        metrics = Metrics(settings.tenants.shown_max)
        certificates = await stack.enter_async_context(_certificates(settings, metrics))
        tenancy = await stack.enter_async_context(_tenancy(settings, processes=1))
        opened = await stack.enter_async_context(_open_kafka(settings, metrics, reads=False))
        standing = _standing(settings, opened.broker, metrics, tenancy=tenancy)
        watching = await stack.enter_async_context(_watching(standing))
        reports = await stack.enter_async_context(_reports_of_servers(settings, settings.query.page_wait_s))
        listening = await stack.enter_async_context(
            _receiving(settings, opened.broker, metrics, tenancy, standing, stopping, certificates, reports, began_s)
        )
        _freeze()
        say(announcement(settings, *listening, stores=False))
        return await _until_the_end(stopping, watching, *tenancy.tasks, *opened.tasks)


async def _work(job: Job, connection: socket.socket) -> int:
    settings = job.settings
    # Whoever signals all processes at once (Ctrl-C does, so does systemd) is heard by the one above, which passes it on: the
    # second time then means nothing.
    stopping = Stopping(settings.shutdown.timeout_s, [signal.SIGTERM], twice_ends=False)
    metrics = Metrics()
    if job.restarted:
        metrics.restarted()
    link = await Link.open(connection, metrics.snapshot)
    async with AsyncExitStack() as stack:
        linked = asyncio.create_task(link.run(), name="link")
        linked.add_done_callback(lambda _: stopping.ask())
        certificates = await stack.enter_async_context(_certificates(settings, metrics))
        tenancy = await stack.enter_async_context(_tenancy(settings, processes=settings.gateway.workers))
        opened = await stack.enter_async_context(_open_kafka(settings, metrics, reads=False))
        standing = _standing(settings, opened.broker, metrics, tenancy=tenancy)
        watching = await stack.enter_async_context(_watching(standing))
        reports = await stack.enter_async_context(_reports_of_servers(settings, settings.query.page_wait_s))
        await stack.enter_async_context(
            _receiving(settings, opened.broker, metrics, tenancy, standing, stopping, certificates, reports, job.began_s, link)
        )
        _freeze()
        link.ready()
        return await _until_the_end(stopping, watching, *tenancy.tasks, *opened.tasks)


async def _write(settings: Settings, say: Say) -> int:
    began_s = time.monotonic()
    stopping = Stopping(settings.shutdown.timeout_s)
    check_port("writer.port", settings.host, settings.writer.port)
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        certificates = await stack.enter_async_context(_certificates(settings, metrics))
        storage = await stack.enter_async_context(open_storage(settings, metrics))
        writing = await stack.enter_async_context(_writing(settings, storage, metrics, stopping))
        standing = _standing(settings, storage.broker, metrics, storage.store, writing.writer)
        watching = await stack.enter_async_context(_watching(standing))
        app = writer_pages(
            version=VERSION, health=standing.health, metrics=metrics, uptime_s=lambda: time.monotonic() - began_s
        )
        server = HttpServer(app, settings.host, [settings.writer.port], settings.http, metrics, certificates=certificates)
        stack.push_async_callback(server.stop, 1.0)
        await _listen(settings, server)
        _freeze()
        say(writer_announcement(settings, server.ports[0]))
        return await _until_the_end(stopping, writing.task, watching, *storage.opened.tasks)


async def _query_offline(settings: Settings, sql: str, format_: str) -> Answer:
    metrics = Metrics()
    async with open_storage(settings, metrics) as storage:
        try:
            async with _written(settings, storage, metrics) as writer:
                behind = sum((await storage.broker.lag()).values())
                # However much it is, as long as it gets less.
                while not await writer.drained(max(1.0, settings.query.wait_s)):
                    before, behind = behind, sum((await storage.broker.lag()).values())
                    if behind >= before:
                        break
                else:
                    behind = 0
        except BrokerError as error:
            raise CannotRun(f"cannot store what Kafka still has before the query: {error}") from error
        try:
            return Answer(await asyncio.to_thread(storage.store.query, sql, format_), behind)
        except StoreError as error:
            raise QueryFailed(str(error)) from error


async def _dead_letters_offline(settings: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    metrics = Metrics()
    async with open_storage(settings, metrics) as storage, _written(settings, storage, metrics) as writer:
        reports = _reports(settings, storage.store, _caught_up(storage, writer), settings.query.wait_s)
        return await _desk(settings, storage.broker, reports).answer(request)


async def _dead_letters_of_servers(settings: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    async with (
        _open_kafka(settings, Metrics(), reads=False) as opened,
        _reports_of_servers(settings, settings.query.wait_s) as reports,
    ):
        assert reports is not None
        return await _desk(settings, opened.broker, reports).answer(request)


async def _until_the_end(stopping: Stopping, *parts: asyncio.Task[None]) -> int:
    """The exit status: 0 when asked to stop, 1 when a part has ended by itself. Raises CannotRun where that says why."""
    ended = await stopping.wait_or_end(*parts)
    if ended is None:
        return 0
    if not ended.cancelled() and isinstance(error := ended.exception(), CannotRun):
        raise error
    log.critical(
        "a part of the collector ended by itself, so the collector ends",
        part=ended.get_name(),
        exc_info=None if ended.cancelled() else ended.exception(),
    )
    return 1


def _freeze() -> None:
    """What there is now stays: no need to look through it again at every collection of garbage."""
    gc.collect()
    gc.freeze()
    # Requests leave next to no cycles: what there is of them can wait for a larger collection, in place of 50 a second.
    gc.set_threshold(20_000, 20, 20)


# The broker and the store.


class Broker(Producer, Consumer, Protocol):
    """Both of its sides, and how it stands."""

    @property
    def failure(self) -> str | None:
        """Why it does not take messages; None: it does, as far as is known."""

    async def ping(self) -> None:
        """Raises BrokerError; finds out when one that failed works again."""


class _Opened(NamedTuple):
    """A broker, and the task without which it is of no use."""

    broker: Broker
    task: asyncio.Task[None] | None = None

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        return [self.task] if self.task is not None else []


class _Storage(NamedTuple):
    opened: _Opened
    store: "ClickHouseStore"

    @property
    def broker(self) -> Broker:
        return self.opened.broker


@asynccontextmanager
async def open_storage(settings: Settings, metrics: Metrics) -> AsyncIterator[_Storage]:
    """Broker and store, its tables up to date, and the data directory's lock if either is in it. Raises CannotRun."""
    has_kafka = bool(settings.kafka.bootstrap)
    with _data_dir(settings, wanted=_has_data_dir(settings)):
        async with _open_kafka(settings, metrics, reads=True) if has_kafka else _open_local(settings) as opened:
            store = await _opened_store(settings)
            try:
                yield _Storage(opened, store)
            finally:
                await asyncio.to_thread(store.close)


async def _opened_store(settings: Settings) -> "ClickHouseStore":
    """Its tables up to date; a server that is away is waited for later, by whoever inserts. Raises CannotRun."""
    try:
        store = await asyncio.to_thread(_open_store, settings)
        try:
            await asyncio.to_thread(store.apply_schema)
        except (SchemaTooNew, StoreMisconfigured):
            raise
        except StoreUnavailable as error:
            if _is_embedded(settings):
                raise
            log.warning("ClickHouse is not there yet, so it is waited for", error=str(error))
    except StoreError as error:
        raise CannotRun(str(error)) from error
    return store


@asynccontextmanager
async def _open_local(settings: Settings) -> AsyncIterator[_Opened]:
    limits = LocalLogLimits(**settings.local_log.model_dump())
    try:
        local_log = await LocalLog.open(settings.data_dir / "log", limits, TOPICS)
    except LocalLogUnusable as error:
        raise CannotRun(str(error)) from error
    async with local_log:
        yield _Opened(local_log)


@asynccontextmanager
async def _open_kafka(settings: Settings, metrics: Metrics, *, reads: bool) -> AsyncIterator[_Opened]:
    """Open, or, where Kafka is not there in a while, being opened. Raises CannotRun."""
    options = _kafka_options(settings)

    async def producer() -> KafkaProducer:
        with _kafka_errors():
            return await KafkaProducer.open(options, TOPICS, metrics)

    async def consumer() -> KafkaConsumer:
        with _kafka_errors():
            return await KafkaConsumer.open(options, TOPICS)

    broker = LateBroker(producer, consumer if reads else None)
    opening = asyncio.create_task(broker.run(), name="kafka")
    try:
        tried = asyncio.create_task(broker.tried(KAFKA_WAIT_S))
        await asyncio.wait({tried, opening}, return_when=asyncio.FIRST_COMPLETED)
        tried.cancel()
        if opening.done():
            opening.result()  # why it is no use to wait
        yield _Opened(broker, opening)
    finally:
        opening.cancel()
        await asyncio.wait({opening})
        await broker.close()


def _kafka_options(settings: Settings) -> KafkaOptions:
    kafka = settings.kafka
    return KafkaOptions(
        bootstrap=kafka.bootstrap.split(","),
        security=kafka.security,
        sasl_mechanism=kafka.sasl_mechanism,
        username=kafka.username,
        password=_secret(kafka.password),
        ca_file=kafka.ca_file,
        cert_file=kafka.cert_file,
        key_file=kafka.key_file,
        client_id=kafka.client_id,
        group_id=kafka.group_id,
        create_topics=kafka.create_topics,
        topic_partitions=kafka.topic_partitions,
        topic_replication=kafka.topic_replication,
        message_bytes_max=settings.broker.message_bytes_max,
        compression=kafka.compression,
        requests_in_flight_max=kafka.requests_in_flight_max,
        linger_ms=kafka.linger_ms,
        waiting_bytes_max=kafka.waiting_bytes_max,
        append_timeout_s=kafka.append_timeout_s,
        request_timeout_s=kafka.request_timeout_s,
        start_timeout_s=1,  # LateBroker tries again, and meanwhile says why
        session_timeout_s=kafka.session_timeout_s,
    )


@contextmanager
def _kafka_errors() -> Iterator[None]:
    try:
        yield
    except KafkaAway as error:
        raise BrokerDown(str(error)) from error
    except KafkaUnusable as error:
        raise CannotRun(str(error)) from error


def _is_embedded(settings: Settings) -> bool:
    """Whether the store is the embedded engine."""
    return not settings.clickhouse.url


def _has_data_dir(settings: Settings) -> bool:
    """Whether the log or the store is in it."""
    return not settings.kafka.bootstrap or _is_embedded(settings)


def _store_dir(data_dir: Path) -> Path:
    return data_dir / "store"


def _open_store(settings: Settings) -> "ClickHouseStore":
    """Raises StoreError."""
    from collector.store.clickhouse import ClickHouseStore  # noqa: PLC0415  # as said above

    if _is_embedded(settings):
        return ClickHouseStore.embedded(_store_dir(settings.data_dir), _store_options(settings))
    return _open_server(settings)


def _open_server(settings: Settings) -> "ClickHouseStore":
    """Asks nothing of it yet."""
    from collector.store.clickhouse import ClickHouseStore  # noqa: PLC0415  # as said above

    clickhouse = settings.clickhouse
    return ClickHouseStore.server(
        clickhouse.url,
        _store_options(settings),
        user=clickhouse.user,
        password=_secret(clickhouse.password),
        database=clickhouse.database,
        cluster=clickhouse.cluster,
        ca_file=clickhouse.ca_file,
        verify=clickhouse.verify,
        connect_timeout_s=clickhouse.connect_timeout_s,
        request_timeout_s=clickhouse.request_timeout_s,
        insert_quorum=clickhouse.insert_quorum,
    )


def _secret(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


def _store_options(settings: Settings) -> "StoreOptions":
    from collector.store.clickhouse import QueryLimits, StoreOptions  # noqa: PLC0415  # as said above

    limits = settings.store
    return StoreOptions(
        retention_days=limits.retention_days,
        dead_letters_retention_days=settings.dead_letters.retention_days,
        fsync=limits.fsync,
        insert_memory_bytes_max=limits.insert_memory_bytes_max,
        queries=QueryLimits(
            time_max_s=limits.query_time_max_s,
            memory_bytes_max=limits.query_memory_bytes_max,
            result_rows_max=limits.query_rows_max,
            result_bytes_max=limits.query_result_bytes_max,
            concurrent_max=settings.query.concurrent_max,
        ),
    )


@contextmanager
def _data_dir(settings: Settings, *, wanted: bool) -> Iterator[None]:
    """Made and locked. Raises CannotRun, Locked."""
    if not wanted:
        yield
        return
    data_dir = settings.data_dir
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotRun(f"cannot make the data directory {data_dir}: {error.strerror}; --data-dir names another") from error
    try:
        lock = DataDirLock(data_dir)
    except OSError as error:
        raise CannotRun(f"cannot use the data directory {data_dir}: {error.strerror}") from error
    with lock:
        yield


# Who sends, and how much they may.


class _Tenancy(NamedTuple):
    """What is known of senders. `failures`: its parts, by the names that metrics have for them, and why each fails."""

    access: Access
    limiter: Limiter
    failures: Mapping[str, Callable[[], str | None]]
    tasks: list[asyncio.Task[None]]


def _first_key(settings: Settings) -> str | None:
    """The key that is made where there are none yet, to be shown once. Raises CannotRun."""
    return keys.ensure_admin_key(keys.path_of(settings.data_dir, settings.tenants.keys_file), now=datetime.now(UTC))


@asynccontextmanager
async def _tenancy(settings: Settings, *, processes: int, anonymous_by_default: bool = False) -> AsyncIterator[_Tenancy]:
    """`processes`: so many of this gateway's share its ports. Raises CannotRun."""
    tenants = settings.tenants
    plans = settings.plans_by_name()
    path = keys.path_of(settings.data_dir, tenants.keys_file)
    keyring = Keyring.open(path, plans, reload_s=tenants.keys_reload_s, now_unix_s=time.time)
    anonymous = None
    if tenants.anonymous == "yes" or (tenants.anonymous == "auto" and anonymous_by_default):
        anonymous = Caller(tenants.anonymous_tenant, Scope.INGEST, plans[tenants.anonymous_plan], "")
    elif not len(keyring):
        log.warning("nobody can send: there are no keys; `keys create` makes one", keys_file=str(path))
    tasks = [asyncio.create_task(keyring.run(), name="keys")]
    failures: dict[str, Callable[[], str | None]] = {"keys": lambda: keyring.failure}
    async with AsyncExitStack() as stack:
        limiter: Limiter
        share = settings.limits.gateways * processes
        if settings.limits.redis_url:
            redis = await stack.enter_async_context(_redis(settings, share))
            failures["redis"] = lambda: redis.failure
            limiter = redis
        else:
            limiter = LocalLimiter(time.monotonic_ns, share)
            if share > 1:
                log.warning(
                    "without limits.redis_url each process holds tenants to its share of their plans", share=f"1/{share}"
                )
        try:
            yield _Tenancy(Access(keyring.find, anonymous), limiter, failures, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


@asynccontextmanager
async def _redis(settings: Settings, processes: int) -> AsyncIterator["RedisLimiter"]:
    from collector.limit.redis import RedisLimiter  # noqa: PLC0415  # as said above

    limits = settings.limits
    limiter = RedisLimiter(
        limits.redis_url,
        username=limits.redis_user or None,
        password=_secret(limits.redis_password) or None,
        ca_file=None if limits.redis_ca_file is None else str(limits.redis_ca_file),
        timeout_s=limits.redis_timeout_ms / 1000,
        processes=processes,
        now_nano=time.monotonic_ns,
    )
    await limiter.open()
    try:
        yield limiter
    finally:
        await limiter.close()


# The parts that work.


class _Writing(NamedTuple):
    writer: Writer
    task: asyncio.Task[None]


def _writer(settings: Settings, storage: _Storage, metrics: Metrics) -> Writer:
    keep = RefusedRecords(storage.broker, settings.broker.message_bytes_max, time.time_ns).keep
    limits = WriterLimits(**settings.writer.model_dump(exclude={"port"}))
    return Writer(storage.broker, storage.store, keep, limits, metrics)


@asynccontextmanager
async def _written(settings: Settings, storage: _Storage, metrics: Metrics) -> AsyncIterator[Writer]:
    """What the broker holds is being stored meanwhile."""
    writer = _writer(settings, storage, metrics)
    writing = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        writer.stop()
        await writing


@asynccontextmanager
async def _writing(settings: Settings, storage: _Storage, metrics: Metrics, stopping: Stopping) -> AsyncIterator[_Writing]:
    writer = _writer(settings, storage, metrics)
    task = asyncio.create_task(writer.run(), name="writer")
    try:
        yield _Writing(writer, task)
    finally:
        # Kafka's records are there for the other writers, and for the next start: nobody waits for them to be stored.
        drains = not settings.kafka.bootstrap
        if drains and not task.done() and not await writer.drained(stopping.left_s(WRITER_SHARE)):
            log.warning("the log is not empty; the next start goes on from there")
        writer.stop()
        await asyncio.wait({task})


def _caught_up(storage: _Storage, writer: Writer) -> CaughtUp:
    async def caught_up(wait_s: float) -> int:
        if await writer.drained(wait_s):
            return 0
        try:
            return max(1, sum((await storage.broker.lag()).values()))
        except BrokerError:
            return 1  # at least, for all that can be known

    return caught_up


def _reports(settings: Settings, store: "ClickHouseStore", caught_up: CaughtUp, wait_s: float) -> DeadLetterReports:
    return DeadLetterReports(Reader(store.query, caught_up, wait_s), settings.dead_letters.retention_days)


@asynccontextmanager
async def _reports_of_servers(settings: Settings, wait_s: float) -> AsyncIterator[DeadLetterReports | None]:
    """Of what writers write elsewhere; None: nobody said where that is."""
    if _is_embedded(settings):
        yield None
        return
    store = _open_server(settings)
    progress = KafkaProgress(_kafka_options(settings), TOPICS)
    try:
        yield _reports(settings, store, progress.caught_up, wait_s)
    finally:
        await progress.close()
        await asyncio.to_thread(store.close)


def _desk(settings: Settings, producer: Producer, reports: DeadLetterReports) -> Desk:
    mending = Mending(
        reports,
        producer.append,
        PAYLOAD_ADAPTERS,
        Limits(**settings.validation.model_dump()),
        message_bytes_max=settings.broker.message_bytes_max,
        now_unix_nano=time.time_ns,
    )
    return Desk(reports, mending)


@asynccontextmanager
async def _query_socket(settings: Settings, storage: _Storage, caught_up: CaughtUp) -> AsyncIterator[None]:
    desk = _desk(settings, storage.broker, _reports(settings, storage.store, caught_up, settings.query.wait_s))
    query_socket = QuerySocket(settings.data_dir, storage.store, caught_up, settings.query, desk)
    try:
        await query_socket.start()
        yield
    finally:
        await query_socket.close()


def _standing(
    settings: Settings,
    broker: Broker,
    metrics: Metrics,
    store: "ClickHouseStore | None" = None,
    writer: Writer | None = None,
    tenancy: _Tenancy | None = None,
) -> Standing:
    local = broker if isinstance(broker, LocalLog) else None
    return Standing(
        metrics,
        broker,
        is_full=(lambda: local.bytes_used >= settings.local_log.bytes_max) if local is not None else None,
        log_bytes=(lambda: local.bytes_used) if local is not None else None,
        dead_letters=store.open_dead_letters if store is not None else None,
        owns=writer.owns if writer is not None else None,
        # The engine in this process is there as long as the process is.
        ping_store=store.ping if store is not None and not _is_embedded(settings) else None,
        writer_state=(lambda: writer.state) if writer is not None else None,
        failures=tenancy.failures if tenancy is not None else None,
    )


@asynccontextmanager
async def _watching(standing: Standing) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(standing.run(), name="observer")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


class _Listening(NamedTuple):
    """The ports that are listened on."""

    http_port: int
    otlp_port: int
    grpc_port: int


@asynccontextmanager
async def _receiving(
    settings: Settings,
    producer: Producer,
    metrics: Metrics,
    tenancy: _Tenancy,
    standing: Standing,
    stopping: Stopping,
    certificates: Certificates | None,
    reports: DeadLetterReports | None,
    began_s: float,
    link: Link | None = None,
) -> AsyncIterator[_Listening]:
    """HTTP and gRPC. `link`: this process is one of several on the same ports, and tells the metrics of all."""
    in_flight_bytes_max = settings.broker.in_flight_bytes_max
    in_flight = InFlight(in_flight_bytes_max, int(in_flight_bytes_max * settings.tenants.in_flight_share_max))
    metrics.watch_in_flight(lambda: in_flight.bytes_held)
    message_bytes_max = settings.broker.message_bytes_max
    caps = Caps(settings.dead_letters.items_per_minute_max, settings.dead_letters.bytes_per_minute_max)
    recent = RecentBatches(settings.query.recent_batches_max)
    pipeline = Pipeline(
        Produce(producer, metrics),
        Limits(**settings.validation.model_dump()),
        tenancy.limiter,
        DeadLetters(caps, message_bytes_max),
        Receipts(os.urandom(16)),
        metrics,
        message_bytes_max=message_bytes_max,
        now_unix_nano=time.time_ns,
        recent=recent,
    )
    batches = BatchReports(None if reports is None else reports.reader, recent)
    refuse = partial(explain, retry_after_s=settings.broker.retry_after_s, upgrade_url=settings.tenants.upgrade_url)

    async def own() -> Snapshot:
        return metrics.snapshot()

    began = datetime.fromtimestamp(time.time() - (time.monotonic() - began_s), UTC)
    application = HttpApplication(
        pipeline,
        in_flight,
        metrics,
        settings.http,
        routes=http_routes(settings.http.batch_items_max),
        pages=pages(
            version=VERSION,
            health=standing.health,
            metrics=metrics,
            uptime_s=lambda: time.monotonic() - began_s,
            reading=reading(tenancy.access, own if link is None else link.gather, began, reports, batches),
            explain=refuse,
            gather=None if link is None else link.gather_shown,
        ),
        page_paths=PAGE_PATHS,
        access=tenancy.access,
        explain=refuse,
    )
    http = HttpServer(
        application,
        settings.host,
        (settings.http.port, settings.http.otlp_port),
        settings.http,
        metrics,
        certificates=certificates,
        reuse_port=link is not None,
    )
    grpc = GrpcServer(
        pipeline,
        in_flight,
        metrics,
        settings.grpc,
        host=settings.host,
        services=GRPC_SERVICES,
        access=tenancy.access,
        explain=refuse,
        certificates=certificates,
        reuse_port=link is not None,
    )
    try:
        await _listen(settings, http, grpc)
        http_port, otlp_port = http.ports
        yield _Listening(http_port, otlp_port, grpc.port)
    finally:
        grace_s = stopping.left_s(RECEIVERS_SHARE)
        await asyncio.gather(http.stop(grace_s), grpc.stop(grace_s))


@asynccontextmanager
async def _certificates(settings: Settings, metrics: Metrics) -> AsyncIterator[Certificates | None]:
    """Those in force, kept up to date; None: no TLS. Raises CannotRun."""
    if settings.tls.cert_file is None:
        yield None
        return
    certificates = Certificates(settings.tls, metrics)
    task = asyncio.create_task(certificates.run(), name="certificates")
    try:
        yield certificates
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _listen(settings: Settings, *servers: HttpServer | GrpcServer) -> None:
    try:
        for server in servers:
            await server.start()
    except OSError as error:
        raise CannotRun(f"cannot listen on {settings.host}: {error.strerror or error}") from error
