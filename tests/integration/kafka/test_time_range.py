"""Messages of Kafka are found by the time of their append."""

from aiokafka import AIOKafkaProducer
from support.fakes.brokers import kafka_options
from support.processes.kafka import shared_bootstrap, unique

from collector.broker.kafka import KafkaProducer
from collector.broker.kafka.time_range_reader import History

START_S = 1_790_000_000


async def test_a_producer_with_a_fast_clock_hides_no_message_of_others() -> None:
    """What it appended is beyond the end, by its clock; what others appended afterwards is not."""
    options, topic = kafka_options(shared_bootstrap(), topic_partitions=1), unique("topic")
    async with await KafkaProducer.open(options, [topic]):
        pass  # the topic is there
    producer = AIOKafkaProducer(bootstrap_servers=options.bootstrap)
    await producer.start()
    try:
        for value, after_s in ((b"early", -60), (b"first", 0), (b"fast", 800), (b"second", 30), (b"late", 90)):
            await producer.send_and_wait(topic, value, partition=0, timestamp_ms=(START_S + after_s) * 1000)
    finally:
        await producer.stop()
    async with await History.open(options, [topic]) as history:
        found = [message.payload async for message in history.read(START_S * 10**9, (START_S + 60) * 10**9)]
    assert [b"first", b"second"] == found
