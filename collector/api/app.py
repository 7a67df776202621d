"""The pages that are not routes for telemetry: health, metrics, the list of types, the description of the native API, the pages
that need a key, and the web pages.

The POST routes of the native API are only described here. collector/receivers/http/asgi.py answers them.

Invariants:
1. /openapi.json lists every answer of the native API that a sender can get, with every error code
   (test_the_description_has_every_error_code_of_the_native_api).
2. No page loads anything from another site (test_the_pages_load_nothing_from_elsewhere). For the web pages, see
   collector/api/web/rendering.py.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import fastapi_offline
import orjson
import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.errors import (
    INVALID_HISTOGRAM,
    INVALID_LABELS,
    INVALID_PARAMETER,
    INVALID_PROTOBUF,
    INVALID_SPAN_ID,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    REASONS,
    STORE_UNAVAILABLE,
    UNSPECIFIED_TEMPORALITY,
    Reason,
    RequestRefused,
)
from adapters.record import TYPE_NAMES
from collector.api.documents import Document, FileDocuments, Page
from collector.api.health import Health, HealthAnswer, health_answer
from collector.api.metrics_page import METRICS_PATH
from collector.api.router import READING_PATHS
from collector.api.web.app import WEB_PATHS
from collector.api.web.login import HOME, TREE
from collector.ingest import endpoints
from collector.receivers import encodings
from collector.receivers.http.page_gate import HEALTH_PATH
from collector.receivers.refusals import Explain, codes_of
from collector.receivers.responses import NATIVE
from collector.telemetry.metrics import Metrics

STATIC_TREE: Final = "/static-offline-docs/"
_STATIC_FILES: Final = Path(fastapi_offline.__file__).parent / "static"

PAGE_PATHS: Final = frozenset(
    {
        "/api/v1/telemetry-types",
        HEALTH_PATH,
        METRICS_PATH,
        "/openapi.json",
        "/docs",
        "/docs/oauth2-redirect",
        "/redoc",
        STATIC_TREE,
        *READING_PATHS,
        *WEB_PATHS,
    }
)

log = structlog.get_logger(__name__)

# Reasons that no record of the native API can have.
_OF_OTHER_PROTOCOLS: Final = {INVALID_PROTOBUF, INVALID_SPAN_ID, INVALID_LABELS, INVALID_HISTOGRAM, UNSPECIFIED_TEMPORALITY}
# Reasons that no POST route of the native API can answer with.
_OF_OTHER_ROUTES: Final = {NOT_FOUND, INVALID_PARAMETER, STORE_UNAVAILABLE}


class TypesAnswer(BaseModel):
    """The types of record."""

    types: list[str] = Field(examples=[list(TYPE_NAMES[1:])])
    default: str = Field(examples=["metric"])


class TelemetryRecord(BaseModel):
    """A measurement or an event."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "service_id": "payment-api",
                    "type": "metric",
                    "metric_name": "cpu_usage_percent",
                    "value": 87.3,
                    "timestamp": "2026-04-10T12:00:00Z",
                    "attributes": {"region": "us-east-1", "env": "production"},
                }
            ]
        }
    )

    service_id: str = Field(description="The service that the record is from.")
    type: Literal["metric", "log", "trace", "event", "profile", "slo"] = "metric"
    metric_name: str | None = Field(default=None, description="Required for metric, trace, slo and profile.")
    value: float | None = Field(default=None, description="A finite float64. Required for metric, trace, slo and profile.")
    body: str | None = Field(default=None, description="Required for log and event.")
    trace_id: str | None = Field(default=None, description="32 hex digits; anything else is kept as an attribute.")
    timestamp: str = Field(
        description="RFC 3339; up to nine digits of a second are kept.", json_schema_extra={"format": "date-time"}
    )
    attributes: dict[str, Any] | None = Field(default=None, description="Any key-value tags.")


class Queued(BaseModel):
    """The answer to one record, which is durable."""

    status: Literal["ok"]
    queued: Literal[1]


class Failure(BaseModel):
    """A record of a batch that was rejected."""

    index: int = Field(description="The record's place in the array, from 0.", examples=[45])
    error: str = Field(examples=["timestamp_too_old"])
    message: str = Field(examples=["Timestamp is more than 24h in the past"])


class BatchQueued(BaseModel):
    """The answer to a batch. Its queued records are durable; the others failed."""

    status: Literal["ok"]
    queued: int = Field(examples=[1000])
    failed: int = Field(examples=[1])
    failures: list[Failure] = Field(description="The first 10,000 failed records.")


