"""The sections of the settings for receivers: HTTP, gRPC, TLS, and the limits of requests and items."""

from typing import Literal

from pydantic import Field

from collector.config.values import (
    GIB,
    KIB,
    MIB,
    Bytes,
    HeaderNames,
    Number,
    OptionalLocation,
    Origins,
    PathPrefix,
    Places,
    Port,
    Section,
    Whole,
    limit,
)


class Http(Section):
    """Both HTTP ports: that of the API and its pages, and OTLP's own."""

    port: Port = Field(default=8080, description="Port of the API; the OTLP routes answer here too. 0: any free port.")
    otlp_port: Port = Field(default=4318, description="Port of OTLP over HTTP. 0: any free port.")
    listen: Places = Field(
        default="",
        description="Further places where the API listens, beside host and port: HOST:PORT, or unix:/PATH for a Unix socket,"
        " with commas between. A Unix socket speaks no TLS.",
    )
    otlp_listen: Places = Field(default="", description="The same for OTLP over HTTP.")
    server: Literal["builtin", "hypercorn"] = Field(
        default="builtin",
        description="The implementation of HTTP/1.1: our own, which is faster, or hypercorn's. HTTP/2 is the same with both.",
    )
    body_bytes_max: Bytes = limit(64 * MIB, 1, 1 * GIB, "Largest request body as sent, in bytes. Larger: 413.")
    decompressed_bytes_max: Bytes = limit(
        64 * MIB, 1, 1 * GIB, "Largest request body once decompressed, in bytes. Larger: 413."
    )
    body_timeout_s: Number = limit(
        30, 0.1, 3600, "Seconds within which a request's head, and then its whole body, must arrive. Later: 408."
    )
    handshake_timeout_s: Number = limit(10, 0.1, 600, "Seconds within which a TLS handshake must be done, if [tls] is used.")
    keep_alive_s: Number = limit(75, 1, 3600, "Seconds for which an idle connection stays open.")
    connections_max: Whole = limit(4096, 1, 1_000_000, "Most connections at once, on both HTTP ports together. More: 503.")
    concurrent_requests_max: Whole = limit(
        16_384, 1, 1_000_000, "Most requests on all connections that wait for the rest of their bodies. More: 503."
    )
    header_bytes_max: Bytes = limit(
        64 * KIB, 1 * KIB, 1 * MIB, "Largest head of a request (request line and headers), in bytes."
    )
    concurrent_streams_max: Whole = limit(
        128, 1, 100_000, "Most requests at once on one HTTP/2 connection. More are refused, and may be sent again."
    )
    control_frames_max: Whole = limit(
        1000,
        100,
        1_000_000,
        "Useless HTTP/2 frames after which a connection is closed: pings, settings, and small frames beyond 16 of a stream. A"
        " reset counts as 20, but the first concurrent_streams_max resets are free.",
    )
    pages_max: Whole = limit(
        256,
        1,
        100_000,
        "Most pages (metrics, documentation, the reading API, the web pages) answered at once, half of them to one address."
        " More: 503.",
    )
    connection_pages_max: Whole = limit(16, 1, 100_000, "Most pages answered at once on one connection. More: 503.")
    form_bytes_max: Bytes = limit(
        4 * MIB, 1 * KIB, 64 * MIB, "Largest form of a web page, in bytes, as that of an edited dead letter. Larger: 413."
    )
    page_bytes_max: Bytes = limit(
        64 * MIB,
        64 * KIB,
        64 * GIB,
        "Bytes of large pages in memory that are not sent yet, half of them for one tenant or address. More: 503. A page of"
        " at most page_bytes_max / pages_max is not large.",
    )
    metrics_interval_s: Number = limit(
        1,
        0,
        60,
        "Seconds for which a rendered /metrics answers all requests; less after new dead letters. 0: each request renders it.",
    )
    path_prefix: PathPrefix = Field(
        default="",
        description="A path under which every route answers too, as /collector, for proxies that do not remove it.",
    )
    cors_origins: Origins = Field(
        default="",
        description="Origins whose pages may send telemetry from a browser (CORS), with commas between:"
        " https://app.example.com, https://*.example.com, http://localhost:*, null, or * for all. Empty: none.",
    )
    cors_headers: HeaderNames = Field(
        default="",
        description="Headers that pages of cors_origins may set beside those of OTLP, its SDKs and this API, with commas"
        " between. *: any.",
    )
    cors_max_age_s: Whole = limit(
        7200, 0, 86_400, "Seconds for which a browser may remember that it may send. 0: it asks each time."
    )
    query_key: bool = Field(
        default=False,
        description="Whether requests with telemetry may have their key in the query, as ?api_key=KEY, for senders that can"
        " set no header, such as navigator.sendBeacon. The collector never logs it, but proxies on the way may.",
    )
    connection_age_max_s: Number = limit(
        600,
        0,
        604_800,
        "Seconds, give or take a tenth, after which a client is asked to end its connection: by Connection: close, or GOAWAY in"
        " HTTP/2. Nothing in flight is lost. So new gateways behind a balancer get their share. 0: never.",
    )
    batch_items_max: Whole = limit(10_000, 1, 1_000_000, "Most records in one native batch. More: 400 batch_too_large.")
    backlog: Whole = limit(2048, 1, 65535, "Connections that may wait to be accepted, on each HTTP port.")


