"""Apache Kafka: the broker of the production form.

The law: an append is answered when every replica in sync has all of its messages; and a range is intended and committed only
under the very generation of the consumer group in which its partition was read, so that Kafka itself refuses whoever lost it.

Appending. Messages wait in the batch of their topic while another is under way; one batch a topic and leader is under way at a
time, since aiokafka sends one request at a time to a broker. So batches grow with the load and nothing ever waits in vain. All
batches of one *session* (an idempotent producer, with its id and sequence numbers) fail or go on together: one that failed, or
was not acknowledged in time, ends the session, and what Kafka had not taken by then is forgotten, not sent later. A new session
begins by itself as soon as Kafka can be written again; until then every append is refused at once.

Reading. aiokafka's group coordinator keeps the membership, and the rest is done here, request by request, for two reasons: its
consumer commits under whatever generation it has by the time it sends, which need not be the one in which the range was read;
and it fetches ahead of what is asked for. Here a poll asks where the partitions end, takes the next in turn, and reads it from
its committed offset. Nothing is kept between polls.

docs/exactly-once.md has the argument, and what it assumes of Kafka.
"""

from collector.broker.kafka.connection import KafkaAway, KafkaOptions, KafkaUnusable
from collector.broker.kafka.consumer import KafkaConsumer
from collector.broker.kafka.history import History
from collector.broker.kafka.producer import KafkaProducer, ProduceObserver
from collector.broker.kafka.progress import KafkaProgress

__all__ = [
    "History",
    "KafkaAway",
    "KafkaConsumer",
    "KafkaOptions",
    "KafkaProducer",
    "KafkaProgress",
    "KafkaUnusable",
    "ProduceObserver",
]