class ErrorAnswer(BaseModel):
    """The request as a whole was refused. None of its records is stored."""

    status: Literal["error"]
    error: str = Field(examples=["invalid_value"])
    message: str = Field(examples=["value must be a finite float64; got NaN"])


def pages(
    *,
    version: str,
    health: Callable[[], Health],
    metrics: Metrics,
    metrics_page: Page,
    uptime_s: Callable[[], float],
    reading: APIRouter,
    web: ASGIApp,
    explain: Explain,
) -> ASGIApp:
    """Return the application for PAGE_PATHS.

    `health` is called at each request to /healthz, and must not wait. `uptime_s` returns the seconds since the start.
    `reading` has the pages that need a key, and `web` is the application of WEB_PATHS. `explain` maps errors to answers.
    """
    # FastAPI's own documentation pages load scripts from other sites, and /redoc fonts.
    app = FastAPIOffline(
        title="InfraSage collector",
        version=version,
        summary="Telemetry in: OTLP, Prometheus remote write, and this JSON API.",
        redirect_slashes=False,
    )

    # FastAPIOffline would read these files for each answer, and hold a descriptor until the client has read it. See _Pages.
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "name", "") != "static-offline-docs"]

    @app.get("/api/v1/telemetry-types", tags=["telemetry"], summary="The types of record")
    async def telemetry_types() -> TypesAnswer:
        return TypesAnswer(types=list(TYPE_NAMES[1:]), default="metric")

    @app.get(
        HEALTH_PATH,
        tags=["operation"],
        summary="Whether telemetry is accepted",
        response_model=HealthAnswer,
        responses={503: {"model": HealthAnswer, "description": "Telemetry is not accepted."}},
    )
    async def healthz() -> JSONResponse:
        return health_answer(health(), receives=True, version=version, uptime_s=uptime_s())

    app.include_router(reading)

    def refusal(error: RequestRefused, **headers: str) -> Response:
        answer = NATIVE.refused(explain(error))
        response_headers = {name.decode(): value.decode() for name, value in answer.headers} | headers
        return Response(answer.body, answer.status, response_headers, "application/json")

    _answer_errors(app, metrics, refusal)

    def description() -> bytes:
        paths = get_openapi(title=app.title, version=version, summary=app.summary, routes=app.routes)
        return orjson.dumps(_with_metrics(_with_telemetry(paths)))

    return _Pages(app, metrics_page, web, description, refusal)


