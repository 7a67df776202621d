"""Numbered ranges to store, of each topic in turn, and what the store must have of them."""

from collections.abc import Collection
from uuid import UUID

from infrasage.v1.dead_letter_pb2 import DEAD_LETTER_ACTION_DISCARDED
from infrasage.v1.telemetry_pb2 import TYPE_LOG, TYPE_METRIC, TYPE_TRACE
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support import letters
from support.batches import NOW, batch_id, record
from support.records import encoded

from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.store.clickhouse import ClickHouseStore

MESSAGES = 3
ITEMS_PER_KIND = 400
LETTERS = 20
# From one day into the next: each range is several parts in each of its tables.
TIMES = [NOW + n * 12 * 3600 * 10**9 for n in range(3)]
TOPICS = (METRICS_TOPIC, LOGS_TOPIC, TRACES_TOPIC, DEAD_LETTERS_TOPIC)
TABLES = {
    METRICS_TOPIC: ("otel_metrics_gauge", "otel_metrics_sum", "otel_metrics_histogram", "telemetry_batches"),
    LOGS_TOPIC: ("otel_logs", "telemetry_batches"),
    TRACES_TOPIC: ("otel_traces", "otel_traces_trace_id_ts", "telemetry_batches"),
    DEAD_LETTERS_TOPIC: ("telemetry_dead_letters", "telemetry_dead_letter_events"),
}


def topic_of(number: int) -> str:
    return TOPICS[number % len(TOPICS)]


def messages(number: int) -> list[bytes]:
    """The messages of a range: the same bytes for the same number, always."""
    topic = topic_of(number)
    if topic == DEAD_LETTERS_TOPIC:
        return [_letters(number, part) for part in range(MESSAGES)]
    return [encoded(_message(topic, number, part)) for part in range(MESSAGES)]


def payload(number: int) -> bytes:
    return b"".join(messages(number))


def former_payload(number: int) -> bytes:
    """The same of telemetry, in records of version 1."""
    return b"".join(_message(topic_of(number), number, part).SerializeToString() for part in range(MESSAGES))


def items(topic: str) -> int:
    """How many items a message of telemetry has."""
    return ITEMS_PER_KIND * (3 if topic == METRICS_TOPIC else 1)


def _letters(number: int, part: int) -> bytes:
    made = [
        letters.letter(number, part * LETTERS + n, kept_time_unix_nano=TIMES[n % 3] + n, received_time_unix_nano=NOW + n)
        for n in range(LETTERS)
    ]
    return letters.dead_letters(*made, *(letters.event(one, DEAD_LETTER_ACTION_DISCARDED) for one in made))


def _message(topic: str, number: int, part: int) -> TelemetryBatchV1:
    batch = TelemetryBatchV1()
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


def wrong_counts(store: ClickHouseStore, numbers: Collection[int], *, of_these_alone: bool = False) -> list[str]:
    """What the store has otherwise than once: a line for each message and table. `numbers`: the ranges that are stored.
    `of_these_alone`: the store may have others too."""
    ids = {str(UUID(bytes=batch_id(number))) for number in numbers}
    expected: dict[str, set[str]] = {}
    for number in numbers:
        topic = topic_of(number)
        for table in TABLES[topic] if topic != DEAD_LETTERS_TOPIC else ():
            rows = 1 if table == "telemetry_batches" else ITEMS_PER_KIND
            batch = UUID(bytes=batch_id(number))
            expected.setdefault(table, set()).update(f"{batch}\t{part}\t{rows}" for part in range(MESSAGES))
    wrong = []
    for table, lines in expected.items():
        counted = "sum(SpanCount)" if table.endswith("_ts") else "count()"
        sql = f"SELECT BatchId, BatchPart, {counted} FROM {table} GROUP BY BatchId, BatchPart"
        found = set(store.read(sql, "TabSeparated").decode().splitlines())
        if of_these_alone:
            found = {line for line in found if line.split("\t")[0] in ids}
        wrong += [f"{table}: {line}" for line in sorted(found ^ lines)]
    letters_expected = MESSAGES * LETTERS * sum(topic_of(number) == DEAD_LETTERS_TOPIC for number in numbers)
    for table in TABLES[DEAD_LETTERS_TOPIC] if letters_expected or not of_these_alone else ():
        found_letters = int(store.read(f"SELECT uniqExact(Id) FROM {table}", "TabSeparated"))
        if found_letters != letters_expected:
            wrong.append(f"{table}: {found_letters}, not {letters_expected}")
    return wrong
