"""What a web page is asked for with, and what it shows."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from collector.tenancy.identity import Caller


class Asked(NamedTuple):
    """A request for a page. `base`: what comes before the paths of this site. `caller`: whose key it came with."""

    path: str
    base: str
    query: Mapping[str, str]
    key: bytes | None
    is_secure: bool
    is_fragment: bool
    caller: Caller | None = None
    form: Mapping[str, list[str]] = {}
    # The form has this key's token.
    is_from_us: bool = False

    @property
    def tenant(self) -> str | None:
        """Whose rows are shown: the caller's; of an admin those of the tenant that is asked for, or None: everybody's."""
        assert self.caller is not None
        return (self.query.get("tenant") or None) if self.caller.scope.is_admin else self.caller.tenant

    @property
    def tenant_allowed(self) -> str | None:
        """Whose rows may be changed; None: everybody's."""
        assert self.caller is not None
        return None if self.caller.scope.is_admin else self.caller.tenant

    @property
    def may_change(self) -> bool:
        """Whether the key changes dead letters: it reads them, and a replay is a record that is sent."""
        return self.caller is not None and self.caller.scope.reads and self.caller.scope.sends

    @property
    def query_text(self) -> str:
        """The query as a link has it, with its question mark."""
        return f"?{urlencode(self.query)}" if self.query else ""

    @property
    def edited(self) -> str | None:
        """The payload of a dead letter as a form brought it: what somebody may have typed. None: it brought none."""
        return self.field("payload") if "payload" in self.form else None

    def field(self, name: str) -> str:
        """A form's field; empty where it is not there."""
        return "".join(self.form.get(name, ())[:1])


class View(NamedTuple):
    """A template and what it is rendered with; without a template, an answer without a body."""

    template: str
    context: Mapping[str, Any] = {}
    status: int = 200
    headers: Mapping[str, str] = {}

    @classmethod
    def redirect(cls, target: str, headers: Mapping[str, str] | None = None) -> Self:
        """To be loaded by GET. `target` is a path of ours."""
        return cls("", {}, 303, {"location": target, **(headers or {})})
