"""The brokers that tests/contracts/test_broker_contract.py runs against: how each is opened, and how its appender is started.

One more broker is one more class here, and one more name in BROKERS.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from support.processes import command

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, Consumer, Producer
from collector.broker.local import LocalLog, LocalLogLimits

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

    def open(self, bytes_max: int = ...) -> AbstractAsyncContextManager[Broker]:
        """`bytes_max`: what it holds before it is full."""

    def appender(self) -> list[str]:
        """A command that appends to it as tests/support/appender.py does."""


LIMITS = LocalLogLimits(
    bytes_max=1024 * MIB,
    waiting_bytes_max=64 * MIB,
    commit_bytes_max=8 * MIB,
    wal_bytes_max=4 * MIB,
    spare_bytes_max=8 * MIB,
    append_timeout_s=30,
)
TOPICS = (METRICS_TOPIC, LOGS_TOPIC, TRACES_TOPIC)


class LocalBroker:
    """The local log in a directory."""

    topics = TOPICS

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @asynccontextmanager
    async def open(self, bytes_max: int = LIMITS.bytes_max) -> AsyncIterator[Broker]:
        async with await LocalLog.open(self.directory, limits(bytes_max=bytes_max), self.topics) as log:
            yield Broker(log, log)

    def appender(self) -> list[str]:
        return command("support.appender", self.directory)


def limits(**changes: float) -> LocalLogLimits:
    """LIMITS with some of them changed."""
    return LocalLogLimits(**{**vars(LIMITS), **changes})


BROKERS: dict[str, Callable[[Path], BrokerUnderTest]] = {"local": LocalBroker}
