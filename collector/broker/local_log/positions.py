"""Compare and merge the positions of the log's partitions that two files contain."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from collector.broker.local_log.database import heads_in
from collector.broker.local_log.plan import PartitionHead


def is_behind(heads: Mapping[str, PartitionHead], witness: Mapping[str, PartitionHead]) -> bool:
    """Return whether a position in the witness is beyond that of the log."""
    for topic, seen in witness.items():
        head = heads.get(topic)
        if head is None:
            if seen.end:
                return True
        elif seen.end > head.end or seen.committed > head.committed:
            return True
    return False


def merged(heads: Mapping[str, PartitionHead], others: Mapping[str, PartitionHead]) -> dict[str, PartitionHead]:
    """Return the farthest position of each topic."""
    merged = dict(heads)
    for topic, other in others.items():
        head = merged.get(topic)
        if head is None:
            taken = {it.id for it in merged.values()}
            merged[topic] = other if other.id not in taken else other._replace(id=max(taken) + 1)
        else:
            farthest = other if other.committed > head.committed else head
            if farthest.intent is None and other.committed == head.committed:
                farthest = other if other.intent is not None else farthest
            merged[topic] = farthest._replace(id=head.id, end=max(head.end, other.end))
    return merged


def heads_of(file: Path) -> dict[str, PartitionHead]:
    """Return the positions that are readable in a damaged file; none if it can't be read."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro&immutable=1", uri=True)) as connection:
            return heads_in(connection)
    except sqlite3.Error:
        return {}
