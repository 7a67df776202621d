"""Find out whether the log and its witness are of one history, or of two branches, after one was a copy of the other.

Each start adds an *epoch* to the log and, after that, to the witness: a random number, and the partitions' positions then. Two
copies that are both used have the same epochs up to some place, and different epochs after it. After that place, positions of
one do not hold for the other.

Invariants:
1. A log whose witness does not know its last starts, or trails, is the same log
   (test_a_start_that_broke_off_is_no_other_branch, test_an_old_copy_of_before_a_start_is_the_same_log).
2. Messages that both of two branches have are taken once; messages that only one branch has are taken or reported
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


class At(NamedTuple):
    """The position of a partition at a start."""

    committed: int
    end: int


class Epoch(NamedTuple):
    """A start. `is_branch`: another branch was in the log's place. Then `committed` is up to where the embedded store had the
    messages of both branches."""

    id: str
    heads: Mapping[str, At]
    is_branch: bool = False


class Branch(NamedTuple):
    """Two logs that were one. By topic: up to where they were one, and up to where that is stored, by the witness."""

    shared: Mapping[str, int]
    stored: Mapping[str, int]


def new_epoch(heads: Mapping[str, PartitionHead], branch: Branch | None) -> Epoch:
    """Return the epoch of a start. `branch` is the branch that was found then."""
    at = {topic: At(head.committed, head.end) for topic, head in heads.items()}
    if branch is not None:
        at = {topic: At(min(it.committed, branch.stored.get(topic, 0)), it.end) for topic, it in at.items()}
    return Epoch(os.urandom(EPOCH_BYTES).hex(), at, branch is not None)


def branch_of(
    log: Sequence[Epoch], witness: Sequence[Epoch], heads: Mapping[str, PartitionHead], seen: Mapping[str, PartitionHead]
) -> Branch | None:
    """Return where the log of `heads` and the witness, which has `seen`, parted; None if they did not, as far as is known."""
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
    shared = {topic: min(_at(start, topic).end for start in starts) for topic in seen}
    before = next((epoch.heads for epoch in of_witness if epoch.is_branch), None)
    stored = {
        topic: min(shared[topic], head.committed if before is None else _at(before, topic).committed)
        for topic, head in seen.items()
    }
    return Branch(shared, stored)


def _is_within(heads: Mapping[str, PartitionHead], limit: Mapping[str, At]) -> bool:
    return all(
        head.committed <= _at(limit, topic).committed and head.end <= _at(limit, topic).end for topic, head in heads.items()
    )


def _at(heads: Mapping[str, At], topic: str) -> At:
    return heads.get(topic, At(0, 0))
