"""The rules that decide whether an item is accepted. They are pure: no clock and no I/O, so the caller passes the time.

Every rule is here, for every protocol. Each rule judges one item, so a bad item never causes a good one to be rejected.
"""

from collections.abc import Callable, Mapping
from typing import Final

from infrasage.v1.dead_letter_pb2 import (
    PAYLOAD_FORM_NATIVE_JSON,
    PAYLOAD_FORM_OTLP_LOGS,
    PAYLOAD_FORM_OTLP_METRICS,
    PAYLOAD_FORM_OTLP_TRACES,
    PAYLOAD_FORM_PROMETHEUS_WRITE_V1,
    PAYLOAD_FORM_PROMETHEUS_WRITE_V2,
)
from mypy_extensions import i64

from adapters.codec.text import SHORTENED_BYTES_MIN
from adapters.errors import (
    ATTRIBUTE_KEY_TOO_LONG,
    ATTRIBUTE_VALUE_TOO_LONG,
    MISSING_TIMESTAMP,
    NAME_TOO_LONG,
    REASON,
    TIMESTAMP_IN_FUTURE,
    TIMESTAMP_TOO_OLD,
    TOO_MANY_ATTRIBUTES,
)
from adapters.otlp.json_fields import ENUM_NAMES, SNAKE_CASE
from adapters.record import LOGS, METRICS, TRACES
from adapters.rules import MESSAGE_ROW_BYTES_MAX, REQUEST_ELEMENTS_MAX, REQUEST_ROW_BYTES_MAX, Rules

_NANOSECONDS: Final = 1_000_000_000
_DAY_S: Final = 86_400
_HOUR_S: Final = 3600
# An accepted item is kept for at least this time, even if its own time is the oldest allowed: until it can be queried, and
# until an audit has judged it. It waits in the log at first, and audits run every hour.
KEPT_S_MIN: Final = 3 * _HOUR_S
# By the form of a dead letter's payload, which implies the signal. Requests of the native API have items of two signals.
_SIGNALS: Final[dict[int, int]] = {
    PAYLOAD_FORM_OTLP_LOGS: LOGS,
    PAYLOAD_FORM_OTLP_TRACES: TRACES,
}


def oldest_kept_s(days: int) -> int:
    """Return how old an item may be, in seconds, if rows are kept for `days`."""
    return days * _DAY_S - KEPT_S_MIN


class KeptDays:
    """The days for which the store keeps rows, as far as this process knows them."""

    def __init__(
        self,
        by_signal: Mapping[int, int | None],
        by_tenant: Mapping[str, int],
        of_plans: Callable[[str], int | None] | None = None,
    ) -> None:
        """None in `by_signal` means for ever. `by_tenant` replaces the days of every signal. `of_plans` returns the days of a
        tenant's plans, for every signal of tenants that are not in `by_tenant`."""
        self._of_plans: Final = of_plans
        self._by_signal: Final[dict[int, int]] = {signal: days for signal, days in by_signal.items() if days is not None}
        self._by_tenant: Final[dict[str, int]] = dict(by_tenant)

    def of(self, tenant: str, signal: int) -> int:
        """Return the days for which rows are kept; 0 means for ever."""
        if tenant in self._by_tenant:
            return self._by_tenant[tenant]
        if self._of_plans is not None:
            days = self._of_plans(tenant)
            if days is not None:
                return days
        return self._by_signal.get(signal, 0)


_KEPT_FOR_EVER: Final = KeptDays({}, {})


class Past:
    """The largest age allowed, in seconds. `days` are those of the store's retention if it allows less than the settings, else
    0."""

    def __init__(self, past_max_s: int, days: int) -> None:
        """`days` is the store's retention; 0 means for ever."""
        self.past_max_s: int = past_max_s
        self.days: int = 0
        if days and oldest_kept_s(days) < past_max_s:
            self.past_max_s = oldest_kept_s(days)
            self.days = days

    def kept_text(self) -> str:
        """Return, for a sender, why the age is less than the settings allow; empty if it is not less."""
        return f" (rows are kept for {days_text(self.days)})" if self.days else ""


class TimeWindow:
    """The largest ages: of an item, of a time if the item has a newer one, and of a native log record or event."""

    def __init__(self, item: Past, own_time: Past, log: Past) -> None:
        self.item: Final = item
        self.own_time: Final = own_time
        self.log: Final = log


