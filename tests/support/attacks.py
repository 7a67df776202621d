"""Requests of few bytes that cost much. bench/hostile.py sends them too."""

import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import cramjam
from support.fakes.receiving import NOW, NOW_UNIX_NANO
from support.references.remote_write import length_delimited
from zlib_ng import zlib_ng

LOGS: Final = "/v1/logs"
METRICS: Final = "/v1/metrics"
TRACES: Final = "/v1/traces"
REMOTE_WRITE: Final = "/api/v1/prometheus/write"
NATIVE: Final = "/api/v1/telemetry"
NATIVE_BATCH: Final = "/api/v1/telemetry/batch"

_GZIP_WINDOW_BITS: Final = 16 + zlib_ng.MAX_WBITS

PROTOBUF: Final = {"content-type": "application/x-protobuf"}
JSON: Final = {"content-type": "application/json"}
WRITE_V2: Final = {"content-type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}


class Attack(NamedTuple):
    """One request. `body` makes it as it is once decompressed."""

    name: str
    path: str
    headers: dict[str, str]
    body: Callable[[], bytes]

    def sent(self) -> tuple[dict[str, str], bytes]:
        """Headers and body as they are sent: as small as a sender can make them."""
        body = self.body()
        if self.path == REMOTE_WRITE:
            return self.headers | {"content-encoding": "snappy"}, bytes(cramjam.snappy.compress_raw(body))
        return self.headers | {"content-encoding": "gzip"}, zlib_ng.compress(body, 9, _GZIP_WINDOW_BITS)


def text_attribute(field: int, key: bytes, value: bytes) -> bytes:
    """A KeyValue whose value is a string."""
    return length_delimited(field, length_delimited(1, key) + length_delimited(2, length_delimited(1, value)))


def _resource(size_bytes: int) -> bytes:
    return length_delimited(1, text_attribute(1, b"process.command_args", b"x" * size_bytes))


def _in_resource(*fields: bytes) -> bytes:
    return length_delimited(1, b"".join(fields))


def _log() -> bytes:
    return length_delimited(2, b"\x09" + time.time_ns().to_bytes(8, "little"))


def _scopes(scopes: int, resource_bytes: int) -> bytes:
    """So many scopes of a log record each, under one resource."""
    return _in_resource(
        _resource(resource_bytes),
        *[length_delimited(2, length_delimited(1, length_delimited(1, b"logger%d" % n)) + _log()) for n in range(scopes)],
    )


def _items(items: int, resource_bytes: int) -> bytes:
    return _in_resource(_resource(resource_bytes), length_delimited(2, _log() * items))


def _metric(fields: bytes) -> bytes:
    """A gauge with a point, and these fields."""
    point = b"\x19" + NOW_UNIX_NANO.to_bytes(8, "little") + b"\x21" + bytes(8)
    return _in_resource(length_delimited(2, length_delimited(2, fields + length_delimited(5, length_delimited(1, point)))))


def _body(value: bytes) -> bytes:
    """A log record with this AnyValue as its body."""
    record = b"\x09" + NOW_UNIX_NANO.to_bytes(8, "little") + length_delimited(5, value)
    return _in_resource(length_delimited(2, length_delimited(2, record)))


def _in_arrays(depth: int, value: bytes) -> bytes:
    for _ in range(depth):
        value = length_delimited(5, length_delimited(1, value))
    return value


def _write_v1(series: bytes) -> bytes:
    return length_delimited(1, series)


def _labels_v1(*labels: tuple[bytes, bytes]) -> bytes:
    return b"".join(length_delimited(1, length_delimited(1, name) + length_delimited(2, value)) for name, value in labels)


def _write_v2_of_long_symbol(samples: int) -> bytes:
    """A series whose label is a text of 60,000 bytes, with so many empty samples."""
    symbols = b"".join(length_delimited(4, symbol) for symbol in (b"", b"__name__", b"m", b"long", b"x" * 60_000))
    return symbols + length_delimited(5, length_delimited(1, b"\1\2\3\4") + b"\x12\0" * samples)


def _write_v2_of_references(references: int) -> bytes:
    symbols = b"".join(length_delimited(4, symbol) for symbol in (b"", b"__name__", b"m"))
    return symbols + length_delimited(5, length_delimited(1, b"\1\2" * (references // 2)))


def _write_v2_of_exemplars(exemplars: int) -> bytes:
    """A series with a sample and so many exemplars, whose label is a text of 60,000 bytes."""
    symbols = b"".join(length_delimited(4, symbol) for symbol in (b"", b"__name__", b"m", b"long", b"x" * 60_000))
    exemplar = length_delimited(4, length_delimited(1, b"\3\4"))
    return symbols + length_delimited(5, length_delimited(1, b"\1\2") + b"\x12\0" + exemplar * exemplars)


def _metadata_v1(families: int) -> bytes:
    return b"".join(length_delimited(3, b"\x08\1" + length_delimited(2, b"m%d" % n)) for n in range(families))


# Each costs more than any honest request does, and is refused before that is paid.
REFUSED: Final = (
    Attack(
        "30 million empty resource attributes",
        TRACES,
        PROTOBUF,
        lambda: _in_resource(length_delimited(1, b"\x0a\0" * 30_000_000)),
    ),
    Attack(
        "10 million empty gauge points",
        METRICS,
        PROTOBUF,
        lambda: _in_resource(
            length_delimited(2, length_delimited(2, length_delimited(1, b"m") + length_delimited(5, b"\x0a\0" * 10_000_000)))
        ),
    ),
    Attack("15 million empty spans", TRACES, PROTOBUF, lambda: _in_resource(length_delimited(2, b"\x12\0" * 15_000_000))),
    Attack("32 million empty ResourceSpans", TRACES, PROTOBUF, lambda: b"\x0a\0" * 32_000_000),
    Attack("30 million empty labels, remote write 1.0", REMOTE_WRITE, PROTOBUF, lambda: _write_v1(b"\x0a\0" * 30_000_000)),
    Attack("20,000 scopes under a resource of 50 KB", LOGS, PROTOBUF, partial(_scopes, 20_000, 50_000)),
    Attack("8,000 log records under a resource of 250 KB", LOGS, PROTOBUF, partial(_items, 8_000, 250_000)),
    Attack(
        "30 million empty values in one attribute",
        LOGS,
        PROTOBUF,
        lambda: _in_resource(
            length_delimited(1, length_delimited(1, length_delimited(2, length_delimited(5, b"\x0a\0" * 30_000_000))))
        ),
    ),
    Attack(
        "6 million attributes of a span, each with an empty key and value",
        TRACES,
        PROTOBUF,
        lambda: _in_resource(length_delimited(2, length_delimited(2, b"\x4a\x04\x0a\0\x12\0" * 6_000_000))),
    ),
    Attack(
        "20 million log records in JSON, empty",
        LOGS,
        JSON,
        lambda: b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b"{}," * 20_000_000 + b"{}]}]}]}",
    ),
    Attack(
        "20 million gauge points in JSON, empty",
        METRICS,
        JSON,
        lambda: (
            b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[' + b"{}," * 20_000_000 + b"{}]}}]}]}]}"
        ),
    ),
    Attack(
        "20 million resource attributes in JSON, empty",
        TRACES,
        JSON,
        lambda: b'{"resourceSpans":[{"resource":{"attributes":[' + b"{}," * 20_000_000 + b"{}]}}]}",
    ),
    Attack(
        "10 million attributes of a record in native JSON",
        NATIVE,
        JSON,
        lambda: b'{"attributes":{' + b'"":0,' * 10_000_000 + b'"":0}}',
    ),
    Attack("20 million records in native JSON, empty", NATIVE_BATCH, JSON, lambda: b"[" + b"{}," * 20_000_000 + b"{}]"),
    Attack(
        "30,000 empty samples of a label of 60 KB, remote write 1.0",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: _write_v1(_labels_v1((b"__name__", b"m"), (b"long", b"x" * 60_000)) + b"\x12\0" * 30_000),
    ),
    Attack(
        "30,000 empty samples of a label of 60 KB, remote write 2.0",
        REMOTE_WRITE,
        WRITE_V2,
        partial(_write_v2_of_long_symbol, 30_000),
    ),
    Attack(
        "12 million references of a series, remote write 2.0",
        REMOTE_WRITE,
        WRITE_V2,
        partial(_write_v2_of_references, 12_000_000),
    ),
    Attack(
        "8 million symbols, remote write 2.0",
        REMOTE_WRITE,
        WRITE_V2,
        lambda: b"\x22\0" * 8_000_000,
    ),
    Attack(
        "30,000 exemplars of a label of 60 KB, remote write 2.0",
        REMOTE_WRITE,
        WRITE_V2,
        partial(_write_v2_of_exemplars, 30_000),
    ),
    Attack("500,000 families of metadata, remote write 1.0", REMOTE_WRITE, PROTOBUF, partial(_metadata_v1, 500_000)),
)


def _json_logs(records: int) -> bytes:
    attributes = ",".join(f'{{"key":"attribute.number.{n}","value":{{"stringValue":"value-{n}"}}}}' for n in range(10))
    record = f'{{"timeUnixNano":"{NOW_UNIX_NANO}","body":{{"stringValue":"a line of a log"}},"attributes":[{attributes}]}}'
    return f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{",".join([record] * records)}]}}]}}]}}'.encode()


