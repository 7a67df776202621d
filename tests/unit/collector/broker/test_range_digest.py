"""The digest of what a range inserts, in the identity of its log."""

from collections.abc import Sequence

import pytest

from collector.broker.contract import Partition, Payload, Range
from collector.broker.kafka.identity import Committed, epoch_of, identity_of, log_of
from collector.broker.left_out import parse_log, with_left_out
from collector.broker.range_digest import with_digest, without_digest

LOG = log_of("cluster.0190-a", 12)


def range_of(payloads: Sequence[Payload], log: str = LOG) -> Range:
    return Range(Partition("topic", 0), 5, 5 + len(payloads), payloads, log=log)


def test_other_messages_have_another_digest() -> None:
    """They differ at the same offsets of the same log. Equal messages have one digest, wherever the answer has them."""
    log = with_digest(range_of([b"a", b"b"])).log
    assert log == with_digest(range_of([memoryview(b"xa")[1:], b"b"])).log
    others = [with_digest(range_of(payloads)).log for payloads in ([b"a", b"c"], [b"c", b"b"], [b"a"], [b"b", b"a"])]
    assert 5 == len({log, *others})


@pytest.mark.parametrize("left_out", [b"", b"\x05"])
def test_an_intent_keeps_its_digest(left_out: bytes) -> None:
    """A range in doubt has it already, whatever its messages are by then; and it hides neither the log nor the epoch."""
    log = with_digest(range_of([b"a", b"b"])).log
    said = Committed.read(Committed(with_left_out(log, left_out), 7, 0).metadata())
    assert said is not None
    assert (log, left_out) == parse_log(said.log)
    assert log == with_digest(range_of([b"", b"b"], log)._replace(in_doubt=True)).log
    assert (12, "cluster.0190-a", LOG) == (epoch_of(log), identity_of(log), without_digest(log))


def test_a_range_is_named_anew_until_it_is_intended() -> None:
    """The last digest counts. An intent without an identity, of an older version, stays so."""
    assert with_digest(range_of([b"a"])) == with_digest(with_digest(range_of([b"a"])))
    assert "" == with_digest(range_of([b"a"], log="")).log
