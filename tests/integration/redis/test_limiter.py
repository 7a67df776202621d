"""Several gateways and one Redis: together exact; and each with its share while Redis is away, in whatever way."""

import asyncio
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog
from support.ports import free_port
from support.processes.redis_server import RedisServer
from support.references.limiting import caller
from support.waiting import eventually

from collector.rate_limit.contract import Limited
from collector.rate_limit.redis import RedisLimiter
from collector.rate_limit.script import key
from collector.tenancy.identity import Caller
from collector.tenancy.plans import UNLIMITED, Plan, Rate

# Long: that Redis is away is to be seen from what it does, not from this machine's being busy.
TIMEOUT_S = 10
# A token takes a second, or far longer than any test.
SLOW = Plan("Slow", Rate(1, 10), None, None)
NEVER = Plan("Never", None, Rate(1, 1_000_000), None)


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    """A server that nobody stops, and in which tenants of one test are not those of another."""
    with RedisServer() as running:
        yield running


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server for a test that stops it."""
    with RedisServer() as running:
        yield running


@pytest.fixture
def who() -> Caller:
    return caller(SLOW, uuid.uuid4().hex)


@asynccontextmanager
async def limiter(url: str, processes: int = 1, timeout_s: float = TIMEOUT_S, **more: str) -> AsyncIterator[RedisLimiter]:
    made = RedisLimiter(url, timeout_s=timeout_s, processes=processes, now_nano=time.monotonic_ns, **more)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def passes(limiter: RedisLimiter, who: Caller, items: int = 0) -> bool:
    try:
        await limiter.take(who, items, 0)
    except Limited:
        return False
    return True


async def admitted(limiter: RedisLimiter, who: Caller, tried: int = 30) -> int:
    """Of so many at once."""
    return sum(await asyncio.gather(*(passes(limiter, who) for _ in range(tried))))


def run(client: redis.Redis, command: str) -> Any:
    return client.execute_command(*command.split())  # type: ignore[no-untyped-call]


def calls(client: redis.Redis) -> dict[str, int]:
    """How often each command was run."""
    stats: dict[str, Any] = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}


# Together.


async def test_gateways_together_admit_what_the_plan_does(shared: RedisServer) -> None:
    """Three gateways that send all they can for a second admit the burst and the rate, by Redis's clock: no more, no less."""
    per_s, burst = 50, 50  # a second's worth, so that nothing is lost while this process gets no turn
    who = caller(Plan("Quick", Rate(per_s, burst), None, None), uuid.uuid4().hex)
    clock = redis.Redis.from_url(shared.url)

    def now_s() -> float:
        seconds, micros = clock.time()
        return float(seconds + micros / 1_000_000)

    async def send(gateway: RedisLimiter, until_s: float) -> int:
        count = 0
        while time.monotonic() < until_s:
            try:
                gateway.check(who, 0)
                await gateway.take(who, 1, 1)
                count += 1
            except Limited as limited:
                await asyncio.sleep(limited.retry_after_s)
        return count

    async with limiter(shared.url) as one, limiter(shared.url) as two, limiter(shared.url) as three:
        before_s = now_s()
        half = await admitted(one, who, burst // 2)  # a full bucket would lose what refills it until the senders begin
        assert half == burst // 2
        began_s = now_s()
        until_s = time.monotonic() + 1
        senders = (send(gateway, until_s) for gateway in (one, two, three) for _ in range(8))
        total = half + sum(await asyncio.gather(*senders))
        ended_s = now_s()
        while await passes(two, who):
            total += 1
            ended_s = now_s()
        after_s = now_s()
        assert [one.failure, two.failure, three.failure] == [None, None, None]
    assert burst + per_s * (ended_s - began_s) - 1 <= total <= burst + per_s * (after_s - before_s)


async def test_one_round_trip_each_and_none_in_vain(shared: RedisServer, who: Caller) -> None:
    """A request is one run of the script; one that is known to be over the plan, too large, or unlimited asks nothing."""
    client = redis.Redis.from_url(shared.url)
    async with limiter(shared.url) as gateway:
        assert await passes(gateway, who)
        before = calls(client)
        assert await admitted(gateway, who, 20) == 9
        assert calls(client)["evalsha"] - before["evalsha"] == 20
        before = calls(client)
        for _ in range(20):
            with pytest.raises(Limited):
                gateway.check(who, 0)
            assert await passes(gateway, who._replace(plan=UNLIMITED))
            await gateway.give_back(who._replace(plan=UNLIMITED), 1, 1)
        after = calls(client)
    assert {name: after[name] - before[name] for name in after if name != "info"} == dict.fromkeys(after.keys() - {"info"}, 0)


async def test_who_is_known_to_be_over_is_let_in_when_it_is_not(shared: RedisServer) -> None:
    """A refusal from memory, which no other gateway's requests can make wrong, ends when the bucket has refilled."""
    who = caller(Plan("Quick", Rate(2, 2), None, None), uuid.uuid4().hex)
    async with limiter(shared.url) as one, limiter(shared.url) as two:
        asked_s = time.monotonic()
        assert await admitted(one, who, 5) == 2
        took_s = time.monotonic() - asked_s
        with pytest.raises(Limited) as known:
            one.check(who, 0)
        two.check(who, 0)  # it has not heard of this tenant
        assert not await passes(two, who)
        with pytest.raises(Limited):
            two.check(who, 0)
        await asyncio.sleep(known.value.retry_after_s)
        one.check(who, 0)
        # Memory counts from when Redis was asked, Redis from when it answered.
        await asyncio.sleep(took_s + 0.001)
        assert await passes(one, who)


async def test_nothing_is_left_in_redis(server: RedisServer) -> None:
    """When tenants' buckets have refilled, no key is left of them."""
    client = redis.Redis.from_url(server.url)
    async with limiter(server.url) as gateway:
        for number in range(50):
            assert await passes(gateway, caller(Plan("Quick", Rate(10, 1), None, None), f"tenant-{number}"))
        assert client.dbsize() > 0
        await eventually(lambda: client.dbsize() == 0)


async def test_a_request_that_is_abandoned_is_not_counted(server: RedisServer, who: Caller) -> None:
    """A caller that goes away before Redis was asked has taken nothing, and those who stay get their answers."""
    async with limiter(server.url) as gateway:
        server.pause()
        first = asyncio.create_task(passes(gateway, who))
        await asyncio.sleep(0.05)  # it has been asked
        gone = [asyncio.create_task(passes(gateway, who)) for _ in range(20)]
        stays = asyncio.create_task(passes(gateway, who))
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        server.resume()
        assert await first
        assert await stays
        assert await admitted(gateway, who) == 8


async def test_on_a_node_of_a_cluster(who: Caller) -> None:
    """The script has one key, so it runs on whichever node has that."""
    with RedisServer("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        client = redis.Redis.from_url(server.url)
        run(client, "CLUSTER ADDSLOTSRANGE 0 16383")
        await eventually(lambda: b"cluster_state:ok" in run(client, "CLUSTER INFO"))
        async with limiter(server.url) as gateway:
            assert gateway.failure is None
            assert await admitted(gateway, who) == 10


# Away.


async def test_the_script_is_gone(shared: RedisServer, who: Caller) -> None:
    """After SCRIPT FLUSH, as after a fail-over, requests are counted as before, each once."""
    client = redis.Redis.from_url(shared.url)
    async with limiter(shared.url) as gateway:
        assert await admitted(gateway, who, 4) == 4
        client.script_flush()
        assert await admitted(gateway, who, 4) == 4
        assert gateway.failure is None
        assert await admitted(gateway, who) == 2


async def test_killed_and_back(server: RedisServer, who: Caller) -> None:
    """While Redis is away each of two gateways admits half of the plan, and says so once; back, they count together again."""
    with structlog.testing.capture_logs() as logs:
        async with limiter(server.url, 2) as one, limiter(server.url, 2) as two:
            server.kill()
            assert await admitted(one, who) == 5
            assert await admitted(two, who) == 5
            assert await admitted(one, who) == 0
            with pytest.raises(Limited):
                one.check(who, 0)
            for gateway in (one, two):
                assert gateway.failure is not None
            assert ["warning", "warning"] == [entry["log_level"] for entry in logs]
            assert {"1/2"} == {entry["share"] for entry in logs}
            server.start()
            await eventually(lambda: one.failure is None and two.failure is None)
            other = who._replace(tenant="other")
            assert await admitted(one, other, 6) + await admitted(two, other, 6) == 10
    assert ["warning", "warning", "info", "info"] == [entry["log_level"] for entry in logs]


async def test_killed_while_it_is_asked(server: RedisServer, who: Caller) -> None:
    """Requests that were waiting for an answer go on at once with this gateway's share."""
    async with limiter(server.url) as gateway:
        server.pause()
        asked = asyncio.create_task(admitted(gateway, who))
        await asyncio.sleep(0.1)
        assert not asked.done()
        server.kill()
        assert await asked == 10
        assert gateway.failure is not None


async def test_paused(server: RedisServer, who: Caller) -> None:
    """A Redis that does not answer costs those who wait the time-out, once, and nobody else anything."""
    async with limiter(server.url, timeout_s=1) as gateway:
        assert await passes(gateway, who)
        server.pause()
        began_s = time.monotonic()
        assert await admitted(gateway, who, 20) == 10
        assert 1 <= time.monotonic() - began_s < 5
        assert gateway.failure == "no answer within 1000 ms"
        began_s = time.monotonic()
        for _ in range(10):
            await admitted(gateway, who, 20)
        assert time.monotonic() - began_s < 5, "each of them would have waited a second"
        server.resume()
        await eventually(lambda: gateway.failure is None)
        assert await admitted(gateway, who._replace(tenant="other")) == 10


async def test_away_at_the_start(who: Caller) -> None:
    """A gateway starts without Redis, with its share, and finds it when it comes."""
    port = free_port()
    with structlog.testing.capture_logs() as logs:
        async with limiter(f"redis://127.0.0.1:{port}", 2) as gateway:
            assert gateway.failure is not None
            assert str(port) in gateway.failure
            assert await admitted(gateway, who) == 5
            assert ["warning"] == [entry["log_level"] for entry in logs]


async def test_silent_at_the_start(who: Caller) -> None:
    """An address that takes connections and says nothing keeps no gateway from starting."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with limiter(f"redis://127.0.0.1:{silent.getsockname()[1]}", 2, timeout_s=0.1) as gateway:
            assert gateway.failure == "no answer within 1000 ms"
            assert await admitted(gateway, who) == 5


@pytest.mark.parametrize(
    ("does_not_count", "counts", "says"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "maxmemory"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read only replica"),
        ("ACL SETUSER default -evalsha", "ACL SETUSER default +evalsha", "no permissions"),
        ("ACL SETUSER default resetkeys", "ACL SETUSER default allkeys", "no permissions"),
    ],
)
async def test_there_but_not_counting(server: RedisServer, who: Caller, does_not_count: str, counts: str, says: str) -> None:
    """Out of memory, a replica, not allowed: as good as away, with Redis's own words for why, and back when it is repaired."""
    client = redis.Redis.from_url(server.url)
    async with limiter(server.url, 2) as gateway:
        run(client, does_not_count)
        assert await admitted(gateway, who) == 5
        assert gateway.failure is not None
        assert says in gateway.failure.lower()
        run(client, counts)
        await eventually(lambda: gateway.failure is None)
        assert await admitted(gateway, who) == 10


async def test_another_server_has_the_address(server: RedisServer, who: Caller) -> None:
    """After a fail-over our connection may still be to the old server, now a replica: it is closed, and another opened."""
    target = server.port

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", target)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, to_there), pump(there, writer))

    address = await asyncio.start_server(forward, "127.0.0.1", 0)
    with RedisServer() as promoted:
        async with limiter(f"redis://127.0.0.1:{address.sockets[0].getsockname()[1]}") as gateway:
            assert await passes(gateway, who)
            run(redis.Redis.from_url(server.url), "REPLICAOF 127.0.0.1 1")
            target = promoted.port
            assert await passes(gateway, who)
            assert "read only replica" in str(gateway.failure)
            await eventually(lambda: gateway.failure is None)
            assert await admitted(gateway, who) == 10
            assert redis.Redis.from_url(promoted.url).exists(key(who))
        address.close()
        await address.wait_closed()
        while len(asyncio.all_tasks()) > 1:  # what forwards sees that both sides are gone
            await asyncio.sleep(0.01)


async def test_given_back_while_away(server: RedisServer) -> None:
    """What was taken from this gateway's share is given back to it."""
    who = caller(NEVER, "acme")
    async with limiter(server.url) as gateway:
        server.kill()
        assert await passes(gateway, who, 1_000_000)
        assert not await passes(gateway, who, 1_000_000)
        await gateway.give_back(who, 1_000_000, 0)
        assert await passes(gateway, who, 1_000_000)


async def test_closed_while_it_is_asked(server: RedisServer, who: Caller) -> None:
    """Nobody is left waiting when the gateway stops; what still comes is held to the share."""
    async with limiter(server.url, 2) as gateway:
        server.pause()
        asked = asyncio.create_task(admitted(gateway, who))
        await asyncio.sleep(0.05)
        more = asyncio.create_task(admitted(gateway, who))
        await asyncio.sleep(0)
        await gateway.close()
        assert await asked + await more == 5
        assert gateway.failure == "it is closed here"
    server.resume()


# The way there.


async def test_a_password(who: Caller) -> None:
    """With it Redis counts; without it, or with another, it is away, and says why without saying the password."""
    with RedisServer("--requirepass", "secret-1") as server:
        async with limiter(server.url, password="secret-1") as gateway:
            assert gateway.failure is None
            assert await admitted(gateway, who) == 10
        async with limiter(server.url) as gateway:
            assert "Authentication required" in str(gateway.failure)
        async with limiter(server.url, password="secret-2", username="default") as gateway:
            assert "invalid username-password pair" in str(gateway.failure)
            assert "secret" not in str(gateway.failure)


async def test_tls(tmp_path: Path, who: Caller) -> None:
    """rediss:// checks the server's certificate, by the authorities that are given."""

    def openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl(*new, "-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem")
    cert, private = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    with RedisServer("--tls-cert-file", cert, "--tls-key-file", private, "--tls-auth-clients", "no", tls=True) as server:
        async with limiter(server.url, ca_file=cert) as gateway:
            assert gateway.failure is None
            assert await admitted(gateway, who) == 10
        async with limiter(server.url) as gateway:
            assert "certificate verify failed" in str(gateway.failure)
