"""A lock for each tenant, so that of one tenant's work a part is done at a time. Locks that nobody holds are dropped."""

import asyncio
from typing import Final
from weakref import WeakValueDictionary


class Turns:
    """One event loop's."""

    def __init__(self) -> None:
        self._locks: Final[WeakValueDictionary[str, asyncio.Lock]] = WeakValueDictionary()

    def of(self, tenant: str) -> asyncio.Lock:
        """Return the lock of that tenant: the same one as long as anybody has it or waits for it."""
        return self._locks.setdefault(tenant, asyncio.Lock())
