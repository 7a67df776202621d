"""What an audit was asked, what it found, and how that is said."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from collector.broker.contract import SIGNAL_TOPICS, TELEMETRY_TOPICS

MINUTE_NS: Final = 60 * 10**9

NAMES: Final = {topic: signal for signal, topic in SIGNAL_TOPICS.items()}


class Window(NamedTuple):
    """From `start` up to but not including `end`, nanoseconds since the Unix epoch, by when requests arrived.

    `tenant`: its batches only; None: everyone's.
    """

    start: int
    end: int
    tenant: str | None = None


class Held(NamedTuple):
    """What the broker holds of the window, of what gateways have sent.

    `items`: by minute and topic; `receipts`: by minute. `without_receipt`: those of the batches asked about whose receipt it
    does not have. `begins`: from when on it still holds everything, nanoseconds; 0: all of it. `first`: when the first message
    that it holds of each topic was appended; nothing of a topic that is empty.
    """

    items: Mapping[tuple[int, str], int]
    receipts: Mapping[int, int]
    without_receipt: Collection[UUID]
    begins: int
    first: Mapping[str, int]


@dataclass
class Sum:
    """Of one topic, in items. `broker` is None where the broker keeps nothing that is stored, or can't be asked."""

    accepted: int = 0
    stored: int = 0
    dead_letters: int = 0
    duplicates: int = 0  # that the writer left out, since they were stored before
    difference: int = 0
    broker: int | None = None
    broker_difference: int = 0


class Fault(NamedTuple):
    """A batch that does not add up; or, without one, requests that are lost altogether."""

    batch_id: str
    tenant: str
    received_at: str
    what: str


@dataclass
class Report:
    """What was found. All differences are zero where `adds_up`; messages that wait to be stored are not judged yet."""

    asked: Window
    window: Window  # that could be judged
    messages_behind: int = 0
    batches: int = 0
    topics: dict[str, Sum] = field(default_factory=lambda: {topic: Sum() for topic in TELEMETRY_TOPICS})
    rejected: int = 0
    rejected_kept: int = 0  # as receipts say
    dead_letters: int = 0  # that are there
    dead_letters_difference: int = 0
    receipts_at_fault: int = 0  # missing, more than one, or not adding up in themselves
    receipts_in_broker_difference: int = 0
    lost_requests: int | None = None  # None: not judged
    log_lost_messages: int = 0  # that the local log reports as lost, and no operator has confirmed
    unacknowledged: int = 0  # batches without a receipt, which were never acknowledged
    unreadable: int = 0  # dead letters that are messages which nobody can read
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    faults_total: int = 0

    @property
    def difference(self) -> int:
        """Everything that does not add up."""
        return (
            sum(each.difference + each.broker_difference for each in self.topics.values())
            + self.dead_letters_difference
            + self.receipts_at_fault
            + self.receipts_in_broker_difference
            + (self.lost_requests or 0)
            + self.log_lost_messages
        )

    @property
    def adds_up(self) -> bool:
        return self.difference == 0


def moment(nanoseconds: int) -> str:
    """RFC 3339, to the microsecond."""
    whole, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06}Z"


# SQL.


def whole_number(value: Any) -> int:
    """64 bits may come as text."""
    return int(value)
