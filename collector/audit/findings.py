"""What scheduled audits found that does not add up, in the store until it is confirmed or explained, and after.

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

    `at`, `actor`: when its state changed, and who changed it; empty: an audit.
    """

    start: int
    end: int
    difference: int
    state: str = OPEN
    actor: str = ""
    at: int = 0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "AuditFinding":
        """From a row of a statement above, or from JSON."""
        numbers = {name: int(row[name]) for name in ("start", "end", "difference", "at")}
        return cls(**numbers, state=row["state"], actor=row["actor"])


class FindingsStore(Protocol):
    """What of a store is used."""

    def read(self, sql: str, format_: str) -> bytes:
        """Raises StoreError."""

    def administer(self, statement: str) -> None:
        """Raises StoreUnavailable, StoreMisconfigured."""


class AuditFindings:
    """Those in one store. Every method blocks, and raises StoreError."""

    def __init__(self, store: FindingsStore) -> None:
        self._store: Final = store

    def open(self) -> list[AuditFinding]:
        """Return those that are neither confirmed nor explained, the oldest first."""
        return self._read(OPEN_FINDINGS)

    def confirmed(self, since: int) -> list[AuditFinding]:
        """Return those that are confirmed and end after `since`, nanoseconds since the Unix epoch, the oldest first."""
        return self._read(_CONFIRMED_SINCE.format(since=since))

    def all(self) -> list[AuditFinding]:
        """Return the newest thousand."""
        return self._read(ALL_FINDINGS)

    def put(self, finding: AuditFinding) -> None:
        """Keep a finding as it is from now on."""
        self._put([finding])

    def confirm_all(self, actor: str) -> list[AuditFinding]:
        """Confirm those that are open, and return them."""
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
    """Return them for JSON."""
    return [finding._asdict() for finding in findings]


def from_documents(text: bytes) -> list[AuditFinding]:
    """Read what `documents` gives."""
    return [AuditFinding.of(row) for row in json.loads(text)]
