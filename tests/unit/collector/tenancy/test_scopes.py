"""What each scope allows."""

import pytest

from collector.tenancy.scopes import Scope


@pytest.mark.parametrize(
    ("scope", "sends", "reads", "is_admin"),
    [
        (Scope.INGEST, True, False, False),
        (Scope.READONLY, False, True, False),
        (Scope.WRITE, True, True, False),
        (Scope.ADMIN, True, True, True),
    ],
)
def test_scopes(scope: Scope, sends: bool, reads: bool, is_admin: bool) -> None:
    """`ingest` only sends, `readonly` only reads, `write` does both, `admin` for everyone."""
    assert (sends, reads, is_admin) == (scope.sends, scope.reads, scope.is_admin)
