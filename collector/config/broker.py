"""The sections of the settings for the broker: messages to it, the local log, and Kafka."""

from typing import Literal

from pydantic import Field

from collector.config.values import (
    GIB,
    KIB,
    MIB,
    Bytes,
    Name,
    Number,
    OptionalLocation,
    Secret,
    Section,
    Servers,
    Text,
    Topics,
    Whole,
    limit,
)


class BrokerSection(Section):
    """Messages from the receivers to the broker, for the local log and for Kafka."""

    message_bytes_max: Bytes = limit(512 * KIB, 16 * KIB, 64 * MIB, "Largest message, in bytes. Larger requests are split.")
    message_row_bytes_max: Bytes = limit(
        64 * MIB,
        1 * MIB,
        64 * GIB,
        "Largest size of a message's rows in the store, in bytes. Larger requests are split. A row repeats its resource and"
        " scope.",
    )
    in_flight_bytes_max: Bytes = limit(
        256 * MIB,
        64 * KIB,
        64 * GIB,
        "Bytes of all requests that are not durable yet: of their bodies, or of their rows if those are more. More: 503,"
        " UNAVAILABLE.",
    )
    retry_after_s: Number = limit(
        1, 0.001, 3600, "Seconds after which a refused client should try again (Retry-After, RetryInfo)."
    )


class LocalLogSection(Section):
    """The local durable log, in data_dir/log."""

    bytes_max: Bytes = limit(
        8 * GIB,
        64 * KIB,
        1024 * 1024 * GIB,
        "Bytes of messages that the log may hold until they are stored. Full: 503, nothing is dropped.",
    )
    waiting_bytes_max: Bytes = limit(64 * MIB, 1, 64 * GIB, "Bytes of messages that may wait for the disk. More: 503.")
    commit_bytes_max: Bytes = limit(
        16 * MIB, 1, 1 * GIB, "Most bytes in one commit, which takes one fsync. More go into the next commit."
    )
    wal_bytes_max: Bytes = limit(
        16 * MIB,
        1 * MIB,
        16 * GIB,
        "Size of the write-ahead log, in bytes, at which it is checkpointed into the file. It may grow to four times this"
        " size.",
    )
    spare_bytes_max: Bytes = limit(
        64 * MIB,
        0,
        1024 * GIB,
        "Bytes of freed space that the file keeps for new messages; or as many as its messages take, if that is more.",
    )
    reserve_percent: Number = limit(
        10,
        0,
        90,
        "Percent of the file system of data_dir that is kept free for the store. If less is free: 503, nothing is dropped.",
    )
    reserve_bytes_min: Bytes = limit(
        512 * MIB,
        0,
        1024 * GIB,
        "Least bytes that are kept free, whatever reserve_percent is; on a small file system, at most half of it.",
    )
    reserve_bytes_max: Bytes = limit(
        16 * GIB,
        0,
        1024 * GIB,
        "Most bytes that reserve_percent keeps free. Twice local_log.bytes_max is enough to store all messages of the log.",
    )
    append_timeout_s: Number = limit(8, 0.1, 600, "Seconds that an append may wait for its commit to begin. Later: 503.")


class Kafka(Section):
    """Kafka as the broker, instead of the local log. Without `bootstrap`, Kafka and the other settings are not used."""

    bootstrap: Servers = Field(
        default="", description="Addresses of Kafka's brokers, best of all of them. Empty: the local log."
    )
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="Kafka's security.protocol. SSL: TLS. SASL: user name and password."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="SASL's mechanism. PLAIN sends the password itself: use it only with SASL_SSL."
    )
    username: Text = Field(default="", max_length=255, description="The user, for SASL.")
    password: Secret = Field(default=None, description="The user's password. Never shown; see password_file.")
    password_file: OptionalLocation = Field(
        default=None, description="A file with the password, instead of password. A line end at the end of the file is ignored."
    )
    ca_file: OptionalLocation = Field(
        default=None, description="CA certificates (PEM) that verify the brokers' certificates. none: the system's."
    )
    cert_file: OptionalLocation = Field(
        default=None, description="The collector's own certificate (PEM), if the brokers require one."
    )
    key_file: OptionalLocation = Field(
        default=None, description="The private key (PEM) of cert_file, not encrypted. none: it is in cert_file."
    )
    client_id: Name = Field(
        default="infrasage-collector",
        min_length=1,
        max_length=255,
        description="The collector's client id in Kafka's logs and quotas.",
    )
    group_id: Name = Field(
        default="infrasage-writer",
        min_length=1,
        max_length=255,
        description="The writers' consumer group. Its committed offsets say what is stored: a new name stores everything"
        " again.",
    )
    topics: Topics = Field(
        default="",
        description="Topics that other programs write, as the OpenTelemetry Collector's kafka exporter does, and that writers"
        " store. TENANT is the tenant of messages that name none; without it, that is tenants.anonymous_tenant.",
    )
    topics_tenant_header: Name = Field(
        default="",
        max_length=255,
        description="The header that names the tenant of each message of `topics`. Programs that write the topics may name any"
        " tenant. Empty: none.",
    )
    create_topics: bool = Field(
        default=True,
        description="Whether missing topics are created. false: the start fails, with the commands that create them.",
    )
    topic_partitions: Whole = limit(
        6, 1, 10_000, "Partitions of each topic that is created: at most so many writers can share it."
    )
    topic_replication: Whole = limit(
        0,
        0,
        32,
        "Replicas of each topic that is created. 0: as many as Kafka has brokers, or as bootstrap names if that is more, but at"
        " most 3.",
    )
    topic_brokers_wait_s: Number = limit(
        120, 0, 86_400, "Seconds to wait, before topics are created, for as many brokers as topic_replication demands."
    )
    waiting_bytes_max: Bytes = limit(64 * MIB, 1, 64 * GIB, "Bytes of messages that may wait for Kafka. More: 503.")
    append_timeout_s: Number = limit(
        12,
        0.1,
        600,
        "Seconds that an append may wait until Kafka has it. Later: 503. It should be longer than Kafka takes to lose a"
        " broker.",
    )
    request_timeout_s: Number = limit(
        10, 0.1, 600, "Seconds to wait for answers of Kafka that have no timeout of their own here."
    )
    answer_timeout_s: Number = limit(
        3, 0.1, 600, "Seconds to wait for answers that a broker gives at once. Later, it counts as away, and others are asked."
    )
    metadata_refresh_s: Number = limit(
        5, 0.1, 300, "Seconds between two requests for Kafka's brokers, leaders and partitions. New ones are used from then on."
    )
    session_timeout_s: Number = limit(
        10, 1, 1800, "Seconds of silence after which Kafka gives a writer's partitions to the others."
    )
    requests_in_flight_max: Whole = limit(
        2,
        1,
        16,
        "Most produce requests in flight to one broker, each for other partitions. More than one is sent only while one is"
        " slow, or full.",
    )
    linger_ms: Number = limit(0, 0, 1000, "Milliseconds for which small messages wait for others, to share a request.")
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        default="none", description="Compression of messages by the gateway. On most networks it costs more than it saves."
    )
