"""Reconcile accepted items with those in the broker, the store and the dead letters.

The engine adds up, slice by slice, however many rows there are (test_slices_change_nothing). Only sums, gaps and the first
batches at fault come here. Data past a retention is not judged, and the report says so.

Invariants:
1. A surplus in one batch never cancels a deficit in another: differences are found batch by batch, and added without their
   signs (test_too_many_here_does_not_make_up_for_too_few_there).
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol
from uuid import UUID

from collector.audit.report import MINUTE_NS, NAMES, BrokerSums, Fault, Report, Window, moment, whole_number
from collector.audit.statements import BATCHES, BY_MINUTE, FAILED, FAULTS, GAPS, ROWS_MAX, THERE, TOTALS, UNREADABLE, for_window

# Statement in, rows out. Raises StoreError, CannotRun.
Ask = Callable[[str], list[dict[str, Any]]]
# Batches that one statement adds up, which bounds the engine's memory.
_SLICE_BATCHES_MAX: Final = 200_000
# How many of the minutes that differ from the broker's are looked at batch by batch.
_MINUTES_MAX: Final = 5


class AuditedBroker(Protocol):
    """A broker whose messages stay after they were stored (Kafka)."""

    def tally(self, window: Window, batches: Collection[UUID]) -> BrokerSums:
        """Read all of the window, and return its sums. `batches` are those whose receipts are looked for. Raises CannotRun."""

    def batches(self, window: Window) -> Mapping[UUID, Mapping[str, int]]:
        """Return the number of items of each batch in the window, by topic. Raises CannotRun."""


def audit(
    ask: Ask, asked: Window, *, broker: AuditedBroker | None = None, judged_from: int = 0, faults_max: int = 20
) -> Report:
    """Compare, and return the report. `broker` is one that keeps stored messages. Without it, a batch without a receipt counts
    as one that has lost its receipt.

    Items that arrived before `judged_from` (nanoseconds) may be past their retention. Raises StoreError, CannotRun.
    """
    report = Report(asked, asked._replace(start=min(max(asked.start, judged_from), asked.end)))
    if report.window.start > asked.start:
        report.notes.append(f"before {moment(report.window.start)} rows may have been dropped by their retention: not judged")
    _judge_batches(ask, report, broker, faults_max)
    if asked.tenant is None:
        _judge_sequences(ask, report, faults_max)
    else:
        report.notes.append("requests that are lost have no tenant: only an audit of all tenants finds them")
    report.unreadable = whole_number(ask(for_window(UNREADABLE, report.window))[0]["letters"])
    return report


# Batches.


def _judge_batches(ask: Ask, report: Report, broker: AuditedBroker | None, faults_max: int) -> None:
    orphans: list[dict[str, Any]] = []
    items: Counter[tuple[int, str]] = Counter()
    receipts: Counter[int] = Counter()
    for part in _slices(ask, report.window):
        faults = _add_up(ask, part, report)
        for row in ask(for_window(FAULTS, part)) if faults else ():
            if not whole_number(row["receipts"]):
                orphans.append(row)
            elif len(report.faults) < faults_max:
                report.faults.append(_fault(row))
        for row in ask(for_window(BY_MINUTE, part)) if broker is not None else ():
            minute = whole_number(row["minute"])
            receipts[minute] += whole_number(row["receipts"])
            for topic, short in NAMES.items():
                items[minute, topic] += _items(row, short)
    unacknowledged: Collection[UUID] = ()
    if broker is not None:
        arrived = {UUID(row["BatchId"]): whole_number(row["At"]) for row in orphans}
        broker_sums = broker.tally(report.window, arrived)
        replaced_at = _log_replaced_at(broker_sums, items)
        if replaced_at > broker_sums.begins:
            broker_sums = broker_sums._replace(begins=replaced_at)
        unacknowledged = {batch_id for batch_id in broker_sums.without_receipt if arrived[batch_id] >= broker_sums.begins}
        _judge_broker(ask, report, broker, broker_sums, items, receipts, faults_max)
    for row in orphans:
        if UUID(row["BatchId"]) in unacknowledged:
            _count_unacknowledged(report, row)
        elif len(report.faults) < faults_max:
            report.faults.append(_fault(row))


def _slices(ask: Ask, window: Window) -> Iterator[Window]:
    """Yield slices of the window, cut between minutes, each with about as many batches as one statement should add up."""
    start, batches = window.start, 0
    for row in ask(for_window(BATCHES, window)):
        minute, more = whole_number(row["minute"]) * MINUTE_NS, whole_number(row["batches"])
        if batches and batches + more > _SLICE_BATCHES_MAX and minute > start:
            yield window._replace(start=start, end=minute)
            start, batches = minute, 0
        batches += more
    yield window._replace(start=start)


def _add_up(ask: Ask, part: Window, report: Report) -> int:
    """Add a slice's sums to the report. Return how many of its batches are at fault."""
    row = {name: whole_number(value) for name, value in ask(for_window(TOTALS, part))[0].items()}
    report.batches += row["batches"]
    for topic, short in NAMES.items():
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


def _count_unacknowledged(report: Report, row: Mapping[str, Any]) -> None:
    """Forgive a request that was kept in part when its gateway or Kafka died: it was never acknowledged."""
    for topic, short in NAMES.items():
        report.topics[topic].difference -= _items(row, short)
    report.dead_letters_difference -= whole_number(row["letters"])
    report.receipts_at_fault -= 1
    report.faults_total -= 1
    report.unacknowledged += 1


