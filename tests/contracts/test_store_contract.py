"""The store's contract, as a suite: an implementation is one more line in IMPLEMENTATIONS."""

import itertools
import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from infrasage.v1.dead_letter_pb2 import (
    DEAD_LETTER_ACTION_DISCARDED,
    DEAD_LETTER_ACTION_REJECTED_AGAIN,
    DEAD_LETTER_ACTION_REPLAYED,
    DeadLetter,
    DeadLetterAction,
    DeadLetterEvent,
    PayloadForm,
)
from infrasage.v1.telemetry_pb2 import TYPE_LOG, TelemetryBatch, TelemetryRecord
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1
from support import batches, letters
from support.processes.clickhouse_server import OPTIONS
from support.processes.clickhouse_server import server as any_server
from support.records import encoded
from support.references.stored import items, stored
from support.reopened_store import store_with_tables
from support.strategies.batches import batches as any_batches

from collector.broker.contract import DEAD_LETTERS_TOPIC, LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.store.contract import Store, StoreError, StoreOutOfMemory, StoreRefusedData
from collector.store.payload_index import contents

_TOPICS = {"metrics": METRICS_TOPIC, "log_records": LOGS_TOPIC, "spans": TRACES_TOPIC}
_NUMBERS = itertools.count(1)


@contextmanager
def embedded(directory: Path) -> Iterator[Store]:
    with closing(store_with_tables(directory / "store", OPTIONS)) as store:
        yield store


@contextmanager
def server(directory: Path) -> Iterator[Store]:
    with any_server(directory) as there, closing(there.store()) as store:
        store.apply_schema()
        yield store


IMPLEMENTATIONS = [pytest.param(embedded, id="embedded"), pytest.param(server, id="server")]


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for the whole suite, since opening one takes a second: each test has batches and tenants of its own."""
    opened: Callable[[Path], AbstractContextManager[Store]] = request.param
    with opened(tmp_path_factory.mktemp("store")) as open_store:
        yield open_store


@pytest.fixture
def number() -> int:
    """A batch that no other test has."""
    return next(_NUMBERS)


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test has."""
    return f"tenant-{next(_NUMBERS)}"


def rows(store: Store, number: int, table: str = "otel_metrics_gauge") -> int:
    batch_id = batches.batch_id(number).hex()
    sql = f"SELECT count() FROM {table} WHERE replaceAll(toString(BatchId), '-', '') = '{batch_id}'"
    return int(store.query(sql, "TabSeparated"))


@pytest.mark.parametrize(
    ("topic", "make"),
    [(METRICS_TOPIC, batches.metrics), (LOGS_TOPIC, batches.logs), (TRACES_TOPIC, batches.traces)],
    ids=["metrics", "logs", "traces"],
)
def test_every_field(store: Store, number: int, tenant: str, topic: str, make: Callable[[int, str], TelemetryBatchV1]) -> None:
    """Every field of every OTLP signal is read back as it was sent, doubles and times to the bit."""
    batch = make(number, tenant)
    store.insert(topic, [encoded(batch)], "every-field")
    assert stored(store, tenant) == sorted(items(batch))


