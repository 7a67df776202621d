"""All settings in one object, and the rules between settings."""

import warnings
from pathlib import Path
from typing import Annotated, Self

from annotated_types import MaxLen, MinLen
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from collector.config.broker import BrokerSection, Kafka, LocalLogSection
from collector.config.process import Audit, Gateway, Logging, Shutdown, WriterSection
from collector.config.receivers import Grpc, Http, Tls, Validation
from collector.config.repetitions import RepetitionsSection
from collector.config.store import INSERT_MEMORY_FACTOR, ClickHouse, DeadLettersSection, Query, SchemaSection, StoreSection
from collector.config.tenants import PLAN_NAME_MAX, LimitsSection, PlanLimits, Tenants
from collector.config.values import (
    FileMode,
    Hosts,
    Kind,
    Location,
    Number,
    Section,
    Whole,
    limit,
    no_whitespace,
    size_text,
    to_tables,
)
from collector.tenancy.plans import Plan
from collector.tenancy.plans import plans as all_plans

# The field hides pydantic's deprecated method `schema`, which nothing here calls.
warnings.filterwarnings("ignore", 'Field name "schema" in "Settings" shadows an attribute', UserWarning)


class Settings(Section):
    """All settings. `Settings()` has the defaults. `sources.load` reads a file, the environment and flags."""

    data_dir: Location = Field(
        default=Path("data"),
        description="The directory of the log and the store. A relative path begins at the working directory.",
    )
    data_dir_wait_s: Number = limit(
        60,
        0,
        86_400,
        "Seconds to wait while data_dir is in use by a command, as `audit`, or by a collector that is starting or ending.",
    )
    host: Hosts = Field(
        default="127.0.0.1",
        description="Addresses to listen on, with commas between. 0.0.0.0: all IPv4 addresses of the machine. ::: all"
        " addresses, of IPv6 and IPv4.",
    )
    unix_socket_mode: FileMode = Field(
        default="0660",
        description="Mode of the Unix sockets of http.listen, http.otlp_listen and grpc.listen: who may connect.",
    )
    open_files_reserve: Whole = limit(
        1024,
        16,
        1_000_000,
        "File descriptors that connections leave to the log, the store and Kafka; at most half of those that the process may"
        " open.",
    )
    http: Http = Field(default_factory=Http)
    grpc: Grpc = Field(default_factory=Grpc)
    tls: Tls = Field(default_factory=Tls)
    validation: Validation = Field(default_factory=Validation)
    broker: BrokerSection = Field(default_factory=BrokerSection)
    local_log: LocalLogSection = Field(default_factory=LocalLogSection)
    kafka: Kafka = Field(default_factory=Kafka)
    clickhouse: ClickHouse = Field(default_factory=ClickHouse)
    gateway: Gateway = Field(default_factory=Gateway)
    writer: WriterSection = Field(default_factory=WriterSection)
    store: StoreSection = Field(default_factory=StoreSection)
    schema: SchemaSection = Field(default_factory=SchemaSection)  # type: ignore[assignment]  # as above
    query: Query = Field(default_factory=Query)
    logging: Logging = Field(default_factory=Logging)
    repetitions: RepetitionsSection = Field(default_factory=RepetitionsSection)
    shutdown: Shutdown = Field(default_factory=Shutdown)
    tenants: Tenants = Field(default_factory=Tenants)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    plans: Annotated[
        dict[Annotated[str, MinLen(1), MaxLen(PLAN_NAME_MAX), AfterValidator(no_whitespace)], PlanLimits],
        BeforeValidator(to_tables),
        Kind("tables [plans.NAME], or in the environment JSON"),
    ] = Field(default_factory=dict, description="Plans beside Free, Pro and Unlimited: see [plans.NAME].")
    dead_letters: DeadLettersSection = Field(default_factory=DeadLettersSection)
    audit: Audit = Field(default_factory=Audit)

    @property
    def message_bytes_largest(self) -> int:
        """Return the size of the largest message that topics must take, in bytes."""
        return max(self.broker.message_bytes_max, self.validation.item_bytes_max)

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        """Check the rules between settings. Raises ValueError."""
        ports: dict[int, str] = {}
        for name, port in (
            ("http.port", self.http.port),
            ("http.otlp_port", self.http.otlp_port),
            ("grpc.port", self.grpc.port),
            ("writer.port", self.writer.port),
            ("store.http_port", self.store.http_port or 0),
        ):
            if port and port in ports:
                raise ValueError(f"{ports[port]} and {name} are both {port}: each needs a port of its own")
            ports[port] = name
        if self.writer.retry_min_s > self.writer.retry_max_s:
            raise ValueError(
                f"writer.retry_min_s is {self.writer.retry_min_s:g} and writer.retry_max_s {self.writer.retry_max_s:g}:"
                " the first must be at most the second"
            )
        self._check_sizes()
        if self.tls.cert_file is None:
            for name in ("key_file", "client_ca_file"):
                if getattr(self.tls, name) is not None:
                    raise ValueError(f"tls.{name} is given without tls.cert_file, without which there is no TLS")
        self._check_kafka()
        self._check_plans()
        self._check_shards()
        self._check_volumes()
        if self.clickhouse.ca_file is not None and not self.clickhouse.url.startswith("https:"):
            raise ValueError("clickhouse.ca_file is given, but clickhouse.url is not https: it would not be used")
        return self

    def _check_sizes(self) -> None:
        """Check sizes against each other. Raises ValueError."""
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
        insert_memory = INSERT_MEMORY_FACTOR * self.broker.message_row_bytes_max
        if self.store.insert_memory_bytes_max < insert_memory:
            raise ValueError(
                f"store.insert_memory_bytes_max is {size_text(self.store.insert_memory_bytes_max)}, less than"
                f" {INSERT_MEMORY_FACTOR} times broker.message_row_bytes_max, {size_text(insert_memory)}: the insert of one"
                " message could need more, and later messages would wait"
            )
        in_flight = int(self.broker.in_flight_bytes_max * self.tenants.in_flight_share_max)
        for name, size in (
            (
                "http.body_bytes_max and http.decompressed_bytes_max together",
                self.http.body_bytes_max + self.http.decompressed_bytes_max,
            ),
            ("grpc.message_bytes_max", self.grpc.message_bytes_max),
        ):
            # Otherwise the sender of such a request would retry forever.
            if size > in_flight:
                raise ValueError(
                    f"broker.in_flight_bytes_max times tenants.in_flight_share_max is {size_text(in_flight)}, less than {name},"
                    f" {size_text(size)}: a request of the largest size would never be admitted"
                )

    def plans_by_name(self) -> dict[str, Plan]:
        """Return all plans, with the built-in ones. Raises ValueError if one is invalid."""
        return all_plans({name: plan.model_dump() for name, plan in self.plans.items()})

    def _check_kafka(self) -> None:
        """Check that no setting of Kafka lacks another that it needs, or would not be used. Raises ValueError."""
        kafka = self.kafka
        if kafka.topics and not kafka.bootstrap:
            raise ValueError(f"kafka.topics is {kafka.topics}, which needs kafka.bootstrap")
        if kafka.topics_tenant_header and not kafka.topics:
            raise ValueError(f"kafka.topics_tenant_header is {kafka.topics_tenant_header}, which needs kafka.topics")
        if kafka.security.startswith("SASL"):
            if not kafka.username or kafka.password is None:
                raise ValueError(
                    f"kafka.security is {kafka.security}, which needs kafka.username and kafka.password or kafka.password_file"
                )
        # A user who gives a password expects it to be used.
        elif kafka.username or kafka.password is not None:
            raise ValueError(f"kafka.username or kafka.password is given, but kafka.security is {kafka.security}, without SASL")
        if not kafka.security.endswith("SSL"):
            for name in ("ca_file", "cert_file", "key_file"):
                if getattr(kafka, name) is not None:
                    raise ValueError(f"kafka.{name} is given, but kafka.security is {kafka.security}, without TLS")
        if kafka.key_file is not None and kafka.cert_file is None:
            raise ValueError("kafka.key_file is given without kafka.cert_file, whose key it would be")

    def _check_volumes(self) -> None:
        """Check the settings of storage policies and volumes against each other. Raises ValueError."""
        store = self.store
        if store.cold_volume and store.cold_after_days is None:
            raise ValueError(f"store.cold_volume is {store.cold_volume}, which needs store.cold_after_days")
        if store.cold_after_days is not None and not store.cold_volume:
            raise ValueError(f"store.cold_after_days is {store.cold_after_days}, which needs store.cold_volume")
        for name in ("storage_policy", "cold_volume"):
            if getattr(store, name) and not self.clickhouse.url:
                raise ValueError(
                    f"store.{name} is {getattr(store, name)}, which needs clickhouse.url: the embedded engine has one volume"
                )

    def _check_shards(self) -> None:
        """Check the settings of shards against each other. Raises ValueError."""
        clickhouse = self.clickhouse
        if clickhouse.shards_cluster and not clickhouse.url:
            raise ValueError(
                f"clickhouse.shards_cluster is {clickhouse.shards_cluster}, which needs clickhouse.url: the embedded engine has"
                " no cluster"
            )
        if clickhouse.shards_cluster and clickhouse.shards_database == clickhouse.database:
            raise ValueError(
                f"clickhouse.shards_database is {clickhouse.shards_database}, and must be another one than clickhouse.database"
            )

    def _check_plans(self) -> None:
        """Check the plans, the plan of requests without a key, and the settings of Redis. Raises ValueError."""
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
