"""The connection that reads, and never writes or checkpoints."""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Final

from collector.broker.contract import BrokerDown, Partition, Range
from collector.broker.local_log import schema
from collector.broker.local_log.chunks import OFFSET_MASK, chunk_key, split
from collector.broker.local_log.plan import Head


class Reader:
    """The connection that reads, and never writes or checkpoints. One thread at a time."""

    def __init__(self, file: Path, identity: str, reading: threading.Lock) -> None:
        # Not the file's alone: a copy of the file that was put back has messages that differ at the same offsets.
        self._log: Final = f"{identity}.{os.urandom(4).hex()}"
        self._file: Final = file
        self._reading: Final = reading
        self._connection: Final = sqlite3.connect(file, schema.LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.execute("PRAGMA wal_autocheckpoint = 0")

    def read(self, topic: str, head: Head, bytes_max: int) -> Range:
        """From what is committed on, exactly up to the intent where one stands. Raises BrokerDown."""
        in_doubt = head.intent is not None
        end = head.end if head.intent is None else head.intent
        try:
            with self._reading:
                payloads = self._payloads(head, end, None if in_doubt else bytes_max)
        except (sqlite3.Error, ValueError) as error:
            raise BrokerDown(f"cannot read {topic} from offset {head.committed} in {self._file}: {error}") from error
        end = head.committed + len(payloads)
        if in_doubt:
            return Range(Partition(topic, 0), head.committed, end, payloads, in_doubt, head.intent_log, head.intent_depth)
        return Range(Partition(topic, 0), head.committed, end, payloads, log=self._log)

    def _payloads(self, head: Head, end: int, bytes_max: int | None) -> list[bytes]:
        payloads: list[bytes] = []
        size = 0
        # `closing`: an open cursor would keep its snapshot, and the write-ahead log from starting anew.
        keys = (chunk_key(head.id, 0), chunk_key(head.id, head.committed), chunk_key(head.id, end))
        with closing(self._connection.execute(schema.SELECT, keys)) as rows:
            for key, lengths, chunk in rows:
                offset = key & OFFSET_MASK
                for payload in split(lengths, chunk):
                    if head.committed <= offset < end:
                        if payloads and bytes_max is not None and size + len(payload) > bytes_max:
                            return payloads
                        if offset != head.committed + len(payloads):
                            raise ValueError(f"offset {head.committed + len(payloads)} is missing, {offset} is next")
                        payloads.append(payload)
                        size += len(payload)
                    offset += 1
        if head.committed + len(payloads) != end:
            raise ValueError(f"the messages end at {head.committed + len(payloads)}, not at {end}")
        return payloads

    def close(self) -> None:
        self._connection.close()