@pytest.mark.parametrize("signal", _TOPICS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_batch(store: Store, signal: str, data: st.DataObject) -> None:
    """Whatever the adapters may make of a request, the store gives back."""
    unique = next(_NUMBERS)
    batch = data.draw(any_batches(signal, f"any-{unique}", unique))
    payload = encoded(batch)
    store.insert(_TOPICS[signal], [payload], f"any/{unique}")
    assert stored(store, f"any-{unique}") == sorted(items(batch))


def test_same_token(store: Store, number: int) -> None:
    """The same payload under the same token is stored once."""
    payload = encoded(batches.gauge(number, 5))
    for _ in range(3):
        store.insert(METRICS_TOPIC, [payload], f"same/{number}")
    assert rows(store, number) == 5


@pytest.mark.parametrize(
    ("topic", "make", "tables"),
    [
        (METRICS_TOPIC, batches.metrics, {"otel_metrics_sum": 16, "otel_metrics_histogram": 2, "otel_metrics_summary": 2}),
        (LOGS_TOPIC, batches.logs, {"otel_logs": 4}),
        (TRACES_TOPIC, batches.traces, {"otel_traces": 7, "otel_traces_trace_id_ts": 1}),
    ],
    ids=["metrics", "logs", "traces"],
)
def test_same_token_everywhere(
    store: Store, number: int, tenant: str, topic: str, make: Callable[[int, str], TelemetryBatchV1], tables: dict[str, int]
) -> None:
    """A token counts in every table that the payload reaches."""
    payload = encoded(make(number, tenant))
    for _ in range(2):
        store.insert(topic, [payload], f"everywhere/{number}")
    assert {table: rows(store, number, table) for table in tables} == tables


def test_other_token(store: Store) -> None:
    """Equal items under other tokens are other items: out of order and repeated samples are kept."""
    number = next(_NUMBERS)
    payload = encoded(batches.gauge(number, 2))
    for token in ("first", "second"):
        store.insert(METRICS_TOPIC, [payload], f"{token}/{number}")
    assert rows(store, number) == 4


def test_concatenated(store: Store, number: int) -> None:
    """Payloads are stored as one: small and large ones, their own bytes or parts of what was received."""
    points = [3, 3, 5000, 3, 5000, 5000, 3]
    parts = [encoded(batches.gauge(number, many, part=part)) for part, many in enumerate(points)]
    assert max(map(len, parts)) > 64 * 1024
    received = memoryview(b"".join(parts))
    ends = list(itertools.accumulate(map(len, parts)))
    views = [received[end - len(part) : end] for part, end in zip(parts, ends, strict=True)]
    store.insert(METRICS_TOPIC, [parts[0], *views[1:5], *parts[5:]], f"concatenated/{number}")
    assert rows(store, number) == sum(points)
    assert store.holds(METRICS_TOPIC, bytes(received))


def test_empty(store: Store) -> None:
    """Nothing can be stored too, and is then held."""
    store.insert(LOGS_TOPIC, [b""], f"empty/{next(_NUMBERS)}")
    assert store.holds(LOGS_TOPIC, b"")


@pytest.mark.parametrize(
    ("topic", "make"),
    [(METRICS_TOPIC, batches.metrics), (LOGS_TOPIC, batches.logs), (TRACES_TOPIC, batches.traces)],
    ids=["metrics", "logs", "traces"],
)
def test_holds(store: Store, number: int, tenant: str, topic: str, make: Callable[[int, str], TelemetryBatchV1]) -> None:
    """A payload is held once it is stored, and not before."""
    payload = encoded(make(number, tenant))
    assert not store.holds(topic, payload)
    store.insert(topic, [payload], f"holds/{number}")
    assert store.holds(topic, payload)


def test_holds_part(store: Store, number: int) -> None:
    """Of two messages one is stored: together they are not held."""
    first, second = (encoded(batches.gauge(number, 3, part=part)) for part in range(2))
    store.insert(METRICS_TOPIC, [first], f"part/{number}")
    assert store.holds(METRICS_TOPIC, first)
    assert not store.holds(METRICS_TOPIC, second)
    assert not store.holds(METRICS_TOPIC, first + second)


@pytest.mark.parametrize(
    ("topic", "make"),
    [(METRICS_TOPIC, batches.metrics), (LOGS_TOPIC, batches.logs), (TRACES_TOPIC, batches.traces)],
    ids=["metrics", "logs", "traces"],
)
def test_untouched(store: Store, number: int, tenant: str, topic: str, make: Callable[[int, str], TelemetryBatchV1]) -> None:
    """A payload is untouched until something of it is stored: any item, or its receipt."""
    batch = make(number, tenant)
    receipt = batch.records.add(batch_id=batch.records[0].batch_id, receipt=letters.any_receipt())
    payload = encoded(batch)
    assert store.untouched(topic, payload)
    parts = encoded(TelemetryBatchV1(records=[receipt])), encoded(make(number, tenant))
    for part in parts:
        assert store.untouched(topic, part)
        store.insert(topic, [part], f"untouched/{next(_NUMBERS)}")
        assert not store.untouched(topic, part)
        assert not store.untouched(topic, payload)
    assert store.untouched(topic, encoded(make(next(_NUMBERS), tenant)))


def test_parts_of_one_message(store: Store, number: int) -> None:
    """They have the same batch id and part: what is stored of one is not taken for another."""
    first, second = encoded(batches.gauge(number, 3)), encoded(batches.gauge(number, 2))
    (key,) = contents(first).items
    store.insert(METRICS_TOPIC, [first], f"parts/{number}")
    assert store.holds(METRICS_TOPIC, first)
    assert not store.holds(METRICS_TOPIC, second, {key: 3})
    assert store.untouched(METRICS_TOPIC, second, {key: 3})
    store.insert(METRICS_TOPIC, [second], f"parts/{number}/1")
    assert store.holds(METRICS_TOPIC, second, {key: 3})
    assert not store.untouched(METRICS_TOPIC, second, {key: 3})


def test_out_of_memory(store: Store, number: int) -> None:
    """An insert that may not have so much memory says so, and whose limit it was. Nothing is refused."""
    batch = batches.logs(number, "acme")
    one = batch.records[0]
    batches.attributes(one.resource.attributes, big="x" * 250_000)
    for n in range(12_000):
        one.log_records.add(time_unix_nano=batches.NOW + n)
    with pytest.raises(StoreOutOfMemory, match="MEMORY_LIMIT_EXCEEDED") as caught:
        store.insert(LOGS_TOPIC, [encoded(batch)], f"memory/{number}")
    assert caught.value.of_this_insert


def test_holds_many(store: Store) -> None:
    """Thousands of small messages are looked up too."""
    payload = b"".join(encoded(batches.gauge(next(_NUMBERS), 1)) for _ in range(2_500))
    missing = encoded(batches.gauge(next(_NUMBERS), 1))
    store.insert(METRICS_TOPIC, [payload], f"many/{next(_NUMBERS)}")
    assert store.holds(METRICS_TOPIC, payload)
    assert not store.holds(METRICS_TOPIC, payload + missing)


def test_refused(store: Store, number: int) -> None:
    """Bytes that can't be read are refused, at whatever byte they end, and nothing of them is kept."""
    good = encoded(batches.gauge(number, 2))
    for end in range(len(good) - 60, len(good), 7):
        with pytest.raises(StoreRefusedData):
            store.insert(METRICS_TOPIC, [good[:end]], f"refused/{number}/{end}")
    assert not store.holds(METRICS_TOPIC, good[:-1])
    assert rows(store, number) == 0
    store.insert(METRICS_TOPIC, [good], f"refused/{number}")
    assert rows(store, number) == 2


def test_refused_batch_id(store: Store, number: int) -> None:
    """A batch id that is no UUID is the data's fault."""
    batch = batches.gauge(number, 1)
    batch.records[0].batch_id = b"seventeen bytes.."
    with pytest.raises(StoreRefusedData):
        store.insert(METRICS_TOPIC, [encoded(batch)], f"batch-id/{number}")


def test_days(store: Store, number: int) -> None:
    """Items of a hundred and more days at once are stored."""
    batch = batches.gauge(number, 110)
    for day, point in enumerate(batch.records[0].metrics[0].gauge.data_points):
        point.time_unix_nano += day * 24 * 3600 * 10**9
    store.insert(METRICS_TOPIC, [encoded(batch)], f"days/{number}")
    assert rows(store, number) == 110


def test_query_format(store: Store) -> None:
    """The answer is in the format asked for, unless the statement names one itself."""
    assert store.query("SELECT 1 AS a, 'x' AS b;", "JSONEachRow") == b'{"a":1,"b":"x"}\n'
    assert store.query("SELECT 1 AS a FORMAT TSVWithNames", "JSONEachRow") == b"a\n1\n"


def test_query_error(store: Store) -> None:
    """An error carries ClickHouse's message, on one line."""
    with pytest.raises(StoreError, match=r"UNKNOWN_IDENTIFIER") as caught:
        store.query("SELECT nonsense\nFROM otel_logs", "TabSeparated")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO otel_logs (Body) VALUES ('x')",
        "DROP TABLE otel_logs",
        "ALTER TABLE otel_logs DELETE WHERE 1",
        "TRUNCATE TABLE otel_logs",
        "CREATE TABLE mine (a Int8) ENGINE = Memory",
        "SET readonly = 0",
        "SYSTEM STOP MERGES",
        "KILL QUERY WHERE 1",
        "USE system",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT 1; DROP TABLE otel_logs",
        "WITH 1 AS x INSERT INTO otel_logs (Body) SELECT 'x'",
        "SELECT 1 INTO OUTFILE 'written.txt'",
        "SELECT 1 /* INTO */ INTO -- comment\n OUTFILE 'written.txt'",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM '/etc/hostname'",
        "SELECT file('/etc/hostname')",
        "SELECT `file`('/etc/hostname')",
        "SELECT * FROM Python(rows)",
        "SELECT * FROM url('http://127.0.0.1:9/x', 'LineAsString')",
        "SELECT * FROM s3('http://127.0.0.1:9/bucket/key', 'CSV', 'a String')",
        "SELECT * FROM executable('true', 'CSV', 'a String')",
        "SELECT * FROM remote('127.0.0.1:9', system.one)",
        "SELECT * FROM sqlite('/tmp/x.db', 't')",
        "SELECT 1 WHERE 'a' IN (SELECT line FROM file('/etc/hostname', 'LineAsString'))",
        "SELECT 1 FORMAT",
        "",
    ],
)
def test_query_reads_only(store: Store, sql: str) -> None:
    """What writes, changes settings, or reaches files and the network is refused."""
    with pytest.raises(StoreError):
        store.query(sql, "TabSeparated")
    assert not Path("written.txt").exists()
    assert store.query("SELECT count() > 0 FROM otel_logs", "TabSeparated") in (b"0\n", b"1\n")