class Limits:
    """The numbers that the rules use: seconds, counts and bytes. Defaults are the settings'."""

    def __init__(
        self,
        *,
        past_max_s: int,
        future_max_s: int,
        attributes_max: int,
        attribute_key_bytes_max: int,
        attribute_value_bytes_max: int,
        name_bytes_max: int,
        request_elements_max: int = REQUEST_ELEMENTS_MAX,
        request_row_bytes_max: int = REQUEST_ROW_BYTES_MAX,
        item_bytes_max: int = 0,
        attribute_value_too_long: str = "reject",
        otlp_metrics_past_max_s: int = 0,
        otlp_logs_past_max_s: int = 0,
        otlp_traces_past_max_s: int = 0,
        own_time_past_max_s: int = 0,
        remote_write_past_max_s: int = 0,
        otlp_json_snake_case: bool = False,
        otlp_json_enum_names: bool = False,
        otlp_temporality_missing: str = "reject",
        kept_days: KeptDays = _KEPT_FOR_EVER,
    ) -> None:
        self.past_max_s: Final = past_max_s
        self._past_max_s: Final[dict[int, int]] = {
            PAYLOAD_FORM_OTLP_METRICS: otlp_metrics_past_max_s,
            PAYLOAD_FORM_OTLP_LOGS: otlp_logs_past_max_s,
            PAYLOAD_FORM_OTLP_TRACES: otlp_traces_past_max_s,
            PAYLOAD_FORM_PROMETHEUS_WRITE_V1: remote_write_past_max_s,
            PAYLOAD_FORM_PROMETHEUS_WRITE_V2: remote_write_past_max_s,
        }
        self.own_time_past_max_s: Final = own_time_past_max_s
        self.future_max_s: Final = future_max_s
        self.attributes_max: Final = attributes_max
        self.attribute_key_bytes_max: Final = attribute_key_bytes_max
        self.attribute_value_bytes_max: Final = attribute_value_bytes_max
        self.name_bytes_max: Final = name_bytes_max
        self.request_elements_max: Final = request_elements_max
        self.request_row_bytes_max: Final = request_row_bytes_max
        self.item_bytes_max: Final = item_bytes_max
        self.json_forms: Final = SNAKE_CASE * otlp_json_snake_case | ENUM_NAMES * otlp_json_enum_names
        self.truncates_values: Final = attribute_value_too_long == "truncate"
        self.assumes_cumulative: Final = otlp_temporality_missing == "cumulative"
        self.kept_days: Final = kept_days

    def window_of(self, form: int, tenant: str, plan_past_max_s: int | None = None) -> TimeWindow:
        """Return how old an item may be. `form` is that of a dead letter's payload, which implies the source and signal."""
        past_max_s = plan_past_max_s
        if past_max_s is None:
            past_max_s = max(self.past_max_s, self._past_max_s.get(form, 0))
        days = self.kept_days.of(tenant, _SIGNALS.get(form, METRICS))
        log_days = days
        if form == PAYLOAD_FORM_NATIVE_JSON:
            log_days = self.kept_days.of(tenant, LOGS)
        own_time_past_max_s = max(past_max_s, self.own_time_past_max_s)
        return TimeWindow(Past(past_max_s, days), Past(own_time_past_max_s, days), Past(past_max_s, log_days))


