"""Token buckets in exact whole numbers: a tenant's requests, items and bytes, taken from all three at once or from none.

There is no clock, no I/O and no fraction here. A bucket counts the used part of its burst, in billionths of a request, an item
or a byte. Every nanosecond returns `per_s` of them until nothing is used. So there is nothing to round.

With `share` = N, a bucket has one N-th of its plan's rate and burst. A request that the plan allows but that exceeds that part
of the burst passes if nothing is used, and the bucket then owes the rest. Otherwise no large batch would ever pass.

An unused bucket needs no memory, so there are hardly more buckets than are in use: whenever one is added, two others are
examined, and dropped if they are unused.

Invariants:
1. Over any time T at most burst + per_s * T is taken, less the part that is given back, and a sender that keeps to that is
   never refused (tests/unit/collector/rate_limit/test_local.py, test_no_span_of_time_exceeds_burst_and_rate).
2. A request takes from all three dimensions or from none (test_all_dimensions_or_none).
3. A bucket in use is never dropped (test_no_bucket_in_use_is_dropped).
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from collector.rate_limit.contract import Limited, exceeds_plan
from collector.tenancy.identity import Caller
from collector.tenancy.plans import DIMENSIONS, Plan

NANO: Final = 1_000_000_000
_LOOKED_AT: Final = 2

# Of requests, items and bytes, in this order, as a plan has its rates.
Three = tuple[int, int, int]


class SteadyClock:
    """A clock that never goes back, made of a clock that may. When that clock goes back, no time passes, and the time continues
    from there."""

    __slots__ = ("_now_nano", "_read", "_time")

    def __init__(self, now_nano: Callable[[], int]) -> None:
        self._now_nano: Final = now_nano
        self._read = now_nano()
        self._time = 0

    def __call__(self) -> int:
        """Return the nanoseconds since the clock was made."""
        read = self._now_nano()
        if read > self._read:
            self._time += read - self._read
        self._read = read
        return self._time


class _Bucket:
    """A bucket that had used `used` at the time `at`. It refills by the rates of `plan`."""

    __slots__ = ("at", "plan", "used")

    def __init__(self, plan: Plan, used: Three, at: int) -> None:
        self.plan = plan
        self.used = used
        self.at = at

    def is_unused(self, now: int) -> bool:
        return not any(_after(self.plan, self.used, now - self.at))


class Buckets:
    """All buckets of one limiter, by tenant and plan. `now` is in nanoseconds of a clock that never goes back."""

    def __init__(self, share: int = 1) -> None:
        if share < 1:
            raise ValueError(f"a share is one part of at least 1, not of {share}")
        # N times the cost in a bucket of the whole plan is the cost in a bucket of an N-th of it, without a fraction.
        self._unit: Final = NANO * share
        self._buckets: Final[OrderedDict[tuple[str, str], _Bucket]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def check(self, caller: Caller, size_bytes: int, now: int) -> None:
        """Raise the error that `take` would raise for a request without items. Takes nothing."""
        plan = caller.plan
        bucket = self._buckets.get((caller.tenant, plan.name))
        if bucket is not None:
            _spent(plan, bucket.used, now - bucket.at, (1, 0, size_bytes), self._unit)
        elif (rate := plan.size_bytes) is not None and size_bytes > rate.burst:
            raise exceeds_plan(plan, "bytes", size_bytes, rate.burst)

    def take(self, caller: Caller, items: int, size_bytes: int, now: int) -> None:
        """Take one request. Raises Limited or RequestRefused (EXCEEDS_PLAN), having taken nothing."""
        plan = caller.plan
        bucket = self._buckets.get((caller.tenant, plan.name))
        costs = (1, items, size_bytes)
        if bucket is None:
            self._add(caller, _spent(plan, (0, 0, 0), 0, costs, self._unit), now)
        else:
            bucket.used = _spent(plan, bucket.used, now - bucket.at, costs, self._unit)
            bucket.at = now
            bucket.plan = plan

    def give_back(self, caller: Caller, items: int, size_bytes: int, now: int) -> None:
        """Give back one request that was taken, with its items and bytes."""
        bucket = self._buckets.get((caller.tenant, caller.plan.name))
        if bucket is None:
            return  # all of it has been refilled already
        requests, items_used, bytes_used = _after(caller.plan, bucket.used, now - bucket.at)
        unit = self._unit
        bucket.used = (max(0, requests - unit), max(0, items_used - items * unit), max(0, bytes_used - size_bytes * unit))
        bucket.at = now
        bucket.plan = caller.plan

    def charge(self, caller: Caller, size_bytes: int, now: int) -> float:
        """Count one request of `size_bytes`, whether it fits or not, but at most until the whole burst is used. Return the
        seconds until another such request fits."""
        plan = caller.plan
        bucket = self._buckets.get((caller.tenant, plan.name))
        used = (0, 0, 0) if bucket is None else _after(plan, bucket.used, now - bucket.at)
        requests, items, bytes_used = (
            0 if rate is None else max(before, min(before + cost * self._unit, rate.burst * NANO))
            for rate, before, cost in zip(plan.rates, used, (1, 0, size_bytes), strict=True)
        )
        self.learn(caller, (requests, items, bytes_used), now)
        return limited(plan, (requests, items, bytes_used), (1, 0, size_bytes), self._unit).retry_after_s

    def learn(self, caller: Caller, used: Three, now: int) -> None:
        """Set the usage at `now`, in billionths, as another counter reports it."""
        bucket = self._buckets.get((caller.tenant, caller.plan.name))
        if bucket is None:
            self._add(caller, used, now)
        else:
            bucket.used = used
            bucket.at = now
            bucket.plan = caller.plan

    def _add(self, caller: Caller, used: Three, now: int) -> None:
        buckets = self._buckets
        for _ in range(min(_LOOKED_AT, len(buckets))):
            key = next(iter(buckets))
            if buckets[key].is_unused(now):
                del buckets[key]
            else:
                buckets.move_to_end(key)
        buckets[caller.tenant, caller.plan.name] = _Bucket(caller.plan, used, now)


def limited(plan: Plan, used: Three, costs: Three, unit: int = NANO) -> Limited:
    """Return the refusal of a request that does not fit: the dimension that needs longest, and the time until the request fits,
    to the nanosecond."""
    longest, dimension = 0, DIMENSIONS[0]
    for name, rate, before, cost in zip(DIMENSIONS, plan.rates, used, costs, strict=True):
        if rate is not None:
            wait = -(-(before - max(0, rate.burst * NANO - cost * unit)) // rate.per_s)
            if wait > longest:
                longest, dimension = wait, name
    return Limited(plan, dimension, longest / NANO)


def require_possible(plan: Plan, costs: Three) -> None:
    """Raise RequestRefused (EXCEEDS_PLAN) if the costs exceed a burst of the plan, so that they can never fit."""
    for dimension, rate, cost in zip(DIMENSIONS, plan.rates, costs, strict=True):
        if rate is not None and cost > rate.burst:
            raise exceeds_plan(plan, dimension, cost, rate.burst)


def _spent(plan: Plan, used: Three, elapsed: int, costs: Three, unit: int) -> Three:
    """Return the usage after a request of these costs. Raises Limited or RequestRefused (EXCEEDS_PLAN)."""
    spent = []
    fits = True
    for rate, before, cost in zip(plan.rates, used, costs, strict=True):
        if rate is None:
            spent.append(0)
            continue
        if cost > rate.burst:
            require_possible(plan, costs)
        left = before - rate.per_s * elapsed
        if left > 0:
            spent.append(left + cost * unit)
            fits = fits and spent[-1] <= rate.burst * NANO
        else:
            spent.append(cost * unit)
    if not fits:
        raise limited(plan, _after(plan, used, elapsed), costs, unit)
    return spent[0], spent[1], spent[2]


def _after(plan: Plan, used: Three, elapsed: int) -> Three:
    """Return the usage that is left `elapsed` nanoseconds later."""
    requests, items, size_bytes = (
        0 if rate is None else max(0, before - rate.per_s * elapsed) for rate, before in zip(plan.rates, used, strict=True)
    )
    return requests, items, size_bytes
