"""All settings in one object, and the rules between sections."""

from pathlib import Path
from typing import Annotated, Self

from annotated_types import MaxLen, MinLen
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from collector.config.broker import Broker, Kafka, LocalLog
from collector.config.process import Audit, Gateway, Logging, Shutdown, Writer
from collector.config.receivers import Grpc, Http, Tls, Validation
from collector.config.store import ClickHouse, DeadLetters, Query, Store
from collector.config.tenants import PLAN_NAME_MAX, Limits, PlanLimits, Tenants
from collector.config.values import Kind, Location, Section, Text, Whole, limit, no_whitespace, size_text, to_tables
from collector.tenancy.plans import Plan
from collector.tenancy.plans import plans as all_plans


class Settings(Section):
KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
_UNITS: Final = {"b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": 1024 * GIB}
_SIZE: Final = re.compile(r"\s*(\d+)\s*([a-z]*)\s*", re.IGNORECASE)
# A name, an IPv4 address, or an IPv6 address in brackets; and a port.
_SERVER: Final = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})", re.ASCII)

# The settings that commands take as flags.
FLAGS: Final = {
    "data_dir": "--data-dir",
    "host": "--host",
    "http.port": "--http-port",
    "http.otlp_port": "--otlp-http-port",
    "grpc.port": "--grpc-port",
    "kafka.bootstrap": "--kafka",
    "clickhouse.url": "--clickhouse",
    "gateway.workers": "--workers",
    "writer.port": "--port",
    "tenants.keys_file": "--keys-file",
    "limits.redis_url": "--redis",
}

_PLAN_NAME_MAX: Final = 128

# What is written in a secret's place.
MASKED: Final = "********"


class ConfigError(Exception):
    """The configuration can't be used. `problems`: one line for each setting that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems: Final = problems


def _no_boolean(value: object) -> object:
    # Python's true is the integer 1; `port = true` is a mistake all the same.
    if isinstance(value, bool):
        raise ValueError("not a number")
    return value


def _to_bytes(value: object) -> object:
    """64 MiB is 67108864; a bare number is bytes."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        unit = _UNITS.get(match[2].lower() or "b") if match else None
        if match is None or unit is None:
            raise ValueError("not a size")
        return int(match[1]) * unit
    return _no_boolean(value)


def _to_optional(value: object) -> object:
    """TOML and the environment have no null: the word none."""
    return None if value in ("", "none") else _no_boolean(value)


def _to_optional_path(value: object) -> object:
    return None if value in ("", "none") else _to_path(value)


def _to_quorum(value: object) -> object:
    number = int(value) if isinstance(value, str) and value.isdecimal() else _no_boolean(value)
    if number != "auto" and not (isinstance(number, int) and 0 <= number <= 100):
        raise ValueError("not a quorum")
    return number


def _no_whitespace(value: str) -> str:
    if not value.isprintable() or " " in value:
        raise ValueError("whitespace")
    return value


def _servers(value: str) -> str:
    """HOST:PORT,HOST:PORT as every client of Kafka takes it; or nothing."""
    for server in value.split(",") if value else ():
        match = _SERVER.fullmatch(server)
        if match is None or not 1 <= int(match[1]) <= 65535:
            raise ValueError("not HOST:PORT")
    return value


def _server_url(value: str) -> str:
    """Who asks, and for what, are settings of their own: a password here would be shown and logged."""
    if not value:
        return value
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
        raise ValueError("not a URL of a server")
    if url.query or url.fragment or url.port == 0:
        raise ValueError("more than a server")
    return value


def _redis_url(value: str) -> str:
    """As _server_url; the number of a database may follow."""
    if not value:
        return value
    url = urlsplit(value)
    if url.scheme not in ("redis", "rediss") or not url.hostname or "@" in url.netloc:
        raise ValueError("not a URL of a Redis")
    if url.query or url.fragment or url.port == 0 or not re.fullmatch(r"(/\d*)?", url.path, re.ASCII):
        raise ValueError("more than a server and a database")
    return value