class LimitRules(Rules):
    """The rules for one request of any source. `now_unix_nano` is when it arrived. `dead_letter_items_max` and
    `dead_letter_bytes_max` limit the rejected items that can become dead letters, and `message_row_bytes_max` the bytes of rows
    of a message.

    No check is a conditional expression, because compiled code would make an object of each result."""

    def __init__(
        self,
        limits: Limits,
        now_unix_nano: int,
        *,
        dead_letter_items_max: int = 0,
        dead_letter_bytes_max: int = 0,
        message_row_bytes_max: int = MESSAGE_ROW_BYTES_MAX,
        pause: Callable[[], None] | None = None,
        window: TimeWindow | None = None,
    ) -> None:
        """`pause` is called from time to time while a body is read. A `window` of None is that of no source and no tenant."""
        if window is None:
            window = limits.window_of(0, "")
        self.window: Final = window
        self.pause: Final = pause
        self.dead_letter_items_max = dead_letter_items_max
        self.dead_letter_bytes_max = dead_letter_bytes_max
        self.message_row_bytes_max = message_row_bytes_max
        self.attribute_bytes_unasked_max = min(limits.attribute_key_bytes_max, limits.attribute_value_bytes_max)
        self.request_elements_max = limits.request_elements_max
        self.request_row_bytes_max = limits.request_row_bytes_max
        self.limits: Final = limits
        # However far back the window reaches, 0 is no time, and a number that is negative if signed is far in the future.
        self.time_min: i64 = max(1, now_unix_nano - window.item.past_max_s * _NANOSECONDS)
        self.log_time_min: i64 = max(1, now_unix_nano - window.log.past_max_s * _NANOSECONDS)
        self.has_old_own_time = False
        self.own_time_min: i64 = max(1, now_unix_nano - window.own_time.past_max_s * _NANOSECONDS)
        self.time_max: i64 = now_unix_nano + limits.future_max_s * _NANOSECONDS
        self.attributes_max = limits.attributes_max
        self.key_bytes_max = limits.attribute_key_bytes_max
        self.value_bytes_max = limits.attribute_value_bytes_max
        self.truncates_values = limits.truncates_values
        self.cuts_keys = limits.truncates_values and limits.attribute_key_bytes_max >= SHORTENED_BYTES_MIN
        self.cuts_names = limits.truncates_values and limits.name_bytes_max >= SHORTENED_BYTES_MIN
        self.json_forms = limits.json_forms
        self.assumes_cumulative = limits.assumes_cumulative
        self.name_bytes_max = limits.name_bytes_max

    def rest(self) -> None:
        if self.pause is not None:
            self.pause()

    def check_time(self, time_unix_nano: i64) -> i64:
        if time_unix_nano >= self.time_min:
            if time_unix_nano > self.time_max:
                return TIMESTAMP_IN_FUTURE
            return 0
        if time_unix_nano < 0:
            return TIMESTAMP_IN_FUTURE
        self.has_old_own_time = False  # of another item
        return MISSING_TIMESTAMP if time_unix_nano == 0 else TIMESTAMP_TOO_OLD

    def check_record_time(self, time_unix_nano: i64, is_log: bool) -> i64:
        if is_log:
            if time_unix_nano < self.log_time_min and time_unix_nano > 0:
                return TIMESTAMP_TOO_OLD
            if time_unix_nano >= self.log_time_min and time_unix_nano <= self.time_max:
                return 0
        return self.check_time(time_unix_nano)

    def check_own_time(self, time_unix_nano: i64) -> i64:
        if time_unix_nano < self.own_time_min:
            self.has_old_own_time = True
            return TIMESTAMP_TOO_OLD
        return 0

    def check_attribute_count(self, count: i64) -> i64:
        if count > self.attributes_max:
            return TOO_MANY_ATTRIBUTES
        return 0

    def check_attribute(self, key_bytes: i64, value_bytes: i64) -> i64:
        if key_bytes > self.key_bytes_max:
            return ATTRIBUTE_KEY_TOO_LONG
        if value_bytes > self.value_bytes_max:
            return ATTRIBUTE_VALUE_TOO_LONG
        return 0

    def check_name(self, name_bytes: i64) -> i64:
        if name_bytes > self.name_bytes_max:
            return NAME_TOO_LONG
        return 0

    def message(self, reason: int) -> str:
        limits = self.limits
        if reason == TIMESTAMP_TOO_OLD:
            return self._too_old()
        if reason == TIMESTAMP_IN_FUTURE:
            return f"Timestamp is more than {_duration(limits.future_max_s)} in the future"
        if reason == TOO_MANY_ATTRIBUTES:
            return f"more than {limits.attributes_max} attributes"
        if reason == ATTRIBUTE_KEY_TOO_LONG:
            return f"an attribute's key is longer than {limits.attribute_key_bytes_max} bytes"
        if reason == ATTRIBUTE_VALUE_TOO_LONG:
            return f"an attribute's value is longer than {limits.attribute_value_bytes_max} bytes"
        if reason == NAME_TOO_LONG:
            return f"a name is longer than {limits.name_bytes_max} bytes"
        return REASON[reason].meaning

    def _too_old(self) -> str:
        item, own_time, log = self.window.item, self.window.own_time, self.window.log
        text = f"Timestamp is more than {_duration(item.past_max_s)} in the past{item.kept_text()}"
        if self.has_old_own_time and own_time.past_max_s != item.past_max_s:
            where = "where a log record's observed time or a span's end is newer"
            text += f", or {_duration(own_time.past_max_s)} {where}{own_time.kept_text()}"
        if log.past_max_s != item.past_max_s:
            text += f", or {_duration(log.past_max_s)} of a log record or an event{log.kept_text()}"
        return text


def days_text(days: int) -> str:
    """Return a number of days in words."""
    return "1 day" if days == 1 else f"{days} days"


def _duration(seconds: int) -> str:
    """Return 24h, 10m or 90s: in the largest unit that needs no fraction."""
    if seconds and seconds % 3600 == 0:
        return f"{seconds // 3600}h"
    if seconds and seconds % 60 == 0:
        return f"{seconds // 60}m"
    return f"{seconds}s"
