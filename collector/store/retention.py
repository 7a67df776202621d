"""The TTL of each table: how long the store keeps rows, and when rows move to a cold volume."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from collector.broker.contract import METRICS_TOPIC
from collector.store.contract import RECEIPTS, ROLLUPS, TABLES, TRACE_TIMES
from collector.store.migrations import literal

TIME_COLUMNS: Final = {
    **dict.fromkeys(TABLES[METRICS_TOPIC], "TimeUnix"),
    "otel_logs": "Timestamp",
    "otel_traces": "Timestamp",
    TRACE_TIMES: "Start",
    RECEIPTS: "ReceivedAt",
    **dict.fromkeys(ROLLUPS, "Timestamp"),
}
"""The column by which a table's rows age, for tables that have the retention of telemetry."""

# Dead letters have a separate retention. An event must not be removed before its entry, which would then appear open again.
# Entries and events are removed by whole days, some hours late.
DEAD_LETTERS: Final = ("telemetry_dead_letters", "KeptAt")
EVENTS: Final = ("telemetry_dead_letter_events", "At")
_EVENTS_STAY_DAYS: Final = 7

# The rules that `Retention.ttl` writes for tenants with a separate retention, and for all others.
_QUOTED: Final = r"(?:[^'\\]|\\.)*"
_LIST: Final = rf"\(('{_QUOTED}'(?:, '{_QUOTED}')*)\)"
_TENANTS_RULE: Final = re.compile(rf"(?:, )?toDateTime\(\w+\) \+ toIntervalDay\((\d+)\) WHERE TenantId IN {_LIST}")
_OTHERS_CONDITION: Final = re.compile(rf" WHERE TenantId NOT IN {_LIST}")


class Retention(NamedTuple):
    """The number of days for which rows are kept; None keeps them for ever.

    If `metrics`, `logs` or `traces` is None, `days` applies to it. `tenants` has the days of single tenants, which replace all
    of these. Rows older than `cold_after_days` move to `cold_volume`."""

    days: int | None = None
    metrics: int | None = None
    logs: int | None = None
    traces: int | None = None
    dead_letters: int | None = 30
    tenants: Mapping[str, int] = {}
    cold_volume: str = ""
    cold_after_days: int | None = None

    def of_table(self, table: str) -> int | None:
        """Return the days of a telemetry table, for tenants without days of their own. Receipts are kept as long as any row
        they count."""
        metrics, logs, traces = self.of_signals()
        if table == RECEIPTS:
            return None if metrics is None or logs is None or traces is None else max(metrics, logs, traces)
        if table.startswith("otel_logs"):
            return logs
        return traces if table.startswith("otel_traces") else metrics

    def of_signals(self) -> tuple[int | None, int | None, int | None]:
        """Return the days of metrics, logs and traces, for tenants without days of their own."""
        return self.metrics or self.days, self.logs or self.days, self.traces or self.days

    def shortest(self) -> int | None:
        """Return the fewest days for which any telemetry is kept; None if all of it is kept for ever."""
        every = [*map(self.of_table, TIME_COLUMNS), *self.tenants.values()]
        return min((days for days in every if days is not None), default=None)

    def ttl(self, table: str) -> str:
        """Return the table's TTL as ClickHouse writes it; empty if the table has none."""
        return ", ".join(self._telemetry(table) if table in TIME_COLUMNS else self._dead_letters(table))

    def _dead_letters(self, table: str) -> Iterator[str]:
        if self.dead_letters is not None:
            stay = _EVENTS_STAY_DAYS if table == EVENTS[0] else 0
            yield _after(dict((DEAD_LETTERS, EVENTS))[table], self.dead_letters + stay)

    def _telemetry(self, table: str) -> Iterator[str]:
        column, days = TIME_COLUMNS[table], self.of_table(table)
        if days is not None:
            yield _after(column, days) + (f" WHERE TenantId NOT IN {_names(self.tenants)}" if self.tenants else "")
        # Tenants with the same days share one rule, since ClickHouse identifies its data about a part by a rule's days and not
        # by its condition.
        tenants = defaultdict(list)
        for tenant, of_tenant in self.tenants.items():
            tenants[of_tenant].append(tenant)
        for of_tenants, names in sorted(tenants.items()):
            yield f"{_after(column, of_tenants)} WHERE TenantId IN {_names(names)}"
        if self.cold_volume and self.cold_after_days is not None:
            yield f"{_after(column, self.cold_after_days)} TO VOLUME {literal(self.cold_volume)}"


def tenants_that_differ(one: str, other: str) -> set[str] | None:
    """Return the tenants that only one of two TTLs has, or that have other days in the other. Return None if more than tenants
    differs.

    Both TTLs are as `Retention.ttl` makes them."""
    rules, other_rules = _TENANTS_RULE.sub("", one), _TENANTS_RULE.sub("", other)
    general, other_general = (_OTHERS_CONDITION.sub("", text).strip(", ") for text in (rules, other_rules))
    # A rule with a new condition, or without its former one, is another rule, for which parts have no data.
    if general != other_general or bool(_OTHERS_CONDITION.search(rules)) != bool(_OTHERS_CONDITION.search(other_rules)):
        return None
    return {tenant for tenant, _ in _days_of_tenants(one) ^ _days_of_tenants(other)}


def _days_of_tenants(ttl: str) -> set[tuple[str, str]]:
    """Return the tenants that have a rule in a TTL, each with its days."""
    return {
        (re.sub(r"\\(.)", r"\1", name), days)
        for days, names in _TENANTS_RULE.findall(ttl)
        for name in re.findall(rf"'({_QUOTED})'", names)
    }


def _after(column: str, days: int) -> str:
    return f"toDateTime({column}) + toIntervalDay({days})"


def _names(tenants: Mapping[str, int] | list[str]) -> str:
    return f"({', '.join(map(literal, sorted(tenants)))})"
