"""The log, the writer and the embedded engine in one process, to be killed.

`python -m support.processes.write_to_engine DIRECTORY FIRST` appends messages numbered from FIRST, each with POINTS points and
every BAD_EVERY-th with a record that no engine can read, and prints each number once it is acknowledged. With FIRST `finish` it
appends nothing, waits until all is stored, dead letters too, and prints for each message its number, its rows and its distinct
points, and at the end how many dead letters there are.
"""

import asyncio
import sys
import time
from contextlib import closing
from pathlib import Path

import structlog
from support.batches import gauge
from support.fakes.brokers import LIMITS, TOPICS
from support.records import encoded

from collector.broker.contract import DEAD_LETTERS_TOPIC, METRICS_TOPIC, Message
from collector.broker.local_log import LocalLog
from collector.store.clickhouse import ClickHouseStore
from collector.telemetry.metrics import Metrics
from collector.writer.store_refusals import RefusedRecords
from collector.writer.writer import Writer, WriterLimits

POINTS = 200
BAD_EVERY = 60
# A record whose first field claims to be longer than the record.
BAD_RECORD = b"\x0a\x06\x0a\xc8\x01bad"
LIMITS_ = WriterLimits(
    bytes_max=64 * 1024, row_bytes_max=1 << 27, refusals_max=1000, linger_ms=5, retry_min_s=0.1, retry_max_s=1
)
# A batch id ends in the message's number.
COUNTS = """
SELECT reinterpretAsUInt64(reverse(unhex(substring(toString(BatchId), 25)))) AS number, count(), uniqExact(BatchPart, TimeUnix)
FROM otel_metrics_gauge GROUP BY number ORDER BY number
"""


def message(number: int) -> Message:
    """Good records around a bad one, where there is one."""
    first, second = (encoded(gauge(number, POINTS // 2, part=part)) for part in (0, 1))
    return Message(METRICS_TOPIC, first + (BAD_RECORD if number % BAD_EVERY == 0 else b"") + second)


async def main(directory: Path, first: str) -> None:
    with closing(ClickHouseStore.embedded(directory / "store")) as store:
        store.apply_schema()
        async with await LocalLog.open(directory / "log", LIMITS, (*TOPICS, DEAD_LETTERS_TOPIC)) as log:
            writer = Writer(log, store, RefusedRecords(log, 1 << 20, time.time_ns).keep, LIMITS_, Metrics())
            writing = asyncio.create_task(writer.run())
            if first == "finish":
                assert await writer.drained(400)
                assert await writer.drained(400)  # what became a dead letter meanwhile
                dead_letters = store.query("SELECT count() FROM dead_letters", "TSV").decode()
                print(store.query(COUNTS, "TSV").decode(), dead_letters, sep="", end="")
            else:
                for number in range(int(first), 10**6):
                    await log.append([message(number)])
                    print(number, flush=True)
                    await asyncio.sleep(0.005)  # so that the writer has its share of the process's life
            writer.stop()
            await writing


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
