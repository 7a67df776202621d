"""The contract of limiters, whether they count in the memory of this process or in Redis.

Invariants:
1. A request is counted in all dimensions of its plan (requests, items, bytes) or in none. Over any time T a tenant's requests
   with one plan are at most burst + per_s * T in every dimension. No request of a tenant that keeps to that is refused
   (tests/contracts/test_limiter_contract.py, test_all_dimensions_or_none).
2. Requests that are refused after they were decoded are counted separately from those that are taken, and in this process. Over
   any time T `check` lets pass no more of them, and of their bytes, than the plan has requests and bytes. So they cost no more
   than those that are taken, and a sender that comes too early takes nothing from its plan's quota
   (test_limiter_contract.py, test_decoded_and_refused_requests_are_bounded).
3. A limiter never waits for a bucket to refill. It reports how long that takes, and the sender waits.
"""

from typing import Protocol

from adapters.errors import EXCEEDS_PLAN, RequestRefused
from collector.tenancy.identity import Caller
from collector.tenancy.plans import Dimension, Plan, amount


class Limited(Exception):
    """The tenant is over its plan; nothing of the request was counted. It fits after `retry_after_s` seconds (not rounded), if
    nothing else is sent until then. `dimension` is the one that needs longest."""

    def __init__(self, plan: Plan, dimension: Dimension, retry_after_s: float) -> None:
        super().__init__(f"{plan.summary(dimension)}: again in {retry_after_s:.3f} s")
        self.plan: Plan = plan
        self.dimension: Dimension = dimension
        self.retry_after_s: float = retry_after_s


class Limiter(Protocol):
    """Counts for (tenant, plan): all keys of a tenant with the same plan share what it allows."""

    def check(self, caller: Caller, size_bytes: int) -> None:
        """Check, before the body is decoded, that the request may pass, as far as this process knows. Takes nothing.

        Raises Limited or RequestRefused (EXCEEDS_PLAN) only if `take` would, or if too much was refused.
        """

    async def take(self, caller: Caller, items: int, size_bytes: int) -> None:
        """Count one request of `items` (all that arrived) and `size_bytes` (its cost in bytes, ingest/charges.py).

        Raises Limited, or RequestRefused (EXCEEDS_PLAN) for a request that is more than the plan's burst and so can never pass;
        either way it is counted in no dimension.
        """

    def refused(self, caller: Caller, size_bytes: int) -> float:
        """Count a request with a body of that size that was decoded but not taken, because it did not fit. Return the seconds
        until `check` lets such a request pass. Raises nothing."""

    async def give_back(self, caller: Caller, items: int, size_bytes: int) -> None:
        """Return the quota of a request that was taken but not kept, by a fault of ours, as far as that is still possible.
        Raises nothing."""


def exceeds_plan(plan: Plan, dimension: Dimension, cost: int, burst: int) -> RequestRefused:
    """Return the refusal of a request that alone exceeds `burst`."""
    message = (
        f"the request is of {amount(dimension, cost)}, and the plan {plan.summary(dimension)} never allows more than"
        f" {amount(dimension, burst)} at once: send it in parts, or with a larger plan"
    )
    return RequestRefused(EXCEEDS_PLAN, message)