def _to_tables(value: object) -> object:
    """From the environment they come as JSON."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("not JSON") from None
    return value


def _to_optional_bytes(value: object) -> object:
    return None if value in ("", "none") else _to_bytes(value)


def _to_path(value: object) -> object:
    if isinstance(value, str) and not value.strip("\0 "):
        raise ValueError("empty")
    return Path(value).expanduser() if isinstance(value, str) else value


class _Kind(NamedTuple):
    """How a type is called in messages and in the reference."""

    name: str


Whole = Annotated[int, BeforeValidator(_no_boolean), _Kind("a whole number")]
Bytes = Annotated[int, BeforeValidator(_to_bytes), _Kind("a size")]
Number = Annotated[float, BeforeValidator(_no_boolean), _Kind("a number")]
OptionalWhole = Annotated[int | None, BeforeValidator(_to_optional), _Kind("none, or a whole number")]
Text = Annotated[str, _Kind("text")]
Location = Annotated[Path, BeforeValidator(_to_path), _Kind("a path")]
OptionalLocation = Annotated[Path | None, BeforeValidator(_to_optional_path), _Kind("none, or a path")]
Name = Annotated[str, AfterValidator(_no_whitespace), _Kind("text without spaces")]
Servers = Annotated[
    str,
    AfterValidator(_no_whitespace),
    AfterValidator(_servers),
    _Kind('HOST:PORT, several of them with commas between, or ""'),
]
ServerUrl = Annotated[
    str,
    AfterValidator(_no_whitespace),
    AfterValidator(_server_url),
    _Kind('http://HOST:PORT or https://HOST:PORT, without user and password, or ""'),
]
RedisUrl = Annotated[
    str,
    AfterValidator(_no_whitespace),
    AfterValidator(_redis_url),
    _Kind('redis://HOST:PORT or rediss://HOST:PORT (TLS), without user and password, or ""'),
]
OptionalBytes = Annotated[int | None, BeforeValidator(_to_optional_bytes), _Kind("none, or a size")]
Quorum = Annotated[int | Literal["auto"], BeforeValidator(_to_quorum), _Kind("auto, or a whole number from 0 to 100")]
Secret = Annotated[SecretStr | None, BeforeValidator(_to_optional), _Kind("text")]
Port = Annotated[int, BeforeValidator(_no_boolean), Ge(0), Le(65535), _Kind("a whole number")]


def secret_text(secret: SecretStr | None) -> str:
    """What it is; empty where there is none."""
    return secret.get_secret_value() if secret is not None else ""


def _limit(default: float | None, low: float, high: float, description: str) -> Any:  # as pydantic's Field
    return Field(default=default, ge=low, le=high, allow_inf_nan=False, description=description)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Http(_Section):
    """Both HTTP ports: the API with its pages, and OTLP's own."""

    port: Port = Field(default=8080, description="Port of the API; the OTLP routes answer here too. 0: any free port.")
    otlp_port: Port = Field(default=4318, description="Port of OTLP over HTTP. 0: any free port.")
    server: Literal["builtin", "hypercorn"] = Field(
        default="builtin",
        description="Whose HTTP/1.1 answers: our own, which is faster, or hypercorn's. HTTP/2 is the same beside both.",
    )
    body_bytes_max: Bytes = _limit(64 * MIB, 1, 1 * GIB, "Largest request body as sent, in bytes. Larger: 413.")
    decompressed_bytes_max: Bytes = _limit(
        64 * MIB, 1, 1 * GIB, "Largest request body once decompressed, in bytes. Larger: 413."
    )
    body_timeout_s: Number = _limit(
        30, 0.1, 3600, "Seconds within which a request's head, and then its whole body, must have arrived. Later: 408."
    )
    handshake_timeout_s: Number = _limit(10, 0.1, 600, "Seconds within which TLS must have begun, where [tls] has it.")
    keep_alive_s: Number = _limit(75, 1, 3600, "Seconds for which an idle connection stays open.")
    connections_max: Whole = _limit(4096, 1, 1_000_000, "Most connections at once, on both HTTP ports together. More: 503.")
    header_bytes_max: Bytes = _limit(
        64 * KIB, 1 * KIB, 1 * MIB, "Largest head of a request (request line and headers), in bytes."
    )
    concurrent_streams_max: Whole = _limit(
        128, 1, 100_000, "Most requests at once on one HTTP/2 connection. More are refused, to be sent again."
    )
    control_frames_max: Whole = _limit(
        1000,
        100,
        1_000_000,
        "HTTP/2 frames without use before a connection is closed: pings, settings, small frames beyond 16 of a stream. A reset "
        "counts 20, after as many free ones as concurrent_streams_max.",
    )
    pages_max: Whole = _limit(
        256,
        1,
        100_000,
        "Most pages (metrics, documentation, the reading API) answered at once, half of them to one address. More: 503.",
    )
    connection_pages_max: Whole = _limit(16, 1, 100_000, "Most pages answered at once on one connection. More: 503.")
    page_bytes_max: Bytes = _limit(
        64 * MIB, 64 * KIB, 64 * GIB, "Bytes of pages in memory that are not sent yet. Over it: 503."
    )
    metrics_interval_s: Number = _limit(
        1, 0, 60, "Seconds for which /metrics is kept as it was rendered, for all who ask. 0: rendered for each."
    )
    batch_items_max: Whole = _limit(10_000, 1, 1_000_000, "Most records in one native batch. More: 400 batch_too_large.")
    backlog: Whole = _limit(2048, 1, 65535, "Connections that may wait to be accepted, on each HTTP port.")


