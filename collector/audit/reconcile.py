"""The sum that must add up: what was accepted, against what the broker holds, the store holds and the dead letters hold.

The law: what one batch has too many never makes up for what another lacks: differences are found batch by batch, and added as
they are, without their signs. The engine adds up, slice by slice, however many rows there are; what comes here is sums, gaps
and the first batches at fault. What is past a retention is not judged, and that is said.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.query.reader import Value, statement
from collector.store.contract import TABLES

# Statement in, rows out. Raises StoreError, CannotRun.
Ask = Callable[[str], list[dict[str, Any]]]

TOPICS: Final = (METRICS_TOPIC, LOGS_TOPIC, TRACES_TOPIC)
MINUTE_NS: Final = 60 * 10**9
# Batches that one statement adds up: what bounds the engine's memory.
_SLICE_BATCHES_MAX: Final = 200_000
# Gaps in sequences, failures told, and batches without a receipt that are looked at one by one.
_ROWS_MAX: Final = 100_000
# Minutes that differ from the broker's that are looked at batch by batch.
_MINUTES_MAX: Final = 5

_SHORT: Final = {METRICS_TOPIC: "metrics", LOGS_TOPIC: "logs", TRACES_TOPIC: "traces"}
# Which of a receipt's types end up on which topic: of the native API a trace is a named value.
_ACCEPTED: Final = {
    METRICS_TOPIC: "Accepted['metric'] + Accepted['profile'] + Accepted['slo'] + if(Source = 'native', Accepted['trace'], 0)",
    LOGS_TOPIC: "Accepted['log'] + Accepted['event']",
    TRACES_TOPIC: "if(Source = 'native', 0, Accepted['trace'])",
}


class Window(NamedTuple):
    """From `start` up to but not including `end`, nanoseconds since the Unix epoch, by when requests arrived.

    `tenant`: its batches only; None: everyone's.
    """

    start: int
    end: int
    tenant: str | None = None


class Held(NamedTuple):
    """What the broker holds of the window, of what gateways have sent.

    `items`: by minute and topic; `receipts`: by minute. `without_receipt`: those of the batches asked about whose receipt it
    does not have. `begins`: from when on it still holds everything, nanoseconds; 0: all of it. `first`: when the first message
    that it holds of each topic was appended; nothing of a topic that is empty.
    """

    items: Mapping[tuple[int, str], int]
    receipts: Mapping[int, int]
    without_receipt: Collection[UUID]
    begins: int
    first: Mapping[str, int]


class Broker(Protocol):
    """One whose messages stay after they were stored (Kafka)."""

    def held(self, window: Window, batches: Collection[UUID]) -> Held:
        """Reads all of the window. `batches`: those whose receipts are looked for. Raises CannotRun."""

    def batches(self, window: Window) -> Mapping[UUID, Mapping[str, int]]:
        """The items of each batch in the window, by topic. Raises CannotRun."""


@dataclass
class Sum:
    """Of one topic, in items. `broker` is None where the broker keeps nothing that is stored, or can't be asked."""

    accepted: int = 0
    stored: int = 0
    dead_letters: int = 0
    duplicates: int = 0  # that the writer left out, since they were stored before
    difference: int = 0
    broker: int | None = None
    broker_difference: int = 0


class Fault(NamedTuple):
    """A batch that does not add up; or, without one, requests that are lost altogether."""

    batch_id: str
    tenant: str
    received_at: str
    what: str


@dataclass
class Report:
    """What was found. All differences are zero where `adds_up`; messages that wait to be stored are not judged yet."""

    asked: Window
    window: Window  # that could be judged
    messages_behind: int = 0
    batches: int = 0
    topics: dict[str, Sum] = field(default_factory=lambda: {topic: Sum() for topic in TOPICS})
    rejected: int = 0
    rejected_kept: int = 0  # as receipts say
    dead_letters: int = 0  # that are there
    dead_letters_difference: int = 0
    receipts_at_fault: int = 0  # missing, more than one, or not adding up in themselves
    receipts_in_broker_difference: int = 0
    lost_requests: int | None = None  # None: not judged
    log_lost_messages: int = 0  # that the local log reports as lost, and no operator has confirmed
    unacknowledged: int = 0  # batches without a receipt whose sender was never told that they are kept
    unreadable: int = 0  # dead letters that are messages which nobody can read
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    faults_total: int = 0

    @property
    def difference(self) -> int:
        """Everything that does not add up."""
        return (
            sum(each.difference + each.broker_difference for each in self.topics.values())
            + self.dead_letters_difference
            + self.receipts_at_fault
            + self.receipts_in_broker_difference
            + (self.lost_requests or 0)
            + self.log_lost_messages
        )

    @property
    def adds_up(self) -> bool:
        return self.difference == 0


