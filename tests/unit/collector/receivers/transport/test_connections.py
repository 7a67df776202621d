"""What the connections of one server have in common."""

import asyncio
from typing import cast

import pytest
import structlog

from collector.config.receivers import Grpc, Http
from collector.receivers.transport.connections import PROGRESS_BYTES, Connections, Stall
from collector.receivers.transport.eviction import BUSY
from collector.runtime.descriptors import Descriptors
from collector.telemetry.metrics import Metrics


class Watched:
    """A connection that remembers when it was looked at. `since`: when it had its last request."""

    def __init__(self, *, is_broken: bool = False, since: float = BUSY) -> None:
        self.is_broken = is_broken
        self.since = since
        self.evicted = 0
        self.looked_at: list[float] = []
        self.aborted = 0

    def close_if_late(self, now: float) -> None:
        self.looked_at.append(now)
        if self.is_broken:
            raise ZeroDivisionError("a defect")

    def idle_since(self) -> float:
        return self.since

    def evict(self) -> None:
        self.evicted += 1

    def leave(self) -> None: ...

    def shutdown(self) -> None: ...

    def abort(self) -> None:
        self.aborted += 1


def test_one_that_cannot_be_looked_at_is_closed_and_the_others_keep_their_deadlines() -> None:
    shared = Connections(Metrics(), Http(connections_max=10, handshake_timeout_s=1))
    broken, others = Watched(is_broken=True), [Watched() for _ in range(5)]
    shared.open.update((broken, *others))
    with structlog.testing.capture_logs() as logs:
        for now in (1.0, 2.0):
            shared.tick(now)
    assert [[1.0, 2.0]] * 5 == [other.looked_at for other in others]
    assert ([1.0], 1, 0) == (broken.looked_at, broken.aborted, sum(other.aborted for other in others))
    assert set(others) == shared.open
    assert ["error"] == [entry["log_level"] for entry in logs]


async def test_the_longest_idle_connection_makes_room() -> None:
    """If all have requests, none makes room."""
    shared = Connections(Metrics(), Http(connections_max=3))
    idle, longer, busy = Watched(since=50.0), Watched(since=40.0), Watched()
    shared.open.update((idle, longer, busy))
    assert not shared.is_full(100.0)
    assert (0, 1, 0) == (idle.evicted, longer.evicted, busy.evicted)
    assert {idle, busy} == shared.open
    shared.open.add(Watched())
    idle.since = BUSY
    assert shared.is_full(100.0)
    assert 0 == idle.evicted


async def test_the_longest_idle_of_all_servers_makes_room() -> None:
    """Descriptors are the process's, so it may be another server's; and there is none where no server has one."""
    descriptors = Descriptors(100, 10, lambda: None)
    servers = [Connections(Metrics(), settings, descriptors) for settings in (Http(), Grpc())]
    connections = [Watched(since=60.0), Watched(since=40.0)]
    for server, connection in zip(servers, connections, strict=True):
        server.open.add(connection)
    assert servers[0].makes_room(100.0)
    assert [0, 1] == [connection.evicted for connection in connections]
    assert servers[0].makes_room(100.0)
    assert [1, 1] == [connection.evicted for connection in connections]
    assert not servers[0].makes_room(100.0)


class Buffer:
    """A transport with `waiting` bytes that are not read yet."""

    def __init__(self) -> None:
        self.waiting = 0

    def get_write_buffer_size(self) -> int:
        return self.waiting


@pytest.mark.parametrize(
    ("step_bytes", "expected"),
    [(0, True), (1, True), (1_000, True), (PROGRESS_BYTES // 10 + 1, False), (1_000_000, False)],
)
def test_a_client_that_reads_too_little_stalls(step_bytes: int, expected: bool) -> None:
    """What it takes counts, whatever is written meanwhile: a frame in each time, or all that waits."""
    stall, buffer = Stall(10.0), Buffer()
    is_over = []
    for now in range(60):
        if now < 50:
            stall.written_bytes += 20_000
            buffer.waiting += 20_000
        buffer.waiting = max(buffer.waiting - step_bytes, 0)
        is_over.append(stall.is_over(cast("asyncio.WriteTransport", buffer), float(now)))
    assert any(is_over) == expected
    assert not any(is_over[:10])


def test_where_nothing_is_counted_any_change_is_progress() -> None:
    """hypercorn's HTTP/1.1 writes by itself, so nothing is counted."""
    stall, buffer = Stall(10.0), Buffer()
    buffer.waiting = 100_000
    for now in range(50):
        buffer.waiting -= 1
        assert not stall.is_over(cast("asyncio.WriteTransport", buffer), float(now))
    assert stall.is_over(cast("asyncio.WriteTransport", buffer), 60.0)
