"""The statements with which an audit asks the store."""

from collections.abc import Mapping
from typing import Final

from collector.audit.report import NAMES, Window
from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC
from collector.query.reader import Value, statement
from collector.store.contract import TABLES

# Gaps in sequences, failures reported, and batches without a receipt that are looked at one by one.
ROWS_MAX: Final = 100_000
# Which of a receipt's types end up on which topic: of the native API a trace is a named value.
ACCEPTED_COLUMNS: Final = {
    METRICS_TOPIC: "Accepted['metric'] + Accepted['profile'] + Accepted['slo'] + if(Source = 'native', Accepted['trace'], 0)",
    LOGS_TOPIC: "Accepted['log'] + Accepted['event']",
    TRACES_TOPIC: "if(Source = 'native', 0, Accepted['trace'])",
}


def for_window(sql: str, window: Window) -> str:
    """Return a statement of this module with the values of a window in it."""
    parameters: dict[str, Value] = {"start": window.start, "end": window.end, "tenant": window.tenant or ""}
    return statement(sql.replace("/*tenant*/", "" if window.tenant is None else "AND TenantId = {tenant}"), parameters)


_START: Final = "fromUnixTimestamp64Nano(toInt64({start}))"
_END: Final = "fromUnixTimestamp64Nano(toInt64({end}))"
_WINDOW: Final = f"ReceivedAt >= {_START} AND ReceivedAt < {_END} /*tenant*/"
_COLUMNS: Final = (
    "receipts", "sums", "rejected", "kept", "letters",
    *(f"{what}_{short}" for what in ("accepted", "stored", "refused", "repeated") for short in NAMES.values()),
)  # fmt: skip


def _source(table: str, columns: Mapping[str, str], *, grouped: bool = True, condition: str = "") -> str:
    """Of one table, the columns that it can speak of. `condition`: of the rows, beside the window."""
    head = "any(TenantId) AS Tenant, any(ReceivedAt) AS At" if grouped else "TenantId AS Tenant, ReceivedAt AS At"
    values = ", ".join(f"toUInt64({columns.get(name, '0')}) AS {name}" for name in _COLUMNS)
    return f"SELECT BatchId, {head}, {values} FROM {table} WHERE {_WINDOW}{condition}" + (  # noqa: S608
        " GROUP BY BatchId" if grouped else ""
    )


def _all_sources() -> str:
    rejected = "arraySum(mapValues(Rejected))"
    receipt = {f"accepted_{short}": ACCEPTED_COLUMNS[topic] for topic, short in NAMES.items()}
    sources = [
        _source(
            "telemetry_batches",
            {
                "receipts": "Received != 0",  # others are of messages without one
                "sums": f"Received > 0 AND Received = arraySum(mapValues(Accepted)) + {rejected} AND DeadLetters <= {rejected}",
                "rejected": rejected,
                "kept": "DeadLetters",
                **receipt,
                **{f"repeated_{short}": f"if(Topic = '{topic}', RepeatedItems, 0)" for topic, short in NAMES.items()},
            },
            grouped=False,
        ),
        *(_source(table, {f"stored_{NAMES[topic]}": "count()"}) for topic, tables in TABLES.items() for table in tables),
        _source(
            "telemetry_dead_letters FINAL",
            {
                "letters": "countIf(Topic = '')",
                **{f"refused_{short}": f"sumIf(ItemCount, Topic = '{topic}')" for topic, short in NAMES.items()},
            },
            # A request that was refused as a whole has no receipt, for it has no items.
            condition=" AND PayloadForm != 'request'",
        ),
    ]
    return " UNION ALL ".join(sources)


def _per_batch() -> str:
    # A receipt that is there twice says nothing new; a row that is there twice is one too many.
    of_receipt = ("sums", "rejected", "kept", *(f"accepted_{short}" for short in NAMES.values()))
    summed = ", ".join(f"{'max' if name in of_receipt else 'sum'}(each.{name}) AS {name}" for name in _COLUMNS)
    differences = ", ".join(
        f"abs(toInt64(accepted_{short}) - toInt64(stored_{short}) - toInt64(refused_{short})"
        f" - toInt64(repeated_{short})) AS difference_{short}"
        for short in NAMES.values()
    )
    wrong = " + ".join(f"difference_{short}" for short in NAMES.values())
    return (
        f"SELECT BatchId, any(each.Tenant) AS Tenant, any(each.At) AS ReceivedAt, {summed}, {differences},"  # noqa: S608
        " abs(toInt64(kept) - toInt64(letters)) AS difference_letters, receipts != 1 OR sums = 0 AS receipt_at_fault,"
        f" ({wrong} + difference_letters + receipt_at_fault) != 0 AS at_fault"
        f" FROM ({_all_sources()}) AS each GROUP BY BatchId"
    )


