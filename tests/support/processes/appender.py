"""Appends to a broker until it is killed, and prints what was acknowledged:
`python -m support.processes.appender local DIRECTORY` or `python -m support.processes.appender kafka BOOTSTRAP GROUP TOPIC
TOPIC TOPIC`.

Several tasks append at once. Each append is one message for every topic, with the same name, which is printed (a line each)
after the append has returned.
"""

import asyncio
import os
import sys
from pathlib import Path

import structlog
from support.fakes.brokers import BrokerUnderTest, KafkaBroker, LocalBroker

from collector.broker.contract import Message

TASKS = 8


def payload(name: str) -> bytes:
    """From a few bytes to some 200 KB; the name comes first."""
    size = sum(name.encode()) * 7919 % 2000
    return f"{name} ".encode() + name.encode() * (size * 20 if size % 10 == 0 else size % 50)


async def main(broker: BrokerUnderTest) -> None:
    async with broker.producing() as producer:

        async def append(task: int) -> None:
            count = 0
            while True:
                name = f"{os.getpid()}-{task}-{count}"
                await producer.append([Message(topic, payload(name)) for topic in broker.topics])
                print(name, flush=True)
                count += 1

        await asyncio.gather(*(append(task) for task in range(TASKS)))


if __name__ == "__main__":
    # Standard output is for what was acknowledged.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    kind, *arguments = sys.argv[1:]
    asyncio.run(
        main(LocalBroker(Path(arguments[0])) if kind == "local" else KafkaBroker(arguments[0], arguments[2:], arguments[1]))
    )
