"""The sections of the settings for tenants: keys, plans, and limits that gateways enforce together."""

from typing import Final, Literal

from pydantic import Field

from collector.config.values import (
    DAYS_MAX,
    Number,
    OptionalBytes,
    OptionalLocation,
    OptionalWhole,
    RedisUrl,
    Secret,
    Section,
    Text,
    Whole,
    limit,
)
from collector.tenancy.plans import RATE_MAX, RecognizedBy

PLAN_NAME_MAX: Final = 128


class Tenants(Section):
    """The tenant of records that come with a key, or without one."""

    keys_file: OptionalLocation = Field(
        default=None, description="The keys file, which gateways share. none: keys.json in data_dir."
    )
    keys_reload_s: Number = limit(1, 0.1, 3600, "Seconds between two checks whether the keys file has changed.")
    anonymous: Literal["auto", "yes", "no"] = Field(
        default="auto", description="Whether records may come without a key. auto: yes for serve, no for gateway."
    )
    anonymous_tenant: Text = Field(
        default="anonymous", min_length=1, max_length=128, description="The tenant of records that come without a key."
    )
    anonymous_plan: Text = Field(
        default="Unlimited",
        min_length=1,
        max_length=PLAN_NAME_MAX,
        description="The plan of anonymous_tenant for records that come without a key.",
    )
    upgrade_url: Text = Field(
        default="/billing/plans",
        max_length=1024,
        description="Address of a page, which answers name to a tenant that exceeds its plan.",
    )
    in_flight_share_max: Number = limit(
        0.5, 0.01, 1, "The part of broker.in_flight_bytes_max that requests of one tenant may hold. More: 503."
    )
    metrics_names: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="Whether /metrics shows names of tenants to clients without a key of scope admin. auto: if the receivers"
        " listen on loopback addresses only.",
    )
    shown_max: Whole = limit(50, 0, 10_000, "Tenants that /metrics shows by name: the largest. The rest are shown as one.")


class PlanLimits(Section):
    """What a tenant with this plan may send. Free, Pro and Unlimited are built in; a table of that name replaces one."""

    requests_per_s: OptionalWhole = limit(None, 1, RATE_MAX, "Requests per second. none: any number.")
    requests_burst: OptionalWhole = limit(None, 1, RATE_MAX, "Requests at once, after a pause. none: as many as per second.")
    items_per_s: OptionalWhole = limit(None, 1, RATE_MAX, "Items (points, log records, spans) per second. none: any number.")
    items_burst: OptionalWhole = limit(None, 1, RATE_MAX, "Items at once, and so in one request. none: as many as per second.")
    bytes_per_s: OptionalBytes = limit(
        None, 1, RATE_MAX, "Bytes of rows per second, or of decompressed bodies if those are more. none: any number."
    )
    bytes_burst: OptionalBytes = limit(None, 1, RATE_MAX, "Bytes at once, and so in one request. none: as many as per second.")
    past_max_s: OptionalWhole = limit(
        None, 0, 3_155_760_000, "Oldest time of an item, in seconds before its arrival. none: as in [validation]."
    )
    retention_days: OptionalWhole = limit(
        None,
        1,
        DAYS_MAX,
        "Days for which all telemetry of tenants with this plan is kept. store.tenant_retention_days overrides it. none: as in"
        " [store]. If it is set, writers need the keys file.",
    )
    repetitions: RecognizedBy = Field(
        default="by_route",
        description="How requests are recognized when they are sent again. by_route: as in [repetitions]. off: not at all."
        " key: only by an Idempotency-Key. body: on every route also by the same body, except logs with a time that is not"
        " finer than a millisecond.",
    )


class LimitsSection(Section):
    """How gateways enforce plans together. The numbers of a plan are in its [plans.NAME]."""

    redis_url: RedisUrl = Field(
        default="",
        description="Address of the Redis through which gateways and their processes count together. Empty: each process has"
        " its share.",
    )
    redis_user: Text = Field(default="", max_length=255, description="The user, if Redis requires one.")
    redis_password: Secret = Field(default=None, description="The password. Never shown; see redis_password_file.")
    redis_password_file: OptionalLocation = Field(
        default=None,
        description="A file with the password, instead of redis_password. A line end at the end of the file is ignored.",
    )
    redis_ca_file: OptionalLocation = Field(
        default=None, description="CA certificates (PEM) that verify the certificate of Redis. none: the system's."
    )
    redis_timeout_ms: Number = limit(
        100, 1, 60_000, "Milliseconds to wait for Redis. Later, Redis counts as away, and the process continues with its share."
    )
    gateways: Whole = limit(
        1,
        1,
        10_000,
        "How many gateways there are. Without Redis, the share of one process is a plan divided by gateways times workers.",
    )
