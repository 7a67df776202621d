"""The commands that run until they are stopped. Each consists of parts, which start in order and stop in reverse order.

`serve` consists of all parts, `gateway` of the receivers and the broker, `writer` of the broker and the store. All acknowledged
records are in the broker. If a process ends in any way, the next start continues from there.

Invariants:
1. Receivers start last and stop first, so that no record is accepted that could not be kept.
2. If a part ends by itself, the process ends with an error and does not continue without it (test_it_does_not_limp).
"""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import structlog
import uvloop

from collector.api.health import writer_pages
from collector.app.clickhouse_http import answering_clickhouse
from collector.app.data_dir import has_data_dir, is_embedded
from collector.app.health_monitor import HealthMonitor
from collector.app.ports import announcement, check_ports, reached_announcement, warn_of_anonymous
from collector.app.queries import dead_letter_reports, open_query_socket, reports_of_servers
from collector.app.receivers import Receiving, certificates_in_force, lame_duck, listen, metrics_page, receiving, refusals
from collector.app.retention import following_plans
from collector.app.scheduled_audit import auditing_on_schedule
from collector.app.storage import Broker, StoppedWaiting, data_disk, open_kafka, open_storage_when_free
from collector.app.tenancy import Tenancy, first_key, open_tenancy
from collector.app.worker_link import Link
from collector.app.worker_messages import AT_ONCE, Job
from collector.app.writer import caught_up_with, running_writer
from collector.broker.local_log import LocalLog
from collector.config.settings import Settings
from collector.query.live_records import LiveRecords
from collector.receivers.http.page_gate import PageGate
from collector.receivers.http.server import HttpServer
from collector.runtime.descriptors import prepare
from collector.runtime.disk import Disk
from collector.runtime.errors import CannotRun
from collector.runtime.heap import freeze
from collector.runtime.malloc import keep_memory
from collector.runtime.shutdown import GracefulShutdown, running
from collector.runtime.version import VERSION, is_compiled
from collector.telemetry import logs
from collector.telemetry.aggregate import Snapshot
from collector.telemetry.metrics import Metrics
from collector.writer.writer import Writer

if TYPE_CHECKING:
    # Imported where it is used: most gateways do not need it, and it takes a tenth of their memory.
    from collector.store.clickhouse import ClickHouseStore

PrintLine = Callable[[str], None]
# The time between two checks of a broker that is not reached.
_LOOK_S: Final = 0.2
log = structlog.get_logger(__name__)


def serve(settings: Settings, print_line: PrintLine) -> int:
    """Run until SIGTERM or SIGINT. Return the exit status. `print_line` prints the announcement once it is ready. Raises
    CannotRun."""
    return _run(settings, lambda: _serve(settings, print_line))


def gateway(settings: Settings, print_line: PrintLine) -> int:
    """Run as `serve` does, but without a store: writers store the records."""
    began_s = time.monotonic()
    check_ports(settings)
    return _run(settings, lambda: _gateway(settings, began_s, print_line))


def work(job: Job, connection: socket.socket) -> int:
    """Run `gateway` as one of several processes, or `writer` (collector/app/supervisor.py). If it cannot run, the reason is
    reported to the supervisor, and the status is 1."""
    if job.command == "gateway":
        structlog.contextvars.bind_contextvars(worker=job.worker)
    return _run(job.settings, lambda: _work(job, connection))