def _honest_logs(size_bytes: int) -> bytes:
    return honest_logs(size_bytes, NOW_UNIX_NANO)


def _native_batch(records: int, padding: int) -> bytes:
    record = f'{{"service_id":"s","metric_name":"m","value":1,"timestamp":"{NOW}","attributes":{{"long":"{"x" * padding}"}}}}'
    return f"[{','.join([record] * records)}]".encode()


def native_attributes(records: int, attributes: int) -> bytes:
    members = ",".join(f'"attribute.{n}":1' for n in range(attributes))
    record = f'{{"service_id":"s","metric_name":"m","value":1,"timestamp":"{NOW}","attributes":{{{members}}}}}'
    return f"[{','.join([record] * records)}]".encode()


def _arrays(count: int) -> bytes:
    return b"[" + b"[]," * (count - 1) + b"[]]"


def _json_array(name: str, count: int) -> bytes:
    return f'{{"{name}":'.encode() + _arrays(count) + b"}"


def json_logs(records: bytes) -> bytes:
    return b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + records + b"]}]}]}"


def json_log(members: bytes) -> bytes:
    return json_logs(b"{" + members + b"}")


def _json_attributes(records: int, text: bytes) -> bytes:
    """A thousand a record."""
    attribute = b'{"key":"k","value":{"stringValue":"' + text + b'"}}'
    return json_logs(b",".join([b'{"attributes":[' + b",".join([attribute] * 1_000) + b"]}"] * records))


