"""Restore messages from the files of a damaged database into another, and copy a log that is in use."""

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from collector.broker.local_log import schema
from collector.broker.local_log.carve import carve
from collector.broker.local_log.database import Database, make_directory
from collector.broker.local_log.limits import LocalLogLimits
from collector.broker.local_log.losses import LossReports
from collector.broker.local_log.plan import PartitionHead
from collector.broker.local_log.witness import Witness, Witnessed


def restore(
    database: Database,
    losses: LossReports,
    file: Path | None,
    wals: Sequence[Path],
    heads: Mapping[str, PartitionHead],
    reason: str,
    former: Sequence[str] = (),
    *,
    is_final: bool = False,
) -> None:
    """Restore the messages that are still in the files, and report those that are missing, with the reason. `former` and
    `is_final` are as in Database.restore. Raises sqlite3.Error, OSError."""
    topics = {head.id: topic for topic, head in heads.items()}
    ids = {topic: head.id for topic, head in heads.items()}
    carved = carve(file, wals, topics)
    database.restore(heads, carved, lambda gaps: losses.report_gaps(database, ids, gaps, reason), former, is_final=is_final)


def copy_log(file: Path, witness_name: str, limits: LocalLogLimits, directory: Path) -> None:
    """Write a snapshot of the log into `directory`, and its witness next to that; appends go on meanwhile. Raises OSError,
    sqlite3.Error."""
    make_directory(directory)
    copy = directory / schema.FILE_NAME
    with (
        closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    with closing(Database(copy, limits, threading.Lock())) as database:
        database.check()
        witnessed = Witnessed(database.identities, database.heads, lineage=database.lineage)
    with closing(Witness.open(directory.with_name(witness_name))) as witness:
        witness.write(witnessed)
        witness.sync()
