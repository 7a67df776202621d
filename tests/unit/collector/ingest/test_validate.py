"""collector/ingest/validate where the adapters' twins do not reach: the ends of the time window."""

from collections.abc import Callable

import pytest
from google.protobuf.message import Message
from infrasage.v1.dead_letter_pb2 import (
    PAYLOAD_FORM_NATIVE_JSON,
    PAYLOAD_FORM_OTLP_LOGS,
    PAYLOAD_FORM_OTLP_METRICS,
    PAYLOAD_FORM_OTLP_TRACES,
    PAYLOAD_FORM_PROMETHEUS_WRITE_V1,
    PAYLOAD_FORM_PROMETHEUS_WRITE_V2,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.limits import DEFAULT

from adapters.errors import MISSING_TIMESTAMP, REASON, TIMESTAMP_IN_FUTURE, TIMESTAMP_TOO_OLD
from adapters.otlp.logs import adapt as adapt_logs
from adapters.otlp.metrics import adapt as adapt_metrics
from adapters.otlp.traces import adapt as adapt_traces
from adapters.record import LOGS, METRICS, SOURCE_OTLP, TRACES, Adapted, Header
from collector.config.receivers import Validation
from collector.ingest.validate import KEPT_S_MIN, KeptDays, LimitRules, Limits

NOW = 1_775_822_400_000_000_000  # 2026-04-10T12:00:00Z
CENTURY_S = 3_155_760_000


def limits(past_max_s: int, kept: KeptDays | None = None, own_time_past_max_s: int = 0) -> Limits:
    return Limits(
        past_max_s=past_max_s,
        own_time_past_max_s=own_time_past_max_s,
        kept_days=kept or KeptDays({}, {}),
        future_max_s=600,
        attributes_max=1,
        attribute_key_bytes_max=1,
        attribute_value_bytes_max=1,
        name_bytes_max=1,
    )


def test_the_message_is_of_its_own_item() -> None:
    """An item before it had an old time of its own, and it has not."""
    rules = LimitRules(limits(86_400, own_time_past_max_s=2 * 86_400), NOW)
    assert TIMESTAMP_TOO_OLD == rules.check_own_time(1)
    assert ", or 48h where" in rules.message(TIMESTAMP_TOO_OLD)
    assert TIMESTAMP_TOO_OLD == rules.check_time(1)
    assert "Timestamp is more than 24h in the past" == rules.message(TIMESTAMP_TOO_OLD)


@pytest.mark.parametrize("past_max_s", [86_400, 1_775_822_400, CENTURY_S])
def test_a_window_never_reaches_back_to_no_time_at_all(past_max_s: int) -> None:
    """0 is missing, and an unsigned number beyond 2**63 is in the future, however wide the window is."""
    rules = LimitRules(limits(past_max_s), NOW)
    assert MISSING_TIMESTAMP == rules.check_time(0)
    assert TIMESTAMP_IN_FUTURE == rules.check_time(-1) == rules.check_time(-(2**63))
    assert (TIMESTAMP_TOO_OLD if past_max_s == 86_400 else 0) == rules.check_time(1)


def test_the_windows_ends_are_within() -> None:
    """They are within to the nanosecond."""
    rules = LimitRules(limits(86_400), NOW)
    oldest, newest = NOW - 86_400 * 10**9, NOW + 600 * 10**9
    assert [0, 0] == [rules.check_time(oldest), rules.check_time(newest)]
    assert [TIMESTAMP_TOO_OLD, TIMESTAMP_IN_FUTURE] == [rules.check_time(oldest - 1), rules.check_time(newest + 1)]


def test_the_message_names_the_window_that_was_exceeded() -> None:
    """That of a time which has a newer one beside it, once such a time was too old."""
    rules = LimitRules(limits(86_400), NOW)
    assert "Timestamp is more than 24h in the past" == rules.message(TIMESTAMP_TOO_OLD)
    wider = LimitRules(DEFAULT, NOW)
    oldest = NOW - 14 * 86_400 * 10**9
    assert [0, TIMESTAMP_TOO_OLD] == [wider.check_own_time(oldest), wider.check_own_time(oldest - 1)]
    expected = "Timestamp is more than 24h in the past, or 336h where a log record's observed time or a span's end is newer"
    assert expected == wider.message(TIMESTAMP_TOO_OLD)


@pytest.mark.parametrize(
    ("form", "days", "log_days"),
    [
        (PAYLOAD_FORM_OTLP_METRICS, 2, 2),
        (PAYLOAD_FORM_PROMETHEUS_WRITE_V1, 2, 2),
        (PAYLOAD_FORM_PROMETHEUS_WRITE_V2, 2, 2),
        (PAYLOAD_FORM_OTLP_LOGS, 3, 3),
        (PAYLOAD_FORM_OTLP_TRACES, 4, 4),
        (PAYLOAD_FORM_NATIVE_JSON, 2, 3),
    ],
)
def test_the_window_ends_where_the_store_would_delete(form: int, days: int, log_days: int) -> None:
    """The days are the signal's or the tenant's own, less the time that an accepted item is kept for at least."""
    kept = KeptDays({METRICS: 2, LOGS: 3, TRACES: 4}, {"short": 1, "long": 30})
    for tenant, expected in (("acme", (days, log_days)), ("short", (1, 1)), ("long", (10, 10))):
        window = limits(10 * 86_400, kept).window_of(form, tenant)
        found = window.item.past_max_s, window.log.past_max_s
        assert found == tuple(days * 86_400 - KEPT_S_MIN * (days != 10) for days in expected)
        assert window.own_time.past_max_s == window.item.past_max_s


@pytest.mark.parametrize("form", [PAYLOAD_FORM_OTLP_LOGS, PAYLOAD_FORM_OTLP_TRACES])
def test_an_own_time_ends_where_the_store_would_delete(form: int) -> None:
    """Rows go by that time, however new the one beside it is; where rows are kept longer, the settings decide."""
    for days, expected in ((9, 9 * 86_400 - KEPT_S_MIN), (30, 14 * 86_400)):
        kept = limits(86_400, KeptDays({LOGS: days, TRACES: days}, {}), own_time_past_max_s=14 * 86_400)
        window = kept.window_of(form, "acme")
        assert (86_400, expected) == (window.item.past_max_s, window.own_time.past_max_s)
        rules = LimitRules(kept, NOW, window=window)
        oldest = NOW - expected * 10**9
        assert [0, TIMESTAMP_TOO_OLD] == [rules.check_own_time(oldest), rules.check_own_time(oldest - 1)]


def test_a_window_that_the_retention_ends_is_explained() -> None:
    """The sender learns the number that counts, and why it is not the one of the settings."""
    kept = KeptDays({METRICS: 1, LOGS: 3}, {})

    def message(form: int, own_time: bool = False) -> str:
        made = limits(10 * 86_400, kept)
        rules = LimitRules(made, NOW, window=made.window_of(form, "acme"))
        rules.has_old_own_time = own_time
        return rules.message(TIMESTAMP_TOO_OLD)

    assert "Timestamp is more than 69h in the past (rows are kept for 3 days)" == message(PAYLOAD_FORM_OTLP_LOGS)
    assert message(PAYLOAD_FORM_OTLP_LOGS) == message(PAYLOAD_FORM_OTLP_LOGS, own_time=True)
    assert "Timestamp is more than 21h in the past (rows are kept for 1 day)" == message(PAYLOAD_FORM_OTLP_METRICS)
    assert "Timestamp is more than 240h in the past" == message(PAYLOAD_FORM_OTLP_TRACES)
    assert (
        "Timestamp is more than 21h in the past (rows are kept for 1 day),"
        " or 69h of a log record or an event (rows are kept for 3 days)" == message(PAYLOAD_FORM_NATIVE_JSON)
    )


@pytest.mark.parametrize("days", [0, 1])
def test_a_time_that_is_absent_is_not_an_old_one(days: int) -> None:
    """This holds however short rows are kept. A log record has its observed time then, or was when it was received; a span
    without a start and a point without a time are rejected for that."""
    day = 86_400 * 10**9
    wide = {"past_max_s": 10 * 86_400, "own_time_past_max_s": 20 * 86_400}
    made = Limits(**Validation().model_dump() | wide, kept_days=KeptDays({METRICS: days, LOGS: days, TRACES: days}, {}))

    def found(form: int, adapt: Callable[..., Adapted], request: Message) -> list[str]:
        rules = LimitRules(made, NOW, window=made.window_of(form, "acme"))
        adapted = adapt(request.SerializeToString(), Header("acme", SOURCE_OTLP, NOW, bytes(16)), rules, 1_000_000)
        why = {rejection.index: REASON[rejection.reason].name for rejection in adapted.rejections}
        return [why.get(index, "") for index in range(adapted.accepted_count() + len(why))]

    old = "timestamp_too_old" if days else ""
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    for own, observed in ((0, 0), (0, NOW), (NOW, 0), (0, NOW - 2 * day), (NOW - 2 * day, 0), (NOW - 2 * day, NOW)):
        records.add(time_unix_nano=own, observed_time_unix_nano=observed)
    assert ["", "", "", old, old, old] == found(PAYLOAD_FORM_OTLP_LOGS, adapt_logs, logs)

    traces = ExportTraceServiceRequest()
    spans = traces.resource_spans.add().scope_spans.add().spans
    for start, end in ((0, 0), (0, NOW), (NOW, 0), (NOW - 2 * day, 0), (NOW - 2 * day, NOW)):
        spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=start, end_time_unix_nano=end)
    missing = "missing_timestamp"
    assert [missing, missing, "", old, old] == found(PAYLOAD_FORM_OTLP_TRACES, adapt_traces, traces)

    metrics = ExportMetricsServiceRequest()
    points = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="m").gauge.data_points
    for start, time in ((0, 0), (NOW, 0), (0, NOW), (NOW - 2 * day, NOW)):
        points.add(start_time_unix_nano=start, time_unix_nano=time, as_int=1)
    assert [missing, missing, "", ""] == found(PAYLOAD_FORM_OTLP_METRICS, adapt_metrics, metrics)


def test_rules_keep_no_dead_letters_by_default() -> None:
    """The budget is the request's, and nothing by default."""
    bare = LimitRules(DEFAULT, NOW)
    told = LimitRules(DEFAULT, NOW, dead_letter_items_max=7, dead_letter_bytes_max=4_096)
    assert (0, 0) == (bare.dead_letter_items_max, bare.dead_letter_bytes_max)
    assert (7, 4_096) == (told.dead_letter_items_max, told.dead_letter_bytes_max)