def _attributes_not_utf8(records: int) -> bytes:
    """A thousand a record."""
    return length_delimited(2, length_delimited(2, text_attribute(6, b"k", b"\xff") * 1_000) * records)


def _json_histogram(members: bytes) -> bytes:
    points = b'"histogram":{"dataPoints":[{' + members + b"}]}"
    return b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m",' + points + b"}]}]}]}"


# Each is as large as is taken, or holds as much as is allowed: none may stop the loop.
HEAVY: Final = (
    Attack("300 scopes under a resource of 250 KB", LOGS, PROTOBUF, partial(_scopes, 300, 250_000)),
    Attack("60 MiB of log records", LOGS, PROTOBUF, partial(_honest_logs, 60 << 20)),
    Attack("40,000 log records in JSON", LOGS, JSON, partial(_json_logs, 40_000)),
    Attack("9,000 records of 6 KB in native JSON", NATIVE_BATCH, JSON, partial(_native_batch, 9_000, 6_000)),
    Attack("9,000 records of 400 attributes in native JSON", NATIVE_BATCH, JSON, partial(native_attributes, 9_000, 400)),
    Attack("1.5 million empty spans", TRACES, PROTOBUF, lambda: _in_resource(length_delimited(2, b"\x12\0" * 1_500_000))),
    Attack(
        "1.5 million empty points",
        METRICS,
        PROTOBUF,
        lambda: _in_resource(
            length_delimited(2, length_delimited(2, length_delimited(1, b"m") + length_delimited(5, b"\x0a\0" * 1_500_000)))
        ),
    ),
    Attack(
        "4.9 million empty resource attributes",
        TRACES,
        PROTOBUF,
        lambda: _in_resource(length_delimited(1, b"\x0a\0" * 4_900_000), length_delimited(2, length_delimited(2, b""))),
    ),
    Attack("4.9 million empty scopes", TRACES, PROTOBUF, lambda: _in_resource(b"\x12\0" * 4_900_000)),
    Attack("4.9 million empty metrics", METRICS, PROTOBUF, lambda: _in_resource(length_delimited(2, b"\x12\0" * 4_900_000))),
    Attack(
        "4.9 million empty events of a span",
        TRACES,
        PROTOBUF,
        lambda: _in_resource(length_delimited(2, length_delimited(2, b"\x5a\0" * 4_900_000))),
    ),
    Attack(
        "1.5 million unknown members of a log record in JSON",
        LOGS,
        JSON,
        lambda: json_log(b",".join([b'"unknown.%07d":0' % number for number in range(1_500_000)])),
    ),
    Attack(
        "500,000 empty spans, oddly written",
        TRACES,
        PROTOBUF,
        lambda: _in_resource(length_delimited(2, b"\x12\0" * 500_000)) + b"\x0b\x0c",
    ),
    Attack("2 million empty series, remote write 1.0", REMOTE_WRITE, PROTOBUF, lambda: b"\x0a\0" * 2_000_000),
    Attack("4.9 million empty labels, remote write 1.0", REMOTE_WRITE, PROTOBUF, lambda: _write_v1(b"\x0a\0" * 4_900_000)),
    Attack(
        "2.4 million events of a span, each with an empty attribute",
        TRACES,
        PROTOBUF,
        lambda: _in_resource(length_delimited(2, length_delimited(2, b"\x5a\2\x1a\0" * 2_400_000))),
    ),
    Attack(
        "2.4 million exemplars of a point, each with an empty attribute",
        METRICS,
        PROTOBUF,
        lambda: _in_resource(
            length_delimited(2, length_delimited(2, length_delimited(5, length_delimited(1, b"\x2a\2\x3a\0" * 2_400_000))))
        ),
    ),
    Attack("13 million unknown fields of four bytes", LOGS, PROTOBUF, lambda: b"\x7d\0\0\0\0" * 13_000_000),
    Attack(
        "60 MB of escapes in one text of JSON",
        LOGS,
        JSON,
        lambda: json_log(b'"body":{"stringValue":"' + b"\\u00e9" * 10_000_000 + b'"}'),
    ),
    Attack(
        "60 MB of base64 in one value of JSON",
        LOGS,
        JSON,
        lambda: json_log(b'"body":{"bytesValue":"' + b"QUFB" * 15_000_000 + b'"}'),
    ),
    Attack("60 MB of digits in JSON", LOGS, JSON, lambda: json_log(b'"timeUnixNano":' + b"1" * 60_000_000)),
    Attack("60 MB of white space in JSON", LOGS, JSON, lambda: json_log(b" " * 60_000_000)),
    Attack("60 MB of unknown text in JSON", LOGS, JSON, lambda: b'{"x":"' + b"a" * 60_000_000 + b'"}'),
    Attack("4.9 million unknown texts in JSON", LOGS, JSON, lambda: b'{"x":[' + b'"abcdefgh",' * 4_900_000 + b"0]}"),
    Attack(
        "4.9 million bucket counts of a point in JSON",
        METRICS,
        JSON,
        lambda: _json_histogram(b'"bucketCounts":[' + b'"1",' * 4_900_000 + b"1]"),
    ),
    Attack(
        "60 MB of padding in base64",
        LOGS,
        JSON,
        lambda: json_log(b'"body":{"bytesValue":"' + b"=" * 60_000_000 + b'"}'),
    ),
    Attack("2.4 million arrays in the place of objects in JSON", LOGS, JSON, lambda: _json_array("resourceLogs", 2_400_000)),
    Attack(
        "340,000 arrays in the place of objects, just below a slice", LOGS, JSON, lambda: _json_array("resourceLogs", 340_000)
    ),
    Attack("2.4 million arrays in the place of records in native JSON", NATIVE_BATCH, JSON, lambda: _arrays(2_400_000)),
    Attack(
        "1.3 million arrays in an attribute of a native record",
        NATIVE,
        JSON,
        lambda: b'{"attributes":{"a":' + _arrays(1_300_000) + b"}}",
    ),
    Attack(
        "300,000 attributes of a native record",
        NATIVE,
        JSON,
        lambda: b'{"attributes":{' + b",".join([b'"%d":0' % n for n in range(300_000)]) + b"}}",
    ),
    Attack(
        "60 MB of digits in JSON behind a long integer",
        LOGS,
        JSON,
        lambda: json_log(b'"body":{"intValue":9223372036854775808},"x":' + b"1" * 60_000_000),
    ),
    Attack(
        "an attribute key of 60 MB that is not UTF-8 at its end",
        LOGS,
        PROTOBUF,
        lambda: _in_resource(length_delimited(1, text_attribute(1, b"a" * 60_000_000 + b"\xff", b""))),
    ),
    Attack(
        "an attribute key of 30 million letters of two bytes",
        LOGS,
        PROTOBUF,
        lambda: _in_resource(length_delimited(1, text_attribute(1, b"\xc3\xa9" * 30_000_000, b""))),
    ),
    Attack(
        "a label of 60 MB that is not UTF-8 at its end, remote write 1.0",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: _write_v1(_labels_v1((b"__name__", b"m"), (b"a", b"x" * 60_000_000 + b"\xff")) + b"\x12\0"),
    ),
    Attack(
        "a label of 30 million letters of two bytes, remote write 2.0",
        REMOTE_WRITE,
        WRITE_V2,
        lambda: (
            b"".join(length_delimited(4, symbol) for symbol in (b"", b"__name__", b"m", b"long", b"\xc3\xa9" * 30_000_000))
            + length_delimited(5, length_delimited(1, b"\1\2\3\4") + b"\x12\0")
        ),
    ),
    Attack(
        "a job of 60 MB, remote write 1.0",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: _write_v1(_labels_v1((b"__name__", b"m"), (b"job", b"x" * 60_000_000)) + b"\x12\0"),
    ),
    Attack(
        "3,600 labels of 16 KB, remote write 1.0",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: _write_v1(_labels_v1((b"__name__", b"m"), *[(b"%04d" % n, b"x" * 16_000) for n in range(3_600)]) + b"\x12\0"),
    ),
    Attack(
        "an unknown field of 60 MB in a resource, with a log record",
        LOGS,
        PROTOBUF,
        lambda: _in_resource(length_delimited(1, length_delimited(30, bytes(60_000_000))) + b"\x12\4\x12\2\x10\1"),
    ),
    Attack(
        "a schema URL of 60 MB of a scope, with a log record",
        LOGS,
        PROTOBUF,
        lambda: _in_resource(length_delimited(2, b"\x12\2\x10\1" + length_delimited(3, b"a" * 60_000_000))),
    ),
    Attack("a metric's name of 60 MB", METRICS, PROTOBUF, lambda: _metric(length_delimited(1, b"m" * 60_000_000))),
    Attack("a metric's unit of 60 MB", METRICS, PROTOBUF, lambda: _metric(length_delimited(3, b"u" * 60_000_000))),
    Attack(
        "a log record's body of 460,000 keys",
        LOGS,
        PROTOBUF,
        lambda: _body(
            length_delimited(
                6, b"".join([length_delimited(1, length_delimited(1, b"%x" % number)) for number in range(460_000)])
            )
        ),
    ),
    Attack(
        "a log record's body of 370,000 doubles",
        LOGS,
        PROTOBUF,
        lambda: _body(length_delimited(5, length_delimited(1, b"\x21" + struct.pack("<d", 0.1)) * 370_000)),
    ),
    Attack(
        "a log record's body of 4 MB of control characters, in 60 arrays in each other",
        LOGS,
        PROTOBUF,
        lambda: _body(_in_arrays(60, length_delimited(1, b"\1" * 4_000_000))),
    ),
    Attack(
        "59 MB of JSON with one byte that is not UTF-8 at the end",
        LOGS,
        JSON,
        lambda: b'{"x":"' + b"a" * 59_000_000 + b'\xff"}',
    ),
    Attack("58 MB of JSON in UTF-16", LOGS, JSON, lambda: '{"x'.encode("utf-16-le") * 9_700_000),
    Attack(
        "an integer of 60 MB in a string of JSON",
        LOGS,
        JSON,
        lambda: json_log(b'"body":{"intValue":"' + b"1" * 60_000_000 + b'"}'),
    ),
    Attack("1 million empty series, remote write 2.0", REMOTE_WRITE, WRITE_V2, lambda: b"\x22\0" + b"\x2a\0" * 1_000_000),
)