def _answer_errors(app: FastAPI, metrics: Metrics, refusal: Callable[..., Response]) -> None:
    """Make `app` answer its errors by `refusal`."""

    @app.exception_handler(RequestRefused)
    async def refused(_: Request, error: RequestRefused) -> Response:
        metrics.refused(error.reason)
        return refusal(error)

    @app.exception_handler(HTTPException)
    async def not_there(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            method = RequestRefused(METHOD_NOT_ALLOWED, f"{request.method} is not allowed for {request.url.path}: use GET")
            return refusal(method, allow="GET, HEAD")
        return refusal(RequestRefused(NOT_FOUND, "there is no such page; see /docs"))


class _Pages:
    """The application of all pages. It sends /metrics, /openapi.json and static files from memory, web pages by `web`, and the
    others by FastAPI."""

    def __init__(
        self,
        app: FastAPI,
        metrics_page: Page,
        web: ASGIApp,
        description: Callable[[], bytes],
        refusal: Callable[..., Response],
    ) -> None:
        """`description` returns the body of /openapi.json. It takes long, so a thread calls it, once."""
        self._app: Final = app
        self._web: Final = web
        self._pages: Final[dict[str, Page]] = {METRICS_PATH: metrics_page, "/openapi.json": self._describe}
        self._files: Final = FileDocuments(_STATIC_FILES)
        self._description: Final = description
        self._describing: asyncio.Task[Document] | None = None
        self._refusal: Final = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path == HOME or path.startswith(TREE):
            await self._web(scope, receive, send)
            return
        page = self._pages.get(path)
        if page is None and path.startswith(STATIC_TREE):
            page = self._file(path.removeprefix(STATIC_TREE))
        if page is None:
            await self._app(scope, receive, send)
        elif scope["method"] != "GET":
            refused = RequestRefused(METHOD_NOT_ALLOWED, f"{scope['method']} is not allowed for {path}: use GET")
            await self._refusal(refused, allow="GET, HEAD")(scope, receive, send)
        else:
            try:
                await page(scope, receive, send)
            except RequestRefused as error:  # nothing was sent yet
                await self._refusal(error)(scope, receive, send)

    def _file(self, name: str) -> Page | None:
        """Return a static file of the documentation; None if there is none, or it can't be read."""
        try:
            return self._files.find(name)
        except OSError as error:
            log.error("a file of the documentation can't be read", name=name, error=str(error))
            return None

    async def _describe(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer /openapi.json. The first request makes the document, which the others wait for."""
        if self._describing is None:
            self._describing = asyncio.create_task(asyncio.to_thread(self._described))
        await (await asyncio.shield(self._describing))(scope, receive, send)

    def _described(self) -> Document:
        return Document(self._description(), "application/json", has_etag=True)


def _with_metrics(document: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI document with /metrics added, which FastAPI does not answer."""
    content: dict[str, Any] = {"text/plain": {}, "application/openmetrics-text": {}}
    document["paths"][METRICS_PATH] = {
        "get": {
            "tags": ["operation"],
            "operationId": "metrics",
            "summary": "Prometheus text, or OpenMetrics if Accept asks for it",
            "description": "At most http.metrics_interval_s old, but with every dead letter that came before the request."
            " Names of tenants are shown for a key of scope admin, or if tenants.metrics_names allows it;"
            " otherwise all tenants are one series with an empty label.",
            "responses": {"200": {"description": "All metrics.", "content": content}},
        }
    }
    return document


def _with_telemetry(document: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI document with the POST routes of the native API added."""
    models = (TelemetryRecord, Queued, BatchQueued, Failure, ErrorAnswer)
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
    one = {"$ref": "#/components/schemas/TelemetryRecord"}
    many = {"type": "array", "items": one, "description": "At most http.batch_items_max records, by default 10,000."}
    document["paths"][endpoints.NATIVE] = {
        "post": _operation("send_one", "Send one record", one, "Queued", {"status": "ok", "queued": 1}, is_single=True)
    }
    failures = [{"index": 45, "error": "timestamp_too_old", "message": "Timestamp is more than 24h in the past"}]
    batch_answer = {"status": "ok", "queued": 1000, "failed": 1, "failures": failures}
    document["paths"][endpoints.NATIVE_BATCH] = {
        "post": _operation("send_batch", "Send many records", many, "BatchQueued", batch_answer, is_single=False)
    }
    return document


def _operation(
    operation_id: str, summary: str, schema: dict[str, Any], answer: str, example: dict[str, Any], *, is_single: bool
) -> dict[str, Any]:
    """Return the description of a POST route. `is_single` is whether it takes one record, and not a batch.

    A rejected record refuses a request of its own. In a batch it is among the `failures` of the answer."""
    by_status: dict[int, list[Reason]] = {}
    for reason in REASONS:
        if reason.code not in _OF_OTHER_PROTOCOLS and reason.code not in _OF_OTHER_ROUTES:
            by_status.setdefault(codes_of(reason.code).http, []).append(reason)
    responses: dict[str, Any] = {
        "200": {
            "description": "The record is durable."
            if is_single
            else "Queued records are durable. The others are in `failures`, with the codes of 400.",
            "headers": {
                "X-InfraSage-Batch-Id": {"description": "The receipt: a UUID.", "schema": {"type": "string", "format": "uuid"}}
            },
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}, "example": example}},
        }
    }
    for status, reasons in sorted(by_status.items()):
        described: dict[str, Any] = {
            "description": "; ".join(f"`{reason.name}`: {reason.meaning}" for reason in reasons),
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/ErrorAnswer"},
                    "examples": {
                        reason.name: {
                            "summary": reason.remedy,
                            "value": {"status": "error", "error": reason.name, "message": reason.meaning},
                        }
                        for reason in reasons
                    },
                }
            },
        }
        if codes_of(reasons[0].code).retryable:
            described["headers"] = {
                "Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}
            }
        responses[str(status)] = described
    return {
        "tags": ["telemetry"],
        "operationId": operation_id,
        "summary": summary,
        "parameters": [
            {"name": "X-API-Key", "in": "header", "required": False, "schema": {"type": "string"}},
            {
                "name": "Content-Encoding",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "enum": [name.decode() for name in encodings.HTTP if name]},
            },
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": responses,
    }
