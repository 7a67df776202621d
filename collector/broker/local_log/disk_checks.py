"""Look at the disk of the log only after some time or some bytes, since each look costs a trip through the interpreter lock."""

import time
from collections.abc import Sequence
from typing import Final

from collector.broker.local_log.plan import LogAppend, Work
from collector.runtime.disk import Disk

# How long, and for how many bytes of messages, the last known free space is used.
_SEEN_S: Final = 0.2
_UNSEEN_BYTES_MAX: Final = 4 * 1024 * 1024


class DiskChecks:
    """Decides when to look at one disk. One thread at a time."""

    def __init__(self, disk: Disk) -> None:
        self._disk: Final = disk
        self._seen_until = 0.0
        self._unseen_bytes = 0

    def check(self, works: Sequence[Work]) -> None:
        """Look at the disk before `works` are written, if that is due."""
        appends = (work for work in works if isinstance(work, LogAppend))
        self._unseen_bytes += sum(len(message.payload) for append in appends for message in append.messages)
        now = time.monotonic()
        if now >= self._seen_until or self._unseen_bytes >= _UNSEEN_BYTES_MAX:
            self._disk.check()
            self._seen_until, self._unseen_bytes = now + _SEEN_S, 0
