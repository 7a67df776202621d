"""Report and log acknowledged messages that are lost or damaged, with the requests that they belong to.

A message has a receipt, which names its request. If the message itself is lost, the receipts before and after it show between
which requests of a process it was.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from collector.broker.contract import Payload, Range
from collector.broker.local_log.chunks import OFFSET_MASK, slices
from collector.broker.local_log.database import Database, Gap
from collector.broker.local_log.incidents import Damage, Incidents
from collector.broker.local_log.lineage import Branch
from collector.broker.local_log.plan import PartitionHead
from collector.broker.local_log.reader import Found
from collector.broker.local_log.receipts import receipt_of
from collector.broker.local_log.witness import Witnessed

_REQUESTS_SHOWN_MAX: Final = 20
_LACKING: Final = "the store is older than the log: it lacks what was stored since"


class LossReports:
    """Reports the losses of one log."""

    def __init__(self, incidents: Incidents) -> None:
        """Write the reports to `incidents`."""
        self._incidents: Final = incidents
        self._logger: Final = structlog.get_logger(__name__)
        self._last_read: Final[dict[str, tuple[int, Payload]]] = {}  # the last message that was read, and its end, by topic

    def remember(self, messages: Range) -> None:
        """Note the last message that was read: it may be the last before a loss, and be deleted from the database by then."""
        self._last_read[messages.partition.topic] = messages.end, messages.payloads[-1]

    def damage_of(self, database: Database, topic: str, id_: int, found: Found) -> Damage:
        """Return the damage that was found while reading, and keep the damaged row. Raises OSError."""
        requests = _neighbours(database, id_, Gap(topic, found.start, found.end), self._last_read.get(topic))
        if found.row is not None:
            key, lengths, payload, checksums = found.row
            first = found.start - (key & OFFSET_MASK)
            damaged = slices(lengths, payload)[first : first + min(found.end - found.start, _REQUESTS_SHOWN_MAX)]
            name = f"{topic}-{key & OFFSET_MASK}"
            for suffix, content in (("lengths", lengths), ("payload", payload), ("checksums", checksums or b"")):
                self._incidents.keep(f"{name}.{suffix}", content)
            requests += [{"where": "damaged", **receipt} for it in damaged if (receipt := receipt_of(it)) is not None]
        return Damage(topic=topic, start=found.start, end=found.end, reason=found.reason, requests=requests)

    def report_gaps(self, database: Database, ids: Mapping[str, int], gaps: Sequence[Gap], reason: str) -> None:
        """Report messages that a database lacks. `ids` are those of its topics. Raises OSError: then it must be done again."""
        self.report(
            [
                Damage(
                    topic=gap.topic,
                    start=gap.start,
                    end=gap.end,
                    reason=reason,
                    requests=_neighbours(database, ids[gap.topic], gap),
                )
                for gap in gaps
            ]
        )

    def report_no_witness(self, file: Path) -> None:
        """Log that the witness is lost, so that it can't show a loss before now."""
        self._logger.warning(
            "the file with the last known state of the local log is damaged or missing: it is created again, and cannot show a"
            " loss before now",
            file=str(file),
        )

    def report_witness_in_store(self, file: Path) -> None:
        """Log that the witness is lost, and is made again from the witness in the store."""
        self._logger.warning(
            "the file with the last known state of the local log is damaged or missing: it is restored from the copy in the"
            " store",
            file=str(file),
        )

    def report_no_wal(self, wal: Path) -> None:
        """Report that the write-ahead log is missing, and no witness records its content. Raises OSError."""
        reason = "its write-ahead log and log.acknowledged were removed: the number of messages in it is unknown"
        self._incidents.report_unknown(reason)
        self._logger.error(
            "acknowledged messages of the local log may be lost: its write-ahead log is missing, and its contents are unknown;"
            " see docs/operate/operating.md, confirm with `log confirm`",
            file=str(wal),
        )

    def report_other_log(self, former: Witnessed, file: Path, identity: str) -> None:
        """Report the messages that the former log in this place still held. Raises OSError: then it must be done again."""
        damages = [
            Damage(
                topic=topic, start=head.committed, end=head.end, reason="another log is in its place", log=former.identities[0]
            )
            for topic, head in former.heads.items()
            if head.end > head.committed
        ]
        self._logger.warning(
            "the local log was replaced by another: its messages are stored, and those that only the former log had are missing"
            " until that one is put back",
            file=str(file),
            log=identity,
            log_before=former.identities[0],
            missing_messages=sum(damage.messages for damage in damages),
        )
        self.report(damages)

    def found_again(self, database: Database) -> None:
        """Withdraw reports of messages that were missing while another log was in this place. Raises OSError, sqlite3.Error."""

        def is_there(damage: Damage) -> Sequence[tuple[int, int]]:
            return database.present(damage.topic, damage.start, damage.end) if damage.log == database.identity else ()

        if found := self._incidents.found_again(is_there):
            self._logger.warning(
                "messages of the local log that were reported as missing are here again, as it was put back", messages=found
            )

    def report_other_branch(self, former: Witnessed, branch: Branch, heads: Mapping[str, PartitionHead], file: Path) -> None:
        """Report messages that the former log in this place held, and that this log, another branch of it, lacks. `heads` are
        this log's. Raises OSError: then it must be done again."""
        damages: list[Damage] = []
        for topic, head in former.heads.items():
            shared, stored = branch.shared.get(topic, 0), branch.stored.get(topic, head.committed)
            taken_elsewhere = min(shared, heads[topic].committed) if topic in heads else shared
            for start, end in ((stored, taken_elsewhere), (max(head.committed, shared), head.end)):
                if start < end:
                    reason = "another branch of the log is in its place"
                    damages.append(Damage(topic=topic, start=start, end=end, reason=reason, log=former.identities[0]))
        self._logger.warning(
            "the local log is another branch than before: one of the two is a copy. Its messages are stored. Messages that only"
            " the former log held are missing until that log is put back",
            file=str(file),
            log_before=former.identities[0],
            missing_messages=sum(damage.messages for damage in damages),
        )
        self.report(damages)

    def report_lacking(self, identity: str, lacking: Mapping[str, tuple[int, int]]) -> int:
        """Report messages that the log has committed and the store beside it lacks. Return how many are newly reported. Raises
        OSError: then it must be done again."""
        damages = [
            Damage(topic=topic, start=start, end=end, reason=_LACKING, log=identity) for topic, (start, end) in lacking.items()
        ]
        return sum(damage.messages for damage in self._incidents.report(damages))

    def stored_again(self, identity: str, has: Callable[[str, int, int], Sequence[tuple[int, int]]]) -> None:
        """Withdraw reports of messages that the store lacked, if the store in its place has them now. Raises OSError."""

        def is_there(damage: Damage) -> Sequence[tuple[int, int]]:
            is_this = damage.reason == _LACKING and damage.log == identity
            return has(damage.topic, damage.start, damage.end) if is_this else ()

        if found := self._incidents.found_again(is_there):
            self._logger.warning(
                "messages that were missing in the store are there again, as a newer store was put back", messages=found
            )

    def report(self, damages: Sequence[Damage]) -> None:
        """Report damages, and log each new one. Raises OSError: then it must be done again."""
        if not damages:
            return
        for damage in self._incidents.report(damages):
            self._logger.error(
                "acknowledged messages of the local log are lost or damaged; see docs/operate/operating.md, "
                "confirm with `log confirm`",
                topic=damage.topic,
                first_offset=damage.start,
                messages=damage.messages,
                reason=damage.reason,
                requests=list(damage.requests),
                kept=str(self._incidents.folder()),
            )


def _neighbours(database: Database, id_: int, gap: Gap, last: tuple[int, Payload] | None = None) -> list[Mapping[str, object]]:
    """Return the receipts before and after lost messages. The requests between them, by process and sequence, are lost. `last`
    is the last message that was read, and where it ends; it may be deleted from the database."""
    before = bytes(last[1]) if last is not None and last[0] == gap.start else database.message(id_, gap.start - 1)
    named = (("before", before), ("after", database.message(id_, gap.end)))
    return [
        {"where": where, **receipt}
        for where, payload in named
        if payload is not None and (receipt := receipt_of(payload)) is not None
    ]
