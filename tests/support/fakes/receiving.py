"""The receivers with all that is behind them but the broker: that one keeps messages in memory, and can fail or wait."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from infrasage.v1.telemetry_v1_pb2 import TelemetryRecordV1
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.records import flat
from support.references.remote_write import write_request, write_request_v2

from adapters.rules import MESSAGE_ROW_BYTES_MAX
from collector.api.app import PAGE_PATHS, pages
from collector.api.health import Health
from collector.api.metrics_page import MetricsPage
from collector.api.router import reading
from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, Message
from collector.config.receivers import Grpc, Http, Validation
from collector.dead_letters.queries import DeadLetterReports
from collector.ingest.large_bodies import LargeBodies
from collector.ingest.pipeline import Pipeline
from collector.ingest.produce import InFlight, Produce
from collector.ingest.receipts import Receipts
from collector.ingest.request_fingerprints import RequestFingerprints
from collector.ingest.validate import KeptDays, Limits
from collector.rate_limit.contract import Limiter
from collector.rate_limit.local import LocalLimiter
from collector.receivers.grpc.server import GrpcServer
from collector.receivers.grpc.services import Service
from collector.receivers.http.asgi import HttpApplication
from collector.receivers.http.server import HttpServer
from collector.receivers.http.telemetry_request import Route
from collector.receivers.refusals import explain
from collector.receivers.routes import GRPC_SERVICES, http_routes
from collector.receivers.transport.certificates import Certificates
from collector.records.dead_letter import Caps, DeadLetters
from collector.telemetry.aggregate import Snapshot
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope

# What the clock of every receiver here says: 2026-04-10T12:00:00Z.
NOW_UNIX_NANO = 1_775_822_400_000_000_000
NOW = datetime.fromtimestamp(NOW_UNIX_NANO / 1e9, UTC).isoformat().replace("+00:00", "Z")
LONG_AGO_UNIX_NANO = NOW_UNIX_NANO - 10**9 * 86_400 * 2
RETRY_AFTER_S = 3.0
PROCESS_ID = bytes(range(16))
NOTHING_KEPT = Caps(0, 0)
# Of every source what is older than a day is too old: two days ago is late, whatever it came by.
ONE_WINDOW = {
    "otlp_metrics_past_max_s": 0,
    "otlp_logs_past_max_s": 0,
    "otlp_traces_past_max_s": 0,
    "remote_write_past_max_s": 0,
}


class MemoryProducer:
    """Keeps what is appended. With an `error` it keeps nothing and raises that; while `gate` is closed, appends wait."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.appends = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()

    async def append(self, messages: Sequence[Message]) -> None:
        self.appends += 1
        self.waiting.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.messages.extend(messages)

    def records(self) -> list[TelemetryRecordV1]:
        """All that was kept, flat."""
        return [record for message in self.messages for record in flat(message.payload).records]

    def item_count(self) -> int:
        """The items of all that was kept."""
        return sum(record.item_count for record in self.records())


