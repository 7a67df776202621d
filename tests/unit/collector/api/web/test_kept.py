"""Answers that are kept for some seconds."""

import asyncio

import pytest

from collector.api.web.kept import AnswerCache, TooSlow


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Maker:
    """Counts how often it was asked; waits while `gate` is closed, and then raises `error` if there is one."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return number


async def test_many_viewers_ask_once() -> None:
    clock, maker = Clock(), Maker()
    kept = AnswerCache(clock, keep_s=5, wait_s=1, answers_max=2)
    answers = await asyncio.gather(*(kept.get("a", maker) for _ in range(10)))
    assert {answer.value for answer in answers} == {1}
    clock.now = 4.9
    assert (await kept.get("a", maker)) == (1, 4.9)
    clock.now = 5
    assert (await kept.get("a", maker)) == (2, 0)


async def test_a_slow_answer_is_not_waited_for() -> None:
    """Without an earlier answer it is an error. Otherwise that one is shown until the slow one is there."""
    clock, maker = Clock(), Maker()
    kept = AnswerCache(clock, keep_s=5, wait_s=0.01, answers_max=2)
    maker.gate.clear()
    with pytest.raises(TooSlow):
        await kept.get("a", maker)
    maker.gate.set()
    assert (await kept.get("a", maker)).value == 1
    clock.now = 60
    maker.gate.clear()
    assert (await kept.get("a", maker)) == (1, 60)
    assert (await kept.get("a", maker)) == (1, 60)
    maker.gate.set()
    assert (await kept.get("a", maker)) == (2, 0)
    assert maker.asked == 2


async def test_what_is_not_kept_is_asked_for_anew() -> None:
    """It is shared while it is being made, and waited for no longer than anything else."""
    maker = Maker()
    kept = AnswerCache(Clock(), keep_s=5, wait_s=0.01, answers_max=2)
    for number in (1, 2):
        answers = await asyncio.gather(*(kept.get("a", maker, is_kept=False) for _ in range(3)))
        assert [(number, 0.0)] * 3 == answers
    maker.gate.clear()
    for _ in range(2):
        with pytest.raises(TooSlow):
            await kept.get("a", maker, is_kept=False)
    maker.gate.set()
    assert maker.asked == 3


async def test_a_failure_is_everyones_who_waits_and_is_not_kept() -> None:
    maker = Maker()
    kept = AnswerCache(Clock(), keep_s=5, wait_s=1, answers_max=2)
    maker.error = ValueError("once")
    failed = await asyncio.gather(*(kept.get("a", maker) for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in failed] == ["once"] * 3
    maker.error = None
    assert (await kept.get("a", maker)).value == 2


async def test_what_is_kept_is_bounded() -> None:
    """The one that was used longest ago goes."""
    makers = {name: Maker() for name in "abc"}
    kept = AnswerCache(Clock(), keep_s=5, wait_s=1, answers_max=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        await kept.get(name, makers[name])
    assert {"a": 1, "b": 2, "c": 1} == {name: maker.asked for name, maker in makers.items()}
