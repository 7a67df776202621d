"""Tenants at their limits, over real HTTP and gRPC: what they hear, how much exactly they may send, and that others notice
nothing."""

import asyncio
import gzip
import itertools
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

import grpc
import pytest
from grpc import aio
from infrasage.v1.telemetry_pb2 import TelemetryBatch
from support.costs import cost_of
from support.fakes.receiving import (
    RawConnection,
    Receivers,
    Response,
    connection,
    grpc_receivers,
    http_receivers,
    otlp_logs,
    post,
)
from support.otlp_grpc import EACH_SERVICE, LOGS, UNCOMPRESSED, Service, export, refused
from support.tenants import on_plans
from support.waiting import eventually
from support.ways import PROTOBUF, WAYS, WAYS_BY_NAME, Way, retry_delay_s, told

from collector.rate_limit.local import LocalLimiter
from collector.receivers.grpc.server import GrpcServer
from collector.tenancy.plans import DIMENSIONS, UNLIMITED, Dimension, Plan, Rate

# The way over HTTP that takes the same bodies, at the same cost.
GRPC_WAYS: Final = {
    "data points": next(way for way in WAYS if (way.path, way.content_type) == ("/v1/metrics", PROTOBUF)),
    "log records": next(way for way in WAYS if (way.path, way.content_type) == ("/v1/logs", PROTOBUF)),
    "spans": next(way for way in WAYS if (way.path, way.content_type) == ("/v1/traces", PROTOBUF)),
}
EACH_DIMENSION = pytest.mark.parametrize("dimension", DIMENSIONS)


class Clock:
    """It waits until the test lets it go on."""

    def __init__(self) -> None:
        self.nano = 0

    def __call__(self) -> int:
        return self.nano


def plan(dimension: Dimension, per_s: int, burst: int) -> Plan:
    """With one limit."""
    rate = Rate(per_s, burst)
    return Plan(
        "Small",
        rate if dimension == "requests" else None,
        rate if dimension == "items" else None,
        rate if dimension == "bytes" else None,
    )


class Quota(NamedTuple):
    """A plan by which one request of `body` passes, and the next one `wait_s` later. `told_s` is the answer's Retry-After: what
    its rows have is not known before it is read, nor what it decompresses to, and so the wait is for its body as sent."""

    plan: Plan
    body: bytes
    wait_s: float
    told_s: float
    summary: str


def quota(dimension: Dimension, way: Way, items: int = 9) -> Quota:
    body = way.body(good=items)
    if dimension == "requests":
        return Quota(plan("requests", 1, 1), body, 1, 1, "Small (1 RPS)")
    if dimension == "items":
        return Quota(plan("items", 2, items), body, items / 2, items / 2, "Small (2 items/s)")
    cost = cost_of(way.path, way.content_type, body)
    return Quota(plan("bytes", 64, cost), body, cost / 64, len(way.as_sent(body)) / 64, "Small (64 bytes/s)")


def items_of(way: Way) -> int:
    return 1 if way.path == "/api/v1/telemetry" else 9


async def send(raw: RawConnection, way: Way, body: bytes, tenant: str) -> Response:
    await raw.send(post(way.path, way.content_type, way.as_sent(body), f"X-API-Key: {tenant}"))
    return await raw.response()


def check_limited(way: Way, answer: Response, expected: Quota) -> None:
    """To the letter; and never to come again before it can pass."""
    assert answer.status == 429, answer
    assert answer.headers["retry-after"] == str(math.ceil(expected.told_s))
    error = told(way, answer.headers["content-type"], answer.body)
    assert error.message == f"Tenant quota exceeded. Current plan: {expected.summary}. Upgrade at /billing/plans."
    if way.is_otlp:
        assert error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert error.retry_after_s == expected.told_s
    else:
        assert error.error == "rate_limit_exceeded"


