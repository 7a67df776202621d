"""adapters/otlp against its twin in plain protobuf: whatever comes, the same items are refused and the same records made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.limits import LOW_CUMULATIVE
from support.references.otlp import REQUESTS
from support.references.twins import NOW, adapt_otlp, check_otlp
from support.strategies.otlp import messages, oddly_written

from adapters.errors import ATTRIBUTE_VALUE_TOO_LONG

SIGNALS = sorted(REQUESTS)


@pytest.mark.parametrize("signal", SIGNALS)
@examples(60)
@given(data=st.data())
def test_any_request_is_adapted_as_the_twin_does(signal: str, data: st.DataObject) -> None:
    """A request written by the official encoder gives the twin's records and verdicts."""
    check_otlp(signal, data.draw(messages(REQUESTS[signal].DESCRIPTOR)).SerializeToString())


@pytest.mark.parametrize("signal", SIGNALS)
@examples(60)
@given(data=st.data())
def test_an_oddly_written_request_is_adapted_as_the_twin_does(signal: str, data: st.DataObject) -> None:
    """Fields out of order, repeated, split, unpacked or unknown mean what protobuf says they mean."""
    check_otlp(signal, data.draw(oddly_written(data.draw(messages(REQUESTS[signal].DESCRIPTOR)))))


@examples(60)
@given(data=st.data())
def test_metrics_without_a_temporality_are_adapted_as_the_twin_does(data: st.DataObject) -> None:
    """Stored as cumulative, however the request is written."""
    message = data.draw(messages(REQUESTS["metrics"].DESCRIPTOR))
    body = data.draw(st.one_of(st.just(message.SerializeToString()), oddly_written(message)))
    check_otlp("metrics", body, LOW_CUMULATIVE)


@pytest.mark.parametrize("signal", SIGNALS)
@examples(50)
@given(data=st.data())
def test_damaged_bytes_get_protobufs_own_verdict(signal: str, data: st.DataObject) -> None:
    """A byte changed somewhere is refused, or read, exactly as protobuf's parser does."""
    body = bytearray(data.draw(messages(REQUESTS[signal].DESCRIPTOR)).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    check_otlp(signal, bytes(body))


@pytest.mark.parametrize("signal", SIGNALS)
@examples(30)
@given(body=st.binary(max_size=200))
def test_random_bytes_get_protobufs_own_verdict(signal: str, body: bytes) -> None:
    check_otlp(signal, body)


@pytest.mark.parametrize(("unknown_bytes", "refused"), [(115, []), (116, [ATTRIBUTE_VALUE_TOO_LONG])])
def test_the_size_of_a_value_counts_as_it_is_sent(unknown_bytes: int, refused: list[int]) -> None:
    """At most 120 bytes here: two of a bool, three of an unknown field's tag and length, and the content of that field."""
    request = REQUESTS["logs"]()
    log = request.resource_logs.add().scope_logs.add().log_records.add()
    log.attributes.add(key="odd").value.MergeFromString(
        b"\x10\x01" + b"\xe2\x01" + bytes([unknown_bytes]) + bytes(unknown_bytes)
    )
    adapted = adapt_otlp("logs", request.SerializeToString())
    assert refused == [rejection.reason for rejection in adapted.rejections]


@pytest.mark.parametrize(
    ("observed_s_ago", "taken"), [(0, True), (86_399, True), (86_401, False), (None, False), (-700, False)]
)
def test_the_observed_time_counts_where_a_logs_own_is_too_old(observed_s_ago: int | None, taken: bool) -> None:
    """A backlog that an agent has observed now is taken; one that was observed long ago, or in the future, is not."""
    request = REQUESTS["logs"]()
    log = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=NOW - 10 * 86_400 * 10**9)
    if observed_s_ago is not None:
        log.observed_time_unix_nano = NOW - observed_s_ago * 10**9
    check_otlp("logs", request.SerializeToString())
    assert int(taken) == adapt_otlp("logs", request.SerializeToString()).accepted_count()