@dataclass
class Receivers:
    """What a test may look at and turn."""

    producer: MemoryProducer
    in_flight: InFlight
    metrics: Metrics
    pipeline: Pipeline
    app: HttpApplication
    http_settings: Http
    access: Access
    health: list[Health] = field(default_factory=lambda: [Health("ok", "ok")])
    server: HttpServer | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return self.server.ports[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def counted(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        return counted(self.metrics, name, **labels)


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    """As `Receivers.counted`. Of the page before it is written: its text is test_exposition's, and takes long to read back."""
    return sum(
        value
        for family in metrics.shown()
        for (sample, of), value in family.samples.items()
        if sample == name and labels.items() <= dict(of).items()
    )


async def _no_pages(*_: object) -> None:
    raise AssertionError("there are no pages")


ANONYMOUS = Caller("anonymous", Scope.INGEST, UNLIMITED, "")
EXPLAIN = partial(explain, retry_after_s=RETRY_AFTER_S, upgrade_url="/billing/plans")


def nobody(_key: bytes) -> Caller | None:
    """Whose a key is where there are none."""
    return None


def receivers(
    *,
    in_flight_bytes_max: int = 1 << 30,
    tenant_bytes_max: int | None = None,
    message_bytes_max: int = 1 << 19,
    message_row_bytes_max: int = MESSAGE_ROW_BYTES_MAX,
    find: Callable[[bytes], Caller | None] = nobody,
    anonymous: Caller | None = ANONYMOUS,
    limiter: Limiter | None = None,
    tenants_shown_max: int = 50,
    caps: Caps = NOTHING_KEPT,
    routes: Callable[[int], Mapping[str, Route]] = http_routes,
    with_pages: bool = False,
    dead_letters: DeadLetterReports | None = None,
    names_for_all: bool = True,
    validation: Mapping[str, Any] | None = None,
    kept_days: KeptDays | None = None,
    fingerprints: RequestFingerprints | None = None,
    now_unix_nano: Callable[[], int] = lambda: NOW_UNIX_NANO,
    gather: Callable[[], Awaitable[Snapshot]] | None = None,
    **http: Any,
) -> Receivers:
    """All but servers; `http` and `validation` are settings of these sections. The pages, which take a while to make, only if
    asked for.

    `find`: whose a key is, as the keyring's. `gather`: the metrics of several processes.
    """
    settings = Http.model_validate(http)
    producer = MemoryProducer()
    metrics = Metrics(tenants_shown_max)
    in_flight = InFlight(in_flight_bytes_max, in_flight_bytes_max if tenant_bytes_max is None else tenant_bytes_max)
    access = Access(find, anonymous)
    pipeline = Pipeline(
        Produce(producer),
        Limits(
            **Validation.model_validate({**ONE_WINDOW, **(validation or {})}).model_dump(),
            kept_days=kept_days or KeptDays({}, {}),
        ),
        LocalLimiter(time.monotonic_ns) if limiter is None else limiter,
        DeadLetters(caps, message_bytes_max),
        Receipts(PROCESS_ID),
        metrics,
        message_bytes_max=message_bytes_max,
        message_row_bytes_max=message_row_bytes_max,
        now_unix_nano=now_unix_nano,
        large_bodies=LargeBodies(),
        fingerprints=fingerprints,
    )
    health = [Health("ok", "ok")]

    async def snapshot() -> Snapshot:
        return metrics.snapshot()

    app = HttpApplication(
        pipeline,
        in_flight,
        metrics,
        settings,
        routes=routes(settings.batch_items_max),
        pages=pages(
            version="1.2.0",
            health=lambda: health[0],
            metrics=metrics,
            metrics_page=MetricsPage(
                metrics,
                access,
                interval_s=settings.metrics_interval_s,
                names_for_all=names_for_all,
                clock=time.monotonic,
                gather=gather,
            ),
            uptime_s=lambda: 3601.9,
            reading=reading(access, gather or snapshot, datetime(2026, 4, 10, 11, tzinfo=UTC), dead_letters),
            web=_no_pages,
            explain=EXPLAIN,
        )
        if with_pages
        else _no_pages,
        page_paths=PAGE_PATHS if with_pages else frozenset(),
        access=access,
        explain=EXPLAIN,
    )
    return Receivers(producer, in_flight, metrics, pipeline, app, settings, access, health)


@asynccontextmanager
async def http_receivers(
    server: str = "builtin", ports: int = 1, certificates: Certificates | None = None, **settings: Any
) -> AsyncIterator[Receivers]:
    """Receivers that listen for HTTP on free ports."""
    made = receivers(server=server, **settings)
    made.server = HttpServer(made.app, "127.0.0.1", [0] * ports, made.http_settings, made.metrics, certificates=certificates)
    await made.server.start()
    try:
        yield made
    finally:
        made.producer.gate.set()
        await made.server.stop(2)


@asynccontextmanager
async def grpc_receivers(
    made: Receivers | None = None,
    *,
    certificates: Certificates | None = None,
    services: Sequence[Service] = GRPC_SERVICES,
    **settings: Any,
) -> AsyncIterator[tuple[Receivers, GrpcServer]]:
    """Receivers that listen for gRPC on a free port; `settings` are of that section."""
    if made is None:
        made = receivers()
    server = GrpcServer(
        made.pipeline,
        made.in_flight,
        made.metrics,
        Grpc.model_validate({"port": 0} | settings),
        host="127.0.0.1",
        services=services,
        access=made.access,
        explain=EXPLAIN,
        certificates=certificates,
    )
    await server.start()
    try:
        yield made, server
    finally:
        made.producer.gate.set()
        await server.stop(2)


# Bodies: each of so many good items and so many that are too old.


def otlp_metrics(good: int = 1, late: int = 0, padding: int = 0) -> bytes:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m", description="x" * padding)
    for moment in _moments(good, late):
        metric.gauge.data_points.add(time_unix_nano=moment, as_double=1.5)
    return request.SerializeToString()


def otlp_logs(good: int = 1, late: int = 0, padding: int = 0) -> bytes:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for moment in _moments(good, late):
        scope.log_records.add(time_unix_nano=moment).body.string_value = "x" * padding
    return request.SerializeToString()


def otlp_traces(good: int = 1, late: int = 0, padding: int = 0) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for moment in _moments(good, late):
        scope.spans.add(
            trace_id=b"t" * 16,
            span_id=b"s" * 8,
            name="s",
            trace_state="x" * padding,
            start_time_unix_nano=moment,
            end_time_unix_nano=moment,
        )
    return request.SerializeToString()


def otlp_traces_json(good: int = 1, late: int = 0, padding: int = 0) -> bytes:
    spans = [
        {
            "traceId": "74" * 16,
            "spanId": "73" * 8,
            "name": "s",
            "startTimeUnixNano": str(moment),
            "endTimeUnixNano": str(moment),
        }
        for moment in _moments(good, late)
    ]
    return _padded({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}, padding)


def otlp_logs_json(good: int = 1, late: int = 0, padding: int = 0) -> bytes:
    records = [{"timeUnixNano": str(moment), "body": {"stringValue": "b"}} for moment in _moments(good, late)]
    return _padded({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}, padding)


def otlp_metrics_json(good: int = 1, late: int = 0, padding: int = 0) -> bytes:
    points = [{"timeUnixNano": str(moment), "asDouble": 1.5} for moment in _moments(good, late)]
    return _padded(
        {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "gauge": {"dataPoints": points}}]}]}]}, padding
    )


