"""The window and the result of an audit."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from collector.broker.contract import SIGNAL_TOPICS, TELEMETRY_TOPICS

MINUTE_NS: Final = 60 * 10**9

NAMES: Final = {topic: signal for signal, topic in SIGNAL_TOPICS.items()}


class Window(NamedTuple):
    """The audited time of arrival: from `start` up to but not including `end`, nanoseconds since the Unix epoch.

    Only the batches of `tenant` are audited; None: those of all tenants.
    """

    start: int
    end: int
    tenant: str | None = None


class BrokerSums(NamedTuple):
    """The sums of the messages from gateways that the broker has in the window.

    `items` are by minute and topic, `receipts` by minute. `without_receipt` are the requested batches whose receipt it lacks.
    `begins` is from when on it still has all messages, nanoseconds; 0: it has all. `first` is when the first message that it
    has of each topic was appended, without topics that are empty.
    """

    items: Mapping[tuple[int, str], int]
    receipts: Mapping[int, int]
    without_receipt: Collection[UUID]
    begins: int
    first: Mapping[str, int]


@dataclass
class Sum:
    """The sums of one topic, in items. `broker` is None if the broker keeps no stored messages, or can't be asked."""

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
    """The result of an audit. All differences are zero if `adds_up`; messages that wait to be stored are not judged yet."""

    asked: Window
    window: Window  # the part that could be judged
    messages_behind: int = 0
    batches: int = 0
    topics: dict[str, Sum] = field(default_factory=lambda: {topic: Sum() for topic in TELEMETRY_TOPICS})
    rejected: int = 0
    rejected_kept: int = 0  # by the receipts
    dead_letters: int = 0  # in the store
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
        """Return the sum of all differences."""
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
    """Return a time in RFC 3339, to the microsecond."""
    whole, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06}Z"


# SQL.


def whole_number(value: Any) -> int:
    """Return a number of an answer, in which 64 bits may come as text."""
    return int(value)
