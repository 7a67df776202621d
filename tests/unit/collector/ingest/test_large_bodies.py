"""collector/ingest/large_bodies.py: the loop goes on while a large body is read."""

import asyncio
import time
from collections.abc import Callable

import pytest

from collector.ingest.large_bodies import Decompressing, LargeBodies, Pause, resting


def spinning(seconds: float, done: Callable[[], None] | None = None) -> Callable[[], Callable[[Pause], str]]:
    """What reads for so long, and pauses every millisecond: of CPU, by which turns are measured, too."""

    def read(pause: Pause) -> str:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            stop = time.thread_time() + 0.001
            while time.thread_time() < stop:
                pass
            pause()
        if done is not None:
            done()
        return "read"

    return lambda: read


async def test_the_loop_goes_on_while_a_body_is_read() -> None:
    """It turns many times meanwhile."""
    bodies = LargeBodies()
    reading = asyncio.create_task(bodies.run("acme", spinning(0.3)))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert "read" == await reading
    assert turns > 10
    bodies.close()


async def test_a_long_body_does_not_hold_up_a_short_one() -> None:
    """They are read in turns, and never at once: between two rests one runs alone, although each gives the lock away."""
    bodies = LargeBodies()
    running = 0
    most = 0

    def reading(stretches: int) -> Callable[[Pause], str]:
        def read(pause: Pause) -> str:
            nonlocal running, most
            for _ in range(stretches):
                running += 1
                most = max(most, running)
                spent = time.thread_time() + 0.006
                while time.thread_time() < spent:
                    time.sleep(0)  # as a library does that gives the lock back
                running -= 1
                pause()
            return "read"

        return read

    long = [asyncio.create_task(bodies.run(f"noisy-{n}", lambda: reading(10_000))) for n in range(3)]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(10):
        assert "read" == await bodies.run("quiet", lambda: reading(3))
    assert not any(task.done() for task in long)
    for task in long:
        task.cancel()
    await asyncio.gather(*long, return_exceptions=True)
    assert 1 == most
    bodies.close()


async def test_a_tenant_waits_behind_its_own() -> None:
    """One that has many bodies waiting does not hold up another, which is read in turns with the first of them."""
    bodies = LargeBodies()
    order: list[str] = []
    tasks = [asyncio.create_task(bodies.run("noisy", spinning(0.02, lambda: order.append("noisy")))) for _ in range(5)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(bodies.run("quiet", spinning(0.01, lambda: order.append("quiet")))))
    await asyncio.gather(*tasks)
    assert "quiet" in order[:2]
    assert 5 == order.count("noisy")
    bodies.close()


async def test_a_cancelled_body_is_left() -> None:
    """Its caller hears so at once, and the thread is free for the next."""
    bodies = LargeBodies()
    finished: list[str] = []
    reading = asyncio.create_task(bodies.run("acme", spinning(60, lambda: finished.append("acme"))))
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    async with asyncio.timeout(10):
        assert "read" == await bodies.run("acme", spinning(0.01))
    assert [] == finished
    bodies.close()


async def test_what_a_body_raises_is_raised() -> None:
    """The next body is read."""

    def broken(_: Pause) -> str:
        raise ValueError("malformed")

    bodies = LargeBodies()
    with pytest.raises(ValueError, match="malformed"):
        await bodies.run("acme", lambda: broken)
    assert "read" == await bodies.run("acme", spinning(0.001))
    bodies.close()


async def test_a_tenant_decompresses_one_body_at_a_time() -> None:
    """This holds however many it sends: another's first step waits for one of its steps at most."""
    threads = Decompressing()
    running = 0
    most = 0
    order: list[str] = []

    def step() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.002)
        running -= 1

    async def decompress(tenant: str, steps: int, call: Callable[[], None]) -> None:
        async with threads.turn(tenant):
            for _ in range(steps):
                await threads.run(call)
            order.append(tenant)

    noisy = [asyncio.create_task(decompress("noisy", 10, step)) for _ in range(10)]
    await asyncio.sleep(0)
    await decompress("quiet", 1, lambda: None)
    assert ["quiet"] == order
    await asyncio.gather(*noisy)
    assert 1 == most
    threads.close()


def test_what_is_read_in_a_thread_rests_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It rests at once, and then not before it has used some CPU."""
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    pause = resting()
    pause()
    pause()
    assert 1 == len(rests)
    stop = time.thread_time() + 0.02
    while time.thread_time() < stop:
        pass
    pause()
    assert 2 == len(rests)