def native_record(good: int = 1, late: int = 0, padding: int = 0) -> bytes:
    return _padded(next(_native(good, late)), padding)


def native_batch(good: int = 1, late: int = 0, padding: int = 0) -> bytes:
    return _padded(list(_native(good, late)), padding)


def remote_write(good: int = 1, late: int = 0, padding: int = 0) -> bytes:
    """Not compressed."""
    return write_request([_series(good, late, padding)])


def remote_write_v2(good: int = 1, late: int = 0, padding: int = 0) -> bytes:
    """Not compressed. A series without samples would be an item, and not a good one."""
    return write_request_v2([_series(good, late, padding)] if good + late else [])


def _series(good: int, late: int, padding: int) -> tuple[dict[str, str], list[tuple[float, int]]]:
    samples = [(1.5, moment // 1_000_000) for moment in _moments(good, late)]
    return {"__name__": "m", "job": "j", "x": "y" * (padding + 1)}, samples


def _native(good: int, late: int) -> Iterator[dict[str, object]]:
    for moment in _moments(good, late):
        timestamp = NOW if moment == NOW_UNIX_NANO else "2026-04-08T12:00:00Z"
        yield {"service_id": "payment-api", "metric_name": "cpu", "value": 87.3, "timestamp": timestamp}


def _moments(good: int, late: int) -> Iterator[int]:
    return itertools.chain(itertools.repeat(NOW_UNIX_NANO, good), itertools.repeat(LONG_AGO_UNIX_NANO, late))


def _padded(document: object, padding: int) -> bytes:
    return json.dumps(document).encode() + b" " * padding


# A client that sends exactly the bytes that the test gives it.


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class RawConnection:
    """A TCP connection to a receiver."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Each in a packet of its own, as near as that can be had."""
        for i, piece in enumerate(pieces):
            if i:
                await asyncio.sleep(0.02)
            self.writer.write(piece)
            await self.writer.drain()

    async def response(self, *, to_head: bool = False) -> Response:
        """The next one."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split(" ")[1])
        length = 0 if to_head else int(headers.get("content-length", 0))
        return Response(status, headers, await asyncio.wait_for(self.reader.readexactly(length), 10))

    async def closed(self, within_s: float = 5) -> bool:
        """Whether the other side closes, and sends nothing more."""
        try:
            return await asyncio.wait_for(self.reader.read(), within_s) == b""
        except ConnectionError:
            return True

    def half_close(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[RawConnection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    raw = RawConnection(reader, writer)
    try:
        yield raw
    finally:
        writer.close()


def post(path: str, content_type: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A whole request."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def post_chunked(path: str, content_type: str, body: bytes, *headers: str, chunk_bytes: int = 1000) -> bytes:
    """The same without Content-Length."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {content_type}",
        "Transfer-Encoding: chunked",
        *headers,
    ]
    chunks = [body[i : i + chunk_bytes] for i in range(0, len(body), chunk_bytes)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + framed + b"0\r\n\r\n"


TOPIC_OF = {"metrics": METRICS_TOPIC, "logs": LOGS_TOPIC, "traces": TRACES_TOPIC}