_PER_BATCH: Final = _per_batch()
_SUMMED: Final = (
    "rejected", "kept", "letters", "difference_letters",
    *(f"{what}_{short}" for what in ("accepted", "stored", "refused", "repeated", "difference") for short in NAMES.values()),
)  # fmt: skip
BATCHES: Final = (
    "SELECT intDiv(toUnixTimestamp64Nano(ReceivedAt), 60000000000) AS minute, count() AS batches"  # noqa: S608 - our own names
    f" FROM telemetry_batches WHERE {_WINDOW} GROUP BY minute ORDER BY minute"
)
TOTALS: Final = (
    "SELECT count() AS batches, sum(at_fault) AS faults, sum(receipt_at_fault) AS receipts_at_fault, "  # noqa: S608 - our own names
    + ", ".join(f"sum(batch.{name}) AS {name}" for name in _SUMMED)
    + f" FROM ({_PER_BATCH}) AS batch"
)
FAULTS: Final = (
    f"SELECT *, toUnixTimestamp64Nano(ReceivedAt) AS At FROM ({_PER_BATCH}) WHERE at_fault"  # noqa: S608 - our own names
    f" ORDER BY ReceivedAt, BatchId LIMIT {ROWS_MAX}"
)
# Replays, whose ids are of version 8, come by the topic of dead letters.
BY_MINUTE: Final = (
    "SELECT intDiv(toUnixTimestamp64Nano(batch.ReceivedAt), 60000000000) AS minute, sum(batch.receipts) AS receipts, "  # noqa: S608
    + ", ".join(
        f"sum(batch.{what}_{short}) AS {what}_{short}" for what in ("stored", "refused", "repeated") for short in NAMES.values()
    )
    + f" FROM ({_PER_BATCH}) AS batch WHERE substring(toString(BatchId), 15, 1) != '8' GROUP BY minute"
)
THERE: Final = f"SELECT BatchId FROM ({_PER_BATCH})"  # noqa: S608 - our own names
# By when it was found: when it arrived is not known.
UNREADABLE: Final = (
    "SELECT uniqExact(Id) AS letters FROM telemetry_dead_letters WHERE PayloadForm = 'unreadable'"  # noqa: S608 - our own names
    f" AND {_WINDOW.replace('ReceivedAt', 'KeptAt')}"
)
# Which numbers are judged: from what was settled before the window, to what was settled in it. So of windows that follow one
# another each number is judged in one.
PROCESSES: Final = (
    f"SELECT ProcessId, greatest(toUInt64(1), maxIf(Settled, ReceivedAt < {_START})) AS Lowest,"  # noqa: S608 - our own names
    f" maxIf(Settled, ReceivedAt < {_END}) AS Highest FROM telemetry_batches WHERE ProcessId IN"
    f" (SELECT DISTINCT ProcessId FROM telemetry_batches WHERE {_WINDOW} AND Sequence != 0) GROUP BY ProcessId"
)
GAPS: Final = (
    "SELECT toString(ProcessId) AS ProcessId, Previous + 1 AS First, least(Sequence, Highest) - 1 AS Last,"  # noqa: S608 - our own names
    " toUnixTimestamp64Nano(ReceivedAt) AS At FROM"
    " (SELECT ProcessId, Sequence, Highest, ReceivedAt, lagInFrame(Sequence, 1, toUInt64(Lowest - 1)) OVER"
    " (PARTITION BY ProcessId ORDER BY Sequence ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS Previous"
    f" FROM telemetry_batches AS batches INNER JOIN ({PROCESSES}) AS processes ON batches.ProcessId = processes.ProcessId"
    " WHERE Sequence >= Lowest) WHERE Sequence > Previous + 1 AND Previous + 1 < Highest"
    f" ORDER BY ProcessId, First LIMIT {ROWS_MAX}"
)
FAILED: Final = (
    "SELECT DISTINCT toString(ProcessId) AS ProcessId, range.1 AS First, range.2 AS Last FROM telemetry_batches"  # noqa: S608
    f" ARRAY JOIN Failed AS range WHERE ProcessId IN (SELECT ProcessId FROM ({PROCESSES})) LIMIT {10 * ROWS_MAX}"
)