@WAYS_BY_NAME
@EACH_DIMENSION
async def test_over_the_plan_is_429_until_it_is_refilled(way: Way, dimension: Dimension) -> None:
    """By each limit, in each protocol: what is refused is not kept, and passes at the time in the answer, to the nanosecond."""
    small = quota(dimension, way, items_of(way))
    clock = Clock()
    async with (
        http_receivers(find=on_plans({"acme": small.plan}), limiter=LocalLimiter(clock)) as made,
        connection(made.port) as raw,
    ):
        assert (await send(raw, way, small.body, "acme")).status == way.status
        check_limited(way, await send(raw, way, small.body, "acme"), small)
        clock.nano = round(small.wait_s * 1e9) - 1
        assert (await send(raw, way, small.body, "acme")).status == 429
        assert made.producer.item_count() == items_of(way)
        assert made.counted("infrasage_tenant_requests_total", tenant="acme", status=f"limited_by_{dimension}") == 2
        clock.nano += 1
        if small.plan.size_bytes is not None:
            # The early one was decoded, and those that are and do not fit have a burst of their own.
            missing = 2 * len(small.body) - small.plan.size_bytes.burst
            clock.nano += max(0, math.ceil(missing / 64 * 1e9))
        assert (await send(raw, way, small.body, "acme")).status == way.status
        assert made.counted("infrasage_requests_refused_total", reason="rate_limit_exceeded") == 2
        assert made.in_flight.bytes_held == 0


@pytest.mark.parametrize(
    ("way", "dimension"),
    [(way, dimension) for way in WAYS for dimension in DIMENSIONS[1:] if dimension == "bytes" or items_of(way) > 1],
    ids=lambda value: value.name if isinstance(value, Way) else value,
)
async def test_more_than_the_plan_ever_allows_is_413(way: Way, dimension: Dimension) -> None:
    """It would not pass however long one waits, so no answer asks a sender to wait."""
    body = way.body(good=items_of(way))
    burst = (items_of(way) if dimension == "items" else len(body)) - 1
    async with (
        http_receivers(find=on_plans({"acme": plan(dimension, 1, burst)}), limiter=LocalLimiter(Clock())) as made,
        connection(made.port) as raw,
    ):
        answer = await send(raw, way, body, "acme")
        assert answer.status == 413
        assert "retry-after" not in answer.headers
        error = told(way, answer.headers["content-type"], answer.body)
        assert f"never allows more than {burst:,} {dimension} at once: send it in parts" in error.message
        assert error.retry_after_s is None
        assert (error.code, error.error) == ((8, "") if way.is_otlp else (0, "exceeds_plan"))
        assert made.producer.appends == 0
        assert made.counted("infrasage_tenant_requests_total", tenant="acme", status="refused") == 1


@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)], ids=["sends", "asks first"])
@WAYS_BY_NAME
async def test_what_cannot_pass_is_refused_before_its_body_is_sent(way: Way, expect: tuple[str, ...]) -> None:
    """A sender over its plan in requests, or that announces more bytes than it may send, is refused by the head alone."""
    plans = {"busy": plan("requests", 1, 1), "big": plan("bytes", 1, 1_000)}
    async with http_receivers(find=on_plans(plans), limiter=LocalLimiter(Clock())) as made:
        async with connection(made.port) as raw:
            assert (await send(raw, way, way.body(), "busy")).status == way.status
        for tenant, status in (("busy", 429), ("big", 413)):
            if tenant == "big" and way.is_remote_write:
                continue  # what it announces is compressed: what it is, nobody knows yet
            taken = made.counted("infrasage_http_request_body_bytes_total")
            async with connection(made.port) as raw:
                await raw.send(post(way.path, way.content_type, b"", f"X-API-Key: {tenant}", *expect, length=1_001))
                answer = await raw.response()
                assert answer.status == status, answer
                assert made.in_flight.bytes_held == 0
                if expect:
                    # Only closing tells whether what comes next is the body.
                    assert answer.headers["connection"] == "close"
                    assert await raw.closed()
                    assert made.counted("infrasage_http_request_body_bytes_total") == taken


