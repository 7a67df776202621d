"""A writer to be killed: run as a program, it stores numbered ranges one after the other until someone ends it.

    python store_writer.py DIRECTORY token|lookup

Before a range it notes its intent in DIRECTORY/progress, and after it the commit, as the collector's writer does with its log.
A range that it finds intended it repeats under the same token; in mode `lookup` only if the store does not hold it already.
"""

import sys
from pathlib import Path

from infrasage.v1.telemetry_pb2 import TYPE_LOG, TYPE_METRIC, TYPE_TRACE, TelemetryBatch
from support.batches import NOW, record

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.store.clickhouse import ClickHouseStore

MESSAGES = 3
ITEMS_PER_KIND = 400
# From one day into the next: each range is several parts in each of its tables.
TIMES = [NOW + n * 12 * 3600 * 10**9 for n in range(3)]


def numbered_range(number: int) -> tuple[str, bytes]:
    """The topic and the payload of a range: the same bytes for the same number, always."""
    topic = (METRICS_TOPIC, LOGS_TOPIC, TRACES_TOPIC)[number % 3]
    return topic, b"".join(_message(topic, number, part).SerializeToString() for part in range(MESSAGES))


def items(topic: str) -> int:
    """How many items a message of this topic has."""
    return ITEMS_PER_KIND * (3 if topic == METRICS_TOPIC else 1)


def _message(topic: str, number: int, part: int) -> TelemetryBatch:
    batch = TelemetryBatch()
    if topic == METRICS_TOPIC:
        one = record(batch, TYPE_METRIC, number, part=part)
        gauge = one.metrics.add(name="gauge").gauge
        sums = one.metrics.add(name="sum").sum
        histogram = one.metrics.add(name="histogram").histogram
        for n in range(ITEMS_PER_KIND):
            gauge.data_points.add(time_unix_nano=TIMES[n % 3] + n, as_double=n)
            sums.data_points.add(time_unix_nano=TIMES[n % 3] + n, as_int=n)
            histogram.data_points.add(time_unix_nano=TIMES[n % 3] + n, count=n)
    elif topic == LOGS_TOPIC:
        one = record(batch, TYPE_LOG, number, part=part)
        for n in range(ITEMS_PER_KIND):
            one.log_records.add(time_unix_nano=TIMES[n % 3] + n).body.string_value = f"line {n}"
    else:
        one = record(batch, TYPE_TRACE, number, part=part)
        for n in range(ITEMS_PER_KIND):
            trace_id = (number * 1000 + n // 10 + 1).to_bytes(16, "big")
            one.spans.add(trace_id=trace_id, span_id=(n + 1).to_bytes(8, "big"), start_time_unix_nano=TIMES[n % 3] + n)
    one.item_count = items(topic)
    # A receipt for each message, so that there is something to count by part.
    receipt = batch.records.add(batch_id=one.batch_id, batch_part=part, tenant_id=one.tenant_id)
    receipt.received_time_unix_nano = TIMES[part]
    receipt.receipt.received = items(topic)
    return batch


def read_progress(directory: Path) -> tuple[int, bool]:
    """The next range, and whether it is in doubt."""
    path = directory / "progress"
    if not path.exists():
        return 0, False
    number, state = path.read_text().split()
    return (int(number), True) if state == "intended" else (int(number) + 1, False)


def _note(directory: Path, number: int, state: str) -> None:
    temporary = directory / "progress.new"
    temporary.write_text(f"{number} {state}")
    temporary.replace(directory / "progress")


def main(directory: Path, mode: str) -> None:
    store = ClickHouseStore.embedded(directory / "store")
    store.apply_schema()
    number, in_doubt = read_progress(directory)
    while True:
        topic, payload = numbered_range(number)
        _note(directory, number, "intended")
        if not (in_doubt and mode == "lookup" and store.holds(topic, payload)):
            store.insert(topic, [payload], f"{topic}/0/{number}-{number + 1}")
        _note(directory, number, "committed")
        number, in_doubt = number + 1, False


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
