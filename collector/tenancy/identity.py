"""Who a request is from, once its key is known: what the rest of the gateway has of a key.

The law: a Caller is never made from anything that the sender says of itself but the key.
"""

from typing import NamedTuple

from collector.tenancy.plans import Plan
from collector.tenancy.scopes import Scope


class Caller(NamedTuple):
    """`key_id` names the key without giving it away; "" where there was none."""

    tenant: str
    scope: Scope
    plan: Plan
    key_id: str
