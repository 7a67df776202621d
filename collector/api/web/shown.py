"""The request for a web page, and the page that is its answer."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from collector.tenancy.identity import Caller


class PageRequest(NamedTuple):
    """A request for a page. `base` precedes the paths of this site in links. `caller` is that of the request's key."""

    path: str
    base: str
    query: Mapping[str, str]
    key: bytes | None
    is_secure: bool
    is_fragment: bool
    caller: Caller | None = None
    form: Mapping[str, list[str]] = {}
    # Whether the form has the token of this key.
    is_from_us: bool = False

    @property
    def tenant(self) -> str | None:
        """Return the tenant whose rows are shown: the caller's. For a key of scope admin, the tenant in the query, or None:
        all."""
        assert self.caller is not None
        return (self.query.get("tenant") or None) if self.caller.scope.is_admin else self.caller.tenant

    @property
    def tenant_allowed(self) -> str | None:
        """Return the tenant whose rows the key may see and change; None: those of all tenants."""
        assert self.caller is not None
        return None if self.caller.scope.is_admin else self.caller.tenant

    @property
    def may_change(self) -> bool:
        """Return whether the key may change dead letters: it must read, and also send, since a replay sends a record."""
        return self.caller is not None and self.caller.scope.reads and self.caller.scope.sends

    @property
    def query_text(self) -> str:
        """Return the query for a link, with its question mark; empty if there is none."""
        return f"?{urlencode(self.query)}" if self.query else ""

    @property
    def edited(self) -> str | None:
        """Return the payload of a dead letter in the form, which somebody may have edited; None if the form has none."""
        return self.field("payload") if "payload" in self.form else None

    def field(self, name: str) -> str:
        """Return the value of a field of the form; empty if the form lacks it."""
        return "".join(self.form.get(name, ())[:1])


class View(NamedTuple):
    """A template and its context. Without a template, the answer has no body."""

    template: str
    context: Mapping[str, Any] = {}
    status: int = 200
    headers: Mapping[str, str] = {}

    @classmethod
    def redirect(cls, target: str, headers: Mapping[str, str] | None = None) -> Self:
        """Return the answer that makes a browser load `target`, a path of ours, by GET."""
        return cls("", {}, 303, {"location": target, **(headers or {})})
