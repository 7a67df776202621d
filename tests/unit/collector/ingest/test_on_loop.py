"""OnLoop: how long a body may be read on the event loop."""

import pytest

from collector.ingest.on_loop import OnLoop, TooLong


def test_a_body_that_takes_long_leaves_the_loop() -> None:
    """At its first rest after 25 ms of CPU, which count from its second rest; the next body counts anew."""
    rests = iter([0.1, 0.11, 0.12, 0.13, 0.2, 0.22, 0.23])
    on_loop = OnLoop(lambda: next(rests))
    for fine in (4, 3):
        on_loop.begin()
        for _ in range(fine):
            on_loop.pause()
        with pytest.raises(TooLong):
            on_loop.pause()


def test_a_body_that_rests_once_asks_no_clock() -> None:
    """The clock is a system call, and most bodies are small."""
    on_loop = OnLoop(lambda: pytest.fail("asked"))
    for _ in range(2):
        on_loop.begin()
        on_loop.pause()