class Grpc(_Section):
    """OTLP over gRPC."""

    port: Port = Field(default=4317, description="Port of OTLP over gRPC. 0: any free port.")
    message_bytes_max: Bytes = _limit(
        64 * MIB, 1, 1 * GIB, "Largest request, decompressed, in bytes. Larger: RESOURCE_EXHAUSTED."
    )
    connections_max: Whole = _limit(4096, 1, 1_000_000, "Most connections at once. More are closed.")
    handshake_timeout_s: Number = _limit(
        10, 0.1, 600, "Seconds within which a connection must have begun: TLS, where [tls] has it, and HTTP/2."
    )
    body_timeout_s: Number = _limit(
        30, 0.1, 3600, "Seconds within which a request must have arrived, once it has begun. Later: DEADLINE_EXCEEDED."
    )
    concurrent_streams_max: Whole = _limit(1024, 1, 1_000_000, "Most requests at once on one connection; more wait.")
    control_frames_max: Whole = _limit(
        1000,
        100,
        1_000_000,
        "HTTP/2 frames without use before a connection is closed: pings, settings, small frames beyond 16 of a stream. A reset "
        "counts 20, after as many free ones as concurrent_streams_max.",
    )
    concurrent_requests_max: Whole = _limit(
        16_384, 1, 1_000_000, "Most requests at once on all connections. More: UNAVAILABLE."
    )
    header_bytes_max: Bytes = _limit(16 * KIB, 1 * KIB, 1 * MIB, "Largest metadata of a request, in bytes.")
    keep_alive_s: Number = _limit(60, 1, 7200, "Seconds of silence after which the server pings a client.")
    keep_alive_timeout_s: Number = _limit(
        20, 1, 600, "Seconds to wait for the answer to a ping before the connection is closed."
    )
    ping_interval_min_s: Number = _limit(
        5, 0, 3600, "Seconds that must lie between two pings of a client; faster ones are cut off."
    )


class Tls(_Section):
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
    reload_interval_s: Number = _limit(10, 0.1, 3600, "Seconds from one look at the files to the next.")


class Validation(_Section):
    """What an item may be, and what one request may cost. Each is a rule for every source."""

    past_max_s: Whole = _limit(
        86_400,
        0,
        3_155_760_000,
        "Oldest time of an item, in seconds before its arrival: by the native API, and by every source whose own setting is"
        " less. A plan's past_max_s comes before all of them.",
    )
    otlp_metrics_past_max_s: Whole = _limit(604_800, 0, 3_155_760_000, "The same of OTLP's data points.")
    otlp_logs_past_max_s: Whole = _limit(
        604_800, 0, 3_155_760_000, "The same of OTLP's log records; the observed time counts where the record's own is older."
    )
    otlp_traces_past_max_s: Whole = _limit(604_800, 0, 3_155_760_000, "The same of OTLP's spans, by their ends.")
    remote_write_past_max_s: Whole = _limit(604_800, 0, 3_155_760_000, "The same of Prometheus remote write.")
    future_max_s: Whole = _limit(600, 0, 3_155_760_000, "Latest time of an item, in seconds after its arrival.")
    attributes_max: Whole = _limit(
        1024,
        0,
        65_536,
        "Most attributes in one list (of a resource, a scope, an item). More are left out, and counted in"
        " dropped_attributes_count; a series of remote write with more labels is rejected.",
    )
    attribute_key_bytes_max: Bytes = _limit(1024, 1, 1 * MIB, "Longest key of an attribute, in bytes.")
    attribute_value_bytes_max: Bytes = _limit(256 * KIB, 1, 64 * MIB, "Longest value of an attribute, in bytes as sent.")
    attribute_value_too_long: Literal["truncate", "reject"] = Field(
        default="truncate",
        description="What becomes of a longer value: its beginning is stored, and its length as attribute"
        " infrasage.truncated.KEY; or the item is rejected. A label of remote write is never truncated: two series would become"
        " one.",
    )
    otlp_json_snake_case: bool = Field(
        default=True,
        description="Whether names in snake_case are read in OTLP/JSON, beside lowerCamelCase, as the specification has it.",
    )
    otlp_json_enum_names: bool = Field(
        default=True,
        description="Whether an enum's name is read in OTLP/JSON, beside its number, as the specification has it.",
    )
    item_bytes_max: Bytes = _limit(
        4 * MIB,
        16 * KIB,
        64 * MIB,
        "Largest item, in bytes. One that does not fit broker.message_bytes_max gets a message of its own: topics must take"
        " it.",
    )
    name_bytes_max: Bytes = _limit(1024, 1, 1 * MIB, "Longest name of a service, metric, span, event or scope, in bytes.")
    request_elements_max: Whole = _limit(
        5_000_000,
        1000,
        1_000_000_000,
        "Most elements of one request: messages, attributes, labels, values, entries of lists. More: 413, RESOURCE_EXHAUSTED.",
    )
    request_row_bytes_max: Bytes = _limit(
        512 * MIB,
        1 * MIB,
        64 * GIB,
        "Most bytes of the rows that one request becomes: each repeats its resource, scope and labels. Copies of a resource for"
        " its scopes may take an eighth. More: 413, RESOURCE_EXHAUSTED.",
    )


