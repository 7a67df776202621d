"""Heads: HPACK's decoder with a memory, and an encoder without one."""

import pytest
from hpack import Decoder, Encoder, HPACKError
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.http2 import pieces

from collector.http2.headers import FIELDS_MAX, HeadDecoder, HeadError, RequestHead, encode, encode_all

GOOD = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b"te", b"trailers"), (b"content-length", b"5")]

NAMES = st.sampled_from([b"x-api-key", b"user-agent", b"content-type", b"grpc-timeout", b"te", b"a"])
HEADS = st.lists(st.tuples(NAMES, st.sampled_from([b"", b"1", b"2", b"trailers", b"x" * 300])), max_size=6)


@given(heads=st.lists(st.tuples(HEADS, st.booleans(), st.none() | st.integers(0, 4096)), max_size=30))
def test_what_is_remembered_of_a_head_is_what_it_means(
    heads: list[tuple[list[tuple[bytes, bytes]], bool, int | None]],
) -> None:
    """It is the same as hpack's decoder reads each time, whatever is in the table by then, and however its size changes."""
    encoder, plain, decoder = Encoder(), Decoder(), HeadDecoder(100_000)
    for head, again, table_bytes in heads:
        if table_bytes is not None:
            encoder.header_table_size = table_bytes
        for _ in range(1 + again):
            block = encoder.encode(head)
            expected = [(bytes(name), bytes(value)) for name, value in plain.decode(block, raw=True)]
            assert decoder.decode(block).headers == expected


def test_a_head_that_comes_again_is_the_same_object() -> None:
    """It is once the table has it, so what was made of it can be kept there."""
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
        [*GOOD[:3], (b"content-length", b"1"), (b"content-length", b"1")],
        [*GOOD[:3], (b"content-length", b"")],
        [*GOOD[:3], (b"content-length", b"+1")],
        [*GOOD[:3], (b"content-length", b"1,1")],
        [*GOOD[:3], (b"content-length", b"9223372036854775808")],
        [*GOOD[:3], (b"content-length", b"1" * 5000)],
        [*GOOD[:3], (b"content-length", "٣".encode())],
        [*GOOD[:2], (b":path", b"")],
        [*GOOD[:2], (b":path", b"/\n")],
        [*GOOD[:2], (b":path", b" /x")],
        [(b":method", b"POST\t"), *GOOD[1:]],
        [*GOOD[:3], (b":authority", b"a ")],
        [*GOOD[:3], (b"a\0", b"1")],
        [*GOOD[:3], (b"a b", b"1")],
        [*GOOD[:3], (b"a\x7f", b"1")],
        [*GOOD[:3], (b"a\xff", b"1")],
        [*GOOD[:3], (b"a:b", b"1")],
        [(b":method", b"CONNECT"), (b":path", b"/x"), (b":authority", b"a:1")],
        [(b":method", b"CONNECT")],
    ],
)
def test_what_is_not_well_formed_is_marked(headers: list[tuple[bytes, bytes]]) -> None:
    """A request's head. Trailers alone have no pseudo-header, and are recognized by that."""
    head = RequestHead(headers)
    assert head.is_malformed or head.is_trailers


def test_a_good_one_is_not() -> None:
    head = RequestHead(GOOD)
    assert (head.is_malformed, head.is_trailers, head.content_length) == (False, False, 5)
    assert (head.method, head.path, head.authority) == (b"POST", b"/x", b"")
    assert RequestHead([(b":method", b"CONNECT"), (b":authority", b"a:1")]).is_malformed is False
    spaced = RequestHead([*GOOD[:3], (b"x-api-key", b"\t KEY "), (b"te", b"trailers ")])
    assert (spaced.is_malformed, spaced.headers) == (False, [(b"x-api-key", b"KEY"), (b"te", b"trailers")])


FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b":path", b"x-a", b"accept", b"n" * 90]) | st.binary(min_size=1, max_size=20),
        st.binary(max_size=60) | st.sampled_from([b"/", b"a" * 300, b"~" * 6000, b"0" * 20_000]),
    ),
    max_size=8,
)


