"""The connection that reads. It never writes or checkpoints."""

import ctypes
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from collector.broker.contract import Partition, Range
from collector.broker.left_out import parse_log
from collector.broker.local_log import schema
from collector.broker.local_log.chunks import OFFSET_MASK, chunk_key, split
from collector.broker.local_log.plan import PartitionHead

Row = tuple[int, bytes, bytes, bytes | None]


class Found(NamedTuple):
    """Messages that can't be read: from `start` up to but not including `end`."""

    start: int
    end: int
    reason: str
    row: Row | None  # the damaged row; None: the row is missing


class LogReader:
    """Reads ranges from the file. One thread at a time."""

    def __init__(self, file: Path, identity: str, reading: threading.Lock) -> None:
        # Not the file's identity alone: an older copy of the file that was put back gets other messages at the same offsets.
        self._log: Final = f"{identity}.{os.urandom(4).hex()}"
        self._reading: Final = reading
        self._connection: Final = sqlite3.connect(file, schema.LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.execute("PRAGMA wal_autocheckpoint = 0")
        # This opens the write-ahead log too, which may be removed later.
        self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()

    def read(self, topic: str, head: PartitionHead, bytes_max: int) -> tuple[Range | None, list[Found]]:
        """Return the range from the committed offset on. It ends before messages that can't be read.

        If these come first, return no range, only these. A range in doubt is exactly that of its intent, since it may be stored
        already. Unreadable messages are empty in it, and returned with it. If none of its messages can be read, return no range
        either. Raises sqlite3.Error.
        """
        in_doubt = head.intent is not None
        end = head.end if head.intent is None else head.intent
        with self._reading:
            payloads, found = self._payloads(topic, head, end, None if in_doubt else bytes_max)
        if not any(payload is not None for payload in payloads):
            return None, found
        whole = [b"" if payload is None else payload for payload in payloads]
        start, end = head.committed, head.committed + len(whole)
        if in_doubt:
            log, left_out = parse_log(head.intent_log)
            return Range(Partition(topic, 0), start, end, whole, in_doubt, log, head.intent_depth, left_out), found
        return Range(Partition(topic, 0), start, end, whole, log=self._log), []

    def _payloads(
        self, topic: str, head: PartitionHead, end: int, bytes_max: int | None
    ) -> tuple[list[bytes | None], list[Found]]:
        """Return the messages of a range, and those that can't be read. `bytes_max` is None for a range in doubt."""
        payloads: list[bytes | None] = []
        found: list[Found] = []
        start, size = head.committed, 0
        keys = (chunk_key(head.id, 0), chunk_key(head.id, start), chunk_key(head.id, end))
        # `closing`: an open cursor would keep its snapshot, so the write-ahead log could not be truncated.
        with closing(self._connection.execute(schema.SELECT, keys)) as rows:
            for row in rows:
                offset = row[0] & OFFSET_MASK
                next_ = start + len(payloads)
                if offset > next_:
                    found.append(Found(next_, offset, "missing", None))
                    if bytes_max is not None:
                        return payloads, found
                    payloads += [None] * (offset - next_)
                for payload in split(topic, *row):
                    next_ = start + len(payloads)
                    if offset == next_ < end:
                        if payload is None:
                            if bytes_max is not None and payloads and payloads[-1] is not None:
                                return payloads, found
                            _add_damaged(found, offset, row)
                        else:
                            if bytes_max is not None and payloads:
                                if payloads[-1] is None or size + len(payload) > bytes_max:
                                    return payloads, found
                            size += len(payload)
                        payloads.append(payload)
                    offset += 1
        if (next_ := start + len(payloads)) < end:
            found.append(Found(next_, end, "missing", None))
            if bytes_max is None:
                payloads += [None] * (end - next_)
        return payloads, found

    def close(self, *, is_gone: bool = False) -> None:
        """Close the connection, unless `is_gone`: the log is no longer at its path. Then nothing may close it, not even the
        interpreter at its end: the last connection that is closed removes the file at the path of the write-ahead log, which
        may be another log's by now."""
        if is_gone:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        else:
            self._connection.close()


def _add_damaged(found: list[Found], offset: int, row: Row) -> None:
    """Add a damaged message to `found`. Consecutive messages of a row become one entry."""
    if found and found[-1].end == offset and found[-1].row is not None and found[-1].row[0] == row[0]:
        found[-1] = found[-1]._replace(end=offset + 1)
    else:
        found.append(Found(offset, offset + 1, "checksum", row))
