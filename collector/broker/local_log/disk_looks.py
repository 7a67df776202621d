"""Looks at the disk of the log: now and then, and after so many bytes, since each costs a trip through the interpreter lock."""

import time
from collections.abc import Sequence
from typing import Final

from collector.broker.local_log.plan import LogAppend, Work
from collector.runtime.disk import Disk

# How long, and for how many bytes of messages, what the disk had free is taken for what it has.
_SEEN_S: Final = 0.2
_UNSEEN_BYTES_MAX: Final = 4 * 1024 * 1024


class DiskLooks:
    """Those at one disk. One thread at a time."""

    def __init__(self, disk: Disk) -> None:
        self._disk: Final = disk
        self._seen_until = 0.0
        self._unseen_bytes = 0

    def look(self, works: Sequence[Work]) -> None:
        """Look if it is time, before so much is written."""
        appends = (work for work in works if isinstance(work, LogAppend))
        self._unseen_bytes += sum(len(message.payload) for append in appends for message in append.messages)
        now = time.monotonic()
        if now >= self._seen_until or self._unseen_bytes >= _UNSEEN_BYTES_MAX:
            self._disk.look()
            self._seen_until, self._unseen_bytes = now + _SEEN_S, 0