class Broker(_Section):
    """The way from the receivers into the broker, whichever it is."""

    message_bytes_max: Bytes = _limit(512 * KIB, 16 * KIB, 64 * MIB, "Largest message, in bytes; requests are split to it.")
    message_row_bytes_max: Bytes = _limit(
        64 * MIB,
        1 * MIB,
        64 * GIB,
        "Bytes of rows that a message may become in the store; requests are split to it. A row repeats its resource and scope.",
    )
    in_flight_bytes_max: Bytes = _limit(
        256 * MIB,
        64 * KIB,
        64 * GIB,
        "Bytes of bodies, or of rows where those are more, of requests not durable yet. Over it: 503, UNAVAILABLE.",
    )
    retry_after_s: Number = _limit(
        1, 0.001, 3600, "Seconds after which a refused sender is asked to try again (Retry-After, RetryInfo)."
    )


class LocalLog(_Section):
    """The local durable log, in data_dir/log."""

    bytes_max: Bytes = _limit(
        8 * GIB,
        64 * KIB,
        1024 * 1024 * GIB,
        "Bytes of messages not stored yet that the log may hold. Full: 503, nothing is dropped.",
    )
    waiting_bytes_max: Bytes = _limit(64 * MIB, 1, 64 * GIB, "Bytes of messages that may wait for the disk. More: 503.")
    commit_bytes_max: Bytes = _limit(
        16 * MIB, 1, 1 * GIB, "Bytes that share one commit, and so one fsync; more go into the next."
    )
    wal_bytes_max: Bytes = _limit(
        16 * MIB,
        1 * MIB,
        16 * GIB,
        "Bytes of the write-ahead log before it is folded into the file; it may grow to four times that.",
    )
    spare_bytes_max: Bytes = _limit(64 * MIB, 0, 1024 * GIB, "Bytes of freed space that the file keeps for what comes next.")
    reserve_percent: Number = _limit(
        10,
        0,
        90,
        "Percent of the file system of data_dir that is kept free for the store. Less free: 503, nothing is dropped.",
    )
    reserve_bytes_min: Bytes = _limit(
        512 * MIB,
        0,
        1024 * GIB,
        "Bytes that are kept free at least, whatever reserve_percent is; of a small file system no more than half.",
    )
    reserve_bytes_max: Bytes = _limit(
        16 * GIB,
        0,
        1024 * GIB,
        "Bytes that reserve_percent may come to at most: twice local_log.bytes_max are enough to store all that waits.",
    )
    append_timeout_s: Number = _limit(8, 0.1, 600, "Seconds that an append may wait for its commit to begin. Later: 503.")


class Kafka(_Section):
    """Kafka as the broker, in the local log's place. Without `bootstrap` there is none, and the rest is not used."""

    bootstrap: Servers = Field(default="", description="Where Kafka is: best all of its brokers. Empty: the local log.")
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="Kafka's security.protocol. SSL: TLS; SASL: user name and password."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="How the password is proven. PLAIN sends it: only over SASL_SSL."
    )
    username: Text = Field(default="", max_length=255, description="The user, for SASL.")
    password: Secret = Field(default=None, description="The user's password. Never shown; see password_file.")
    password_file: OptionalLocation = Field(
        default=None, description="A file with the password, in its place; a line end at its end is not part of it."
    )
    ca_file: OptionalLocation = Field(
        default=None, description="Certificates (PEM) that the brokers' are checked against. none: the system's."
    )
    cert_file: OptionalLocation = Field(default=None, description="Our own certificate (PEM), where the brokers ask for one.")
    key_file: OptionalLocation = Field(
        default=None, description="The key (PEM) of cert_file, not encrypted. none: it is in cert_file."
    )
    client_id: Name = Field(
        default="infrasage-collector", min_length=1, max_length=255, description="What Kafka's logs and quotas call us."
    )
    group_id: Name = Field(
        default="infrasage-writer",
        min_length=1,
        max_length=255,
        description="The writers' consumer group. Its commits say what is stored: a new name stores everything again.",
    )
    create_topics: bool = Field(
        default=True, description="Whether topics that do not exist are created. false: the start says which to create."
    )
    topic_partitions: Whole = _limit(6, 1, 10_000, "Partitions of each topic that is created: as many writers can share it.")
    topic_replication: Whole = _limit(
        0,
        0,
        32,
        "Replicas of each topic that is created. 0: as many as there are brokers, or as bootstrap names, at most 3.",
    )
    topic_brokers_wait_s: Number = _limit(
        120, 0, 86_400, "Seconds that topics are not created while fewer brokers are there than topic_replication asks for."
    )
    waiting_bytes_max: Bytes = _limit(64 * MIB, 1, 64 * GIB, "Bytes of messages that may wait for Kafka. More: 503.")
    append_timeout_s: Number = _limit(
        12,
        0.1,
        600,
        "Seconds that an append may wait until Kafka has it. Later: 503. Best longer than Kafka takes to lose a broker.",
    )
    request_timeout_s: Number = _limit(10, 0.1, 600, "Seconds to wait for any other answer of Kafka.")
    answer_timeout_s: Number = _limit(
        3, 0.1, 600, "Seconds to wait for what a broker answers at once. Later, it is away, and others are asked."
    )
    metadata_refresh_s: Number = _limit(
        5, 0.1, 300, "Seconds until Kafka is asked again for its brokers, leaders and partitions: new ones are read then."
    )
    session_timeout_s: Number = _limit(
        10, 1, 1800, "Seconds of silence after which a writer's partitions are given to the others."
    )
    requests_in_flight_max: Whole = _limit(
        2,
        1,
        16,
        "Produce requests on the way to each broker at once, of other partitions; more than one while one is slow, or full.",
    )
    linger_ms: Number = _limit(0, 0, 1000, "Milliseconds for which small messages wait for more to share a request.")
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        default="none", description="What messages are compressed with, here. It costs more than it saves on most networks."
    )


