"""The findings of scheduled audits, in the store: differences that are open until they are confirmed or explained.

Invariants:
1. Nothing is deleted: a confirmation only ends the alarm (test_a_difference_stays_until_it_is_confirmed).
"""

import json
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from collector.query.reader import ROWS_FORMAT, rows_of
from collector.store.migrations import literal

OPEN: Final = "open"
CONFIRMED: Final = "confirmed"
EXPLAINED: Final = "explained"

_FINDINGS: Final = """SELECT
    toString(toUnixTimestamp64Nano(WindowStart)) AS start, toString(toUnixTimestamp64Nano(WindowEnd)) AS end,
    toUInt64(Difference) AS difference, State AS state, Actor AS actor, toString(toUnixTimestamp64Nano(At)) AS at
FROM telemetry_audit_findings FINAL"""
OPEN_FINDINGS: Final = f"{_FINDINGS} WHERE State = '{OPEN}' ORDER BY WindowStart"
_CONFIRMED_SINCE: Final = (
    f"{_FINDINGS} WHERE State = '{CONFIRMED}' AND WindowEnd > fromUnixTimestamp64Nano({{since}}) ORDER BY WindowStart"
)
ALL_FINDINGS: Final = f"{_FINDINGS} ORDER BY WindowStart DESC LIMIT 1000"


class AuditFinding(NamedTuple):
    """Requests that arrived from `start` up to but not including `end`, nanoseconds since the Unix epoch, do not add up.

    `at` is when the state changed, and `actor` who changed it; empty: an audit.
    """

    start: int
    end: int
    difference: int
    state: str = OPEN
    actor: str = ""
    at: int = 0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "AuditFinding":
        """Return the finding in a row of a statement above, or in JSON."""
        numbers = {name: int(row[name]) for name in ("start", "end", "difference", "at")}
        return cls(**numbers, state=row["state"], actor=row["actor"])


class FindingsStore(Protocol):
    """The methods of a store that findings need."""

    def read(self, sql: str, format_: str) -> bytes:
        """Answer a statement. Raises StoreError."""

    def administer(self, statement: str) -> None:
        """Run a statement. Raises StoreUnavailable, StoreMisconfigured."""


class AuditFindings:
    """Reads and writes the findings in one store. Every method blocks, and raises StoreError."""

    def __init__(self, store: FindingsStore) -> None:
        self._store: Final = store

    def open(self) -> list[AuditFinding]:
        """Return the findings that are neither confirmed nor explained, the oldest first."""
        return self._read(OPEN_FINDINGS)

    def confirmed(self, since: int) -> list[AuditFinding]:
        """Return the confirmed findings that end after `since`, nanoseconds since the Unix epoch, the oldest first."""
        return self._read(_CONFIRMED_SINCE.format(since=since))

    def all(self) -> list[AuditFinding]:
        """Return the newest thousand findings."""
        return self._read(ALL_FINDINGS)

    def put(self, finding: AuditFinding) -> None:
        """Write a finding, or its new state."""
        self._put([finding])

    def confirm_all(self, actor: str) -> list[AuditFinding]:
        """Confirm the open findings, and return them."""
        found = self.open()
        if found:
            self._put([finding._replace(state=CONFIRMED, actor=actor) for finding in found])
        return found

    def _read(self, sql: str) -> list[AuditFinding]:
        return [AuditFinding.of(row) for row in rows_of(self._store.read(sql, ROWS_FORMAT))]

    def _put(self, findings: list[AuditFinding]) -> None:
        now = time.time_ns()
        rows = ", ".join(
            f"(fromUnixTimestamp64Nano({each.start}), fromUnixTimestamp64Nano({each.end}), {each.difference},"
            f" {literal(each.state)}, {literal(each.actor)}, fromUnixTimestamp64Nano({now}))"
            for each in findings
        )
        columns = "WindowStart, WindowEnd, Difference, State, Actor, At"
        self._store.administer(f"INSERT INTO telemetry_audit_findings ({columns}) VALUES {rows}")  # noqa: S608  # our own


def documents(findings: list[AuditFinding]) -> list[dict[str, Any]]:
    """Return findings for JSON."""
    return [finding._asdict() for finding in findings]


def from_documents(text: bytes) -> list[AuditFinding]:
    """Return the findings in the JSON of `documents`."""
    return [AuditFinding.of(row) for row in json.loads(text)]
