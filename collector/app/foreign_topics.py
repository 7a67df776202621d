"""Composes the reader of topics that other programs write, by the settings."""

import time
from typing import TYPE_CHECKING

from collector.app.retention import keys_file_days, limits_of
from collector.broker.contract import SIGNAL_TOPICS, TOPICS, Producer
from collector.config.settings import Settings
from collector.config.values import topics_of_others
from collector.records.dead_letter import Caps
from collector.telemetry.metrics import Metrics

if TYPE_CHECKING:
    # Imported where it is used, since most writers have no such topics.
    from collector.ingest.foreign_topics import ForeignTopics


def foreign_names(settings: Settings) -> list[str]:
    """Return the names of the topics that other programs write and that writers store."""
    return [topic.name for topic in topics_of_others(settings.kafka.topics)]


def stored_topics(settings: Settings) -> list[str]:
    """Return the names of all topics that writers store."""
    return [*TOPICS, *foreign_names(settings)]


def foreign_topics_of(settings: Settings, producer: Producer, metrics: Metrics) -> "ForeignTopics | None":
    """Return the reader of the topics of other programs; None if there are none. It appends dead letters by `producer`."""
    named = topics_of_others(settings.kafka.topics)
    if not named:
        return None
    from collector.ingest.foreign_topics import ForeignTopic, ForeignTopics, TopicLimits  # noqa: PLC0415  # as above
    from collector.ingest.large_bodies import resting  # noqa: PLC0415  # as above
    from collector.ingest.produce import SIGNALS  # noqa: PLC0415  # as above

    days, kept = keys_file_days(settings), settings.dead_letters
    return ForeignTopics(
        [
            ForeignTopic(
                topic.name,
                topic.encoding,
                SIGNALS[SIGNAL_TOPICS[topic.signal]],
                topic.tenant or settings.tenants.anonymous_tenant,
            )
            for topic in named
        ],
        TopicLimits(
            limits_of(settings, days.of if days is not None else None),
            Caps(kept.items_per_minute_max, kept.bytes_per_minute_max, kept.requests_bytes_per_minute_max),
            settings.broker.message_bytes_max,
            settings.broker.message_row_bytes_max,
            settings.message_bytes_largest,
            kept.payload_bytes_max,
        ),
        producer.append,
        metrics,
        tenant_header=settings.kafka.topics_tenant_header,
        now_unix_nano=time.time_ns,
        pause=resting(),
    )
