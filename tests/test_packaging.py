"""The package builds where only the build's own requirements are installed, and no source is left out."""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import find_packages  # type: ignore[import-untyped]  # setuptools ships no types

ROOT = Path(__file__).parents[1]
INCLUDED = ("adapters", "adapters.*", "collector", "collector.*", "infrasage", "infrasage.*")
# What setup.py would hand to the compiler, without calling it.
READ_SETUP = """
import runpy, setuptools
setuptools.setup = lambda **_: None
setup = runpy.run_path("setup.py")
print(*setup["BUILD_OPTIONS"], *setup["COMPILED"], sep="\\n")
"""


def test_the_compiler_accepts_the_source_without_the_libraries(tmp_path: Path) -> None:
    """`pip install PATH` and `python -m build` type-check in an environment that has the compiler and none of the libraries."""
    environment = os.environ | {"INFRASAGE_UNCOMPILED": "1"}
    read = subprocess.run(
        [sys.executable, "-c", READ_SETUP], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    options_and_files = read.stdout.split()
    assert "adapters/wire.py" in options_and_files
    command = [sys.executable, "-m", "mypy", "--no-site-packages", "--cache-dir", str(tmp_path), *options_and_files]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_every_folder_with_source_is_installed() -> None:
    """A new package is found by rule: no list has to be changed."""
    found = {*find_packages(str(ROOT), include=INCLUDED), *find_packages(str(ROOT / "proto"), include=INCLUDED)}
    sources = [*ROOT.glob("adapters/**/*.py"), *ROOT.glob("collector/**/*.py"), *ROOT.glob("proto/infrasage/**/*.py")]
    folders = {source.parent.relative_to(ROOT).as_posix().removeprefix("proto/").replace("/", ".") for source in sources}
    assert found == folders
