"""Decompress bodies without stopping the event loop, and hold the output in the budget as it comes.

Invariants:
1. The output of a step is held before the next step (tests/unit/collector/receivers/test_decompress.py,
   test_what_is_decompressed_is_held_as_it_comes).
2. A step on the event loop has little input and little output: an expensive body can have no output (test_decompress.py,
   test_a_body_that_becomes_nothing_does_not_stop_the_loop). The steps of many bodies at once take turns (test_decompress.py,
   test_many_small_bodies_do_not_stop_the_loop).
3. A body that waited for its turn is admitted again before it is decompressed (test_decompress.py,
   test_a_body_is_admitted_at_its_turn), and after each step: decompression ends when its plan has no room for more
   (test_decompress.py, test_a_body_is_left_where_its_plan_has_no_room_for_more).
4. A body with more elements than a request may have is decompressed only until that is known (test_decompress.py,
   test_a_body_is_left_where_it_holds_too_much).
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from adapters.codec.decompress import Decompression
from adapters.codec.pieces import PiecesCount
from collector.ingest.large_bodies import Decompressing
from collector.ingest.loop_turns import LoopTurns

# The most that a step decompresses, except for snappy, which has only one step.
_STEP_BYTES: Final = 1 << 20
# All steps of a larger body are in threads. Blocks of gzip may have tables and no content: 80 ns a byte of the body.
_STEPS_ON_LOOP_BYTES_MAX: Final = 64 << 10


async def decompressed(
    body: bytes,
    encoding: str,
    bytes_max: int,
    count: PiecesCount,
    *,
    hold: Callable[[int], None],
    admit: Callable[[int], None],
    tenant: str,
    threads: Decompressing,
    turns: LoopTurns,
) -> bytes:
    """Return the content of `body`. `count` takes the pieces of a large content as they come. `hold` is called with the number
    of bytes that were added, and may raise Overloaded. `admit` is called with the number of bytes so far, before threads are
    used and after each step in them, and may raise Limited.

    Raises RequestRefused, and the errors of `hold` and `admit`.
    """
    work = Decompression(body, encoding, bytes_max, count.telling_bytes)
    # Each element of snappy has content, so the size that it announces bounds the work.
    is_small = len(body) <= _STEPS_ON_LOOP_BYTES_MAX or encoding == "snappy"
    held_bytes = 0
    if is_small:
        if turns.is_busy:
            await turns.wait(tenant, len(body))
        began_s = turns.clock()
        try:
            while work.size_bytes < _STEP_BYTES:
                is_done = work.step()
                held_bytes = _hold_output(work, held_bytes, hold)
                if is_done:
                    return work.content
        finally:
            turns.used(tenant, turns.clock() - began_s)
    async with threads.turn(tenant):
        admit(held_bytes)
        is_done = False
        while not is_done:
            is_done = await threads.run(partial(_step, work, count))
            held_bytes = _hold_output(work, held_bytes, hold)
            admit(held_bytes)
        # Count the rest of the content, so that its adapter need not.
        while count.is_sure and 0 < count.size_bytes < len(work.content):
            start = int(count.size_bytes)
            if not count.pass_over(min(_STEP_BYTES, len(work.content) - start)):
                await threads.run(partial(count.take, work.content[start : start + _STEP_BYTES]))
    return work.content


def _step(work: Decompression, count: PiecesCount) -> bool:
    """Count a piece if the content is large enough to exceed the limit, else decompress more. Raises RequestRefused."""
    while work.ready_bytes > count.free_bytes and work.ready_bytes - count.size_bytes >= _STEP_BYTES:
        if not count.pass_over(_STEP_BYTES):
            count.take(work.piece(int(count.size_bytes)))
            return False
    return work.step()


def _hold_output(work: Decompression, held_bytes: int, hold: Callable[[int], None]) -> int:
    """Hold the output of a step, and return how many bytes are held."""
    if work.size_bytes > held_bytes:
        hold(work.size_bytes - held_bytes)
    return max(held_bytes, work.size_bytes)
