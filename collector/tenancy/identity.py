"""The sender of a request, as the gateway knows it from the request's key.

A Caller is made from the key alone, never from another part of the request.
"""

from typing import NamedTuple

from collector.tenancy.origins import Origins
from collector.tenancy.plans import Plan
from collector.tenancy.scopes import Scope


class Caller(NamedTuple):
    """The tenant, scope and plan of a key. `key_id` names the key without revealing it; empty if the request had no key. If
    `origins` is not None, only pages of these origins may send with the key."""

    tenant: str
    scope: Scope
    plan: Plan
    key_id: str
    origins: Origins | None = None
