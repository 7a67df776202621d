"""The section of the settings for requests that are sent again."""

from typing import Literal

from pydantic import Field

from collector.config.values import Section, Whole, limit

RecognizedBy = Literal["body", "key"]


class RepetitionsSection(Section):
    """A request that is sent again is stored once, if it is recognized by its Idempotency-Key or by its body."""

    window_s: Whole = limit(
        900,
        0,
        7 * 86_400,
        "Seconds within which a request that is sent again is recognized. 0: none is recognized, with a key or without.",
    )
    metrics: RecognizedBy = Field(
        default="body",
        description="How OTLP metrics are recognized without an Idempotency-Key. body: by the same body. key: not at all.",
    )
    traces: RecognizedBy = Field(default="body", description="How OTLP traces are recognized: as metrics.")
    logs: RecognizedBy = Field(
        default="body",
        description="How OTLP logs are recognized: as metrics. But body: only requests in which each record has a time finer"
        " than a millisecond.",
    )
    remote_write: RecognizedBy = Field(default="body", description="How requests of remote write are recognized: as metrics.")
    native: RecognizedBy = Field(
        default="key",
        description="How requests of the native API are recognized: as metrics. body: of two equal requests within window_s,"
        " the second is not stored.",
    )
    keys_max: Whole = limit(
        1_000_000,
        4,
        1_000_000_000,
        "Fingerprints of messages that a writer keeps in memory, 50 bytes each. It looks up others in the store.",
    )
    answers_max: Whole = limit(
        10_000,
        0,
        10_000_000,
        "Requests whose answers a process of the gateway remembers, to repeat them; and Idempotency-Keys, to refuse one that"
        " comes with another body. 0: none.",
    )