class ClickHouse(_Section):
    """ClickHouse as a server, in the embedded engine's place. Without `url` there is none, and the rest is not used."""

    url: ServerUrl = Field(
        default="", description="Where its HTTP interface is. Empty: the embedded engine, in data_dir/store."
    )
    user: Text = Field(default="default", min_length=1, max_length=255, description="The user.")
    password: Secret = Field(default=None, description="The user's password. Never shown; see password_file.")
    password_file: OptionalLocation = Field(
        default=None, description="A file with the password, in its place; a line end at its end is not part of it."
    )
    database: Name = Field(
        default="default", min_length=1, max_length=128, description="The database of the tables; made if it does not exist."
    )
    cluster: Name = Field(
        default="", max_length=128, description="A cluster's name: tables are replicated, and made on all of it. Empty: none."
    )
    ca_file: OptionalLocation = Field(
        default=None, description="Certificates (PEM) that the server's is checked against. none: the usual authorities'."
    )
    verify: bool = Field(default=True, description="Whether the server's certificate is checked. false: anyone can pose as it.")
    insert_quorum: Quorum = Field(
        default=0, description="Replicas that must have an insert before it counts as stored. 0: one; auto: most of them."
    )
    connect_timeout_s: Number = _limit(5, 0.1, 600, "Seconds within which a connection must be made.")
    request_timeout_s: Number = _limit(
        300, 0.1, 86_400, "Seconds to wait for an answer. An insert that was given up is looked up before it is repeated."
    )


class Gateway(_Section):
    """The gateway command."""

    workers: Whole = _limit(1, 1, 256, "Processes that share the ports; about one a core.")


class Writer(_Section):
    """From the broker into the store."""

    port: Port = Field(default=8081, description="Port of the writer command's own /healthz and /metrics. 0: any free port.")

    bytes_max: Bytes = _limit(16 * MIB, 1, 1 * GIB, "Bytes in one insert. The embedded engine's memory grows with it.")
    row_bytes_max: Bytes = _limit(
        128 * MIB,
        1 * MIB,
        64 * GIB,
        "Bytes of the rows of one insert, each with its resource and scope. ClickHouse needs a few times as much memory.",
    )
    refusals_max: Whole = _limit(
        1000,
        1,
        1_000_000,
        "Refused inserts in the search for data that ClickHouse can't read. After that, whole records become dead letters.",
    )
    linger_ms: Number = _limit(
        500,
        0,
        60_000,
        "Milliseconds from one insert of a topic to the next, unless that is full. The first after a pause begins at once.",
    )
    retry_min_s: Number = _limit(
        0.1, 0.001, 3600, "Seconds before a failed insert is tried again, at first; doubles each time."
    )
    retry_max_s: Number = _limit(30, 0.001, 3600, "Seconds before a failed insert is tried again, at most.")


class Store(_Section):
    """The tables, and what a query may cost."""

    retention_days: OptionalWhole = _limit(None, 1, 36_525, "Days for which rows are kept. none: for ever.")
    fsync: bool = Field(
        default=True, description="Whether inserted parts are on disk, not only with the operating system, when an insert ends."
    )
    insert_memory_bytes_max: Bytes = _limit(2 * GIB, 64 * MIB, 1024 * GIB, "Memory that an insert may use, in bytes.")
    engine_idle_threads_max: Whole = _limit(
        8,
        1,
        1000,
        "Threads that each pool of the embedded engine keeps or uses for its own work; each holds three file descriptors.",
    )
    query_time_max_s: Number = _limit(60, 0.1, 86_400, "Seconds that a query may take.")
    query_memory_bytes_max: Bytes = _limit(1 * GIB, 16 * MIB, 1024 * GIB, "Memory that a query may use, in bytes.")
    query_rows_max: Whole = _limit(1_000_000, 1, 10_000_000_000, "Rows that a query may answer with.")
    query_result_bytes_max: Bytes = _limit(256 * MIB, 1 * KIB, 64 * GIB, "Bytes that a query may answer with.")


