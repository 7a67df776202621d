"""The composition root: the only file that names the parts that can be swapped, and the order in which they start and end.

The law: receivers start last and stop first, so that nothing is accepted that could not be kept; and if a part ends that should
not, the process ends, with an error, rather than go on without it. All that was acknowledged is in the log by then: whatever
happens to the process, the next start takes it from there.
"""

import asyncio
import contextlib
import errno
import gc
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import uvloop

from collector import logs
from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, BrokerError
from collector.broker.local import LocalLog, LocalLogLimits, LocalLogUnusable
from collector.config import FLAGS, Settings
from collector.dead_letters import DeadLetters
from collector.errors import CannotRun
from collector.lock import DataDirLock, Locked
from collector.metrics import Metrics
from collector.pipeline import Pipeline, Tenant
from collector.produce import InFlight, Produce
from collector.query import SOCKET, Answer, NotRunning, QueryFailed, QuerySocket, ask
from collector.receive.grpc import GrpcServer
from collector.receive.http import HttpApplication
from collector.receive.native import PAGE_PATHS, Health, pages
from collector.receive.routes import GRPC_SERVICES, http_routes
from collector.receive.servers import HttpServer, http_server
from collector.store.clickhouse import ClickHouseStore, QueryLimits, StoreOptions
from collector.store.contract import StoreError
from collector.store.migrations import schema_sql
from collector.validate import Limits
from collector.version import VERSION, is_compiled
from collector.write import Writer, WriterLimits

TOPICS: Final = (METRICS_TOPIC, LOGS_TOPIC, TRACES_TOPIC)

# How the time to stop is shared out: requests in flight may take up to the first, storing what is in the log up to the second.
_RECEIVERS_SHARE: Final = 0.6
_WRITER_SHARE: Final = 0.85
_OBSERVE_INTERVAL_S: Final = 1.0
# How long a collector that holds the data directory may take to open its query socket: it is starting.
STARTING_MAX_S: Final = 10.0

log = structlog.get_logger(__name__)


def serve(settings: Settings, say: Callable[[str], None]) -> int:
    """Run until SIGTERM or SIGINT; the exit status. `say` is given what to print once it is ready. Raises CannotRun."""
    logs.set_up(settings.logging)
    if not is_compiled():
        log.warning(
            "the hot path is not compiled: the same, but several times slower; install with a C compiler to change that"
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, say))


def query_offline(settings: Settings, sql: str, format_: str) -> Answer:
    """Answer from the data directory itself, once what its log holds is in the store. Raises CannotRun, QueryFailed."""
    data_dir = settings.data_dir
    if not _store_dir(data_dir).is_dir():
        raise CannotRun(f"there is no store in {data_dir}: no collector has ever run there; --data-dir names another directory")
    logs.set_up(settings.logging.model_copy(update={"level": "warning"}))
    until = time.monotonic() + STARTING_MAX_S
    while True:
        try:
            return asyncio.run(_query_offline(settings, sql, format_))
        except Locked as locked:
            # Someone else has it, who may just be starting.
            try:
                return ask(data_dir, sql, format_)
            except NotRunning:
                if time.monotonic() > until:
                    raise CannotRun(f"{locked}, which does not answer at {data_dir / SOCKET}") from None
                time.sleep(0.1)


def schema_text() -> str:
    """The statements of every migration, in order."""
    return schema_sql()


def schema_apply(settings: Settings) -> str:
    """Bring the store's tables up to date, and tell what was done. Raises CannotRun."""
    logs.set_up(settings.logging.model_copy(update={"level": "warning"}))
    _make_data_dir(settings.data_dir)
    try:
        with _lock(settings.data_dir), contextlib.closing(_open_store(settings)) as store:
            applied = store.apply_schema()
    except Locked as locked:
        raise CannotRun(f"{locked}, which brought its tables up to date when it started") from None
    except StoreError as error:
        raise CannotRun(str(error)) from error
    return f"applied {', '.join(applied)}" if applied else "the tables are up to date"


class _Storage(NamedTuple):
    log: LocalLog
    store: ClickHouseStore


