"""As many streams as a front announces, through it, with settings that docs/operate/proxies.md does not have: none fails."""

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.fakes.receiving import grpc_receivers, http_receivers, otlp_logs
from support.otlp_grpc import LOGS
from support.processes.fronts import Front, Ports, haproxy, nginx
from support.processes.program import require_peer

PROTOBUF = "application/x-protobuf"


def one_connection(text: str) -> str:
    """nginx with one kept connection to the collector, and small buffers. It closes no client's connection by its count."""
    small = "http { keepalive_requests 100000; grpc_buffer_size 4k; proxy_buffer_size 4k;"
    return text.replace("keepalive 64;", "keepalive 1;").replace("http {", small, 1)


def always_reused(text: str) -> str:
    """HAProxy with the streams of many clients on few connections to the collector, which are not looked at: the machine of a
    test may be too busy to answer in time."""
    return re.sub("default-server .*", "http-reuse always", text)


def never_reused(text: str) -> str:
    """HAProxy with a connection to the collector for each of a client's, and wide windows."""
    changed = re.sub("default-server .*", "http-reuse never", text)
    return f"{changed}\nglobal\n  tune.h2.initial-window-size 1048576\n"


@pytest.mark.parametrize(
    ("front", "change", "connections", "streams", "padding"),
    [
        (nginx, one_connection, 10, 100, 0),
        (nginx, one_connection, 1, 128, 20_000),
        (haproxy, always_reused, 20, 100, 0),
        (haproxy, never_reused, 10, 100, 20_000),
    ],
)
async def test_as_many_streams_as_a_front_announces_are_served(
    front: Callable[..., AbstractContextManager[Front]],
    change: Callable[[str], str],
    connections: int,
    streams: int,
    padding: int,
    tmp_path: Path,
) -> None:
    """They are served over gRPC, over HTTP/2 made HTTP/1.1, and over HTTP/2 to the end; each request is stored once."""
    h2load, body = require_peer("h2load"), otlp_logs(padding=padding)
    count = 500 if padding else 2_000
    (tmp_path / "http").write_bytes(body)
    (tmp_path / "grpc").write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
    async with http_receivers(with_pages=True) as made, grpc_receivers(made) as (_, server):
        entered = front(tmp_path / "front", Ports(made.port, server.port), change=change)
        ports = await asyncio.to_thread(entered.__enter__)
        try:
            ways = [("grpc", ports.grpc, LOGS.method, "application/grpc"), ("http", ports.downgrade, "/v1/logs", PROTOBUF)]
            if front is haproxy:
                ways.append(("http", ports.h2c, "/v1/logs", PROTOBUF))
            for data, port, path, content_type in ways:
                before = made.producer.item_count()
                process = await asyncio.create_subprocess_exec(
                    *(str(h2load), "-n", str(count), "-c", str(connections), "-m", str(streams), "-d", str(tmp_path / data)),
                    *("-H", f"content-type: {content_type}", f"http://127.0.0.1:{port}{path}"),
                    stdout=asyncio.subprocess.PIPE,
                )
                written = (await asyncio.wait_for(process.communicate(), 60))[0].decode()
                assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in written
                assert f"status codes: {count} 2xx" in written
                assert made.producer.item_count() - before == count
        finally:
            await asyncio.to_thread(entered.__exit__, None, None, None)