class Grpc(Section):
    """OTLP over gRPC."""

    port: Port = Field(default=4317, description="Port of OTLP over gRPC. 0: any free port.")
    listen: Places = Field(
        default="",
        description="Further places to listen for gRPC, beside host and port: HOST:PORT, or unix:/PATH for a Unix socket, with"
        " commas between. A Unix socket speaks no TLS.",
    )
    message_bytes_max: Bytes = limit(
        64 * MIB, 1, 1 * GIB, "Largest request, decompressed, in bytes. Larger: RESOURCE_EXHAUSTED."
    )
    connections_max: Whole = limit(4096, 1, 1_000_000, "Most connections at once. More are closed.")
    handshake_timeout_s: Number = limit(
        10, 0.1, 600, "Seconds within which the handshake of TLS, if [tls] is used, and then that of HTTP/2 must be done."
    )
    body_timeout_s: Number = limit(
        30,
        0.1,
        3600,
        "Seconds within which a request must arrive once it has begun; less if its grpc-timeout is less. Later:"
        " DEADLINE_EXCEEDED.",
    )
    concurrent_streams_max: Whole = limit(1024, 1, 1_000_000, "Most requests at once on one connection; more wait.")
    control_frames_max: Whole = limit(
        1000,
        100,
        1_000_000,
        "Useless HTTP/2 frames after which a connection is closed: pings, settings, and small frames beyond 16 of a stream. A"
        " reset counts as 20, but the first concurrent_streams_max resets are free.",
    )
    concurrent_requests_max: Whole = limit(
        16_384,
        1,
        1_000_000,
        "Most requests at once on all connections, and most that wait for the rest of their messages. More: UNAVAILABLE.",
    )
    stream_calls_max: Whole = limit(
        1024,
        1,
        1_000_000,
        "Most calls at once, on all connections, of reflection and of the health service's Watch. More: RESOURCE_EXHAUSTED.",
    )
    connection_stream_calls_max: Whole = limit(
        16,
        1,
        100_000,
        "Most calls at once, on one connection, of reflection and of the health service. More: RESOURCE_EXHAUSTED.",
    )
    header_bytes_max: Bytes = limit(16 * KIB, 1 * KIB, 1 * MIB, "Largest metadata of a request, in bytes.")
    keep_alive_s: Number = limit(60, 1, 7200, "Seconds of silence after which the server pings a client.")
    keep_alive_timeout_s: Number = limit(
        20, 1, 600, "Seconds to wait for the answer to a ping before the connection is closed."
    )
    connection_age_max_s: Number = limit(
        600,
        0,
        604_800,
        "Seconds, give or take a tenth, after which a client is asked by GOAWAY to end its connection. Calls in flight are"
        " finished. So new gateways behind a balancer get their share. 0: never.",
    )
    ping_interval_min_s: Number = limit(
        5, 0, 3600, "Least seconds between two pings of a client. Clients that ping faster are disconnected."
    )


class Tls(Section):
    """TLS on every port: HTTP, gRPC, the writer's and store.http_port. Changes of the files' contents need no restart."""

    cert_file: OptionalLocation = Field(
        default=None, description="The certificate (PEM), followed by its intermediate certificates. none: no TLS on any port."
    )
    key_file: OptionalLocation = Field(
        default=None, description="The private key (PEM) of cert_file, not encrypted. none: it is in cert_file."
    )
    client_ca_file: OptionalLocation = Field(
        default=None,
        description="CA certificates (PEM) that verify clients' certificates. Then every client needs a certificate. none: no"
        " client needs one.",
    )
    reload_interval_s: Number = limit(10, 0.1, 3600, "Seconds between two checks whether the files have changed.")


