"""What holds for every input, whatever comes: see items.py."""

import json
import os
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from support.conformance import Client, collector
from support.fakes.receiving import NOW, connection, post
from support.hostile import bombs, nested_logs, nested_logs_json
from support.tenants import keyring
from support.ways import PATHS, WAYS_BY_NAME, Way

from collector.tenancy import keys

LIMIT = 1 << 20


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with collector() as client:
        yield client


@pytest.mark.parametrize("bomb", bombs(64 * LIMIT), ids=str)
async def test_safety_01_a_bomb_costs_at_most_the_limit(bomb: str) -> None:
    """64 times the limit, packed once or twice, or only announced: refused, and never in memory."""
    coding, body = bombs(64 * LIMIT)[bomb]
    path, content_type = (
        ("/api/v1/prometheus/write", "application/x-protobuf") if coding == "snappy" else ("/v1/logs", "application/x-protobuf")
    )
    async with collector(decompressed_bytes_max=LIMIT, body_bytes_max=16 * LIMIT) as client:
        tracemalloc.start()
        try:
            answer = await client.http.post(
                path, content=body, headers={"content-type": content_type, "content-encoding": coding}
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert answer.status_code in (400, 413)
        assert peak < 8 * LIMIT + 3 * len(body)


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/v1/logs", "application/x-protobuf", nested_logs(50_000)),
        ("/v1/logs", "application/json", nested_logs_json(50_000)),
        ("/v1/logs", "application/json", b"[" * 1_000_000),
        ("/v1/logs", "application/json", b'{"a":' * 100_000),
        ("/v1/metrics", "application/x-protobuf", b"\x0b" * 100_000),
        ("/api/v1/telemetry", "application/json", b"[" * 1_000_000),
        ("/api/v1/telemetry", "application/json", b'{"value":' + b"9" * 1_000_000 + b"}"),
        ("/api/v1/telemetry/batch", "application/json", b'[{"value":1e' + b"9" * 1_000_000 + b"}]"),
        ("/api/v1/prometheus/write", "application/x-protobuf", Random(1).randbytes(10_000)),
    ],
    ids=lambda part: None if isinstance(part, bytes) else part,
)
async def test_safety_02_hostile_bodies_are_refused(client: Client, path: str, content_type: str, body: bytes) -> None:
    """A body is rejected where nesting alone is too deep."""
    answer = await client.http.post(path, content=body, headers={"content-type": content_type})
    assert answer.status_code in (200, 400)
    assert client.made.producer.item_count() == 0
    assert client.made.in_flight.bytes_held == 0


@WAYS_BY_NAME
async def test_safety_02_truncated_and_random_bodies_are_refused(client: Client, way: Way) -> None:
    """They are refused by every way, wherever they are cut."""
    whole = way.body(good=1, late=0)
    for body in (*(whole[:end] for end in range(1, len(whole), max(1, len(whole) // 20))), os.urandom(300), b"\0" * 300):
        answer = await client.http.post(way.path, content=way.as_sent(body), headers={"content-type": way.content_type})
        assert answer.status_code < 500
    assert client.made.in_flight.bytes_held == 0


async def test_safety_03_slow_senders_meet_a_deadline() -> None:
    async with collector(body_timeout_s=0.3) as client, connection(client.made.port) as raw:
        await raw.send(post("/v1/logs", "application/x-protobuf", b"abc", length=1000))
        answer = await raw.response()
        assert answer.status == 408
        assert await raw.closed()


async def test_safety_03_connections_and_heads_are_bounded() -> None:
    async with collector(connections_max=1, header_bytes_max=2048) as client, connection(client.made.port) as first:
        await first.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 5000 + b"\r\n\r\n")
        assert (await first.response()).status == 431
    async with collector(connections_max=1) as client, connection(client.made.port) as first:
        await first.send(post("/v1/logs", "application/x-protobuf", b""))
        assert (await first.response()).status == 200
        async with connection(client.made.port) as second:
            assert (await second.response()).status == 503


def test_safety_04_keys_are_kept_as_hashes(tmp_path: Path) -> None:
    """Nothing of a key that was made is in the file, beyond what names it; and it is found by its hash alone."""
    ring, texts = keyring(tmp_path)
    stored = (tmp_path / keys.FILE_NAME).read_text("utf-8")
    for text in texts.values():
        assert text not in stored
        assert text[-20:] not in stored
    assert ring.find(texts["ingest"].encode()) is not None
    assert ring.find(texts["ingest"][:-1].encode()) is None


@pytest.mark.parametrize("evil", ["a\nb", "a\r\nX-Evil: 1", "\x1b[2J", "a\u2028b", "\u202eabc"], ids=ascii)
async def test_safety_05_text_from_senders_forges_nothing(client: Client, evil: str) -> None:
    """A text that comes back in an error can't end a line or steer a terminal, whatever the protocol."""
    record = {"service_id": "s", "type": evil, "metric_name": "m", "value": 1, "timestamp": NOW}
    answer = await client.http.post(
        "/api/v1/telemetry", content=json.dumps(record), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["message"].isprintable()
    for path in PATHS:
        refused = await client.http.post(path, content=b"x", headers={b"content-type": "x/\u00e9\u0085y".encode("latin-1")})
        assert refused.status_code == 415
        assert all(part.isprintable() for part in refused.text.splitlines())
