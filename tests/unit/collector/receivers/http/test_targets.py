"""Hosts and paths."""

import pytest

from collector.receivers.http.targets import decoded_path, is_host


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"a" * 1024, True), (b"a" * 1025, False), (b"a:80", True), (b"[::1]:80", True), (b"a b", False), (b"", True)],
)
def test_what_a_host_is(value: bytes, expected: bool) -> None:
    assert expected == is_host(value)


def test_a_path_longer_than_any_of_ours_is_not_decoded() -> None:
    """It is at no route, whichever way it is read."""
    assert "/v1/logs" == decoded_path(b"/v1/lo%67s")
    assert "/" + "A" * 341 == decoded_path(b"/" + b"%41" * 341)
    assert "/" + "%41" * 342 == decoded_path(b"/" + b"%41" * 342)
