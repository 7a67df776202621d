"""Look at the disk of the log, and keep its reserve free.

Look only after some time or some bytes, since each look costs a trip through the interpreter lock."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from collector.broker.local_log.database import Database
from collector.broker.local_log.open_files import OpenFiles
from collector.broker.local_log.plan import LogAppend, Work
from collector.broker.local_log.schema import PAGE_BYTES
from collector.runtime.disk import Disk

# How long, and for how many bytes of messages, the last known free space is used. A message takes its bytes twice: in the
# write-ahead log, and in the file after a checkpoint. So messages of an eighth of a small reserve use a quarter of it.
_SEEN_S: Final = 0.2
_UNSEEN_BYTES_MAX: Final = 4 * 1024 * 1024
_UNSEEN_DIVISOR: Final = 8
# The pages that a transaction changes beside those of its messages, as they are in the write-ahead log.
_TRANSACTION_BYTES: Final = 4 * PAGE_BYTES


class DiskChecks:
    """Looks at one disk now and then, and keeps its reserve free. One thread at a time."""

    def __init__(self, disk: Disk) -> None:
        self._disk: Final = disk
        self._seen_until = 0.0
        self._unseen_bytes = 0

    def check(self, works: Sequence[Work], database: Database, files: OpenFiles, *, is_copying: bool) -> None:
        """Look at the disk before `works` are written, if that is due.

        If the next checkpoint would take some of the reserve, do it now: that frees the space of the write-ahead log. So the
        reserve is not taken by messages that were acknowledged already, and the next start has room. If a copy of the log is
        being written, do not: the checkpoint would wait for its end, and delay appends."""
        messages = (message for work in works if isinstance(work, LogAppend) for message in work.messages)
        self._unseen_bytes += _TRANSACTION_BYTES + sum(len(message.payload) for message in messages)
        now = time.monotonic()
        disk = self._disk
        unseen_bytes_max = min(_UNSEEN_BYTES_MAX, disk.reserve_bytes // _UNSEEN_DIVISOR)
        if now < self._seen_until and self._unseen_bytes < unseen_bytes_max:
            return
        self._seen_until, self._unseen_bytes = now + _SEEN_S, 0
        disk.check()
        growth_bytes = 0 if is_copying else files.growth_bytes
        if growth_bytes and disk.free_bytes is not None and disk.free_bytes < disk.reserve_bytes + growth_bytes:
            with suppress(sqlite3.Error):  # other data have filled the disk
                database.truncate_wal()
                files.fault_of_written()
            disk.check()
