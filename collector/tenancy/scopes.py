"""The scopes of keys: what a key may do.

The scopes that read are ordered, and each allows what the one below it does. `ingest` is separate from them and only sends.
"""

from enum import StrEnum


class Scope(StrEnum):
    """A scope, as it is written in the keys file and on the command line."""

    INGEST = "ingest"
    READONLY = "readonly"
    WRITE = "write"
    ADMIN = "admin"

    @property
    def sends(self) -> bool:
        """Return whether a key may send records, on every input."""
        return self is not Scope.READONLY

    @property
    def reads(self) -> bool:
        """Return whether a key may read its own tenant's data."""
        return self is not Scope.INGEST

    @property
    def is_admin(self) -> bool:
        """Return whether a key may read every tenant's data."""
        return self is Scope.ADMIN
