"""Debian's Chromium, without a window, as tests drive it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright


@contextmanager
def chromium(untried: str) -> Iterator[Browser]:
    """One browser. Skips the test where there is none, and names what is `untried` then; under CI that fails."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing, and .ci/peers installs it")
        pytest.skip(f"chromium is missing: {untried}")
    with sync_playwright() as playwright:
        # As root there is no sandbox; it loads pages of this machine only.
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()