def test_view(store: Store, number: int, tenant: str) -> None:
    """The view telemetry shows every item once, under the API's own names."""
    store.insert(METRICS_TOPIC, [encoded(batches.metrics(number, tenant))], f"view/{number}/m")
    store.insert(LOGS_TOPIC, [encoded(batches.logs(number, tenant))], f"view/{number}/l")
    store.insert(TRACES_TOPIC, [encoded(batches.traces(number, tenant))], f"view/{number}/t")
    where = f"FROM telemetry WHERE tenant = '{tenant}'"
    counts = store.query(f"SELECT type, count() {where} GROUP BY type ORDER BY type", "TabSeparated")
    assert counts == b"log\t4\nmetric\t39\ntrace\t7\n"
    span = store.query(
        f"SELECT service_id, metric_name, value, body, trace_id, timestamp, attributes['http.route'] {where} "
        "AND metric_name != '' AND type = 'trace'",
        "TabSeparated",
    )
    assert span == b"payment-api\tGET /pay\t1234567\t\t" + b"ab" * 16 + b"\t2026-04-10 12:00:00.123456789\t/pay\n"
    log = store.query(f"SELECT metric_name, value, body, trace_id {where} AND metric_name = 'deploy'", "TabSeparated")
    assert log == b"deploy\t\\N\tpayment failed:\\n\\tcard declined \xe2\x98\x83\t" + b"ab" * 16 + b"\n"
    point = store.query(
        f"SELECT value, trace_id, attributes['point'] {where} AND metric_name = 'gauge.name' AND attributes['point'] = '3'",
        "TabSeparated",
    )
    assert point == b"-1e300\t" + b"ab" * 16 + b"\t3\n"
    without = store.query(f"SELECT count() {where} AND metric_name = 'gauge.name' AND value IS NULL", "TabSeparated")
    assert without == b"1\n"


