"""Keep answers for some seconds, so that many viewers cost the store as much as one.

Invariants:
1. While an answer is being made, all callers that ask for it wait for the same one (test_many_viewers_ask_once).
2. No caller waits longer than `wait_s`. After that it gets the previous answer, with its age, if there is one
   (test_a_slow_answer_is_not_waited_for).
3. At most `answers_max` answers are kept. The one that was used longest ago is evicted first (test_what_is_kept_is_bounded).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class TooSlow(Exception):
    """There is no answer yet; it is still being made."""


class KeptAnswer(NamedTuple, Generic[T]):
    """An answer. `age_s` is how many seconds ago it was made."""

    value: T
    age_s: float


class _CacheEntry(NamedTuple):
    value: Any
    at: float


class AnswerCache:
    """A cache of answers. It has no locks, since one event loop uses it."""

    def __init__(self, clock: Callable[[], float], *, keep_s: float, wait_s: float, answers_max: int) -> None:
        """`clock` returns seconds. An answer is kept for `keep_s`, and waited for at most `wait_s`."""
        self._clock: Final = clock
        self._keep_s: Final = keep_s
        self._wait_s: Final = wait_s
        self._answers_max: Final = answers_max
        self._held: Final[OrderedDict[Hashable, _CacheEntry]] = OrderedDict()
        self._making: Final[dict[Hashable, asyncio.Task[Any]]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]], *, is_kept: bool = True) -> KeptAnswer[T]:
        """Return the kept answer of `key`, if it is recent, or else the result of `make`, which callers of one key share.

        If not `is_kept`, the result is not kept. If `make` takes too long, return the previous answer. Raises the errors of
        `make`, and TooSlow if there is no previous answer."""
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            if self._clock() - held.at < self._keep_s:
                return KeptAnswer(held.value, self._clock() - held.at)
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.create_task(self._make(key, make, is_kept=is_kept))
            # Mark an error as seen also when no caller waits for it any more. The next caller tries again.
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
