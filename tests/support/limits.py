"""The numbers behind the rules, as the tests of adapters use them."""

from collector.ingest.validate import Limits

# As the settings have them.
DEFAULT = Limits(
    past_max_s=86_400,
    own_time_past_max_s=1_209_600,
    future_max_s=600,
    attributes_max=128,
    attribute_key_bytes_max=1_024,
    attribute_value_bytes_max=262_144,
    name_bytes_max=1_024,
)
# So low that generated requests exceed them now and then.
LOW = Limits(
    past_max_s=86_400,
    own_time_past_max_s=1_209_600,
    future_max_s=600,
    attributes_max=3,
    attribute_key_bytes_max=100,
    attribute_value_bytes_max=120,
    name_bytes_max=100,
)
# As LOW, but a sum or histogram without a temporality is cumulative.
LOW_CUMULATIVE = Limits(
    past_max_s=86_400,
    future_max_s=600,
    attributes_max=3,
    attribute_key_bytes_max=100,
    attribute_value_bytes_max=1 << 26,
    name_bytes_max=100,
    otlp_temporality_missing="cumulative",
)
# As LOW, but what is too long is cut.
LOW_TRUNCATED = Limits(
    past_max_s=86_400,
    own_time_past_max_s=1_209_600,
    future_max_s=600,
    attributes_max=3,
    attribute_key_bytes_max=100,
    attribute_value_bytes_max=20,
    name_bytes_max=100,
    attribute_value_too_long="truncate",
)
# So wide that only what no rule can lift is refused.
ALL = Limits(
    past_max_s=1_775_822_400,
    future_max_s=7_000_000_000,
    attributes_max=1_000_000,
    attribute_key_bytes_max=1 << 26,
    attribute_value_bytes_max=1 << 26,
    name_bytes_max=1 << 26,
)
# As ALL, but attributes are cut as under LOW, which rejects no item.
ALL_BUT_ATTRIBUTES = Limits(
    past_max_s=1_775_822_400,
    future_max_s=7_000_000_000,
    attributes_max=3,
    attribute_key_bytes_max=1 << 26,
    attribute_value_bytes_max=1 << 26,
    name_bytes_max=1 << 26,
)
# As LOW, but whatever the rows of a request may become: for tests of what happens behind that check.
LOW_BUT_ROWS = Limits(
    past_max_s=86_400,
    own_time_past_max_s=1_209_600,
    future_max_s=600,
    attributes_max=3,
    attribute_key_bytes_max=100,
    attribute_value_bytes_max=120,
    name_bytes_max=100,
    request_row_bytes_max=1 << 50,
)
# As LOW, but for the size of a value: for requests whose values are longer as sent than as protobuf's encoder writes them.
LOW_BUT_VALUES = Limits(
    past_max_s=86_400,
    own_time_past_max_s=1_209_600,
    future_max_s=600,
    attributes_max=3,
    attribute_key_bytes_max=100,
    attribute_value_bytes_max=1 << 26,
    name_bytes_max=100,
)
