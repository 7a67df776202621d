"""What must hold of rejected items and their payloads, whatever the adapter, whatever the body."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from support.limits import ALL, ALL_BUT_ATTRIBUTES, LOW
from support.records import flat
from support.references.otlp import single_items

from adapters.record import SOURCE_PROMETHEUS_WRITE_V1, SOURCE_PROMETHEUS_WRITE_V2, Adapted, Header, Rejection
from adapters.repairs import EXEMPLAR_DROPPED
from adapters.rules import Rules
from collector.ingest.validate import LimitRules, Limits

NOW = 1_775_822_400_000_000_000  # 2026-04-10T12:00:00Z
BYTES_MAX = 1 << 26
BATCH_ID = b"0123456789abcdef"
_REMOTE_WRITE = (SOURCE_PROMETHEUS_WRITE_V1, SOURCE_PROMETHEUS_WRITE_V2)

# (body, header, rules, message_bytes_max)
Adapt = Callable[[bytes, Header, Rules, int], Adapted]


class Adapter(NamedTuple):
    """`whole` takes a request as it is sent, `alone` a payload: the same but for the native API, whose batches are arrays."""

    source: int
    whole: Adapt
    alone: Adapt


def run(
    adapter: Adapter,
    adapt: Adapt,
    body: bytes,
    limits: Limits,
    message_bytes_max: int,
    items_max: int = 1_000_000,
    bytes_max: int = BYTES_MAX,
) -> Adapted:
    rules = LimitRules(limits, NOW, dead_letter_items_max=items_max, dead_letter_bytes_max=bytes_max)
    return adapt(body, Header("acme", adapter.source, NOW, BATCH_ID), rules, message_bytes_max)


def wide(adapter: Adapter) -> Limits:
    """Limits under which only what no rule can lift is rejected. Attributes beyond the limit are cut; labels beyond it reject
    a series."""
    return ALL if adapter.source in _REMOTE_WRITE else ALL_BUT_ATTRIBUTES


def items_of(adapted: Adapted, *, with_exemplars: bool = True) -> Counter[bytes]:
    """What was accepted: each item with the resource, scope and metric it is under."""
    batch = flat(b"".join(part.payload for part in adapted.parts))
    if not with_exemplars:
        for metric in (metric for record in batch.records for metric in record.metrics):
            for point in getattr(metric, str(metric.WhichOneof("data"))).data_points:
                if "exemplars" in point.DESCRIPTOR.fields_by_name:
                    point.ClearField("exemplars")
    return Counter(single_items(batch))


def told(rejection: Rejection) -> tuple[int, int, int, str, bytes]:
    return (rejection.index, rejection.type, rejection.reason, rejection.message, rejection.service_id)


def check_replays(adapter: Adapter, body: bytes, message_bytes_max: int) -> Adapted:
    """Every rejected item is kept; alone it is rejected again for the same reason, or stored where the rules allow it, as
    it would have been stored among its neighbours. Gives what was adapted under the strict rules."""
    adapted = run(adapter, adapter.whole, body, LOW, message_bytes_max)
    bare = run(adapter, adapter.whole, body, LOW, message_bytes_max, 0, 0)
    assert [(part.signal, part.payload, part.item_count) for part in bare.parts] == [
        (part.signal, part.payload, part.item_count) for part in adapted.parts
    ]
    assert list(map(told, bare.rejections)) == list(map(told, adapted.rejections))
    assert (bare.accepted, bare.rejected) == (adapted.accepted, adapted.rejected)
    assert {b""} >= {rejection.payload for rejection in bare.rejections}
    assert adapted.dead_letter_items == adapted.rejected_count() == len(adapted.rejections)
    assert adapted.dead_letter_bytes == sum(len(rejection.payload) for rejection in adapted.rejections)

    # An exemplar that is left out is not replayed.
    with_exemplars = EXEMPLAR_DROPPED not in (adapted.repaired or {})
    allowed = run(adapter, adapter.whole, body, wide(adapter), BYTES_MAX)
    expected = Fate(items_of(allowed, with_exemplars=with_exemplars), with_exemplars=with_exemplars)
    for rejection in allowed.rejections:
        if is_for_its_company(rejection):
            expected.add(adapter, rejection)
        else:
            expected.refused[rejection.reason, rejection.message] += 1
    fate = Fate(items_of(adapted, with_exemplars=with_exemplars), with_exemplars=with_exemplars)
    for rejection in adapted.rejections:
        check_again(adapter, rejection, LOW, message_bytes_max)
        fate.add(adapter, rejection)
    assert expected.items == fate.items
    assert expected.refused == fate.refused
    return adapted


class Fate:
    """What is stored in the end, and why the rest is not, when rejected items are sent again and everything is allowed."""

    def __init__(self, items: Counter[bytes], *, with_exemplars: bool) -> None:
        self.items = items
        self.with_exemplars = with_exemplars
        self.refused: Counter[tuple[int, str]] = Counter()

    def add(self, adapter: Adapter, rejection: Rejection) -> None:
        replayed = run(adapter, adapter.alone, rejection.payload, wide(adapter), BYTES_MAX)
        assert 1 == replayed.accepted_count() + replayed.rejected_count()
        self.items += items_of(replayed, with_exemplars=self.with_exemplars)
        self.refused.update((again.reason, again.message) for again in replayed.rejections)


def is_for_its_company(rejection: Rejection) -> bool:
    """Nothing need be wrong with the item itself; alone it may be taken."""
    return rejection.message.endswith(" in one series")


def check_again(adapter: Adapter, rejection: Rejection, limits: Limits, message_bytes_max: int) -> None:
    """Under the same rules the payload is one item, rejected in the same words, and kept as the same payload."""
    again = run(adapter, adapter.alone, rejection.payload, limits, message_bytes_max)
    if is_for_its_company(rejection):
        assert 1 == again.accepted_count() + again.rejected_count()
        assert {rejection.payload} >= {same.payload for same in again.rejections}
        return
    assert 0 == again.accepted_count()
    [same] = again.rejections
    assert told(rejection)[1:] == told(same)[1:]
    assert rejection.payload == same.payload
    assert 0 == same.index


def check_budget(adapter: Adapter, body: bytes, items_max: int, bytes_max: int) -> None:
    """No more is kept than there is room for; and what is not kept found no room. All is reported either way."""
    ample = run(adapter, adapter.whole, body, LOW, BYTES_MAX)
    adapted = run(adapter, adapter.whole, body, LOW, BYTES_MAX, items_max, bytes_max)
    assert list(map(told, ample.rejections)) == list(map(told, adapted.rejections))
    kept = [rejection.payload for rejection in adapted.rejections if rejection.payload]
    assert (len(kept), sum(map(len, kept))) == (adapted.dead_letter_items, adapted.dead_letter_bytes)
    assert adapted.dead_letter_items <= items_max
    assert adapted.dead_letter_bytes <= bytes_max
    for whole, rejection in zip(ample.rejections, adapted.rejections, strict=True):
        if rejection.payload:
            assert whole.payload == rejection.payload
        else:
            no_room = len(whole.payload) > bytes_max - adapted.dead_letter_bytes
            assert adapted.dead_letter_items == items_max or no_room