async def test_a_permanent_refusal_comes_before_a_temporary_one() -> None:
    """A body over http.body_bytes_max is 413 also where the plan has no room now. A client would retry a 429 for ever."""
    way = WAYS[4]
    find = on_plans({"busy": plan("requests", 1, 1)})
    async with http_receivers(find=find, limiter=LocalLimiter(Clock()), body_bytes_max=1_000) as made:
        async with connection(made.port) as raw:
            assert (await send(raw, way, way.body(), "busy")).status == way.status
        for length, status in ((1_001, 413), (1_000, 429)):
            async with connection(made.port) as raw:
                await raw.send(post(way.path, way.content_type, b"", "X-API-Key: busy", length=length))
                assert status == (await raw.response()).status


async def test_bytes_are_those_of_the_body_itself() -> None:
    """Compressing saves nothing of a plan, and costs nothing: what counts is what is decompressed."""
    way = WAYS[4]
    body = way.body(padding=5_000)
    packed = gzip.compress(body)
    async with http_receivers(
        find=on_plans({"acme": plan("bytes", 1, cost_of(way.path, way.content_type, body))}), limiter=LocalLimiter(Clock())
    ) as made:
        for status in (200, 429):
            async with connection(made.port) as raw:
                await raw.send(post(way.path, way.content_type, packed, "X-API-Key: acme", "Content-Encoding: gzip"))
                assert (await raw.response()).status == status


@asynccontextmanager
async def over_grpc(made: Receivers) -> AsyncIterator[tuple[GrpcServer, aio.Channel]]:
    async with (
        grpc_receivers(made) as (_, server),
        aio.insecure_channel(f"127.0.0.1:{server.port}", options=UNCOMPRESSED) as channel,
    ):
        yield server, channel


@EACH_SERVICE
@EACH_DIMENSION
async def test_over_the_plan_is_resource_exhausted_with_a_delay(service: Service, dimension: Dimension) -> None:
    """RetryInfo is what makes it retryable, and has the time until it passes, to the nanosecond."""
    small = quota(dimension, GRPC_WAYS[service.noun])
    clock = Clock()
    async with (
        http_receivers(find=on_plans({"acme": small.plan}), limiter=LocalLimiter(clock)) as made,
        over_grpc(made) as (_, channel),
    ):
        metadata = (("x-api-key", "acme"),)
        assert await export(channel, service, small.body, metadata=metadata) == b""
        error, status = await refused(channel, service, small.body, metadata=metadata)
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert status.message == f"Tenant quota exceeded. Current plan: {small.summary}. Upgrade at /billing/plans."
        assert retry_delay_s(status) == small.told_s
        assert made.producer.item_count() == 9
        clock.nano = round(small.wait_s * 1e9)
        assert await export(channel, service, small.body, metadata=metadata) == b""


@EACH_SERVICE
@pytest.mark.parametrize("dimension", ["items", "bytes"])
async def test_more_than_the_plan_ever_allows_is_resource_exhausted_for_good(service: Service, dimension: Dimension) -> None:
    """The answer has no RetryInfo, so nobody sends it again."""
    body = service.body(good=9)
    burst = 8 if dimension == "items" else len(body) - 1
    async with (
        http_receivers(find=on_plans({"acme": plan(dimension, 1, burst)}), limiter=LocalLimiter(Clock())) as made,
        over_grpc(made) as (_, channel),
    ):
        error, status = await refused(channel, service, body, metadata=(("x-api-key", "acme"),))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "never allows more than" in status.message
        assert not status.details
        assert made.producer.appends == 0


# How much passes.

Send = Callable[[], Awaitable[bool]]  # one request; whether it was accepted


@asynccontextmanager
async def http_sender(made: Receivers, tenant: str, body: bytes) -> AsyncIterator[Send]:
    """On a connection of its own. Anything but 200 and 429 is a failure."""
    request = post("/v1/logs", PROTOBUF, body, f"X-API-Key: {tenant}")

    async def one() -> bool:
        await raw.send(request)
        answer = await raw.response()
        assert answer.status in (200, 429), answer
        return answer.status == 200

    async with connection(made.port) as raw:
        yield one


@asynccontextmanager
async def grpc_sender(server: GrpcServer, tenant: str, body: bytes) -> AsyncIterator[Send]:
    """On a connection of its own. Anything but OK and RESOURCE_EXHAUSTED is a failure."""
    own_connection = ("grpc.use_local_subchannel_pool", 1)
    async with aio.insecure_channel(f"127.0.0.1:{server.port}", options=[own_connection]) as channel:

        async def one() -> bool:
            try:
                await export(channel, LOGS, body, metadata=(("x-api-key", tenant),))
            except aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                return False
            return True

        yield one