def _run(settings: Settings, main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    logs.set_up(settings.logging)
    keep_memory()
    if not is_compiled():
        log.warning(
            "the hot path is not compiled: the answers are the same, several times slower. An installation with a C compiler"
            " compiles it; `make serve` does so in the background, for its next start"
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


async def _serve(settings: Settings, print_line: PrintLine) -> int:
    began_s = time.monotonic()
    stopping = GracefulShutdown(settings.shutdown.timeout_s, settings.shutdown.lame_duck_s)
    check_ports(settings)
    warn_of_anonymous(settings, anonymous_by_default=True)
    async with AsyncExitStack() as stack:
        metrics = Metrics(settings.tenants.shown_max)
        certificates = await stack.enter_async_context(certificates_in_force(settings, metrics))
        try:
            storage = await stack.enter_async_context(open_storage_when_free(settings, metrics, stopping))
        except StoppedWaiting:
            return 0
        admin_key = first_key(settings)
        tenancy = await stack.enter_async_context(open_tenancy(settings, processes=1, anonymous_by_default=True))
        writing = await stack.enter_async_context(running_writer(settings, storage, metrics, stopping))
        await stack.enter_async_context(following_plans(settings, storage.store.apply_schema))
        caught_up = caught_up_with(storage, writing.writer)
        live = LiveRecords(time.monotonic)
        if has_data_dir(settings):
            await stack.enter_async_context(
                open_query_socket(settings, storage, caught_up, writing.writer.paused, metrics, live.answer)
            )
        health_monitor = _health_monitor(settings, storage.broker, metrics, storage.store, writing.writer, tenancy)
        watching = await stack.enter_async_context(running(health_monitor.run(), "observer"))
        await stack.enter_async_context(auditing_on_schedule(settings, storage, metrics, caught_up))
        reports = dead_letter_reports(settings, storage.store, caught_up, settings.query.page_wait_s)
        made_of = Receiving(settings, storage.broker, metrics, tenancy, health_monitor, certificates, reports, began_s, live)
        listening = await stack.enter_async_context(receiving(made_of, stopping))
        clickhouse_port = await stack.enter_async_context(
            answering_clickhouse(settings, storage, metrics, tenancy, caught_up, certificates)
        )
        freeze()

        def started(waits_for: str | None) -> None:
            print_line(
                announcement(
                    settings,
                    *listening,
                    stores=True,
                    admin_key=admin_key,
                    waits_for=waits_for,
                    clickhouse_port=clickhouse_port,
                )
            )

        await stack.enter_async_context(
            _announced(storage.broker, started, lambda: print_line(reached_announcement("collector")))
        )
        return await _wait_for_end(stopping, writing.task, watching, tenancy.task, *storage.opened.tasks)


async def _gateway(settings: Settings, began_s: float, print_line: PrintLine) -> int:
    stopping = GracefulShutdown(settings.shutdown.timeout_s, settings.shutdown.lame_duck_s)
    warn_of_anonymous(settings, anonymous_by_default=False)
    async with AsyncExitStack() as stack:
        metrics = Metrics(settings.tenants.shown_max)
        certificates = await stack.enter_async_context(certificates_in_force(settings, metrics))
        tenancy = await stack.enter_async_context(open_tenancy(settings, processes=1))
        opened = await stack.enter_async_context(open_kafka(settings, metrics, reads=False))
        health_monitor = _health_monitor(settings, opened.broker, metrics, tenancy=tenancy)
        watching = await stack.enter_async_context(running(health_monitor.run(), "observer"))
        reports = await stack.enter_async_context(reports_of_servers(settings, settings.query.page_wait_s))
        live = LiveRecords(time.monotonic)
        made_of = Receiving(settings, opened.broker, metrics, tenancy, health_monitor, certificates, reports, began_s, live)
        listening = await stack.enter_async_context(receiving(made_of, stopping))
        freeze()

        def started(waits_for: str | None) -> None:
            print_line(announcement(settings, *listening, stores=False, waits_for=waits_for))

        await stack.enter_async_context(
            _announced(opened.broker, started, lambda: print_line(reached_announcement("collector")))
        )
        return await _wait_for_end(stopping, watching, tenancy.task, *opened.tasks)


async def _work(job: Job, connection: socket.socket) -> int:
    # A signal to all processes at once (Ctrl-C, systemd) also reaches the supervisor, which passes it on. So a second signal
    # has no meaning here.
    shutdown = job.settings.shutdown
    stopping = GracefulShutdown(shutdown.timeout_s, shutdown.lame_duck_s, [signal.SIGTERM, AT_ONCE], twice_ends=False)
    metrics = Metrics()
    if job.restarted:
        metrics.restarted()
    live = LiveRecords(time.monotonic)
    link = await Link.open(connection, metrics.snapshot, live.answer)
    linked = asyncio.create_task(link.run(), name="link")
    linked.add_done_callback(lambda _: stopping.ask())
    try:
        if job.command == "gateway":
            return await _receive(job, metrics, live, link, stopping)
        return await _write(job, metrics, link, stopping)
    except CannotRun as error:
        await link.cannot_run(str(error))
        return 1


async def _receive(job: Job, metrics: Metrics, live: LiveRecords, link: Link, stopping: GracefulShutdown) -> int:
    settings = job.settings
    async with AsyncExitStack() as stack:
        certificates = await stack.enter_async_context(certificates_in_force(settings, metrics))
        tenancy = await stack.enter_async_context(open_tenancy(settings, processes=settings.gateway.workers))
        opened = await stack.enter_async_context(open_kafka(settings, metrics, reads=False))
        health_monitor = _health_monitor(settings, opened.broker, metrics, tenancy=tenancy)
        watching = await stack.enter_async_context(running(health_monitor.run(), "observer"))
        reports = await stack.enter_async_context(reports_of_servers(settings, settings.query.page_wait_s))
        made_of = Receiving(
            settings,
            opened.broker,
            metrics,
            tenancy,
            health_monitor,
            certificates,
            reports,
            job.began_s,
            live,
            link,
            job.unix_descriptors,
        )
        await stack.enter_async_context(receiving(made_of, stopping))
        freeze()
        await stack.enter_async_context(_announced(opened.broker, link.started, link.started))
        return await _wait_for_end(stopping, watching, tenancy.task, *opened.tasks)


async def _write(job: Job, metrics: Metrics, link: Link, stopping: GracefulShutdown) -> int:
    settings = job.settings
    async with AsyncExitStack() as stack:
        certificates = await stack.enter_async_context(certificates_in_force(settings, metrics))
        try:
            storage = await stack.enter_async_context(open_storage_when_free(settings, metrics, stopping))
        except StoppedWaiting:
            return 0
        writing = await stack.enter_async_context(running_writer(settings, storage, metrics, stopping))
        await stack.enter_async_context(following_plans(settings, storage.store.apply_schema))
        health_monitor = _health_monitor(settings, storage.broker, metrics, storage.store, writing.writer)
        watching = await stack.enter_async_context(running(health_monitor.run(), "observer"))
        caught_up = caught_up_with(storage, writing.writer)
        await stack.enter_async_context(auditing_on_schedule(settings, storage, metrics, caught_up))

        async def shown() -> Snapshot:
            await health_monitor.update_for_scrape()
            return await link.gather_shown()

        app = writer_pages(
            version=VERSION,
            health=health_monitor.health,
            metrics_page=metrics_page(settings, metrics, None, shown, health_monitor.newest_dead_letters),
            uptime_s=lambda: time.monotonic() - job.began_s,
        )
        gate = PageGate(app, settings.http, metrics, refusals(settings))
        descriptors = prepare(
            settings.http.connections_max, settings.open_files_reserve, metrics.connection_refused_for_descriptors
        )
        metrics.descriptors_reserve(descriptors.reserve)
        server = HttpServer(
            gate,
            settings.host,
            [settings.writer.port],
            settings.http,
            metrics,
            certificates=certificates,
            reuse_port=True,
            descriptors=descriptors,
        )
        stack.push_async_callback(server.stop, 1.0)
        stack.push_async_callback(lame_duck, stopping, health_monitor, server)
        await listen(settings, server)
        freeze()
        await stack.enter_async_context(_announced(storage.broker, link.started, link.started))
        return await _wait_for_end(stopping, writing.task, watching, *storage.opened.tasks)


async def _wait_for_end(stopping: GracefulShutdown, *parts: asyncio.Task[None]) -> int:
    """Wait until the process is asked to stop, or a part ends by itself. Return the exit status: 0 or 1. Raises CannotRun if a
    part ended with it."""
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


@asynccontextmanager
async def _announced(broker: Broker, started: Callable[[str | None], None], reached: Callable[[], None]) -> AsyncIterator[None]:
    """Call `started` with the reason why the broker cannot be used, or None. If there is a reason, call `reached` as soon as
    the broker can be used."""
    failure = broker.failure
    started(failure)
    if failure is None:
        yield
        return

    async def watch() -> None:
        while broker.failure is not None:  # noqa: ASYNC110  # brokers have no event for it
            await asyncio.sleep(_LOOK_S)
        reached()

    async with running(watch(), "announcer"):
        yield


def _disk(settings: Settings, store: "ClickHouseStore | None") -> Disk | None:
    """Return the disk of the data directory, if this process has its store in it."""
    if store is None or not has_data_dir(settings):
        return None
    return data_disk(settings, warning="the disk is low: each insert is looked up until there is room")


def _health_monitor(
    settings: Settings,
    broker: Broker,
    metrics: Metrics,
    store: "ClickHouseStore | None" = None,
    writer: Writer | None = None,
    tenancy: Tenancy | None = None,
) -> HealthMonitor:
    """Return the monitor of the broker, and of the store if this process writes to one."""
    local = broker if isinstance(broker, LocalLog) else None
    return HealthMonitor(
        metrics,
        broker,
        local_log=local,
        disk=local.disk if local is not None else _disk(settings, store),
        dead_letters=store.open_dead_letters if store is not None else None,
        owns=writer.owns if writer is not None else None,
        # An engine in this process needs no ping.
        ping_store=store.ping if store is not None and not is_embedded(settings) else None,
        writer_state=(lambda: writer.state) if writer is not None else None,
        failures=tenancy.failures if tenancy is not None else None,
        caught_up=writer.drained if writer is not None else None,
        newest_items=store.newest_items if store is not None else None,
        damaged_parts=store.damaged_parts if store is not None and is_embedded(settings) else None,
    )
