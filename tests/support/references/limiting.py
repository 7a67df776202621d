"""Limits as anybody would write them down first: fractions of a token, slow, and without a way to be wrong by rounding.

The model against which collector.rate_limit is tested, callers and plans for it, and strategies for what may happen to a
bucket.
"""

from collections.abc import Coroutine
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from hypothesis import strategies as st

from adapters.errors import EXCEEDS_PLAN, RequestRefused
from collector.rate_limit.contract import Limited
from collector.tenancy.identity import Caller
from collector.tenancy.plans import DIMENSIONS, RATE_MAX, Plan, Rate
from collector.tenancy.scopes import Scope

NANO = 1_000_000_000


def caller(plan: Plan, tenant: str = "acme", key_id: str = "key") -> Caller:
    return Caller(tenant, Scope.INGEST, plan, key_id)


class Refusal(NamedTuple):
    """Why a request was not taken. "", None: it is more than the burst of some dimension, so waiting is no use."""

    dimension: str
    wait_ticks: int | None


TOO_MUCH = Refusal("", None)


def refusal(error: Limited | RequestRefused, ticks_per_s: int) -> Refusal:
    """As the model has it: to the end of the tick of the clock that counts, of which there are at most 10**9 a second."""
    if isinstance(error, Limited):
        return Refusal(error.dimension, -(-round(error.retry_after_s * NANO) // (NANO // ticks_per_s)))
    assert error.reason == EXCEEDS_PLAN
    return TOO_MUCH


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run what never waits."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for something")


class Model:
    """One tenant's three buckets by one plan. A clock of so many ticks a second, which may stop or go back."""

    def __init__(self, plan: Plan, ticks_per_s: int, share: int = 1) -> None:
        self.plan = plan
        self.ticks_per_s = ticks_per_s
        self.share = share
        self.tokens = [Fraction(0 if rate is None else rate.burst, share) for rate in plan.rates]
        self.at: int | None = None

    def _refill(self, now: int) -> None:
        seconds = Fraction(0 if self.at is None else max(0, now - self.at), self.ticks_per_s)
        self.at = now
        for number, rate in enumerate(self.plan.rates):
            if rate is not None:
                grown = self.tokens[number] + seconds * Fraction(rate.per_s, self.share)
                self.tokens[number] = min(Fraction(rate.burst, self.share), grown)

    def is_too_much(self, costs: tuple[int, int, int]) -> bool:
        """At any time."""
        return any(rate is not None and cost > rate.burst for rate, cost in zip(self.plan.rates, costs, strict=True))

    def refused(self, costs: tuple[int, int, int], now: int) -> Refusal | None:
        """Why these do not fit now; takes nothing."""
        self._refill(now)
        if self.is_too_much(costs):
            return TOO_MUCH
        worst: Refusal | None = None
        for dimension, rate, cost, tokens in zip(DIMENSIONS, self.plan.rates, costs, self.tokens, strict=True):
            if rate is None:
                continue
            needed = min(Fraction(cost), Fraction(rate.burst, self.share))
            if tokens < needed:
                ticks = -((tokens - needed) / Fraction(rate.per_s, self.share) * self.ticks_per_s // 1)
                if worst is None or worst.wait_ticks is None or ticks > worst.wait_ticks:
                    worst = Refusal(dimension, int(ticks))
        return worst

    def take(self, costs: tuple[int, int, int], now: int) -> Refusal | None:
        """None: they fitted, and are taken."""
        if (refusal := self.refused(costs, now)) is None:
            for number, (rate, cost) in enumerate(zip(self.plan.rates, costs, strict=True)):
                if rate is not None:
                    self.tokens[number] -= cost
        return refusal

    def give_back(self, costs: tuple[int, int, int], now: int) -> None:
        self._refill(now)
        for number, (rate, cost) in enumerate(zip(self.plan.rates, costs, strict=True)):
            if rate is not None:
                self.tokens[number] = min(Fraction(rate.burst, self.share), self.tokens[number] + cost)


class Step(NamedTuple):
    """`pass_ticks` later, this is asked."""

    pass_ticks: int
    ask: Literal["take", "check", "give back"]
    items: int
    size_bytes: int


def numbers(largest: int) -> st.SearchStrategy[int]:
    """Of every size up to this one: small ones as likely as large ones."""
    return st.integers(0, largest.bit_length()).flatmap(lambda bits: st.integers(0, min(largest, 2**bits)))


def rates(largest: int) -> st.SearchStrategy[Rate | None]:
    """That refill within about a day: a float has the nanoseconds of a hundred."""

    def with_burst(burst: int) -> st.SearchStrategy[Rate]:
        slowest = burst // 86_400 + 1
        return numbers(largest - slowest).map(lambda more: Rate(slowest + more, burst))

    return st.none() | numbers(largest).map(lambda burst: burst or 1).flatmap(with_burst)


@st.composite
def histories(draw: st.DrawFn, ticks_per_s: int) -> tuple[Plan, list[Step]]:
    """A plan, and what is asked one after the other; often costs near the burst, and times near what refills a part of it."""
    plan = Plan("Tried", draw(rates(50)), draw(rates(RATE_MAX)), draw(rates(RATE_MAX)))
    refill_ticks = max((rate.burst * ticks_per_s // rate.per_s for rate in plan.rates if rate is not None), default=0)

    def cost(rate: Rate | None) -> st.SearchStrategy[int]:
        burst = 1000 if rate is None else rate.burst
        return st.sampled_from([0, 1, burst // 3, burst // 2, burst, burst + 1]) | numbers(burst)

    passing = st.sampled_from([0, 1, refill_ticks // 7, refill_ticks]) | numbers(2 * refill_ticks) | st.integers(-5_000_000, -1)
    step = st.builds(
        Step, passing, st.sampled_from(["take", "take", "take", "check", "give back"]), cost(plan.items), cost(plan.size_bytes)
    )
    return plan, draw(st.lists(step, min_size=1, max_size=25))