class Query(_Section):
    """The socket by which the query command asks the running collector."""

    wait_s: Number = _limit(30, 0, 3600, "Seconds to wait, before a query, until everything acknowledged before it is stored.")
    page_wait_s: Number = _limit(5, 0, 3600, "The same, for pages of the API that tell of what is stored.")
    recent_batches_max: Whole = _limit(
        10_000, 0, 10_000_000, "Requests that each process remembers, to tell of them before they are in the store."
    )
    sql_bytes_max: Bytes = _limit(1 * MIB, 1 * KIB, 64 * MIB, "Longest query, in bytes.")
    concurrent_max: Whole = _limit(2, 1, 64, "Queries answered at once; more wait.")
    body_timeout_s: Number = _limit(10, 0.1, 3600, "Seconds within which a whole query must have arrived.")


RecognizedBy = Literal["body", "key"]


class Repetitions(_Section):
    """A request that is sent again is stored once, if it has an Idempotency-Key, or its data identify themselves."""

    window_s: Whole = _limit(
        900,
        0,
        7 * 86_400,
        "Seconds within which a request that is sent again is recognized. 0: none is, with a key or without.",
    )
    metrics: RecognizedBy = Field(
        default="body",
        description="How OTLP metrics are recognized without an Idempotency-Key. body: by the same body; key: not at all.",
    )
    traces: RecognizedBy = Field(default="body", description="How OTLP traces are.")
    logs: RecognizedBy = Field(
        default="body",
        description="How OTLP logs are. body: only requests in which every record has a time finer than a millisecond.",
    )
    remote_write: RecognizedBy = Field(default="body", description="How remote write is.")
    native: RecognizedBy = Field(
        default="key",
        description="How the native API is. body: of two equal requests within window_s the second is not stored.",
    )
    keys_max: Whole = _limit(
        1_000_000,
        4,
        1_000_000_000,
        "Fingerprints of messages that a writer keeps in memory, 50 bytes each. For others it asks the store.",
    )
    answers_max: Whole = _limit(
        10_000, 0, 10_000_000, "Requests of which a process of the gateway remembers its answer, to give it again."
    )


class Logging(_Section):
    """The collector's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least that is logged.")
    format: Literal["auto", "json", "console"] = Field(default="auto", description="auto: console on a terminal, else json.")


class Shutdown(_Section):
    """How the collector ends at SIGTERM or SIGINT."""

    lame_duck_s: Number = _limit(
        3,
        0,
        600,
        "Seconds after SIGTERM for which requests are still accepted, while /healthz and gRPC's health service report the end"
        " and answers ask clients to go elsewhere. 0: none. Not waited for after SIGINT, or if nobody was connected for 10 s.",
    )
    timeout_s: Number = _limit(
        15, 0.1, 3600, "Seconds after lame_duck_s within which requests in flight are finished and everything is closed."
    )


class Tenants(_Section):
    """Whose the records are: by the sender's key, or without one."""

    keys_file: OptionalLocation = Field(
        default=None, description="The file of keys, which gateways share. none: keys.json in data_dir."
    )
    keys_reload_s: Number = _limit(1, 0.1, 3600, "Seconds between two looks at whether the file of keys has changed.")
    anonymous: Literal["auto", "yes", "no"] = Field(
        default="auto", description="Whether records may come without a key. auto: to serve yes, to gateway no."
    )
    anonymous_tenant: Text = Field(
        default="anonymous", min_length=1, max_length=128, description="The tenant of records that come without a key."
    )
    anonymous_plan: Text = Field(
        default="Unlimited", min_length=1, max_length=_PLAN_NAME_MAX, description="The plan of that tenant."
    )
    upgrade_url: Text = Field(
        default="/billing/plans", max_length=1024, description="Where a tenant over its quota is told to go for more."
    )
    in_flight_share_max: Number = _limit(
        0.5, 0.01, 1, "Part of broker.in_flight_bytes_max that one tenant's requests may hold. Over it: 503."
    )
    metrics_names: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="Whether /metrics names tenants to who has no key of scope admin. auto: where host is a loopback address.",
    )
    shown_max: Whole = _limit(50, 0, 10_000, "Tenants that /metrics shows by name, the largest; the rest are shown as one.")


