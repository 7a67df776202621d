"""What collector/rate_limit/contract.py promises, of every limiter there is. Rates are so low that nothing refills
meanwhile."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from support.ports import free_port
from support.processes.redis_server import RedisServer
from support.references.limiting import caller

from adapters.errors import EXCEEDS_PLAN, RequestRefused
from collector.rate_limit.contract import Limited, Limiter
from collector.rate_limit.local import LocalLimiter
from collector.rate_limit.redis import RedisLimiter
from collector.tenancy.identity import Caller
from collector.tenancy.plans import FREE, MIB, UNLIMITED, Dimension, Plan, Rate

# A token of each takes a second; most tests are over in a hundredth of that.
SLOW = Plan("Slow", Rate(1, 3), Rate(1, 100), Rate(1, 1000))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture(params=["local", "redis", "redis is away"])
async def limiter(request: pytest.FixtureRequest) -> AsyncIterator[Limiter]:
    if request.param == "local":
        yield LocalLimiter(time.monotonic_ns)
        return
    is_away = request.param == "redis is away"
    url = f"redis://127.0.0.1:{free_port()}" if is_away else request.getfixturevalue("server").url
    made = RedisLimiter(url, timeout_s=5, processes=1, now_nano=time.monotonic_ns)
    await made.open()
    assert is_away == (made.failure is not None)
    yield made
    await made.close()


@pytest.fixture
def tenant() -> str:
    """One that nobody else is, on a server that others use too."""
    return uuid.uuid4().hex


async def refused(limiter: Limiter, who: Caller, items: int = 0, size_bytes: int = 0) -> Limited:
    with pytest.raises(Limited) as raised:
        await limiter.take(who, items, size_bytes)
    return raised.value


async def test_a_burst_passes_and_no_more(limiter: Limiter, tenant: str) -> None:
    """As many requests as the burst has pass at once; the next one gets the time at which it may come again."""
    who = caller(SLOW, tenant)
    for _ in range(3):
        limiter.check(who, 0)
        await limiter.take(who, 0, 0)
    limited = await refused(limiter, who)
    assert limited.plan == SLOW
    assert limited.dimension == "requests"
    assert 0 < limited.retry_after_s <= 1


async def test_at_once_means_at_once(limiter: Limiter, tenant: str) -> None:
    """Of a hundred requests at the same time, exactly the burst passes."""
    who = caller(Plan("Slow", Rate(1, 10), None, None), tenant)
    outcomes = await asyncio.gather(*(limiter.take(who, 1, 1) for _ in range(100)), return_exceptions=True)
    assert outcomes.count(None) == 10
    assert all(isinstance(outcome, Limited) for outcome in outcomes if outcome is not None)


@pytest.mark.parametrize(("items", "size_bytes"), [(60, 0), (0, 600), (60, 600)])
async def test_all_dimensions_or_none(limiter: Limiter, tenant: str, items: int, size_bytes: int) -> None:
    """What is refused for its items or bytes takes no request, and nothing of the other."""
    who = caller(SLOW, tenant)
    await limiter.take(who, 60, 600)
    for _ in range(10):
        await refused(limiter, who, items, size_bytes)
    await limiter.take(who, 40, 400)
    await limiter.take(who, 0, 0)
    assert (await refused(limiter, who)).dimension == "requests"


@pytest.mark.parametrize(
    ("items", "size_bytes", "dimension", "wait_s"),
    [(0, 0, "requests", 1), (1, 1, "requests", 1), (50, 20, "items", 50), (20, 50, "bytes", 50), (100, 1000, "bytes", 1000)],
)
async def test_the_longest_wait_is_answered(
    limiter: Limiter, tenant: str, items: int, size_bytes: int, dimension: Dimension, wait_s: int
) -> None:
    """Where several dimensions are used up, the answer has the one that takes longest to refill, and that time."""
    who = caller(SLOW, tenant)
    await limiter.take(who, 100, 1000)
    await limiter.take(who, 0, 0)
    await limiter.take(who, 0, 0)
    limited = await refused(limiter, who, items, size_bytes)
    assert limited.dimension == dimension
    assert wait_s - 1 < limited.retry_after_s <= wait_s


async def test_after_the_time_to_wait_it_passes(limiter: Limiter, tenant: str) -> None:
    """The bucket refills while one waits, and a sender that waits as it is asked to is not refused again."""
    who = caller(Plan("Quick", Rate(20, 1), Rate(200, 100), None), tenant)
    await limiter.take(who, 100, 0)
    limited = await refused(limiter, who, 100)
    assert limited.dimension == "items"
    assert 0 < limited.retry_after_s <= 0.5
    await asyncio.sleep(limited.retry_after_s + 0.001)
    limiter.check(who, 0)
    await limiter.take(who, 100, 0)


@pytest.mark.parametrize(
    ("items", "size_bytes", "message"),
    [
        (
            20_001,
            0,
            "the request is of 20,001 items, and the plan Free (10,000 items/s) never allows more than 20,000 items at once:"
            " send it in parts, or with a larger plan",
        ),
        (
            1,
            128 * MIB + 1,
            "the request is of 134,217,729 bytes, and the plan Free (16 MiB/s) never allows more than 128 MiB at once:"
            " send it in parts, or with a larger plan",
        ),
    ],
)
async def test_what_can_never_pass_is_refused_for_good(
    limiter: Limiter, tenant: str, items: int, size_bytes: int, message: str
) -> None:
    """More than the burst is refused for good, with the numbers, whatever has been used; and takes nothing."""
    who = caller(FREE, tenant)
    for taken in (20_000, 0):
        with pytest.raises(RequestRefused) as raised:
            await limiter.take(who, items, size_bytes)
        assert raised.value.reason == EXCEEDS_PLAN
        assert raised.value.message == message
        await limiter.take(who, taken, 0)


async def test_a_check_takes_nothing_and_refuses_what_take_would(limiter: Limiter, tenant: str) -> None:
    """Before the body is decoded it is known whether a request, or that many bytes, would be refused."""
    who = caller(SLOW, tenant)
    for _ in range(10):
        limiter.check(who, 1000)
    with pytest.raises(RequestRefused, match="1,001 bytes"):
        limiter.check(who, 1001)
    await limiter.take(who, 100, 900)
    limiter.check(who, 100)
    with pytest.raises(Limited) as raised:
        limiter.check(who, 200)
    assert raised.value.dimension == "bytes"
    assert 99 < raised.value.retry_after_s <= 100
    with pytest.raises(RequestRefused, match="1,001 bytes"):
        limiter.check(who, 1001)
    await limiter.take(who, 0, 0)
    await limiter.take(who, 0, 0)
    with pytest.raises(Limited) as raised:
        limiter.check(who, 0)
    assert raised.value.dimension == "requests"


async def test_who_shares_and_who_does_not(limiter: Limiter, tenant: str) -> None:
    """All keys of a tenant with one plan share what it allows; another plan of it, or another tenant, has its own."""
    for key_id in ("one", "two", "three"):
        await limiter.take(caller(SLOW, tenant, key_id), 0, 0)
    await refused(limiter, caller(SLOW, tenant, "four"))
    await limiter.take(caller(replace(SLOW, name="Slower"), tenant, "one"), 0, 0)
    await limiter.take(caller(SLOW, f"{tenant}2", "one"), 0, 0)


async def test_what_is_given_back_can_be_taken_again(limiter: Limiter, tenant: str) -> None:
    """A request that was not kept counts no more, in any dimension."""
    who = caller(SLOW, tenant)
    await limiter.take(who, 100, 1000)
    await refused(limiter, who, 100, 1000)
    await limiter.give_back(who, 100, 1000)
    limiter.check(who, 1000)
    await limiter.take(who, 100, 1000)
    await limiter.take(who, 0, 0)
    await limiter.take(who, 0, 0)
    assert (await refused(limiter, who)).dimension == "requests"


async def test_giving_back_makes_no_more_than_a_burst(limiter: Limiter, tenant: str) -> None:
    """What was refilled already is not given back once more."""
    who = caller(SLOW, tenant)
    await limiter.take(who, 10, 10)
    for _ in range(3):
        await limiter.give_back(who, 10, 10)
    for _ in range(3):
        await limiter.take(who, 33, 333)
    assert (await refused(limiter, who)).dimension == "requests"


async def test_the_unlimited_are_never_refused(limiter: Limiter, tenant: str) -> None:
    """A plan without limits has none, and one that limits only requests says nothing of items."""
    unlimited, some = caller(UNLIMITED, tenant), caller(Plan("Some", Rate(1, 2), None, None), tenant)
    for _ in range(100):
        limiter.check(unlimited, 2**62)
        await limiter.take(unlimited, 2**62, 2**62)
    await limiter.give_back(unlimited, 2**62, 2**62)
    limiter.check(some, 2**62)
    await limiter.take(some, 2**62, 2**62)
    await limiter.give_back(some, 2**62, 2**62)
    await limiter.take(some, 2**62, 2**62)
    await limiter.take(some, 2**62, 2**62)
    assert (await refused(limiter, some)).dimension == "requests"


async def test_decoded_and_refused_requests_are_bounded(limiter: Limiter, tenant: str) -> None:
    """As many as the burst has, and as many bytes, whatever was taken; then `check` refuses. The plan itself has all it had."""
    who = caller(SLOW, tenant)
    for _ in range(3):
        limiter.check(who, 400)
        wait_s = limiter.refused(who, 250)
    assert 0.9 < wait_s <= 1
    with pytest.raises(Limited) as over:
        limiter.check(who, 0)
    assert "requests" == over.value.dimension
    assert 0 < over.value.retry_after_s <= 1
    await limiter.take(who, 100, 1000)

    other = caller(SLOW, f"{tenant}2")
    assert 999 < limiter.refused(other, 5000) <= 1000
    limiter.check(other, 0)
    with pytest.raises(Limited) as over:
        limiter.check(other, 1000)
    assert "bytes" == over.value.dimension
    assert 990 < over.value.retry_after_s <= 1000
