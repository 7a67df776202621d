"""Buckets in memory: exact against the formula itself and against a slow model, and no more of them than are in use."""

from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.references.limiting import Model, Refusal, Step, at_once, caller, histories, refusal

from adapters.errors import RequestRefused
from collector.rate_limit.contract import Limited
from collector.rate_limit.local import LocalLimiter
from collector.tenancy.plans import FREE, UNLIMITED, Plan, Rate

NANO = 1_000_000_000


class Clock:
    """Says what it was set to."""

    def __init__(self) -> None:
        self.now = 1_760_000_000 * NANO

    def __call__(self) -> int:
        return self.now


def outcome(ask: Callable[[], None]) -> Refusal | None:
    """None: it passed."""
    try:
        ask()
    except (Limited, RequestRefused) as error:
        return refusal(error, NANO)
    return None


def take(limiter: LocalLimiter, plan: Plan, items: int = 0, size_bytes: int = 0, tenant: str = "acme") -> Refusal | None:
    return outcome(lambda: at_once(limiter.take(caller(plan, tenant), items, size_bytes)))


@given(history=histories(NANO), share=st.integers(1, 5))
def test_as_the_model(history: tuple[Plan, list[Step]], share: int) -> None:
    """Decision, dimension and time to wait are the model's, whatever comes when, and however the clock goes."""
    plan, steps = history
    clock = Clock()
    limiter, model = LocalLimiter(clock, share), Model(plan, NANO, share)
    for step in steps:
        clock.now += step.pass_ticks
        costs = (1, step.items, step.size_bytes)
        if step.ask == "take":
            assert model.take(costs, clock.now) == take(limiter, plan, step.items, step.size_bytes)
        elif step.ask == "check":
            expected = model.refused((1, 0, step.size_bytes), clock.now)
            assert expected == outcome(lambda size=step.size_bytes: limiter.check(caller(plan), size))  # type: ignore[misc]
        else:
            model.give_back(costs, clock.now)
            at_once(limiter.give_back(caller(plan), step.items, step.size_bytes))


@given(
    rate=st.builds(Rate, st.integers(1, 5_000_000_000), st.integers(1, 1000)),
    requests=st.lists(st.tuples(st.integers(0, 3_000_000_000), st.integers(1, 1000)), max_size=30),
)
def test_no_span_of_time_exceeds_burst_and_rate(rate: Rate, requests: list[tuple[int, int]]) -> None:
    """In no span of time more than burst + per_s * T is taken, and what is refused would have been too much in one."""
    clock = Clock()
    limiter, plan = LocalLimiter(clock), Plan("Tried", None, rate, None)
    taken: list[tuple[int, int]] = []
    for pass_nano, items in requests:
        clock.now += pass_nano
        passed = take(limiter, plan, items) is None
        until = [*taken, (clock.now, items)]
        sums = accumulate(cost for _, cost in reversed(until))
        spans = (Fraction(clock.now - start, NANO) for start, _ in reversed(until))
        assert passed == all(total <= rate.burst + rate.per_s * span for total, span in zip(sums, spans, strict=True))
        if passed:
            taken = until


@given(history=histories(NANO), share=st.integers(1, 3))
def test_it_fits_after_the_time_to_wait(history: tuple[Plan, list[Step]], share: int) -> None:
    """After retry_after_s the same request passes, and a nanosecond before that it does not."""
    plan, steps = history
    clock = Clock()
    limiter = LocalLimiter(clock, share)
    for step in steps:
        clock.now += abs(step.pass_ticks)
        refused = take(limiter, plan, step.items, step.size_bytes)
        if refused is not None and refused.wait_ticks is not None:
            assert refused.wait_ticks > 0
            clock.now += refused.wait_ticks - 1
            early = take(limiter, plan, step.items, step.size_bytes)
            assert early is not None
            assert early.wait_ticks == 1
            clock.now += 1
            assert take(limiter, plan, step.items, step.size_bytes) is None


def test_a_clock_that_goes_back_locks_nobody_out() -> None:
    """After a step back of a day the bucket refills from there on, as if no time had passed."""
    clock = Clock()
    limiter, plan = LocalLimiter(clock), Plan("Tried", Rate(1, 1), None, None)
    assert take(limiter, plan) is None
    clock.now -= 86_400 * NANO
    assert take(limiter, plan) == Refusal("requests", NANO)
    clock.now += NANO
    assert take(limiter, plan) is None


