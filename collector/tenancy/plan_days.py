"""Compute for how many days the store keeps a tenant's rows, from the plans of its keys.

A tenant with keys on several plans has the most days of these plans. If one of the plans has no days, none of them counts, and
the tenant's rows are kept like those of tenants without a plan. Keys that have ended count only if a tenant has no others:
its rows are not deleted sooner because its last key is revoked.

Invariants (tests/unit/collector/tenancy/test_plan_days.py):
1. Days follow the keys within one look, also when a key ends by itself (test_a_key_that_ends_no_longer_counts).
2. If the keys file is missing, the days are unknown, which is an error and not "no days": a store would delete rows that it
   should keep (test_a_keys_file_that_is_missing_is_an_error).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Final

from collector.tenancy import keys as keys_of
from collector.tenancy.keys import KeysUnusable, Stamp
from collector.tenancy.keys_file import Key
from collector.tenancy.plans import Plan


class PlanDays:
    """Computes the days from the keys that it received last."""

    def __init__(
        self, plans: Mapping[str, Plan], now_unix_s: Callable[[], float], anonymous: tuple[str, str] | None = None
    ) -> None:
        """`plans` are by name. `anonymous` is the tenant of requests without a key, and its plan's name; None without such."""
        self._plans: Final = {name: plan.retention_days for name, plan in plans.items()}
        self._now_unix_s: Final = now_unix_s
        self._anonymous: Final = anonymous
        self._keys: tuple[Key, ...] = ()
        self._found: tuple[Mapping[str, int], float] = {}, -math.inf  # the days, and until when they hold
        self._changing: Final = Lock()

    @property
    def has_any(self) -> bool:
        """Return whether a plan has days. Otherwise no tenant has days, whatever its keys are."""
        return any(days is not None for days in self._plans.values())

    def set_keys(self, keys: Iterable[Key]) -> None:
        """Replace the keys."""
        with self._changing:
            self._keys = tuple(keys) if self.has_any else ()
            self._found = {}, -math.inf

    def of(self, tenant: str) -> int | None:
        """Return the days of a tenant; None if its plans have none."""
        return self.by_tenant().get(tenant)

    def by_tenant(self) -> Mapping[str, int]:
        """Return the days of all tenants whose plans have days."""
        now = self._now_unix_s()
        days, until_unix_s = self._found
        if now >= until_unix_s:
            with self._changing:
                ends = (key.ends.timestamp() for key in self._keys if key.ends is not None)
                days = self._as_of(datetime.fromtimestamp(now, UTC))
                self._found = days, min((end for end in ends if end > now), default=math.inf)
        return days

    def _as_of(self, now: datetime) -> dict[str, int]:
        if not self.has_any:
            return {}
        in_force: dict[str, set[str]] = {}
        ended: dict[str, set[str]] = {}
        if self._anonymous is not None:
            in_force[self._anonymous[0]] = {self._anonymous[1]}
        for key in self._keys:
            (ended if key.has_ended(now) else in_force).setdefault(key.tenant, set()).add(key.plan)
        found = {}
        for tenant, names in (ended | in_force).items():
            days = [self._plans.get(name) for name in names]
            known = [number for number in days if number is not None]
            if len(known) == len(days):
                found[tenant] = max(known)
        return found


class KeysFileDays:
    """Computes the days from the current keys file."""

    def __init__(self, path: Path, days: PlanDays, *, may_be_missing: bool) -> None:
        """If `may_be_missing`, the file may be missing until it was read once, which does not harm a store without rows."""
        self._may_be_missing: Final = may_be_missing
        self._path: Final = path
        self._days: Final = days
        self._stamp: Stamp | None = None

    def by_tenant(self) -> Mapping[str, int]:
        """Read the file if it has changed and a plan has days. Raises KeysUnusable."""
        if self._days.has_any:
            stamp = keys_of.stamp_of(self._path)
            if stamp is None and not (self._may_be_missing and self._stamp is None):
                raise KeysUnusable(
                    f"a plan has retention_days, but the keys file {self._path}, which assigns plans, does not exist:"
                    " set tenants.keys_file to that of the gateways; `keys create` makes the first one"
                )
            if stamp is not None and stamp != self._stamp:
                document = keys_of.read(self._path)
                if document is not None:
                    self._days.set_keys(keys_of.parse(self._path, document.data))
                    self._stamp = document.stamp
        return self._days.by_tenant()

    def of(self, tenant: str) -> int | None:
        """Return the days of a tenant; None if its plans have none. Raises KeysUnusable."""
        return self.by_tenant().get(tenant)
