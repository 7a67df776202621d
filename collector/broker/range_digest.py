"""A digest of the messages that a range inserts, as a part of its `log`: so a token never names two different inserts.

A log whose disks were restored to an earlier state, with all of its metadata, repeats its ids, epochs and offsets, and has
other messages at them. Only the messages show the difference.

Invariants:
1. The digest is made before the intent, and is durable with it: a range in doubt keeps the one that it was intended with
   (test_an_intent_keeps_its_digest).
2. Ranges of other messages at the same offsets of the same log have other tokens (test_other_messages_have_another_digest).
"""

from typing import Final

from xxhash import xxh3_64

from collector.broker.contract import Range

_SEPARATOR: Final = ":"  # in no identity of a log, for the reason given in collector/broker/left_out.py


def with_digest(messages: Range) -> Range:
    """Return a range that is about to be intended, with a digest of its messages. An intent of a version that knew no
    identities is repeated without a digest."""
    if messages.in_doubt or not messages.log:
        return messages
    digest = xxh3_64()
    for payload in messages.payloads:
        digest.update(payload)
    return messages._replace(log=f"{without_digest(messages.log)}{_SEPARATOR}{digest.hexdigest()}")


def without_digest(log: str) -> str:
    """Return the identity of a log that all of its ranges of one epoch share."""
    return log.partition(_SEPARATOR)[0]
