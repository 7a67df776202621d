"""One of three brokers is away: dead, silent, or behind a network that is broken. Against three real brokers."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import pytest
import structlog
from support.fakes.brokers import kafka_options
from support.processes.kafka import libraries, unique
from support.processes.kafka_cluster import BROKERS, KafkaCluster, started_cluster
from support.waiting import TIMEOUT_S, eventually

from collector.broker.contract import BrokerDown, Consumer, Message, Partition
from collector.broker.kafka import KafkaConsumer, KafkaOptions, KafkaProducer, KafkaProgress

# Longer than `eventually` waits, however busy the machine is: what goes on only when this time is over does not go on.
TOO_LONG_S: Final = 2.0 * TIMEOUT_S
METADATA_REFRESH_S: Final = 1.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """All tests share it. A test repairs what it breaks."""
    libraries()
    with started_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def fresh(cluster: KafkaCluster, **changes: Any) -> tuple[KafkaOptions, list[str]]:
    """Options with a group of their own, as a production has them, and one topic."""
    given = {
        "group_id": unique("group"),
        "append_timeout_s": 2.0,
        "request_timeout_s": 10.0,
        "session_timeout_s": 6.0,
        "metadata_refresh_s": METADATA_REFRESH_S,
    }
    return kafka_options(cluster.bootstrap, **(given | {"topic_partitions": BROKERS} | changes)), [unique("topic")]


class Traffic:
    """Appends numbered messages and takes them, all the time, and notes when each was acknowledged and taken."""

    def __init__(self, producer: KafkaProducer, *consumers: Consumer, topic: str) -> None:
        self.acknowledged: dict[bytes, float] = {}
        self.taken: dict[bytes, float] = {}
        self.twice: list[bytes] = []
        self.partitions: dict[Partition, float] = {}  # when something of it was last taken
        self._topic = topic
        self.producer = producer
        self._stored: dict[tuple[Partition, int, int], list[bytes]] = {}  # by what makes an insert's token
        self._stopping = False
        self._senders = [asyncio.create_task(self._send(number)) for number in range(6)]
        self._takers = [asyncio.create_task(self._take(consumer)) for consumer in consumers]

    async def _send(self, sender: int) -> None:
        number = 0
        while not self._stopping:
            number += 1
            name = b"%d-%d" % (sender, number)
            with suppress(BrokerDown):
                await self.producer.append([Message(self._topic, name)])
                self.acknowledged[name] = time.monotonic()
            await asyncio.sleep(0.1)

    async def _take(self, consumer: Consumer) -> None:
        while not (self._stopping and self.acknowledged.keys() <= self.taken.keys()):
            try:
                messages = await consumer.poll(10_000, 0.5)
                if messages is None:
                    continue
                await consumer.intend(messages)
                names = [bytes(payload) for payload in messages.payloads]
                token = (messages.partition, messages.start, messages.end)
                if token not in self._stored:  # a store drops what comes again under its token
                    self._stored[token] = names
                    self.twice += [name for name in names if name in self.taken]
                    self.taken |= dict.fromkeys(names, time.monotonic())
                await consumer.commit(messages)
                self.partitions[messages.partition] = time.monotonic()
            except BrokerDown:
                await asyncio.sleep(0.1)

    async def flows(self) -> None:
        """Return when what is appended from now on is taken."""
        began = time.monotonic()
        await eventually(lambda: any(at > began and name in self.taken for name, at in list(self.acknowledged.items())))

    async def end(self) -> None:
        """Whatever was acknowledged is taken, once."""
        self._stopping = True
        async with asyncio.timeout(60):
            await asyncio.gather(*self._senders, *self._takers)
        assert [] == self.twice

    async def goes_on(self, partitions: Iterable[Partition], since: float) -> None:
        """Return when something of each of these has been taken since then; and, when the brokers have been asked for their
        metadata some times, once more."""
        for moment in (since, None):
            began = time.monotonic() if moment is None else moment
            await eventually(lambda at=began: all(self.partitions.get(each, 0.0) > at for each in partitions))
            await asyncio.sleep(3 * METADATA_REFRESH_S)


@asynccontextmanager
async def traffic(options: KafkaOptions, topics: list[str], consumers: int = 1) -> AsyncIterator[Traffic]:
    async with await KafkaProducer.open(options, topics) as producer:
        opened = await asyncio.gather(*(KafkaConsumer.open(options, topics) for _ in range(consumers)))
        try:
            made = Traffic(producer, *opened, topic=topics[0])
            await made.flows()
            yield made
            await made.end()
        finally:
            for consumer in opened:
                await consumer.close()


async def until_moved(cluster: KafkaCluster, topic: str, broker: int) -> float:
    """When Kafka has given the partitions of that broker to others, by the monotonic clock."""

    def moved() -> bool:
        return all(
            each["leader"] not in (broker, -1) and broker not in each["isr"] for each in cluster.partitions(topic).values()
        )

    await eventually(lambda: asyncio.to_thread(moved))
    return time.monotonic()


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_one_broker_of_three_may_be_away(cluster: KafkaCluster, how: str) -> None:
    """Appending and reading go on as soon as Kafka has elected new leaders; and go on when the broker comes back."""
    options, topics = fresh(cluster, request_timeout_s=TOO_LONG_S)
    broker = cluster.brokers[2]
    async with traffic(options, topics) as flow:
        getattr(broker, how)()
        try:
            moved = await until_moved(cluster, topics[0], 2)
            await flow.goes_on([Partition(topics[0], index) for index in range(BROKERS)], moved)
        finally:
            await asyncio.to_thread(cluster.start, 2) if how == "kill" else broker.resume()
        await flow.flows()
    await settled(cluster, topics[0])


@pytest.mark.parametrize("fault", ["drop", "half_open"])
async def test_a_broker_that_does_not_answer_holds_up_only_its_own_partitions(cluster: KafkaCluster, fault: Any) -> None:
    """Where only we can't reach it, it goes on leading its partitions. The others are written and read all the same, their lag
    is known, and what waits in its partitions is read when it is back."""
    options, topics = fresh(cluster)
    async with await KafkaProducer.open(options, topics) as producer, await KafkaConsumer.open(options, topics) as consumer:
        leaders = await asyncio.to_thread(cluster.leaders, topics[0])
        coordinator = await asyncio.to_thread(cluster.coordinator, options.group_id)
        away = next(node for node in leaders.values() if node != coordinator)
        reached = {Partition(topics[0], index) for index, node in leaders.items() if node != away}
        flow = Traffic(producer, consumer, topic=topics[0])
        await eventually(lambda: len(flow.partitions) == BROKERS)
        cluster.networks[away].fault(fault)
        try:
            # What was on its way to it fails when its time is up, and a new session begins without it.
            await flow.goes_on(reached, time.monotonic() + options.append_timeout_s)
            lag = await consumer.lag()
            assert set(lag) == {Partition(topics[0], index) for index in leaders}
            await eventually(lambda: consumer.failure is not None)
        finally:
            cluster.networks[away].heal()
        healed = time.monotonic()
        await eventually(lambda: all(at > healed for at in flow.partitions.values()))
        assert consumer.failure is None
        await flow.end()


async def test_the_coordinator_of_the_group_may_be_the_broker_that_dies(cluster: KafkaCluster) -> None:
    """Nothing is committed until Kafka has elected another; then both writers go on, without waiting for who they were."""
    options, topics = fresh(cluster, request_timeout_s=TOO_LONG_S, session_timeout_s=TOO_LONG_S)
    async with traffic(options, topics, consumers=2) as flow:
        coordinator = await asyncio.to_thread(cluster.coordinator, options.group_id)
        cluster.brokers[coordinator].kill()
        try:
            await until_moved(cluster, topics[0], coordinator)
            await eventually(lambda: asyncio.to_thread(lambda: cluster.coordinator(options.group_id) not in (coordinator, -1)))
            await flow.goes_on([Partition(topics[0], index) for index in range(BROKERS)], time.monotonic())
        finally:
            await asyncio.to_thread(cluster.start, coordinator)
        await flow.flows()
    await settled(cluster, topics[0])


async def test_requests_to_the_group_from_outside_go_on(cluster: KafkaCluster) -> None:
    """`audit` asks how far the writers are, also while a broker is dead and Kafka does not know it yet."""
    options, topics = fresh(cluster)
    async with traffic(options, topics):
        pass
    cluster.brokers[1].kill()
    try:
        progress = KafkaProgress(options, topics)
        assert 0 == await progress.caught_up(10.0)
        await progress.close()
    finally:
        await asyncio.to_thread(cluster.start, 1)
    await settled(cluster, topics[0])


async def test_partitions_that_are_added_are_read_from_their_beginning(cluster: KafkaCluster) -> None:
    """What was appended before the writer knew of them is read, too, and the gateway uses them."""
    options, topics = fresh(cluster)
    late = replace(options, metadata_refresh_s=5.0)
    async with traffic(late, topics) as flow:
        await asyncio.to_thread(cluster.add_partitions, topics[0], 2 * BROKERS)
        async with await KafkaProducer.open(options, topics) as other:  # it knows them at once, the writer does not
            for number in range(40):
                name = b"other-%d" % number
                await other.append([Message(topics[0], name)])
                flow.acknowledged[name] = time.monotonic()
            await flow.producer.ping()  # as a gateway does every three seconds
        await eventually(lambda: len(flow.partitions) == 2 * BROKERS)
        await eventually(lambda: flow.acknowledged.keys() <= flow.taken.keys() | set(list(flow.acknowledged)[-100:]))


async def test_topics_wait_for_the_brokers_that_the_bootstrap_list_names(cluster: KafkaCluster) -> None:
    """A gateway that is there before the third broker creates no topic with two replicas; or, when its time is up, it does, and
    names the commands that give it three."""
    cluster.brokers[3].kill()
    await eventually(lambda: asyncio.to_thread(lambda: 3 not in cluster.numbers()))
    options, topics = fresh(cluster, topic_brokers_wait_s=60.0)
    impatient, few = fresh(cluster, topic_brokers_wait_s=0.0)
    with structlog.testing.capture_logs() as logs:
        async with await KafkaProducer.open(impatient, few) as producer:
            await producer.append([Message(few[0], b"two replicas")])
        opening = asyncio.create_task(KafkaProducer.open(options, topics))
        await eventually(lambda: "topics are not created before" in str(logs))
        assert not opening.done()
    assert {2} == {len(each["replicas"]) for each in (await asyncio.to_thread(cluster.partitions, few[0])).values()}
    (warning,) = [str(entry["event"]) for entry in logs if "fewer replicas" in str(entry["event"])]
    assert "NEW" in warning
    assert "kafka-reassign-partitions.sh --bootstrap-server" in warning
    await asyncio.to_thread(cluster.start, 3)
    async with await opening as producer:
        await producer.append([Message(topics[0], b"three replicas")])
    assert {3} == {len(each["replicas"]) for each in (await asyncio.to_thread(cluster.partitions, topics[0])).values()}
    # The next start knows the number of the broker that was missing. Its commands are right.
    with structlog.testing.capture_logs() as logs:
        await (await KafkaProducer.open(impatient, few)).close()
    (warning,) = [str(entry["event"]) for entry in logs if "fewer replicas" in str(entry["event"])]
    found = re.search(r"echo '(.*)' > replicas.json", warning)
    assert found is not None
    plan = {each["partition"]: each["replicas"] for each in json.loads(found[1])["partitions"]}
    assert all({1, 2, 3} == set(replicas) for replicas in plan.values())
    await asyncio.to_thread(cluster.reassign, few[0], plan)
    await eventually(
        lambda: asyncio.to_thread(lambda: all(len(each["isr"]) == BROKERS for each in cluster.partitions(few[0]).values()))
    )
    assert "--entity-name " + few[0] + " --add-config min.insync.replicas=2" in warning


async def settled(cluster: KafkaCluster, topic: str) -> None:
    """All replicas are in sync again: the next test may take a broker away."""
    offsets = "__consumer_offsets"

    def whole() -> bool:
        return all(len(each["isr"]) == BROKERS for name in (topic, offsets) for each in cluster.partitions(name).values())

    await eventually(lambda: asyncio.to_thread(whole))
