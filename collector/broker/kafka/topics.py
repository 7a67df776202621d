"""Check the topics, and create missing ones if that is allowed. An error contains the command that fixes the topic.

Invariants:
1. While brokers are missing, no topic is created with fewer replicas than configured, for `topic_brokers_wait_s`.
   (test_topics_wait_for_the_brokers_that_the_bootstrap_list_names)
2. A topic with fewer replicas than configured is reported at each start, with the commands that add replicas. (the same)
"""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from collector.broker.contract import BrokerDown
from collector.broker.kafka.client import Client
from collector.broker.kafka.options import KafkaOptions, KafkaUnusable, connection, until_started

# The bytes that Kafka's format adds to a message that is alone in its batch, rounded up.
_BATCH_OVERHEAD_BYTES: Final = 128
# Kafka's own default of max.message.bytes. Larger batches gain nothing.
BATCH_BYTES_MAX: Final = 1024 * 1024 + 12
_REPLICAS_MAX: Final = 3
# How often to look whether a missing broker has come.
_BROKERS_RETRY_S: Final = 0.5


class Topic(NamedTuple):
    """A topic's partitions, replicas and configuration in Kafka."""

    partitions: int
    replicas: int
    assignment: Mapping[int, Sequence[int]]  # the brokers that have a partition, by its index
    message_bytes_max: int
    in_sync_min: int
    compacted: bool


class Cluster(NamedTuple):
    """The topics, and the brokers that are alive."""

    topics: dict[str, Topic]
    brokers: Sequence[int]


