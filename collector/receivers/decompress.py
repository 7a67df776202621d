"""Bodies are decompressed without stopping the event loop, and what they become is held of the budget as it comes.

Invariants:
1. What a step made is held before the next step (tests/unit/collector/receivers/test_decompress.py,
   test_what_is_decompressed_is_held_as_it_comes).
2. A step on the event loop has little input and little output: a body can cost much and become nothing (test_decompress.py,
   test_a_body_that_becomes_nothing_does_not_stop_the_loop). Of many bodies at once such steps take turns (test_decompress.py,
   test_many_small_bodies_do_not_stop_the_loop).
3. A body that waited for its turn is admitted again before it is decompressed (test_decompress.py,
   test_a_body_is_admitted_at_its_turn), and with each step: what its plan has no room for is not made
   (test_decompress.py, test_a_body_is_left_where_its_plan_has_no_room_for_more).
4. Of a body that holds more elements than a request may, no more is made than tells (test_decompress.py,
   test_a_body_is_left_where_it_holds_too_much).
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from adapters.codec.decompress import Decompression
from adapters.codec.pieces import PiecesCount
from collector.ingest.large_bodies import Decompressing
from collector.ingest.loop_turns import LoopTurns

# What a step decompresses at most, but for snappy, which has only one.
_STEP_BYTES: Final = 1 << 20
# Of a larger body all steps are beside the loop. Blocks of gzip may have tables and no content: 80 ns a byte of the body.
_DIRECT_BYTES_MAX: Final = 64 << 10


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
    """Return the content of `body`. `count` takes the pieces of a large one as they come. `hold` is called with how many more
    bytes there are, and may raise Overloaded. `admit` is called with how many bytes there are, before the threads are used and
    after each step there, and may raise Limited.

    Raises RequestRefused, and what `hold` and `admit` do.
    """
    work = Decompression(body, encoding, bytes_max, count.telling_bytes)
    # Each element of snappy has content, so the size that it announces bounds the work.
    is_small = len(body) <= _DIRECT_BYTES_MAX or encoding == "snappy"
    held_bytes = 0
    if is_small:
        if turns.is_busy:
            await turns.wait(tenant, len(body))
        began_s = turns.clock()
        try:
            while work.size_bytes < _STEP_BYTES:
                is_done = work.step()
                held_bytes = _held(work, held_bytes, hold)
                if is_done:
                    return work.content
        finally:
            turns.used(tenant, turns.clock() - began_s)
    async with threads.turn(tenant):
        admit(held_bytes)
        is_done = False
        while not is_done:
            is_done = await threads.run(partial(_step, work, count))
            held_bytes = _held(work, held_bytes, hold)
            admit(held_bytes)
        # What is left of a body that was counted: then its adapter need not.
        while count.is_sure and 0 < count.size_bytes < len(work.content):
            start = int(count.size_bytes)
            if not count.pass_over(min(_STEP_BYTES, len(work.content) - start)):
                await threads.run(partial(count.take, work.content[start : start + _STEP_BYTES]))
    return work.content


def _step(work: Decompression, count: PiecesCount) -> bool:
    """Count a piece where there is enough to hold too much, else go on. Raises RequestRefused."""
    while work.ready_bytes > count.free_bytes and work.ready_bytes - count.size_bytes >= _STEP_BYTES:
        if not count.pass_over(_STEP_BYTES):
            count.take(work.piece(int(count.size_bytes)))
            return False
    return work.step()


def _held(work: Decompression, held_bytes: int, hold: Callable[[int], None]) -> int:
    """Hold what a step made, and return how many bytes are held."""
    if work.size_bytes > held_bytes:
        hold(work.size_bytes - held_bytes)
    return max(held_bytes, work.size_bytes)