# Receipts.


@pytest.mark.parametrize("topic", _TOPICS.values(), ids=_TOPICS)
def test_receipt(store: Store, number: int, tenant: str, topic: str) -> None:
    """Every field of a receipt is read back, from whichever topic; a reason that is there once for each type, added up."""
    store.insert(topic, [letters.receipt(number, letters.any_receipt([(1, 1), (7, 2**63)]), tenant)], f"receipt/{number}")
    row = store.query(
        "SELECT BatchId, BatchPart, toUnixTimestamp64Nano(ReceivedAt), Source, Route, Received, Accepted, Rejected,"
        " DeadLetters, Parts, Topic, ProcessId, Sequence, Settled, Failed"
        f" FROM telemetry_batches WHERE TenantId = '{tenant}'",
        "JSONCompactEachRow",
    )
    assert json.loads(row) == [
        str(UUID(bytes=batches.batch_id(number))),
        0,
        batches.NOW,
        "native",
        "/v1/logs",
        12,
        {"log": 5, "event": 2**40},
        {"invalid_value": 1, "missing_body": 6},
        2,
        3,
        topic,
        str(UUID(bytes=b"p" * 16)),
        2**63,
        2**64 - 1,
        [{"First": 1, "Last": 1}, {"First": 7, "Last": 2**63}],
    ]


