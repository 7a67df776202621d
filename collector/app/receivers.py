"""Composes the receivers, over HTTP and gRPC, and the pipeline behind them."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from collector.api.app import PAGE_PATHS, pages
from collector.api.metrics_page import MetricsPage
from collector.api.router import reading
from collector.api.web.app import WebUi
from collector.api.web.sources import SettingShown, Sources
from collector.app.health_monitor import HealthMonitor
from collector.app.ports import UnixSockets, is_local, listens
from collector.app.queries import replayer_of
from collector.app.retention import limits_of
from collector.app.tenancy import Tenancy
from collector.app.worker_link import Link
from collector.broker.contract import Producer
from collector.config.places import Place, TcpPlace
from collector.config.settings import Settings
from collector.config.show import in_force
from collector.dead_letters.queries import DeadLetterReports
from collector.ingest.large_bodies import LargeBodies
from collector.ingest.pipeline import Pipeline
from collector.ingest.produce import InFlight, Produce
from collector.ingest.receipts import Receipts
from collector.ingest.request_fingerprints import HASHED, RequestFingerprints
from collector.query.batches import BatchReports
from collector.query.live_records import LiveRecords
from collector.query.recent_batches import RecentBatches
from collector.receivers.grpc.server import GrpcServer
from collector.receivers.http.asgi import HttpApplication
from collector.receivers.http.server import HttpServer
from collector.receivers.refusals import Explain, explain
from collector.receivers.routes import GRPC_SERVICES, http_routes
from collector.receivers.sender_log import SenderLog
from collector.receivers.transport.certificates import Certificates
from collector.records.dead_letter import Caps, DeadLetters
from collector.runtime.descriptors import prepare
from collector.runtime.errors import CannotRun
from collector.runtime.shutdown import RECEIVERS_SHARE, GracefulShutdown, running
from collector.runtime.version import VERSION
from collector.telemetry.aggregate import Snapshot
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access


class Listening(NamedTuple):
    """The ports on which the receivers listen."""

    http_port: int
    otlp_port: int
    grpc_port: int


@dataclass(frozen=True)
class Receiving:
    """The parts of the receivers of one process. `reports` is None if no store can be asked. `began_s` is when the command
    began, by the monotonic clock. With `link`, this process is one of several on the same ports, and answers for all of them.
    `unix_descriptors` are as in UnixSockets."""

    settings: Settings
    producer: Producer
    metrics: Metrics
    tenancy: Tenancy
    health_monitor: HealthMonitor
    certificates: Certificates | None
    reports: DeadLetterReports | None
    began_s: float
    live: LiveRecords
    link: Link | None = None
    unix_descriptors: Mapping[str, int] | None = None

    def uptime_s(self) -> float:
        return time.monotonic() - self.began_s

    async def gather(self) -> Snapshot:
        """Return the metrics of all processes."""
        return self.metrics.snapshot() if self.link is None else await self.link.gather()

    async def shown(self) -> Snapshot:
        """Return the metrics of all processes in the form that everyone may see."""
        await self.health_monitor.update_for_scrape()
        return self.metrics.shown() if self.link is None else await self.link.gather_shown()


@asynccontextmanager
async def receiving(made_of: Receiving, stopping: GracefulShutdown) -> AsyncIterator[Listening]:
    """Receive over HTTP and gRPC inside this context."""
    settings, metrics = made_of.settings, made_of.metrics
    in_flight_bytes_max = settings.broker.in_flight_bytes_max
    in_flight = InFlight(in_flight_bytes_max, int(in_flight_bytes_max * settings.tenants.in_flight_share_max))
    metrics.watch_in_flight(lambda: in_flight.bytes_held, in_flight_bytes_max)
    recent = RecentBatches(settings.query.recent_batches_max)
    large_bodies = LargeBodies()
    pipeline = _pipeline(made_of, recent, large_bodies)
    application = _application(made_of, pipeline, in_flight, recent)
    descriptors = prepare(
        settings.http.connections_max + settings.grpc.connections_max,
        settings.open_files_reserve,
        metrics.connection_refused_for_descriptors,
    )
    metrics.descriptors_reserve(descriptors.reserve)
    unix_sockets = UnixSockets(settings, made_of.unix_descriptors)
    further = listens(settings)
    http = HttpServer(
        application,
        settings.host,
        (settings.http.port, settings.http.otlp_port),
        settings.http,
        metrics,
        places=_tcp(further["http.listen"] + further["http.otlp_listen"]),
        unix_sockets=unix_sockets.of("http.listen", "http.otlp_listen"),
        certificates=made_of.certificates,
        reuse_port=made_of.link is not None,
        descriptors=descriptors,
    )
    grpc = GrpcServer(
        pipeline,
        in_flight,
        metrics,
        settings.grpc,
        host=settings.host,
        services=GRPC_SERVICES,
        access=made_of.tenancy.access,
        explain=refusals(settings),
        places=_tcp(further["grpc.listen"]),
        unix_sockets=unix_sockets.of("grpc.listen"),
        certificates=made_of.certificates,
        reuse_port=made_of.link is not None,
        descriptors=descriptors,
    )
    async with _logging(settings, application, grpc):
        try:
            await listen(settings, http, grpc)
            http_port, otlp_port = http.ports
            application.receiver.grpc_places = f"port {grpc.port}"
            grpc.set_http_places(f"port {otlp_port} or {http_port}")
            yield Listening(http_port, otlp_port, grpc.port)
        finally:
            await lame_duck(stopping, made_of.health_monitor, http, grpc)
            grace_s = stopping.left_s(RECEIVERS_SHARE)
            await asyncio.gather(http.stop(grace_s), grpc.stop(grace_s))
            unix_sockets.close()
            large_bodies.close()


def _pipeline(made_of: Receiving, recent: RecentBatches, large_bodies: LargeBodies) -> Pipeline:
    settings, metrics = made_of.settings, made_of.metrics
    kept = settings.dead_letters
    caps = Caps(kept.items_per_minute_max, kept.bytes_per_minute_max, kept.requests_bytes_per_minute_max)
    return Pipeline(
        Produce(made_of.producer, metrics),
        limits_of(settings, made_of.tenancy.kept_days),
        made_of.tenancy.limiter,
        DeadLetters(caps, settings.message_bytes_largest, kept.payload_bytes_max),
        Receipts(os.urandom(16)),
        metrics,
        message_bytes_max=settings.broker.message_bytes_max,
        message_row_bytes_max=settings.broker.message_row_bytes_max,
        now_unix_nano=time.time_ns,
        large_bodies=large_bodies,
        recent=recent,
        fingerprints=request_fingerprints(settings),
        live=made_of.live,
    )


def _application(made_of: Receiving, pipeline: Pipeline, in_flight: InFlight, recent: RecentBatches) -> HttpApplication:
    """Return the application that answers over HTTP: telemetry, and the pages."""
    settings, access, reports, link = made_of.settings, made_of.tenancy.access, made_of.reports, made_of.link
    refuse = refusals(settings)
    shown_metrics = metrics_page(settings, made_of.metrics, access, made_of.shown, made_of.health_monitor.newest_dead_letters)
    web = WebUi(
        Sources(
            version=VERSION,
            health=made_of.health_monitor.health,
            uptime_s=made_of.uptime_s,
            snapshot=shown_metrics.snapshot,
            gather=made_of.gather,
            plans=made_of.tenancy.plans,
            settings=lambda: [SettingShown(*shown) for shown in in_force(settings)],
            letters=reports,
            replayer=None if reports is None else replayer_of(settings, made_of.producer, reports),
            form_bytes_max=settings.http.form_bytes_max,
            body_timeout_s=settings.http.body_timeout_s,
        ),
        access,
        refuse,
    )
    began = datetime.fromtimestamp(time.time() - made_of.uptime_s(), UTC)
    batches = BatchReports(None if reports is None else reports.reader, recent)
    live = made_of.live.answer if link is None else link.live_records
    return HttpApplication(
        pipeline,
        in_flight,
        made_of.metrics,
        settings.http,
        routes=http_routes(settings.http.batch_items_max),
        pages=pages(
            version=VERSION,
            health=made_of.health_monitor.health,
            metrics=made_of.metrics,
            metrics_page=shown_metrics,
            uptime_s=made_of.uptime_s,
            reading=reading(access, made_of.gather, began, reports, batches, live),
            web=web,
            explain=refuse,
        ),
        page_paths=PAGE_PATHS,
        access=access,
        explain=refuse,
    )


@asynccontextmanager
async def _logging(settings: Settings, application: HttpApplication, grpc: GrpcServer) -> AsyncIterator[None]:
    """Log requests and senders' activity inside this context, by the settings."""
    interval_s = settings.logging.senders_interval_s
    sender_log = SenderLog(interval_s, time.monotonic) if interval_s else None
    for receiver in (application.receiver, grpc.receiver):
        receiver.sender_log = sender_log
        receiver.logs_requests = settings.logging.requests
    if sender_log is None:
        yield
        return
    async with running(sender_log.run(), "sender log"):
        yield


