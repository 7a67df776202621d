"""Log for operators what became of senders' requests: the rejected, repaired, refused, limited and unread, and each request,
if that is wanted.

Invariants:
1. A tenant has at most one line in each interval, however many requests it sends, with the counts of that interval
   (test_a_tenant_has_one_line_in_an_interval).
2. The lines of one interval are bounded: all further tenants are one line (test_many_tenants_are_one_line).
3. No line contains a key, or a part of a query (test_each_request_is_a_line_without_its_key).
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import structlog

from adapters.errors import DEAD_LETTERS_FULL, EXCEEDS_PLAN, OVERLOADED, RATE_LIMIT_EXCEEDED, REASON
from adapters.record import Adapted
from adapters.repairs import REPAIR
from collector.receivers.refusals import Refusal, printable
from collector.tenancy.identity import Caller

_LOOK_S: Final = 1.0
_TENANTS_MAX: Final = 50
# The tenant in lines about senders whose key is not known.
_NOBODY: Final = "(unknown)"
_LIMITED: Final = (RATE_LIMIT_EXCEEDED, EXCEEDS_PLAN, DEAD_LETTERS_FULL, OVERLOADED)

log = structlog.get_logger(__name__)


class _Tally:
    """The counts of one tenant's requests since its last line."""

    def __init__(self) -> None:
        self.rejected: Final[Counter[str]] = Counter()  # items, by reason
        self.repaired: Final[Counter[str]] = Counter()  # by kind
        self.refused: Final[Counter[str]] = Counter()  # requests, by reason
        self.limited: Final[Counter[str]] = Counter()  # the same
        self.unread: Final[Counter[str]] = Counter()  # requests with unknown fields: "part" or "all" of it was not taken
        self.example = ""

    def fields(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "rejected_items": dict(self.rejected),
            "repaired": dict(self.repaired),
            "refused_requests": dict(self.refused),
            "limited_requests": dict(self.limited),
            "unread_requests": dict(self.unread),
            "example": self.example,
        }
        return {name: value for name, value in found.items() if value}

    @property
    def is_harmless(self) -> bool:
        return not (self.rejected or self.refused or self.limited or self.unread)


class SenderLog:
    """Collects the outcomes of requests, and logs them. Call `run` in a task. Used by one event loop, so it has no locks."""

    def __init__(self, interval_s: float, clock: Callable[[], float]) -> None:
        """`interval_s` is the least time between two lines of a tenant. `clock` is in seconds, and monotonic."""
        self._interval_s: Final = interval_s
        self._clock: Final = clock
        self._tallies: Final[dict[str, _Tally]] = {}
        self._logged_s: Final[dict[str, float]] = {}

    def taken(self, tenant: str, adapted: Adapted) -> None:
        """Note a request that was taken, if items were rejected or repaired, or fields unknown."""
        unknown = adapted.unknown_fields
        if not adapted.rejected and not adapted.repaired and not unknown:
            return
        tally = self._tally(tenant)
        for (_, reason), items in adapted.rejected.items():
            tally.rejected[REASON[reason].name] += items
        for kind, count in (adapted.repaired or {}).items():
            tally.repaired[REPAIR[kind].name] += count
        if unknown:
            tally.unread["part" if adapted.parts or adapted.rejected else "all"] += 1
            tally.example = printable("; ".join(unknown))
        if adapted.rejections:
            rejection = adapted.rejections[0]
            tally.example = f"{REASON[rejection.reason].name}: {printable(rejection.message)}"

    def refused(self, tenant: str | None, refusal: Refusal) -> None:
        """Note a request that was refused as a whole. `tenant` is None if it is unknown."""
        tally = self._tally(_NOBODY if tenant is None else tenant)
        counts = tally.limited if refusal.reason in _LIMITED else tally.refused
        counts[refusal.name] += 1
        tally.example = f"{refusal.name}: {refusal.message}"

    async def run(self) -> None:
        """Write the lines that are due, until cancelled; then write the remaining lines."""
        try:
            while True:
                await asyncio.sleep(_LOOK_S)
                self.write()
        finally:
            self.write(is_last=True)

    def write(self, *, is_last: bool = False) -> None:
        """Write the lines that are due; if `is_last`, all lines."""
        now = self._clock()
        for tenant in [tenant for tenant, logged_s in self._logged_s.items() if now - logged_s >= self._interval_s]:
            del self._logged_s[tenant]
        due = [tenant for tenant in self._tallies if is_last or tenant not in self._logged_s]
        others = _Tally()
        for n, tenant in enumerate(due):
            tally = self._tallies.pop(tenant)
            self._logged_s[tenant] = now
            if n < _TENANTS_MAX:
                _write(tally, tenant=tenant)
            else:
                for total, part in zip(_counts(others), _counts(tally), strict=True):
                    total.update(part)
        if len(due) > _TENANTS_MAX:
            _write(others, tenants=len(due) - _TENANTS_MAX)

    def _tally(self, tenant: str) -> _Tally:
        tally = self._tallies.get(tenant)
        if tally is None:
            tally = self._tallies[tenant] = _Tally()
        return tally


def _counts(tally: _Tally) -> tuple[Counter[str], ...]:
    return tally.rejected, tally.repaired, tally.refused, tally.limited, tally.unread


def _write(tally: _Tally, **whose: Any) -> None:
    if tally.is_harmless:
        log.info("telemetry of a sender was repaired", **whose, **tally.fields())
    else:
        log.warning("telemetry of a sender was rejected or refused", **whose, **tally.fields())


def log_request(
    route: str, code: int | str, caller: Caller | None, size_bytes: int, seconds: float, adapted: Adapted | None
) -> None:
    """Log one request with telemetry, once it is answered. `adapted` is None if it was refused."""
    counts = {} if adapted is None else {"accepted": adapted.accepted_count(), "rejected": adapted.rejected_count()}
    who = {} if caller is None else {"tenant": caller.tenant, "key": caller.key_id}
    log.info("request", route=route, code=code, **who, bytes=size_bytes, ms=round(seconds * 1000, 1), **counts)


def log_page(path: str, method: str, code: int, seconds: float) -> None:
    """Log one request for a page. `path` is without its query."""
    log.info("request", route=printable(path), method=method, code=code, ms=round(seconds * 1000, 1))
