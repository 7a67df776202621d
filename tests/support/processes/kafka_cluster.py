"""Three real Kafka brokers, each also a controller: a cluster that can lose one of them.

Between clients and each broker is a network that can be made faulty (support.processes.faulty_network); brokers talk to each
other directly. A broker that does not answer the controller for SESSION_S has lost its partitions to the others.
"""

import asyncio
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from aiokafka.client import CoordinationType
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import CreatePartitionsRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest
from support.ports import free_ports
from support.processes.faulty_network import FaultyNetwork
from support.processes.kafka import Kafka, random_id, usual_java

BROKERS: Final = 3
SESSION_S: Final = 3.0
_REASSIGN: Final = 45  # Kafka's number of the request AlterPartitionReassignments
_HEAP: Final = "-Xmx256m"
_CONFIGURATION: Final = {
    "broker.session.timeout.ms": str(int(SESSION_S * 1000)),
    "broker.heartbeat.interval.ms": "500",
    "inter.broker.listener.name": "INNER",
    "offsets.topic.replication.factor": str(BROKERS),
    "transaction.state.log.replication.factor": str(BROKERS),
    "transaction.state.log.min.isr": "2",
    "num.network.threads": "2",
    "num.io.threads": "4",
}


class KafkaCluster:
    """Use `started_cluster`. `brokers` and `networks` are by a broker's number, from 1."""

    def __init__(self, directory: Path, *, session_s: float = SESSION_S) -> None:
        """`session_s`: after this time Kafka evicts a silent broker; its default is 9."""
        id_ = random_id()
        java = [_HEAP if option.startswith("-Xmx") else option for option in usual_java()]
        numbers = range(1, BROKERS + 1)
        self.brokers: Final = {
            number: Kafka(directory / f"kafka{number}", {"INNER": "PLAINTEXT"}, java=java, cluster_id=id_, node__id=str(number))
            for number in numbers
        }
        self.networks: Final = {
            number: FaultyNetwork(broker.ports["PLAINTEXT"], port)
            for (number, broker), port in zip(self.brokers.items(), free_ports(BROKERS), strict=True)
        }
        voters = ",".join(f"{number}@127.0.0.1:{broker.controller_port}" for number, broker in self.brokers.items())
        for number, broker in self.brokers.items():
            broker.configure(
                {
                    **_CONFIGURATION,
                    "broker.session.timeout.ms": str(int(session_s * 1000)),
                    "controller.quorum.voters": voters,
                    "advertised.listeners": f"PLAINTEXT://{self.networks[number].address},INNER://{broker.address('INNER')}",
                }
            )

    @property
    def bootstrap(self) -> str:
        """Where clients find it: through the networks."""
        return ",".join(network.address for network in self.networks.values())

    def start(self, *numbers: int) -> None:
        """These, or all; return when they answer."""
        brokers = [self.brokers[number] for number in numbers or self.brokers]
        with ThreadPoolExecutor(len(brokers)) as at_once:
            list(at_once.map(Kafka.launch, brokers))  # the first launch formats its disk, in a JVM of its own
        for broker in brokers:
            broker.wait()

    def close(self) -> None:
        for broker in self.brokers.values():
            broker.close()

    def partitions(self, topic: str) -> dict[int, dict[str, Any]]:
        """By number: `leader` (below 0: none), `replicas` and `isr`."""
        (described,) = self._ask(MetadataRequest([topic], allow_auto_topic_creation=False)).to_object()["topics"]
        return {partition["partition"]: partition for partition in described["partitions"]}

    def leaders(self, topic: str) -> dict[int, int]:
        """By partition; below 0: it has none now."""
        return {number: partition["leader"] for number, partition in self.partitions(topic).items()}

    def topics(self) -> set[str]:
        return {topic["topic"] for topic in self._ask(MetadataRequest(None)).to_object()["topics"]}

    def numbers(self) -> set[int]:
        """Of the brokers that the cluster takes for alive."""
        return {node for node, *_ in self._ask(MetadataRequest([])).brokers}

    def add_partitions(self, topic: str, total: int) -> None:
        answer = self._ask(CreatePartitionsRequest([(topic, (total, None))], 10_000, False))
        assert [code for _, code, _ in answer.topic_errors] == [0], answer

    def reassign(self, topic: str, replicas: Mapping[int, Sequence[int]]) -> None:
        """Give each partition these replicas: what kafka-reassign-partitions.sh asks for, whose class is not in our jars."""
        name = topic.encode()
        body = struct.pack(f">iBB{len(name)}sB", 10_000, 2, len(name) + 1, name, len(replicas) + 1)
        for partition, nodes in replicas.items():
            body += struct.pack(f">iB{len(nodes)}iB", partition, len(nodes) + 1, *nodes, 0)
        head = struct.pack(">hhih", _REASSIGN, 0, 1, -1) + b"\0"
        broker = next(broker for broker in self.brokers.values() if broker.is_running)
        with socket.create_connection(("127.0.0.1", broker.ports["PLAINTEXT"]), 10) as connection:
            request = head + body + b"\0\0"
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(65536)
        (error,) = struct.unpack_from(">h", answer, 13)  # after its length, the request's id, tags, and a time
        assert error == 0, answer

    def coordinator(self, group: str) -> int:
        """The broker that coordinates the group; below 0: none does now."""
        node: int = self._ask(FindCoordinatorRequest(group, CoordinationType.GROUP)).coordinator_id
        return node

    def _ask(self, request: Any) -> Any:
        """The first broker that answers, directly."""

        async def ask(broker: Kafka) -> Any:
            async with asyncio.timeout(2):
                connection = await create_conn("127.0.0.1", broker.ports["PLAINTEXT"])
                try:
                    return await connection.send(request)
                finally:
                    connection.close()

        for broker in self.brokers.values():
            if broker.is_running:
                with suppress(KafkaError, OSError):  # TimeoutError is an OSError
                    return asyncio.run(ask(broker))
        raise AssertionError("no broker answers")


@contextmanager
def started_cluster(directory: Path, *, session_s: float = SESSION_S, start: bool = True) -> Iterator[KafkaCluster]:
    """The cluster, running, and gone in the end. `start`: False where the test starts its brokers."""
    cluster = KafkaCluster(directory, session_s=session_s)
    try:
        for network in cluster.networks.values():
            network.__enter__()
        if start:
            cluster.start()
        yield cluster
    finally:
        cluster.close()
        for network in cluster.networks.values():
            network.__exit__()
