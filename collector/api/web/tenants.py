"""The plans and the usage of tenants on a web page: of all for a key of scope admin, or else of the caller's tenant."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlencode

from collector.api.web.shown import PageRequest
from collector.telemetry.tenant_usage import Usage
from collector.tenancy.plans import DIMENSIONS, Plan, amount

PAGE_ROWS: Final = 50
_NOTHING: Final = Usage({}, {}, 0, {})


class TenantRow(NamedTuple):
    """One tenant. `plan` has the names of the plans of its keys. `items` are all items, and `limited` the requests over the
    plan."""

    name: str
    plan: str
    usage: Usage
    items: int
    limited: int


class TenantsPage(NamedTuple):
    """One page of tenants. `number` is how many match. `first` is the index of the first row. `own` is the plan of the caller's
    key: dimension, rate and burst."""

    rows: Sequence[TenantRow]
    number: int
    first: int
    text: str
    next_query: str | None
    previous_query: str | None
    own: Sequence[tuple[str, str, str]]
    own_name: str


def tenants_page(request: PageRequest, usage: Mapping[str, Usage], plans: Mapping[str, str]) -> TenantsPage:
    """Return the page of tenants, those with the most items first. Raises ValueError."""
    assert request.caller is not None
    caller = request.caller
    text = request.query.get("text", "").strip()
    start = request.query.get("start", "0")
    if not (start.isdecimal() and len(start) < 10):
        raise ValueError(f"start must be a whole number, not {start[:20]!r}")
    first = int(start)
    names = usage.keys() | plans.keys() if caller.scope.is_admin else {caller.tenant}
    rows = [_row(name, usage, plans) for name in names if text.lower() in name.lower()]
    rows.sort(key=lambda row: (-row.items, row.name))
    kept = {"text": text} if text else {}
    return TenantsPage(
        rows[first : first + PAGE_ROWS],
        len(rows),
        first,
        text,
        urlencode({**kept, "start": first + PAGE_ROWS}) if first + PAGE_ROWS < len(rows) else None,
        urlencode({**kept, "start": max(first - PAGE_ROWS, 0)}) if first else None,
        _plan_rows(caller.plan),
        caller.plan.name,
    )


def _row(name: str, usage: Mapping[str, Usage], plans: Mapping[str, str]) -> TenantRow:
    used = usage.get(name, _NOTHING)
    return TenantRow(name, plans.get(name, ""), used, sum(used.items.values()), sum(used.limited.values()))


def _plan_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """Return the dimensions of a plan, with their rates and bursts, for people."""
    return [
        (
            dimension,
            "any number" if rate is None else f"{amount(dimension, rate.per_s)} a second",
            "any number" if rate is None else amount(dimension, rate.burst),
        )
        for dimension, rate in zip(DIMENSIONS, plan.rates, strict=True)
    ]