class PlanLimits(_Section):
    """What a tenant with this plan may send. Free, Pro and Unlimited are there; a table of the same name replaces one."""

    requests_per_s: OptionalWhole = _limit(None, 1, RATE_MAX, "Requests a second. none: any number.")
    requests_burst: OptionalWhole = _limit(None, 1, RATE_MAX, "Requests at once, after a pause. none: as many as in a second.")
    items_per_s: OptionalWhole = _limit(None, 1, RATE_MAX, "Items (points, log records, spans) a second. none: any number.")
    items_burst: OptionalWhole = _limit(
        None, 1, RATE_MAX, "Items at once, and so in one request. none: as many as in a second."
    )
    bytes_per_s: OptionalBytes = _limit(
        None, 1, RATE_MAX, "Bytes of rows a second, or of decompressed bodies where those are more. none: any number."
    )
    bytes_burst: OptionalBytes = _limit(
        None, 1, RATE_MAX, "Bytes at once, and so in one request. none: as many as in a second."
    )
    past_max_s: OptionalWhole = _limit(
        None, 0, 3_155_760_000, "Oldest time of an item, in seconds before its arrival. none: as [validation] has it."
    )


class Limits(_Section):
    """How gateways hold tenants to their plans together. A plan's own numbers are in its [plans.NAME]."""

    redis_url: RedisUrl = Field(
        default="", description="The Redis by which gateways and their processes count together. Empty: each has its share."
    )
    redis_user: Text = Field(default="", max_length=255, description="The user, where Redis asks for one.")
    redis_password: Secret = Field(default=None, description="The password. Never shown; see redis_password_file.")
    redis_password_file: OptionalLocation = Field(
        default=None, description="A file with the password, in its place; a line end at its end is not part of it."
    )
    redis_ca_file: OptionalLocation = Field(
        default=None, description="Certificates (PEM) that Redis's is checked against. none: the system's."
    )
    redis_timeout_ms: Number = _limit(
        100, 1, 60_000, "Milliseconds to wait for Redis. Later it is taken to be away, and this process goes on with its share."
    )
    gateways: Whole = _limit(
        1, 1, 10_000, "How many gateways there are. Without Redis, one process's share is one part of gateways times workers."
    )


class DeadLetters(_Section):
    """What was received and can't be stored. Caps are each tenant's, in each process of a gateway."""

    items_per_minute_max: Whole = _limit(
        10_000,
        0,
        10_000_000,
        "Rejected items that are kept in a minute. A request with more of them is answered 429 until the next minute, and"
        " nothing of it is kept. 0: none is kept, and they are only counted.",
    )
    bytes_per_minute_max: Bytes = _limit(64 * MIB, 0, 64 * GIB, "Bytes of rejected items that are kept in a minute; likewise.")
    payload_bytes_max: Bytes = _limit(
        64 * KIB,
        1 * KIB,
        4 * MIB,
        "Bytes that are kept of the body of a request that was refused as a whole: its beginning.",
    )
    retention_days: OptionalWhole = _limit(30, 1, 36_525, "Days for which dead letters are kept. none: for ever.")


class Audit(_Section):
    """The audit that runs by itself, where the store is written: what the command `audit` finds, as metrics."""

    interval_s: Number = _limit(3600, 0, 604_800, "Seconds from one audit to the next; each judges what came since. 0: never.")
    delay_s: Number = _limit(
        300,
        1,
        86_400,
        "Seconds after which a request is judged: its records should be stored by then. Lag is not a difference.",
    )