class Validation(Section):
    """The limits of items and of requests, for every source unless a setting names one."""

    past_max_s: Whole = limit(
        86_400,
        0,
        3_155_760_000,
        "Oldest time of an item, in seconds before its arrival: for the native API, and for each source whose own setting is"
        " less. A plan's past_max_s replaces all of them.",
    )
    otlp_metrics_past_max_s: Whole = limit(
        604_800, 0, 3_155_760_000, "Oldest time of an OTLP data point, in seconds before its arrival."
    )
    otlp_logs_past_max_s: Whole = limit(
        604_800,
        0,
        3_155_760_000,
        "Oldest time of an OTLP log record, in seconds before its arrival. If its own time is older, its observed time counts.",
    )
    otlp_traces_past_max_s: Whole = limit(
        604_800, 0, 3_155_760_000, "Oldest end of an OTLP span, in seconds before its arrival."
    )
    own_time_past_max_s: Whole = limit(
        1_209_600,
        0,
        3_155_760_000,
        "Oldest own time of a log record whose observed time counts, and oldest start of a span, in seconds before its"
        " arrival. Each day of these times is a partition of its own in the store.",
    )
    remote_write_past_max_s: Whole = limit(
        604_800, 0, 3_155_760_000, "Oldest time of a sample of Prometheus remote write, in seconds before its arrival."
    )
    future_max_s: Whole = limit(600, 0, 3_155_760_000, "Latest time of an item, in seconds after its arrival.")
    attributes_max: Whole = limit(
        1024,
        0,
        65_536,
        "Most attributes in one list: of a resource, a scope or an item. More are left out, and counted in"
        " dropped_attributes_count. A series of remote write with more labels is rejected.",
    )
    attribute_key_bytes_max: Bytes = limit(1024, 1, 1 * MIB, "Longest key of an attribute, in bytes.")
    attribute_value_bytes_max: Bytes = limit(256 * KIB, 1, 64 * MIB, "Longest value of an attribute, in bytes as sent.")
    attribute_value_too_long: Literal["truncate", "reject"] = Field(
        default="truncate",
        description="What is done with a longer value. truncate: its beginning is stored, and its length as attribute"
        " infrasage.truncated.KEY. reject: the item is rejected. The same applies to longer keys, and to longer names of"
        " services, scopes, spans and events: if their limit is 32 bytes or more, their beginning is stored, with a digest that"
        " distinguishes them. A series' label and a metric's name are never truncated.",
    )
    otlp_json_snake_case: bool = Field(
        default=True,
        description="Whether OTLP/JSON may have names in snake_case, beside the specification's lowerCamelCase.",
    )
    otlp_json_enum_names: bool = Field(
        default=True,
        description="Whether OTLP/JSON may have the name of an enum's value, beside the specification's number.",
    )
    otlp_temporality_missing: Literal["cumulative", "reject"] = Field(
        default="cumulative",
        description="What is done with an OTLP sum or histogram without an aggregation temporality. cumulative: it is stored as"
        " cumulative, and the answer reports it. reject: its points are rejected.",
    )
    item_bytes_max: Bytes = limit(
        4 * MIB,
        16 * KIB,
        64 * MIB,
        "Largest item, in bytes. An item that does not fit broker.message_bytes_max gets a message of its own, which topics"
        " must accept.",
    )
    name_bytes_max: Bytes = limit(1024, 1, 1 * MIB, "Longest name of a service, metric, span, event or scope, in bytes.")
    request_elements_max: Whole = limit(
        5_000_000,
        1000,
        1_000_000_000,
        "Most elements of one request: messages, attributes, labels, values, entries of lists. More: 413, RESOURCE_EXHAUSTED.",
    )
    request_row_bytes_max: Bytes = limit(
        512 * MIB,
        1 * MIB,
        64 * GIB,
        "Most bytes of the rows of one request in the store: each row repeats its resource, scope and labels. Copies of a"
        " resource for its scopes may take an eighth. More: 413, RESOURCE_EXHAUSTED.",
    )