def audit(ask: Ask, asked: Window, *, broker: Broker | None = None, judged_from: int = 0, faults_max: int = 20) -> Report:
    """Compare. `broker`: one that keeps what is stored. Where there is none, a batch without a receipt is one that has lost it.

    `judged_from`: what arrived before, nanoseconds, may be past its retention. Raises StoreError, CannotRun.
    """
    report = Report(asked, asked._replace(start=min(max(asked.start, judged_from), asked.end)))
    if report.window.start > asked.start:
        report.notes.append(f"before {moment(report.window.start)} rows may have been dropped by their retention: not judged")
    _judge_batches(ask, report, broker, faults_max)
    if asked.tenant is None:
        _judge_sequences(ask, report, faults_max)
    else:
        report.notes.append("requests that are lost have no tenant: only an audit of all tenants finds them")
    report.unreadable = _number(ask(_said(_UNREADABLE, report.window))[0]["letters"])
    return report


def moment(nanoseconds: int) -> str:
    """RFC 3339, to the microsecond."""
    whole, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06}Z"


# Batches.


def _judge_batches(ask: Ask, report: Report, broker: Broker | None, faults_max: int) -> None:
    orphans: list[dict[str, Any]] = []
    items: Counter[tuple[int, str]] = Counter()
    receipts: Counter[int] = Counter()
    for part in _slices(ask, report.window):
        faults = _add_up(ask, part, report)
        for row in ask(_said(_FAULTS, part)) if faults else ():
            if not _number(row["receipts"]):
                orphans.append(row)
            elif len(report.faults) < faults_max:
                report.faults.append(_fault(row))
        for row in ask(_said(_BY_MINUTE, part)) if broker is not None else ():
            minute = _number(row["minute"])
            receipts[minute] += _number(row["receipts"])
            for topic, short in _SHORT.items():
                items[minute, topic] += _items(row, short)
    unacknowledged: Collection[UUID] = ()
    if broker is not None:
        arrived = {UUID(row["BatchId"]): _number(row["At"]) for row in orphans}
        held = broker.held(report.window, arrived)
        anew = _began_anew(held, items)
        if anew > held.begins:
            held = held._replace(begins=anew)
        unacknowledged = {batch_id for batch_id in held.without_receipt if arrived[batch_id] >= held.begins}
        _judge_broker(ask, report, broker, held, items, receipts, faults_max)
    for row in orphans:
        if UUID(row["BatchId"]) in unacknowledged:
            _forgive(report, row)
        elif len(report.faults) < faults_max:
            report.faults.append(_fault(row))


def _slices(ask: Ask, window: Window) -> Iterator[Window]:
    """Cut between minutes, so that no slice has many more batches than one statement should add up."""
    start, batches = window.start, 0
    for row in ask(_said(_BATCHES, window)):
        minute, more = _number(row["minute"]) * MINUTE_NS, _number(row["batches"])
        if batches and batches + more > _SLICE_BATCHES_MAX and minute > start:
            yield window._replace(start=start, end=minute)
            start, batches = minute, 0
        batches += more
    yield window._replace(start=start)


def _add_up(ask: Ask, part: Window, report: Report) -> int:
    """Into the report; how many batches are at fault."""
    row = {name: _number(value) for name, value in ask(_said(_TOTALS, part))[0].items()}
    report.batches += row["batches"]
    for topic, short in _SHORT.items():
        total = report.topics[topic]
        total.accepted += row[f"accepted_{short}"]
        total.stored += row[f"stored_{short}"]
        total.dead_letters += row[f"refused_{short}"]
        total.duplicates += row[f"repeated_{short}"]
        total.difference += row[f"difference_{short}"]
    report.rejected += row["rejected"]
    report.rejected_kept += row["kept"]
    report.dead_letters += row["letters"]
    report.dead_letters_difference += row["difference_letters"]
    report.receipts_at_fault += row["receipts_at_fault"]
    report.faults_total += row["faults"]
    return row["faults"]


def _forgive(report: Report, row: Mapping[str, Any]) -> None:
    """A request that was kept in part when its gateway or Kafka died: nobody was told that it is kept."""
    for topic, short in _SHORT.items():
        report.topics[topic].difference -= _items(row, short)
    report.dead_letters_difference -= _number(row["letters"])
    report.receipts_at_fault -= 1
    report.faults_total -= 1
    report.unacknowledged += 1


