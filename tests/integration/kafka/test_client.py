"""aiokafka's client as we change it: brokers that are away hold up no question that another can answer."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import BrokerMetadata
from support.fakes.brokers import kafka_options
from support.processes.faulty_network import FaultyNetwork
from support.processes.kafka import shared_bootstrap, unique
from support.waiting import eventually

from collector.broker.kafka.client import HEDGE_S, Client
from collector.broker.kafka.options import KafkaOptions

AWAY = 77  # the number of a broker that is behind a faulty network; the real one has 1


@asynccontextmanager
async def opened(network: FaultyNetwork, **changes: float) -> AsyncIterator[Client]:
    """A client that knows two brokers: the shared one, and, as AWAY, the same behind the network."""
    made = Client(kafka_options(shared_bootstrap(), **{"answer_timeout_s": 2.0, "metadata_refresh_s": 300.0, **changes}))
    await made.bootstrap()
    made.cluster._brokers[AWAY] = BrokerMetadata(AWAY, "127.0.0.1", network.port, None)
    try:
        yield made
    finally:
        await made.close()


def port() -> int:
    return int(shared_bootstrap().rpartition(":")[2])


async def test_a_question_goes_to_the_next_broker_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer counts. The question that nobody waits for any more still finds out that its broker is away."""
    monkeypatch.setattr("random.shuffle", lambda nodes: nodes.sort(reverse=True))  # the one that is away first
    with FaultyNetwork(port()) as network:
        async with opened(network, answer_timeout_s=1.0) as client:
            network.fault("drop")
            began = time.monotonic()
            answer = await client.ask_any(MetadataRequest([]))
            assert HEDGE_S <= time.monotonic() - began < 1.0
            assert [1] == [node for node, *_ in answer.brokers]
            assert not client.is_unreachable(AWAY)
            await eventually(lambda: client.is_unreachable(AWAY))
            # From then on it is asked last.
            began = time.monotonic()
            await client.ask_any(MetadataRequest([]))
            assert time.monotonic() - began < HEDGE_S


async def test_answers_that_come_together_are_all_looked_at() -> None:
    """asyncio would log the error of the one that is not taken, with its traceback."""
    logged: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context["message"]))
    both = asyncio.Barrier(2)

    async def answers() -> str:
        await both.wait()
        return "an answer"

    async def fails() -> str:
        await both.wait()
        raise KafkaError("gone")

    with FaultyNetwork(port()) as network:
        async with opened(network) as client:
            for _ in range(5):  # in either order: `done` is a set
                assert "an answer" == await client._first([answers, fails])
            gc.collect()
    assert [] == logged


async def test_connections_do_not_wait_for_each_other() -> None:
    """aiokafka makes one at a time: one that hangs would hold up heartbeats to another broker."""
    with FaultyNetwork(port()) as network:
        async with opened(network) as client:
            network.fault("drop")
            hanging = asyncio.create_task(client.ready(AWAY))
            await asyncio.sleep(0)
            assert await client.ready(1)
            assert not hanging.done()
            assert not await hanging


async def test_a_lost_broker_is_away_until_it_answers() -> None:
    with FaultyNetwork(port()) as network:
        async with opened(network, answer_timeout_s=0.2) as client:
            network.fault("refuse")
            client.cluster.update_metadata = lambda answer: None  # it would say that there is no such broker
            with pytest.raises(KafkaError):
                await client.send(AWAY, MetadataRequest([]))
            assert client.is_unreachable(AWAY)
            network.fault("drop")
            await asyncio.sleep(0.5)
            assert client.is_unreachable(AWAY)
            network.heal()
            await eventually(lambda: not client.is_unreachable(AWAY))


async def test_a_coordinator_that_is_away_is_none() -> None:
    """Until Kafka has elected another, it names the one that it has lost, and nobody waits for that one."""
    with FaultyNetwork(port()) as network:
        async with opened(network) as client:
            group = unique("group")
            await eventually(lambda: _found(client, group))
            network.fault("drop")
            broker = client.cluster._brokers[1]
            client.cluster._brokers[1] = broker._replace(port=network.port)
            client.lost(1)
            with pytest.raises(GroupCoordinatorNotAvailableError, match="broker 1 is away"):
                await client.coordinator_lookup(0, group)


async def _found(client: Client, group: str) -> bool:
    try:
        return await client.coordinator_lookup(0, group) == 1
    except KafkaError:  # the topic of offsets is being created
        return False


async def test_a_cluster_whose_brokers_have_all_moved_is_found_again() -> None:
    """If no known broker answers, the bootstrap servers are asked."""
    with FaultyNetwork(port()) as network:
        async with opened(network) as client:
            client.cluster._brokers = {AWAY: client.cluster._brokers[AWAY]}
            network.fault("refuse")
            assert await client.force_metadata_update()
            assert [1] == [broker.nodeId for broker in client.cluster.brokers()]


async def test_nobody_answers() -> None:
    """The error names a server."""
    with FaultyNetwork(port()) as network:
        network.fault("refuse")
        client = Client(KafkaOptions(bootstrap=[network.address]))
        with pytest.raises(KafkaError, match=network.address):
            await client.bootstrap()
        await client.close()