class Hammering:
    """What a tenant that sends without a pause gets, and between which moments, by the sender's clock."""

    def __init__(self) -> None:
        self.accepted = 0
        self.first_sent_s = self.first_refused_s = math.inf
        self.last_accepted_s = self.last_refused_sent_s = -math.inf

    async def run(self, one: Send, seconds: float) -> None:
        """For so long at least, and until requests were refused at two moments: a busy machine may be slower than the rate."""
        until = time.perf_counter() + seconds
        while (sent := time.perf_counter()) < until or not self.last_refused_sent_s > self.first_refused_s:
            self.first_sent_s = min(self.first_sent_s, sent)
            was_accepted = await one()
            now = time.perf_counter()
            if was_accepted:
                self.accepted += 1
                self.last_accepted_s = max(self.last_accepted_s, now)
            else:
                self.first_refused_s = min(self.first_refused_s, now)
                self.last_refused_sent_s = max(self.last_refused_sent_s, sent)
                await asyncio.sleep(0.002)  # leave the machine to the others

    def check(self, rate: Rate, cost: int) -> None:
        """All of it is exact: what passed up to the last refusal at least, and from the first request to the last that passed
        at most. A bucket that refuses has less than one request's cost left; before its first refusal it may have been full now
        and then, and what would have refilled it was lost."""
        most = rate.burst + rate.per_s * (self.last_accepted_s - self.first_sent_s)
        least = rate.burst + rate.per_s * (self.last_refused_sent_s - self.first_refused_s) - cost
        assert least <= self.accepted * cost <= most


RATE: Final = 10
# What refills a full bucket is lost, so nobody may pause for BURST / RATE seconds.
BURST: Final = 60
ITEMS: Final = 10
HAMMERING_S: Final = 2.0


async def test_a_tenant_gets_what_its_plan_allows() -> None:
    """Burst and rate, by requests, by items and by bytes, over HTTP and over gRPC: six tenants that all send as much as they
    can by three connections each, all at once."""
    body = otlp_logs(good=ITEMS)
    costs: dict[Dimension, int] = {"requests": 1, "items": ITEMS, "bytes": cost_of("/v1/logs", PROTOBUF, body, "bytes grpc")}
    tenants = {f"{dimension} {way}": dimension for dimension in DIMENSIONS for way in ("http", "grpc")}
    plans = {
        tenant: plan(dimension, RATE * costs[dimension], BURST * costs[dimension]) for tenant, dimension in tenants.items()
    }
    hammerings = {tenant: Hammering() for tenant in tenants}
    async with (
        http_receivers(find=on_plans(plans)) as made,
        over_grpc(made) as (server, _),
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
    ):
        for tenant in itertools.chain.from_iterable(itertools.repeat(tenants, 3)):
            sender = http_sender(made, tenant, body) if tenant.endswith("http") else grpc_sender(server, tenant, body)
            one = await stack.enter_async_context(sender)
            group.create_task(hammerings[tenant].run(one, HAMMERING_S))
    for tenant, dimension in tenants.items():
        hammerings[tenant].check(Rate(RATE * costs[dimension], BURST * costs[dimension]), costs[dimension])
    assert made.producer.item_count() == ITEMS * sum(hammering.accepted for hammering in hammerings.values())


# What others notice of it.

QUOTA: Final = 50


