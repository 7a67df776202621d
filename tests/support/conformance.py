"""OTLP over every transport and encoding at once: what is sent, and what its sender is answered, whichever it is.

The tests of `tests/conformance` are named by the numbers of its items.py; docs/internals/conformance.md is made from both.
"""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import cramjam
import grpc
import httpx
import pytest
from google.protobuf.json_format import Parse
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from grpc import aio
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from support.fakes.receiving import Receivers, grpc_receivers, http_receivers, otlp_logs, otlp_metrics, otlp_traces
from support.otlp_grpc import UNCOMPRESSED
from support.references.otlp_json import to_json

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


class Signal(NamedTuple):
    """One of OTLP's three."""

    name: str
    service: str
    request: Any
    response: Any
    rejected_field: str
    body: Any  # (good, late) gives a serialized request

    @property
    def path(self) -> str:
        return f"/v1/{self.name}"

    def made(self, good: int = 1, late: int = 0) -> Any:
        return self.request.FromString(self.body(good=good, late=late))


_PREFIX = "opentelemetry.proto.collector"
METRICS = Signal(
    "metrics",
    f"{_PREFIX}.metrics.v1.MetricsService",
    metrics_service_pb2.ExportMetricsServiceRequest,
    metrics_service_pb2.ExportMetricsServiceResponse,
    "rejected_data_points",
    otlp_metrics,
)
LOGS = Signal(
    "logs",
    f"{_PREFIX}.logs.v1.LogsService",
    logs_service_pb2.ExportLogsServiceRequest,
    logs_service_pb2.ExportLogsServiceResponse,
    "rejected_log_records",
    otlp_logs,
)
TRACES = Signal(
    "traces",
    f"{_PREFIX}.trace.v1.TraceService",
    trace_service_pb2.ExportTraceServiceRequest,
    trace_service_pb2.ExportTraceServiceResponse,
    "rejected_spans",
    otlp_traces,
)
SIGNALS = (METRICS, LOGS, TRACES)
EACH_SIGNAL = pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)


class Way(NamedTuple):
    """A transport and encoding."""

    name: str
    is_grpc: bool
    is_json: bool
    is_gzip: bool

    @property
    def content_type(self) -> str:
        return JSON if self.is_json else PROTOBUF

    def encoded(self, request: Message | bytes) -> bytes:
        """Before compression."""
        if isinstance(request, bytes):
            return request
        return json.dumps(to_json(request)).encode() if self.is_json else request.SerializeToString()


GRPC = (Way("gRPC", True, False, False), Way("gRPC gzip", True, False, True))
HTTP_PROTOBUF = (Way("HTTP protobuf", False, False, False), Way("HTTP protobuf gzip", False, False, True))
HTTP_JSON = (Way("HTTP JSON", False, True, False), Way("HTTP JSON gzip", False, True, True))


def _each(*ways: Way) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", ways, ids=lambda way: way.name)


# docs/internals/conformance.md tells by these names over what a test is run: see docs/generate.py.
EACH_WAY = _each(*GRPC, *HTTP_PROTOBUF, *HTTP_JSON)
EACH_HTTP_WAY = _each(*HTTP_PROTOBUF, *HTTP_JSON)
EACH_GRPC_WAY = _each(*GRPC)
EACH_PROTOBUF_WAY = _each(*GRPC, *HTTP_PROTOBUF)
EACH_JSON_WAY = _each(*HTTP_JSON)


class Told(NamedTuple):
    """What a sender hears. `response`: of what was taken; `status`: of what was refused."""

    response: Any | None
    status: Status | None
    http: httpx.Response | None
    error: aio.AioRpcError | None

    @property
    def is_success(self) -> bool:
        return self.response is not None

    def is_refused(self, *, http: int, code: grpc.StatusCode) -> bool:
        """With these codes, each where it is heard. Over gRPC without initial metadata, over HTTP in the Status too."""
        if self.status is None:
            return False
        if self.error is not None:
            assert not self.error.initial_metadata()
            assert self.error.code().value[0] == self.status.code
            return self.error.code() is code
        assert self.http is not None
        return (self.http.status_code, self.status.code) == (http, code.value[0])


class Client:
    """Sends to one collector by any way."""

    def __init__(self, made: Receivers, http: httpx.AsyncClient, channel: aio.Channel) -> None:
        self.made = made
        self.http = http
        self.channel = channel

    async def send(self, way: Way, signal: Signal, request: Message | bytes, **headers: str) -> Told:
        body = way.encoded(request)
        return await (self._grpc if way.is_grpc else self._http)(way, signal, body, headers)

    async def _grpc(self, way: Way, signal: Signal, body: bytes, headers: dict[str, str]) -> Told:
        call: Any = self.channel.unary_unary(f"/{signal.service}/Export")
        compression = grpc.Compression.Gzip if way.is_gzip else grpc.Compression.NoCompression
        try:
            answer = await call(
                body, timeout=20, compression=compression, metadata=[(name.lower(), text) for name, text in headers.items()]
            )
        except aio.AioRpcError as error:
            details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
            return Told(None, Status.FromString(details) if isinstance(details, bytes) else Status(), None, error)
        return Told(signal.response.FromString(answer), None, None, None)

    async def _http(self, way: Way, signal: Signal, body: bytes, headers: dict[str, str]) -> Told:
        sent = {"content-type": way.content_type} | headers
        if way.is_gzip:
            body = gzip.compress(body, mtime=0)
            sent["content-encoding"] = "gzip"
        answer = await self.http.post(signal.path, content=body, headers=sent)
        assert answer.headers["content-type"] == way.content_type
        kind = signal.response if answer.status_code == 200 else Status
        told = Parse(answer.content, kind()) if way.is_json else kind.FromString(answer.content)
        return Told(told, None, answer, None) if answer.status_code == 200 else Told(None, told, answer, None)

    async def write(self, content_type: str, body: bytes, **headers: str) -> httpx.Response:
        """Remote write, compressed as it always is."""
        content = bytes(cramjam.snappy.compress_raw(body))
        return await self.write_raw(content, **{"content-type": content_type, "content-encoding": "snappy"} | headers)

    async def write_raw(self, content: bytes, **headers: str) -> httpx.Response:
        return await self.http.post("/api/v1/prometheus/write", content=content, headers=headers)


@asynccontextmanager
async def collector(*, grpc_settings: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Client]:
    """One that listens on both transports, and a client of it. `settings`: of http_receivers."""
    async with (
        http_receivers(**settings) as made,
        grpc_receivers(made, **(grpc_settings or {})) as (_, server),
        httpx.AsyncClient(base_url=made.url, timeout=20) as http,
        aio.insecure_channel(f"127.0.0.1:{server.port}", options=UNCOMPRESSED) as channel,
    ):
        del http.headers["accept-encoding"]
        yield Client(made, http, channel)
