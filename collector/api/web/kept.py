"""Answers that are kept for some seconds, so that many viewers cost the store what one does.

Invariants:
1. While an answer is being made, everyone who asks for it waits for the same one (test_many_viewers_ask_once).
2. Nobody waits longer than the time given. The answer before is shown then, with its age, if there is one
   (test_a_slow_answer_is_not_waited_for).
3. At most so many answers are kept; the one that was used longest ago goes first (test_what_is_kept_is_bounded).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class TooSlow(Exception):
    """There is no answer yet; it is still being made."""


class KeptAnswer(NamedTuple, Generic[T]):
    """`age_s`: since it was made."""

    value: T
    age_s: float


class _CacheEntry(NamedTuple):
    value: Any
    at: float


class AnswerCache:
    """One event loop's: no locks."""

    def __init__(self, clock: Callable[[], float], *, keep_s: float, wait_s: float, answers_max: int) -> None:
        """`clock`: in seconds."""
        self._clock: Final = clock
        self._keep_s: Final = keep_s
        self._wait_s: Final = wait_s
        self._answers_max: Final = answers_max
        self._held: Final[OrderedDict[Hashable, _CacheEntry]] = OrderedDict()
        self._making: Final[dict[Hashable, asyncio.Task[Any]]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]], *, is_kept: bool = True) -> KeptAnswer[T]:
        """What `make` gives, or gave a moment ago; where it is not kept, what `make` gives. Raises what `make` raises, and
        TooSlow."""
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            if self._clock() - held.at < self._keep_s:
                return KeptAnswer(held.value, self._clock() - held.at)
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.create_task(self._make(key, make, is_kept=is_kept))
            # If this fails when nobody waits any more, the next request asks again.
            making.add_done_callback(lambda task: task.cancelled() or task.exception())
        done, _ = await asyncio.wait({making}, timeout=self._wait_s)
        if done:
            return KeptAnswer(making.result(), 0.0)
        if held is not None:
            return KeptAnswer(held.value, self._clock() - held.at)
        raise TooSlow(f"no answer within {self._wait_s:g} s; it is still being made")

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[T]], *, is_kept: bool) -> T:
        try:
            value = await make()
        finally:
            del self._making[key]
        if not is_kept:
            return value
        self._held[key] = _CacheEntry(value, self._clock())
        self._held.move_to_end(key)
        if len(self._held) > self._answers_max:
            self._held.popitem(last=False)
        return value