async def test_a_noisy_neighbour_gets_its_quota_and_a_quiet_one_everything() -> None:
    """One tenant sends twenty times what it may, over eight connections, HTTP and gRPC: just what it may passes. One that keeps
    to its plan meanwhile is never refused."""
    plans = {"noisy": plan("requests", 1, QUOTA), "quiet": plan("requests", 1, QUOTA)}
    passed = dict.fromkeys(plans, 0)
    body = otlp_logs()

    async def run(one: Send, tenant: str, requests: int) -> None:
        for _ in range(requests):
            was_accepted = await one()
            passed[tenant] += was_accepted

    async with (
        http_receivers(find=on_plans(plans), limiter=LocalLimiter(Clock())) as made,
        over_grpc(made) as (server, _),
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
    ):
        for tenant, connections, requests in (("noisy", 4, 20 * QUOTA), ("quiet", 1, QUOTA)):
            for _ in range(connections):
                for sender in (http_sender(made, tenant, body), grpc_sender(server, tenant, body)):
                    one = await stack.enter_async_context(sender)
                    group.create_task(run(one, tenant, requests // connections // 2))
    assert passed == {"noisy": QUOTA, "quiet": QUOTA}
    kept = [TelemetryBatch.FromString(message.payload).records[0].tenant_id for message in made.producer.messages]
    assert sorted(kept) == ["noisy"] * QUOTA + ["quiet"] * QUOTA
    assert made.counted("infrasage_tenant_requests_total", tenant="noisy", status="limited_by_requests") == 19 * QUOTA


SHARE: Final = 50_000


async def test_who_fills_its_share_of_the_memory_does_not_fill_that_of_others() -> None:
    """While the broker waits, one tenant's requests pile up to its share, and then hear 503; another's are taken as ever."""
    body = otlp_logs(padding=9_000)
    cost = cost_of("/v1/logs", PROTOBUF, body, "noisy")
    plans = dict.fromkeys(("noisy", "quiet"), UNLIMITED)
    async with (
        http_receivers(find=on_plans(plans), in_flight_bytes_max=2 * SHARE, tenant_bytes_max=SHARE) as made,
        over_grpc(made) as (_, channel),
        AsyncExitStack() as stack,
    ):
        made.producer.gate.clear()

        async def begin(tenant: str) -> asyncio.Task[Response]:
            raw = await stack.enter_async_context(connection(made.port))
            return asyncio.create_task(send(raw, WAYS[4], body, tenant))

        async def exported(tenant: str) -> bytes:
            return await export(channel, LOGS, body, metadata=(("x-api-key", tenant),))

        taken: list[asyncio.Task[Response]] = []
        for _ in range(SHARE // cost):
            taken.append(await begin("noisy"))
            await held(made, len(taken) * cost)
        # Neither way is there more for it: not by what is announced, not by what comes in pieces, not over gRPC.
        answer = await (await begin("noisy"))
        assert (answer.status, answer.headers["retry-after"]) == (503, "3")
        assert f"exceed its share, {SHARE}" in told(WAYS[4], answer.headers["content-type"], answer.body).message
        error, status = await refused(channel, LOGS, body, metadata=(("x-api-key", "noisy"),))
        assert (error.code(), retry_delay_s(status)) == (grpc.StatusCode.UNAVAILABLE, 3.0)
        before = len(taken)
        taken += [await begin("quiet"), await begin("quiet")]
        third = asyncio.create_task(exported("quiet"))
        await held(made, (before + 3) * cost)
        made.producer.gate.set()
        assert {(await each).status for each in taken} == {200}
        assert await third == b""
        assert made.in_flight.bytes_held == 0
        assert (await (await begin("noisy"))).status == 200


async def held(made: Receivers, size_bytes: int) -> None:
    await eventually(lambda: made.in_flight.bytes_held == size_bytes)


async def test_bodies_that_do_not_end_fill_their_own_share_only() -> None:
    """A tenant whose connections all stop in the middle of a body keeps nobody else out."""
    plans = dict.fromkeys(("noisy", "quiet"), UNLIMITED)
    async with (
        http_receivers(find=on_plans(plans), in_flight_bytes_max=2 * SHARE, tenant_bytes_max=SHARE) as made,
        AsyncExitStack() as stack,
    ):
        for count in range(1, 6):
            raw = await stack.enter_async_context(connection(made.port))
            await raw.send(post("/v1/logs", PROTOBUF, bytes(9_999), "X-API-Key: noisy", length=10_000))
            await held(made, count * 9_999)
        for tenant, status in (("noisy", 503), ("quiet", 200)):
            raw = await stack.enter_async_context(connection(made.port))
            assert (await send(raw, WAYS[4], otlp_logs(padding=9_000), tenant)).status == status
