"""The receivers, over HTTP and gRPC, and the pipeline behind them."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from collector.api.app import PAGE_PATHS, pages
from collector.api.metrics_page import MetricsPage
from collector.api.router import reading
from collector.api.web.app import SettingShown, Sources, WebUi
from collector.app.health_monitor import HealthMonitor
from collector.app.ports import UnixSockets, is_local, listens
from collector.app.queries import replayer_of
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
from collector.ingest.validate import Limits
from collector.query.batches import BatchReports, RecentBatches
from collector.query.live_records import LiveRecords
from collector.receivers.grpc.server import GrpcServer
from collector.receivers.http.asgi import HttpApplication
from collector.receivers.http.server import HttpServer
from collector.receivers.responses import Explain, explain
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
    """The ports that are listened on."""

    http_port: int
    otlp_port: int
    grpc_port: int


@asynccontextmanager
async def receiving(
    settings: Settings,
    producer: Producer,
    metrics: Metrics,
    tenancy: Tenancy,
    standing: HealthMonitor,
    stopping: GracefulShutdown,
    certificates: Certificates | None,
    reports: DeadLetterReports | None,
    began_s: float,
    live: LiveRecords,
    link: Link | None = None,
    unix_descriptors: Mapping[str, int] | None = None,
) -> AsyncIterator[Listening]:
    """HTTP and gRPC. `link`: this process is one of several on the same ports, and tells the metrics of all.
    `unix_descriptors`: as UnixSockets has them."""
    in_flight_bytes_max = settings.broker.in_flight_bytes_max
    in_flight = InFlight(in_flight_bytes_max, int(in_flight_bytes_max * settings.tenants.in_flight_share_max))
    metrics.watch_in_flight(lambda: in_flight.bytes_held, in_flight_bytes_max)
    message_bytes_max = settings.broker.message_bytes_max
    caps = Caps(settings.dead_letters.items_per_minute_max, settings.dead_letters.bytes_per_minute_max)
    recent = RecentBatches(settings.query.recent_batches_max)
    large_bodies = LargeBodies()
    pipeline = Pipeline(
        Produce(producer, metrics),
        Limits(**settings.validation.model_dump()),
        tenancy.limiter,
        DeadLetters(caps, settings.message_bytes_largest, settings.dead_letters.payload_bytes_max),
        Receipts(os.urandom(16)),
        metrics,
        message_bytes_max=message_bytes_max,
        message_row_bytes_max=settings.broker.message_row_bytes_max,
        now_unix_nano=time.time_ns,
        large_bodies=large_bodies,
        recent=recent,
        fingerprints=request_fingerprints(settings),
        live=live,
    )
    batches = BatchReports(None if reports is None else reports.reader, recent)
    refuse = refusals(settings)

    async def own() -> Snapshot:
        return metrics.snapshot()

    async def shown() -> Snapshot:
        await standing.count_new_dead_letters()
        return metrics.shown() if link is None else await link.gather_shown()

    def uptime_s() -> float:
        return time.monotonic() - began_s

    began = datetime.fromtimestamp(time.time() - uptime_s(), UTC)
    gather = own if link is None else link.gather
    shown_metrics = metrics_page(settings, metrics, tenancy.access, shown)
    web = WebUi(
        Sources(
            version=VERSION,
            health=standing.health,
            uptime_s=uptime_s,
            snapshot=shown_metrics.snapshot,
            gather=gather,
            plans=tenancy.plans,
            settings=lambda: [SettingShown(*shown) for shown in in_force(settings)],
            letters=reports,
            replayer=None if reports is None else replayer_of(settings, producer, reports),
            form_bytes_max=settings.http.form_bytes_max,
            body_timeout_s=settings.http.body_timeout_s,
        ),
        tenancy.access,
        refuse,
    )
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
            metrics_page=shown_metrics,
            uptime_s=uptime_s,
            reading=reading(
                tenancy.access, gather, began, reports, batches, live.answer if link is None else link.live_records
            ),
            web=web,
            explain=refuse,
        ),
        page_paths=PAGE_PATHS,
        access=tenancy.access,
        explain=refuse,
    )
    descriptors = prepare(
        settings.http.connections_max + settings.grpc.connections_max,
        settings.open_files_reserve,
        metrics.connection_refused_for_descriptors,
    )
    metrics.descriptors_reserve(descriptors.reserve)
    unix_sockets = UnixSockets(settings, unix_descriptors)
    further = listens(settings)
    http = HttpServer(
        application,
        settings.host,
        (settings.http.port, settings.http.otlp_port),
        settings.http,
        metrics,
        places=_tcp(further["http.listen"] + further["http.otlp_listen"]),
        unix_sockets=unix_sockets.of("http.listen", "http.otlp_listen"),
        certificates=certificates,
        reuse_port=link is not None,
        descriptors=descriptors,
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
        places=_tcp(further["grpc.listen"]),
        unix_sockets=unix_sockets.of("grpc.listen"),
        certificates=certificates,
        reuse_port=link is not None,
        descriptors=descriptors,
    )
    sender_log = SenderLog(settings.logging.senders_interval_s, time.monotonic) if settings.logging.senders_interval_s else None
    for receiver in (application.receiver, grpc.receiver):
        receiver.sender_log = sender_log
        receiver.logs_requests = settings.logging.requests
    logging_senders = None if sender_log is None else asyncio.create_task(sender_log.run(), name="sender log")
    try:
        await listen(settings, http, grpc)
        http_port, otlp_port = http.ports
        application.receiver.grpc_places = f"port {grpc.port}"
        yield Listening(http_port, otlp_port, grpc.port)
    finally:
        await lame_duck(stopping, standing, http, grpc)
        grace_s = stopping.left_s(RECEIVERS_SHARE)
        await asyncio.gather(http.stop(grace_s), grpc.stop(grace_s))
        if logging_senders is not None:
            logging_senders.cancel()
            await asyncio.wait({logging_senders})
        unix_sockets.close()
        large_bodies.close()


def _tcp(places: tuple[Place, ...]) -> list[tuple[str, int]]:
    return [(place.host, place.port) for place in places if isinstance(place, TcpPlace)]


async def lame_duck(stopping: GracefulShutdown, standing: HealthMonitor, *servers: HttpServer | GrpcServer) -> None:
    """Announce the end to balancers and clients, and give those that use the servers the time to go elsewhere. Requests are
    answered meanwhile."""
    standing.stopping()
    for server in servers:
        server.leave()
    if stopping.lame_duck_s and any(server.is_used for server in servers):
        await asyncio.sleep(stopping.lame_duck_s)
    stopping.end_lame_duck()


def refusals(settings: Settings) -> Explain:
    """Return what maps errors to answers."""
    return partial(explain, retry_after_s=settings.broker.retry_after_s, upgrade_url=settings.tenants.upgrade_url)


def metrics_page(
    settings: Settings, metrics: Metrics, access: Access | None, gather: Callable[[], Awaitable[Snapshot]] | None = None
) -> MetricsPage:
    """GET /metrics. `gather`: of all processes, where there are several."""
    names = settings.tenants.metrics_names
    return MetricsPage(
        metrics,
        access,
        interval_s=settings.http.metrics_interval_s,
        names_for_all=names == "yes" or (names == "auto" and is_local(settings)),
        clock=time.monotonic,
        gather=gather,
    )


def request_fingerprints(settings: Settings) -> RequestFingerprints:
    """Return what decides which requests are recognized when they are sent again."""
    repetitions = settings.repetitions
    hashed = [name for name in HASHED if getattr(repetitions, name) == "body"]
    return RequestFingerprints(repetitions.window_s, hashed, repetitions.answers_max)


@asynccontextmanager
async def certificates_in_force(settings: Settings, metrics: Metrics) -> AsyncIterator[Certificates | None]:
    """Yield the certificates in force, kept up to date; None: no TLS. Raises CannotRun."""
    if settings.tls.cert_file is None:
        yield None
        return
    certificates = Certificates(settings.tls, metrics)
    async with running(certificates.run(), "certificates"):
        yield certificates


async def listen(settings: Settings, *servers: HttpServer | GrpcServer) -> None:
    """Start them. Raises CannotRun."""
    try:
        for server in servers:
            await server.start()
    except OSError as error:
        raise CannotRun(f"cannot listen on {settings.host}: {error.strerror or error}") from error
