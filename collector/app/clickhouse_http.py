"""Answers ClickHouse's HTTP protocol from the embedded store, on a separate port."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from collector.api.clickhouse.app import ClickHouseApi
from collector.api.clickhouse.turns import QueryTurns
from collector.api.query_socket import CaughtUp
from collector.app.data_dir import is_embedded
from collector.app.receivers import refusals
from collector.app.storage import Storage
from collector.app.tenancy import Tenancy
from collector.config.settings import Settings
from collector.receivers.http.page_gate import PageGate
from collector.receivers.http.server import HttpServer
from collector.receivers.transport.certificates import Certificates
from collector.telemetry.metrics import Metrics

_STOP_S: Final = 1.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def answering_clickhouse(
    settings: Settings,
    storage: Storage,
    metrics: Metrics,
    tenancy: Tenancy,
    caught_up: CaughtUp,
    certificates: Certificates | None,
) -> AsyncIterator[int | None]:
    """Answer ClickHouse's protocol inside this context, and yield the port. Yield None if it is not answered: without an
    embedded store, without store.http_port, or if the port cannot be bound, which is logged."""
    port = settings.store.http_port
    if port is None or not is_embedded(settings):
        yield None
        return
    version, timezone = await asyncio.to_thread(storage.store.version_and_timezone)
    api = ClickHouseApi(
        tenancy.access,
        storage.store.answer,
        caught_up,
        version=version,
        timezone=timezone,
        sql_bytes_max=settings.query.sql_bytes_max,
        turns=QueryTurns(settings.query.concurrent_max, settings.store.http_overdue_max, settings.store.query_time_max_s),
        connections_max=settings.store.http_connections_max,
        wait_s=settings.query.page_wait_s,
        body_timeout_s=settings.query.body_timeout_s,
    )
    limits = settings.http.model_copy(update={"connections_max": settings.store.http_connections_max})
    server = HttpServer(
        PageGate(api, limits, metrics, refusals(settings)),
        settings.store.http_host,
        [port],
        limits,
        metrics,
        certificates=certificates,
        takes_page_bodies=True,
    )
    try:
        try:
            await server.start()
        except OSError as error:
            reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            log.warning(
                "ClickHouse's protocol is not answered: the port cannot be bound; everything else runs. store.http_port names"
                " another, or none",
                host=settings.store.http_host,
                port=port,
                reason=reason,
            )
            yield None
            return
        yield server.ports[0]
    finally:
        await server.stop(_STOP_S)
        api.close()
