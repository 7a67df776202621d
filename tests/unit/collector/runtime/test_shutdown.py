"""What runs meanwhile, and what asks a process to stop. (The ends of whole processes: tests/system/test_shutdown.py.)"""

import asyncio
import os
import signal

import pytest

from collector.runtime.shutdown import GracefulShutdown, running

# When it is over the process ends, and this one is the tests'.
LONG_S = 86_400


async def test_what_runs_meanwhile_is_waited_for() -> None:
    """It is waited for until it has cleaned up."""
    events: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            events.append("put away")

    async with running(work(), "name") as task:
        assert task.get_name() == "name"
        await asyncio.sleep(0)
        events.append("meanwhile")
    assert events == ["meanwhile", "put away"]
    assert task.cancelled()


async def test_what_failed_meanwhile_is_raised_by_the_next_look() -> None:
    async def work() -> None:
        raise RuntimeError("gone")

    async with running(work(), "name") as task:
        await asyncio.wait({task})
    assert isinstance(task.exception(), RuntimeError)


async def test_it_ends_whatever_ends_the_block() -> None:
    with pytest.raises(KeyError):
        async with running(asyncio.sleep(3600), "name") as task:
            raise KeyError
    assert task.cancelled()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
async def test_a_signal_asks_to_stop(number: signal.Signals) -> None:
    """The time to do so begins to run. With `twice_ends` off, a second one changes nothing."""
    stopping = GracefulShutdown(LONG_S, 0, [signal.SIGUSR1, signal.SIGUSR2], twice_ends=False)
    async with running(asyncio.sleep(3600), "part") as part:
        waiting = asyncio.create_task(stopping.wait_or_end(part))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        os.kill(os.getpid(), number)
        assert await waiting is None
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.01)
    assert LONG_S - 600 < stopping.left_s(1) <= LONG_S
    assert LONG_S / 2 - 600 < stopping.left_s(0.5) <= LONG_S / 2
    assert stopping.left_s(0) == 0


async def test_the_time_to_stop_begins_after_the_lame_duck() -> None:
    """It is so if SIGTERM asked for the end. Ctrl-C and a part that failed have no lame duck."""
    stopping = GracefulShutdown(1_000, LONG_S, [signal.SIGTERM, signal.SIGUSR1], twice_ends=False)
    assert stopping.lame_duck_s == 0
    os.kill(os.getpid(), signal.SIGTERM)
    async with running(asyncio.sleep(3600), "part") as part:
        assert await stopping.wait_or_end(part) is None
    assert stopping.lame_duck_s == LONG_S
    assert stopping.left_s(1) > LONG_S
    stopping.end_lame_duck()
    assert 500 < stopping.left_s(1) <= 1_000
    stopping = GracefulShutdown(1_000, LONG_S, [signal.SIGTERM, signal.SIGUSR1], twice_ends=False)
    os.kill(os.getpid(), signal.SIGUSR1)
    async with running(asyncio.sleep(3600), "part") as part:
        assert await stopping.wait_or_end(part) is None
    assert stopping.lame_duck_s == 0
    assert 500 < stopping.left_s(1) <= 1_000


async def test_a_part_that_ends_is_reported() -> None:
    """It is not if it was asked to stop before: then parts may end."""
    stopping = GracefulShutdown(LONG_S, 0, [])

    async def ends() -> None:
        return

    async with running(ends(), "ends") as ended, running(asyncio.sleep(3600), "stays") as stays:
        assert await stopping.wait_or_end(stays, ended) is ended
        stopping.ask()
        assert await stopping.wait_or_end(stays, ended) is None