def _tcp(places: tuple[Place, ...]) -> list[tuple[str, int]]:
    return [(place.host, place.port) for place in places if isinstance(place, TcpPlace)]


async def lame_duck(stopping: GracefulShutdown, health_monitor: HealthMonitor, *servers: HttpServer | GrpcServer) -> None:
    """Report to balancers and clients that the process stops, and wait until clients use other processes. Requests are still
    answered."""
    health_monitor.stopping()
    for server in servers:
        server.leave()
    if stopping.lame_duck_s and any(server.is_used for server in servers):
        await asyncio.sleep(stopping.lame_duck_s)
    stopping.end_lame_duck()


def refusals(settings: Settings) -> Explain:
    """Return the function that maps errors to answers."""
    return partial(explain, retry_after_s=settings.broker.retry_after_s, upgrade_url=settings.tenants.upgrade_url)


def metrics_page(
    settings: Settings,
    metrics: Metrics,
    access: Access | None,
    gather: Callable[[], Awaitable[Snapshot]] | None = None,
    newest: Callable[[], Awaitable[object]] | None = None,
) -> MetricsPage:
    """Return the page GET /metrics. `gather` returns the metrics of all processes, if there are several. `newest` is as in
    MetricsPage."""
    names = settings.tenants.metrics_names
    return MetricsPage(
        metrics,
        access,
        interval_s=settings.http.metrics_interval_s,
        names_for_all=names == "yes" or (names == "auto" and is_local(settings)),
        clock=time.monotonic,
        gather=gather,
        newest=newest,
    )


def request_fingerprints(settings: Settings) -> RequestFingerprints:
    """Return the fingerprints by which repeated requests are recognized."""
    repetitions = settings.repetitions
    hashed = [name for name in HASHED if getattr(repetitions, name) == "body"]
    return RequestFingerprints(repetitions.window_s, hashed, repetitions.answers_max)


@asynccontextmanager
async def certificates_in_force(settings: Settings, metrics: Metrics) -> AsyncIterator[Certificates | None]:
    """Yield the certificates in force, kept up to date; None without TLS. Raises CannotRun."""
    if settings.tls.cert_file is None:
        yield None
        return
    certificates = Certificates(settings.tls, metrics)
    async with running(certificates.run(), "certificates"):
        yield certificates


async def listen(settings: Settings, *servers: HttpServer | GrpcServer) -> None:
    """Start the servers. Raises CannotRun."""
    try:
        for server in servers:
            await server.start()
    except OSError as error:
        raise CannotRun(f"cannot listen on {settings.host}: {error.strerror or error}") from error
