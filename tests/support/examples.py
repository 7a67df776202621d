"""How many examples a property is tried with."""

from typing import Final

from hypothesis import settings

_USUAL: Final = 100


def examples(count: int) -> settings:
    """For a test: so many; of a profile that has fewer than the usual hundred (tests/conftest.py), that part of them."""
    return settings(max_examples=max(1, count * settings().max_examples // _USUAL))
