"""The keys in force in this process: read from the keys file, and read again when it changes.

Invariants:
1. A key is looked up by the same steps, at the same cost, whether it is good, unknown, nearly right or revoked
   (test_every_key_takes_the_same_steps).
2. No part of a key that a sender sends is kept (test_nothing_is_kept_of_what_is_sent).
3. While the file cannot be used, the keys that were read last stay in force, and `failure` says why
   (test_a_broken_file_keeps_the_last_good_one).
4. At no moment of a change is a key missing (test_a_key_is_found_at_every_moment_of_a_change).
"""

import asyncio
import math
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Final, NamedTuple, Self

import structlog

from collector.runtime.reminders import Reminder
from collector.tenancy import keys
from collector.tenancy.identity import Caller
from collector.tenancy.key_format import LENGTH
from collector.tenancy.keys import KeysUnusable, Stamp
from collector.tenancy.origins import Origins
from collector.tenancy.plan_days import PlanDays
from collector.tenancy.plans import Plan

# The most bytes of a text that are hashed: one more than a key has, so the cut part of a longer text is never a key.
_HASHED_BYTES_MAX: Final = LENGTH + 1

log = structlog.get_logger(__name__)


class _KeyEntry(NamedTuple):
    """One key of the ring, by its hash."""

    digest: bytes
    ends_unix_s: float  # inf: never
    caller: Caller | None


_Ring = Mapping[bytes, _KeyEntry]


class _Loaded(NamedTuple):
    """The result of one look at the file: the keys that are now in force, or why the file can't be used."""

    stamp: Stamp | None
    ring: _Ring | None
    problem: str


class Keyring:
    """Finds the caller of a key. Make a keyring with `open`, and await `run` in a task to follow changes of the file."""

    def __init__(
        self,
        path: Path,
        plans: Mapping[str, Plan],
        ring: _Ring,
        stamp: Stamp | None,
        *,
        reload_s: float,
        now_unix_s: Callable[[], float],
        kept_days: PlanDays | None = None,
    ) -> None:
        self._kept_days: Final = kept_days
        self._path: Final = path
        self._plans: Final = plans
        self._reload_s: Final = reload_s
        self._now_unix_s: Final = now_unix_s
        self._ring = ring
        self._stamp = stamp  # of the file whose keys are in force
        self._reminder: Final = Reminder()
        self._broken: Stamp | None = None  # of a file that was read and found broken
        # An unknown key is compared with this entry. No key has its hash.
        self._nobody: Final = _KeyEntry(secrets.token_bytes(32), math.inf, None)
        # Why the file can't be used; None if it can, or if there never was a file.
        self.failure: str | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        plans: Mapping[str, Plan],
        *,
        reload_s: float,
        now_unix_s: Callable[[], float],
        kept_days: PlanDays | None = None,
    ) -> Self:
        """Read the file. If it does not exist, there are no keys yet. `plans` are by name. `kept_days` receives the keys.

        Raises KeysUnusable.
        """
        document = keys.read(path)
        ring = {} if document is None else _ring(path, document.data, plans, now_unix_s(), kept_days)
        stamp = None if document is None else document.stamp
        return cls(path, plans, ring, stamp, reload_s=reload_s, now_unix_s=now_unix_s, kept_days=kept_days)

    def __len__(self) -> int:
        """Return the number of keys, including those that have ended."""
        return len(self._ring)

    def plans_by_tenant(self) -> dict[str, str]:
        """Return the names of the plans of each tenant's keys in force, with commas between."""
        now = self._now_unix_s()
        names: dict[str, set[str]] = {}
        for held in list(self._ring.values()):
            if held.caller is not None and now < held.ends_unix_s:
                names.setdefault(held.caller.tenant, set()).add(held.caller.plan.name)
        return {tenant: ", ".join(sorted(found)) for tenant, found in names.items()}

    def find(self, key: bytes) -> Caller | None:
        """Return the caller of a key; None if the key is unknown or has ended."""
        digest = sha256(key[:_HASHED_BYTES_MAX]).digest()
        held = self._ring.get(digest, self._nobody)
        # The dictionary has compared already, but not in constant time. Its time depends only on the digest, from which no key
        # can be derived.
        is_same = compare_digest(digest, held.digest)
        is_in_force = self._now_unix_s() < held.ends_unix_s
        return held.caller if is_same & is_in_force else None

    async def run(self) -> None:
        """Check every `reload_s` seconds whether the file has changed."""
        while True:
            await asyncio.sleep(self._reload_s)
            await self.reload()

    async def reload(self) -> None:
        """Read the file if it has changed."""
        try:
            loaded = await asyncio.to_thread(self._load_if_changed)
        except KeysUnusable as error:  # the file can't be read now; it is tried again at the next check
            self._fail(str(error))
            return
        if loaded.ring is None:
            self._broken = loaded.stamp
            self._fail(loaded.problem)
            return
        if loaded.ring is not self._ring:
            self._ring = loaded.ring
            self._stamp = loaded.stamp
            log.info("the keys file was read", path=str(self._path), keys=len(loaded.ring))
        if self.failure is not None:
            self.failure = None
            self._reminder.over()
            self._broken = None
            log.info("the keys file can be used again", path=str(self._path))

    def _load_if_changed(self) -> _Loaded:
        """Read the file if it has changed; call it in a thread. Raises KeysUnusable if the file can't be read."""
        stamp = keys.stamp_of(self._path)
        if stamp == self._stamp:
            return _Loaded(stamp, self._ring, "")
        if stamp is not None and stamp == self._broken:
            return _Loaded(stamp, None, self.failure or "")
        document = keys.read(self._path)
        if document is None:
            raise KeysUnusable(f"the keys file {self._path} is gone; put it back, or make a new one with `keys create`")
        try:
            ring = _ring(self._path, document.data, self._plans, self._now_unix_s(), self._kept_days)
            return _Loaded(document.stamp, ring, "")
        except KeysUnusable as error:
            return _Loaded(document.stamp, None, str(error))

    def _fail(self, problem: str) -> None:
        if self._reminder.due(problem):
            log.error("the keys file can't be used; the keys that were read last stay in force", error=problem)
        self.failure = problem


def _ring(path: Path, data: bytes, plans: Mapping[str, Plan], now_unix_s: float, kept_days: PlanDays | None) -> _Ring:
    """Return the keys of a document by their hashes. Raises KeysUnusable."""
    now = datetime.fromtimestamp(now_unix_s, UTC)
    ring: dict[bytes, _KeyEntry] = {}
    entries = keys.parse(path, data)
    for key in entries:
        plan = plans.get(key.plan)
        if plan is None:
            if key.has_ended(now):
                continue  # it was on a plan that is no more, and needs none
            raise KeysUnusable(
                f"the keys file {path}: key {key.id} of tenant {key.tenant} is on plan {key.plan}, and there is no such plan in"
                f" the settings, which have {', '.join(plans)}; add [plans.{key.plan}], or revoke the key and create another"
            )
        digest = bytes.fromhex(key.sha256)
        ends = math.inf if key.ends is None else key.ends.timestamp()
        origins = Origins(key.origins) if key.origins else None
        ring[digest] = _KeyEntry(digest, ends, Caller(key.tenant, key.scope, plan, key.id, origins))
    if kept_days is not None:
        kept_days.set_keys(entries)
    return ring
