"""The private names of aiokafka on which this package depends, each with a digest of the code that gives it its meaning.

A new version may change any of them without notice. tests/unit/collector/broker/kafka/test_aiokafka_names.py then fails: read
what has changed, adapt the package to it, and write the digest that the test shows.
"""

from typing import Final

PRIVATE_NAMES: Final[dict[str, dict[str, str]]] = {
    "aiokafka.client.AIOKafkaClient": {  # client.Client inherits
        "_bootstrap_servers": "ac6f24dcadfe",
        "_conns": "8753a385e83b",
        "_get_conn": "6ac510e98697",
        "_get_conn_lock": "6610d23d4547",
        "_md_synchronizer": "0deb48a68fa4",
        "_metadata_update": "6fd8750f7fe3",
        "_sync_task": "47a4753648d5",
    },
    "aiokafka.conn.AIOKafkaConnection": {  # transport takes over what it has connected
        "_read_task": "aba8b1d5053d",
        "_reader": "201e328cb3b3",
        "_versions": "13a219cf0fa0",
        "_writer": "201e328cb3b3",
    },
    "aiokafka.consumer.group_coordinator.GroupCoordinator": {"_send_req": "8425caa33c12"},
    # client.Client takes the place of theirs.
    "aiokafka.admin.client.AIOKafkaAdminClient": {"_client": "7ecc09ccc05e"},
    "aiokafka.consumer.consumer.AIOKafkaConsumer": {"_client": "7ecc09ccc05e"},
}
"""By class and name. A method's digest is of its source, an attribute's of the statements that set it."""
