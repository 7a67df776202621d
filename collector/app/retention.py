"""The retention of rows, by the settings and by the plans of tenants. The keys, which name the plans, change while it runs.

Invariants (tests/unit/collector/app/test_retention.py):
1. A change of the keys reaches the tables without a restart. Without a change the store gets no request
   (test_tables_follow_the_keys).
2. If the keys file or the store cannot be used, every check tries again (test_what_failed_is_tried_again).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import structlog

from adapters.record import LOGS, METRICS, TRACES
from collector.app.data_dir import is_embedded, store_dir
from collector.config.settings import Settings
from collector.config.values import days_of_tenants
from collector.ingest.validate import KeptDays, Limits
from collector.runtime.errors import CannotRun
from collector.runtime.reminders import Reminder
from collector.runtime.shutdown import running
from collector.store.contract import StoreError
from collector.store.retention import Retention
from collector.tenancy import keys
from collector.tenancy.plan_days import KeysFileDays, PlanDays

# The time between two checks of the keys file. All changes of keys in this time become one change of the tables.
_LOOK_S: Final = 30.0

log = structlog.get_logger(__name__)


def retention_of(settings: Settings) -> Retention:
    """Return for how long the tables keep rows by the settings, without the plans of tenants."""
    store = settings.store
    return Retention(
        days=store.retention_days,
        metrics=store.metrics_retention_days,
        logs=store.logs_retention_days,
        traces=store.traces_retention_days,
        dead_letters=settings.dead_letters.retention_days,
        tenants=days_of_tenants(store.tenant_retention_days),
        cold_volume=store.cold_volume,
        cold_after_days=store.cold_after_days,
    )


def plan_days(settings: Settings) -> PlanDays:
    """Return an object that computes the retention of tenants by their plans. It has no keys yet."""
    tenants = settings.tenants
    anonymous = None if tenants.anonymous == "no" else (tenants.anonymous_tenant, tenants.anonymous_plan)
    return PlanDays(settings.plans_by_name(), time.time, anonymous)


def keys_file_days(settings: Settings) -> KeysFileDays | None:
    """Return the retention by plans for the keys in the keys file; None if no plan has a retention."""
    days = plan_days(settings)
    if not days.has_any:
        return None
    path = keys.path_of(settings.data_dir, settings.tenants.keys_file)
    is_new = is_embedded(settings) and not store_dir(settings.data_dir).exists()
    return KeysFileDays(path, days, may_be_missing=is_new)


def shortest_retention(settings: Settings) -> int | None:
    """Return the fewest days for which any telemetry is kept; None if all of it is kept for ever."""
    days = [plan.retention_days for plan in settings.plans_by_name().values()]
    return min((one for one in (retention_of(settings).shortest(), *days) if one is not None), default=None)


def limits_of(settings: Settings, of_plans: Callable[[str], int | None] | None) -> Limits:
    """Return the limits of an item: those of the settings of validation, and the largest age at which the store keeps it.

    `of_plans` returns the retention of a tenant's plans, in days. It is None if no plan has a retention."""
    retention = retention_of(settings)
    metrics, logs, traces = retention.of_signals()
    kept = KeptDays({METRICS: metrics, LOGS: logs, TRACES: traces}, retention.tenants, of_plans)
    return Limits(**settings.validation.model_dump(), kept_days=kept)


class PlanRetention:
    """Keeps the tables' retention up to date with the plans of tenants. Run `run` in a task."""

    def __init__(self, days: Callable[[], Mapping[str, int]], apply_schema: Callable[[], object]) -> None:
        """`days` returns the current retention of tenants by their plans, in days. It raises CannotRun. `apply_schema` is the
        store's method that brings its tables up to date."""
        self._days: Final = days
        self._apply_schema: Final = apply_schema
        self._applied: Mapping[str, int] | None = None  # None: nothing is applied yet since the start
        self._reminder: Final = Reminder()

    async def run(self) -> None:
        """Check the keys file every _LOOK_S. Does not return."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.update()

    async def update(self) -> None:
        """Bring the tables up to date if the retention of a tenant has changed. Log a failure as an error, and return."""
        try:
            await asyncio.to_thread(self._follow)
        except (CannotRun, StoreError) as error:
            failure: str | None = str(error)
        else:
            failure = None
        if failure is None:
            self._reminder.over()
        elif self._reminder.due(failure):
            log.error("the tables do not follow the plans of tenants: rows are kept as before", error=failure)

    def _follow(self) -> None:
        days = dict(self._days())
        if days == self._applied:
            return
        self._apply_schema()
        if self._applied is not None:
            log.info("the tables follow the plans of tenants", tenants=len(days))
        self._applied = days


@asynccontextmanager
async def following_plans(settings: Settings, apply_schema: Callable[[], object]) -> AsyncIterator[None]:
    """Keep the tables up to date with the plans inside this context, if a plan has a retention."""
    days = keys_file_days(settings)
    if days is None:
        yield
        return
    async with running(PlanRetention(days.by_tenant, apply_schema).run(), "plan retention"):
        yield
