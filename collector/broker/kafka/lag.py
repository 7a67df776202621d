"""Measure how far the writers are: the consumer group's committed offsets, compared with the ends of the partitions.

Invariants:
1. It only reads. It is no member of the group, so it causes no rebalance, and commits nothing.
2. While a broker is away it asks again, until its time is up. (test_requests_to_the_group_from_outside_go_on)
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, NodeNotReadyError

from collector.broker.contract import Partition
from collector.broker.kafka.client import Client
from collector.broker.kafka.connection_pool import Brokers
from collector.broker.kafka.identity import Committed, identity_of, topic_logs
from collector.broker.kafka.options import KafkaOptions, connection, text

# How often `caught_up` asks again while it waits.
_INTERVAL_S: Final = 0.1

log = structlog.get_logger(__name__)


class KafkaProgress:
    """Reads the progress of the consumer group. It connects at the first call, for one caller at a time, and belongs to the
    event loop of its callers."""

    def __init__(self, options: KafkaOptions, topics: Collection[str]) -> None:
        self._options: Final = options
        self._topics: Final = sorted(topics)
        self._connecting: Final = asyncio.Lock()
        self._brokers: Final = Brokers(options)
        self._ends: Any = None
        self._admin: Any = None

    async def caught_up(self, wait_s: float) -> int:
        """Wait at most `wait_s` until every message appended before the call is stored. Return how many are not: at least 1 if
        Kafka does not answer."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        goals: dict[Any, int] | None = None
        while True:
            behind, failure = 1, ""
            try:
                async with asyncio.timeout_at(max(until, loop.time()) + self._options.request_timeout_s):
                    await self._connect()
                    if goals is None:
                        goals = await self._ends.end_offsets(await self._partitions())
                    behind = await self._behind(goals)
            except (KafkaError, OSError) as error:  # TimeoutError is an OSError
                failure = text(error)
            if not behind or loop.time() >= until:
                if failure:
                    log.warning("Kafka does not say how far the writers are", error=failure)
                return behind
            await asyncio.sleep(min(_INTERVAL_S, until - loop.time()))

    async def _partitions(self) -> list[Any]:
        described = await self._admin.describe_topics(self._topics)
        return [TopicPartition(topic["topic"], each["partition"]) for topic in described for each in topic["partitions"]]

    async def _behind(self, goals: dict[Any, int]) -> int:
        """Return the number of messages between the committed offsets and the goals."""
        committed = await self._admin.list_consumer_group_offsets(self._options.group_id, partitions=list(goals))
        known = await self._identities({each.topic for each in committed}) if committed else {}
        unknown = [each for each in goals if each not in committed or not _is_of(committed[each], known.get(each.topic))]
        # A partition that was never committed, or was committed for another log, is read from its beginning.
        beginnings = await self._ends.beginning_offsets(unknown) if unknown else {}
        behind: dict[Partition, int] = {}
        for each, goal in goals.items():
            offset = beginnings[each] if each in beginnings else committed[each].offset
            behind[Partition(each.topic, each.partition)] = max(0, goal - offset)
        return sum(behind.values())

    async def _identities(self, topics: Collection[str]) -> Mapping[str, str]:
        """Return the identity of each topic's log. Raises KafkaError, OSError."""
        node = self._admin._client.get_random_node()
        if node is None:
            raise NodeNotReadyError("no broker is known")
        known = await topic_logs(self._brokers, self._admin._client, node, sorted(topics))
        return {topic: log.identity for topic, log in known.items()}

    async def _connect(self) -> None:
        """Connect, unless that is done. Raises KafkaError, OSError."""
        async with self._connecting:
            if self._ends is None:
                # Without topics: it fetches nothing.
                made = {"bootstrap_servers": list(self._options.bootstrap), **connection(self._options)}
                admin = AIOKafkaAdminClient(**made)
                ends = AIOKafkaConsumer(group_id=None, enable_auto_commit=False, **made)
                # Our clients ask another broker if one is away.
                admin._client, ends._client = Client(self._options), Client(self._options)
                try:
                    await admin.start()
                    await ends.start()
                except BaseException:
                    await admin.close()
                    await ends.stop()
                    raise
                self._admin, self._ends = admin, ends

    async def close(self) -> None:
        """Close the connections."""
        if self._ends is not None:
            self._brokers.close()
            await self._ends.stop()
            await self._admin.close()


def _is_of(committed: Any, identity: str | None) -> bool:
    """Return whether an offset is committed, and belongs to this log as far as its metadata has an identity."""
    metadata = Committed.read(committed.metadata or "")
    is_other = metadata is not None and metadata.log and identity is not None and identity_of(metadata.log) != identity
    return committed.offset >= 0 and not is_other
