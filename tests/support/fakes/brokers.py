"""The brokers that tests/contracts/test_broker_contract.py runs against: how each is opened, and how its appender is started.

One more broker is one more class here, and one more name in BROKERS.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from support.processes.commands import command
from support.processes.kafka import shared_bootstrap, unique

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, Consumer, Producer
from collector.broker.kafka import KafkaConsumer, KafkaOptions, KafkaProducer
from collector.broker.local_log import LocalLog, LocalLogLimits

MIB = 1024 * 1024


class Broker(NamedTuple):
    """Both sides of it, open."""

    producer: Producer
    consumer: Consumer


class BrokerUnderTest(Protocol):
    """What is durable in it outlives `open`."""

    @property
    def topics(self) -> Sequence[str]:
        """Three, of one partition each, empty at first; the consumer polls them."""

    @property
    def atomic(self) -> bool:
        """Whether an append that is interrupted is kept whole or not at all. Else it may be kept without its last message."""

    @property
    def lacks(self) -> Mapping[str, str]:
        """Tests of the suite that it can't pass, by name, and why."""

    def open(self, bytes_max: int = ...) -> AbstractAsyncContextManager[Broker]:
        """`bytes_max`: what it holds before it is full."""

    def producing(self) -> AbstractAsyncContextManager[Producer]:
        """One side only: nobody notices when it is killed."""

    def appender(self) -> list[str]:
        """A command that appends to it as tests/support/processes/appender.py does."""


LIMITS = LocalLogLimits(
    bytes_max=1024 * MIB,
    waiting_bytes_max=64 * MIB,
    commit_bytes_max=8 * MIB,
    wal_bytes_max=4 * MIB,
    spare_bytes_max=8 * MIB,
    reserve_percent=0,
    reserve_bytes_min=0,
    reserve_bytes_max=0,
    append_timeout_s=30,
)
TOPICS = (METRICS_TOPIC, LOGS_TOPIC, TRACES_TOPIC)


class LocalBroker:
    """The local log in a directory."""

    topics = TOPICS
    atomic = True
    lacks: Mapping[str, str] = {}

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @asynccontextmanager
    async def open(self, bytes_max: int = LIMITS.bytes_max) -> AsyncIterator[Broker]:
        async with await LocalLog.open(self.directory, limits(bytes_max=bytes_max), self.topics) as log:
            yield Broker(log, log)

    @asynccontextmanager
    async def producing(self) -> AsyncIterator[Producer]:
        async with self.open() as (producer, _):
            yield producer

    def appender(self) -> list[str]:
        return command("support.processes.appender", "local", self.directory)


class KafkaBroker:
    """Topics and a consumer group of its own, on a broker that others share.

    One broker leads all topics here, so all messages of an append but the last travel in one request: a process that is killed
    leaves all of these or none. With more brokers that is not so (KafkaProducer.append says it).
    """

    atomic = False
    lacks: Mapping[str, str] = {
        "test_full_refuses_and_drops_nothing": "Kafka is never full: its retention deletes, whoever has read what"
    }

    def __init__(self, bootstrap: str, topics: Sequence[str], group: str) -> None:
        self.topics = topics
        self.options = kafka_options(bootstrap, group_id=group, topic_partitions=1)

    @classmethod
    def anew(cls, directory: Path) -> Self:
        return cls(shared_bootstrap(), [unique(topic) for topic in TOPICS], unique("writer"))

    @asynccontextmanager
    async def open(self, bytes_max: int = 0) -> AsyncIterator[Broker]:
        async with (
            self.producing() as producer,
            await KafkaConsumer.open(self.options, self.topics) as consumer,
        ):
            yield Broker(producer, consumer)

    @asynccontextmanager
    async def producing(self) -> AsyncIterator[Producer]:
        async with await KafkaProducer.open(self.options, self.topics) as producer:
            yield producer

    def appender(self) -> list[str]:
        return command("support.processes.appender", "kafka", *self.options.bootstrap, self.options.group_id, *self.topics)


def kafka_options(bootstrap: str, **changes: Any) -> KafkaOptions:
    """For tests: what is lost is found out soon."""
    given = {"append_timeout_s": 10.0, "request_timeout_s": 5.0, "session_timeout_s": 2.0, **changes}
    return KafkaOptions(bootstrap=bootstrap.split(","), **given)


def limits(**changes: float) -> LocalLogLimits:
    """LIMITS with some of them changed."""
    return LocalLogLimits(**{**vars(LIMITS), **changes})


BROKERS: dict[str, Callable[[Path], BrokerUnderTest]] = {"local": LocalBroker, "kafka": KafkaBroker.anew}
