"""collector/ingest/loop_turns.py: many small bodies at once stop neither the loop nor another tenant's."""

import asyncio

from collector.ingest.loop_turns import LoopTurns


class Bodies:
    """Bodies that are read on the loop, each for as long as it says."""

    def __init__(self) -> None:
        self.turns = LoopTurns()
        self.order: list[str] = []
        self.counts: list[float] = [0.0]  # seconds that bodies took in each turn of the loop
        self._ticking = asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        if self.counts[-1]:
            self.counts.append(0.0)
        self._ticking = asyncio.get_running_loop().call_soon(self._tick)

    async def read(self, tenant: str, seconds: float = 0.004, size_bytes: int = 100_000) -> None:
        if self.turns.is_busy:
            await self.turns.wait(tenant, size_bytes)
        self.counts[-1] += seconds
        self.order.append(tenant)
        self.turns.used(tenant, seconds)

    def begin(self, tenant: str, count: int, seconds: float = 0.004, size_bytes: int = 100_000) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.read(tenant, seconds, size_bytes)) for _ in range(count)]

    def close(self) -> None:
        self._ticking.cancel()


async def test_a_turn_of_the_loop_is_bounded() -> None:
    """It is bounded by 10 ms and the body that exceeds them, however small the bodies are that cost so much."""
    bodies = Bodies()
    for size_bytes in (100, 100_000):
        await asyncio.gather(*bodies.begin("acme", 50, size_bytes=size_bytes))
    assert max(bodies.counts) < 0.0121
    assert ["acme"] * 100 == bodies.order
    # They are read as fast as that allows: 100 bodies of 4 ms, at least one in each turn.
    assert len(bodies.counts) <= 102
    bodies.close()


async def test_a_body_alone_does_not_wait() -> None:
    """Many that follow each other do not wait, either: what was used in an earlier turn counts once."""
    bodies = Bodies()
    for _ in range(10):
        await bodies.read("acme", 0.025)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not bodies.turns.is_busy
    bodies.close()


async def test_a_tenant_waits_behind_its_own() -> None:
    """One that brings hundreds of bodies holds up another by one or two of them."""
    bodies = Bodies()
    tasks = bodies.begin("noisy", 300, 0.025)
    for _ in range(5):
        await asyncio.sleep(0)
    before = len(bodies.order)
    await bodies.read("quiet", 0.0001)
    assert len(bodies.order) - before <= 4
    await asyncio.gather(*tasks)
    bodies.close()


async def test_tenants_have_equal_times() -> None:
    """They do not have equal numbers of bodies: if bodies cost a hundredth, a hundred are read for one of the other's."""
    bodies = Bodies()
    tasks = bodies.begin("noisy", 50, 0.02) + bodies.begin("quiet", 500, 0.0002)
    await asyncio.gather(*tasks)
    last = max(place for place, tenant in enumerate(bodies.order) if tenant == "quiet")
    assert bodies.order[:last].count("noisy") <= 12
    bodies.close()


async def test_who_is_cancelled_holds_up_nobody() -> None:
    """This holds while a body waits, and once its turn has come."""
    bodies = Bodies()
    tasks = bodies.begin("acme", 60, 0.025)
    for number, task in enumerate(tasks):
        if number % 3:
            await asyncio.sleep(0)
        if number % 2:
            task.cancel()
    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert len(bodies.order) == outcomes.count(None)
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    await bodies.read("acme")
    bodies.close()
