"""The sections of tenants: keys, plans, and limits that gateways enforce together."""

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
    """Whose the records are: by the sender's key, or without one."""

    keys_file: OptionalLocation = Field(
        default=None, description="The file of keys, which gateways share. none: keys.json in data_dir."
    )
    keys_reload_s: Number = limit(1, 0.1, 3600, "Seconds between two looks at whether the file of keys has changed.")
    anonymous: Literal["auto", "yes", "no"] = Field(
        default="auto", description="Whether records may come without a key. auto: to serve yes, to gateway no."
    )
    anonymous_tenant: Text = Field(
        default="anonymous", min_length=1, max_length=128, description="The tenant of records that come without a key."
    )
    anonymous_plan: Text = Field(
        default="Unlimited", min_length=1, max_length=PLAN_NAME_MAX, description="The plan of that tenant."
    )
    upgrade_url: Text = Field(
        default="/billing/plans", max_length=1024, description="The page that the answer to a tenant over its quota names."
    )
    in_flight_share_max: Number = limit(
        0.5, 0.01, 1, "Part of broker.in_flight_bytes_max that one tenant's requests may hold. Over it: 503."
    )
    metrics_names: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="Whether /metrics names tenants to who has no key of scope admin. auto: where host is a loopback address.",
    )
    shown_max: Whole = limit(50, 0, 10_000, "Tenants that /metrics shows by name, the largest; the rest are shown as one.")


class PlanLimits(Section):
    """What a tenant with this plan may send. Free, Pro and Unlimited are there; a table of the same name replaces one."""

    requests_per_s: OptionalWhole = limit(None, 1, RATE_MAX, "Requests a second. none: any number.")
    requests_burst: OptionalWhole = limit(None, 1, RATE_MAX, "Requests at once, after a pause. none: as many as in a second.")
    items_per_s: OptionalWhole = limit(None, 1, RATE_MAX, "Items (points, log records, spans) a second. none: any number.")
    items_burst: OptionalWhole = limit(None, 1, RATE_MAX, "Items at once, and so in one request. none: as many as in a second.")
    bytes_per_s: OptionalBytes = limit(
        None, 1, RATE_MAX, "Bytes of rows a second, or of decompressed bodies where those are more. none: any number."
    )
    bytes_burst: OptionalBytes = limit(None, 1, RATE_MAX, "Bytes at once, and so in one request. none: as many as in a second.")
    past_max_s: OptionalWhole = limit(
        None, 0, 3_155_760_000, "Oldest time of an item, in seconds before its arrival. none: as [validation] has it."
    )
    retention_days: OptionalWhole = limit(
        None,
        1,
        DAYS_MAX,
        "Days for which all telemetry of tenants with this plan is kept; store.tenant_retention_days comes before it. none: as"
        " [store] has it. Writers need the keys file then.",
    )
    repetitions: RecognizedBy = Field(
        default="by_route",
        description="How requests are recognized when they are sent again. by_route: as [repetitions] has it; off: not at all;"
        " key: only by an Idempotency-Key; body: on every route by the same body too, except logs with a time not finer than a"
        " millisecond.",
    )


class LimitsSection(Section):
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
    redis_timeout_ms: Number = limit(
        100, 1, 60_000, "Milliseconds to wait for Redis. Later it is taken to be away, and this process goes on with its share."
    )
    gateways: Whole = limit(
        1, 1, 10_000, "How many gateways there are. Without Redis, one process's share is one part of gateways times workers."
    )