def test_receipt_beside_items(store: Store, number: int, tenant: str) -> None:
    """The items of its message are stored as without it, and it as without them."""
    payload = encoded(batches.logs(number, tenant)) + letters.receipt(number, letters.any_receipt(), tenant)
    for _ in range(2):
        store.insert(LOGS_TOPIC, [payload], f"beside/{number}")
    assert rows(store, number, "otel_logs") == 4
    assert rows(store, number, "telemetry_batches") == 1


def test_holds_receipt(store: Store, number: int, tenant: str) -> None:
    """Items without their receipt are not all; nor is another part's receipt that of this one."""
    items, receipt = encoded(batches.logs(number, tenant)), letters.receipt(number, letters.any_receipt(), tenant)
    store.insert(LOGS_TOPIC, [items], f"items/{number}")
    assert store.holds(LOGS_TOPIC, items)
    assert not store.holds(LOGS_TOPIC, items + receipt)
    store.insert(LOGS_TOPIC, [letters.receipt(number, letters.any_receipt(), tenant, part=9)], f"other/{number}")
    assert not store.holds(LOGS_TOPIC, items + receipt)
    store.insert(LOGS_TOPIC, [receipt], f"receipt/{number}")
    assert store.holds(LOGS_TOPIC, items + receipt)


def one_log(number: int, tenant: str, part: int = 0) -> bytes:
    batch = TelemetryBatchV1()
    record = batches.record(batch, TYPE_LOG, number, part=part, tenant_id=tenant)
    record.log_records.add(time_unix_nano=batches.NOW)
    record.item_count = 1
    return encoded(batch)


def test_stored_batches(store: Store, number: int, tenant: str) -> None:
    """Those whose receipt is there, with an item, but for what came under the given part: an insert that broke off leaves a
    receipt alone."""
    other = next(_NUMBERS)
    first, second, missing = (UUID(bytes=batches.batch_id(each)) for each in (number, other, next(_NUMBERS)))
    store.insert(LOGS_TOPIC, [letters.receipt(number, letters.any_receipt(), tenant, part=5)], f"first/{number}")
    store.insert(METRICS_TOPIC, [letters.receipt(other, letters.any_receipt(), tenant)], f"second/{number}")
    asked = [first, second, missing]
    assert store.stored_batches(asked, 6) == set()
    store.insert(LOGS_TOPIC, [one_log(number, tenant)], f"another part/{number}")
    assert store.stored_batches(asked, 6) == set()
    store.insert(LOGS_TOPIC, [one_log(number, tenant, part=5)], f"first item/{number}")
    store.insert(METRICS_TOPIC, [encoded(batches.metrics(other, tenant))], f"second items/{number}")
    assert store.stored_batches(asked, 5) == {second}
    assert store.stored_batches(asked, 6) == {first, second}
    assert store.stored_batches([], 5) == set()
    assert store.stored_batches([missing] * 2500 + [first], 6) == {first}


