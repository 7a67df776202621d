"""The answer of /healthz, wherever it is asked; and the writer's two pages.

Invariants:
1. A page answers at once, from what is known (test_a_store_that_hangs_hides_nothing_else).
"""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.routing import Route
from starlette.types import ASGIApp

from collector.api.documents import Page
from collector.api.metrics_page import METRICS_PATH
from collector.receivers.http.page_gate import HEALTH_PATH

# Said of a store that this process has nothing to do with.
NOT_USED: Final = "not used"
# What `kafka` and `clickhouse` are about: the names are the API's, whatever there is in their place.
KAFKA: Final = "kafka"
EMBEDDED_LOG: Final = "embedded log"
CLICKHOUSE: Final = "clickhouse"
EMBEDDED_ENGINE: Final = "embedded engine"


class Health(NamedTuple):
    """The state of the two things that the collector depends on: "ok", or a word for the problem.

    `kafka` is the broker in use, `clickhouse` the store in use; NOT_USED if there is none.
    """

    clickhouse: str
    kafka: str
    log: str = NOT_USED
    """The files of the local log; NOT_USED where there is none."""
    is_stopping: bool = False
    """Whether the process leaves: it still answers, but nothing new should come to it."""
    broker: str = KAFKA
    """KAFKA or EMBEDDED_LOG."""
    store: str = NOT_USED
    """CLICKHOUSE, EMBEDDED_ENGINE or NOT_USED."""


class HealthAnswer(BaseModel):
    """200 when ready to accept telemetry, else 503: without its broker the gateway can't accept, without its store it can.

    A collector that stops is 503 and still accepts, so that balancers have the time to send elsewhere.
    """

    status: Literal["ok", "degraded", "unavailable", "stopping"]
    version: str = Field(examples=["1.2.0"])
    uptime_seconds: int = Field(examples=[3601])
    clickhouse: str = Field(
        description="ok, or what is the matter with the store: unavailable; degraded: something is not stored yet; damaged"
        " parts: of the embedded engine, put aside until someone removes them. A gateway has no store: not used",
        examples=["ok"],
    )
    kafka: str = Field(description="ok, or what is the matter with the broker", examples=["ok"])
    log: str = Field(
        description="ok; damaged: the local log's files were found damaged, until an operator confirms it with `log confirm`;"
        " removed: they were removed or replaced while the collector runs, and it takes nothing; with Kafka: not used",
        examples=["ok"],
    )
    broker: str = Field(
        description='What `kafka` is about: "kafka"; or "embedded log", where there is no Kafka', examples=["kafka"]
    )
    store: str = Field(
        description='What `clickhouse` is about: "clickhouse"; "embedded engine", where there is no ClickHouse server; or'
        ' "not used"',
        examples=["clickhouse"],
    )


def status_of(health: Health, *, receives: bool) -> Literal["ok", "degraded", "unavailable", "stopping"]:
    """All of it in one word. `receives`: as of health_answer."""
    if health.is_stopping:
        return "stopping"
    if health.kafka != "ok":
        return "unavailable" if receives else "degraded"
    if health.clickhouse not in ("ok", NOT_USED) or health.log not in ("ok", NOT_USED):
        return "degraded"
    return "ok"


def health_answer(health: Health, *, receives: bool, version: str, uptime_s: float) -> JSONResponse:
    """`receives`: telemetry comes in here, and can't without the broker. Who only writes waits for both, and needs no help."""
    status = status_of(health, receives=receives)
    answer = HealthAnswer(
        status=status,
        version=version,
        uptime_seconds=int(uptime_s),
        clickhouse=health.clickhouse,
        kafka=health.kafka,
        log=health.log,
        broker=health.broker,
        store=health.store,
    )
    return JSONResponse(answer.model_dump(), 503 if status in ("unavailable", "stopping") else 200)


def writer_pages(*, version: str, health: Callable[[], Health], metrics_page: Page, uptime_s: Callable[[], float]) -> ASGIApp:
    """The application of the writer command: /healthz and /metrics, nothing else."""
    app = FastAPI(title="InfraSage writer", version=version, openapi_url=None, redirect_slashes=False)

    @app.get(HEALTH_PATH)
    async def healthz() -> JSONResponse:
        return health_answer(health(), receives=False, version=version, uptime_s=uptime_s())

    app.router.routes.append(Route(METRICS_PATH, metrics_page, methods=["GET"]))
    return app
