"""The format of API keys, and the errors for texts that do not have it."""

import hashlib
import math
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.tenancy import key_format
from collector.tenancy.key_format import NotAKey

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_keys_have_one_form() -> None:
    """A key has 63 letters and digits, of which the first are the prefix and the id. No two keys are equal."""
    made = [key_format.new() for _ in range(500)]
    assert len(set(made)) == len(made)
    for key in made:
        assert re.fullmatch("isage_[0-9a-z]{8}[0-9A-Za-z]{49}", key)
        assert len(key) == key_format.LENGTH == 63
        assert key_format.id_of(key) == key[6:14]


def test_a_secret_has_256_bits() -> None:
    """The secret's characters, each one of 62, have at least 256 bits. All of the 62 occur."""
    assert key_format.SECRET_LENGTH * math.log2(len(ALPHABET)) >= 256
    secrets = "".join(key_format.new()[14:57] for _ in range(500))
    assert set(secrets) == set(ALPHABET)


@given(at=st.integers(6, 62), character=st.sampled_from(ALPHABET + "-_ é"))
def test_a_mistyped_character_is_seen(at: int, character: str) -> None:
    """Any wrong character after the prefix, at any place, is found by the checksum."""
    key = key_format.new()
    if key[at] == character:
        return
    with pytest.raises(NotAKey, match="checksum"):
        key_format.id_of(key[:at] + character + key[at + 1 :])


@given(at=st.integers(6, 61))
def test_two_swapped_characters_are_seen(at: int) -> None:
    """Two neighbours in the wrong order, another common mistake, are found by the checksum."""
    key = key_format.new()
    swapped = key[:at] + key[at + 1] + key[at] + key[at + 2 :]
    if swapped != key:
        with pytest.raises(NotAKey, match="checksum"):
            key_format.id_of(swapped)


@pytest.mark.parametrize(
    ("mistype", "said"),
    [
        (lambda key: key[:-1], "it has 62 characters, and a key has 63"),
        (lambda key: key + "x", "it has 64 characters, and a key has 63"),
        (lambda key: key[1:], "it does not begin with isage_"),
        (lambda key: key.upper(), "it does not begin with isage_"),
        (lambda _: "", "it does not begin with isage_"),
    ],
)
def test_the_error_for_what_is_no_key_has_the_reason(mistype: Callable[[str], str], said: str) -> None:
    """The error has the reason, and never the text itself, which may be a secret."""
    key = key_format.new()
    with pytest.raises(NotAKey, match=said) as caught:
        key_format.id_of(mistype(key))
    assert key[14:30] not in str(caught.value)


def test_what_is_kept_is_a_plain_hash() -> None:
    """Anybody can check a key against the file with sha256sum."""
    assert key_format.sha256_of("isage_x") == hashlib.sha256(b"isage_x").hexdigest()