def _items(row: Mapping[str, Any], short: str) -> int:
    """Return how many items of a signal came out of the broker, whatever became of them."""
    return sum(_number(row[f"{what}_{short}"]) for what in ("stored", "refused", "repeated"))


def _fault(row: Mapping[str, Any]) -> Fault:
    said: list[str] = []
    receipts = _number(row["receipts"])
    if receipts != 1:
        said.append(f"{receipts} receipts" if receipts else "no receipt")
    elif not _number(row["sums"]):
        said.append("its receipt does not add up")
    for short in _SHORT.values():
        accepted, stored, refused, repeated = (
            _number(row[f"{what}_{short}"]) for what in ("accepted", "stored", "refused", "repeated")
        )
        if accepted != stored + refused + repeated:
            duplicates = f", duplicates {repeated}" if repeated else ""
            said.append(f"{short}: accepted {accepted}, stored {stored}, dead letters {refused}{duplicates}")
    if _number(row["kept"]) != _number(row["letters"]):
        said.append(f"dead letters: kept {row['kept']}, there are {row['letters']}")
    return Fault(row["BatchId"], row["Tenant"], moment(_number(row["At"])), "; ".join(said))


# The broker.


def _began_anew(held: Held, items: Mapping[tuple[int, str], int]) -> int:
    """Return when the last log began that is not the one that the store was filled from, nanoseconds; 0: none. What the store
    has more of than the broker, from no later than a topic's first message, came from a log that is gone: its topic was made
    anew, Kafka was replaced, or retention has left nothing of it."""
    latest = 0
    for (minute, topic), stored in items.items():
        first = held.first.get(topic)
        if stored > held.items.get((minute, topic), 0) and (first is None or minute <= first // MINUTE_NS):
            latest = max(latest, (minute + 1) * MINUTE_NS if first is None else first)
    return latest


def _judge_broker(
    ask: Ask,
    report: Report,
    broker: Broker,
    held: Held,
    items: Mapping[tuple[int, str], int],
    receipts: Mapping[int, int],
    faults_max: int,
) -> None:
    """Minute by minute."""
    first = -(-held.begins // MINUTE_NS)
    if held.begins > report.window.start:
        report.notes.append(
            f"before {moment(first * MINUTE_NS)} the broker has lost or deleted messages, or begun anew: not compared with it"
        )
    wrong: set[int] = set()
    for topic, total in report.topics.items():
        total.broker = 0
        for minute in {minute for minute, of in (*held.items, *items) if of == topic and minute >= first}:
            here = held.items.get((minute, topic), 0)
            total.broker += here
            difference = abs(here - items.get((minute, topic), 0))
            total.broker_difference += difference
            if difference:
                wrong.add(minute)
    for minute in {*held.receipts, *receipts}:
        if minute >= first and (difference := abs(held.receipts.get(minute, 0) - receipts.get(minute, 0))):
            report.receipts_in_broker_difference += difference
            wrong.add(minute)
    for minute in sorted(wrong)[:_MINUTES_MAX]:
        start = max(minute * MINUTE_NS, report.window.start)
        part = report.window._replace(start=start, end=min((minute + 1) * MINUTE_NS, report.window.end))
        there = {UUID(row["BatchId"]) for row in ask(_said(_THERE, part))}
        for batch_id, by_topic in broker.batches(part).items():
            if batch_id not in there:
                report.faults_total += 1
                if len(report.faults) < faults_max:
                    has = ", ".join(f"{by_topic[topic]} {short}" for topic, short in _SHORT.items() if by_topic.get(topic))
                    at = moment(start)
                    report.faults.append(
                        Fault(str(batch_id), "", at, f"the broker has it ({has or 'a receipt'}), the store has nothing")
                    )


# Sequences.


def _judge_sequences(ask: Ask, report: Report, faults_max: int) -> None:
    """A number below a process's `settled` that has no receipt, and was not told as failed, is a request that was lost."""
    report.lost_requests = 0
    failed: dict[str, list[tuple[int, int]]] = {}
    for row in ask(_said(_FAILED, report.window)):
        failed.setdefault(row["ProcessId"], []).append((_number(row["First"]), _number(row["Last"])))
    gaps = ask(_said(_GAPS, report.window))
    if len(gaps) == _ROWS_MAX:
        report.notes.append(f"only the first {_ROWS_MAX} gaps in the numbers of requests were looked at")
    for row in gaps:
        first, last = _number(row["First"]), _number(row["Last"])
        for lost_first, lost_last in _without(first, last, failed.get(row["ProcessId"], ())):
            lost = lost_last - lost_first + 1
            report.lost_requests += lost
            report.faults_total += 1
            if len(report.faults) < faults_max:
                numbers = f"number {lost_first}" if lost == 1 else f"numbers {lost_first} to {lost_last}"
                what = f"{lost} acknowledged {'request has' if lost == 1 else 'requests have'} no receipt: {numbers} of process"
                report.faults.append(Fault("", "", moment(_number(row["At"])), f"{what} {row['ProcessId']}"))


def _without(first: int, last: int, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What is left of first to last without these."""
    for start, end in sorted(ranges):
        if end < first:
            continue
        if start > last:
            break
        if start > first:
            yield first, start - 1
        first = end + 1
    if first <= last:
        yield first, last


# SQL.


def _number(value: Any) -> int:
    """64 bits may come as text."""
    return int(value)


def _said(sql: str, window: Window) -> str:
    parameters: dict[str, Value] = {"start": window.start, "end": window.end, "tenant": window.tenant or ""}
    return statement(sql.replace("/*tenant*/", "" if window.tenant is None else "AND TenantId = {tenant}"), parameters)


_START: Final = "fromUnixTimestamp64Nano(toInt64({start}))"
_END: Final = "fromUnixTimestamp64Nano(toInt64({end}))"
_WINDOW: Final = f"ReceivedAt >= {_START} AND ReceivedAt < {_END} /*tenant*/"
_COLUMNS: Final = (
    "receipts", "sums", "rejected", "kept", "letters",
    *(f"{what}_{short}" for what in ("accepted", "stored", "refused", "repeated") for short in _SHORT.values()),
)  # fmt: skip


def _source(table: str, columns: Mapping[str, str], *, grouped: bool = True, condition: str = "") -> str:
    """Of one table, the columns that it can speak of. `condition`: of the rows, beside the window."""
    head = "any(TenantId) AS Tenant, any(ReceivedAt) AS At" if grouped else "TenantId AS Tenant, ReceivedAt AS At"
    told = ", ".join(f"toUInt64({columns.get(name, '0')}) AS {name}" for name in _COLUMNS)
    return f"SELECT BatchId, {head}, {told} FROM {table} WHERE {_WINDOW}{condition}" + (  # noqa: S608
        " GROUP BY BatchId" if grouped else ""
    )


def _all_sources() -> str:
    rejected = "arraySum(mapValues(Rejected))"
    receipt = {f"accepted_{short}": _ACCEPTED[topic] for topic, short in _SHORT.items()}
    sources = [
        _source(
            "telemetry_batches",
            {
                "receipts": "Received != 0",  # others are of messages without one
                "sums": f"Received > 0 AND Received = arraySum(mapValues(Accepted)) + {rejected} AND DeadLetters <= {rejected}",
                "rejected": rejected,
                "kept": "DeadLetters",
                **receipt,
                **{f"repeated_{short}": f"if(Topic = '{topic}', RepeatedItems, 0)" for topic, short in _SHORT.items()},
            },
            grouped=False,
        ),
        *(_source(table, {f"stored_{_SHORT[topic]}": "count()"}) for topic, tables in TABLES.items() for table in tables),
        _source(
            "telemetry_dead_letters FINAL",
            {
                "letters": "countIf(Topic = '')",
                **{f"refused_{short}": f"sumIf(ItemCount, Topic = '{topic}')" for topic, short in _SHORT.items()},
            },
            # A request that was refused as a whole has no receipt, for it has no items.
            condition=" AND PayloadForm != 'request'",
        ),
    ]
    return " UNION ALL ".join(sources)


def _per_batch() -> str:
    # A receipt that stands twice says nothing new; a row that stands twice is one too many.
    told = ("sums", "rejected", "kept", *(f"accepted_{short}" for short in _SHORT.values()))
    summed = ", ".join(f"{'max' if name in told else 'sum'}(each.{name}) AS {name}" for name in _COLUMNS)
    differences = ", ".join(
        f"abs(toInt64(accepted_{short}) - toInt64(stored_{short}) - toInt64(refused_{short})"
        f" - toInt64(repeated_{short})) AS difference_{short}"
        for short in _SHORT.values()
    )
    wrong = " + ".join(f"difference_{short}" for short in _SHORT.values())
    return (
        f"SELECT BatchId, any(each.Tenant) AS Tenant, any(each.At) AS ReceivedAt, {summed}, {differences},"  # noqa: S608
        " abs(toInt64(kept) - toInt64(letters)) AS difference_letters, receipts != 1 OR sums = 0 AS receipt_at_fault,"
        f" ({wrong} + difference_letters + receipt_at_fault) != 0 AS at_fault"
        f" FROM ({_all_sources()}) AS each GROUP BY BatchId"
    )


_PER_BATCH: Final = _per_batch()
_SUMMED: Final = (
    "rejected", "kept", "letters", "difference_letters",
    *(f"{what}_{short}" for what in ("accepted", "stored", "refused", "repeated", "difference") for short in _SHORT.values()),
)  # fmt: skip
_BATCHES: Final = (
    "SELECT intDiv(toUnixTimestamp64Nano(ReceivedAt), 60000000000) AS minute, count() AS batches"  # noqa: S608 - our own names
    f" FROM telemetry_batches WHERE {_WINDOW} GROUP BY minute ORDER BY minute"
)
_TOTALS: Final = (
    "SELECT count() AS batches, sum(at_fault) AS faults, sum(receipt_at_fault) AS receipts_at_fault, "  # noqa: S608 - likewise
    + ", ".join(f"sum(batch.{name}) AS {name}" for name in _SUMMED)
    + f" FROM ({_PER_BATCH}) AS batch"
)
_FAULTS: Final = (
    f"SELECT *, toUnixTimestamp64Nano(ReceivedAt) AS At FROM ({_PER_BATCH}) WHERE at_fault"  # noqa: S608 - likewise
    f" ORDER BY ReceivedAt, BatchId LIMIT {_ROWS_MAX}"
)
# Replays, whose ids are of version 8, come by the topic of dead letters.
_BY_MINUTE: Final = (
    "SELECT intDiv(toUnixTimestamp64Nano(batch.ReceivedAt), 60000000000) AS minute, sum(batch.receipts) AS receipts, "  # noqa: S608
    + ", ".join(
        f"sum(batch.{what}_{short}) AS {what}_{short}"
        for what in ("stored", "refused", "repeated")
        for short in _SHORT.values()
    )
    + f" FROM ({_PER_BATCH}) AS batch WHERE substring(toString(BatchId), 15, 1) != '8' GROUP BY minute"
)
_THERE: Final = f"SELECT BatchId FROM ({_PER_BATCH})"  # noqa: S608 - likewise
# By when it was found: of when it had arrived nothing is known.
_UNREADABLE: Final = (
    "SELECT uniqExact(Id) AS letters FROM telemetry_dead_letters WHERE PayloadForm = 'unreadable'"  # noqa: S608 - likewise
    f" AND {_WINDOW.replace('ReceivedAt', 'KeptAt')}"
)
# Which numbers are judged: from what was settled before the window, to what was settled in it. So of windows that follow one
# another each number is judged in one.
_PROCESSES: Final = (
    f"SELECT ProcessId, greatest(toUInt64(1), maxIf(Settled, ReceivedAt < {_START})) AS Lowest,"  # noqa: S608 - likewise
    f" maxIf(Settled, ReceivedAt < {_END}) AS Highest FROM telemetry_batches WHERE ProcessId IN"
    f" (SELECT DISTINCT ProcessId FROM telemetry_batches WHERE {_WINDOW} AND Sequence != 0) GROUP BY ProcessId"
)
_GAPS: Final = (
    "SELECT toString(ProcessId) AS ProcessId, Previous + 1 AS First, least(Sequence, Highest) - 1 AS Last,"  # noqa: S608 - likewise
    " toUnixTimestamp64Nano(ReceivedAt) AS At FROM"
    " (SELECT ProcessId, Sequence, Highest, ReceivedAt, lagInFrame(Sequence, 1, toUInt64(Lowest - 1)) OVER"
    " (PARTITION BY ProcessId ORDER BY Sequence ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS Previous"
    f" FROM telemetry_batches AS batches INNER JOIN ({_PROCESSES}) AS processes ON batches.ProcessId = processes.ProcessId"
    " WHERE Sequence >= Lowest) WHERE Sequence > Previous + 1 AND Previous + 1 < Highest"
    f" ORDER BY ProcessId, First LIMIT {_ROWS_MAX}"
)
_FAILED: Final = (
    "SELECT DISTINCT toString(ProcessId) AS ProcessId, range.1 AS First, range.2 AS Last FROM telemetry_batches"  # noqa: S608
    f" ARRAY JOIN Failed AS range WHERE ProcessId IN (SELECT ProcessId FROM ({_PROCESSES})) LIMIT {10 * _ROWS_MAX}"
)
