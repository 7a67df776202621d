"""The answers that are given again."""

from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from uuid_utils import UUID

from adapters.record import Adapted
from collector.ingest.answered_requests import AnsweredRequests

COUNT = st.one_of(st.integers(0, 200), st.integers(0, 2**40))
ANSWER = st.tuples(st.binary(min_size=16, max_size=16), st.lists(COUNT, min_size=10, max_size=10), st.integers(0, 2**63 - 1))
TENANTS = ("a", "b", "ab", "ü")
PRINTS = [bytes([number]) * 16 for number in range(3)]


@examples(100)
@given(
    added=st.lists(st.tuples(st.sampled_from(TENANTS), st.sampled_from(PRINTS), ANSWER), max_size=12),
    answers_max=st.sampled_from([12, 100]),
)
def test_answers_against_a_dict(added: list[tuple[str, bytes, tuple[bytes, list[int], int]]], answers_max: int) -> None:
    """The last answer of a tenant's fingerprint, with its batch id, its time, and all that its adapter counted."""
    answers = AnsweredRequests(answers_max)
    expected = {}
    for tenant, print_, (batch_id, counts, received) in added:
        adapted = Adapted()
        adapted.samples, adapted.histograms, adapted.exemplars, *adapted.accepted = counts
        answers.add(tenant, print_, batch_id, adapted, received)
        expected[tenant, print_] = batch_id, counts, received
    found = {}
    for tenant in TENANTS:
        for print_ in PRINTS:
            if answered := answers.find(tenant, print_):
                of = answered.counts
                counts = [of.samples, of.histograms, of.exemplars, *of.accepted]
                assert isinstance(answered.batch_id, UUID)
                found[tenant, print_] = answered.batch_id.bytes, counts, answered.received_unix_nano
    assert expected == found


def test_without_room_nothing_is_remembered() -> None:
    answers = AnsweredRequests(0)
    answers.add("a", PRINTS[0], bytes(16), Adapted(), 1)
    assert answers.find("a", PRINTS[0]) is None
