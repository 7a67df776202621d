"""The slow twin of adapters/native: plain Python and protobuf objects that define what is right."""

import itertools
import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from infrasage.v1 import telemetry_pb2
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1, TelemetryRecordV1
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2

from adapters import errors
from collector.ingest.validate import LimitRules, Limits

TYPES = {"metric": 1, "log": 2, "trace": 3, "event": 4, "profile": 5, "slo": 6}
SEVERITIES = {
    "trace": 1,
    "debug": 5,
    "info": 9,
    "information": 9,
    "notice": 10,
    "warn": 13,
    "warning": 13,
    "error": 17,
    "critical": 21,
    "fatal": 21,
}
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r" ?(?:[Zz]|([+-])([0-9]{2})(?::?([0-9]{2}))?)"
)
# The calendar repeats every four centuries; datetime knows no year 0, so all are moved into 2000 to 2399.
_SECONDS_OF_FOUR_CENTURIES = 146_097 * 86_400


class Refused(Exception):
    """Why a record can't be taken."""

    def __init__(self, reason: int) -> None:
        self.reason = reason


def nanoseconds(text: str) -> int | None:
    """Since the epoch, of any size and sign; None where it is not a time as `parse_time` reads it."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(group) for group in match.groups()[:6])
    leap_second = second == 60
    try:
        moment = datetime(year % 400 + 2000, month, day, hour, minute, 59 if leap_second else second, tzinfo=UTC)
        if match[8]:
            hours, minutes = int(match[9]), int(match[10] or 0)
            if hours > 23 or minutes > 59:
                return None
            offset = timedelta(hours=hours, minutes=minutes)
            moment = moment - offset if match[8] == "+" else moment + offset
    except ValueError:
        return None
    seconds = round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    seconds += (year // 400 - 5) * _SECONDS_OF_FOUR_CENTURIES
    if leap_second:
        if seconds % 86_400 != 86_399:
            return None
        seconds += 1
    return seconds * 10**9 + int(((match[7] or "") + "0" * 9)[:9])


def text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if depth_of(value) > 64:
        raise Refused(errors.NESTED_TOO_DEEP)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def all_numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for entry in value.values() for number in all_numbers(entry)]
    if isinstance(value, list):
        return [number for entry in value for number in all_numbers(entry)]
    return [value] if isinstance(value, float) else []


def size(text: str) -> int:
    return len(text.encode())


def trace_bytes(text: str) -> bytes:
    return bytes.fromhex(text) if re.fullmatch("[0-9a-fA-F]{32}", text) and int(text, 16) else b""


def require(truth: Any, reason: int) -> None:
    if not truth:
        raise Refused(reason)


def text_field(record: dict[str, Any], name: str, reason: int) -> str | None:
    value = record.get(name)
    require(value is None or isinstance(value, str), reason)
    return value


class Item:
    """What a record says, validated."""

    def __init__(self, record: Any, rules: LimitRules) -> None:
        self.rules = rules
        self.type = 0
        require(isinstance(record, dict), errors.INVALID_RECORD)
        kind = record.get("type")
        self.type = 1 if kind is None else TYPES.get(kind, 0) if isinstance(kind, str) else 0
        self.is_log = self.type in (2, 4)

    def read(self, record: dict[str, Any]) -> None:
        service_id = text_field(record, "service_id", errors.INVALID_SERVICE_ID)
        require(service_id, errors.MISSING_SERVICE_ID)
        assert service_id is not None
        self.service_id = service_id
        self.rule(self.rules.check_name(size(service_id)))
        require(self.type, errors.INVALID_TYPE)
        self.name = text_field(record, "metric_name", errors.INVALID_METRIC_NAME) or ""
        require(self.name or self.is_log, errors.MISSING_METRIC_NAME)
        self.rule(self.rules.check_name(size(self.name)))
        number = record.get("value")
        require(number is None or (isinstance(number, int | float) and not isinstance(number, bool)), errors.INVALID_VALUE)
        require(number is None or math.isfinite(number), errors.INVALID_VALUE)
        require(number is not None or self.is_log, errors.MISSING_VALUE)
        self.value = None if number is None else float(number)
        self.body = text_field(record, "body", errors.INVALID_BODY)
        require(self.body is not None or not self.is_log, errors.MISSING_BODY)
        self.trace_id = text_field(record, "trace_id", errors.INVALID_TRACE_ID) or ""
        timestamp = text_field(record, "timestamp", errors.INVALID_TIMESTAMP)
        require(timestamp is not None, errors.MISSING_TIMESTAMP)
        assert timestamp is not None
        time = nanoseconds(timestamp)
        require(time is not None, errors.INVALID_TIMESTAMP)
        assert time is not None
        require(time > 0, errors.TIMESTAMP_TOO_OLD)
        require(time < 2**63, errors.TIMESTAMP_IN_FUTURE)
        self.rule(self.rules.check_record_time(time, self.is_log))
        self.time = time
        sent = record.get("attributes")
        require(sent is None or isinstance(sent, dict), errors.INVALID_ATTRIBUTES)
        self.read_attributes(sent or {})

    def rule(self, reason: int) -> None:
        require(not reason, reason)

    def read_attributes(self, sent: dict[str, Any]) -> None:
        self.sent = sent
        self.attributes: dict[str, str] = {}
        self.dropped = max(0, len(sent) - self.rules.attributes_max)
        own = {}
        if self.trace_id.strip("0" if len(self.trace_id) <= 32 else "") and not trace_bytes(self.trace_id):
            own["infrasage.trace_id"] = self.trace_id
        if self.is_log and self.value is not None:
            own["infrasage.value"] = repr(self.value)
        if self.type == 2 and self.name:
            own["infrasage.metric_name"] = self.name
        if not self.is_log and self.body is not None:
            own["infrasage.body"] = self.body
        for key, value in itertools.islice(sent.items(), self.rules.attributes_max):
            require(all(map(math.isfinite, all_numbers(value))), errors.INVALID_ATTRIBUTES)
            if key in own:
                continue  # ours takes its place
            text = text_of(value)
            self.rule(self.rules.check_attribute(size(key), size(text)))
            self.attributes[key] = text
        for key, value in own.items():
            self.rule(self.rules.check_attribute(size(key), size(value)))
            self.attributes[key] = value

    def point(self) -> metrics_pb2.NumberDataPoint:
        assert self.value is not None
        point = metrics_pb2.NumberDataPoint(time_unix_nano=self.time, as_double=self.value)
        if trace_bytes(self.trace_id):
            point.exemplars.add(time_unix_nano=self.time, as_double=self.value, trace_id=trace_bytes(self.trace_id))
        self.put_attributes(point.attributes)
        return point

    def log(self) -> logs_pb2.LogRecord:
        log = logs_pb2.LogRecord(time_unix_nano=self.time, trace_id=trace_bytes(self.trace_id))
        assert self.body is not None
        log.body.string_value = self.body
        for key in ("severity_text", "severity", "level"):
            severity = self.sent.get(key)
            if severity and isinstance(severity, str):
                log.severity_text = severity
                log.severity_number = SEVERITIES.get(severity.lower(), 0)  # type: ignore[assignment]  # an enumeration's number
                break
        self.put_attributes(log.attributes)
        log.dropped_attributes_count = self.dropped
        if self.type == 4:
            named = self.sent.get("event.name")
            log.event_name = self.name or (named if named and isinstance(named, str) else "event")
            self.rule(self.rules.check_name(size(log.event_name)))
        return log

    def put_attributes(self, target: Any) -> None:
        for key, value in self.attributes.items():
            target.add(key=key).value.string_value = value


def reference(
    documents: list[Any], limits: Limits, now: int, header: dict[str, Any]
) -> tuple[TelemetryBatchV1, TelemetryBatchV1, list[tuple[int, int, int]]]:
    """The batches of metrics and of logs, each in one message however large; and (index, type, reason) of what is refused."""
    rules = LimitRules(limits, now)
    metrics, logs = TelemetryBatchV1(), TelemetryBatchV1()
    records: dict[tuple[str, int], TelemetryRecordV1] = {}
    rejections = []
    taken: list[tuple[Item, Any]] = []
    for index, document in enumerate(documents):
        item = None
        try:
            item = Item(document, rules)
            item.read(document)
            taken.append((item, item.log() if item.is_log else item.point()))
        except Refused as refused:
            rejections.append((index, item.type if item else 0, refused.reason))
    for item, _ in taken:
        key = (item.service_id, item.type)
        if key not in records:
            record = records[key] = (logs if item.is_log else metrics).records.add(
                service_id=item.service_id,
                type=item.type,
                source=telemetry_pb2.SOURCE_NATIVE,
                **header,
            )
            record.resource.attributes.add(key="service.name").value.string_value = item.service_id
    named: dict[tuple[str, int, str], metrics_pb2.Metric] = {}
    for item, made in taken:
        record = records[item.service_id, item.type]
        record.item_count += 1
        if item.is_log:
            record.log_records.append(made)
            continue
        of = (item.service_id, item.type, item.name)
        if of not in named:
            named[of] = record.metrics.add(name=item.name)
        named[of].gauge.data_points.append(made)
    return metrics, logs, rejections
