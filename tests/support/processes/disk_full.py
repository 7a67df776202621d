"""A local log on a disk that fills up, and is given space again: `python -m support.processes.disk_full DIRECTORY`.

The process's own limit on file sizes is the disk; that makes writes fail as a full one does, and can be raised again.
"""

import asyncio
import resource
import sys
from pathlib import Path

from support.fakes.brokers import MIB, limits

from collector.broker.contract import METRICS_TOPIC, BrokerDown, Message
from collector.broker.local_log import LocalLog


async def main(directory: Path) -> None:
    payload = bytes(range(256)) * 1024
    async with await LocalLog.open(directory, limits(), (METRICS_TOPIC,)) as log:
        await log.append([Message(METRICS_TOPIC, b"before")])
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6 * MIB, hard))
        kept, refused = 1, 0
        while refused < 20:
            try:
                await log.append([Message(METRICS_TOPIC, payload)])
                kept += 1
            except BrokerDown as error:
                refused += str(directory) in str(error)
        assert log.failure is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await log.ping()
        assert log.failure is None
        await log.append([Message(METRICS_TOPIC, b"after")])
        kept += 1
        assert log.depth(METRICS_TOPIC) == kept
    # As another process would find it.
    async with await LocalLog.open(directory, limits(), (METRICS_TOPIC,)) as log:
        messages = await log.poll(1024 * MIB, 0)
        assert messages is not None
        assert [b"before", *[payload] * (kept - 2), b"after"] == messages.payloads


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
