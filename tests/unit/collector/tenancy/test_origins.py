"""Which origins a pattern allows."""

import pytest

from collector.tenancy.origins import Origins, origin_problem


@pytest.mark.parametrize(
    ("pattern", "allowed", "others"),
    [
        (
            "https://app.example.com",
            ["https://app.example.com", "HTTPS://App.Example.com"],
            [
                "http://app.example.com",
                "https://app.example.com:8443",
                "https://app.example.com.evil.test",
                "https://appXexample.com",
                "https://app.example.com/",
                "https://evil.test, https://app.example.com",
                "null",
                "",
            ],
        ),
        (
            "https://*.example.com",
            ["https://a.example.com", "https://a.b.example.com"],
            [
                "https://example.com",
                "https://evil-example.com",
                "https://evil.test/.example.com",
                "https://evil.test:1.example.com",
                "https://evil.test#.example.com",
                "https://a.example.com:8443",
                "https://a.example.com.evil.test",
            ],
        ),
        ("http://localhost:*", ["http://localhost", "http://localhost:3000"], ["https://localhost:3000", "http://localhost:a"]),
        ("https://*", ["https://a.test", "https://[::1]"], ["http://a.test", "https://a.test:8443"]),
        ("http://[::1]:3000", ["http://[::1]:3000"], ["http://[::1]"]),
        ("capacitor://localhost", ["capacitor://localhost"], ["https://localhost"]),
        ("null", ["null"], ["https://null", "nul"]),
        ("*", ["https://a.test", "null", "file://"], ["", "x" * 257]),
    ],
)
def test_an_origin_is_allowed_or_not(pattern: str, allowed: list[str], others: list[str]) -> None:
    """A wildcard is for labels of a name, or for a port, and for nothing behind them."""
    origins = Origins([pattern])
    assert allowed == [origin for origin in allowed + others if origins.allows(origin.encode())]
    either = Origins(["https://other.test", pattern])
    assert [*allowed, "https://other.test"] == [
        origin for origin in [*allowed, "https://other.test", *others] if either.allows(origin.encode())
    ]


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "app.example.com", "https://app.example.com/", "https://app.example.com/path", "https://*example.com"),
        *("https://app.*.com", "https://a b", "https://", "*.example.com", "https://a.test:", "https://a.test:123456"),
        "https://" + "a" * 300,
    ],
)
def test_what_names_no_origins_is_refused(pattern: str) -> None:
    """The error has an example of what would be right."""
    assert origin_problem(pattern) is not None
    with pytest.raises(ValueError, match=r"origin|characters"):
        Origins([pattern])


def test_no_patterns_allow_nothing() -> None:
    assert not Origins([]).allows(b"https://a.test")