async def _serve(settings: Settings, say: Callable[[str], None]) -> int:
    began = time.monotonic()
    stopping = _Stopping(settings.shutdown.timeout_s)
    for key, port in ports(settings).items():
        check_port(key, settings.host, port)
    _make_data_dir(settings.data_dir)
    async with open_storage(settings) as storage, AsyncExitStack() as stack:
        metrics = Metrics()
        writer = _writer(settings, storage, metrics)
        writing = asyncio.create_task(writer.run(), name="writer")
        stack.push_async_callback(_finish_writing, writer, writing, stopping)

        async def caught_up(wait_s: float) -> int:
            return 0 if await writer.drained(wait_s) else max(1, sum((await storage.log.lag()).values()))

        query_socket = QuerySocket(settings.data_dir, storage.store, caught_up, settings.query)
        stack.push_async_callback(query_socket.close)
        await query_socket.start()
        observing = asyncio.create_task(_observe(storage.log, metrics), name="observer")
        stack.callback(observing.cancel)

        in_flight = InFlight(settings.broker.in_flight_bytes_max)
        metrics.watch_in_flight(lambda: in_flight.bytes_held)
        pipeline = Pipeline(
            Produce(storage.log),
            Limits(**settings.validation.model_dump()),
            metrics,
            message_bytes_max=settings.broker.message_bytes_max,
            now_unix_nano=time.time_ns,
        )
        tenant = Tenant(settings.tenants.anonymous_tenant)
        retry_after_s = settings.broker.retry_after_s
        application = HttpApplication(
            pipeline,
            in_flight,
            metrics,
            settings.http,
            routes=http_routes(settings.http.batch_items_max),
            pages=pages(
                version=VERSION,
                health=lambda: _health(settings, storage.log, writer),
                metrics=metrics,
                uptime_s=lambda: time.monotonic() - began,
            ),
            page_paths=PAGE_PATHS,
            tenant=tenant,
            retry_after_s=retry_after_s,
        )
        http = http_server(application, settings.host, (settings.http.port, settings.http.otlp_port), settings.http, metrics)
        grpc = GrpcServer(
            pipeline,
            in_flight,
            metrics,
            settings.grpc,
            host=settings.host,
            services=GRPC_SERVICES,
            tenant=tenant,
            retry_after_s=retry_after_s,
        )
        stack.push_async_callback(_stop_receivers, http, grpc, stopping)
        try:
            await http.start()
            await grpc.start()
        except OSError as error:
            raise CannotRun(f"cannot listen on {settings.host}: {error.strerror or error}") from error
        # What there is now stays: no need to look through it again at every collection of garbage.
        gc.collect()
        gc.freeze()
        http_port, otlp_port = http.ports
        say(announcement(settings, http_port, otlp_port, grpc.port))
        ended = await stopping.wait_or_end(writing, observing)
        if ended is not None:
            log.critical(
                "a part of the collector ended by itself, so the collector ends",
                part=ended.get_name(),
                exc_info=None if ended.cancelled() else ended.exception(),
            )
        return 1 if ended else 0


class _Stopping:
    """Signals, and how much time they leave. The first asks to stop, the second ends the process where it stands."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s: Final = timeout_s
        self._asked: Final = asyncio.Event()
        self._deadline: float | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._ask, number)

    def _ask(self, number: signal.Signals) -> None:
        if self._asked.is_set():
            log.warning("ended by a second signal", signal=number.name)
            _exit(128 + number)
        log.info("stopping", signal=number.name, timeout_s=self._timeout_s)
        self._asked.set()
        self.left_s(1)

    async def wait_or_end(self, *parts: asyncio.Task[None]) -> asyncio.Task[None] | None:
        """Return when asked to stop: None; or when one of the parts has ended: that one."""
        asked = asyncio.create_task(self._asked.wait())
        done, _ = await asyncio.wait({asked, *parts}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        return next((part for part in parts if part in done), None) if not self._asked.is_set() else None

    def left_s(self, share: float) -> float:
        """Seconds until that share of the time to stop is used up. It runs from the first signal, or the first call, on."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._timeout_s
            # A thread, since what is late may be the event loop itself.
            watchdog = threading.Timer(self._timeout_s, self._too_late)
            watchdog.daemon = True
            watchdog.start()
        return max(0.0, self._deadline - self._timeout_s * (1 - share) - now)

    def _too_late(self) -> None:
        log.error("could not stop in time, so it ends as it is; the next start goes on from the log", timeout_s=self._timeout_s)
        _exit(1)


def _exit(status: int) -> None:
    """At once: no handler, no thread and no buffer can hold it up."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


async def _stop_receivers(http: HttpServer, grpc: GrpcServer, stopping: _Stopping) -> None:
    grace_s = stopping.left_s(_RECEIVERS_SHARE)
    await asyncio.gather(http.stop(grace_s), grpc.stop(grace_s))


async def _finish_writing(writer: Writer, writing: asyncio.Task[None], stopping: _Stopping) -> None:
    if not writing.done() and not await writer.drained(stopping.left_s(_WRITER_SHARE)):
        log.warning("the log is not empty; the next start goes on from there")
    writer.stop()
    await asyncio.wait({writing})


async def _observe(local_log: LocalLog, metrics: Metrics) -> None:
    """Show how the log stands, and find out when one that failed can be written again."""
    while True:
        for partition, messages in (await local_log.lag()).items():
            metrics.log_lag(partition.topic, messages)
        metrics.log_bytes(local_log.bytes_used)
        with contextlib.suppress(BrokerError):
            await local_log.ping()
        await asyncio.sleep(_OBSERVE_INTERVAL_S)


def _health(settings: Settings, local_log: LocalLog, writer: Writer) -> Health:
    full = local_log.bytes_used >= settings.local_log.bytes_max
    return Health(
        clickhouse=writer.state,
        kafka="unavailable" if local_log.failure else "full" if full else "ok",
    )


@asynccontextmanager
async def open_storage(settings: Settings) -> AsyncIterator[_Storage]:
    """The data directory's lock, log and store, its tables up to date; at the end, queries are cancelled. Raises CannotRun."""
    data_dir = settings.data_dir
    with _lock(data_dir):
        try:
            local_log = await LocalLog.open(data_dir / "log", LocalLogLimits(**settings.local_log.model_dump()), TOPICS)
        except LocalLogUnusable as error:
            raise CannotRun(str(error)) from error
        async with local_log:
            try:
                store = await asyncio.to_thread(_open_store, settings)
                await asyncio.to_thread(store.apply_schema)
            except StoreError as error:
                raise CannotRun(str(error)) from error
            try:
                yield _Storage(local_log, store)
            finally:
                await asyncio.to_thread(store.close)


