"""The sections of the receivers: HTTP, gRPC, TLS, and what a request may be."""

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
    """Both HTTP ports: the API with its pages, and OTLP's own."""

    port: Port = Field(default=8080, description="Port of the API; the OTLP routes answer here too. 0: any free port.")
    otlp_port: Port = Field(default=4318, description="Port of OTLP over HTTP. 0: any free port.")
    listen: Places = Field(
        default="",
        description="Where the API also answers, beside host and port: HOST:PORT, or unix:/PATH for a Unix socket, with commas"
        " between. A Unix socket speaks no TLS.",
    )
    otlp_listen: Places = Field(default="", description="The same of OTLP over HTTP.")
    server: Literal["builtin", "hypercorn"] = Field(
        default="builtin",
        description="Whose HTTP/1.1 answers: our own, which is faster, or hypercorn's. HTTP/2 is the same beside both.",
    )
    body_bytes_max: Bytes = limit(64 * MIB, 1, 1 * GIB, "Largest request body as sent, in bytes. Larger: 413.")
    decompressed_bytes_max: Bytes = limit(
        64 * MIB, 1, 1 * GIB, "Largest request body once decompressed, in bytes. Larger: 413."
    )
    body_timeout_s: Number = limit(
        30, 0.1, 3600, "Seconds within which a request's head, and then its whole body, must have arrived. Later: 408."
    )
    handshake_timeout_s: Number = limit(10, 0.1, 600, "Seconds within which TLS must have begun, where [tls] has it.")
    keep_alive_s: Number = limit(75, 1, 3600, "Seconds for which an idle connection stays open.")
    connections_max: Whole = limit(4096, 1, 1_000_000, "Most connections at once, on both HTTP ports together. More: 503.")
    concurrent_requests_max: Whole = limit(
        16_384, 1, 1_000_000, "Most requests on all connections that wait for the rest of a body. More: 503."
    )
    header_bytes_max: Bytes = limit(
        64 * KIB, 1 * KIB, 1 * MIB, "Largest head of a request (request line and headers), in bytes."
    )
    concurrent_streams_max: Whole = limit(
        128, 1, 100_000, "Most requests at once on one HTTP/2 connection. More are refused, to be sent again."
    )
    control_frames_max: Whole = limit(
        1000,
        100,
        1_000_000,
        "HTTP/2 frames without use before a connection is closed: pings, settings, small frames beyond 16 of a stream. A reset "
        "counts 20, after as many free ones as concurrent_streams_max.",
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
        4 * MIB, 1 * KIB, 64 * MIB, "Largest form of a web page, in bytes: an edited dead letter, say. Larger: 413."
    )
    page_bytes_max: Bytes = limit(
        64 * MIB,
        64 * KIB,
        64 * GIB,
        "Bytes of large pages in memory that are not sent yet, half of them for one tenant or address. Over it: 503. A page of"
        " at most page_bytes_max / pages_max is not large.",
    )
    metrics_interval_s: Number = limit(
        1,
        0,
        60,
        "Seconds for which /metrics is kept as rendered, for all who ask; less after dead letters. 0: rendered for each.",
    )
    path_prefix: PathPrefix = Field(
        default="",
        description="A path under which every route answers too, as /collector, for proxies that do not take it away.",
    )
    cors_origins: Origins = Field(
        default="",
        description="Origins whose pages may send telemetry from a browser (CORS), with commas between: https://app.example.com,"
        " https://*.example.com, http://localhost:*, null, or * for all. Empty: none.",
    )
    cors_headers: HeaderNames = Field(
        default="",
        description="Headers that such pages may set beside those of OTLP, its SDKs and this API, with commas between. *: any.",
    )
    cors_max_age_s: Whole = limit(
        7200, 0, 86_400, "Seconds for which a browser need not ask again whether it may send. 0: it asks each time."
    )
    query_key: bool = Field(
        default=False,
        description="Whether telemetry's key may be in the query, as ?api_key=KEY, for senders that can set no header, such as"
        " navigator.sendBeacon. It is never logged here, but proxies on the way may log addresses.",
    )
    connection_age_max_s: Number = limit(
        600,
        0,
        604_800,
        "Seconds after which a connection is asked to end, give or take a tenth: an answer with Connection: close, in HTTP/2"
        " GOAWAY. Nothing in flight is lost. So new gateways behind a balancer get their share. 0: never.",
    )
    batch_items_max: Whole = limit(10_000, 1, 1_000_000, "Most records in one native batch. More: 400 batch_too_large.")
    backlog: Whole = limit(2048, 1, 65535, "Connections that may wait to be accepted, on each HTTP port.")


