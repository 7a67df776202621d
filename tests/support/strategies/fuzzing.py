"""What a fuzzer throws bytes at: every decoder, each with what has to hold of any bytes.

A target raises AssertionError (or whatever should never be raised) where it does not. `make fuzz` runs them under Atheris,
guided by coverage; `tests/fuzz/test_corpus.py` runs what that has found, and mutations of it, with every `make test`.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Callable
from typing import Any, Final

from support.fakes.receiving import Receivers, receivers
from support.fakes.wire import Wire, grpc_shared, http_shared
from support.http2 import frame
from support.limits import LOW
from support.references.json_readers import check_native, check_readers
from support.references.native import nanoseconds
from support.references.twins import BATCH_ID, MESSAGE_BYTES_MAX, NOW, adapt_otlp, check_otlp, check_v1, check_v2
from support.strategies.http2_frames import encoded, frames_of, ops_of

import adapters.otlp.json as otlp_json
from adapters.codec.decompress import decompress
from adapters.codec.rfc3339 import INVALID, parse_time
from adapters.errors import Malformed, RequestRefused
from adapters.native import request as native
from adapters.otlp.json_fields import ENUM_NAMES, SNAKE_CASE
from adapters.record import SOURCE_NATIVE, Adapted, Header
from collector.dead_letters.payloads import edited_payload, shown
from collector.http2.engine import INTERNAL_ERROR, PREFACE, STREAM_ID_MAX
from collector.ingest.validate import LimitRules
from collector.receivers.grpc.connection import GrpcConnection
from collector.receivers.http.http1 import Http1Connection
from collector.receivers.http.http2 import Http2Connection
from collector.store.payload_index import contents, dead_letter_ids

Target = Callable[[bytes], None]
DECOMPRESSED_BYTES_MAX: Final = 100_000
GOAWAY: Final = 7
# But for 501 and 505, which are what a stranger deserves.
SERVER_ERROR: Final = re.compile(rb"HTTP/1\.1 5(?!01|05)")
# With which every connection of HTTP/2 begins.
SETTINGS: Final = frame(4)
# The last whole one that a number of nanoseconds in 64 bits can hold.
LAST_SECOND: Final = 9_223_372_036
PAYLOAD_FORMS: Final = (
    "native_json",
    "otlp_metrics",
    "otlp_logs",
    "otlp_traces",
    "prometheus_write_v1",
    "prometheus_write_v2",
)


def _otlp(signal: str) -> Target:
    return lambda body: check_otlp(signal, body)


def _otlp_json(signal: str, to_wire: Callable[[bytes], bytes]) -> Target:
    def target(body: bytes) -> None:
        """What is JSON becomes protobuf that is well-formed, and each of its items has an outcome. Its two readers agree."""
        check_readers(signal, body, SNAKE_CASE | ENUM_NAMES)
        try:
            wire = to_wire(body)
        except Malformed:
            return
        json.loads(body.decode(errors="replace"))  # whatever was taken is JSON to others, too
        adapt_otlp(signal, wire)

    return target


def _native(body: bytes) -> None:
    """One record, or many: read or refused, and each record has an outcome. Its two readers agree."""
    check_native(body, LOW, is_batch=False)
    check_native(body, LOW, is_batch=True)
    header = Header("acme", SOURCE_NATIVE, NOW, BATCH_ID)
    rules = LimitRules(LOW, NOW)
    for adapt in (native.adapt, _batch):
        try:
            adapted = adapt(body, header, rules, MESSAGE_BYTES_MAX)
        except RequestRefused:
            continue
        document: Any = json.loads(body.decode(errors="replace"))
        items = len(document) if adapt is _batch else 1
        assert adapted.accepted_count() + adapted.rejected_count() == items


def _batch(body: bytes, header: Header, rules: LimitRules, message_bytes_max: int) -> Adapted:
    return native.adapt_batch(body, header, rules, message_bytes_max, 1_000)


def _decompress(encoding: str) -> Target:
    def target(body: bytes) -> None:
        """Within its limit, or refused."""
        with contextlib.suppress(RequestRefused):
            assert len(decompress(body, encoding, DECOMPRESSED_BYTES_MAX)) <= DECOMPRESSED_BYTES_MAX

    return target


def _payload(body: bytes) -> None:
    """A dead letter's is shown, whatever it is; what is not what it claims to be can't be edited."""
    for form in PAYLOAD_FORMS:
        json.dumps(shown(form, body).decoded)
        with contextlib.suppress(RequestRefused, ValueError):
            edited_payload(form, body)


def _stored(body: bytes) -> None:
    """Messages that the writer looks into, to tell what is stored of them."""
    for read in (contents, dead_letter_ids):
        with contextlib.suppress(ValueError):
            read(body)


def _time(body: bytes) -> None:
    """A number, as the twin reads it, or one that says that it is none."""
    try:
        expected = nanoseconds(body.decode())
    except UnicodeDecodeError:
        expected = None
    if expected is None:
        assert parse_time(body) == INVALID
    elif 0 < expected < LAST_SECOND * 10**9:
        assert parse_time(body) == expected


def _check_frames(written: bytes) -> None:
    """What a connection says is whole frames, and no end of it is a defect of ours."""
    for kind, _, payload in frames_of(written):
        if kind == GOAWAY and int.from_bytes(payload[:4], "big") != STREAM_ID_MAX:
            assert int.from_bytes(payload[4:8], "big") != INTERNAL_ERROR


async def _conversation(connection: Any, wire: Wire, body: bytes, tasks: set[asyncio.Task[Any]]) -> None:
    """All of it said, in two pieces, and all that came of it done."""
    connection.connection_made(wire)
    half = len(body) // 2
    for piece in (body[:half], body[half:]):
        if piece and not wire.is_closed:
            connection.data_received(piece)
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    connection.connection_lost(None)  # what has not ended by now has no end
    while tasks:
        await asyncio.sleep(0)


def _http1(body: bytes) -> None:
    """A connection that says anything: no defect of ours, nothing held at the end, and no task that goes on."""

    async def converse() -> Receivers:
        made = receivers(body_bytes_max=10_000, header_bytes_max=2_048)
        shared, wire = http_shared(made), Wire()
        await _conversation(Http1Connection(shared), wire, body, shared.tasks)
        assert not SERVER_ERROR.search(wire.written)
        return made

    assert asyncio.run(converse()).in_flight.bytes_held == 0


def _http2(body: bytes) -> None:
    """As that, in HTTP/2: frames, after the preface."""

    async def converse() -> Receivers:
        made = receivers(body_bytes_max=10_000, header_bytes_max=2_048)
        shared, wire = http_shared(made), Wire()
        await _conversation(Http2Connection(shared), wire, PREFACE + SETTINGS + body, shared.tasks)
        _check_frames(bytes(wire.written))
        return made

    assert asyncio.run(converse()).in_flight.bytes_held == 0


def _http2_frames(script: bytes) -> None:
    """As that, in frames that are well made, with real heads."""
    _http2(encoded(ops_of(script)))


def _grpc_frames(script: bytes) -> None:
    _grpc(encoded(ops_of(script)))


def _grpc(body: bytes) -> None:
    """As that, over gRPC: and no call is a defect of ours."""

    async def converse() -> Receivers:
        made = receivers()
        shared, wire = grpc_shared(made, message_bytes_max=10_000, header_bytes_max=2_048), Wire()
        await _conversation(GrpcConnection(shared), wire, PREFACE + SETTINGS + body, shared.tasks)
        assert b"grpc-status\x0213" not in wire.written
        _check_frames(bytes(wire.written))
        return made

    assert asyncio.run(converse()).in_flight.bytes_held == 0


TARGETS: Final[dict[str, Target]] = {
    "otlp_metrics": _otlp("metrics"),
    "otlp_logs": _otlp("logs"),
    "otlp_traces": _otlp("traces"),
    "otlp_metrics_json": _otlp_json("metrics", otlp_json.metrics_to_wire),
    "otlp_logs_json": _otlp_json("logs", otlp_json.logs_to_wire),
    "otlp_traces_json": _otlp_json("traces", otlp_json.traces_to_wire),
    "write_v1": check_v1,
    "write_v2": check_v2,
    "native": _native,
    "gzip": _decompress("gzip"),
    "zstd": _decompress("zstd"),
    "snappy": _decompress("snappy"),
    "payload": _payload,
    "stored": _stored,
    "time": _time,
    "http1": _http1,
    "http2": _http2,
    "grpc": _grpc,
    "http2_frames": _http2_frames,
    "grpc_frames": _grpc_frames,
}
