"""collector/receivers/transport/eviction.py: which connection makes room for a new one."""

import asyncio

from structlog.testing import capture_logs

from collector.receivers.transport.eviction import BUSY, FRESH_S, Eviction


class Idle:
    """A connection that is idle since then."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.looked_at = 0
        self.ended: list[str] = []

    def idle_since(self) -> float:
        self.looked_at += 1
        return self.since

    def evict(self) -> None:
        self.ended.append("evicted")

    def abort(self) -> None:
        self.ended.append("aborted")


class Open:
    """Some connections, of one server."""

    def __init__(self, *since: float) -> None:
        self.all = [Idle(each) for each in since]
        self.open = set(self.all)
        self.evicted = 0
        self.eviction = Eviction(self.open, self.open.discard, self.count)

    def count(self) -> None:
        self.evicted += 1

    def evict(self, now: float) -> list[int]:
        """Evict one; which are gone by then."""
        self.eviction.evict(now, "http.connections_max")
        return [number for number, connection in enumerate(self.all) if connection not in self.open]


async def test_only_idle_connections_are_evicted() -> None:
    """None with a request, and none whose last one was just now; nothing is closed or counted in their place."""
    made = Open(BUSY, 100.0, 100.0 - FRESH_S / 2)
    assert [] == made.evict(100.0 + FRESH_S / 4)
    assert BUSY == made.eviction.idle_since(100.0 + FRESH_S / 4)
    assert 0 == made.evicted
    assert [[], [], []] == [connection.ended for connection in made.all]


async def test_the_longest_idle_goes_first() -> None:
    """It goes first also if a candidate has had a request since, and another has gone by itself."""
    made = Open(50.0, 10.0, 20.0, 30.0, 40.0)
    assert [1] == made.evict(100.0)
    made.all[2].since = 99.5
    made.open.discard(made.all[3])
    assert [1, 3, 4] == made.evict(100.0)
    assert 2 == made.evicted
    assert ["evicted"] == made.all[4].ended


async def test_an_evicted_connection_that_does_not_end_is_aborted() -> None:
    made = Open(10.0)
    made.evict(100.0)
    async with asyncio.timeout(10):
        while made.all[0].ended != ["evicted", "aborted"]:
            await asyncio.sleep(0.01)


async def test_looking_for_idle_connections_is_bounded() -> None:
    """A thousand evictions of a thousand look at each connection some 20 times, not a thousand; and a thousand refusals at a
    time at each once or twice."""
    made = Open(*map(float, range(1000)))
    for _ in range(500):
        made.eviction.evict(5000.0, "http.connections_max")
        made.eviction._scanned = 0.0  # time goes on
    assert 500 == made.evicted
    assert sum(connection.looked_at for connection in made.all) < 20 * 1000
    busy = Open(*[BUSY] * 1000)
    for _ in range(1000):
        assert [] == busy.evict(100.0)
    assert sum(connection.looked_at for connection in busy.all) < 2 * 1000


async def test_evictions_are_one_line_a_minute() -> None:
    """It names the limit."""
    made = Open(*map(float, range(10)))
    with capture_logs() as logged:
        for _ in range(5):
            made.evict(100.0)
    assert 5 == made.evicted
    assert ["http.connections_max"] == [line["limit"] for line in logged]
