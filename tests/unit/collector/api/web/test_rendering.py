"""How numbers and times are written on web pages."""

import pytest

from collector.api.web.rendering import as_json, duration, moment, moment_ns, rate, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (5e-7, "500 ns"),
        (1.5e-3, "1.5 ms"),
        (90, "90 s"),
        (3600, "60 min"),
        (86_400, "24 h"),
        (864_000, "10 d"),
        (-2, "-2 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert text == duration(seconds)


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**40, "1.0 TiB"), (2**60, "1048576.0 TiB")]
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert text == size(size_bytes)


@pytest.mark.parametrize(("per_s", "text"), [(0, "0"), (0.0123, "0.012"), (9.94, "9.9"), (1234.5, "1,234")])
def test_rates(per_s: float, text: str) -> None:
    assert text == rate(per_s)


def test_moments_are_in_utc() -> None:
    assert moment(1_775_822_400) == "2026-04-10 12:00:00"
    assert moment_ns("1775822400123456789") == "2026-04-10 12:00:00.123"


def test_json_is_for_people_and_can_be_encoded() -> None:
    assert as_json({"ä": 1}) == '{\n  "ä": 1\n}'
    as_json({"a": "\ud800"}).encode()
