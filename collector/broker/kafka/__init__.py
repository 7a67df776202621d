"""Apache Kafka: the broker of the production form.

Invariants:
1. An append returns when every in-sync replica has all of its messages.
   (test_a_kafka_that_is_killed_loses_nothing_that_was_acknowledged)
2. A range is intended and committed only under the generation of the consumer group in which its partition was read. So Kafka
   refuses a writer that has lost the partition. (test_a_stale_range_is_refused_though_its_partition_came_back)
3. A broker that is away delays only its own partitions. (tests/integration/kafka/test_cluster.py)

producer.py appends, consumer.py reads, group.py keeps the group. client.py finds the brokers; connection_pool.py and
transport.py are connections to them. docs/internals/exactly-once.md has the argument, and what it assumes of Kafka.
"""

from collector.broker.kafka.consumer import KafkaConsumer
from collector.broker.kafka.lag import KafkaProgress
from collector.broker.kafka.options import KafkaOptions, KafkaUnavailable, KafkaUnusable
from collector.broker.kafka.producer import KafkaProducer
from collector.broker.kafka.producer_observer import ProduceObserver
from collector.broker.kafka.time_range_reader import Beginnings, History

__all__ = [
    "Beginnings",
    "History",
    "KafkaConsumer",
    "KafkaOptions",
    "KafkaProducer",
    "KafkaProgress",
    "KafkaUnavailable",
    "KafkaUnusable",
    "ProduceObserver",
]
