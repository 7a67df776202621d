"""Every repair that is made in a request instead of refusing it, in one list. An item that was repaired is accepted.

Invariants:
1. A repair has the same name everywhere: answers, metrics, receipts, documentation (tests/unit/adapters/test_repairs.py,
   test_each_repair_is_documented).
"""

from typing import Final, NamedTuple

INVALID_TEXT: Final = 1
NULL_LIST_ENTRY: Final = 2
INTEGER_BEYOND_64_BITS: Final = 3
VALUE_TRUNCATED: Final = 4
ATTRIBUTES_DROPPED: Final = 5
ID_DROPPED: Final = 6
TEMPORALITY_ASSUMED: Final = 7
HISTOGRAM_COUNT_DIFFERS: Final = 8
VALUE_LEFT_OUT: Final = 9
KEY_TRUNCATED: Final = 10
NAME_TRUNCATED: Final = 11
BYTES_FORM: Final = 12
INFINITE_BOUND: Final = 13
EXEMPLAR_DROPPED: Final = 14
VALUE_MISSING: Final = 15
MEMBER_UNKNOWN: Final = 16
METADATA_DROPPED: Final = 17
NUMBER_FORM: Final = 18

# The length of a value that was cut is stored under a key of this prefix and the value's own key.
CUT_KEY_PREFIX: Final = b"infrasage.truncated."


class Repair(NamedTuple):
    """A `Repair` is one kind of change that makes an item acceptable."""

    code: int
    name: str
    meaning: str


REPAIRS: Final[tuple[Repair, ...]] = (
    Repair(
        INVALID_TEXT,
        "invalid_text",
        "a text is not UTF-8, or has half of a surrogate pair: U+FFFD took the place of each invalid sequence",
    ),
    Repair(NULL_LIST_ENTRY, "null_list_entry", "a list in JSON has a null: it was left out"),
    Repair(
        INTEGER_BEYOND_64_BITS,
        "integer_beyond_64_bits",
        "an attribute's integer does not fit 64 bits: its decimal text was stored",
    ),
    Repair(
        VALUE_TRUNCATED,
        "value_truncated",
        "an attribute's value is longer than validation.attribute_value_bytes_max: its beginning was stored, and its length as"
        " attribute infrasage.truncated.KEY",
    ),
    Repair(
        ATTRIBUTES_DROPPED,
        "attributes_dropped",
        "a list has more attributes than validation.attributes_max: the first were stored, and dropped_attributes_count was"
        " raised where there is one",
    ),
    Repair(
        ID_DROPPED,
        "id_dropped",
        "an id of a log record, a parent, a link or an exemplar has a wrong length, or in JSON is not one: it was left out",
    ),
    Repair(
        TEMPORALITY_ASSUMED,
        "temporality_assumed",
        "a sum or histogram has no aggregation temporality: it was stored as cumulative (validation.otlp_temporality_missing)",
    ),
    Repair(
        HISTOGRAM_COUNT_DIFFERS,
        "histogram_count_differs",
        "the bucket counts of a histogram's point do not add up to its count: all were stored as they came",
    ),
    Repair(
        VALUE_LEFT_OUT,
        "value_left_out",
        "a value of a resource, a scope or a metric, which belongs to many items, does not fit its field in OTLP/JSON, or is"
        " nested more than 64 deep: it was left out",
    ),
    Repair(
        KEY_TRUNCATED,
        "key_truncated",
        "an attribute's key is longer than validation.attribute_key_bytes_max: its beginning was stored, and `~` and 16 digits"
        " of its SHA-256 behind that, so two keys stay two",
    ),
    Repair(
        NAME_TRUNCATED,
        "name_truncated",
        "the name of a service, scope, span or event is longer than validation.name_bytes_max: it was stored as such a key is",
    ),
    Repair(
        BYTES_FORM,
        "bytes_form",
        "in OTLP/JSON an id is base64 in the place of hex, or an id or bytes are numbers, as JavaScript writes them"
        ' ([1,2], {"0":1}, {"type":"Buffer","data":[1]}): they were read',
    ),
    Repair(
        INFINITE_BOUND,
        "infinite_bound",
        "the explicit bounds of a histogram's point end with infinity: it was left out, with the count of 0 behind it if there"
        " was one",
    ),
    Repair(
        EXEMPLAR_DROPPED,
        "exemplar_dropped",
        "an exemplar breaks a rule (in remote write too many labels, or symbols that are not in the table; in OTLP a value that"
        " does not fit its field, or is nested more than 64 deep): it was left out, and its sample or point was stored",
    ),
    Repair(
        VALUE_MISSING,
        "value_missing",
        "a point of a gauge or a sum has no value, and no flag that it has none: it was stored as it came, and its value is"
        " read as 0",
    ),
    Repair(
        MEMBER_UNKNOWN,
        "member_unknown",
        "a record of the native API has a member that is none of the API's: it was left out",
    ),
    Repair(
        METADATA_DROPPED,
        "metadata_dropped",
        "the help or unit of a series of remote write 2.0 refers to a symbol that is not in the table: it was left out, and the"
        " series was stored",
    ),
    Repair(
        NUMBER_FORM,
        "number_form",
        "OTLP/JSON has NaN, Infinity or -Infinity without quotes, as Python writes them: they were read as with quotes",
    ),
)

REPAIR: Final[dict[int, Repair]] = {repair.code: repair for repair in REPAIRS}
