"""The section of requests that are sent again."""

from typing import Literal

from pydantic import Field

from collector.config.values import Section, Whole, limit

RecognizedBy = Literal["body", "key"]


class RepetitionsSection(Section):
    """A request that is sent again is stored once, if it has an Idempotency-Key, or its data identify themselves."""

    window_s: Whole = limit(
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
    keys_max: Whole = limit(
        1_000_000,
        4,
        1_000_000_000,
        "Fingerprints of messages that a writer keeps in memory, 50 bytes each. For others it asks the store.",
    )
    answers_max: Whole = limit(
        10_000, 0, 10_000_000, "Requests whose answer a process of the gateway remembers, to give it again."
    )
