"""The script in a real Redis, by a clock that the test sets: exact against the slow model, to the microsecond."""

import struct
from collections.abc import Iterator

import pytest
import redis
from hypothesis import given
from support.processes.redis_server import RedisServer
from support.references.limiting import TOO_MUCH, Model, Refusal, Step, caller, histories, refusal

from adapters.errors import RequestRefused
from collector.rate_limit.buckets import Three, limited, require_possible
from collector.rate_limit.script import SCRIPT, answer, give_back_arguments, key, take_arguments
from collector.tenancy.plans import GIB, PRO, RATE_MAX, Plan, Rate

MICRO = 1_000_000
# The clock is an argument, and nothing expires by Redis's own.
BY_OUR_CLOCK = SCRIPT.replace("redis.call('TIME')", "{struct.unpack('<dd', ARGV[2])}").replace(
    "'PX', expires_ms", "'PX', 3600000"
)


@pytest.fixture(scope="module")
def server() -> Iterator[redis.Redis]:
    assert BY_OUR_CLOCK.count("ARGV[2]") == BY_OUR_CLOCK.count("3600000") == 1
    with RedisServer() as running:
        yield redis.Redis.from_url(running.url)


class Scripted:
    """One tenant's buckets in Redis. Time is in microseconds since the epoch."""

    def __init__(self, server: redis.Redis, plan: Plan) -> None:
        self.server = server
        self.plan = plan
        self.now = 1_760_000_000 * MICRO
        server.flushall()

    def run(self, arguments: bytes) -> tuple[bool, Three]:
        seconds, micros = divmod(self.now, MICRO)
        clock = struct.pack("<dd", seconds, micros)
        said = self.server.eval(BY_OUR_CLOCK, 1, key(caller(self.plan)), arguments, clock)
        assert isinstance(said, bytes)
        return answer(said)

    def take(self, costs: Three) -> Refusal | None:
        try:
            require_possible(self.plan, costs)
        except RequestRefused:
            return TOO_MUCH
        fits, used = self.run(take_arguments(self.plan, costs))
        return None if fits else refusal(limited(self.plan, used, costs), MICRO)


@given(history=histories(MICRO))
def test_as_the_model(server: redis.Redis, history: tuple[Plan, list[Step]]) -> None:
    """The decision, its dimension and its time to wait are the model's, whatever comes when, and however the clock goes."""
    plan, steps = history
    scripted, model = Scripted(server, plan), Model(plan, MICRO)
    for step in steps:
        scripted.now += step.pass_ticks
        costs = (1, step.items, step.size_bytes)
        if step.ask == "give back":
            model.give_back(costs, scripted.now)
            scripted.run(give_back_arguments(plan, costs))
        elif model.is_too_much(costs):
            assert scripted.take(costs) == TOO_MUCH, "and Redis is not asked, nor its clock"
        else:
            before = model.at, list(model.tokens)
            refused = model.take(costs, scripted.now)
            assert refused == scripted.take(costs)
            if refused is not None and before[0] is not None and before[0] <= scripted.now:
                # Redis writes nothing of a refusal, so time passes since what was taken last. It is the same for a clock that
                # goes on.
                model.at, model.tokens = before


def test_the_largest_plan_is_exact(server: redis.Redis) -> None:
    """At the largest rate and burst that a plan may have, one byte too many is still one too many."""
    scripted = Scripted(server, Plan("Tried", None, None, Rate(RATE_MAX, RATE_MAX)))
    assert scripted.take((1, 0, RATE_MAX - 1)) is None
    assert scripted.take((1, 0, 2)) == Refusal("bytes", 1)
    assert scripted.take((1, 0, 1)) is None
    assert scripted.take((1, 0, 1)) == Refusal("bytes", 1)
    scripted.now += 1
    assert scripted.take((1, 0, RATE_MAX // MICRO + 1)) == Refusal("bytes", 1)
    assert scripted.take((1, 0, RATE_MAX // MICRO)) is None


def test_a_year_refills_a_bucket(server: redis.Redis) -> None:
    """However long nothing came, a bucket is full and not more."""
    plan = Plan("Tried", None, Rate(RATE_MAX, 10), Rate(RATE_MAX, 4 * GIB))
    scripted = Scripted(server, plan)
    assert scripted.take((1, 10, 4 * GIB)) is None
    scripted.now += 366 * 86_400 * MICRO
    assert scripted.take((1, 10, 4 * GIB)) is None
    assert scripted.take((1, 1, 0)) == Refusal("items", 1)


def test_a_clock_that_goes_back_locks_nobody_out(server: redis.Redis) -> None:
    """After a step back of a day the bucket refills from there on, as if no time had passed; refusals too see to that."""
    scripted = Scripted(server, Plan("Tried", Rate(1, 1), None, None))
    assert scripted.take((1, 0, 0)) is None
    scripted.now -= 86_400 * MICRO
    assert scripted.take((1, 0, 0)) == Refusal("requests", MICRO)
    scripted.now += MICRO
    assert scripted.take((1, 0, 0)) is None


def test_a_plan_that_changes_keeps_what_is_used(server: redis.Redis) -> None:
    """A plan of the same name with other numbers goes on from what is used; what it limits no more keeps nobody out."""
    scripted = Scripted(server, Plan("Tried", Rate(1, 10), Rate(1, 10), None))
    assert scripted.take((1, 10, 0)) is None
    scripted.plan = Plan("Tried", Rate(2, 2), None, None)
    assert scripted.take((1, 10**9, 0)) is None
    assert scripted.take((1, 0, 0)) == Refusal("requests", MICRO // 2)


@pytest.mark.parametrize(("plan", "cost", "expires_ms"), [(Plan("T", Rate(1, 5), None, None), 3, 3000), (PRO, 1, 1)])
def test_a_key_expires_when_nothing_is_used(server: redis.Redis, plan: Plan, cost: int, expires_ms: int) -> None:
    """Redis forgets a tenant as soon as that makes no difference any more: not sooner, and at most two milliseconds later."""
    server.flushall()
    seconds, micros = server.time()
    for _ in range(cost):
        server.eval(SCRIPT, 1, key(caller(plan)), take_arguments(plan, (1, 0, 0)))
    until = server.pexpiretime(key(caller(plan)))
    since_ms = seconds * 1000 + micros / 1000
    assert since_ms + expires_ms <= until
    later_s, later_us = server.time()
    assert until <= later_s * 1000 + later_us / 1000 + expires_ms + 2


def test_keys_of_two_tenants_are_two() -> None:
    """No tenant's name with a plan's makes the key of another: a plan's name has no space."""
    plans = [Plan(name, Rate(1, 1), None, None) for name in ("a", "a-b", "{a}", "a:b")]
    tenants = ["b c", "c", " c", "b", "}", "b:c", "", "a b c"]
    keys = {key(caller(plan, tenant)) for plan in plans for tenant in tenants}
    assert len(keys) == len(plans) * len(tenants)
