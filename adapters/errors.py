"""Every reason for a rejection or refusal, in one list, and the exceptions that adapters raise.

A reason has the same name everywhere (answers, metrics, dead letters, documentation), and is named only here. Item reasons
reject one item and keep its neighbours. Request reasons refuse a whole request: none of it is kept.
"""

from typing import Final, NamedTuple

# Item reasons. Adapters and rules pass these integers on the hot path; 0 and 1 are not reasons but states of a scan.
MISSING_SERVICE_ID: Final = 2
MISSING_METRIC_NAME: Final = 3
MISSING_VALUE: Final = 4
MISSING_BODY: Final = 5
MISSING_TIMESTAMP: Final = 6
INVALID_RECORD: Final = 7
INVALID_SERVICE_ID: Final = 8
INVALID_TYPE: Final = 9
INVALID_METRIC_NAME: Final = 10
INVALID_VALUE: Final = 11
INVALID_BODY: Final = 12
INVALID_TRACE_ID: Final = 13
INVALID_SPAN_ID: Final = 14
INVALID_TIMESTAMP: Final = 15
INVALID_ATTRIBUTES: Final = 16
INVALID_LABELS: Final = 17
INVALID_HISTOGRAM: Final = 18
TIMESTAMP_TOO_OLD: Final = 19
TIMESTAMP_IN_FUTURE: Final = 20
UNSPECIFIED_TEMPORALITY: Final = 21
TOO_MANY_ATTRIBUTES: Final = 22
ATTRIBUTE_KEY_TOO_LONG: Final = 23
ATTRIBUTE_VALUE_TOO_LONG: Final = 24
NAME_TOO_LONG: Final = 25
NESTED_TOO_DEEP: Final = 26
RECORD_TOO_LARGE: Final = 27
INVALID_SERIES: Final = 28
STORE_REFUSED: Final = 29
UNREADABLE_MESSAGE: Final = 30

# Request reasons.
INVALID_JSON: Final = 40
INVALID_PROTOBUF: Final = 41
INVALID_COMPRESSION: Final = 42
BATCH_TOO_LARGE: Final = 43
PAYLOAD_TOO_LARGE: Final = 44
UNSUPPORTED_MEDIA_TYPE: Final = 45
UNSUPPORTED_CONTENT_ENCODING: Final = 46
METHOD_NOT_ALLOWED: Final = 47
NOT_FOUND: Final = 48
REQUEST_TIMEOUT: Final = 49
RATE_LIMIT_EXCEEDED: Final = 50
OVERLOADED: Final = 51
STORAGE_FULL: Final = 52
STORAGE_UNAVAILABLE: Final = 53
SHUTTING_DOWN: Final = 54
INTERNAL: Final = 55
MISSING_API_KEY: Final = 56
INVALID_API_KEY: Final = 57
INSUFFICIENT_SCOPE: Final = 58
EXCEEDS_PLAN: Final = 59
INVALID_PARAMETER: Final = 60
STORE_UNAVAILABLE: Final = 61
DEAD_LETTERS_FULL: Final = 62
IDEMPOTENCY_KEY_REUSED: Final = 63
ORIGIN_NOT_ALLOWED: Final = 64


class Reason(NamedTuple):
    """A `Reason` is one cause of a rejection or refusal."""

    code: int
    name: str
    meaning: str
    remedy: str


