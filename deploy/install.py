"""Install this checkout into the environment of the Python that runs this file: `make install` and `make serve`.

The hot path takes minutes to compile. So `make serve` installs the package uncompiled, which takes seconds, and compiles in the
background, at the lowest priority. The next `make serve` installs that wheel. `make install` waits for a compiled wheel.

Invariants (tests in tests/packaging/test_installing.py):
1. A compile that was killed or that failed changes nothing that is installed. test_a_killed_compile_changes_nothing
2. A wheel is of the sources as they were at one moment, and is used only for these. test_a_changed_source_needs_another_wheel
3. One compile runs at a time: a second one waits and uses its wheel. test_the_second_compile_uses_the_wheel_of_the_first
4. A compile installs nothing, so no program loses its files while it runs. test_a_compile_installs_nothing
5. A compiled wheel of the sources that run waits for that program's end. test_what_runs_is_not_replaced
6. Where the C compiler fails, each start says so; none compiles or installs again. test_a_failed_compiler_is_reported
7. One command installs at a time. test_the_second_command_installs_nothing
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[1]
# What a build reads, and of that what a compiled wheel depends on.
BUILD_FILES: Final = (
    *("adapters", "collector", "deploy/package/infrasage_collector", "proto/infrasage"),
    *("LICENSE", "README.md", "pyproject.toml", "setup.py"),
)
HASHED_FILES: Final = ("pyproject.toml", "requirements.lock", "setup.py")
HASHED_ENDINGS: Final = (".css", ".html", ".js", ".proto", ".py", ".pyi", ".sql", ".svg", ".txt")
COMPILED_MODULE: Final = "infrasage__mypyc"
HOME: Final = "infrasage_collector"
PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check")
LOWEST_PRIORITY: Final = 19
WHEELS_MAX: Final = 3

Build = Callable[[Path, Path, bool], None]


def say(text: str) -> None:
    print(text, flush=True)


class Installation:
    """The package in one environment, and the wheels that were built for it."""

    def __init__(self, checkout: Path, prefix: Path) -> None:
        self._checkout: Final = checkout
        self._prefix: Final = prefix
        self._place: Final = prefix / "collector-builds"
        self._place.mkdir(exist_ok=True)
        self._state: Final = self._place / "installed.json"
        self.log: Final = self._place / "compile.log"
        self.fingerprint: Final = fingerprint(checkout)
        self.wheel: Final = self._place / self.fingerprint / "wheel"

    def is_installed(self, *, compiled: bool) -> bool:
        """Whether these sources are, and compiled if `compiled`."""
        try:
            state = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return False
        # Scripts name the environment, so one that was moved needs them anew.
        is_here = (state["fingerprint"], state.get("prefix")) == (self.fingerprint, str(self._prefix))
        return bool(is_here and (state["compiled"] or not compiled))

    def install(self, wheel: Path) -> None:
        self._state.unlink(missing_ok=True)
        pip_install(wheel)
        state = {"fingerprint": self.fingerprint, "compiled": is_compiled(wheel), "prefix": str(self._prefix)}
        self._state.write_text(json.dumps(state))

    def install_uncompiled(self, build: Build) -> None:
        with self._snapshot() as source, tempfile.TemporaryDirectory(dir=self._place, prefix="wheel-") as out:
            build(source, Path(out), False)
            self.install(next(Path(out).glob("*.whl")))

    def compiled_wheel(self) -> Path | None:
        """Return what a compile left: without compiled modules where the C compiler failed."""
        return next(self.wheel.glob("*.whl"), None)

    def running(self) -> int | None:
        """Return the id of a process that runs a command of this environment's collector, if there is one."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
                if b"infrasage" in command and f" {self._prefix}/" in (process / "maps").read_text(errors="replace"):
                    return int(process.name)
            except OSError:  # it ended, or it is another user's
                continue
        return None

    @contextmanager
    def installing(self) -> Iterator[None]:
        """Wait until no other command installs."""
        with locked(self._place / "install.lock", "another `make`, which installs"):
            yield

    def compile(self, build: Build, *, wait: bool) -> None:
        """Make the compiled wheel of these sources, unless it is there. Without `wait`, leave it to a compile under way."""
        with (self._place / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    return
                say("waiting for the compile that an earlier command began in the background")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if self.compiled_wheel() is not None:
                return
            for left in self._place.glob("compile-*"):  # by a compile that was killed
                shutil.rmtree(left)
            with self._snapshot() as source:
                out = source.parent / "wheel"
                out.mkdir()
                build(source, out, True)
                self.wheel.parent.mkdir(exist_ok=True)
                out.rename(self.wheel)
            self._remove_old_wheels()

    def _remove_old_wheels(self) -> None:
        made = sorted(self._place.glob("*/wheel"), key=lambda wheel: wheel.stat().st_mtime, reverse=True)
        for wheel in made[WHEELS_MAX:]:
            shutil.rmtree(wheel.parent)

    @contextmanager
    def _snapshot(self) -> Iterator[Path]:
        """A copy of the sources: a build writes beside them, and they may change meanwhile. Raises ChangedMeanwhile."""
        with tempfile.TemporaryDirectory(dir=self._place, prefix="compile-") as place:
            copy = Path(place) / "source"
            for name in (*BUILD_FILES, "requirements.lock"):
                copied = copy / name
                copied.parent.mkdir(parents=True, exist_ok=True)
                if (self._checkout / name).is_dir():
                    shutil.copytree(self._checkout / name, copied, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
                else:
                    shutil.copyfile(self._checkout / name, copied)
            if fingerprint(copy) != self.fingerprint:
                raise ChangedMeanwhile
            yield copy


@contextmanager
def locked(file: Path, holder: str) -> Iterator[None]:
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for {holder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class ChangedMeanwhile(Exception):
    """The sources changed while they were copied."""


def fingerprint(checkout: Path) -> str:
    """Of all that a compiled wheel depends on: sources, versions of what builds it, this Python."""
    compiler = os.environ.get("CC", "")
    digest = hashlib.sha256(f"{sys.version} {sysconfig.get_platform()} {compiler}".encode())
    folders = [checkout / name for name in BUILD_FILES if (checkout / name).is_dir()]
    sources = [
        file for folder in folders for file in folder.rglob("*") if file.suffix in HASHED_ENDINGS or file.name == "py.typed"
    ]
    for file in sorted([*sources, *(checkout / name for name in HASHED_FILES)]):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(checkout).as_posix()} {len(content)} ".encode() + content)
    return digest.hexdigest()[:32]


def is_compiled(wheel: Path) -> bool:
    with zipfile.ZipFile(wheel) as archive:
        return any(COMPILED_MODULE in name for name in archive.namelist())


def pip_wheel(source: Path, out: Path, compiled: bool, output: str = "--quiet") -> None:
    """Raises CalledProcessError."""
    environment = {name: value for name, value in os.environ.items() if name != "INFRASAGE_UNCOMPILED"}
    if not compiled:
        environment["INFRASAGE_UNCOMPILED"] = "1"
    command = [*PIP, "wheel", output, "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source)]
    subprocess.run(command, env=environment, check=True)


def pip_install(wheel: Path) -> None:
    """Raises CalledProcessError."""
    subprocess.run([*PIP, "install", "--quiet", "--no-deps", "--force-reinstall", str(wheel)], check=True)
    # In an environment of a checkout, tests and benchmarks import the packages by their own names.
    site = Path(sysconfig.get_path("purelib"))
    (site / f"{HOME}.pth").write_text(f"{site / HOME}\n")


def install_now(installation: Installation) -> None:
    """Install what is there at once; compile in the background for the next time."""
    if installation.is_installed(compiled=True):
        return
    is_there = installation.is_installed(compiled=False)
    if (wheel := installation.compiled_wheel()) is not None:
        if not is_compiled(wheel):
            _report_failed_compiler(installation)
            if not is_there:
                installation.install(wheel)
        elif is_there and (process := installation.running()) is not None:
            say(
                f"process {process} runs the uncompiled collector of this environment, so it stays as it is:"
                " once that has ended, the next `make serve` is compiled"
            )
        else:
            say("installing the compiled collector")
            installation.install(wheel)
        return
    if not is_there:
        say("installing the collector, uncompiled: some seconds")
        installation.install_uncompiled(pip_wheel)
    if not _may_compile():
        return
    say(
        f"compiling the hot path in the background, at the lowest priority: about 3 minutes, log in {installation.log};"
        " the next `make serve` uses it"
    )
    with installation.log.open("w") as log:
        subprocess.Popen(
            [sys.executable, __file__, "compile"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C ends the collector, not this
        )


def install_compiled(installation: Installation) -> None:
    """Install a compiled wheel, as far as there is a compiler."""
    compiler = _may_compile()
    if installation.is_installed(compiled=compiler):
        return
    if compiler and installation.compiled_wheel() is None:
        say("compiling the hot path: about 3 minutes of one core")
        installation.compile(pip_wheel, wait=True)
    with installation.installing():  # not before: a `make serve` starts while this one compiles
        wheel = installation.compiled_wheel() if compiler else None
        if wheel is not None and not is_compiled(wheel):
            _report_failed_compiler(installation)
        if installation.is_installed(compiled=wheel is not None and is_compiled(wheel)):
            return
        if wheel is None:
            installation.install_uncompiled(pip_wheel)
        else:
            installation.install(wheel)


def _report_failed_compiler(installation: Installation) -> None:
    say(
        "warning: the C compiler failed, so the hot path is not compiled: the same answers, several times slower."
        f" To try again, with the output in {installation.log}: rm -r '{installation.wheel.parent}' && make serve"
    )


def _may_compile() -> bool:
    if os.environ.get("INFRASAGE_UNCOMPILED"):
        say("INFRASAGE_UNCOMPILED is set, so the hot path is not compiled")
        return False
    if (missing := runpy.run_path(str(CHECKOUT / "setup.py"))["missing_to_compile"]()) is not None:
        say(f"{missing}, so the hot path is not compiled: the same answers, several times slower")
        return False
    return True


def install_requirements(file: Path) -> None:
    """With pip's progress in a line every few seconds. Raises CalledProcessError."""
    count = len(re.findall(r"(?m)^[A-Za-z0-9._-]+==", file.read_text()))
    began_s = shown_s = time.monotonic()
    say(f"installing {count} packages of {file.name}")
    command = [*PIP, "install", "--no-compile", "--progress-bar", "off", "--require-hashes", "--no-deps", "-r", str(file)]
    fetched = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            now_s = time.monotonic()
            fetched += line.startswith(("Collecting ", "Requirement already satisfied"))
            if line.startswith("Installing collected packages"):
                say(f"  [{now_s - began_s:3.0f} s] all fetched, unpacking")
            elif now_s - shown_s > 3 and line.startswith("Collecting "):
                shown_s = now_s
                say(f"  [{now_s - began_s:3.0f} s] {fetched} of {count}: {line.split()[1].partition('==')[0]}")
    if pip.returncode:
        raise subprocess.CalledProcessError(pip.returncode, command)
    say(f"  [{time.monotonic() - began_s:3.0f} s] done")


def main() -> int:
    parser = argparse.ArgumentParser(description="Install this checkout into the environment of this Python.")
    commands = parser.add_subparsers(dest="command", required=True)
    requirements = commands.add_parser("requirements", help="what a file of locked versions names")
    requirements.add_argument("file", type=Path)
    commands.add_parser("now", help="what is there at once; compile in the background for the next time")
    commands.add_parser("compiled", help="the compiled package")
    commands.add_parser("compile", help="only make the compiled wheel, at the lowest priority")
    arguments = parser.parse_args()
    try:
        if arguments.command == "requirements":
            with locked(Path(sys.prefix, "install.lock"), "another `make`, which installs the same packages"):
                install_requirements(arguments.file)
            return 0
        installation = Installation(CHECKOUT, Path(sys.prefix))
        if arguments.command == "now":
            with installation.installing():
                install_now(installation)
        elif arguments.command == "compiled":
            install_compiled(installation)
        else:
            os.nice(LOWEST_PRIORITY)
            installation.compile(partial(pip_wheel, output="--verbose"), wait=False)
    except subprocess.CalledProcessError as error:
        say(f"error: pip failed with status {error.returncode}: its own message is above")
        return 1
    except ChangedMeanwhile:
        say("error: the sources changed while they were copied: run the command again")
        return 1
    except KeyboardInterrupt:
        say("interrupted: the same command goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
