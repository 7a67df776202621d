"""Reports of damage and losses, in folders `damaged-TIME` next to the log's directory. An operator confirms them; they stay.

A folder has `report.jsonl`, one line for each range of messages, and the damaged data itself: files as they were found, rows
that could not be read. Nothing is ever deleted from it. `confirmed.json` records that an operator has seen it; it is a file, so
that it can be written whether the collector runs or not.

Invariants:
1. A loss is in a synced report before the log goes on after it (test_a_loss_is_reported_before_the_log_goes_on).
2. The same messages of a log are reported once, however often and in whichever ranges they are found
   (test_damage_in_doubt_is_reported_once, test_what_is_reported_is_not_reported_again_in_parts).
3. Messages of a missing log that was put back no longer count as lost (test_another_log_in_its_place_is_a_log_of_its_own,
   test_what_is_found_again_ends_its_alarm).
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from collector.broker.local_log.witness import sync_directory

_PREFIX: Final = "damaged-"
_REPORT: Final = "report.jsonl"
_CONFIRMED: Final = "confirmed.json"


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Acknowledged messages of a topic that can't be read: offsets from `start` up to but not including `end`. If `topic` is
    empty, it is not known which messages are lost."""

    topic: str
    start: int
    end: int
    reason: str
    log: str = ""
    """The identity of the log; empty: the log that was there then."""
    requests: Sequence[Mapping[str, Any]] = ()
    """The receipts of the damaged messages, if they are readable, and of their neighbours."""

    @property
    def messages(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Incident:
    """The content of one folder."""

    folder: Path
    damages: Sequence[Damage]
    is_confirmed: bool

    @property
    def messages(self) -> int:
        return sum(damage.messages for damage in self.damages)


@dataclass
class Incidents:
    """Writes the reports of one data directory. It makes a folder at the first damage after a start or a confirmation."""

    directory: Path
    now: Callable[[], float] = time.time
    _folder: Path | None = field(default=None, init=False)
    _reported: list[Damage] = field(default_factory=list, init=False)

    def folder(self) -> Path:
        """Return the folder for damaged data. Raises OSError."""
        if self._folder is None or (self._folder / _CONFIRMED).exists():
            name = _PREFIX + datetime.fromtimestamp(self.now(), UTC).strftime("%Y%m%dT%H%M%SZ")
            names = (name if number == 1 else f"{name}-{number}" for number in range(1, 1_000_000))
            folder = next(path for path in (self.directory / name for name in names) if not path.exists())
            folder.mkdir(mode=0o700)
            sync_directory(self.directory)
            self._folder = folder
        return self._folder

    def report(self, damages: Sequence[Damage]) -> list[Damage]:
        """Write, durably, the damages that are in no unconfirmed folder yet, and return them. Raises OSError."""
        known = [damage for incident in self.unconfirmed() for damage in incident.damages] + self._reported
        new = [replace(damage, start=start, end=end) for damage in damages for start, end in _uncovered(damage, known)]
        if new:
            lines = "".join(json.dumps({"found_at": self.now(), **asdict(damage)}) + "\n" for damage in new)
            _write(self.folder() / _REPORT, lines.encode(), os.O_APPEND)
            self._reported += new
        return new

    def report_unknown(self, reason: str) -> None:
        """Write, durably, that messages may be lost, and that it is not known which. Raises OSError."""
        damage = {"found_at": self.now(), **asdict(Damage(topic="", start=0, end=0, reason=reason))}
        _write(self.folder() / _REPORT, json.dumps(damage).encode() + b"\n", os.O_APPEND)

    def found_again(self, is_there: Callable[[Damage], Sequence[tuple[int, int]]]) -> int:
        """Note, durably, which reported messages exist again, and return how many. `is_there` returns their offsets for a
        report. Raises OSError."""
        found = 0
        for incident in self.unconfirmed():
            for damage in incident.damages:
                for start, end in is_there(damage):
                    note = {"found_again_at": self.now(), "topic": damage.topic, "log": damage.log, "start": start, "end": end}
                    _write(incident.folder / _REPORT, json.dumps(note).encode() + b"\n", os.O_APPEND)
                    found += end - start
        return found

    def keep(self, name: str, content: bytes) -> None:
        """Keep damaged data in the folder. Raises OSError."""
        _write(self.folder() / name, content, os.O_TRUNC)

    def take(self, file: Path) -> None:
        """Move a damaged file to the folder. Raises OSError."""
        folder = self.folder()
        shutil.move(file, _free_name(folder, file.name))
        sync_directory(folder)
        sync_directory(file.parent)

    def unconfirmed(self) -> list[Incident]:
        return [incident for incident in read_incidents(self.directory) if not incident.is_confirmed]


def read_incidents(directory: Path) -> list[Incident]:
    """Return the incidents of all folders, by name. An incident whose messages all exist again counts as confirmed."""
    incidents: list[Incident] = []
    for folder in sorted(directory.glob(f"{_PREFIX}*")):
        if folder.is_dir():
            damages, found = _read(folder / _REPORT)
            is_confirmed = (folder / _CONFIRMED).exists() or (found > 0 and not damages)
            incidents.append(Incident(folder=folder, damages=damages, is_confirmed=is_confirmed))
    return incidents


def confirm(incidents: Sequence[Incident]) -> None:
    """Record that an operator has seen the incidents. Raises OSError."""
    for incident in incidents:
        _write(incident.folder / _CONFIRMED, json.dumps({"confirmed_at": time.time()}).encode() + b"\n", os.O_TRUNC)


def _uncovered(damage: Damage, known: Sequence[Damage]) -> Iterator[tuple[int, int]]:
    """Yield the parts of the range that no other range covers."""
    start = damage.start
    same = (it for it in known if it.topic == damage.topic and (it.log == damage.log or not it.log or not damage.log))
    for other in sorted(same, key=lambda it: it.start):
        if other.start >= damage.end:
            break
        if other.start > start:
            yield start, other.start
        start = max(start, other.end)
    if start < damage.end:
        yield start, damage.end


def _read(report: Path) -> tuple[list[Damage], int]:
    """Return the damages that were not found again, and how many notes say that some were."""
    damages: list[Damage] = []
    found = 0
    is_damaged = False
    for line in report.read_text(errors="replace").splitlines(keepends=True) if report.exists() else ():
        try:
            entry = json.loads(line)
            if "found_again_at" in entry:
                del entry["found_again_at"]
                again = Damage(reason="", **entry)
                damages = [replace(it, start=start, end=end) for it in damages for start, end in _left_of(it, again)]
                found += 1
            else:
                del entry["found_at"]
                damages.append(Damage(**entry))
        except (ValueError, TypeError, KeyError):
            # A power cut ended the write of a line without a line feed: the log had not gone on, and finds the damage again.
            is_damaged = is_damaged or line.endswith("\n")
    if is_damaged:
        damages.append(Damage(topic="", start=0, end=0, reason="a part of this report is damaged: its content is not known"))
    return damages, found


def _left_of(damage: Damage, found: Damage) -> Iterator[tuple[int, int]]:
    if damage.start == damage.end or damage.log != found.log:
        yield damage.start, damage.end
    else:
        yield from _uncovered(damage, [found])


def _free_name(folder: Path, name: str) -> Path:
    names = (name if number == 1 else f"{name}.{number}" for number in range(1, 1_000_000))
    return next(path for path in (folder / name for name in names) if not path.exists())


def _write(file: Path, content: bytes, how: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | how, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(file.parent)