# Each is repaired, or rejected item by item, at many places.
REPAIRED: Final = (
    Attack("1.2 million attributes that are not UTF-8", LOGS, PROTOBUF, lambda: _in_resource(_attributes_not_utf8(1_200))),
    Attack("1.2 million attributes in JSON that are not UTF-8", LOGS, JSON, lambda: _json_attributes(1_200, b"\xff")),
    Attack("1 million attributes in JSON with half a surrogate pair", LOGS, JSON, lambda: _json_attributes(1_000, b"\\ud800")),
    Attack(
        "1.2 million attributes of a resource in JSON that do not fit",
        LOGS,
        JSON,
        lambda: b'{"resourceLogs":[{"resource":{"attributes":[' + b",".join([b'{"key":7}'] * 1_200_000) + b"]}}]}",
    ),
    Attack(
        "1 million log records in JSON with an enum's name that there is not",
        LOGS,
        JSON,
        lambda: json_logs(b",".join([b'{"severityNumber":"NOPE"}'] * 1_000_000)),
    ),
)


_NAME_V1: Final = length_delimited(1, length_delimited(1, b"__name__") + length_delimited(2, b"m"))


def label_v1(fields: bytes) -> bytes:
    """A series with a sample, and a label of these fields."""
    return _write_v1(_NAME_V1 + length_delimited(1, fields) + b"\x12\0")


