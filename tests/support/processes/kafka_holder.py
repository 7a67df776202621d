"""Reads and intends one range, prints it, waits for a line, and says whether it can still intend and commit it:
`python -m support.processes.kafka_holder BOOTSTRAP GROUP TOPIC`. For a test that pauses it meanwhile."""

import asyncio
import sys

import structlog
from support.fakes.brokers import kafka_options

from collector.broker.contract import BrokerDown
from collector.broker.kafka import KafkaConsumer


async def main(bootstrap: str, group: str, topic: str) -> None:
    async with await KafkaConsumer.open(kafka_options(bootstrap, group_id=group, session_timeout_s=1.0), [topic]) as consumer:
        messages = await consumer.poll(3, 30)
        assert messages is not None
        await consumer.intend(messages)
        print(messages.start, messages.end, flush=True)
        # Blocks the event loop, heartbeats and all: what a pause does.
        sys.stdin.readline()
        outcomes = []
        for name, call in (("intend", consumer.intend), ("commit", consumer.commit)):
            try:
                await call(messages)
                outcomes.append(f"{name} done")
            except BrokerDown:
                outcomes.append(f"{name} refused")
        print(", ".join(outcomes), flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(*sys.argv[1:]))
