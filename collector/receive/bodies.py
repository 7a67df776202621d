"""Bodies are decompressed without stopping the event loop, and what they become is held of the budget as it comes.

Invariant: what a step made is held before the next is taken (tests/collector/receive/test_bodies.py,
test_what_is_decompressed_is_held_as_it_comes).
"""

import asyncio
from collections.abc import Callable
from typing import Final

from adapters.decompress import Decompression

# What a step decompresses at most, but for snappy, which has only one.
_STEP_BYTES: Final = 1 << 20


async def decompressed(body: bytes, encoding: str, bytes_max: int, hold: Callable[[int], None]) -> bytes:
    """Return the content of `body`. `hold` is called with how many more bytes there are, and may raise Overloaded.

    Raises RequestRefused, and what `hold` does.
    """
    work = Decompression(body, encoding, bytes_max)
    held_bytes = 0
    is_done = False
    while not is_done:
        # The libraries give the interpreter's lock back while they work, so a thread does not hold the loop up.
        is_done = work.step() if work.size_bytes < _STEP_BYTES else await asyncio.to_thread(work.step)
        if work.size_bytes > held_bytes:
            hold(work.size_bytes - held_bytes)
            held_bytes = work.size_bytes
    return work.content