def sample_v1(fields: bytes) -> bytes:
    return _write_v1(_NAME_V1 + length_delimited(2, fields))


def _deltas_v1(count: int) -> bytes:
    """A series with a native histogram of a span with so many counts."""
    span = length_delimited(
        11, b"\x10" + bytes((count & 0x7F | 0x80, count >> 7 & 0x7F | 0x80, count >> 14 & 0x7F | 0x80, count >> 21))
    )
    return histogram_v1(span, length_delimited(12, bytes(count)))


def _exemplar_v1(labels: bytes) -> bytes:
    """A series with a sample and an exemplar."""
    return _write_v1(_NAME_V1 + b"\x12\0" + length_delimited(3, labels))


def _write_v2(*symbols: bytes, series: bytes) -> bytes:
    return b"".join(length_delimited(4, symbol) for symbol in (b"", b"__name__", b"m", *symbols)) + length_delimited(
        5, length_delimited(1, b"\1\2") + b"\x12\0" + series
    )


# Refused while they are read, most since they are too large once their texts are repaired; none may stop the loop.
GROWING: Final = (
    Attack(
        "a label's name of 60 MB that is not UTF-8, remote write 1.0",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: _write_v1(_NAME_V1 + length_delimited(1, length_delimited(1, b"\xff" * 60_000_000)) + b"\x12\0"),
    ),
    Attack(
        "a help text of 60 MB that is not UTF-8, remote write 1.0",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: length_delimited(3, length_delimited(2, b"m") + length_delimited(4, b"\xff" * 60_000_000)),
    ),
    Attack(
        "a symbol of 60 MB that is not UTF-8, remote write 2.0",
        REMOTE_WRITE,
        WRITE_V2,
        lambda: _write_v2(b"\xff" * 60_000_000, series=b""),
    ),
    Attack(
        "a log record's body of 60 MB that is not UTF-8",
        LOGS,
        PROTOBUF,
        lambda: _in_resource(
            length_delimited(2, length_delimited(2, length_delimited(5, length_delimited(1, b"\xff" * 60_000_000))))
        ),
    ),
    Attack("4.9 million symbols, remote write 2.0", REMOTE_WRITE, WRITE_V2, lambda: b"\x22\0" * 4_900_000),
    Attack("60 MB of JSON that is not UTF-8", LOGS, JSON, lambda: b'{"x":"' + b"\xff" * 60_000_000 + b'"}'),
)

