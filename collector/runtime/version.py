"""Which build this is: the version, and whether its hot path is compiled."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from adapters.codec import wire


def _version() -> str:
    try:
        return version("infrasage-collector")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+source"


VERSION: Final = _version()


def is_compiled() -> bool:
    """Return whether mypyc has compiled the adapters. Otherwise the same code runs several times slower."""
    return not (wire.__file__ or "").endswith(".py")
