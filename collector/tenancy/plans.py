"""Plans limit how much a tenant may send: their rates, and the text that names a plan to a tenant that is over it.

A plan is data, and nothing is counted here. None in a plan means that there is no limit; no number does.

The built-in plans have these numbers because ordinary batches must pass one by one, and two right after each other.
Native batches have at most 10,000 records, Prometheus is configured for 10,000 samples a request, and the OpenTelemetry
Collector's default is 8,192 items. Bytes are those of the items' rows (adapters/rows.py), 0.5 to 3 KB each. So Free has bursts
of 20,000 items and 128 MiB. Its rates are those of 10 requests a second of 1,000 items, of about 1.6 KB each. Pro's rates are
those of 1,000 such requests, at the 1 KB an item that large batches have.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

Dimension = Literal["requests", "items", "bytes"]
# by_route: by the section repetitions. off: no request is recognized when it is sent again. key: only a request with an
# Idempotency-Key. body: also by its body, on any route.
RecognizedBy = Literal["by_route", "off", "key", "body"]
RECOGNIZED_BY: Final[tuple[RecognizedBy, ...]] = ("by_route", "off", "key", "body")
DIMENSIONS: Final[tuple[Dimension, ...]] = ("requests", "items", "bytes")

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# The largest rate and burst of any dimension. Redis computes in doubles, which are exact up to 2**53, and counts millionths.
RATE_MAX: Final = 2**32


class Rate(NamedTuple):
    """A limit: at most `burst` at once, and `per_s` every second after that. Over any time T at most burst + per_s * T."""

    per_s: int
    burst: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a tenant may send. A rate of None is no limit. `size_bytes` limits the bytes that ingest/charges.py counts."""

    name: str
    requests: Rate | None
    items: Rate | None
    size_bytes: Rate | None
    # How old an item may be, in seconds; None uses the settings of validation.
    past_max_s: int | None = None
    # How its requests are recognized when they are sent again.
    repetitions: RecognizedBy = "by_route"
    # For how many days the store keeps the tenant's rows; None uses the section store.
    retention_days: int | None = None
    # Whether the plan has a limit. A field and not a property, since each request reads it.
    is_limited: bool = field(init=False)

    def __post_init__(self) -> None:
        is_limited = not (self.requests is None and self.items is None and self.size_bytes is None)
        object.__setattr__(self, "is_limited", is_limited)

    @property
    def rates(self) -> tuple[Rate | None, Rate | None, Rate | None]:
        """Return the rates in the order of DIMENSIONS."""
        return self.requests, self.items, self.size_bytes

    def summary(self, dimension: Dimension) -> str:
        """Return the plan's text in answers: "Free (10 RPS)", "Free (10,000 items/s)", "Free (16 MiB/s)", "Unlimited"."""
        rate = self.rates[DIMENSIONS.index(dimension)]
        if rate is None:
            return self.name
        if dimension == "requests":
            return f"{self.name} ({rate.per_s:,} RPS)"
        return f"{self.name} ({amount(dimension, rate.per_s)}/s)"


def amount(dimension: Dimension, number: int) -> str:
    """Return a number of one dimension for people: "1 request", "10,000 items", "4 MiB", "1,500,000 bytes"."""
    if dimension == "bytes":
        for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
            if number and number % unit == 0:
                return f"{number // unit:,} {name}"
    return f"{number:,} {dimension[:-1] if number == 1 else dimension}"


FREE: Final = Plan("Free", Rate(10, 10), Rate(10_000, 20_000), Rate(16 * MIB, 128 * MIB))
PRO: Final = Plan("Pro", Rate(1_000, 2_000), Rate(1_000_000, 2_000_000), Rate(GIB, 2 * GIB))
UNLIMITED: Final = Plan("Unlimited", None, None, None)
BUILT_IN_PLANS: Final[Mapping[str, Plan]] = {plan.name: plan for plan in (FREE, PRO, UNLIMITED)}


def plans(settings: Mapping[str, Mapping[str, int | str | None]]) -> dict[str, Plan]:
    """Return all plans by name: the built-in ones, and those of the settings. A plan with a built-in's name replaces it.

    A plan in the settings has `requests_per_s` and `requests_burst`, and the same for items and bytes. Without a rate there is
    no limit; without a burst it is that of one second. `past_max_s`, `repetitions` and `retention_days` are those of Plan.
    Raises ValueError, naming the plan and the setting.
    """
    return {**BUILT_IN_PLANS, **{name: _plan(name, given) for name, given in settings.items()}}


def _plan(name: str, given: Mapping[str, int | str | None]) -> Plan:
    rates = {f"{dimension}_{part}" for dimension in DIMENSIONS for part in ("per_s", "burst")}
    known = rates | {"past_max_s", "repetitions", "retention_days"}
    if unknown := sorted(given.keys() - known):
        raise ValueError(f"plan {name}: there is no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    if not name or " " in name or not name.isprintable():
        raise ValueError(
            f"a plan is named {name!r}: answers to tenants contain the name, so it must have letters, and no whitespace"
        )
    recognized = given.get("repetitions") or "by_route"
    if recognized not in RECOGNIZED_BY:
        known_names = ", ".join(RECOGNIZED_BY)
        raise ValueError(f"plan {name}: repetitions is {recognized!r}; it must be one of {known_names}, or left out")
    numbers = {setting: number for setting, number in given.items() if isinstance(number, int)}
    requests, items, size_bytes = (_rate(name, dimension, numbers) for dimension in DIMENSIONS)
    return Plan(name, requests, items, size_bytes, numbers.get("past_max_s"), recognized, numbers.get("retention_days"))


def _rate(name: str, dimension: Dimension, given: Mapping[str, int]) -> Rate | None:
    per_s, burst = given.get(f"{dimension}_per_s"), given.get(f"{dimension}_burst")
    for part, number in (("per_s", per_s), ("burst", burst)):
        if number is not None and not 1 <= number <= RATE_MAX:
            raise ValueError(f"plan {name}: {dimension}_{part} is {number:,}; it must be from 1 to {RATE_MAX:,}, or left out")
    if per_s is None:
        if burst is not None:
            raise ValueError(
                f"plan {name}: {dimension}_burst is {burst:,} but there is no {dimension}_per_s, whose burst it would be"
            )
        return None
    return Rate(per_s, per_s if burst is None else burst)
