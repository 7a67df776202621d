"""What the store refused, sent again: as it is stored by this version."""

import random

import pytest
from support import batches
from support.references.readable import refused_form
from support.strategies.wire_forms import Forms

from adapters.rows import row_bytes
from collector.dead_letters.replay import refused_record


@pytest.mark.parametrize("oddity", ["list_empty", "padded_varint", "unknown_field", "unknown_group", "list_unpacked"])
def test_a_refused_record_is_written_anew(oddity: str) -> None:
    """A form that an earlier version let through becomes the same record in a form that ClickHouse reads."""
    lot = random.Random(1)
    for record in batches.metrics(1, "tenant-a").records:
        if not record.metrics:
            continue
        usual = batches.metrics(1, "tenant-a")
        del usual.records[:]
        usual.records.append(record)
        adapted = refused_record(Forms(lot, [oddity], 0.7).form(usual), b"x" * 16)
        usual.records[0].batch_id = b"x" * 16
        usual.records[0].batch_part = 0
        (part,) = adapted.parts
        assert part.payload == usual.SerializeToString()
        assert refused_form(part.payload) == ""
        assert part.row_bytes == adapted.row_bytes == row_bytes(part.payload)
