"""What /metrics writes is read back, and any other text is a ValueError."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.top import Collector

from collector.telemetry.scrape import read_text


@settings(max_examples=20)
@given(st.lists(st.text(max_size=12), max_size=4, unique=True))
def test_what_was_written_is_read_back(tenants: list[str]) -> None:
    """Every family, with its samples except buckets, whatever the tenants are called."""
    collector = Collector()
    for tenant in tenants:
        collector.take(tenant.encode(errors="replace").decode(), accepted=1, rejected=2, repaired=3)
    expected = {
        family.name: {
            (name, tuple(sorted(labels))): value
            for (name, labels), value in family.samples.items()
            if not name.endswith("_bucket")
        }
        for family in collector.metrics.shown()
        # These move while they are read.
        if not family.name.startswith(("process_", "python_"))
    }
    found = {family.name: family.samples for family in read_text(collector.page())}
    assert expected == {name: samples for name, samples in found.items() if name in expected}


@pytest.mark.parametrize(
    "text", ["<html>", "a b c d", 'a{b="c} 1', "a 1_0", "# TYPE a counter\na{", "{} 1", "a{b=c} 1", '{"a"']
)
def test_other_text_is_no_snapshot(text: str) -> None:
    with pytest.raises(ValueError, match="not Prometheus text"):
        read_text(text)


@given(st.text(alphabet=st.sampled_from('a_b{}="\\,# \n1.eE+-NaTYPEHLcounter\u2028')))
def test_other_text_is_a_value_error(text: str) -> None:
    """No text raises anything else."""
    with contextlib.suppress(ValueError):
        read_text(text)
