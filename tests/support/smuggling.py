"""Requests that two readers may frame differently: what HTTP/1.1 and HTTP/2 say of each, and what our servers do.

An honest request follows each case. A reader that is misled answers a request that nobody sent, or takes the honest one for a
body. So a case has the statuses of all answers in their order, including the honest one's.
"""

import asyncio
import re
from typing import Final, NamedTuple

from support.fakes.receiving import otlp_logs

BODY: Final = otlp_logs()
SIZE: Final = b"%d" % len(BODY)
HEX: Final = b"%x" % len(BODY)
_LINE: Final = b"POST /v1/logs HTTP/1.1\r\n"
_FIELDS: Final = b"Host: a\r\nContent-Type: application/x-protobuf\r\n"
# A second request that hides in the first, as an attacker would send it.
HIDDEN: Final = (
    b"POST /v1/logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-protobuf\r\nContent-Length: " + SIZE + b"\r\n\r\n" + BODY
)


class Heard(asyncio.Protocol):
    """All that a server says on a connection until it closes it, also where it resets it after."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closed.set()

    def statuses(self) -> tuple[int, ...]:
        return tuple(int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.data))


class Case(NamedTuple):
    """`section`: of RFC 9112, or 9110 or 9113 where it says so. `statuses`: of all answers. One alone ends the connection."""

    section: str
    what: str
    data: bytes
    statuses: tuple[int, ...]


def _sized(fields: bytes, body: bytes = BODY, line: bytes = _LINE) -> bytes:
    """A request with these fields, each line ended but the last."""
    return line + _FIELDS + fields + b"\r\n\r\n" + body


def _chunked(body: bytes, fields: bytes = b"Transfer-Encoding: chunked") -> bytes:
    return _sized(fields, body)


def _one_chunk(size: bytes, after: bytes = b"\r\n", end: bytes = b"\r\n0\r\n\r\n") -> bytes:
    """The body as one chunk, behind that line."""
    return _chunked(size + after + BODY + end)


def _length(value: bytes) -> bytes:
    return _sized(b"Content-Length: " + value)


def _coding(value: bytes) -> bytes:
    return _chunked(HEX + b"\r\n" + BODY + b"\r\n0\r\n\r\n", b"Transfer-Encoding: " + value)


def _trailer(fields: bytes) -> bytes:
    return _one_chunk(HEX, end=b"\r\n0\r\n" + fields + b"\r\n\r\n")


def _named(name: bytes) -> bytes:
    """A Content-Length by that name."""
    return _sized(name + b": " + SIZE)


def _asked(line: bytes, fields: bytes = b"Host: a") -> bytes:
    return line + b"\r\n" + fields + b"\r\n\r\n"


_OK: Final = (200, 200)
_BAD: Final = (400,)

CONTENT_LENGTH: Final = (
    Case("6.2", "digits", _length(SIZE), _OK),
    Case("5", "spaces and tabs around it", _length(b"\t " + SIZE + b" \t"), _OK),
    Case("9110 8.6", "leading zeros", _length(b"0" * 60 + SIZE), _OK),
    Case("9110 8.6", "a sign", _length(b"+" + SIZE), _BAD),
    Case("9110 8.6", "a minus", _length(b"-" + SIZE), _BAD),
    Case("9110 8.6", "nothing", _length(b""), _BAD),
    Case("9110 8.6", "hex", _length(b"0x1"), _BAD),
    Case("9110 8.6", "an exponent", _length(b"1e1"), _BAD),
    Case("9110 8.6", "a fraction", _length(SIZE + b".0"), _BAD),
    Case("9110 8.6", "Python's underscore", _length(b"1_" + SIZE), _BAD),
    Case("9110 8.6", "quotes", _length(b'"' + SIZE + b'"'), _BAD),
    Case("9110 8.6", "a parameter", _length(SIZE + b";a"), _BAD),
    Case("9110 8.6", "digits of another script", _length("\u0665".encode()), _BAD),
    Case("9110 8.6", "2^64", _length(b"18446744073709551616"), _BAD),
    Case("9110 8.6", "2^64 and the size", _length(b"%d" % (2**64 + len(BODY))), _BAD),
    Case("9110 8.6", "forty digits", _length(b"9" * 40), _BAD),
    Case("6.3", "two that differ, by a space", _length(SIZE + b" 0"), _BAD),
    Case("6.3", "a list of the same", _length(SIZE + b", " + SIZE), _BAD),
    Case("6.3", "a list of two", _length(SIZE + b",0"), _BAD),
    Case("6.3", "a list that ends", _length(SIZE + b","), _BAD),
    Case("6.3", "twice the same", _sized(b"Content-Length: " + SIZE + b"\r\nContent-Length: " + SIZE), _BAD),
    Case("6.3", "twice, not the same", _sized(b"Content-Length: " + SIZE + b"\r\nContent-Length: 0"), _BAD),
    Case("6.3", "twice, in other letters", _sized(b"Content-Length: 0\r\nCONTENT-LENGTH: " + SIZE), _BAD),
    Case("2.2", "a vertical tab", _length(b"\x0b" + SIZE), _BAD),
    Case("2.2", "a form feed", _length(SIZE + b"\x0c"), _BAD),
    Case("9110 5.5", "NUL behind it", _length(SIZE + b"\0"), _BAD),
    Case("9110 5.5", "NUL before it", _length(b"\0" + SIZE), _BAD),
    Case("9110 5.6.3", "Latin-1's space before it", _length(b"\xa0" + SIZE), _BAD),
    Case("9110 5.6.3", "Latin-1's line end behind it", _length(SIZE + b"\x85"), _BAD),
    Case("5.2", "folded before it", _length(b"\r\n " + SIZE), _BAD),
    Case("5.2", "folded behind it", _length(SIZE + b"\r\n 0"), _BAD),
    Case("6.3", "shorter than the body", _length(b"%d" % (len(BODY) - 1)), (400, 400)),
    Case("6.3", "none, and no body", _sized(b"X: y", b""), _OK),
    Case("6.3", "none, and a body", _sized(b"X: y"), (200, 400)),
    Case("6.3", "an underscore in the name", _sized(b"Content_Length: " + SIZE, b""), _OK),
)

TRANSFER_ENCODING: Final = (
    Case("7.1", "chunked", _coding(b"chunked"), _OK),
    Case("7", "in capitals, and a space", _coding(b"CHUNKED "), _OK),
    Case("6.1", "with Content-Length before it", _coding(b"chunked\r\nContent-Length: 5"), _BAD),
    Case(
        "6.1", "with Content-Length behind it", _chunked(b"0\r\n\r\n", b"Content-Length: 5\r\nTransfer-Encoding: chunked"), _BAD
    ),
    Case("6.1", "with a Content-Length of 0", _coding(b"chunked\r\nContent-Length: 0"), _BAD),
    Case(
        "6.1",
        "a Content-Length of 0 before it",
        _coding(b"chunked").replace(b"Transfer", b"Content-Length: 0\r\nTransfer"),
        _BAD,
    ),
    Case("6.1", "in small letters, with Content-Length", _coding(b"chunked\r\ncontent-length: 5"), _BAD),
    Case("6.1", "identity, with Content-Length", _sized(b"Transfer-Encoding: identity\r\nContent-Length: " + SIZE), _BAD),
    Case(
        "6.1", "one that nobody knows, with Content-Length", _sized(b"Transfer-Encoding: cow\r\nContent-Length: " + SIZE), _BAD
    ),
    Case("6.1", "in HTTP/1.0", _coding(b"chunked").replace(b"HTTP/1.1", b"HTTP/1.0"), _BAD),
    Case(
        "6.1",
        "in HTTP/1.0, with Content-Length",
        _coding(b"chunked\r\nContent-Length: 5").replace(b"HTTP/1.1", b"HTTP/1.0"),
        _BAD,
    ),
    Case("6.1", "one that nobody knows", _coding(b"cow"), (501,)),
    Case("6.1", "identity", _coding(b"identity"), (501,)),
    Case("6.1", "gzip", _coding(b"gzip"), (501,)),
    Case("6.1", "gzip, then chunked", _coding(b"gzip, chunked"), (501,)),
    Case("6.1", "identity, then chunked", _coding(b"identity, chunked"), (501,)),
    Case("6.3", "chunked, not as the last", _coding(b"chunked, gzip"), _BAD),
    Case("6.1", "chunked twice", _coding(b"chunked, chunked"), _BAD),
    Case("6.1", "chunked in two fields", _coding(b"chunked\r\nTransfer-Encoding: chunked"), _BAD),
    Case("6.1", "another field behind it", _coding(b"chunked\r\nTransfer-Encoding: cow"), _BAD),
    Case("6.1", "an empty field behind it", _coding(b"chunked\r\nTransfer-Encoding:"), _BAD),
    Case("6.1", "another field before it", _coding(b"cow\r\nTransfer-Encoding: chunked"), (501,)),
    Case("6.1", "identity in a field before it", _coding(b"identity\r\nTransfer-Encoding: chunked"), (501,)),
    Case("7", "more letters before it", _coding(b"xchunked"), (501,)),
    Case("7", "more letters behind it", _coding(b"chunkedx"), (501,)),
    Case("7", "a space in it", _coding(b"chun ked"), (501,)),
    Case("7", "a letter that folds to its k", _coding("chun\u212aed".encode()), (501,)),
    Case("7", "quotes", _coding(b'"chunked"'), (501,)),
    Case("7", "a parameter", _coding(b"chunked;a=b"), (501,)),
    Case("7", "a comma before it", _coding(b",chunked"), (501,)),
    Case("7", "a comma behind it", _coding(b"chunked,"), _BAD),
    Case("6.3", "nothing", _coding(b""), _BAD),
    Case("9110 5.6.3", "Latin-1's space before it", _coding(b"\xa0chunked"), (501,)),
    Case("9110 5.6.3", "a byte of no text behind it", _coding(b"chunked\xff"), (501,)),
    Case("2.2", "a vertical tab before it", _coding(b"\x0bchunked"), _BAD),
    Case("2.2", "a vertical tab behind it", _coding(b"chunked\x0b"), _BAD),
    Case("9110 5.5", "NUL before it", _coding(b"\0chunked"), _BAD),
    Case("9110 5.5", "NUL behind it", _coding(b"chunked\0"), _BAD),
    Case("5.2", "folded before it", _coding(b"\r\n chunked"), _BAD),
    Case("5.2", "folded behind it", _coding(b"chunked\r\n , cow"), _BAD),
    Case("5.2", "folded by a tab", _coding(b"\r\n\tchunked"), _BAD),
    Case("6.1", "an underscore in the name", _sized(b"Transfer_Encoding: chunked", b""), _OK),
    Case("9110 10.1.4", "in TE, which is not of the request", _sized(b"TE: chunked\r\nContent-Length: " + SIZE), _OK),
    Case("7.1", "a second request in the chunks", _chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)), (400, 200)),
    Case("6.3", "chunks of which the last is missing", _chunked(HEX + b"\r\n" + BODY + b"\r\n"), _BAD),
)

CHUNKS: Final = (
    Case("7.1", "in capitals, with zeros before", _one_chunk(b"0000000000000" + HEX.upper()), _OK),
    Case("7.1", "a last one of many zeros", _one_chunk(HEX, end=b"\r\n000\r\n\r\n"), _OK),
    Case("7.1.1", "an extension", _one_chunk(HEX + b";e"), _OK),
    Case("7.1.1", "an extension with a value", _one_chunk(HEX + b";e=v"), _OK),
    Case("7.1.1", "an extension in quotes", _one_chunk(HEX + b';e="a;b\\"c"'), _OK),
    Case("7.1.1", "an extension of the last one", _one_chunk(HEX, end=b"\r\n0;e=v\r\n\r\n"), _OK),
    Case("7.1.1", "quotes that do not end", _one_chunk(HEX + b';e="a'), _BAD),
    Case("7.1.1", "an extension without a name", _one_chunk(HEX + b";"), _BAD),
    Case("7.1.1", "a line feed in an extension", _one_chunk(HEX + b";a\nb"), _BAD),
    Case("7.1.1", "a carriage return in an extension", _one_chunk(HEX + b";a\rb"), _BAD),
    Case("7.1.1", "a line feed in quotes", _one_chunk(HEX + b';e="a\nb"'), _BAD),
    Case("7.1.1", "an extension that ends in a line feed", _one_chunk(HEX + b";e", after=b"\n"), _BAD),
    Case("7.1.1", "NUL in an extension", _one_chunk(HEX + b";\0"), _BAD),
    Case("7.1.1", "a control character in an extension", _one_chunk(HEX + b";e\x01"), _BAD),
    Case("7.1.1", "extensions without end", _one_chunk(HEX + b";" + b"e" * 600_000), (431,)),
    Case("7.1", "a space before the size", _one_chunk(b" " + HEX), _BAD),
    Case("7.1", "a tab before the size", _one_chunk(b"\t" + HEX), _BAD),
    Case("7.1", "a space behind the size", _one_chunk(HEX + b" "), _BAD),
    Case("7.1", "more behind a space", _one_chunk(HEX + b" 0"), _BAD),
    Case("7.1", "a vertical tab behind the size", _one_chunk(HEX + b"\x0b"), _BAD),
    Case("7.1", "0x", _one_chunk(b"0x" + HEX), _BAD),
    Case("7.1", "a sign", _one_chunk(b"+" + HEX), _BAD),
    Case("7.1", "a minus", _one_chunk(b"-" + HEX), _BAD),
    Case("7.1", "Python's underscore", _one_chunk(HEX + b"_0"), _BAD),
    Case("7.1", "a fraction", _one_chunk(HEX + b".0"), _BAD),
    Case("7.1", "a list", _one_chunk(HEX + b",0"), _BAD),
    Case("7.1", "no hex", _one_chunk(b"g"), _BAD),
    Case("7.1", "no size", _one_chunk(b""), _BAD),
    Case("7.1", "2^64 and the size", _one_chunk(b"1" + HEX.rjust(16, b"0")), _BAD),
    Case("7.1", "2^96 and the size", _one_chunk(b"1" + HEX.rjust(24, b"0")), _BAD),
    Case("2.2", "a line feed behind the size", _one_chunk(HEX, after=b"\n"), _BAD),
    Case("2.2", "a carriage return behind the size", _one_chunk(HEX, after=b"\r"), _BAD),
    Case("2.2", "two carriage returns behind the size", _one_chunk(HEX, after=b"\r\r\n"), _BAD),
    Case("7.1", "a line feed behind the data", _one_chunk(HEX, end=b"\n0\r\n\r\n"), _BAD),
    Case("7.1", "nothing behind the data", _one_chunk(HEX, end=b"0\r\n\r\n"), _BAD),
    Case("7.1", "two other bytes behind the data", _one_chunk(HEX, end=b"XX0\r\n\r\n"), _BAD),
    Case("7.1", "a carriage return and a byte behind the data", _one_chunk(HEX, end=b"\rX0\r\n\r\n"), _BAD),
    Case("7.1", "more data than the size", _one_chunk(HEX, end=b"X\r\n0\r\n\r\n"), _BAD),
    Case("7.1", "a minus before the last 0", _one_chunk(HEX, end=b"\r\n-0\r\n\r\n"), _BAD),
    Case("2.2", "line feeds at the end", _one_chunk(HEX, end=b"\r\n0\n\n"), _BAD),
    Case("2.2", "a line feed at the very end", _one_chunk(HEX, end=b"\r\n0\r\n\n"), _BAD),
    Case("2.2", "a line feed behind the last 0", _one_chunk(HEX, end=b"\r\n0\n\r\n"), _BAD),
    Case("2.2", "carriage returns at the end", _one_chunk(HEX, end=b"\r\n0\r\r"), _BAD),
    Case("7.1", "a byte in place of the empty line", _one_chunk(HEX, end=b"\r\n0\r\nX\r\n"), _BAD),
)

TRAILERS: Final = (
    Case("7.1.2", "one", _trailer(b"X: y"), _OK),
    Case("9110 6.5.1", "a key, which is ignored", _trailer(b"X-API-Key: k"), _OK),
    Case("9110 6.5.1", "Host, which is ignored", _trailer(b"Host: b"), _OK),
    Case("9110 6.5.1", "Expect, which is ignored", _trailer(b"Expect: 100-continue"), _OK),
    Case("9110 6.5.1", "Content-Type, which is ignored", _trailer(b"Content-Type: text/plain"), _OK),
    Case("9110 6.5.1", "Content-Length", _trailer(b"Content-Length: 50"), _BAD),
    Case("9110 6.5.1", "Transfer-Encoding", _trailer(b"Transfer-Encoding: chunked"), _BAD),
    Case("9110 6.5.1", "Connection", _trailer(b"Connection: close"), _BAD),
    Case("9110 6.5.1", "Connection and Upgrade", _trailer(b"Connection: upgrade\r\nUpgrade: h2c"), _BAD),
    Case("5.1", "a space before the colon", _trailer(b"X : y"), _BAD),
    Case("5.2", "a space before the first", _trailer(b" X: y"), _BAD),
    Case("5.2", "folded", _trailer(b"X: y\r\n z"), _BAD),
    Case("5", "no colon", _trailer(b"X"), _BAD),
    Case("5", "no name", _trailer(b": y"), _BAD),
    Case("2.2", "a line feed", _trailer(b"X: y\nZ: y"), _BAD),
    Case("9110 5.5", "NUL", _trailer(b"X: \0"), _BAD),
    Case("5", "without end", _trailer(b"X: " + b"y" * 70_000), (431,)),
    Case("5", "a second request in their place", _one_chunk(HEX, end=b"\r\n0\r\n" + HIDDEN), _BAD),
)

REQUEST_LINE: Final = (
    Case("3", "as it should be", _asked(b"GET /x HTTP/1.1"), (404, 200)),
    Case("2.2", "empty lines before it", _asked(b"\r\n\r\nGET /x HTTP/1.1"), (404, 200)),
    Case("3", "a space before it", _asked(b" GET /x HTTP/1.1"), _BAD),
    Case("3", "a space behind it", _asked(b"GET /x HTTP/1.1 "), _BAD),
    Case("3", "a tab behind the method", _asked(b"GET\t/x HTTP/1.1"), _BAD),
    Case("3", "a tab before the version", _asked(b"GET /x\tHTTP/1.1"), _BAD),
    Case("3", "a space in the target", _asked(b"GET /a b HTTP/1.1"), _BAD),
    Case("3", "a vertical tab in the target", _asked(b"GET /\x0bx HTTP/1.1"), _BAD),
    Case("2.2", "a line feed behind it", _sized(b"Content-Length: " + SIZE).replace(b"\r\n", b"\n", 1), _BAD),
    Case("2.2", "a carriage return behind it", _sized(b"Content-Length: " + SIZE).replace(b"\r\n", b"\r", 1), _BAD),
    Case("2.2", "line feeds everywhere", _sized(b"Content-Length: " + SIZE).replace(b"\r\n", b"\n"), _BAD),
    Case("9110 9.1", "the method in small letters", _asked(b"get /x HTTP/1.1"), _BAD),
    Case("9110 9.1", "a method that nobody knows", _asked(b"HACK /x HTTP/1.1"), _BAD),
    Case("9110 9.1", "a letter too many", _asked(b"GETX /x HTTP/1.1"), _BAD),
    Case("9110 5.6.2", "a method that is no token", _asked(b"G@T /x HTTP/1.1"), _BAD),
    Case("9110 5.5", "NUL in the method", _asked(b"GET\0 /x HTTP/1.1"), _BAD),
    Case("9110 5.5", "NUL in the target", _asked(b"GET /\0 HTTP/1.1"), _BAD),
    Case("9110 5.5", "NUL behind the version", _asked(b"GET /x HTTP/1.1\0"), _BAD),
    Case("3.2", "a byte of no text in the target", _asked(b"GET /\xff HTTP/1.1"), _BAD),
    Case("3.2", "a control character in the target", _asked(b"GET /\x01 HTTP/1.1"), _BAD),
    Case("3.2", "DEL in the target", _asked(b"GET /\x7f HTTP/1.1"), _BAD),
    Case("3.2", "a fragment", _asked(b"GET /x#f HTTP/1.1"), _BAD),
    Case("3.2", "a fragment behind a route", _sized(b"Content-Length: " + SIZE).replace(b"logs ", b"logs#f "), _BAD),
    Case("3.2", "a backslash", _asked(b"GET \\x HTTP/1.1"), _BAD),
    Case("3.2", "no slash", _asked(b"GET x HTTP/1.1"), _BAD),
    Case("3.2", "a line in percents is none", _asked(b"GET /%0d%0aX:%20y HTTP/1.1"), (404, 200)),
    Case("3.2.1", "two slashes are no host", _asked(b"GET //b/healthz HTTP/1.1"), (404, 200)),
    Case("3.2.1", "dots are not removed", _asked(b"GET /v1/logs/../../healthz HTTP/1.1"), (404, 200)),
    Case("3.2.2", "absolute, of another host", _asked(b"GET http://b/healthz HTTP/1.1"), (200, 200)),
    Case("3.2.2", "absolute, a route", _sized(b"Content-Length: " + SIZE).replace(b"/v1", b"http://b/v1", 1), _OK),
    Case("3.2.2", "absolute, without a host", _asked(b"GET http:///healthz HTTP/1.1"), _BAD),
    Case("3.2.2", "absolute, with half of a scheme", _asked(b"GET http:/healthz HTTP/1.1"), _BAD),
    Case("3.2.2", "absolute, with a port that is none", _asked(b"GET http://b:x/healthz HTTP/1.1"), _BAD),
    Case("3.2.3", "authority with GET", _asked(b"GET b:80 HTTP/1.1"), _BAD),
    Case("3.2.3", "CONNECT", _asked(b"CONNECT b:80 HTTP/1.1"), _BAD),
    Case("3.2.3", "CONNECT to a path", _asked(b"CONNECT /healthz HTTP/1.1"), _BAD),
    Case("3.2.4", "an asterisk", _asked(b"OPTIONS * HTTP/1.1"), (404, 200)),
    Case("2.3", "a version in small letters", _asked(b"GET /x http/1.1"), _BAD),
    Case("2.3", "a version of two digits", _asked(b"GET /x HTTP/1.10"), _BAD),
    Case("2.3", "a version with a zero", _asked(b"GET /x HTTP/01.1"), _BAD),
    Case("2.3", "a version with a comma", _asked(b"GET /x HTTP/1,1"), _BAD),
    Case("2.3", "half of a version", _asked(b"GET /x HTTP/1."), _BAD),
    Case("2.3", "a space in the version", _asked(b"GET /x HTTP /1.1"), _BAD),
    Case("2.3", "another protocol", _asked(b"GET /x ICE/1.0"), _BAD),
    Case("2.3", "HTTP/1.2", _asked(b"GET /x HTTP/1.2"), (505,)),
    Case("2.3", "HTTP/2.0", _asked(b"GET /x HTTP/2.0"), (505,)),
    Case("2.3", "no version", _asked(b"GET /x"), _BAD),
    Case(
        "9113 3.4",
        "HTTP/2's preface after a request",
        _asked(b"GET /x HTTP/1.1") + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        (404, 400),
    ),
    Case("3", "a target without end", _asked(b"GET /" + b"x" * 70_000 + b" HTTP/1.1"), (431,)),
    Case("9110 9.3.1", "a body with GET", _asked(b"GET /x HTTP/1.1", b"Host: a\r\nContent-Length: 5") + b"hello", (404, 200)),
    Case("9110 9.3.2", "a body with HEAD", _asked(b"HEAD /x HTTP/1.1", b"Host: a\r\nContent-Length: 5") + b"hello", (404, 200)),
    Case(
        "9110 9.3.5",
        "a request in the body of DELETE",
        _asked(b"DELETE /x HTTP/1.1", b"Host: a\r\nContent-Length: %d" % len(HIDDEN)) + HIDDEN,
        (404, 200),
    ),
    Case(
        "7.1",
        "chunks with GET",
        _asked(b"GET /healthz HTTP/1.1", b"Host: a\r\nTransfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
        _OK,
    ),
)

FIELDS: Final = (
    Case("5.1", "a space before the colon", _named(b"Content-Length "), _BAD),
    Case("5.1", "a tab before the colon", _named(b"Content-Length\t"), _BAD),
    Case("5.2", "a space before the name", _named(b" Content-Length"), _BAD),
    Case("5.2", "a tab before the name", _named(b"\tContent-Length"), _BAD),
    Case("9110 5.1", "a space in the name", _named(b"Content Length"), _BAD),
    Case("9110 5.1", "NUL in the name", _named(b"Content-Length\0"), _BAD),
    Case("9110 5.1", "a vertical tab in the name", _named(b"Content-Length\x0b"), _BAD),
    Case("9110 5.1", "a carriage return in the name", _named(b"Content\rLength"), _BAD),
    Case("9110 5.1", "a byte of no text in the name", _named(b"Content-Length\xff"), _BAD),
    Case("9110 5.1", "a byte of no text before the name", _named(b"\xefContent-Length"), _BAD),
    Case("9110 5.1", "brackets", _named(b"(X)"), _BAD),
    Case("9110 5.1", "quotes", _named(b'"X"'), _BAD),
    Case("9110 5.1", "a slash", _named(b"X/Y"), _BAD),
    Case("9110 5.1", "no name", _named(b""), _BAD),
    Case("5", "no colon", _sized(b"Content-Length"), _BAD),
    Case("2.2", "a carriage return in a value", _named(b"X: y\rContent-Length"), _BAD),
    Case("2.2", "a line feed in a value", _named(b"X: y\nContent-Length"), _BAD),
    Case("2.2", "two carriage returns and a line feed", _named(b"X: y\r\r\nContent-Length"), _BAD),
    Case("2.2", "a line feed and a carriage return", _named(b"X: y\n\rContent-Length"), _BAD),
    Case("9110 5.5", "NUL in a value", _named(b"X: y\0Content-Length"), _BAD),
    Case("9110 5.5", "a control character in a value", _sized(b"X: \x01\r\nContent-Length: " + SIZE), _BAD),
    Case("9110 5.5", "a byte of no text in a value", _sized(b"X: \xff\r\nContent-Length: " + SIZE), _OK),
    Case("9110 5.5", "no value", _named(b"X:\r\nContent-Length"), _OK),
    Case("5.2", "folded", _sized(b"X: y\r\n z\r\nContent-Length: " + SIZE), _BAD),
    Case("5.2", "a length in a fold", _sized(b"X: y\r\n Content-Length: 0\r\nContent-Length: " + SIZE), _BAD),
    Case("2.2", "a head that ends in a line feed", _sized(b"Content-Length: " + SIZE).replace(b"\r\n\r\n", b"\r\n\n"), _BAD),
    Case("2.2", "a head that ends in line feeds", _sized(b"Content-Length: " + SIZE).replace(b"\r\n\r\n", b"\n\n"), _BAD),
    Case("2.2", "a head that ends in carriage returns", _sized(b"Content-Length: " + SIZE).replace(b"\r\n\r\n", b"\r\r"), _BAD),
    Case(
        "2.2",
        "a carriage return in place of its end",
        _sized(b"Content-Length: " + SIZE).replace(b"\r\n\r\n", b"\r\n\rX"),
        _BAD,
    ),
    Case("5", "thousands", _sized(b"X: y\r\n" * 20_000 + b"Content-Length: " + SIZE), (431,)),
    Case("5", "a name without end", _sized(b"X" * 70_000 + b": y\r\nContent-Length: " + SIZE), (431,)),
    Case("5", "a value without end", _sized(b"X: " + b"y" * 70_000 + b"\r\nContent-Length: " + SIZE), (431,)),
    Case("3.2", "no Host", _LINE + b"Content-Length: 0\r\n\r\n", _BAD),
    Case("3.2", "two Hosts", _sized(b"Host: a\r\nContent-Length: " + SIZE), _BAD),
    Case("3.2", "a Host that is none", _asked(b"GET /x HTTP/1.1", b"Host: a b"), _BAD),
    Case("3.2", "two Hosts in one", _asked(b"GET /x HTTP/1.1", b"Host: a, b"), _BAD),
    Case("3.2", "a Host with a user", _asked(b"GET /x HTTP/1.1", b"Host: b@a"), _BAD),
)

CONNECTION: Final = (
    Case("9.6", "close", _sized(b"Connection: close\r\nContent-Length: " + SIZE), (200,)),
    Case("9.6", "close beside keep-alive", _sized(b"Connection: keep-alive, close\r\nContent-Length: " + SIZE), (200,)),
    Case(
        "9.6",
        "close in a second field",
        _sized(b"Connection: keep-alive\r\nConnection: close\r\nContent-Length: " + SIZE),
        (200,),
    ),
    Case("9.3", "HTTP/1.0", _sized(b"Content-Length: " + SIZE).replace(b"HTTP/1.1", b"HTTP/1.0"), (200,)),
    Case(
        "9.3",
        "HTTP/1.0, kept",
        _sized(b"Connection: keep-alive\r\nContent-Length: " + SIZE).replace(b"HTTP/1.1", b"HTTP/1.0"),
        _OK,
    ),
    Case("9110 7.6.1", "one that names Content-Length", _sized(b"Connection: Content-Length\r\nContent-Length: " + SIZE), _OK),
    Case("9110 7.6.1", "one that names Host", _sized(b"Connection: Host\r\nContent-Length: " + SIZE), _OK),
    Case(
        "9110 10.1.1",
        "Expect, and the body at once",
        _sized(b"Expect: 100-continue\r\nContent-Length: " + SIZE),
        (100, 200, 200),
    ),
    Case("9110 10.1.1", "Expect without a body", _sized(b"Expect: 100-continue\r\nContent-Length: 0", b""), _OK),
    Case(
        "9110 10.1.1",
        "Expect in HTTP/1.0",
        _sized(b"Expect: 100-continue\r\nContent-Length: " + SIZE).replace(b"HTTP/1.1", b"HTTP/1.0"),
        (200,),
    ),
    Case(
        "9110 10.1.1",
        "Expect, refused by the head",
        _sized(b"Expect: 100-continue\r\nContent-Length: 9").replace(b"protobuf", b"x"),
        (415,),
    ),
    Case("9110 10.1.1", "Expect of something else", _sized(b"Expect: x\r\nContent-Length: " + SIZE), _OK),
    Case("9110 7.8", "Upgrade", _sized(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: " + SIZE), _OK),
    Case("9110 7.8", "Upgrade with chunks", _coding(b"chunked\r\nConnection: Upgrade\r\nUpgrade: h2c"), _OK),
    Case("9110 7.8", "Upgrade that Connection does not name", _sized(b"Upgrade: h2c\r\nContent-Length: " + SIZE), _OK),
    Case(
        "9110 7.8",
        "Upgrade in HTTP/1.0",
        _sized(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: " + SIZE).replace(b"HTTP/1.1", b"HTTP/1.0"),
        (200,),
    ),
    Case(
        "9110 7.8",
        "Upgrade and close",
        _sized(b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Length: " + SIZE),
        (200,),
    ),
    Case(
        "9110 7.8",
        "Upgrade of another kind",
        _sized(b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: " + SIZE),
        _OK,
    ),
    Case(
        "6.1",
        "Upgrade, a length and chunks",
        _coding(b"chunked\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5"),
        _BAD,
    ),
    Case(
        "6.3",
        "Upgrade and two lengths",
        _sized(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\nContent-Length: " + SIZE),
        _BAD,
    ),
    Case("6.1", "Upgrade and a coding that nobody knows", _coding(b"cow\r\nConnection: Upgrade\r\nUpgrade: h2c"), (501,)),
    Case(
        "5.2",
        "Upgrade and a fold",
        _sized(b"Connection: Upgrade\r\nUpgrade: h2c\r\nX: y\r\n Content-Length: 0\r\nContent-Length: " + SIZE),
        _BAD,
    ),
    Case("6.3", "a body that is refused by its size", _sized(b"Content-Length: 70000000", b""), (413,)),
    Case("6.3", "a length of 2^63", _sized(b"Content-Length: 9223372036854775808", b""), (413,)),
    Case(
        "6.3",
        "a refused request with a request in its body",
        _sized(b"Content-Length: %d" % len(HIDDEN), HIDDEN).replace(b"protobuf", b"x", 1),
        (415, 200),
    ),
    Case("9.3.2", "many at once", HIDDEN * 20, (200,) * 21),
)

HTTP1: Final = {
    "Content-Length": CONTENT_LENGTH,
    "Transfer-Encoding": TRANSFER_ENCODING,
    "chunks": CHUNKS,
    "trailers": TRAILERS,
    "the request line": REQUEST_LINE,
    "fields": FIELDS,
    "the connection": CONNECTION,
}


Field = tuple[bytes, bytes]


class Head(NamedTuple):
    """A request over HTTP/2, which a proxy might write out as HTTP/1.1. `status`: of its answer; None: its stream is reset."""

    section: str
    what: str
    fields: list[Field]
    status: int | None
    body: bytes = BODY
    trailers: list[Field] | None = None


_PSEUDO: Final[list[Field]] = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/v1/logs"), (b":authority", b"a")]
_TYPE: Final[Field] = (b"content-type", b"application/x-protobuf")


def _with(*fields: Field) -> list[Field]:
    return [*_PSEUDO, _TYPE, *fields]


def _pseudo(**values: bytes | None) -> list[Field]:
    """With these in place of the ordinary ones; None: without."""
    fields = [(name, values.get(name[1:].decode(), value)) for name, value in _PSEUDO]
    return [*((name, value) for name, value in fields if value is not None), _TYPE]


HTTP2: Final = (
    Head("8.3.1", "as it should be", _with(), 200),
    Head("8.1.1", "the body's length", _with((b"content-length", SIZE)), 200),
    Head("8.1.1", "a length of 0 and a body", _with((b"content-length", b"0")), None),
    Head("8.1.1", "a shorter length", _with((b"content-length", b"1")), None),
    Head("8.1.1", "a longer length", _with((b"content-length", b"99")), None),
    Head("8.1.1", "a length twice", _with((b"content-length", SIZE), (b"content-length", SIZE)), None),
    Head("8.1.1", "a list of lengths", _with((b"content-length", SIZE + b", " + SIZE)), None),
    Head("8.1.1", "a length with a sign", _with((b"content-length", b"+" + SIZE)), None),
    Head("8.1.1", "a length with Python's underscore", _with((b"content-length", b"1_" + SIZE)), None),
    Head("8.1.1", "a length in digits of another script", _with((b"content-length", "\u0665".encode())), None),
    Head("8.1.1", "a length of nothing", _with((b"content-length", b"")), None),
    Head("8.1.1", "a length as a trailer, which is ignored", _with(), 200, trailers=[(b"content-length", b"1")]),
    Head("8.2.2", "transfer-encoding", _with((b"transfer-encoding", b"chunked")), None),
    Head("8.2.2", "transfer-encoding and a length", _with((b"transfer-encoding", b"chunked"), (b"content-length", SIZE)), None),
    Head("8.2.2", "connection", _with((b"connection", b"content-length")), None),
    Head("8.2.2", "keep-alive", _with((b"keep-alive", b"9")), None),
    Head("8.2.2", "proxy-connection", _with((b"proxy-connection", b"close")), None),
    Head("8.2.2", "upgrade", _with((b"upgrade", b"h2c")), None),
    Head("8.2.2", "te of something else than trailers", _with((b"te", b"chunked")), None),
    Head("8.2.2", "te of trailers", _with((b"te", b"trailers")), 200),
    Head("8.2.2", "transfer-encoding as a trailer", _with(), None, trailers=[(b"transfer-encoding", b"chunked")]),
    Head("8.2.1", "a capital", _with((b"X", b"y")), None),
    Head("8.2.1", "Content-Length in capitals", _with((b"Content-Length", b"0")), None),
    Head("8.2.1", "a space in a name", _with((b"content-length ", b"0")), None),
    Head("8.2.1", "a colon in a name", _with((b"x: y", b"z")), None),
    Head("8.2.1", "a line in a name", _with((b"x: y\r\ntransfer-encoding", b"chunked")), None),
    Head("8.2.1", "NUL in a name", _with((b"x\0", b"y")), None),
    Head("8.2.1", "a byte of no text in a name", _with((b"x\xff", b"y")), None),
    Head("8.2.1", "no name", _with((b"", b"y")), None),
    Head("8.2.1", "a line in a value", _with((b"x", b"y\r\ntransfer-encoding: chunked")), None),
    Head("8.2.1", "a request in a value", _with((b"x", b"y\r\n\r\n" + HIDDEN)), None),
    Head("8.2.1", "a line feed in a value", _with((b"x", b"y\nz")), None),
    Head("8.2.1", "a carriage return in a value", _with((b"x", b"y\rz")), None),
    Head("8.2.1", "NUL in a value", _with((b"x", b"\0")), None),
    Head("8.3", "an unknown pseudo-header", [*_with()[:4], (b":x", b"y"), _TYPE], None),
    Head("8.3", "a response's pseudo-header", [*_with()[:4], (b":status", b"200"), _TYPE], None),
    Head("8.3", "a pseudo-header behind a header", _with((b":path", b"/healthz")), None),
    Head("8.3", "a pseudo-header as a trailer", _with(), None, trailers=[(b":path", b"/healthz")]),
    Head("8.3.1", "two paths", [*_PSEUDO, (b":path", b"/healthz"), _TYPE], None),
    Head("8.3.1", "two methods", [*_PSEUDO, (b":method", b"GET"), _TYPE], None),
    Head("8.3.1", "two authorities", [*_PSEUDO, (b":authority", b"b"), _TYPE], None),
    Head("8.3.1", "no method", _pseudo(method=None), None),
    Head("8.3.1", "no scheme", _pseudo(scheme=None), None),
    Head("8.3.1", "no path", _pseudo(path=None), None),
    Head("8.3.1", "an empty path", _pseudo(path=b""), None),
    Head("8.3.1", "a path without a slash", _pseudo(path=b"v1/logs"), 400),
    Head("8.3.1", "an asterisk", _pseudo(path=b"*"), 400),
    Head("8.3.1", "an absolute path", _pseudo(path=b"http://b/v1/logs"), 400),
    Head("8.3.1", "a version behind the path", _pseudo(path=b"/v1/logs HTTP/1.1"), 400),
    Head("8.3.1", "a line behind the path", _pseudo(path=b"/v1/logs HTTP/1.1\r\ntransfer-encoding: chunked\r\nx: y"), None),
    Head("8.3.1", "a tab in the path", _pseudo(path=b"/\tx"), 400),
    Head("8.3.1", "a byte of no text in the path", _pseudo(path=b"/\xff"), 400),
    Head("8.3.1", "a fragment", _pseudo(path=b"/v1/logs#f"), 400),
    Head("8.3.1", "a request in the method", _pseudo(method=b"GET /healthz HTTP/1.1"), 400),
    Head("8.3.1", "a line in the method", _pseudo(method=b"POST /v1/logs HTTP/1.1\r\nx: y"), None),
    Head("8.3.1", "an empty method", _pseudo(method=b""), 400),
    Head("8.3.1", "a line in the scheme", _pseudo(scheme=b"http://b/\r\nx: y"), None),
    Head("8.3.1", "a line in the authority", _pseudo(authority=b"a\r\nx: y"), None),
    Head("8.3.1", "an authority that is none", _pseudo(authority=b"a b"), 400),
    Head("8.3.1", "an authority with a user", _pseudo(authority=b"u@a"), 400),
    Head("8.3.1", "a host beside the authority", _with((b"host", b"a")), 200),
    Head("8.3.1", "a host that is not the authority", _with((b"host", b"b")), 400),
    Head("8.3.1", "two hosts", _with((b"host", b"a"), (b"host", b"b")), 400),
    Head("8.3.1", "a host alone", [*_pseudo(authority=None), (b"host", b"a")], 200),
    Head("8.3.1", "neither host nor authority", _pseudo(authority=None), 200),
    Head("8.5", "CONNECT with a path", _pseudo(method=b"CONNECT"), None),
    Head("8.5", "CONNECT", [(b":method", b"CONNECT"), (b":authority", b"a:80"), _TYPE], 400),
)