class TopicsMissing(BrokerDown):
    """Kafka no longer has these topics."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"Kafka has no topic {', '.join(sorted(names))} any more: create what is missing, or restart this process"
        )
        self.names: Final = names


class BrokersMissing(Exception):
    """Missing topics are not created yet, since only `brokers` brokers are alive of the `required` ones."""

    def __init__(self, brokers: int, required: int) -> None:
        super().__init__(f"{brokers} of {required} brokers are alive")
        self.brokers: Final = brokers
        self.required: Final = required


def _replicas(options: KafkaOptions, brokers: int) -> int:
    """Return how many replicas a topic is to have if `brokers` are alive. The bootstrap list may name more brokers."""
    return options.topic_replication or min(_REPLICAS_MAX, max(brokers, len(set(options.bootstrap))))


async def _cluster(options: KafkaOptions, names: Sequence[str], *, waits: bool) -> Cluster:
    """Create missing topics, unless `waits` and brokers are missing. Return the brokers, and all of the topics. Raises
    BrokersMissing, KafkaUnusable, KafkaError, OSError."""
    admin = AIOKafkaAdminClient(bootstrap_servers=list(options.bootstrap), **connection(options))
    admin._client = Client(options)  # asks another broker if one is away
    try:
        await admin.start()
        brokers = sorted(broker["node_id"] for broker in (await admin.describe_cluster())["brokers"])
        partitions = await _partitions(admin, names)
        missing = [name for name in names if name not in partitions]
        if missing:
            required_replicas = _replicas(options, len(brokers))
            if waits and options.create_topics and len(brokers) < required_replicas:
                raise BrokersMissing(len(brokers), required_replicas)
            await _create(
                admin, options, missing, min(required_replicas, len(brokers)) if options.create_topics else required_replicas
            )
            while not partitions.keys() >= set(names):  # it takes a moment until every broker knows the new topics
                await asyncio.sleep(0.05)
                partitions = await _partitions(admin, names)
        configured = await _configured(admin, names)
    finally:
        await admin.close()
    topics = {
        name: Topic(
            len(partitions[name]),
            min(len(partition["replicas"]) for partition in partitions[name]),
            {partition["partition"]: partition["replicas"] for partition in partitions[name]},
            int(configured[name].get("max.message.bytes", BATCH_BYTES_MAX)),
            int(configured[name].get("min.insync.replicas", 1)),
            "compact" in configured[name].get("cleanup.policy", ""),
        )
        for name in names
    }
    return Cluster(topics, brokers)


async def _partitions(admin: Any, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    # Ask for all topics, and not for `names`: a request for a missing topic can create it, with the broker's defaults.
    described = await admin.describe_topics()
    return {each["topic"]: each["partitions"] for each in described if each["topic"] in names and each["partitions"]}


async def _create(admin: Any, options: KafkaOptions, missing: Sequence[str], replicas: int) -> None:
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
    """Return the configuration of each topic; nothing for a topic whose configuration we may not read."""
    configured: dict[str, dict[str, str]] = {name: {} for name in names}
    for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names]):
        for code, _message, _type, name, entries in answer.resources:
            if for_code(code) is NoError:
                configured[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return configured


def _raising(options: KafkaOptions, topics: Mapping[str, Topic], brokers: Sequence[int], required_replicas: int) -> str:
    """Return the commands that give topics `required_replicas` replicas. NEW is in the place of a missing broker."""
    known = [str(broker) for broker in brokers]
    known += ["NEW"] * (required_replicas - len(known))
    partitions = [
        {
            "topic": name,
            "partition": index,
            # Its present replicas, the leader first, and then the next brokers in a ring, so that all get their share.
            "replicas": [*had, *[each for each in (known * 2)[index % len(known) :] if each not in had]][:required_replicas],
        }
        for name, topic in topics.items()
        for index, replicas in topic.assignment.items()
        for had in ([str(replica) for replica in replicas],)
    ]
    plan = json.dumps({"version": 1, "partitions": partitions}, separators=(",", ":")).replace('"NEW"', "NEW")
    for number in brokers:
        plan = plan.replace(f'"{number}"', str(number))
    server = options.bootstrap[0]
    commands = [
        f"echo '{plan}' > replicas.json",
        f"kafka-reassign-partitions.sh --bootstrap-server {server} --reassignment-json-file replicas.json --execute",
    ]
    if required_replicas >= _REPLICAS_MAX:
        commands += [
            f"kafka-configs.sh --bootstrap-server {server} --alter --entity-type topics --entity-name {name}"
            " --add-config min.insync.replicas=2"
            for name, topic in topics.items()
            if topic.in_sync_min < 2
        ]
    return "\n".join(f"  {command}" for command in commands)


def _warn_of_few_replicas(options: KafkaOptions, cluster: Cluster) -> None:
    required_replicas = _replicas(options, len(cluster.brokers))
    few = {name: topic for name, topic in cluster.topics.items() if topic.replicas < required_replicas}
    if few:
        structlog.get_logger(__name__).warning(
            "topics have fewer replicas than kafka.topic_replication, or the brokers in kafka.bootstrap, ask for; once all"
            " brokers are there (write the number of a broker that was missing for NEW), run:\n"
            + _raising(options, few, cluster.brokers, required_replicas),
            topics=sorted(few),
            replicas=min(topic.replicas for topic in few.values()),
            wanted=required_replicas,
        )


def _check(options: KafkaOptions, topics: Mapping[str, Topic]) -> None:
    """Check that topics can be used. Raises KafkaUnusable if not. Warn of settings that lose messages with a broker."""
    log = structlog.get_logger(__name__)
    need = options.message_bytes_max + _BATCH_OVERHEAD_BYTES
    alter = f"kafka-configs.sh --bootstrap-server {options.bootstrap[0]} --alter --entity-type topics --entity-name"
    for name, topic in topics.items():
        if topic.message_bytes_max < need:
            raise KafkaUnusable(
                f"topic {name} takes messages of {topic.message_bytes_max} bytes (max.message.bytes), and"
                f" {options.message_bytes_setting} = {options.message_bytes_max} needs {need}. Lower that, or run:\n"
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
                "a topic accepts nothing while one of its brokers is unavailable: add replicas, or lower min.insync.replicas",
                topic=name,
                replicas=topic.replicas,
                min_insync_replicas=topic.in_sync_min,
            )


async def ready_topics(options: KafkaOptions, names: Collection[str], of_others: Collection[str] = ()) -> dict[str, Topic]:
    """Return all topics of `names`. Missing ones are created as soon as all brokers are there, or after `topic_brokers_wait_s`.
    Topics `of_others` are created as well, but neither checked nor returned. Raises KafkaUnusable."""
    loop = asyncio.get_running_loop()
    until = loop.time() + options.topic_brokers_wait_s
    reported_brokers = 0
    while True:
        try:
            cluster = await until_started(options, lambda: _cluster(options, (*names, *of_others), waits=loop.time() < until))
            break
        except BrokersMissing as missing:
            if reported_brokers != missing.brokers:
                reported_brokers = missing.brokers
                structlog.get_logger(__name__).warning(
                    "topics are not created before all brokers are there: their number is kafka.topic_replication, or the"
                    " number of servers in kafka.bootstrap; kafka.topic_brokers_wait_s limits the wait",
                    brokers=missing.brokers,
                    wanted=missing.required,
                    seconds=round(max(0.0, until - loop.time())),
                )
            await asyncio.sleep(_BROKERS_RETRY_S)
    ours = {name: topic for name, topic in cluster.topics.items() if name in names}
    _check(options, ours)
    _warn_of_few_replicas(options, cluster._replace(topics=ours))
    return ours