@given(
    heads=st.lists(st.tuples(FIELDS, st.booleans(), st.none() | st.integers(0, 4096)), max_size=12),
    cuts=st.lists(st.integers(0, 100_000), max_size=6),
)
@examples(150)
def test_any_encoder_is_understood_as_hpack_does(
    heads: list[tuple[list[tuple[bytes, bytes]], bool, int | None]], cuts: list[int]
) -> None:
    """The text may be in one piece or several, with Huffman's code or without, with any size of the table."""
    encoder, plain = Encoder(), Decoder(max_header_list_size=1_000_000)
    whole, cut = HeadDecoder(1_000_000), HeadDecoder(1_000_000)
    for head, huffman, table_bytes in heads:
        if table_bytes is not None:
            encoder.header_table_size = table_bytes
        block = encoder.encode(head, huffman=huffman)
        expected = RequestHead([(bytes(name), bytes(value)) for name, value in plain.decode(block, raw=True)])
        for piece in pieces(block, cuts):
            cut.feed(piece)
        for actual in (whole.decode(block), cut.finish()):
            assert actual.headers == expected.headers
            assert (actual.is_malformed, actual.size_bytes) == (expected.is_malformed, expected.size_bytes)
            assert not actual.is_cut


@given(
    heads=st.lists(st.tuples(FIELDS, st.booleans()), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 100_000), max_size=6),
)
@examples(150)
def test_a_head_over_the_limit_leaves_the_table_in_step(
    heads: list[tuple[list[tuple[bytes, bytes]], bool]], cuts: list[int]
) -> None:
    """What follows it means what hpack says. Little more than the limit is kept of it, in pieces or not."""
    encoder, plain, decoder = Encoder(), Decoder(max_header_list_size=1_000_000), HeadDecoder(500)
    for head, huffman in heads:
        block = encoder.encode(head, huffman=huffman)
        expected = RequestHead([(bytes(name), bytes(value)) for name, value in plain.decode(block, raw=True)])
        for piece in pieces(block, cuts):
            decoder.feed(piece)
            assert len(decoder.pending()) <= 4096 * 4
        actual = decoder.finish()
        assert actual.is_cut == (expected.size_bytes > 500)
        if not actual.is_cut:
            assert actual.headers == expected.headers


@pytest.mark.parametrize("pieces_count", [1, 2])
def test_a_head_has_a_bounded_number_of_fields(pieces_count: int) -> None:
    """A field of five octets takes 130 bytes of memory. What is beyond is not kept, and the table stays in step."""
    decoder = HeadDecoder(1 << 20)
    block = b"\x82\x86\x84" + b"\0\1a\1b" * 2_000 + b"\x40\1c\1d"
    for number in range(pieces_count):
        decoder.feed(block[number * len(block) // pieces_count : (number + 1) * len(block) // pieces_count])
    head = decoder.finish()
    assert head.is_cut
    assert len(head.headers) + 3 == FIELDS_MAX
    assert [(b"c", b"d")] == decoder.decode(b"\x82\x86\x84\xbe").headers


@given(block=st.binary(max_size=60) | st.lists(st.sampled_from([b"\x82", b"\x40", b"\x01a", b"\x81\x1f"])).map(b"".join))
@examples(300)
def test_any_bytes_are_a_head_or_an_error_as_hpack_has_it(block: bytes) -> None:
    decoder = HeadDecoder(10_000)
    try:
        plain = [(bytes(name), bytes(value)) for name, value in Decoder().decode(block, raw=True)]
    except (HPACKError, IndexError, ValueError):
        plain = None
    try:
        head = decoder.decode(block)
    except HeadError:
        return  # also where hpack is not as strict
    assert plain is not None
    assert head.headers == RequestHead(plain).headers


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbe",  # beyond the table
        b"\x82\x20",  # a change of the table's size, not at the beginning
        b"\x3f\xe2\x1f",  # a table of 4097 bytes
        b"\x00\x01a\x81\x00",  # Huffman: padded with zeros
        b"\x00\x01a\x82\x1f\xff",  # Huffman: padded with more than 7 bits
        b"\x00\x01a\x84\xff\xff\xff\xff",  # Huffman: the end of a string within it
        b"\x00\x01",  # truncated
        b"\x00\x01a\x7f\xff\xff\xff\xff\xff\xff\x01",  # an integer without end
    ],
)
def test_a_block_that_breaks_the_format_is_an_error(block: bytes) -> None:
    with pytest.raises(HeadError):
        HeadDecoder(10_000).decode(block)