def _items(row: Mapping[str, Any], short: str) -> int:
    """Return how many items of a signal were read from the broker: stored, refused and repeated ones."""
    return sum(whole_number(row[f"{what}_{short}"]) for what in ("stored", "refused", "repeated"))


def _fault(row: Mapping[str, Any]) -> Fault:
    problems: list[str] = []
    receipts = whole_number(row["receipts"])
    if receipts != 1:
        problems.append(f"{receipts} receipts" if receipts else "no receipt")
    elif not whole_number(row["sums"]):
        problems.append("its receipt does not add up")
    for short in NAMES.values():
        accepted, stored, refused, repeated = (
            whole_number(row[f"{what}_{short}"]) for what in ("accepted", "stored", "refused", "repeated")
        )
        if accepted != stored + refused + repeated:
            duplicates = f", duplicates {repeated}" if repeated else ""
            problems.append(f"{short}: accepted {accepted}, stored {stored}, dead letters {refused}{duplicates}")
    if whole_number(row["kept"]) != whole_number(row["letters"]):
        problems.append(f"dead letters: kept {row['kept']}, there are {row['letters']}")
    return Fault(row["BatchId"], row["Tenant"], moment(whole_number(row["At"])), "; ".join(problems))


# The broker.


def _log_replaced_at(broker_sums: BrokerSums, items: Mapping[tuple[int, str], int]) -> int:
    """Return when the last log began that is not the log from which the store was filled, nanoseconds; 0: none. If the store
    has more items than the broker, no later than a topic's first message, they came from a log that is gone: its topic was
    recreated, Kafka was replaced, or retention has deleted all of it."""
    latest = 0
    for (minute, topic), stored in items.items():
        first = broker_sums.first.get(topic)
        if stored > broker_sums.items.get((minute, topic), 0) and (first is None or minute <= first // MINUTE_NS):
            latest = max(latest, (minute + 1) * MINUTE_NS if first is None else first)
    return latest


def _judge_broker(
    ask: Ask,
    report: Report,
    broker: AuditedBroker,
    broker_sums: BrokerSums,
    items: Mapping[tuple[int, str], int],
    receipts: Mapping[int, int],
    faults_max: int,
) -> None:
    """Minute by minute."""
    first = -(-broker_sums.begins // MINUTE_NS)
    if broker_sums.begins > report.window.start:
        report.notes.append(
            f"before {moment(first * MINUTE_NS)} the broker has lost or deleted messages, or its log was replaced: that time is"
            " not compared with it"
        )
    wrong: set[int] = set()
    for topic, total in report.topics.items():
        total.broker = 0
        for minute in {minute for minute, of in (*broker_sums.items, *items) if of == topic and minute >= first}:
            here = broker_sums.items.get((minute, topic), 0)
            total.broker += here
            difference = abs(here - items.get((minute, topic), 0))
            total.broker_difference += difference
            if difference:
                wrong.add(minute)
    for minute in {*broker_sums.receipts, *receipts}:
        if minute >= first and (difference := abs(broker_sums.receipts.get(minute, 0) - receipts.get(minute, 0))):
            report.receipts_in_broker_difference += difference
            wrong.add(minute)
    for minute in sorted(wrong)[:_MINUTES_MAX]:
        start = max(minute * MINUTE_NS, report.window.start)
        part = report.window._replace(start=start, end=min((minute + 1) * MINUTE_NS, report.window.end))
        there = {UUID(row["BatchId"]) for row in ask(for_window(THERE, part))}
        for batch_id, by_topic in broker.batches(part).items():
            if batch_id not in there:
                report.faults_total += 1
                if len(report.faults) < faults_max:
                    has = ", ".join(f"{by_topic[topic]} {short}" for topic, short in NAMES.items() if by_topic.get(topic))
                    at = moment(start)
                    report.faults.append(
                        Fault(str(batch_id), "", at, f"the broker has it ({has or 'a receipt'}), the store has nothing")
                    )


# Sequences.


def _judge_sequences(ask: Ask, report: Report, faults_max: int) -> None:
    """Find numbers below a process's `settled` without a receipt that were not reported as failed: lost requests."""
    report.lost_requests = 0
    failed: dict[str, list[tuple[int, int]]] = {}
    for row in ask(for_window(FAILED, report.window)):
        failed.setdefault(row["ProcessId"], []).append((whole_number(row["First"]), whole_number(row["Last"])))
    gaps = ask(for_window(GAPS, report.window))
    if len(gaps) == ROWS_MAX:
        report.notes.append(f"only the first {ROWS_MAX} gaps in the numbers of requests were looked at")
    for row in gaps:
        first, last = whole_number(row["First"]), whole_number(row["Last"])
        for lost_first, lost_last in _without(first, last, failed.get(row["ProcessId"], ())):
            lost = lost_last - lost_first + 1
            report.lost_requests += lost
            report.faults_total += 1
            if len(report.faults) < faults_max:
                numbers = f"number {lost_first}" if lost == 1 else f"numbers {lost_first} to {lost_last}"
                what = f"{lost} acknowledged {'request has' if lost == 1 else 'requests have'} no receipt: {numbers} of process"
                report.faults.append(Fault("", "", moment(whole_number(row["At"])), f"{what} {row['ProcessId']}"))


def _without(first: int, last: int, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the parts of first to last without these numbers."""
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