def _lock(data_dir: Path) -> DataDirLock:
    try:
        return DataDirLock(data_dir)
    except OSError as error:
        raise CannotRun(f"cannot use the data directory {data_dir}: {error.strerror}") from error


def _make_data_dir(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotRun(f"cannot make the data directory {data_dir}: {error.strerror}; --data-dir names another") from error


def _store_dir(data_dir: Path) -> Path:
    return data_dir / "store"


def _open_store(settings: Settings) -> ClickHouseStore:
    """Raises StoreError."""
    limits = settings.store
    return ClickHouseStore.embedded(
        _store_dir(settings.data_dir),
        StoreOptions(
            retention_days=limits.retention_days,
            fsync=limits.fsync,
            insert_memory_bytes_max=limits.insert_memory_bytes_max,
            queries=QueryLimits(
                time_max_s=limits.query_time_max_s,
                memory_bytes_max=limits.query_memory_bytes_max,
                result_rows_max=limits.query_rows_max,
                result_bytes_max=limits.query_result_bytes_max,
                concurrent_max=settings.query.concurrent_max,
            ),
        ),
    )


def _writer(settings: Settings, storage: _Storage, metrics: Metrics) -> Writer:
    keep = DeadLetters(storage.log).keep
    return Writer(storage.log, storage.store, keep, WriterLimits(**settings.writer.model_dump()), metrics)


async def _query_offline(settings: Settings, sql: str, format_: str) -> Answer:
    async with open_storage(settings) as storage:
        writer = _writer(settings, storage, Metrics())
        writing = asyncio.create_task(writer.run())
        try:
            behind = sum((await storage.log.lag()).values())
            # However much it is, as long as it gets less.
            while not await writer.drained(max(1.0, settings.query.wait_s)):
                before, behind = behind, sum((await storage.log.lag()).values())
                if behind >= before:
                    break
            else:
                behind = 0
        finally:
            writer.stop()
            await writing
        try:
            return Answer(await asyncio.to_thread(storage.store.query, sql, format_), behind)
        except StoreError as error:
            raise QueryFailed(str(error)) from error


def ports(settings: Settings) -> dict[str, int]:
    return {"http.port": settings.http.port, "http.otlp_port": settings.http.otlp_port, "grpc.port": settings.grpc.port}


def check_port(key: str, host: str, port: int) -> None:
    """Try to listen there, so that what is wrong is known at once, and by its name. Raises CannotRun."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(address[0], socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address[4])
    except socket.gaierror as error:
        raise CannotRun(f"cannot listen on {host}: {error.strerror}; --host names another address") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotRun(f"port {port} of {host} is in use by another program; {FLAGS[key]} names another") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise CannotRun(f"{host} is not an address of this machine; --host names another") from error
        raise CannotRun(f"cannot listen on port {port} of {host}: {error.strerror}; {FLAGS[key]} names another") from error


def announcement(settings: Settings, http_port: int, otlp_port: int, grpc_port: int) -> str:
    listening = _address(settings.host)
    # Where it listens on every address, this machine's own is one of them.
    own = _address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host))  # noqa: S104  # compared, not bound
    record = '{"service_id": "demo", "metric_name": "cpu_usage_percent", "value": 87.3, "timestamp": "\'$(date -u +%FT%TZ)\'"}'
    # As it was called: from .venv/bin it is not on the PATH.
    program = sys.argv[0] if Path(sys.argv[0]).name == "infrasage-collector" else "infrasage-collector"
    ask_for_it = shlex.join([program, "query", "SELECT * FROM telemetry", "--data-dir", str(settings.data_dir)])
    return f"""\
InfraSage collector {VERSION} is ready.
  HTTP API        http://{listening}:{http_port}
  OTLP over HTTP  http://{listening}:{otlp_port}
  OTLP over gRPC  {listening}:{grpc_port}
  data            {settings.data_dir.resolve()}
Try it, then ask for it with: {ask_for_it}
  curl http://{own}:{http_port}/api/v1/telemetry -H 'Content-Type: application/json' -d '{record}'"""


def _address(host: str) -> str:
    return f"[{host}]" if ":" in host else host
