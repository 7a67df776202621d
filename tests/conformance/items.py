"""The numbered requirements of the protocols for a receiver. `tests/conformance` has a test for each, by group and number.

OTLP: the OpenTelemetry Protocol Specification 1.11.0, and the comments of its .proto files. Remote write: the Prometheus
Remote-Write specifications 1.0 and 2.0. Where their text is silent, our choice is marked "ours". The last two groups are
our own.
"""

from typing import Final, NamedTuple


class Item(NamedTuple):
    demand: str
    source: str
    ours: str = ""  # our choice where the specification is silent


OTLP: Final = (
    Item(
        "`POST /v1/metrics`, `/v1/traces`, `/v1/logs` and the three gRPC services; protobuf and JSON on one route by"
        " Content-Type, with parameters and in any letter case; the answer has the request's media type.",
        "OTLP/HTTP Request, OTLP/HTTP Response, OTLP/gRPC",
    ),
    Item("Success is 200 (OK) with `partial_success` unset: no bytes in protobuf, `{}` in JSON.", "Full Success"),
    Item("Requests without items, and empty envelopes, succeed.", "OTLP/HTTP Request"),
    Item(
        "If some or all items are rejected: success, with their exact number and an English text. In JSON the number is a"
        " string.",
        "Partial Success",
        "the text has counts by reason; a warning (0 rejected, and a text) says what was repaired",
    ),
    Item(
        "A body that cannot be decoded is answered with 400, INVALID_ARGUMENT.",
        "Bad Data, Failures",
        "text that is not UTF-8 is repaired; in JSON, a value that does not fit its field rejects its item alone",
    ),
    Item(
        "Every 4xx and 5xx has a `google.rpc.Status` in the request's encoding; a wrong method is 405 with `Allow: POST`.",
        "Failures",
        "an unknown media type is 415 with a Status in JSON",
    ),
    Item(
        "Sizes are limited before and after decompression: 413, or RESOURCE_EXHAUSTED without RetryInfo. Exactly at the limit"
        " passes.",
        "Failures, OTLP/gRPC Response",
        "64 MiB each, settings",
    ),
    Item(
        "Over HTTP only 429, 502, 503 and 504 are retryable, with Retry-After; nothing transient is a 500.",
        "Retryable Response Codes, OTLP/HTTP Throttling",
        "503 if we cannot store, 429 for a tenant's quota",
    ),
    Item("Over gRPC: UNAVAILABLE, or RESOURCE_EXHAUSTED for a quota, with RetryInfo above zero.", "OTLP/gRPC Throttling"),
    Item(
        "A missing or unknown key is answered with 401, UNAUTHENTICATED; a key without the scope with 403, PERMISSION_DENIED.",
        "Failures; gRPC status codes",
        "the key is in `x-api-key`, or a bearer token",
    ),
    Item(
        "`none` and `gzip` on both transports; corrupt gzip is 400; an answer is compressed only if asked.",
        "OTLP/HTTP Request, OTLP/gRPC",
        "zstd, deflate and snappy too; an unknown coding is 415; answers are never compressed",
    ),
    Item(
        "JSON: ids in hex of any case, other bytes in base64, 64-bit integers as strings or numbers, enums as integers only,"
        " lowerCamelCase only, unknown fields ignored at any depth, null is absent, doubles also as NaN, Infinity, -Infinity.",
        "JSON Protobuf Encoding",
        "more than required: names in snake_case, and names of enums, are read too, unless validation.otlp_json_snake_case and"
        " otlp_json_enum_names are off; ids in base64, ids and bytes as numbers, and NaN and infinities without quotes, are"
        " read as a repair; if nothing of a body is read, a warning names its unknown fields",
    ),
    Item(
        "A span without valid ids or a start, a point without time, an unknown temporality, buckets that do not fit: rejected."
        " A log record is kept without an invalid id, and without a time; a point flagged NO_RECORDED_VALUE is kept, with its"
        " flag.",
        "comments of trace.proto, metrics.proto, logs.proto",
        "the last value of a repeated attribute key is stored; an unspecified temporality is stored as cumulative, with a note,"
        " unless validation.otlp_temporality_missing rejects it",
    ),
    Item(
        "Unknown protobuf fields are ignored; fields may come in any order, be split, or repeat: the last scalar wins, messages"
        " merge.",
        "Protobuf encoding",
    ),
    Item("Nesting is bounded: deeper is rejected, never a crash.", "", "an AnyValue may be 64 deep"),
)

