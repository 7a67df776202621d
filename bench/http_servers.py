"""Measures what a request costs each HTTP server, with the real application and pipeline. Adapter and broker do nothing.

    python bench/http_servers.py [--seconds 10] [--connections 32] [--bytes 150] [--http2] [--tls] [builtin hypercorn]

Prints requests per CPU-second of the server's process, and requests per second. The sender runs in a separate process, on
keep-alive connections with one request at a time. ADR 0013 has the results that decided the default server, and ADR 0010 the
cost of HTTP/2 and TLS (docs/adr).
"""

import argparse
import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trustme
import uvloop
from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamEnded
from infrasage.v1.dead_letter_pb2 import PAYLOAD_FORM_OTLP_METRICS

from adapters.codec.json_parts import JsonPartsCount
from adapters.record import METRICS, SOURCE_OTLP, TYPE_METRIC, Adapted, Header, Part
from adapters.rules import Rules
from collector.broker.contract import Message
from collector.config.receivers import Http, Tls, Validation
from collector.ingest.large_bodies import LargeBodies
from collector.ingest.pipeline import Pipeline
from collector.ingest.produce import InFlight, Produce
from collector.ingest.reading import Input
from collector.ingest.receipts import Receipts
from collector.ingest.validate import Limits
from collector.rate_limit.local import LocalLimiter
from collector.receivers.encodings import HTTP
from collector.receivers.http.asgi import HttpApplication
from collector.receivers.http.server import HttpServer
from collector.receivers.http.telemetry_request import Format, Route
from collector.receivers.refusals import explain
from collector.receivers.responses import OtlpJsonDialect, OtlpProtobufDialect
from collector.receivers.transport.certificates import Certificates
from collector.records.dead_letter import Caps, DeadLetters
from collector.telemetry.metrics import Metrics
from collector.tenancy.access import Access
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED
from collector.tenancy.scopes import Scope

PATH: Final = "/v1/metrics"


def adapt(body: bytes, _header: Header, _rules: Rules, _message_bytes_max: int) -> Adapted:
    """Return one record for any body."""
    adapted = Adapted()
    adapted.parts.append(Part(METRICS, body, 1, len(body)))
    adapted.accepted[TYPE_METRIC] = 1
    return adapted


async def no_page(*_: object) -> None:
    raise AssertionError("there are no pages")


class Nowhere:
    """A broker that acknowledges every message at once."""

    async def append(self, messages: Sequence[Message]) -> None:
        pass


async def serve(server_name: str, authority: bytes) -> None:
    """Serve on a free port, print the port, and run until standard input ends. `authority` signs the server's certificate;
    without it, there is no TLS."""
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
        message_row_bytes_max=1 << 26,
        now_unix_nano=time.time_ns,
        large_bodies=LargeBodies(),
    )
    otlp = Format(
        Input(adapt, JsonPartsCount, SOURCE_OTLP, PATH, PAYLOAD_FORM_OTLP_METRICS), OtlpProtobufDialect(METRICS), HTTP
    )
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
    certificates = None
    if authority:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "server.pem"
            issued = trustme.CA.from_pem(*authority.split(b"\0")).issue_cert("localhost")
            issued.private_key_and_cert_chain_pem.write_to_path(file)
            certificates = Certificates(Tls(cert_file=file), metrics)
    server = HttpServer(app, "127.0.0.1", [0], settings, metrics, certificates=certificates)
    await server.start()
    print(server.ports[0], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(1)


class Http2:
    """The client's side of one HTTP/2 connection, with one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h2 = H2Connection()
        self._h2.initiate_connection()

    async def ask(self, body: bytes) -> None:
        stream_id = self._h2.get_next_available_stream_id()
        head = {":method": "POST", ":scheme": "http", ":authority": "localhost", ":path": PATH}
        head |= {"user-agent": "bench", "accept-encoding": "gzip", "content-type": "application/x-protobuf"}
        self._h2.send_headers(stream_id, list(head.items()))
        for at in range(0, len(body), 16_384):
            self._h2.send_data(stream_id, body[at : at + 16_384])
        self._h2.end_stream(stream_id)
        self._writer.write(self._h2.data_to_send())
        while True:
            for event in self._h2.receive_data(await self._reader.read(65_536)):
                if isinstance(event, ResponseReceived) and dict(event.headers)[b":status"] != b"200":
                    raise RuntimeError(str(event.headers))
                if isinstance(event, StreamEnded):
                    return


async def load(port: int, connections: int, body_bytes: int, until: float, *, http2: bool, tls: ssl.SSLContext | None) -> int:
    """Send until the clock reaches `until`. Return the number of answers."""
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept-encoding: gzip\r\n"
        f"content-type: application/x-protobuf\r\ncontent-length: {body_bytes}\r\n\r\n"
    )
    body = bytes(body_bytes)
    request = head.encode() + body

    async def one() -> int:
        host = "localhost" if tls is not None else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=host)
        answered = 0
        second = Http2(reader, writer) if http2 else None
        while second is not None and time.monotonic() < until:
            await second.ask(body)
            answered += 1
        while second is None and time.monotonic() < until:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(answer.decode())
            answered += 1
        writer.close()
        return answered

    return sum(await asyncio.gather(*(one() for _ in range(connections))))


def cpu_seconds(pid: int) -> float:
    """Return the CPU-seconds of a process, user and system, as /proc reports them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(server_name: str, seconds: float, connections: int, body_bytes: int, *, http2: bool, with_tls: bool) -> None:
    with contextlib.ExitStack() as stack:
        authority, tls = "", None
        if with_tls:
            ca = trustme.CA()
            authority = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "authority")
            Path(authority).write_bytes(ca.cert_pem.bytes() + b"\0" + ca.private_key_pem.bytes())
            tls = ssl.create_default_context()
            ca.configure_trust(tls)
            tls.set_alpn_protocols(["h2" if http2 else "http/1.1"])
        child = subprocess.Popen(
            [sys.executable, __file__, "--serve", server_name, "--authority", authority],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(child.wait)
        stack.callback(child.communicate)
        assert child.stdout is not None
        port = int(child.stdout.readline())
        run = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        with run:
            run.run(load(port, connections, body_bytes, time.monotonic() + 1, http2=http2, tls=tls))
            cpu_before, began = cpu_seconds(child.pid), time.monotonic()
            answered = run.run(load(port, connections, body_bytes, began + seconds, http2=http2, tls=tls))
            cpu, took = cpu_seconds(child.pid) - cpu_before, time.monotonic() - began
    print(f"{server_name:10} {answered / cpu:8,.0f} requests per CPU-second, {answered / took:8,.0f} per second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="*", default=["builtin", "hypercorn"])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--bytes", type=int, default=150)
    parser.add_argument("--http2", action="store_true")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--authority", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(arguments.serve, Path(arguments.authority).read_bytes() if arguments.authority else b""))
        return
    for server_name in arguments.servers:
        measure(
            server_name,
            arguments.seconds,
            arguments.connections,
            arguments.bytes,
            http2=arguments.http2,
            with_tls=arguments.tls,
        )


if __name__ == "__main__":
    main()
