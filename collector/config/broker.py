"""The sections of the broker: the way into it, the local log, and Kafka."""

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
    """The way from the receivers into the broker, whichever it is."""

    message_bytes_max: Bytes = limit(512 * KIB, 16 * KIB, 64 * MIB, "Largest message, in bytes; requests are split to it.")
    message_row_bytes_max: Bytes = limit(
        64 * MIB,
        1 * MIB,
        64 * GIB,
        "Bytes of rows that a message may become in the store; requests are split to it. A row repeats its resource and scope.",
    )
    in_flight_bytes_max: Bytes = limit(
        256 * MIB,
        64 * KIB,
        64 * GIB,
        "Bytes of bodies, or of rows where those are more, of requests not durable yet. Over it: 503, UNAVAILABLE.",
    )
    retry_after_s: Number = limit(
        1, 0.001, 3600, "Seconds after which a refused sender is asked to try again (Retry-After, RetryInfo)."
    )


class LocalLogSection(Section):
    """The local durable log, in data_dir/log."""

    bytes_max: Bytes = limit(
        8 * GIB,
        64 * KIB,
        1024 * 1024 * GIB,
        "Bytes of messages not stored yet that the log may hold. Full: 503, nothing is dropped.",
    )
    waiting_bytes_max: Bytes = limit(64 * MIB, 1, 64 * GIB, "Bytes of messages that may wait for the disk. More: 503.")
    commit_bytes_max: Bytes = limit(
        16 * MIB, 1, 1 * GIB, "Bytes that share one commit, and so one fsync; more go into the next."
    )
    wal_bytes_max: Bytes = limit(
        16 * MIB,
        1 * MIB,
        16 * GIB,
        "Bytes of the write-ahead log before it is folded into the file; it may grow to four times that.",
    )
    spare_bytes_max: Bytes = limit(64 * MIB, 0, 1024 * GIB, "Bytes of freed space that the file keeps for what comes next.")
    reserve_percent: Number = limit(
        10,
        0,
        90,
        "Percent of the file system of data_dir that is kept free for the store. Less free: 503, nothing is dropped.",
    )
    reserve_bytes_min: Bytes = limit(
        512 * MIB,
        0,
        1024 * GIB,
        "Bytes that are kept free at least, whatever reserve_percent is; of a small file system no more than half.",
    )
    reserve_bytes_max: Bytes = limit(
        16 * GIB,
        0,
        1024 * GIB,
        "Bytes that reserve_percent may come to at most: twice local_log.bytes_max are enough to store all that waits.",
    )
    append_timeout_s: Number = limit(8, 0.1, 600, "Seconds that an append may wait for its commit to begin. Later: 503.")


class Kafka(Section):
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
    topics: Topics = Field(
        default="",
        description="Topics that others write, as the Collector's kafka exporter does, and that writers store. TENANT: of the"
        " messages that name none; without one, tenants.anonymous_tenant.",
    )
    topics_tenant_header: Name = Field(
        default="",
        max_length=255,
        description="The header of their messages that names the tenant: who writes them may name any. Empty: none.",
    )
    create_topics: bool = Field(
        default=True, description="Whether topics that do not exist are created. false: the start says which to create."
    )
    topic_partitions: Whole = limit(6, 1, 10_000, "Partitions of each topic that is created: as many writers can share it.")
    topic_replication: Whole = limit(
        0,
        0,
        32,
        "Replicas of each topic that is created. 0: as many as there are brokers, or as bootstrap names, at most 3.",
    )
    topic_brokers_wait_s: Number = limit(
        120, 0, 86_400, "Seconds that topics are not created while fewer brokers are there than topic_replication asks for."
    )
    waiting_bytes_max: Bytes = limit(64 * MIB, 1, 64 * GIB, "Bytes of messages that may wait for Kafka. More: 503.")
    append_timeout_s: Number = limit(
        12,
        0.1,
        600,
        "Seconds that an append may wait until Kafka has it. Later: 503. Best longer than Kafka takes to lose a broker.",
    )
    request_timeout_s: Number = limit(10, 0.1, 600, "Seconds to wait for any other answer of Kafka.")
    answer_timeout_s: Number = limit(
        3, 0.1, 600, "Seconds to wait for what a broker answers at once. Later, it is away, and others are asked."
    )
    metadata_refresh_s: Number = limit(
        5, 0.1, 300, "Seconds until Kafka is asked again for its brokers, leaders and partitions: new ones are read then."
    )
    session_timeout_s: Number = limit(
        10, 1, 1800, "Seconds of silence after which a writer's partitions are given to the others."
    )
    requests_in_flight_max: Whole = limit(
        2,
        1,
        16,
        "Produce requests on the way to each broker at once, of other partitions; more than one while one is slow, or full.",
    )
    linger_ms: Number = limit(0, 0, 1000, "Milliseconds for which small messages wait for more to share a request.")
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        default="none", description="What messages are compressed with, here. It costs more than it saves on most networks."
    )
