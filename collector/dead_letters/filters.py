"""The filter by which a page or a command selects dead letters, and how many it may select at once.

The commands load this module; it needs neither the store nor protobuf's JSON.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from adapters.errors import INVALID_JSON, REASONS
from collector.query.reader import Value
from collector.query.times import unix_nano_of

STATES: Final = ("open", "rejected_again", "replayed", "discarded")
OPEN_STATES: Final = ("open", "rejected_again")
PAGE_MAX: Final = 500
PAGE_DEFAULT: Final = 50
TEXT_MAX: Final = 1000
# How many entries one request may replay or discard.
ENTRIES_MAX: Final = 10_000
# Reasons for which items are rejected, and not whole requests.
ITEM_REASONS: Final = tuple(reason.name for reason in REASONS if reason.code < INVALID_JSON)


class Filter(NamedTuple):
    """Selects entries; None selects any value. Times are when entries were kept, in nanoseconds since the Unix epoch."""

    tenant: str | None = None
    reason: str | None = None
    service_id: str | None = None
    since_unix_nano: int | None = None
    until_unix_nano: int | None = None
    states: tuple[str, ...] | None = None

    @classmethod
    def of(cls, given: Mapping[str, str | None], tenant: str | None) -> Self:
        """Return the filter for texts: reason, service_id, since, until, state. Raises ValueError, which names a wrong text."""
        reason = given.get("reason")
        if reason is not None and reason not in ITEM_REASONS:
            raise ValueError(f"reason must be one that items are refused for (docs/use/api.md), not {reason[:100]!r}")
        service_id = given.get("service_id")
        if service_id is not None and len(service_id) > TEXT_MAX:
            raise ValueError(f"service_id must have at most {TEXT_MAX} characters; it has {len(service_id)}")
        state = given.get("state")
        states = None if state is None else OPEN_STATES if state == "open" else (state,)
        if states is not None and not set(states) <= set(STATES):
            raise ValueError(f"state must be one of {', '.join(STATES)}, not {state[:100] if state else state!r}")
        return cls(tenant, reason, service_id, _moment(given, "since"), _moment(given, "until"), states)

    def conditions(self) -> tuple[list[str], dict[str, Value]]:
        """Return conditions on the view dead_letters, and their parameters."""
        found: list[str] = []
        values: dict[str, Value] = {}
        for name, condition, value in (
            ("tenant", "TenantId = {tenant}", self.tenant),
            ("reason", "Reason = {reason}", self.reason),
            ("service_id", "ServiceName = {service_id}", self.service_id),
            ("since", "KeptAt >= fromUnixTimestamp64Nano(toInt64({since}))", self.since_unix_nano),
            ("until", "KeptAt < fromUnixTimestamp64Nano(toInt64({until}))", self.until_unix_nano),
            ("states", "State IN {states}", self.states),
        ):
            if value is not None:
                found.append(condition)
                values[name] = value
        return found, values


def _moment(given: Mapping[str, str | None], name: str) -> int | None:
    text = given.get(name)
    return None if text is None else unix_nano_of(name, text)
