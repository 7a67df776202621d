"""What httpx does at the start of each client, done once in a process."""

import functools
import importlib
import ssl
from typing import Any, Final

_transports: Final[Any] = importlib.import_module("httpx._transports.default")


def load_authorities_once() -> None:
    """Let all clients share what they know of public authorities, whose certificates take 20 ms of CPU to load.

    A request of `httpx.get` makes a client, and there are thousands. No test meets a server that such an authority vouches for:
    those that speak TLS name their own authority, or none, and are given that.
    """
    create = _transports.create_ssl_context
    shared = functools.cache(create)

    def create_once(verify: ssl.SSLContext | str | bool = True, cert: Any = None, trust_env: bool = True) -> Any:
        if verify is True and cert is None:
            return shared(trust_env=trust_env)
        return create(verify=verify, cert=cert, trust_env=trust_env)

    _transports.create_ssl_context = create_once
