"""Compare the histories of the log and its witness. They differ after a copy of one was used, too: the histories then *branch*.

Each start adds an *epoch* to the log and, after that, to the witness: a random number, and the partitions' positions then. Two
copies that are both used have the same epochs up to some place, and different epochs after it. After that place, positions of
one do not hold for the other.

Invariants:
1. If the witness lacks the log's last starts, or has older positions, the two are still of the same log
   (test_a_start_that_broke_off_is_no_other_branch, test_an_old_copy_of_before_a_start_is_the_same_log).
2. A message that is in both branches is stored once. A message that is in one branch only is stored or reported
   (test_logs_of_two_copies_that_are_exchanged_lose_nothing).
"""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from collector.broker.local_log.plan import PartitionHead

EPOCH_BYTES = 8
IDENTITY_BYTES = 16
# How many epochs are kept. Older epochs are forgotten.
EPOCHS_MAX = 48


class PartitionStart(NamedTuple):
    """The position of a partition at a start."""

    committed: int
    end: int


class Epoch(NamedTuple):
    """A start. `is_branch`: another branch was found in the log's place at this start. Then each `committed` is the offset up
    to which the embedded store had the messages of both branches."""

    id: str
    heads: Mapping[str, PartitionStart]
    is_branch: bool = False


class Branch(NamedTuple):
    """The place where two copies of a log parted. By topic: `shared` is the offset up to which both have the same messages.
    `stored` is the offset up to which these are stored, as the witness has recorded it."""

    shared: Mapping[str, int]
    stored: Mapping[str, int]


def new_epoch(heads: Mapping[str, PartitionHead], branch: Branch | None) -> Epoch:
    """Return the epoch of a start. `branch` is the branch that was found then."""
    at = {topic: PartitionStart(head.committed, head.end) for topic, head in heads.items()}
    if branch is not None:
        at = {topic: PartitionStart(min(it.committed, branch.stored.get(topic, 0)), it.end) for topic, it in at.items()}
    return Epoch(os.urandom(EPOCH_BYTES).hex(), at, branch is not None)


def branch_of(
    log: Sequence[Epoch], witness: Sequence[Epoch], heads: Mapping[str, PartitionHead], seen: Mapping[str, PartitionHead]
) -> Branch | None:
    """Return where the log, which has `heads`, and the witness, which has `seen`, parted. Return None if nothing shows that
    they did."""
    if not log or not witness:
        return None
    ids = [epoch.id for epoch in log]
    common = next((number for number in reversed(range(len(witness))) if witness[number].id in ids), None)
    if common is None:
        return Branch({}, {})
    of_log, of_witness = log[ids.index(witness[common].id) + 1 :], witness[common + 1 :]
    if not of_log and (not of_witness or _is_within(heads, of_witness[0].heads)):
        return None
    if not of_witness and _is_within(seen, of_log[0].heads):
        return None
    starts = [epochs[0].heads for epochs in (of_log, of_witness) if epochs]
    shared = {topic: min(_start_of(start, topic).end for start in starts) for topic in seen}
    before = next((epoch.heads for epoch in of_witness if epoch.is_branch), None)
    stored = {
        topic: min(shared[topic], head.committed if before is None else _start_of(before, topic).committed)
        for topic, head in seen.items()
    }
    return Branch(shared, stored)


def _is_within(heads: Mapping[str, PartitionHead], limit: Mapping[str, PartitionStart]) -> bool:
    return all(
        head.committed <= _start_of(limit, topic).committed and head.end <= _start_of(limit, topic).end
        for topic, head in heads.items()
    )


def _start_of(heads: Mapping[str, PartitionStart], topic: str) -> PartitionStart:
    return heads.get(topic, PartitionStart(0, 0))
