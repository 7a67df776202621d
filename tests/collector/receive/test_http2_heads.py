"""Heads: HPACK's decoder with a memory, and an encoder without one."""

import pytest
from hpack import Decoder, Encoder, HPACKError
from hypothesis import given
from hypothesis import strategies as st

from collector.receive.servers.http2_heads import HeadDecoder, RequestHead, encode, encode_all

GOOD = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b"te", b"trailers"), (b"content-length", b"5")]

NAMES = st.sampled_from([b"x-api-key", b"user-agent", b"content-type", b"grpc-timeout", b"te", b"a"])
HEADS = st.lists(st.tuples(NAMES, st.sampled_from([b"", b"1", b"2", b"trailers", b"x" * 300])), max_size=6)


@given(heads=st.lists(st.tuples(HEADS, st.booleans(), st.none() | st.integers(0, 4096)), max_size=30))
def test_what_is_remembered_of_a_head_is_what_it_means(
    heads: list[tuple[list[tuple[bytes, bytes]], bool, int | None]],
) -> None:
    """Whatever stands in the table by then, and however its size changes: the same as hpack's own decoder says each time."""
    encoder, plain, decoder = Encoder(), Decoder(), HeadDecoder(100_000)
    for head, again, table_bytes in heads:
        if table_bytes is not None:
            encoder.header_table_size = table_bytes
        for _ in range(1 + again):
            block = encoder.encode(head)
            expected = [(bytes(name), bytes(value)) for name, value in plain.decode(block, raw=True)]
            assert decoder.decode(block).headers == expected


def test_a_head_that_comes_again_is_the_same_object() -> None:
    """Once the table has it: so what was made of it can be kept there."""
    encoder, decoder = Encoder(), HeadDecoder(100_000)
    decoder.decode(encoder.encode(GOOD))
    block = encoder.encode(GOOD)
    assert decoder.decode(block) is decoder.decode(block)
    decoder.decode(encoder.encode([(b"x-new", b"1")]))
    assert decoder.decode(encoder.encode(GOOD)).headers == GOOD[3:]


@given(
    headers=st.lists(st.tuples(st.sampled_from([b":status", b"date", b"x-b", b"n" * 200]), st.binary(max_size=400)), max_size=9)
)
def test_what_is_encoded_is_decoded_by_others(headers: list[tuple[bytes, bytes]]) -> None:
    decoder = Decoder()
    for _ in range(2):
        assert [tuple(header) for header in decoder.decode(encode_all(headers), raw=True)] == headers
    assert not decoder.header_table.dynamic_entries


def test_what_is_usual_takes_one_byte() -> None:
    assert encode(b":status", b"200") == b"\x88"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        GOOD[1:],
        GOOD[:2],
        [*GOOD, (b":path", b"/late")],
        [GOOD[0], *GOOD],
        [*GOOD[:3], (b":protocol", b"x")],
        [*GOOD[:3], (b"X-A", b"1")],
        [*GOOD[:3], (b"", b"1")],
        [*GOOD[:3], (b"connection", b"close")],
        [*GOOD[:3], (b"transfer-encoding", b"chunked")],
        [*GOOD[:3], (b"te", b"gzip")],
        [*GOOD[:3], (b"a", b"1\r\nb: 2")],
        [*GOOD[:3], (b"a", b"\0")],
        [*GOOD[:3], (b"content-length", b"-1")],
        [*GOOD[:3], (b"content-length", b"1"), (b"content-length", b"2")],
    ],
)
def test_what_is_not_well_formed_is_marked(headers: list[tuple[bytes, bytes]]) -> None:
    """A request's head. Trailers alone have no pseudo-header, and are told by that."""
    head = RequestHead(headers)
    assert head.is_malformed or head.is_trailers


def test_a_good_one_is_not() -> None:
    head = RequestHead(GOOD)
    assert (head.is_malformed, head.is_trailers, head.content_length) == (False, False, 5)
    assert (head.method, head.path, head.authority) == (b"POST", b"/x", b"")
    assert RequestHead([(b":method", b"CONNECT"), (b":authority", b"a:1")]).is_malformed is False


def test_a_list_beyond_the_limit_is_an_error() -> None:
    """However small its block: a header of the table may be named again and again."""
    encoder, decoder = Encoder(), HeadDecoder(4096)
    with pytest.raises(HPACKError):
        decoder.decode(encoder.encode([(b"a", b"x" * 1000)] * 5))
