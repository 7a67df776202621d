"""OnLoop: how long a body may be read on the event loop."""

import pytest

from collector.ingest.on_loop import OnLoop, TooLong


class Clocks:
    """CPU of the loop, and the time."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.now_s = 100.0
        self.on_loop = OnLoop(lambda: self.cpu_s, lambda: self.now_s)

    def read(self, tenant: str, cpu_ms: int, most_ms: int = 25, size_bytes: int = 1_000) -> int:
        """Read a body that rests each millisecond, beside others. Return after how many of them it is left; 0: it is not."""
        self.on_loop.begin(tenant, size_bytes)
        self.on_loop.pause()
        try:
            for took_ms in range(cpu_ms):
                self.on_loop.pause()
                assert took_ms <= most_ms
                self.cpu_s += 0.001
            self.on_loop.pause()
        except TooLong:
            return took_ms
        finally:
            self.on_loop.end()
        return 0


def test_a_body_that_takes_long_leaves_the_loop() -> None:
    """It leaves it at the first rest after 25 ms of CPU, which count from its second rest. The next body counts anew."""
    rests = iter([0.1, 0.11, 0.12, 0.13, 0.13, 0.2, 0.22, 0.23, 0.23])
    on_loop = OnLoop(lambda: next(rests))
    for tenant, fine in (("acme", 4), ("zoo", 3)):
        on_loop.begin(tenant, 1_000)
        for _ in range(fine):
            on_loop.pause()
        with pytest.raises(TooLong):
            on_loop.pause()
        on_loop.end()


def test_bodies_of_a_tenant_behind_a_dear_one_have_less() -> None:
    """It is so for a second after a body that took longer than an honest one, left or not; other tenants have no limit."""
    clocks = Clocks()
    for dear_ms, left_at_ms in ((300, 25), (15, 0)):
        assert left_at_ms == pytest.approx(clocks.read("noisy", dear_ms), abs=1)
        assert 5 == pytest.approx(clocks.read("noisy", 300), abs=1)
        assert 0 == clocks.read("noisy", 4), "most bodies are read by then"
        assert 25 == pytest.approx(clocks.read(f"another {dear_ms}", 300), abs=1)
        clocks.now_s += 0.9
        assert 5 == pytest.approx(clocks.read("noisy", 300), abs=1)
        clocks.now_s += 0.2
        assert 0 == clocks.read("noisy", 12)
        assert 0 == clocks.read("noisy", 12), "honest bodies leave no mark"


def test_what_is_as_large_as_a_body_that_was_left_is_not_begun() -> None:
    """It is not for the rest of its tenant's second. A smaller one may be honest, and so may other tenants'."""
    clocks = Clocks()

    def may_begin(*sizes: int) -> list[bool]:
        return [clocks.on_loop.may_begin("noisy", size) for size in sizes]

    assert [True, True] == may_begin(1_000, 250_000)
    assert 0 == clocks.read("noisy", 15, size_bytes=100_000)
    assert [True] == may_begin(250_000), "it was dear, and not left"
    assert clocks.read("noisy", 300, size_bytes=200_000)
    assert [True, False, False] == may_begin(199_999, 200_000, 250_000)
    assert clocks.on_loop.may_begin("another", 250_000)
    assert clocks.read("noisy", 300, size_bytes=50_000)
    assert [True, False] == may_begin(49_999, 50_000)
    assert clocks.read("noisy", 300, size_bytes=90_000)
    assert [True, False] == may_begin(49_999, 50_000)
    clocks.now_s += 0.9
    assert [False] == may_begin(50_000)
    clocks.now_s += 0.2
    assert [True] == may_begin(250_000)
    assert clocks.read("another", 300, size_bytes=70_000)
    assert ["another"] == list(clocks.on_loop._left_bytes)


def test_what_is_remembered_is_forgotten() -> None:
    """After a million tenants, one is kept."""
    clocks = Clocks()
    for number in range(50):
        clocks.read(f"tenant {number}", 30)
        clocks.now_s += 2
    assert 1 == len(clocks.on_loop._dear_until_s)


def test_a_body_that_rests_once_asks_no_clock() -> None:
    """The clock is a system call, and most bodies are small."""
    on_loop = OnLoop(lambda: pytest.fail("asked"), lambda: pytest.fail("asked"))
    for _ in range(2):
        on_loop.begin("acme", 1_000)
        on_loop.pause()
        on_loop.end()