REMOTE_WRITE: Final = (
    Item(
        "The Content-Type decides the version: `application/x-protobuf`, plain or with `proto=prometheus.WriteRequest`, is"
        " 1.0; `proto=io.prometheus.write.v2.Request` is 2.0. Anything else: 415.",
        "2.0 Content-Type; 1.0 Protocol",
        "no Content-Type, `text/plain`, `application/octet-stream` and `application/vnd.google.protobuf` are 1.0 too",
    ),
    Item(
        "snappy's block format; other codings 415, corrupt or framed snappy 400; the announced length is checked first. A"
        " missing version header is fine.",
        "1.0 and 2.0 Protocol",
        "without Content-Encoding it is snappy",
    ),
    Item(
        "Success is 204 without a body. An answer to 2.0 has the exact numbers of samples, histograms and exemplars that were"
        " written, on failure too; an answer to 1.0 has not.",
        "2.0 Response; clients of 1.0",
    ),
    Item(
        "If anything was not written: 400 with counts and reasons, and the valid rest is kept. After 5xx and 429 nothing was"
        " written.",
        "2.0 Partial Write, Retries",
    ),
    Item(
        "Rejected: no or an empty `__name__`, a repeated label, an empty label name, references to symbols that are"
        " odd in number or out of range. Tolerated: labels out of order, names in any UTF-8.",
        "1.0 Labels; 2.0 Symbols",
        "a label without a value counts as absent",
    ),
    Item(
        "2.0: a series with samples and histograms, or with nothing, is rejected. Metadata alone and exemplars alone get a"
        " defined answer.",
        "2.0 io.prometheus.write.v2.TimeSeries",
        "metadata alone and exemplars alone are accepted",
    ),
    Item("Values are bit-exact: stale marker, NaN, infinities, minus zero.", "1.0 Stale Markers, Samples"),
    Item(
        "Times are int64 milliseconds. Start timestamps are read from field 3 of a sample, and of older senders from field 6"
        " of the series.",
        "2.0 io.prometheus.write.v2.Sample",
    ),
    Item(
        "Native histograms, of integers, floats and custom buckets, are kept whole; spans and counts that do not fit: rejected."
        " *Ours: a count that differs from the sum of the buckets is kept, with a note.*",
        "2.0 Histograms",
    ),
    Item("Samples out of order and repeated ones are the receiver's choice.", "1.0 Ordering", "kept"),
    Item(
        "Metadata and exemplars are stored.",
        "2.0 Metadata, Exemplars",
        "an exemplar that breaks a rule is left out, with a note, and not counted as written",
    ),
    Item("429 has Retry-After; if we cannot store, the answer is 503.", "1.0 and 2.0 Retries & Backoff"),
)

SAFETY: Final = (
    Item("A decompression bomb costs at most the limit in memory, and is refused.", ""),
    Item("Deep nesting, huge numbers, truncated and random bytes are answered with a clear 400, never a 5xx.", ""),
    Item("Slow senders hit a deadline; connections and heads are bounded.", ""),
    Item("Keys are kept as hashes, and compared as such.", ""),
    Item("Text from senders cannot forge a log line, and is escaped where it is shown.", ""),
)

CLIENTS: Final = (
    Item(
        "gRPC errors are trailers-only: Java's sender drops a batch whose error comes after initial metadata.",
        "seen on the wire",
    ),
    Item(
        "gRPC bodies in zstd or snappy are accepted; other codings are refused, without an effect on other calls.",
        "seen on the wire",
    ),
    Item("Exemplars come over 2.0 as series without samples, and are accepted.", "Prometheus 3"),
    Item(
        "Only answers to 2.0 have the headers with written counts, and these are exact. On 1.0, zeros would turn success into"
        " failure.",
        "Prometheus 3",
    ),
    Item("Stale markers of native histograms come as float samples of that series, and are kept.", "Prometheus 3"),
    Item("A stop drains: requests in progress are answered. Node and Java do not send again.", "SDKs for Node and Java"),
    Item(
        "RESOURCE_EXHAUSTED has RetryInfo for a quota, and none for a request that is too large.", "SDKs for Go, Python, Java"
    ),
    Item(
        "A retry has the same bytes and `Retry-Attempt`, and is accepted; 429 and 503 say when to retry.", "Prometheus 3, SDKs"
    ),
    Item("Media types of answers have no parameters: otherwise Go's SDK does not read a partial success.", "SDK for Go"),
    Item("A request that is sent again after no answer is a separate request, with its own batch id.", "SDKs, Collector"),
    Item("Answers come well within clients' deadlines (5 to 10 s); otherwise the request is refused.", "SDKs, Collector"),
    Item("Bodies may be chunked, and come in parallel on several connections.", "SDKs for Node, Java, Go"),
    Item("A POST that asks for an upgrade to h2c is answered in HTTP/1.1.", "the JDK's client"),
    Item("A User-Agent of `/`, no grpc-timeout, a ping at connect: all are served.", "SDKs"),
    Item("Everything acknowledged is stored: counted, item by item.", "SDKs exit 0 with everything lost"),
)

# The cases of h2spec that fail, by its sections and names, with the reason; test_external_tools.py holds that no others do.
_PRIORITIES: Final = (
    "RFC 9113 (5.3) has dropped the priorities of RFC 7540: such frames are checked for their size, and ignored"
)
H2SPEC_FAILS: Final = {
    ("http2/5.3.1", "Sends HEADERS frame that depend on itself"): _PRIORITIES,
    ("http2/5.3.1", "Sends PRIORITY frame that depend on itself"): _PRIORITIES,
}
# And those that fail on the ports of HTTP alone.
H2SPEC_FAILS_OVER_HTTP: Final = {
    ("http2/3.5", "Sends invalid connection preface"): (
        "bytes that do not begin as HTTP/2 are read as HTTP/1.1 there: the answer is 400, and the connection is closed"
    ),
}

GROUPS: Final = {
    "otlp": ("OTLP", OTLP),
    "remote_write": ("Prometheus remote write", REMOTE_WRITE),
    "safety": ("Safety, for every input", SAFETY),
    "clients": ("What real clients do", CLIENTS),
}