def test_fingerprints(store: Store, number: int, tenant: str) -> None:
    """Found by tenant and fingerprint, with the time, also of a message that was left out; within the bounds only."""
    value, unknown = number.to_bytes(16, "big"), next(_NUMBERS).to_bytes(16, "big")

    def row(at: int, **more: Any) -> bytes:
        record = TelemetryRecord(
            tenant_id=tenant, batch_id=batches.batch_id(number), received_time_unix_nano=at, fingerprint=value, **more
        )
        return TelemetryBatch(records=[record]).SerializeToString()

    def copies(asked: Collection[tuple[bytes, bytes]], since: int, until: int) -> dict[tuple[bytes, bytes], list[int]]:
        return store.copies(LOGS_TOPIC, dict.fromkeys(asked, 0), (), since, until)

    times = [batches.NOW, batches.NOW + 5 * 10**9]
    receipt = letters.any_receipt()
    store.insert(
        LOGS_TOPIC, [row(times[0], receipt=receipt), row(times[1], batch_part=1, repeated_items=7)], f"prints/{number}"
    )
    pair = tenant.encode(), value
    asked = {pair, (b"another", value), (tenant.encode(), unknown)}
    assert {pair: times} == {key: sorted(found) for key, found in copies(asked, times[0], times[1]).items()}
    assert {pair: [times[0]]} == copies(asked, times[0] - 1, times[1] - 1)
    assert {} == copies(asked, times[1] + 1, 2**63 - 1)
    assert {} == copies(set(), 0, times[1])
    many = {(tenant.encode(), (n << 64).to_bytes(16, "big")) for n in range(2500)} | {pair}
    assert {pair} == copies(many, 0, times[1]).keys()
    assert store.holds(LOGS_TOPIC, row(times[1], batch_part=1, repeated_items=7))
    assert not store.holds(LOGS_TOPIC, row(times[1], batch_part=2, repeated_items=7))


def test_copies_that_are_stored(store: Store, number: int, tenant: str) -> None:
    """A message's row does not say that its items are there: an insert that broke off between the tables wrote the row alone.
    What was left out is of a message that is stored."""
    value = number.to_bytes(16, "big")
    pair = tenant.encode(), value
    message = UUID(bytes=batches.batch_id(number)), 0

    def row(**more: Any) -> bytes:
        record = TelemetryRecord(
            tenant_id=tenant, batch_id=message[0].bytes, received_time_unix_nano=batches.NOW, fingerprint=value, **more
        )
        return TelemetryBatch(records=[record]).SerializeToString()

    def found(items: int, *besides: tuple[UUID, int], since: int = 0) -> bool:
        stored = store.copies(LOGS_TOPIC, {pair: items, (b"another", value): 0}, besides, since, batches.NOW)
        assert stored.keys() <= {pair}
        return bool(stored)

    assert not found(0)
    store.insert(LOGS_TOPIC, [row()], f"copies/{number}/row")
    assert found(0)
    assert not found(2)
    store.insert(LOGS_TOPIC, [one_log(number, tenant)], f"copies/{number}/first")
    assert not found(2)
    store.insert(LOGS_TOPIC, [one_log(number, tenant)], f"copies/{number}/second")
    assert found(2)
    assert not found(2, message)
    assert not found(2, since=batches.NOW + 1)
    store.insert(LOGS_TOPIC, [row(batch_part=1, repeated_items=3)], f"copies/{number}/left out")
    assert found(3, message)
    assert not found(3, message, (message[0], 1))


# Dead letters.


def states(store: Store, tenant: str, columns: str = "State") -> list[list[Any]]:
    answer = store.query(
        f"SELECT {columns} FROM dead_letters WHERE TenantId = '{tenant}' ORDER BY ItemIndex", "JSONCompactEachRow"
    )
    return [json.loads(line) for line in answer.splitlines()]