class Settings(_Section):
    """All settings. `Settings()` is the defaults; `load` reads a file, the environment and flags."""

    data_dir: Location = Field(
        default=Path("data"), description="Where the log and the store are; relative to the working directory."
    )
    host: Text = Field(
        default="127.0.0.1",
        min_length=1,
        max_length=255,
        description="Address to listen on. 0.0.0.0 or ::: every one of the machine's.",
    )
    open_files_reserve: Whole = limit(
        1024,
        16,
        1_000_000,
        "File descriptors that connections leave to the log, the store and Kafka; at most half of what the process may open.",
    )
    http: Http = Field(default_factory=Http)
    grpc: Grpc = Field(default_factory=Grpc)
    tls: Tls = Field(default_factory=Tls)
    validation: Validation = Field(default_factory=Validation)
    broker: Broker = Field(default_factory=Broker)
    local_log: LocalLog = Field(default_factory=LocalLog)
    kafka: Kafka = Field(default_factory=Kafka)
    clickhouse: ClickHouse = Field(default_factory=ClickHouse)
    gateway: Gateway = Field(default_factory=Gateway)
    writer: Writer = Field(default_factory=Writer)
    store: Store = Field(default_factory=Store)
    query: Query = Field(default_factory=Query)
    logging: Logging = Field(default_factory=Logging)
    repetitions: Repetitions = Field(default_factory=Repetitions)
    shutdown: Shutdown = Field(default_factory=Shutdown)
    tenants: Tenants = Field(default_factory=Tenants)
    limits: Limits = Field(default_factory=Limits)
    plans: Annotated[
        dict[Annotated[str, MinLen(1), MaxLen(PLAN_NAME_MAX), AfterValidator(no_whitespace)], PlanLimits],
        BeforeValidator(to_tables),
        Kind("tables [plans.NAME], or in the environment JSON"),
    ] = Field(default_factory=dict, description="Plans beside Free, Pro and Unlimited: see below.")
    dead_letters: DeadLetters = Field(default_factory=DeadLetters)
    audit: Audit = Field(default_factory=Audit)

    @property
    def message_bytes_largest(self) -> int:
        """The largest message that topics must take."""
        return max(self.broker.message_bytes_max, self.validation.item_bytes_max)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """What no setting can say alone."""
        ports: dict[int, str] = {}
        for name, port in (
            ("http.port", self.http.port),
            ("http.otlp_port", self.http.otlp_port),
            ("grpc.port", self.grpc.port),
            ("writer.port", self.writer.port),
        ):
            if port and port in ports:
                raise ValueError(f"{ports[port]} and {name} are both {port}: each needs a port of its own")
            ports[port] = name
        if self.writer.retry_min_s > self.writer.retry_max_s:
            raise ValueError(
                f"writer.retry_min_s is {self.writer.retry_min_s:g} and writer.retry_max_s {self.writer.retry_max_s:g}:"
                " the first may not be the larger"
            )
        if self.broker.message_row_bytes_max < 2 * self.broker.message_bytes_max:
            raise ValueError(
                f"broker.message_row_bytes_max is {size_text(self.broker.message_row_bytes_max)}, less than twice"
                f" broker.message_bytes_max, {size_text(self.broker.message_bytes_max)}: the row of the largest item would"
                " exceed it"
            )
        if self.broker.message_row_bytes_max < 2 * self.validation.item_bytes_max:
            raise ValueError(
                f"broker.message_row_bytes_max is {size_text(self.broker.message_row_bytes_max)}, less than twice"
                f" validation.item_bytes_max, {size_text(self.validation.item_bytes_max)}: the row of the largest item would"
                " exceed it"
            )
        in_flight = int(self.broker.in_flight_bytes_max * self.tenants.in_flight_share_max)
        for name, size in (
            (
                "http.body_bytes_max and http.decompressed_bytes_max together",
                self.http.body_bytes_max + self.http.decompressed_bytes_max,
            ),
            ("grpc.message_bytes_max", self.grpc.message_bytes_max),
        ):
            # Else such a request would be told to come again for ever.
            if size > in_flight:
                raise ValueError(
                    f"broker.in_flight_bytes_max times tenants.in_flight_share_max is {size_text(in_flight)}, less than {name},"
                    f" {size_text(size)}: a request of the largest size would never be admitted"
                )
        if self.tls.cert_file is None:
            for name in ("key_file", "client_ca_file"):
                if getattr(self.tls, name) is not None:
                    raise ValueError(f"tls.{name} is given without tls.cert_file, without which there is no TLS")
        self._agree_on_kafka()
        self._agree_on_plans()
        if self.clickhouse.ca_file is not None and not self.clickhouse.url.startswith("https:"):
            raise ValueError("clickhouse.ca_file is given, but clickhouse.url is not https: it would not be used")
        return self

    def plans_by_name(self) -> dict[str, Plan]:
        """All there are, the built-in ones too."""
        return all_plans({name: plan.model_dump() for name, plan in self.plans.items()})

    def _agree_on_kafka(self) -> None:
        kafka = self.kafka
        if kafka.security.startswith("SASL"):
            if not kafka.username or kafka.password is None:
                raise ValueError(
                    f"kafka.security is {kafka.security}, which needs kafka.username and kafka.password or kafka.password_file"
                )
        # Whoever gives a password believes that it is used.
        elif kafka.username or kafka.password is not None:
            raise ValueError(f"kafka.username or kafka.password is given, but kafka.security is {kafka.security}, without SASL")
        if not kafka.security.endswith("SSL"):
            for name in ("ca_file", "cert_file", "key_file"):
                if getattr(kafka, name) is not None:
                    raise ValueError(f"kafka.{name} is given, but kafka.security is {kafka.security}, without TLS")
        if kafka.key_file is not None and kafka.cert_file is None:
            raise ValueError("kafka.key_file is given without kafka.cert_file, whose key it would be")

    def _agree_on_plans(self) -> None:
        try:
            known = self.plans_by_name()
        except ValueError as error:
            raise ValueError(f"in plans: {error}") from None
        if self.tenants.anonymous_plan not in known:
            raise ValueError(
                f"tenants.anonymous_plan is {self.tenants.anonymous_plan}, and there is no such plan; known: {', '.join(known)}"
            )
        if not self.limits.redis_url and (self.limits.redis_user or self.limits.redis_password is not None):
            raise ValueError("limits.redis_user or limits.redis_password is given, but limits.redis_url is not")
        if self.limits.redis_ca_file is not None and not self.limits.redis_url.startswith("rediss:"):
            raise ValueError("limits.redis_ca_file is given, but limits.redis_url is not rediss: it would not be used")