class Grpc(Section):
    """OTLP over gRPC."""

    port: Port = Field(default=4317, description="Port of OTLP over gRPC. 0: any free port.")
    listen: Places = Field(
        default="",
        description="Where gRPC is also taken, beside host and port: HOST:PORT, or unix:/PATH for a Unix socket, with commas"
        " between. A Unix socket speaks no TLS.",
    )
    message_bytes_max: Bytes = limit(
        64 * MIB, 1, 1 * GIB, "Largest request, decompressed, in bytes. Larger: RESOURCE_EXHAUSTED."
    )
    connections_max: Whole = limit(4096, 1, 1_000_000, "Most connections at once. More are closed.")
    handshake_timeout_s: Number = limit(
        10, 0.1, 600, "Seconds within which a connection must have begun: TLS, where [tls] has it, and HTTP/2."
    )
    body_timeout_s: Number = limit(
        30,
        0.1,
        3600,
        "Seconds within which a request must have arrived, once it has begun; less where its grpc-timeout is. Later:"
        " DEADLINE_EXCEEDED.",
    )
    concurrent_streams_max: Whole = limit(1024, 1, 1_000_000, "Most requests at once on one connection; more wait.")
    control_frames_max: Whole = limit(
        1000,
        100,
        1_000_000,
        "HTTP/2 frames without use before a connection is closed: pings, settings, small frames beyond 16 of a stream. A reset "
        "counts 20, after as many free ones as concurrent_streams_max.",
    )
    concurrent_requests_max: Whole = limit(
        16_384,
        1,
        1_000_000,
        "Most requests at once on all connections; so many may wait for the rest of a message, too. More: UNAVAILABLE.",
    )
    stream_calls_max: Whole = limit(
        1024,
        1,
        1_000_000,
        "Most calls of reflection and of health's Watch at once on all connections. More: RESOURCE_EXHAUSTED.",
    )
    connection_stream_calls_max: Whole = limit(
        16, 1, 100_000, "Most calls of reflection and of health at once on one connection. More: RESOURCE_EXHAUSTED."
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
        "Seconds after which a connection is asked to end with GOAWAY, give or take a tenth. Calls in flight are finished. So"
        " new gateways behind a balancer get their share. 0: never.",
    )
    ping_interval_min_s: Number = limit(
        5, 0, 3600, "Seconds that must lie between two pings of a client; faster ones are cut off."
    )


class Tls(Section):
    """TLS on every port: the API's, OTLP's over HTTP and gRPC, the writer's own. Files that change need no restart."""

    cert_file: OptionalLocation = Field(
        default=None, description="The certificate (PEM), those that it rests on after it. none: no TLS on any port."
    )
    key_file: OptionalLocation = Field(
        default=None, description="The key (PEM) of cert_file, not encrypted. none: it is in cert_file."
    )
    client_ca_file: OptionalLocation = Field(
        default=None,
        description="Certificates (PEM) that clients' are checked against; every client needs one then. none: none needs one.",
    )
    reload_interval_s: Number = limit(10, 0.1, 3600, "Seconds from one look at the files to the next.")


class Validation(Section):
    """What an item may be, and what one request may cost. Each is a rule for every source."""

    past_max_s: Whole = limit(
        86_400,
        0,
        3_155_760_000,
        "Oldest time of an item, in seconds before its arrival: by the native API, and by every source whose own setting is"
        " less. A plan's past_max_s comes before all of them.",
    )
    otlp_metrics_past_max_s: Whole = limit(604_800, 0, 3_155_760_000, "The same of OTLP's data points.")
    otlp_logs_past_max_s: Whole = limit(
        604_800, 0, 3_155_760_000, "The same of OTLP's log records; the observed time counts where the record's own is older."
    )
    otlp_traces_past_max_s: Whole = limit(604_800, 0, 3_155_760_000, "The same of OTLP's spans, by their ends.")
    own_time_past_max_s: Whole = limit(
        1_209_600,
        0,
        3_155_760_000,
        "Oldest own time of a log record that is taken by its observed time, and oldest start of a span that is taken by its"
        " end, in seconds before its arrival. Each day of these is a partition of its own in the store.",
    )
    remote_write_past_max_s: Whole = limit(604_800, 0, 3_155_760_000, "The same of Prometheus remote write.")
    future_max_s: Whole = limit(600, 0, 3_155_760_000, "Latest time of an item, in seconds after its arrival.")
    attributes_max: Whole = limit(
        1024,
        0,
        65_536,
        "Most attributes in one list (of a resource, a scope, an item). More are left out, and counted in"
        " dropped_attributes_count; a series of remote write with more labels is rejected.",
    )
    attribute_key_bytes_max: Bytes = limit(1024, 1, 1 * MIB, "Longest key of an attribute, in bytes.")
    attribute_value_bytes_max: Bytes = limit(256 * KIB, 1, 64 * MIB, "Longest value of an attribute, in bytes as sent.")
    attribute_value_too_long: Literal["truncate", "reject"] = Field(
        default="truncate",
        description="What becomes of a longer value: its beginning is stored, and its length as attribute"
        " infrasage.truncated.KEY; or the item is rejected. The same goes for longer keys, and for longer names of services,"
        " scopes, spans and events: their beginning is stored, with a digest that keeps two of them apart, where their limit is"
        " 32 bytes or more. A series' label and a metric's name are never truncated.",
    )
    otlp_json_snake_case: bool = Field(
        default=True,
        description="Whether names in snake_case are read in OTLP/JSON, beside lowerCamelCase, as the specification has it.",
    )
    otlp_json_enum_names: bool = Field(
        default=True,
        description="Whether an enum's name is read in OTLP/JSON, beside its number, as the specification has it.",
    )
    otlp_temporality_missing: Literal["cumulative", "reject"] = Field(
        default="cumulative",
        description="What becomes of an OTLP sum or histogram without an aggregation temporality: it is stored as cumulative,"
        " and the answer says so; or its points are rejected.",
    )
    item_bytes_max: Bytes = limit(
        4 * MIB,
        16 * KIB,
        64 * MIB,
        "Largest item, in bytes. One that does not fit broker.message_bytes_max gets a message of its own: topics must take"
        " it.",
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
        "Most bytes of the rows that one request becomes: each repeats its resource, scope and labels. Copies of a resource for"
        " its scopes may take an eighth. More: 413, RESOURCE_EXHAUSTED.",
    )
