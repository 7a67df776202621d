"""Parse RFC 3339 timestamps to nanoseconds since the Unix epoch.

Invariants:
1. The grammar is that of section 5.6, with three forms that other programs print: a space for the T, a space before the
   offset, and an offset of `+hhmm` or `+hh`. A time without an offset is invalid (test_timestamps_are_read_as_the_twin_does,
   test_times_as_other_programs_print_them).
2. A number is returned in every case, and no exception is raised (test_any_text_is_a_timestamp_or_not).
"""

from typing import Final

from mypy_extensions import i64

# Not a timestamp.
INVALID: Final = -1
# Not after 1970-01-01T00:00:00Z, which the record can't hold.
BEFORE: Final = 0
# After 2262-04-11T23:47:16.854775806Z, where 64 bits end.
BEYOND: Final = 0x7FFFFFFFFFFFFFFF

_NANOSECONDS: Final = 1_000_000_000
_SECONDS_MAX: Final = 9_223_372_036
_DAYS_BEFORE_MONTH: Final = (0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
_DAYS_OF_MONTH: Final = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _two_digits(text: bytes, at: i64) -> i64:
    """Return the number of two digits; -1 if either is not a digit."""
    tens: i64 = text[at]
    ones: i64 = text[at + 1]
    if tens < 48 or tens > 57 or ones < 48 or ones > 57:
        return -1
    return (tens - 48) * 10 + ones - 48


def parse_time(text: bytes) -> i64:
    """Return nanoseconds since the epoch, or INVALID, BEFORE or BEYOND.

    Digits beyond the ninth are dropped. The leap second 23:59:60Z is read as the second after it. A lower-case t and z are
    accepted, and the forms of the first invariant.
    """
    end: i64 = len(text)
    if end < 20 or text[4] != 45 or text[7] != 45 or text[13] != 58 or text[16] != 58:
        return INVALID
    separator: i64 = text[10]
    if separator != 84 and separator != 116 and separator != 32:
        return INVALID
    century: i64 = _two_digits(text, 0)
    year: i64 = _two_digits(text, 2)
    month: i64 = _two_digits(text, 5)
    day: i64 = _two_digits(text, 8)
    hour: i64 = _two_digits(text, 11)
    minute: i64 = _two_digits(text, 14)
    second: i64 = _two_digits(text, 17)
    if century < 0 or year < 0 or month < 1 or month > 12 or day < 1:
        return INVALID
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 60:
        return INVALID
    year += century * 100
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days_max: i64 = _DAYS_OF_MONTH[month]
    if day > (29 if leap and month == 2 else days_max):
        return INVALID

    nanoseconds: i64 = 0
    at: i64 = 19
    byte: i64
    if text[at] == 46:
        at += 1
        scale: i64 = 100_000_000
        first: i64 = at
        while at < end:
            byte = text[at]
            if byte < 48 or byte > 57:
                break
            nanoseconds += (byte - 48) * scale
            scale //= 10
            at += 1
        if at == first or at == end:
            return INVALID

    if text[at] == 32:
        at += 1
        if at == end:
            return INVALID
    offset_s: i64 = 0
    byte = text[at]
    if byte == 90 or byte == 122:
        at += 1
    elif (byte == 43 or byte == 45) and at + 3 <= end:
        hours: i64 = _two_digits(text, at + 1)
        minutes: i64 = 0
        at += 3
        if at < end:
            if text[at] == 58:
                at += 1
            if at + 2 > end:
                return INVALID
            minutes = _two_digits(text, at)
            at += 2
        if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
            return INVALID
        offset_s = hours * 3600 + minutes * 60
        if byte == 45:
            offset_s = -offset_s
    else:
        return INVALID
    if at != end:
        return INVALID

    past: i64 = year - 1  # whole years, so that a leap day counts from its own year's March on
    days: i64 = year * 365 + past // 4 - past // 100 + past // 400 - 719_527
    before_month: i64 = _DAYS_BEFORE_MONTH[month]
    days += before_month + day - 1
    if leap and month > 2:
        days += 1
    seconds: i64 = days * 86_400 + hour * 3600 + minute * 60 + second - offset_s
    if second == 60 and seconds % 86_400 != 0:
        return INVALID
    if seconds < 0 or (seconds == 0 and nanoseconds == 0):
        return BEFORE
    if seconds >= _SECONDS_MAX:
        return BEYOND
    return seconds * _NANOSECONDS + nanoseconds
