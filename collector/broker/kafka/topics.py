"""The topics: created where that is allowed, else checked, with the command that would put right what is wrong."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from collector.broker.kafka.connection import KafkaOptions, KafkaUnusable, connection, until_started

# What Kafka's format adds to a message that is alone in its batch, rounded up.
_BATCH_OVERHEAD_BYTES: Final = 128
# Kafka's own default of max.message.bytes. Larger batches gain nothing.
BATCH_BYTES_MAX: Final = 1024 * 1024 + 12
_REPLICAS_MAX: Final = 3


class Topic(NamedTuple):
    """A topic as it is."""

    partitions: int
    replicas: int
    message_bytes_max: int
    in_sync_min: int
    compacted: bool


async def _topics(options: KafkaOptions, names: Sequence[str]) -> dict[str, Topic]:
    """Of all of them, created where they are not there. Raises KafkaUnusable, KafkaError, OSError."""
    admin = AIOKafkaAdminClient(bootstrap_servers=list(options.bootstrap), **connection(options))
    try:
        await admin.start()
        partitions = await _partitions(admin, names)
        missing = [name for name in names if name not in partitions]
        if missing:
            await _create(admin, options, missing)
            while not partitions.keys() >= set(names):  # it takes a moment until every broker knows
                await asyncio.sleep(0.05)
                partitions = await _partitions(admin, names)
        configured = await _configured(admin, names)
    finally:
        await admin.close()
    return {
        name: Topic(
            len(partitions[name]),
            min(len(partition["replicas"]) for partition in partitions[name]),
            int(configured[name].get("max.message.bytes", BATCH_BYTES_MAX)),
            int(configured[name].get("min.insync.replicas", 1)),
            "compact" in configured[name].get("cleanup.policy", ""),
        )
        for name in names
    }


async def _partitions(admin: Any, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    # All topics, not those: a request for one that is not there can create it, with the broker's defaults.
    described = await admin.describe_topics()
    return {each["topic"]: each["partitions"] for each in described if each["topic"] in names and each["partitions"]}


async def _create(admin: Any, options: KafkaOptions, missing: Sequence[str]) -> None:
    replicas = options.topic_replication or min(_REPLICAS_MAX, len((await admin.describe_cluster())["brokers"]))
    configs = {"max.message.bytes": str(max(BATCH_BYTES_MAX, options.message_bytes_max + _BATCH_OVERHEAD_BYTES))}
    if replicas >= _REPLICAS_MAX:
        configs["min.insync.replicas"] = "2"  # acks=all then survives the loss of any one broker
    commands = "\n".join(
        f"  kafka-topics.sh --bootstrap-server {options.bootstrap[0]} --create --topic {name}"
        f" --partitions {options.topic_partitions} --replication-factor {replicas}"
        + "".join(f" --config {key}={value}" for key, value in configs.items())
        for name in missing
    )
    if not options.create_topics:
        raise KafkaUnusable(
            f"Kafka has no topic {', '.join(missing)}, and kafka.create_topics is false. Create what is missing:\n{commands}"
        )
    answer = await admin.create_topics(
        [NewTopic(name, options.topic_partitions, replicas, topic_configs=configs) for name in missing]
    )
    for name, code, message in answer.topic_errors:
        error = for_code(code)
        if error not in (NoError, TopicAlreadyExistsError):
            reason = f"{error.__name__}{f' ({message})' if message else ''}"
            raise KafkaUnusable(f"cannot create topic {name}: {reason}. Create what is missing:\n{commands}")


async def _configured(admin: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Nothing of a topic whose configuration we may not read."""
    configured: dict[str, dict[str, str]] = {name: {} for name in names}
    for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names]):
        for code, _message, _type, name, entries in answer.resources:
            if for_code(code) is NoError:
                configured[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return configured


def _check(options: KafkaOptions, topics: Mapping[str, Topic]) -> None:
    """Raises KafkaUnusable; warns of what loses messages when a broker is lost."""
    log = structlog.get_logger(__name__)
    need = options.message_bytes_max + _BATCH_OVERHEAD_BYTES
    alter = f"kafka-configs.sh --bootstrap-server {options.bootstrap[0]} --alter --entity-type topics --entity-name"
    for name, topic in topics.items():
        if topic.message_bytes_max < need:
            raise KafkaUnusable(
                f"topic {name} takes messages of {topic.message_bytes_max} bytes (max.message.bytes), and"
                f" broker.message_bytes_max = {options.message_bytes_max} needs {need}. Lower that, or run:\n"
                f"  {alter} {name} --add-config max.message.bytes={need}"
            )
        if topic.compacted:
            raise KafkaUnusable(
                f"topic {name} is compacted, and takes no messages without a key. Run:\n"
                f"  {alter} {name} --add-config cleanup.policy=delete"
            )
        if topic.replicas == 1:
            log.warning("a topic has one replica: its messages are lost with that broker's disk", topic=name)
        elif topic.in_sync_min == 1:
            log.warning("a topic acknowledges with one replica in sync: set min.insync.replicas to 2", topic=name)
        elif topic.in_sync_min >= topic.replicas:
            log.warning(
                "a topic takes nothing while any of its brokers is away: more replicas, or a lower min.insync.replicas",
                topic=name,
                replicas=topic.replicas,
                min_insync_replicas=topic.in_sync_min,
            )


async def ready_topics(options: KafkaOptions, names: Collection[str]) -> dict[str, Topic]:
    topics = await until_started(options, lambda: _topics(options, tuple(names)))
    _check(options, topics)
    return topics