def test_dead_letter(store: Store, number: int, tenant: str) -> None:
    """Every field of an entry is read back, the payload to the byte; it is open."""
    one = letters.letter(
        number,
        3,
        tenant,
        topic=METRICS_TOPIC,
        partition=7,
        offset=2**40,
        error="no\nbytes",
        record_index=5,
        payload=bytes(range(256)),
    )
    store.insert(DEAD_LETTERS_TOPIC, [letters.dead_letters(one)], f"letter/{number}")
    assert states(
        store,
        tenant,
        "Id, toUnixTimestamp64Nano(ReceivedAt), toUnixTimestamp64Nano(KeptAt), Source, Type, Route, Reason, Message,"
        " ServiceName, BatchId, ItemIndex, RecordIndex, ItemCount, hex(Payload), PayloadForm, PayloadSizeBytes, Topic,"
        " Partition, Offset, Error, State, IsOpen, Attempts",
    ) == [
        [
            str(UUID(bytes=one.id)),
            batches.NOW,
            one.kept_time_unix_nano,
            "native",
            "log",
            "/api/v1/telemetry",
            "missing_body",
            "body is required",
            "payment-api",
            str(UUID(bytes=batches.batch_id(number))),
            3,
            5,
            1,
            bytes(range(256)).hex().upper(),
            "native_json",
            12,
            METRICS_TOPIC,
            7,
            2**40,
            "no\nbytes",
            "open",
            1,
            0,
        ]
    ]


def test_every_payload_form_has_a_name(store: Store, number: int, tenant: str) -> None:
    forms = [letters.letter(number, form, tenant, payload_form=form) for form in PayloadForm.values()]
    store.insert(DEAD_LETTERS_TOPIC, [letters.dead_letters(*forms)], f"forms/{number}")
    names = [name.removeprefix("PAYLOAD_FORM_").lower().replace("unspecified", "none") for name, _ in PayloadForm.items()]
    assert [row for (row,) in states(store, tenant, "PayloadForm")] == names


def test_an_unreadable_message_is_an_entry_too(store: Store, number: int) -> None:
    """Its entry has no tenant, time or batch."""
    one = DeadLetter(id=letters.letter(number).id, kept_time_unix_nano=time.time_ns(), topic="t", reason=f"unreadable {number}")
    store.insert(DEAD_LETTERS_TOPIC, [letters.dead_letters(one)], f"unreadable/{number}")
    sql = f"SELECT TenantId, toYear(ReceivedAt), State FROM dead_letters WHERE Reason = 'unreadable {number}'"
    assert store.query(sql, "TSV") == b"\t1970\topen\n"


def test_a_dead_letter_kept_twice_is_one(store: Store, number: int, tenant: str) -> None:
    """The writer keeps them at least once, at another time; events, too, may be appended twice."""
    one = letters.letter(number, 0, tenant)
    again = letters.letter(number, 0, tenant, kept_time_unix_nano=one.kept_time_unix_nano - 24 * 3600 * 10**9)
    discarded = letters.event(one, DEAD_LETTER_ACTION_DISCARDED)
    payloads = [letters.dead_letters(one), letters.dead_letters(again), letters.dead_letters(discarded)]
    for copy, payload in enumerate(payloads * 2):
        store.insert(DEAD_LETTERS_TOPIC, [payload], f"twice/{number}/{copy}")
    assert states(store, tenant, "State, Attempts") == [["discarded", 1]]


