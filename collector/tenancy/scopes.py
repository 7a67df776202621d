"""What a key may do.

The scopes that read are ordered, and each allows what the one below it does. `ingest` is separate from them and only sends.
"""

from enum import StrEnum


class Scope(StrEnum):
    """As it is written in the keys file and on the command line."""

    INGEST = "ingest"
    READONLY = "readonly"
    WRITE = "write"
    ADMIN = "admin"

    @property
    def sends(self) -> bool:
        """Records, on every input."""
        return self is not Scope.READONLY

    @property
    def reads(self) -> bool:
        """What belongs to its own tenant."""
        return self is not Scope.INGEST

    @property
    def is_admin(self) -> bool:
        """Reads every tenant's."""
        return self is Scope.ADMIN
