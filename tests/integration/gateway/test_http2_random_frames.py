"""Random frames with real heads, on connections of HTTP and gRPC: nothing that a client sends raises or is held."""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.fakes.receiving import Receivers, receivers
from support.fakes.wire import Wire, grpc_shared, http_shared
from support.http2 import frame, pieces
from support.strategies.http2_frames import OPS, Op, encoded, frames_of

from collector.http2.engine import INTERNAL_ERROR, PREFACE, STREAM_ID_MAX
from collector.receivers.grpc.connection import GrpcConnection
from collector.receivers.http.http2 import Http2Connection

GOAWAY = 7


@lru_cache
def made() -> Receivers:
    return receivers(with_pages=True, header_bytes_max=2048, concurrent_streams_max=4)


def http() -> tuple[Any, Any]:
    shared = http_shared(made())
    return Http2Connection(shared), shared


def grpc() -> tuple[Any, Any]:
    shared = grpc_shared(made(), header_bytes_max=2048, concurrent_streams_max=4)
    return GrpcConnection(shared), shared


async def converse(connection: Any, shared: Any, parts: list[bytes], waits: list[int]) -> bytes:
    wire = Wire()
    connection.connection_made(wire)
    now = asyncio.get_running_loop().time()
    for number, part in enumerate(parts):
        if not wire.is_closed:
            connection.data_received(part)
        for _ in range(waits[number % len(waits)] if waits else 0):
            await asyncio.sleep(0)
            now += 9
            if not wire.is_closed:
                connection.close_if_late(now)
    connection.connection_lost(None)
    while shared.tasks:
        await asyncio.sleep(0)
    assert connection not in shared.open
    return bytes(wire.written)


@pytest.mark.parametrize("make", [http, grpc])
@examples(300)
@given(ops=OPS, cuts=st.lists(st.integers(0, 100_000), max_size=6), waits=st.lists(st.integers(0, 6), max_size=4))
def test_nothing_that_a_client_sends_raises_or_is_held(
    make: Callable[[], tuple[Any, Any]], ops: list[Op], cuts: list[int], waits: list[int]
) -> None:
    """This holds however it is cut and delayed: no defect, no line in the log, and only whole frames are answered."""

    async def run() -> bytes:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        connection, shared = make()
        return await converse(connection, shared, pieces(PREFACE + frame(4) + encoded(ops), cuts), waits)

    problems: list[dict[str, Any]] = []
    with structlog.testing.capture_logs() as logs:
        written = asyncio.run(run())
    assert [] == logs
    assert [] == problems
    for kind, _, payload in frames_of(written):
        if kind == GOAWAY and int.from_bytes(payload[:4], "big") != STREAM_ID_MAX:
            assert int.from_bytes(payload[4:8], "big") != INTERNAL_ERROR
    assert made().in_flight.bytes_held == 0


def test_a_defect_is_one_line_a_minute() -> None:
    """Clients that meet it cause no traceback each."""
    with structlog.testing.capture_logs() as logs:
        shared = http_shared(made())
        for _ in range(3):
            shared.defect(ValueError("a defect"))
    assert ["error"] == [entry["log_level"] for entry in logs]
