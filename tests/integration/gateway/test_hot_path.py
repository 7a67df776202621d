"""What a request costs in calls of interpreted functions: a number that a busy machine can't move.

The hot path is compiled, so that a call which the interpreter sees is one that was added beside it: a wrapper, a library, a
property. None may be made for each item; and of those for each request the number is written down here. Who has to raise it
should know why: a hundred of them are what a request of one record costs altogether.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hpack import Encoder
from support.fakes.receiving import Receivers, otlp_logs, otlp_metrics, otlp_traces, post, receivers
from support.fakes.wire import Wire, grpc_shared, http_shared
from support.http2 import frame
from support.otlp_grpc import LOGS, METRICS, TRACES

from collector.http2.engine import PREFACE
from collector.receivers.grpc.connection import GrpcConnection
from collector.receivers.http.http1 import Http1Connection
from collector.runtime.version import is_compiled

# Of one request over HTTP, from its bytes to its answer, without what the broker does. A failure names them. Two are of the
# clock that gives the loop back within a small body (collector/ingest/large_bodies.py).
CALLS_MAX = 10
PROTOBUF = "application/x-protobuf"
BODIES = {"metrics": otlp_metrics, "logs": otlp_logs, "traces": otlp_traces}


@pytest.fixture(autouse=True)
def compiled() -> None:
    if not is_compiled():
        message = "the hot path is not compiled here, so this test counted nothing"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


Conversation = Callable[[Receivers, Wire], tuple[Any, set[asyncio.Task[Any]]]]


def over_http(made: Receivers, wire: Wire) -> tuple[Any, set[asyncio.Task[Any]]]:
    """A connection that has begun, and its tasks."""
    shared = http_shared(made)
    connection: Any = Http1Connection(shared)
    connection.connection_made(wire)
    return connection, shared.tasks


def over_grpc(made: Receivers, wire: Wire) -> tuple[Any, set[asyncio.Task[Any]]]:
    shared = grpc_shared(made)
    connection = GrpcConnection(shared)
    connection.connection_made(wire)
    connection.data_received(PREFACE + frame(4))
    return connection, shared.tasks


def calls_of(converse: Conversation, requests: list[bytes], answer: bytes) -> Counter[str]:
    """The interpreted functions that the last request calls, once everything is warm. `answer`: what is in each one's."""

    async def count() -> Counter[str]:
        made, wire = receivers(), Wire()
        connection, tasks = converse(made, wire)
        calls: Counter[str] = Counter()

        def watch(called: FrameType, event: str, _argument: object) -> None:
            name = called.f_code.co_filename
            # <string>: what makes a named tuple.
            if (
                event == "call"
                and (name == "<string>" or "/collector/" in name or "/adapters/" in name)
                and "/tests/" not in name
            ):
                calls[f"{name.rpartition('site-packages/')[2]}:{called.f_code.co_name}"] += 1

        for request in requests:
            wire.written.clear()
            if request is requests[-1]:
                sys.setprofile(watch)
            connection.data_received(request)
            while tasks:
                await asyncio.sleep(0)
            sys.setprofile(None)
            assert answer in wire.written
        connection.connection_lost(None)
        return calls

    return asyncio.run(count())


def http_calls(signal: str, items: int) -> Counter[str]:
    body = BODIES[signal](good=items)
    # Each an object of its own: that identifies the last one.
    requests = [post(f"/v1/{signal}", PROTOBUF, body, f"X-Number: {number}") for number in range(3)]
    return calls_of(over_http, requests, b"HTTP/1.1 200 ")


def grpc_calls(signal: str, items: int) -> Counter[str]:
    body = BODIES[signal](good=items)
    message = b"\0" + len(body).to_bytes(4, "big") + body
    encoder = Encoder()
    service = {"metrics": METRICS, "logs": LOGS, "traces": TRACES}[signal]
    head = [(":method", "POST"), (":scheme", "http"), (":path", service.method), ("content-type", "application/grpc")]
    requests = []
    for stream_id in (1, 3, 5, 7):
        frames = [frame(1, encoder.encode(head), stream_id=stream_id, flags=4)]
        for at in range(0, len(message), 16_384):
            ends = at + 16_384 >= len(message)
            frames.append(frame(0, message[at : at + 16_384], stream_id=stream_id, flags=int(ends)))
        requests.append(b"".join(frames))
    return calls_of(over_grpc, requests, b"\x0bgrpc-status\x010")


EACH_WAY = pytest.mark.parametrize("calls", [http_calls, grpc_calls])


@EACH_WAY
@pytest.mark.parametrize("signal", BODIES)
def test_no_interpreted_call_is_made_for_an_item(calls: Callable[[str, int], Counter[str]], signal: str) -> None:
    """A request of a thousand makes those of a request of one."""
    assert calls(signal, 1) == calls(signal, 1000)


@EACH_WAY
@pytest.mark.parametrize("signal", BODIES)
def test_no_interpreted_call_was_added_to_a_request(calls: Callable[[str, int], Counter[str]], signal: str) -> None:
    made = calls(signal, 1)
    assert made.total() <= CALLS_MAX, made
