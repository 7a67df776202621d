"""Opens the parts that identify senders and limit them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import structlog

from collector.app.ports import takes_anonymous
from collector.app.retention import plan_days
from collector.config.settings import Settings
from collector.config.values import secret_text
from collector.rate_limit.contract import Limiter
from collector.rate_limit.local import LocalLimiter
from collector.runtime.shutdown import running
from collector.tenancy import keys
from collector.tenancy.access import Access
from collector.tenancy.identity import Caller
from collector.tenancy.keyring import Keyring
from collector.tenancy.scopes import Scope

if TYPE_CHECKING:
    # Imported where it is used, since most gateways do not need it.
    from collector.rate_limit.redis import RedisLimiter

log = structlog.get_logger(__name__)


class Tenancy(NamedTuple):
    """The parts that identify senders and limit them. `failures` has, by the names in metrics, functions that return why a part
    fails, or None.

    `plans` returns the names of each tenant's plans. `kept_days` returns the retention of a tenant's plans, in days; it is None
    if no plan has a retention. `task` reads the keys file again when it changes."""

    access: Access
    limiter: Limiter
    failures: Mapping[str, Callable[[], str | None]]
    plans: Callable[[], Mapping[str, str]]
    kept_days: Callable[[str], int | None] | None
    task: asyncio.Task[None]


def first_key(settings: Settings) -> str | None:
    """Make the keys file with an administrator's key if there is no keys file. Return the key, to be shown once, or None.
    Raises CannotRun."""
    return keys.ensure_admin_key(keys.path_of(settings.data_dir, settings.tenants.keys_file), now=datetime.now(UTC))


@asynccontextmanager
async def open_tenancy(settings: Settings, *, processes: int, anonymous_by_default: bool = False) -> AsyncIterator[Tenancy]:
    """Open keys, plans and limits. `processes` is how many of this gateway share its ports. Raises CannotRun."""
    tenants = settings.tenants
    plans = settings.plans_by_name()
    days = plan_days(settings)
    path = keys.path_of(settings.data_dir, tenants.keys_file)
    keyring = Keyring.open(path, plans, reload_s=tenants.keys_reload_s, now_unix_s=time.time, kept_days=days)
    anonymous = None
    if takes_anonymous(settings, by_default=anonymous_by_default):
        anonymous = Caller(tenants.anonymous_tenant, Scope.INGEST, plans[tenants.anonymous_plan], "")
    elif not len(keyring):
        log.warning("no client can send: there are no keys; `keys create` makes one", keys_file=str(path))
    failures: dict[str, Callable[[], str | None]] = {"keys": lambda: keyring.failure}
    async with AsyncExitStack() as stack:
        task = await stack.enter_async_context(running(keyring.run(), "keys"))
        limiter: Limiter
        share = settings.limits.gateways * processes
        if settings.limits.redis_url:
            redis = await stack.enter_async_context(_redis(settings, share))
            failures["redis"] = lambda: redis.failure
            limiter = redis
        else:
            limiter = LocalLimiter(time.monotonic_ns, share)
            if share > 1:
                log.warning(
                    "without limits.redis_url each process holds tenants to its share of their plans", share=f"1/{share}"
                )
        of_tenant = days.of if days.has_any else None
        yield Tenancy(Access(keyring.find, anonymous), limiter, failures, keyring.plans_by_tenant, of_tenant, task)


@asynccontextmanager
async def _redis(settings: Settings, processes: int) -> AsyncIterator["RedisLimiter"]:
    from collector.rate_limit.redis import RedisLimiter  # noqa: PLC0415  # as above

    limits = settings.limits
    limiter = RedisLimiter(
        limits.redis_url,
        username=limits.redis_user or None,
        password=secret_text(limits.redis_password) or None,
        ca_file=None if limits.redis_ca_file is None else str(limits.redis_ca_file),
        timeout_s=limits.redis_timeout_ms / 1000,
        processes=processes,
        now_nano=time.monotonic_ns,
    )
    await limiter.open()
    try:
        yield limiter
    finally:
        await limiter.close()
