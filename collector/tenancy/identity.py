"""The sender of a request once its key is known: what the rest of the gateway knows of a key.

A Caller is made from the key alone, never from anything else that the sender says about itself.
"""

from typing import NamedTuple

from collector.tenancy.origins import Origins
from collector.tenancy.plans import Plan
from collector.tenancy.scopes import Scope


class Caller(NamedTuple):
    """`key_id` names the key without giving it away; "" where there was none. `origins`: whose pages alone may send with it;
    None: every sender that has it."""

    tenant: str
    scope: Scope
    plan: Plan
    key_id: str
    origins: Origins | None = None