def test_a_share_is_exact() -> None:
    """Three processes of one share each admit in a second, after the burst, exactly what the plan does: 100, not 99."""
    plan = Plan("Tried", Rate(100, 100), None, None)
    clock = Clock()
    limiters = [LocalLimiter(clock, 3) for _ in range(3)]
    admitted = 0
    for _ in range(31):  # the burst is gone after the first tenth; three seconds altogether
        admitted += sum(take(limiter, plan) is None for limiter in limiters for _ in range(100))
        clock.now += NANO // 10
    assert admitted == 99 + 300  # a third of the burst is 33 and a third, of which each bucket keeps the third


def test_a_share_lets_a_large_request_pass() -> None:
    """What is more than the share of the burst but not than the burst passes when nothing is used, and is owed afterwards."""
    plan = Plan("Tried", None, Rate(100, 1000), None)
    clock = Clock()
    limiter = LocalLimiter(clock, 10)
    assert take(limiter, plan, 1000) is None
    assert take(limiter, plan, 1) == Refusal("items", 90 * NANO + NANO // 10), "1000 less 100 are owed, at 10 a second"
    clock.now += 100 * NANO
    assert take(limiter, plan, 1000) is None
    assert take(limiter, plan, 1001) == Refusal("", None)


def test_no_share_of_none() -> None:
    """A share is one part of one or more."""
    with pytest.raises(ValueError, match="at least 1, not of 0"):
        LocalLimiter(Clock(), 0)


def test_memory_is_that_of_who_sends_now() -> None:
    """Of 10,000 tenants that each send once in a while, only those whose buckets are not full again are kept."""
    clock = Clock()
    limiter, plan = LocalLimiter(clock), Plan("Tried", Rate(10, 5), None, None)
    most = 0
    for number in range(10_000):
        assert take(limiter, plan, tenant=f"tenant-{number}") is None
        clock.now += NANO // 100  # ten of them in the time in which a bucket refills
        most = max(most, len(limiter))
    assert most <= 3 * 10


def test_no_bucket_in_use_is_dropped() -> None:
    """However many come in between, a tenant that has used its burst is still refused."""
    clock = Clock()
    limiter, plan = LocalLimiter(clock), Plan("Tried", Rate(1, 1), None, None)
    assert take(limiter, plan) is None
    for number in range(1000):
        assert take(limiter, plan, tenant=f"tenant-{number}") is None
    assert take(limiter, plan) == Refusal("requests", NANO)
    assert len(limiter) == 1001


def test_a_plan_that_changes_keeps_what_is_used() -> None:
    """A plan of the same name with other numbers goes on from what is used; what it does not limit any more is forgotten."""
    clock = Clock()
    limiter = LocalLimiter(clock)
    assert take(limiter, Plan("Tried", Rate(1, 10), Rate(1, 10), None), 10) is None
    assert take(limiter, Plan("Tried", Rate(2, 2), None, None)) is None
    assert take(limiter, Plan("Tried", Rate(2, 2), Rate(1, 10), None), 10) == Refusal("requests", NANO // 2)


def test_a_plan_that_becomes_slower_drops_nothing() -> None:
    """Whether anything is still used is decided by the plan's present numbers, not by those with which the bucket began."""
    clock = Clock()
    limiter, slow = LocalLimiter(clock), Plan("Tried", None, Rate(1, 1000), None)
    assert take(limiter, Plan("Tried", None, Rate(1000, 1000), None), 500) is None
    assert take(limiter, slow, 500) is None
    clock.now += NANO
    for number in range(10):
        assert take(limiter, slow, tenant=f"tenant-{number}") is None
    assert take(limiter, slow, 500) == Refusal("items", 499 * NANO)


def test_the_unlimited_take_no_memory() -> None:
    """Nothing is kept of a plan that limits nothing."""
    limiter = LocalLimiter(Clock())
    for _ in range(10):
        assert take(limiter, UNLIMITED, 10**12, 10**12) is None
    assert len(limiter) == 0
    assert take(limiter, FREE, 10) is None
    assert len(limiter) == 1
