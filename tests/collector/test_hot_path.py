"""What a request costs in calls of interpreted functions: a number that a busy machine can't move.

The hot path is compiled, so that a call which the interpreter sees is one that was added beside it: a wrapper, a library, a
property. None may be made for each item; and of those for each request the number is written down here. Who has to raise it
should know why: a hundred of them are what a request of one record costs altogether.
"""

import asyncio
import os
import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest
from support.fuzzing import Wire
from support.receiving import otlp_logs, otlp_metrics, otlp_traces, post, receivers

from collector.receive.servers.connections import Shared
from collector.receive.servers.http1 import Http1Connection
from collector.version import is_compiled

# Of one request over HTTP, from its bytes to its answer, without what the broker does. A failure names them.
CALLS_MAX = 9
PROTOBUF = "application/x-protobuf"
BODIES = {"metrics": otlp_metrics, "logs": otlp_logs, "traces": otlp_traces}


@pytest.fixture(autouse=True)
def compiled() -> None:
    if not is_compiled():
        message = "the hot path is not compiled here, so this test counted nothing"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def calls_of(request: bytes) -> Counter[str]:
    """The interpreted functions that one request calls, once everything is warm."""

    async def converse() -> Counter[str]:
        made = receivers()
        shared = Shared(made.app, made.http_settings, made.metrics, receiver=made.app.receiver, is_page=made.app.is_page)
        connection = Http1Connection(shared)
        wire: Any = Wire()
        connection.connection_made(wire)
        calls: Counter[str] = Counter()

        def watch(frame: FrameType, event: str, _argument: object) -> None:
            name = frame.f_code.co_filename
            # <string>: what makes a named tuple.
            if (
                event == "call"
                and (name == "<string>" or "/collector/" in name or "/adapters/" in name)
                and "/tests/" not in name
            ):
                calls[f"{name.rpartition('site-packages/')[2]}:{frame.f_code.co_name}"] += 1

        for warm in (True, True, False):
            wire.written.clear()
            if not warm:
                sys.setprofile(watch)
            connection.data_received(request)
            while shared.tasks:
                await asyncio.sleep(0)
            sys.setprofile(None)
            assert wire.written.startswith(b"HTTP/1.1 200 ")
        connection.connection_lost(None)
        return calls

    return asyncio.run(converse())


@pytest.mark.parametrize("signal", BODIES)
def test_no_interpreted_call_is_made_for_an_item(signal: str) -> None:
    """A request of a thousand makes those of a request of one."""
    path, body = f"/v1/{signal}", BODIES[signal]
    one = calls_of(post(path, PROTOBUF, body(good=1)))
    many = calls_of(post(path, PROTOBUF, body(good=1000)))
    assert one == many


@pytest.mark.parametrize("signal", BODIES)
def test_no_interpreted_call_was_added_to_a_request(signal: str) -> None:
    calls = calls_of(post(f"/v1/{signal}", PROTOBUF, BODIES[signal](good=1)))
    assert calls.total() <= CALLS_MAX, calls