REASONS: Final[tuple[Reason, ...]] = (
    Reason(MISSING_SERVICE_ID, "missing_service_id", "service_id is required", "name the service that sends"),
    Reason(MISSING_METRIC_NAME, "missing_metric_name", "metric_name is required", "name the metric"),
    Reason(MISSING_VALUE, "missing_value", "value is required", "send a number"),
    Reason(MISSING_BODY, "missing_body", "body is required", "send the text of the log or event"),
    Reason(MISSING_TIMESTAMP, "missing_timestamp", "timestamp is required", "say when it happened"),
    Reason(INVALID_RECORD, "invalid_record", "a record must be a JSON object", "send an object"),
    Reason(INVALID_SERVICE_ID, "invalid_service_id", "service_id must be a string", "send text"),
    Reason(INVALID_TYPE, "invalid_type", "type must be one of metric, log, trace, event, profile, slo", "use one of them"),
    Reason(INVALID_METRIC_NAME, "invalid_metric_name", "metric_name must be a string", "send text"),
    Reason(INVALID_VALUE, "invalid_value", "value must be a finite float64", "send a finite number"),
    Reason(INVALID_BODY, "invalid_body", "body must be a string", "send text"),
    Reason(INVALID_TRACE_ID, "invalid_trace_id", "a trace id must be 16 bytes, not all zero", "send the span's own trace id"),
    Reason(INVALID_SPAN_ID, "invalid_span_id", "a span id must be 8 bytes, not all zero", "send the span's own id"),
    Reason(INVALID_TIMESTAMP, "invalid_timestamp", "timestamp must be RFC 3339", "write it as 2026-04-10T12:00:00Z"),
    Reason(INVALID_ATTRIBUTES, "invalid_attributes", "attributes must be an object", "send key-value pairs"),
    Reason(INVALID_LABELS, "invalid_labels", "labels must have names and values, each name once", "fix the relabeling"),
    Reason(INVALID_SERIES, "invalid_series", "the series is not what remote write 2.0 allows", "fix the sender"),
    Reason(INVALID_HISTOGRAM, "invalid_histogram", "the histogram's buckets do not fit each other", "fix the exporter"),
    Reason(
        TIMESTAMP_TOO_OLD,
        "timestamp_too_old",
        "Timestamp is too far in the past",
        "send sooner, or widen the source's window in [validation]",
    ),
    Reason(TIMESTAMP_IN_FUTURE, "timestamp_in_future", "Timestamp is too far in the future", "set the sender's clock"),
    Reason(
        UNSPECIFIED_TEMPORALITY,
        "unspecified_temporality",
        "aggregation temporality must be delta or cumulative",
        "set it in the exporter, or set validation.otlp_temporality_missing",
    ),
    Reason(TOO_MANY_ATTRIBUTES, "too_many_attributes", "too many attributes", "send fewer, or raise validation.attributes_max"),
    Reason(
        ATTRIBUTE_KEY_TOO_LONG,
        "attribute_key_too_long",
        "an attribute's key is too long",
        "shorten it, or raise validation.attribute_key_bytes_max",
    ),
    Reason(
        ATTRIBUTE_VALUE_TOO_LONG,
        "attribute_value_too_long",
        "an attribute's value is too long",
        "shorten it, or raise validation.attribute_value_bytes_max",
    ),
    Reason(NAME_TOO_LONG, "name_too_long", "a name is too long", "shorten it, or raise validation.name_bytes_max"),
    Reason(NESTED_TOO_DEEP, "nested_too_deep", "an attribute or a body is nested more than 64 deep", "flatten it"),
    Reason(
        RECORD_TOO_LARGE,
        "record_too_large",
        "the record alone exceeds the largest message",
        "shorten it, or raise validation.item_bytes_max",
    ),
    Reason(
        STORE_REFUSED,
        "store_refused",
        "ClickHouse can't read the record: only in dead letters, of what was accepted",
        "report it: it is a defect of the collector",
    ),
    Reason(
        UNREADABLE_MESSAGE,
        "unreadable_message",
        "a message of the broker is not what its topic holds: only in dead letters",
        "find out who else writes to the topic",
    ),
    Reason(INVALID_JSON, "invalid_json", "the body is not JSON as RFC 8259 has it", "fix the sender"),
    Reason(
        INVALID_PROTOBUF,
        "invalid_protobuf",
        "the body is not the protobuf message of this route",
        "check the route and the sender",
    ),
    Reason(INVALID_COMPRESSION, "invalid_compression", "the body does not decompress", "check Content-Encoding and the sender"),
    Reason(BATCH_TOO_LARGE, "batch_too_large", "too many records in one batch", "send smaller batches"),
    Reason(
        PAYLOAD_TOO_LARGE,
        "payload_too_large",
        "the body is too large, holds too many elements, or becomes too many bytes of rows",
        "send smaller batches, or raise the setting that the message names; for the decompressed size it is"
        " http.decompressed_bytes_max, or grpc.message_bytes_max",
    ),
    Reason(UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "the Content-Type is not one of this route", "send one that is"),
    Reason(
        UNSUPPORTED_CONTENT_ENCODING,
        "unsupported_content_encoding",
        "the Content-Encoding is not one of this route",
        "send one that is",
    ),
    Reason(METHOD_NOT_ALLOWED, "method_not_allowed", "the route does not take this method", "use the method that Allow names"),
    Reason(NOT_FOUND, "not_found", "there is no such route", "see /docs"),
    Reason(REQUEST_TIMEOUT, "request_timeout", "the body did not arrive in time", "send faster, or raise http.body_timeout_s"),
    Reason(RATE_LIMIT_EXCEEDED, "rate_limit_exceeded", "the tenant's quota is exceeded", "send again after Retry-After"),
    Reason(OVERLOADED, "overloaded", "too many bytes are in flight", "send again after Retry-After"),
    Reason(
        STORAGE_FULL,
        "storage_full",
        "the log, or its disk, is full",
        "send again after Retry-After; the message names the limit",
    ),
    Reason(STORAGE_UNAVAILABLE, "storage_unavailable", "the log cannot be written", "send again after Retry-After"),
    Reason(SHUTTING_DOWN, "shutting_down", "the collector is stopping", "send again after Retry-After"),
    Reason(INTERNAL, "internal", "a defect of the collector", "report it, with the batch id"),
    Reason(
        MISSING_API_KEY,
        "missing_api_key",
        "an API key is required",
        "send one as X-API-Key or Authorization: Bearer (gRPC: metadata x-api-key)",
    ),
    Reason(
        INVALID_API_KEY,
        "invalid_api_key",
        "the API key is unknown, revoked or expired",
        "send one that `keys list` shows as active; `keys create` makes one",
    ),
    Reason(
        INSUFFICIENT_SCOPE,
        "insufficient_scope",
        "the API key's scope does not allow this",
        "use a key whose scope does",
    ),
    Reason(
        ORIGIN_NOT_ALLOWED,
        "origin_not_allowed",
        "pages of this origin may not send here, or not with this key",
        "add the origin to http.cors_origins, or to the key",
    ),
    Reason(
        EXCEEDS_PLAN,
        "exceeds_plan",
        "the request alone is more than the tenant's plan ever allows at once",
        "send smaller batches, or ask for a larger plan",
    ),
    Reason(INVALID_PARAMETER, "invalid_parameter", "a parameter of the question is not allowed", "the message names it"),
    Reason(
        STORE_UNAVAILABLE,
        "store_unavailable",
        "the store can't be asked: only where something is read",
        "ask again; a gateway needs clickhouse.url for that",
    ),
    Reason(
        DEAD_LETTERS_FULL,
        "dead_letters_full",
        "the tenant's dead letters of this minute have no room for the items that would be rejected: nothing was kept",
        "send again after Retry-After; or fix the sender, or raise the setting that the message names",
    ),
    Reason(
        IDEMPOTENCY_KEY_REUSED,
        "idempotency_key_reused",
        "the Idempotency-Key was used for another body",
        "send a new key with each new request, and the same body with the same key",
    ),
)