_HISTOGRAM_TIME: Final = b"\x78" + bytes(NOW_UNIX_NANO // 10**6 >> 7 * n & 0x7F | (0x80 if n < 5 else 0) for n in range(6))


def histogram_v1(*fields: bytes) -> bytes:
    """A series with a native histogram."""
    return _write_v1(_NAME_V1 + length_delimited(4, b"\x08\5" + _HISTOGRAM_TIME + b"".join(fields)))


def _doubles(count: int) -> bytes:
    return struct.pack(f"<{count}d", *range(count))


# One item that is nearly all of the request.
HEAVY_ITEMS: Final = (
    Attack(
        "4.8 million custom bounds of a native histogram",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: histogram_v1(b"\x20\x69", length_delimited(16, _doubles(4_800_000))),
    ),
    Attack(
        "260,000 fractional counts of custom buckets",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: histogram_v1(
            b"\x20\x69",
            length_delimited(11, b"\x10\xa0\xef\x0f"),
            length_delimited(13, struct.pack("<d", 0.5) * 260_000),
            length_delimited(16, _doubles(260_000)),
        ),
    ),
    Attack("6.5 million values of one sample", REMOTE_WRITE, PROTOBUF, lambda: sample_v1((b"\x09" + bytes(8)) * 6_500_000)),
    Attack("6.5 million sums of a histogram", REMOTE_WRITE, PROTOBUF, lambda: histogram_v1((b"\x19" + bytes(8)) * 6_500_000)),
    Attack("12 million unknown fields of a sample", REMOTE_WRITE, PROTOBUF, lambda: sample_v1(b"\x7d\0\0\0\0" * 12_000_000)),
    Attack("4.8 million counts of a native histogram", REMOTE_WRITE, PROTOBUF, lambda: _deltas_v1(4_800_000)),
)

# The same of the largest exemplars and metadata, which are read where labels are not.
HEAVY_METADATA: Final = (
    Attack(
        "4.8 million names of one exemplar's label",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: _exemplar_v1(length_delimited(1, length_delimited(1, b"a") * 4_800_000)),
    ),
    Attack(
        "1.6 million labels of one exemplar",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: _exemplar_v1(length_delimited(1, length_delimited(2, b"a")) * 1_600_000),
    ),
    Attack(
        "900,000 different labels of one exemplar",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: _exemplar_v1(
            b"".join(length_delimited(1, length_delimited(1, b"%d" % n) + length_delimited(2, b"a")) for n in range(900_000))
        ),
    ),
    Attack(
        "an exemplar's label of 60 MB, remote write 1.0",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: _exemplar_v1(length_delimited(1, length_delimited(1, b"trace_id") + length_delimited(2, b"x" * 60_000_000))),
    ),
    Attack(
        "an exemplar's label of 60 MB, remote write 2.0",
        REMOTE_WRITE,
        WRITE_V2,
        lambda: _write_v2(b"trace_id", b"x" * 60_000_000, series=length_delimited(4, length_delimited(1, b"\3\4"))),
    ),
    Attack(
        "130,000 exemplars of a series",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: _write_v1(_NAME_V1 + b"\x12\0" + length_delimited(3, b"") * 130_000),
    ),
    Attack(
        "a help text of 60 MB, remote write 1.0",
        REMOTE_WRITE,
        PROTOBUF,
        lambda: length_delimited(3, b"\x08\1" + length_delimited(2, b"m") + length_delimited(4, b"a" * 60_000_000)),
    ),
    Attack(
        "a help text of 60 MB, remote write 2.0",
        REMOTE_WRITE,
        WRITE_V2,
        lambda: _write_v2(b"a" * 60_000_000, series=length_delimited(5, b"\x18\3")),
    ),
    Attack(
        "4.8 million types of one series' metadata, remote write 2.0",
        REMOTE_WRITE,
        WRITE_V2,
        lambda: _write_v2(series=length_delimited(5, b"\x08\1" * 4_800_000)),
    ),
)

# So small that each is begun on the event loop, and with so many items that it may not stay there.
SMALL: Final = (
    Attack("130,000 empty families of metadata, remote write 1.0", REMOTE_WRITE, PROTOBUF, lambda: b"\x1a\0" * 130_000),
    Attack("120,000 empty samples of no series, remote write 1.0", REMOTE_WRITE, PROTOBUF, lambda: b"\x0a\2\x12\0" * 60_000),
    Attack("10,000 empty records in native JSON", NATIVE_BATCH, JSON, lambda: b"[" + b"{}," * 9_999 + b"{}]"),
    Attack("10,000 empty spans", TRACES, PROTOBUF, lambda: _in_resource(length_delimited(2, b"\x12\0" * 10_000))),
    Attack("130,000 empty spans", TRACES, PROTOBUF, lambda: _in_resource(length_delimited(2, b"\x12\0" * 130_000))),
    Attack("40,000 texts that are not UTF-8, in JSON", LOGS, JSON, lambda: b'{"x":[' + b'"\xff",' * 40_000 + b"0]}"),
)


def small_logs() -> bytes:
    """One log record, as an honest client sends it."""
    return _in_resource(_resource(100), length_delimited(2, _log()))


def collector_batch() -> bytes:
    """The OpenTelemetry Collector's largest batch by default: 8,192 log records of 30 attributes under a resource of 8 KB."""
    attributes = b"".join(text_attribute(6, b"attribute.number.%d" % n, b"value-%d" % n) for n in range(30))
    record = (
        b"\x09"
        + time.time_ns().to_bytes(8, "little")
        + length_delimited(5, length_delimited(1, b"a line of a log"))
        + attributes
    )
    resource = b"".join(text_attribute(1, b"resource.attribute.%d" % n, b"v" * 250) for n in range(30))
    return _in_resource(length_delimited(1, resource), length_delimited(2, length_delimited(2, record) * 8_192))


def honest_logs(size_bytes: int, now: int | None = None) -> bytes:
    """About so many bytes of log records with 10 attributes each, in requests of 10,000 as one sender's."""
    attributes = b"".join(text_attribute(6, b"attribute.number.%d" % n, b"value-%d" % n) for n in range(10))
    resource = b"".join(text_attribute(1, b"resource.attribute.%d" % n, b"value-%d" % n) for n in range(8))
    now = time.time_ns() if now is None else now
    entries: list[bytes] = []
    size = 0
    number = 0
    while size < size_bytes:
        records = []
        for _ in range(10_000):
            number += 1
            body = length_delimited(5, length_delimited(1, b"a line of a log, of some length, number %d" % number))
            records.append(length_delimited(2, b"\x09" + (now + number).to_bytes(8, "little") + body + attributes))
        entry = _in_resource(length_delimited(1, resource), length_delimited(2, b"".join(records)))
        if size + len(entry) > size_bytes and entries:
            break
        entries.append(entry)
        size += len(entry)
    return b"".join(entries)
