"""Appends to a local log until it is killed, and prints what was acknowledged: `python -m support.appender DIRECTORY`.

Several tasks append at once. Each append is one message for every topic, with the same name, which is printed (a line each)
after the append has returned.
"""

import asyncio
import os
import sys
from pathlib import Path

from support.brokers import LocalBroker

from collector.broker.contract import Message

TASKS = 8


def payload(name: str) -> bytes:
    """From a few bytes to some 200 KB; the name comes first."""
    size = sum(name.encode()) * 7919 % 2000
    return f"{name} ".encode() + name.encode() * (size * 20 if size % 10 == 0 else size % 50)


async def main(directory: Path) -> None:
    broker = LocalBroker(directory)
    async with broker.open() as (producer, _):

        async def append(task: int) -> None:
            count = 0
            while True:
                name = f"{os.getpid()}-{task}-{count}"
                await producer.append([Message(topic, payload(name)) for topic in broker.topics])
                print(name, flush=True)
                count += 1

        await asyncio.gather(*(append(task) for task in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