REASON: Final[dict[int, Reason]] = {reason.code: reason for reason in REASONS}


class RequestRefused(Exception):
    """The whole request is refused, and none of its items is stored. This is permanent: the same bytes are refused again.

    `reason` is one of the request reasons, or the item reason of a request that is one item; `message` has the numbers.
    """

    def __init__(self, reason: int, message: str) -> None:
        super().__init__(message)
        self.reason: int = reason
        self.message: str = message


class Malformed(RequestRefused):
    """The body can't be decoded: `cannot decode WriteRequest: 812 bytes, truncated at 640`."""


def too_many_elements(size_bytes: int, elements_max: int, *, is_whole: bool = True) -> RequestRefused:
    """Return the refusal of a body of more than `elements_max` elements. `size_bytes` is its size, or that of its beginning."""
    return _too_many("request", size_bytes, elements_max, "messages, attributes, labels, values", is_whole)


def too_many_json_parts(size_bytes: int, parts_max: int, *, is_whole: bool = True) -> RequestRefused:
    """Return the refusal of a JSON body of more than `parts_max` parts. `size_bytes` is as in `too_many_elements`."""
    return _too_many("JSON", size_bytes, parts_max, "objects, arrays and commas", is_whole)


def _too_many(body: str, size_bytes: int, elements_max: int, kinds: str, is_whole: bool) -> RequestRefused:
    read = f"the {body} of {size_bytes} bytes holds" if is_whole else f"the first {size_bytes} bytes of the {body} hold"
    return RequestRefused(
        PAYLOAD_TOO_LARGE,
        f"{read} more than {elements_max} elements ({kinds}): send smaller batches, or raise validation.request_elements_max",
    )


def too_many_row_bytes_for_plan(row_bytes_max: int) -> RequestRefused:
    """Return the refusal of a request whose rows have more bytes than its tenant's plan ever allows."""
    return RequestRefused(
        EXCEEDS_PLAN,
        f"the request becomes rows of more than {row_bytes_max} bytes, since each row repeats its resource, scope and labels,"
        " and the plan of its tenant never allows more at once: send it in parts, or with a larger plan",
    )


def too_many_row_bytes(row_bytes_max: int) -> RequestRefused:
    """Return the refusal of a request whose rows have more than `row_bytes_max` bytes."""
    return RequestRefused(
        PAYLOAD_TOO_LARGE,
        f"the request becomes rows of more than {row_bytes_max} bytes, since each row repeats its resource, scope and labels:"
        " send smaller batches, or raise validation.request_row_bytes_max",
    )
