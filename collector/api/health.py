"""The answer of /healthz for all commands, and the writer's two pages.

Invariants:
1. /healthz answers at once, from the last known state (test_a_store_that_hangs_hides_nothing_else).
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

# The state of a part that this process does not use.
NOT_USED: Final = "not used"
# The kinds of broker and store that `kafka` and `clickhouse` report. These two names are the API's, whatever is used instead.
KAFKA: Final = "kafka"
EMBEDDED_LOG: Final = "embedded log"
CLICKHOUSE: Final = "clickhouse"
EMBEDDED_ENGINE: Final = "embedded engine"


class Health(NamedTuple):
    """The state of the broker, the store and the local log: "ok", or a word for the problem.

    `kafka` is the state of the broker in use, and `clickhouse` that of the store in use; NOT_USED if there is none.
    """

    clickhouse: str
    kafka: str
    log: str = NOT_USED
    """The state of the local log's files; NOT_USED if there is no local log."""
    is_stopping: bool = False
    """Whether the process is stopping: it still answers, but clients should go elsewhere."""
    broker: str = KAFKA
    """KAFKA or EMBEDDED_LOG."""
    store: str = NOT_USED
    """CLICKHOUSE, EMBEDDED_ENGINE or NOT_USED."""


class HealthAnswer(BaseModel):
    """The status is 200 if the collector can accept telemetry, else 503. It needs its broker for that, and not its store.

    A collector that is stopping answers 503 and still accepts, so that balancers have the time to send elsewhere.
    """

    status: Literal["ok", "degraded", "unavailable", "stopping"]
    version: str = Field(examples=["1.2.0"])
    uptime_seconds: int = Field(examples=[3601])
    clickhouse: str = Field(
        description="The state of the store. ok. unavailable. degraded: something is not stored yet. damaged parts: parts of"
        " the embedded engine, put aside until someone removes them. not used: the process has no store, as a gateway",
        examples=["ok"],
    )
    kafka: str = Field(description="The state of the broker: ok, or the problem", examples=["ok"])
    log: str = Field(
        description="The state of the local log's files. ok. damaged: they were found damaged, until an operator confirms it"
        " with `log confirm`. removed: they were removed or replaced while the collector runs, and it accepts nothing. not"
        " used: Kafka is the broker",
        examples=["ok"],
    )
    broker: str = Field(
        description='The broker whose state `kafka` is: "kafka", or "embedded log" without Kafka', examples=["kafka"]
    )
    store: str = Field(
        description='The store whose state `clickhouse` is: "clickhouse", "embedded engine" without a ClickHouse server, or'
        ' "not used"',
        examples=["clickhouse"],
    )


def status_of(health: Health, *, receives: bool) -> Literal["ok", "degraded", "unavailable", "stopping"]:
    """Return the whole state in one word. `receives` is as in health_answer."""
    if health.is_stopping:
        return "stopping"
    if health.kafka != "ok":
        return "unavailable" if receives else "degraded"
    if health.clickhouse not in ("ok", NOT_USED) or health.log not in ("ok", NOT_USED):
        return "degraded"
    return "ok"


def health_answer(health: Health, *, receives: bool, version: str, uptime_s: float) -> JSONResponse:
    """Return the answer of /healthz.

    `receives` is whether the process accepts telemetry, which it can't without the broker. A writer waits for broker and store,
    and needs no restart, so its status is then 200 and degraded."""
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
    """Return the application of the writer command: /healthz and /metrics, nothing else."""
    app = FastAPI(title="InfraSage writer", version=version, openapi_url=None, redirect_slashes=False)

    @app.get(HEALTH_PATH)
    async def healthz() -> JSONResponse:
        return health_answer(health(), receives=False, version=version, uptime_s=uptime_s())

    app.router.routes.append(Route(METRICS_PATH, metrics_page, methods=["GET"]))
    return app
