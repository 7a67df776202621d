"""Read and write a log's identities and its last starts, as rows of its tables. Rows that can't be read are damage."""

import json
import re
import sqlite3
from typing import Final

import google_crc32c

from collector.broker.local_log import schema
from collector.broker.local_log.lineage import EPOCH_BYTES, IDENTITY_BYTES, Epoch, PartitionStart

_IDENTITY: Final = re.compile(f"[0-9a-f]{{{2 * IDENTITY_BYTES}}}")
_EPOCH: Final = re.compile(f"[0-9a-f]{{{2 * EPOCH_BYTES}}}")


def read_identities(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the identities in a file. Raises sqlite3.Error; ValueError if there are none, or one is damaged."""
    identities = tuple(str(row[0]) for row in connection.execute(schema.IDENTITIES).fetchall())
    if not identities or not all(map(_IDENTITY.fullmatch, identities)):
        raise ValueError("its identity can't be read")
    return identities


def read_epochs(connection: sqlite3.Connection) -> tuple[Epoch, ...]:
    """Return the last starts, oldest first. Raises sqlite3.Error; ValueError if one of them is damaged."""
    return tuple(_epoch(*row) for row in connection.execute(schema.READ_EPOCHS).fetchall())


def epoch_row(epoch: Epoch) -> tuple[str, str, bool, int]:
    """Return the values for the statement `ADD_EPOCH`."""
    heads = json.dumps(epoch.heads)
    return epoch.id, heads, epoch.is_branch, _checksum(epoch.id, heads, epoch.is_branch)


def _epoch(id_: str, heads: str, is_branch: int, checksum: int | None) -> Epoch:
    """Return the start in a row. `checksum` is None in a row of a former version. Raises ValueError if the row is damaged."""
    if checksum is not None and checksum != _checksum(id_, heads, bool(is_branch)):
        raise ValueError("a start that it notes does not fit its checksum")
    if not _EPOCH.fullmatch(id_):
        raise ValueError("a start that it notes has no number")
    try:
        return Epoch(id_, {topic: PartitionStart(*at) for topic, at in json.loads(heads).items()}, bool(is_branch))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"a start that it notes can't be read: {error}") from error


def _checksum(id_: str, heads: str, is_branch: bool) -> int:
    return int(google_crc32c.value(repr((id_, heads, is_branch)).encode()))
