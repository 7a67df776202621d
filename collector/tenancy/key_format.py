"""The format of an API key: `isage_`, 8 characters of public id, 43 of secret, 6 of checksum; 63 letters and digits in all.

A refused sender does not learn whether its key was mistyped or revoked. Id and checksum are for operators who manage keys:
lists and logs show the id, and the checksum distinguishes a mistyped key from a revoked one.
"""

import secrets
import string
import zlib
from hashlib import sha256
from typing import Final

PREFIX: Final = "isage_"
ID_LENGTH: Final = 8
SECRET_LENGTH: Final = 43  # of 62 kinds: 256.03 bits
_CHECKSUM_LENGTH: Final = 6  # 62**6 > 2**32
LENGTH: Final = len(PREFIX) + ID_LENGTH + SECRET_LENGTH + _CHECKSUM_LENGTH

# The characters after the prefix are one word for a double click, a URL and a shell.
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
# Ids are read aloud and typed: no capitals, and nothing that looks like 0 or 1 (Crockford's base 32).
ID_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"


class NotAKey(ValueError):
    """The text can't be a key, or was mistyped. The message has the reason, without the text."""


def new() -> str:
    """Return a new random key."""
    key_id = "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(SECRET_LENGTH))
    body = PREFIX + key_id + secret
    return body + _checksum(body)


def id_of(key: str) -> str:
    """Return the public id in a key. Raises NotAKey."""
    if not key.startswith(PREFIX):
        raise NotAKey(f"it does not begin with {PREFIX}")
    if len(key) != LENGTH:
        raise NotAKey(f"it has {len(key)} characters, and a key has {LENGTH}")
    body, checksum = key[:-_CHECKSUM_LENGTH], key[-_CHECKSUM_LENGTH:]
    if not key.isascii() or _checksum(body) != checksum:
        raise NotAKey("a character in it is wrong: its checksum does not fit")
    return key[len(PREFIX) : len(PREFIX) + ID_LENGTH]


def sha256_of(key: str) -> str:
    """Return the hash of a key, which is stored in place of the key, in hexadecimal.

    One plain hash is enough: 256 random bits can't be guessed, however fast guesses are tried. Slow, salted hashes are for
    secrets of less than 112 bits (NIST SP 800-63B, 5.1.2.2).
    """
    return sha256(key.encode()).hexdigest()


def _checksum(body: str) -> str:
    """Return the CRC-32 in base 62, as in GitHub's tokens, whose format this is."""
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
