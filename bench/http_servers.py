"""What a request costs each HTTP server: the real application and pipeline, an adapter and a broker that do nothing.

    python bench/http_servers.py [--seconds 10] [--connections 32] [--bytes 150] [uvicorn hypercorn]

Prints requests per CPU-second of the server's process, and per second. The sender runs in a process of its own, on keep-alive
connections, one request at a time on each. docs/adr/0003-uvicorn-by-default.md has what decided which is the default.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import uvloop
from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_OTLP_METRICS

from adapters.record import METRICS, SOURCE_OTLP, TYPE_METRIC, Adapted, Header, Part, Rules
from collector.broker.contract import Message
from collector.config import Http, Validation
from collector.dead_letters import Caps, DeadLetters
from collector.limit.local import LocalLimiter
from collector.metrics import Metrics
from collector.pipeline import Input, Pipeline
from collector.produce import InFlight, Produce
from collector.receipts import Receipts
from collector.receive.http import COMPRESSED, Format, HttpApplication, Route
from collector.receive.responses import OtlpJsonDialect, OtlpProtobufDialect, explain
from collector.receive.servers import http_server
from collector.tenancy.access import Access
from collector.tenancy.callers import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope
from collector.validate import Limits

PATH: Final = "/v1/metrics"


def adapt(body: bytes, _header: Header, _rules: Rules, _message_bytes_max: int) -> Adapted:
    """One record, whatever the body."""
    adapted = Adapted()
    adapted.parts.append(Part(METRICS, body, 1))
    adapted.accepted[TYPE_METRIC] = 1
    return adapted


async def no_page(*_: object) -> None:
    raise AssertionError("there are no pages")


class Nowhere:
    """A broker that has everything at once."""

    async def append(self, messages: Sequence[Message]) -> None:
        pass


async def serve(server_name: str) -> None:
    """Serve on a free port, print it, and go on until standard input ends."""
    settings = Http.model_validate({"server": server_name})
    metrics = Metrics()
    in_flight = InFlight(1 << 30, 1 << 30)
    pipeline = Pipeline(
        Produce(Nowhere()),
        Limits(**Validation().model_dump()),
        LocalLimiter(time.monotonic_ns),
        DeadLetters(Caps(0, 0), 1 << 19),
        Receipts(bytes(16)),
        metrics,
        message_bytes_max=1 << 19,
        now_unix_nano=time.time_ns,
    )
    otlp = Format(Input(adapt, SOURCE_OTLP, PATH, PAYLOAD_FORM_OTLP_METRICS), OtlpProtobufDialect(METRICS), COMPRESSED)
    app = HttpApplication(
        pipeline,
        in_flight,
        metrics,
        settings,
        routes={PATH: Route(PATH, {"application/x-protobuf": otlp}, otherwise=OtlpJsonDialect(METRICS))},
        pages=no_page,
        page_paths=frozenset(),
        access=Access(lambda _: None, Caller("bench", Scope.INGEST, UNLIMITED, "")),
        explain=partial(explain, retry_after_s=1, upgrade_url=""),
    )
    server = http_server(app, "127.0.0.1", [0], settings, metrics)
    await server.start()
    print(server.ports[0], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(1)


async def load(port: int, connections: int, body_bytes: int, until: float) -> int:
    """Send until the clock says `until`; how many were answered."""
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept-encoding: gzip\r\n"
        f"content-type: application/x-protobuf\r\ncontent-length: {body_bytes}\r\n\r\n"
    )
    request = head.encode() + bytes(body_bytes)

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answered = 0
        while time.monotonic() < until:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(answer.decode())
            answered += 1
        writer.close()
        return answered

    return sum(await asyncio.gather(*(one() for _ in range(connections))))


def cpu_seconds(pid: int) -> float:
    """Of user and system, by the kernel's account."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(server_name: str, seconds: float, connections: int, body_bytes: int) -> None:
    child = subprocess.Popen(
        [sys.executable, __file__, "--serve", server_name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with contextlib.ExitStack() as stack:
        stack.callback(child.wait)
        stack.callback(child.communicate)
        assert child.stdout is not None
        port = int(child.stdout.readline())
        run = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        with run:
            run.run(load(port, connections, body_bytes, time.monotonic() + 1))
            cpu_before, began = cpu_seconds(child.pid), time.monotonic()
            answered = run.run(load(port, connections, body_bytes, began + seconds))
            cpu, took = cpu_seconds(child.pid) - cpu_before, time.monotonic() - began
    print(f"{server_name:10} {answered / cpu:8,.0f} requests per CPU-second, {answered / took:8,.0f} per second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", default=["uvicorn", "hypercorn"])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--bytes", type=int, default=150)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(arguments.serve))
        return
    for server_name in arguments.servers:
        measure(server_name, arguments.seconds, arguments.connections, arguments.bytes)


if __name__ == "__main__":
    main()
