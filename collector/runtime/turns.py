"""A lock for each tenant, so that one part of a tenant's work is done at a time. Locks that are not held are dropped."""

import asyncio
from typing import Final
from weakref import WeakValueDictionary


class Turns:
    """The locks of tenants, for one event loop."""

    def __init__(self) -> None:
        self._locks: Final[WeakValueDictionary[str, asyncio.Lock]] = WeakValueDictionary()

    def of(self, tenant: str) -> asyncio.Lock:
        """Return the tenant's lock. It is the same lock as long as a caller holds it or waits for it."""
        return self._locks.setdefault(tenant, asyncio.Lock())