def test_holds_dead_letters(store: Store, number: int, tenant: str) -> None:
    """Entries and events, each by its own id."""
    one, other = letters.letter(number, 0, tenant), letters.letter(number, 1, tenant)
    payload = letters.dead_letters(one, letters.event(one, DEAD_LETTER_ACTION_DISCARDED))
    assert store.holds(DEAD_LETTERS_TOPIC, b"")
    assert not store.holds(DEAD_LETTERS_TOPIC, payload)
    store.insert(DEAD_LETTERS_TOPIC, [letters.dead_letters(one)], f"entry/{number}")
    assert store.holds(DEAD_LETTERS_TOPIC, letters.dead_letters(one))
    assert not store.holds(DEAD_LETTERS_TOPIC, payload)
    store.insert(DEAD_LETTERS_TOPIC, [payload], f"both/{number}")
    assert store.holds(DEAD_LETTERS_TOPIC, payload)
    assert not store.holds(DEAD_LETTERS_TOPIC, payload + letters.dead_letters(other))
    assert not store.holds(DEAD_LETTERS_TOPIC, payload[:-1])


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_refused_dead_letters(store: Store, number: int, tenant: str, cut: int) -> None:
    """Bytes that can't be read are refused, and nothing of them is kept; so is an id that is none."""
    good = letters.dead_letters(letters.letter(number, 0, tenant), letters.letter(number, 1, tenant))
    for bad in (good[:-cut], good + letters.dead_letters(letters.letter(number, 2, tenant, id=b"seventeen bytes.."))):
        with pytest.raises(StoreRefusedData):
            store.insert(DEAD_LETTERS_TOPIC, [bad], f"refused/{number}/{len(bad)}")
    assert states(store, tenant) == []


_REPLAYED, _AGAIN, _DISCARDED = (
    DEAD_LETTER_ACTION_REPLAYED,
    DEAD_LETTER_ACTION_REJECTED_AGAIN,
    DEAD_LETTER_ACTION_DISCARDED,
)
_STATES: list[tuple[list[DeadLetterAction], str]] = [
    ([], "open"),
    ([_AGAIN], "rejected_again"),
    ([_AGAIN, _AGAIN], "rejected_again"),
    ([_DISCARDED], "discarded"),
    ([_AGAIN, _DISCARDED], "discarded"),
    ([_REPLAYED], "replayed"),
    ([_AGAIN, _REPLAYED], "replayed"),
    ([_DISCARDED, _REPLAYED], "replayed"),
    ([_REPLAYED, _DISCARDED], "replayed"),
    ([_REPLAYED, _AGAIN], "replayed"),
]


def test_states(store: Store, number: int, tenant: str) -> None:
    """What an entry's events make of it, in whatever order they come in; another tenant's events mean nothing."""
    what: list[DeadLetter | DeadLetterEvent] = []
    for index, (actions, _) in enumerate(_STATES):
        one = letters.letter(number, index, tenant)
        for n, action in reversed(list(enumerate(actions))):
            what.append(letters.event(one, action, n, at=n))
        what.append(one)
        what.append(letters.event(one, _DISCARDED, 99, tenant_id=f"{tenant}-other"))
    store.insert(DEAD_LETTERS_TOPIC, [letters.dead_letters(*what)], f"states/{number}")
    expected = [
        [state, int(state in ("open", "rejected_again")), len(actions), f"note {len(actions) - 1}" if actions else ""]
        for actions, state in _STATES
    ]
    assert states(store, tenant, "State, IsOpen, Attempts, LastNote") == expected


def test_the_last_event_is_shown(store: Store, number: int, tenant: str) -> None:
    """Why it was rejected again; and under which batch a replay is stored, whatever came after."""
    one, replay = letters.letter(number, 0, tenant), batches.batch_id(next(_NUMBERS))
    replayed = letters.event(one, _REPLAYED, 0, at=5, batch_id=replay)
    again = letters.event(one, _AGAIN, 1, at=9, reason="store_refused", message="no", actor="bob")
    store.insert(DEAD_LETTERS_TOPIC, [letters.dead_letters(one, again, replayed)], f"last/{number}")
    (row,) = states(store, tenant, "LastActor, LastReason, LastMessage, ReplayBatchId, LastAt > KeptAt")
    assert row == ["bob", "store_refused", "no", str(UUID(bytes=replay)), 1]


def test_ping(store: Store) -> None:
    """It answers."""
    store.ping()
