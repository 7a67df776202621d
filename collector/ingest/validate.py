"""The rules that decide whether an item is accepted. They are pure: no clock and no I/O, so the caller passes the time.

Every rule is here, for every protocol. Each rule judges one item, so a bad item never causes a good one to be rejected.
"""

from collections.abc import Callable
from typing import Final

from infrasage.v1.dead_letter_pb2 import (
    PAYLOAD_FORM_OTLP_LOGS,
    PAYLOAD_FORM_OTLP_METRICS,
    PAYLOAD_FORM_OTLP_TRACES,
    PAYLOAD_FORM_PROMETHEUS_WRITE_V1,
    PAYLOAD_FORM_PROMETHEUS_WRITE_V2,
)
from mypy_extensions import i64

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
from adapters.rules import MESSAGE_ROW_BYTES_MAX, REQUEST_ELEMENTS_MAX, REQUEST_ROW_BYTES_MAX, Rules

_NANOSECONDS: Final = 1_000_000_000


class Limits:
    """The numbers behind the rules: seconds, counts and bytes. Defaults are the settings'."""

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

    def past_max_of(self, form: int, plan_past_max_s: int | None = None) -> int:
        """Return how many seconds old an item may be. `form`: of a dead letter's payload: it tells the source and signal."""
        if plan_past_max_s is not None:
            return plan_past_max_s
        return max(self.past_max_s, self._past_max_s.get(form, 0))


class LimitRules(Rules):
    """The rules for every source, as of one moment: `now_unix_nano` is when the request arrived. And for how many of its
    rejected items, and how many bytes of them in all, there is room among the dead letters: for none, if nothing is said. And
    how many bytes of rows a message may become.

    No check is a conditional expression: compiled, it would make an object of each answer."""

    def __init__(
        self,
        limits: Limits,
        now_unix_nano: int,
        *,
        dead_letter_items_max: int = 0,
        dead_letter_bytes_max: int = 0,
        message_row_bytes_max: int = MESSAGE_ROW_BYTES_MAX,
        pause: Callable[[], None] | None = None,
        past_max_s: int | None = None,
    ) -> None:
        """`pause` is called from time to time while a body is read. `past_max_s`: None: the limits' own."""
        self.past_max_s: Final[int] = limits.past_max_s if past_max_s is None else past_max_s
        self.pause: Final = pause
        self.dead_letter_items_max = dead_letter_items_max
        self.dead_letter_bytes_max = dead_letter_bytes_max
        self.message_row_bytes_max = message_row_bytes_max
        self.attribute_bytes_unasked_max = min(limits.attribute_key_bytes_max, limits.attribute_value_bytes_max)
        self.request_elements_max = limits.request_elements_max
        self.request_row_bytes_max = limits.request_row_bytes_max
        self.limits: Final = limits
        # However far back the window reaches, 0 is no time, and what is negative as a signed number is far in the future.
        self.time_min: i64 = max(1, now_unix_nano - self.past_max_s * _NANOSECONDS)
        self.has_old_own_time = False
        own_time_past_max_s = max(self.past_max_s, limits.own_time_past_max_s)
        self.own_time_min: i64 = max(1, now_unix_nano - own_time_past_max_s * _NANOSECONDS)
        self.time_max: i64 = now_unix_nano + limits.future_max_s * _NANOSECONDS
        self.attributes_max = limits.attributes_max
        self.key_bytes_max = limits.attribute_key_bytes_max
        self.value_bytes_max = limits.attribute_value_bytes_max
        self.truncates_values = limits.truncates_values
        self.json_forms = limits.json_forms
        self.assumes_cumulative = limits.assumes_cumulative
        self.name_bytes_max: i64 = limits.name_bytes_max

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
        return MISSING_TIMESTAMP if time_unix_nano == 0 else TIMESTAMP_TOO_OLD

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
            text = f"Timestamp is more than {_duration(self.past_max_s)} in the past"
            if self.has_old_own_time:
                own = _duration(max(self.past_max_s, limits.own_time_past_max_s))
                text += f", or {own} where a log record's observed time or a span's end is newer"
            return text
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


def _duration(seconds: int) -> str:
    """24h, 10m or 90s: the largest unit that holds it whole."""
    if seconds and seconds % 3600 == 0:
        return f"{seconds // 3600}h"
    if seconds and seconds % 60 == 0:
        return f"{seconds // 60}m"
    return f"{seconds}s"
