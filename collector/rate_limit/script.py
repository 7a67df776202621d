"""The Lua script that Redis runs for one request: the buckets of collector/rate_limit/buckets.py, by Redis's own clock.

Lua counts in doubles, so every number stays below 2**53, where doubles are exact: time is in microseconds, and usage in
millionths, at most twice RATE_MAX * 10**6. A product of rate and time may be larger. It then exceeds any possible usage, so the
bucket is full whichever way the product was rounded. If Redis's clock goes back, no time has passed.

Arguments and answers are packed as doubles: one argument and one answer cost half as much as nine and four.

Invariants, each held by tests/integration/redis/test_script.py:
1. One request is one run of the script on one key. So all three dimensions are counted at one moment or none is, and a cluster
   needs only that key's node (test_as_the_model, test_keys_of_two_tenants_are_two).
2. The largest plan is counted exactly (test_the_largest_plan_is_exact).
3. The key expires when nothing is used any more, so Redis holds only tenants that send now
   (test_a_key_expires_when_nothing_is_used).
"""

import struct
from typing import Final

from collector.rate_limit.buckets import NANO, Three
from collector.tenancy.identity import Caller
from collector.tenancy.plans import RATE_MAX, Plan

_MICRO: Final = 1_000_000
_NO_BURST: Final = 2.0**53
_ARGUMENTS: Final = struct.Struct("<9d")
_ANSWER: Final = struct.Struct("<4d")

# A negative cost gives back: it always fits, with _NO_BURST as the burst.
SCRIPT: Final = """\
local rates, bursts, costs, used = {}, {}, {}, {0, 0, 0}
rates[1], rates[2], rates[3], bursts[1], bursts[2], bursts[3], costs[1], costs[2], costs[3] =
  struct.unpack('<ddddddddd', ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local at = now
local state = redis.call('GET', KEYS[1])
if state then
  at, used[1], used[2], used[3] = struct.unpack('<dddd', state)
end
local elapsed = math.max(0, now - at)
local fits, spent, unused_in_us = 1, {}, 0
for i = 1, 3 do
  used[i] = math.max(0, used[i] - rates[i] * elapsed)
  spent[i] = math.max(0, used[i] + costs[i])
  if spent[i] > bursts[i] then
    fits = 0
  end
  unused_in_us = math.max(unused_in_us, spent[i] / rates[i])
end
if fits == 1 then
  used = spent
end
if fits == 1 or now < at then
  local expires_ms = math.ceil(unused_in_us / 1000) + 1
  redis.call('SET', KEYS[1], struct.pack('<dddd', now, used[1], used[2], used[3]), 'PX', expires_ms)
end
return struct.pack('<dddd', fits, used[1], used[2], used[3])
"""


def key(caller: Caller) -> str:
    """Return the key of (tenant, plan). A plan's name has no space, so no two pairs have the same key."""
    return f"infrasage:limit:{{{caller.plan.name} {caller.tenant}}}"


def take_arguments(plan: Plan, costs: Three) -> bytes:
    """Return the arguments that count `costs`: requests, items, bytes."""
    rates, bursts, packed = [], [], []
    for rate, cost in zip(plan.rates, costs, strict=True):
        rates.append(RATE_MAX if rate is None else rate.per_s)
        bursts.append(_NO_BURST if rate is None else rate.burst * _MICRO)
        packed.append(0 if rate is None else cost * _MICRO)
    return _ARGUMENTS.pack(*rates, *bursts, *packed)


def give_back_arguments(plan: Plan, costs: Three) -> bytes:
    """Return the arguments that give `costs` back."""
    rates = [RATE_MAX if rate is None else rate.per_s for rate in plan.rates]
    return _ARGUMENTS.pack(*rates, _NO_BURST, _NO_BURST, _NO_BURST, *(-cost * _MICRO for cost in costs))


def answer(packed: bytes) -> tuple[bool, Three]:
    """Return whether the request was counted, and the usage now, in billionths."""
    fits, requests, items, size_bytes = _ANSWER.unpack(packed)
    thousand = NANO // _MICRO
    return fits == 1, (int(requests) * thousand, int(items) * thousand, int(size_bytes) * thousand)
