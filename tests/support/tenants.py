"""Tenants and their keys, and requests that have a key in one way or another."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from adapters.errors import INSUFFICIENT_SCOPE, INVALID_API_KEY, MISSING_API_KEY
from collector.tenancy import key_format, keys
from collector.tenancy.identity import Caller
from collector.tenancy.keyring import Keyring
from collector.tenancy.plans import BUILT_IN_PLANS, Plan
from collector.tenancy.scopes import Scope

NOW = datetime(2026, 4, 10, 12, tzinfo=UTC)

ANONYMOUS_TENANT = "anonymous"
X_API_KEY = "X-API-Key"
AUTHORIZATION = "Authorization"

Headers = tuple[tuple[str, str], ...]


class Sent(NamedTuple):
    """One way of saying who one is. `sends`, `reads`: as which tenant, or the reason of the refusal."""

    name: str
    headers: Headers
    sends: str | int
    reads: str | int


def keyring(directory: Path) -> tuple[Keyring, dict[str, str]]:
    """A keyring, and the keys in its file by what they are: each scope (which is its tenant, too), revoked, expired."""
    path = directory / keys.FILE_NAME

    def create(tenant: str, scope: Scope) -> tuple[str, str]:
        created = keys.create(path, tenant=tenant, scope=scope, plan="Unlimited", now=NOW)
        return created.text, created.key.id

    texts = {str(scope): create(scope, scope)[0] for scope in Scope}
    texts["revoked"], revoked = create("revoked", Scope.ADMIN)
    texts["expired"], expired = create("expired", Scope.ADMIN)
    later = NOW + timedelta(minutes=1)
    keys.end(path, revoked, at=NOW, now=NOW)
    keys.end(path, expired, at=later, now=NOW)
    clock = [NOW.timestamp()]
    ring = Keyring.open(path, BUILT_IN_PLANS, reload_s=1, now_unix_s=lambda: clock[0])
    caller = ring.find(texts["expired"].encode())
    assert caller is not None, "it is in force until its end"
    clock[0] = later.timestamp()
    return ring, texts


def ways_of_saying(texts: dict[str, str]) -> list[Sent]:
    """Every kind of key, and every way to send one, where no key at all is the anonymous tenant. Sound in HTTP and gRPC."""
    ingest, readonly, write, admin = (texts[scope] for scope in Scope)
    wrong = INVALID_API_KEY
    both: tuple[str, str] = ("admin", "admin")
    neither: tuple[int, int] = (wrong, wrong)
    nobody: tuple[str, int] = (ANONYMOUS_TENANT, MISSING_API_KEY)
    basic = (AUTHORIZATION, "Basic dXNlcjpwYXNzd29yZA==")
    return [
        Sent("none", (), *nobody),
        Sent("ingest", ((X_API_KEY, ingest),), "ingest", INSUFFICIENT_SCOPE),
        Sent("readonly", ((X_API_KEY, readonly),), INSUFFICIENT_SCOPE, "readonly"),
        Sent("write", ((X_API_KEY, write),), "write", "write"),
        Sent("admin", ((X_API_KEY, admin),), *both),
        Sent("unknown", ((X_API_KEY, key_format.new()),), *neither),
        Sent("revoked", ((X_API_KEY, texts["revoked"]),), *neither),
        Sent("expired", ((X_API_KEY, texts["expired"]),), *neither),
        Sent("not a key", ((X_API_KEY, "x"),), *neither),
        Sent("one character more", ((X_API_KEY, admin + "x"),), *neither),
        Sent("one character less", ((X_API_KEY, admin[:-1]),), *neither),
        Sent("in capitals", ((X_API_KEY, admin.upper()),), *neither),
        Sent("empty", ((X_API_KEY, ""),), *neither),
        Sent("twice", ((X_API_KEY, admin), (X_API_KEY, admin)), *both),
        Sent("two", ((X_API_KEY, admin), (X_API_KEY, write)), *neither),
        Sent("Bearer", ((AUTHORIZATION, f"Bearer {admin}"),), *both),
        Sent("bearer in odd case", ((AUTHORIZATION, f"bEARER {admin}"),), *both),
        Sent("Bearer and spaces", ((AUTHORIZATION, f"Bearer   {admin}"),), *both),
        Sent("Bearer, ingest", ((AUTHORIZATION, f"Bearer {ingest}"),), "ingest", INSUFFICIENT_SCOPE),
        Sent("Bearer, unknown", ((AUTHORIZATION, f"Bearer {key_format.new()}"),), *neither),
        Sent("Bearer of nothing", ((AUTHORIZATION, "Bearer"),), *neither),
        Sent("Bearer twice", ((AUTHORIZATION, f"Bearer {admin}"), (AUTHORIZATION, f"Bearer {admin}")), *both),
        # A proxy's on the way, and not for us.
        Sent("Basic", (basic,), *nobody),
        Sent("Basic beside X-API-Key", (basic, (X_API_KEY, admin)), *both),
        Sent("X-API-Key before Bearer", ((AUTHORIZATION, f"Bearer {write}"), (X_API_KEY, admin)), *both),
        Sent("wrong X-API-Key before Bearer", ((AUTHORIZATION, f"Bearer {admin}"), (X_API_KEY, "x")), *neither),
        Sent("empty X-API-Key before Bearer", ((AUTHORIZATION, f"Bearer {admin}"), (X_API_KEY, "")), *both),
    ]


def without_anonymous(sent: Sent) -> Sent:
    """The same where nobody sends without a key."""
    return sent._replace(sends=MISSING_API_KEY) if sent.sends == ANONYMOUS_TENANT else sent


def on_plans(plans: Mapping[str, Plan]) -> Callable[[bytes], Caller | None]:
    """A `find` for tenants by name: each one's key is that name, has this plan, and may send and read."""
    return {tenant.encode(): Caller(tenant, Scope.WRITE, plan, tenant) for tenant, plan in plans.items()}.get
