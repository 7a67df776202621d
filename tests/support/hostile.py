"""Bodies that cost their sender little and could cost us much; each as small and as plain as it can be written."""

import gzip
import sys

import cramjam
from support.fakes.receiving import NOW_UNIX_NANO
from support.references.remote_write import length_delimited

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_TIME = b"\x09" + NOW_UNIX_NANO.to_bytes(8, "little")


def nested_value(depth: int) -> bytes:
    """An AnyValue of so many arrays in each other. By hand: protobuf's own encoder stops at 100 messages."""
    value = length_delimited(1, b"deep")
    for _ in range(depth):
        value = length_delimited(5, length_delimited(1, value))
    return value


def nested_logs(*depths: int) -> bytes:
    """An ExportLogsServiceRequest: for each depth a log record that has such a value as attribute k."""
    records = b"".join(
        length_delimited(2, _TIME + length_delimited(6, length_delimited(1, b"k") + length_delimited(2, nested_value(depth))))
        for depth in depths
    )
    return length_delimited(1, length_delimited(2, records))


def nested_logs_json(*depths: int) -> bytes:
    """The same in JSON."""
    records = []
    for depth in depths:
        value = '{"arrayValue":{"values":[' * depth + '{"stringValue":"deep"}' + "]}}" * depth
        records.append(f'{{"timeUnixNano":"{NOW_UNIX_NANO}","attributes":[{{"key":"k","value":{value}}}]}}')
    return f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{",".join(records)}]}}]}}]}}'.encode()


def bombs(size_bytes: int) -> dict[str, tuple[str, bytes]]:
    """Content-Encoding and body of each: so many zeros, packed once, and packed again."""
    zeros = bytes(size_bytes)
    once = {"gzip": gzip.compress(zeros), "zstd": zstd.compress(zeros), "snappy": bytes(cramjam.snappy.compress_raw(zeros))}
    made = {coding: (coding, body) for coding, body in once.items()}
    made["gzip in gzip"] = ("gzip", gzip.compress(once["gzip"]))
    made["zstd in zstd"] = ("zstd", zstd.compress(once["zstd"]))
    # A length of 4 GiB, and nothing behind it.
    made["announced snappy"] = ("snappy", b"\xff\xff\xff\xff\x0f")
    return made
