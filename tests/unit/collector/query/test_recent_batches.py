"""The requests that a process answered last."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.batches import NOW, batch_id
from support.examples import examples

from adapters.record import SOURCE_OTLP, Adapted, Part
from collector.query.recent_batches import Recent, RecentBatches

COUNTS = st.integers(1, 1 << 40)
CODES = st.integers(0, 300)
NOTED = st.fixed_dictionaries(
    {
        "tenant": st.text(st.characters(codec="utf-8"), max_size=300),
        "source": st.integers(0, 4),
        "route": st.sampled_from(["", "/v1/metrics", "/opentelemetry.proto.collector.logs.v1.LogsService/Export"]),
        "received_time_unix_nano": st.integers(0, (1 << 63) - 1),
        "accepted": st.integers(0, 1 << 40),
        "rejected": st.dictionaries(st.tuples(CODES, CODES), COUNTS, max_size=4),
        "repaired": st.dictionaries(CODES, COUNTS, max_size=4),
        "dead_letters": st.integers(0, 1 << 40),
        "parts": st.integers(0, 3),
    }
)


@examples(100)
@given(NOTED)
def test_what_was_noted_is_found(noted: dict[str, Any]) -> None:
    """All of it, whatever it is."""
    adapted = Adapted()
    adapted.accepted[1] = noted["accepted"]
    adapted.rejected = noted["rejected"]
    adapted.repaired = noted["repaired"] or None
    adapted.parts = [Part(1, b"", 1, 1)] * noted["parts"]
    made = RecentBatches(1)
    made.note(
        batch_id(1),
        noted["tenant"],
        noted["source"],
        noted["route"],
        noted["received_time_unix_nano"],
        adapted,
        noted["dead_letters"],
    )
    assert made.find(batch_id(1)) == Recent(**noted)


def test_memory_is_bounded() -> None:
    """The last ones stay."""
    made = RecentBatches(2)
    for number in (1, 2, 3):
        made.note(batch_id(number), "acme", SOURCE_OTLP, "/v1/logs", NOW, Adapted(), 0)
    assert [False, True, True] == [made.find(batch_id(number)) is not None for number in (1, 2, 3)]
