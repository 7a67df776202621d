"""deploy/install.py: what `make serve` and `make install` do, with a compiler that takes no minutes."""

import importlib.util
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.waiting import until

ROOT = Path(__file__).parents[2]
# In a process of its own: compiles until it is killed, and says when it has begun.
ENDLESS_COMPILE = """
import runpy, sys, time
from pathlib import Path
install = runpy.run_path(sys.argv[1])
def build(source, out, compiled):
    (out / "half.whl").write_bytes(b"PK")
    Path(sys.argv[4]).touch()
    time.sleep(600)
install["Installation"](Path(sys.argv[2]), Path(sys.argv[3])).compile(build, wait=True)
"""


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "deploy" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small one, with each kind of file that a build reads."""
    place = tmp_path / "checkout"
    sources = ("adapters/codec/wire.py", "collector/__init__.py", "collector/schema.sql", "proto/infrasage/v1.proto")
    for name in (*sources, "deploy/package/infrasage_collector/__init__.py"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"# {name}\n")
    for name in ("LICENSE", "README.md", "pyproject.toml", "requirements.lock", "setup.py"):
        (place / name).write_text(f"# {name}\n")
    return place


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    (tmp_path / "venv").mkdir()
    return tmp_path / "venv"


def write_wheel(source: Path, out: Path, compiled: bool) -> None:
    """In pip's place: a wheel that says which sources it is of."""
    with zipfile.ZipFile(out / "infrasage_collector-1.whl", "w") as wheel:
        wheel.writestr("adapters/codec/wire.py", (source / "adapters/codec/wire.py").read_text())
        if compiled:
            wheel.writestr("infrasage__mypyc.so", "")


@pytest.fixture
def installed(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """In pip's place: for each wheel that was installed, whether it is compiled."""
    wheels: list[bool] = []
    monkeypatch.setattr(install, "pip_install", lambda wheel: wheels.append(install.is_compiled(wheel)))
    monkeypatch.setattr(install, "pip_wheel", write_wheel)
    return wheels


def test_a_compile_installs_nothing(install: ModuleType, checkout: Path, prefix: Path) -> None:
    """It leaves a wheel for the next command; the sources are left as they were, without a folder of the build."""
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    installation = install.Installation(checkout, prefix)
    assert installation.compiled_wheel() is None
    installation.compile(write_wheel, wait=True)
    wheel = installation.compiled_wheel()
    assert wheel is not None
    assert install.is_compiled(wheel)
    assert not installation.is_installed(compiled=False)
    assert before == {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}


def test_a_changed_source_needs_another_wheel(install: ModuleType, checkout: Path, prefix: Path) -> None:
    """Every kind of file counts; a file that no build reads does not."""
    found = {install.fingerprint(checkout)}
    for changed in (
        "adapters/codec/wire.py",
        "collector/schema.sql",
        "proto/infrasage/v1.proto",
        "setup.py",
        "requirements.lock",
    ):
        install.Installation(checkout, prefix).compile(write_wheel, wait=True)
        (checkout / changed).write_text("# changed\n")
        assert install.Installation(checkout, prefix).compiled_wheel() is None, changed
        found.add(install.fingerprint(checkout))
    assert len(found) == 6
    (checkout / "collector" / "notes.md").write_text("not a source")
    assert install.fingerprint(checkout) in found
    assert len(list(prefix.glob("collector-builds/*/wheel"))) <= install.WHEELS_MAX


def test_every_file_of_a_wheel_counts(install: ModuleType) -> None:
    """A page's template that changed must be installed by the next `make serve`, as a module is."""
    setup = runpy.run_path(str(ROOT / "setup.py"))
    data = [
        file
        for package, patterns in setup["PACKAGE_DATA"].items()
        for pattern in patterns
        for file in (ROOT / setup["PACKAGES"][package]).glob(pattern)
    ]
    assert len(data) > 30
    assert [] == [file for file in data if file.suffix not in install.HASHED_ENDINGS and file.name != "py.typed"]


def test_the_image_is_built_of_every_file_that_a_build_reads(install: ModuleType) -> None:
    """The licence was left out, which setuptools takes without a word. What .dockerignore keeps out cannot be copied."""
    copies = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    copied = {Path(name) for names in copies for name in names if not name.startswith(("--", "/"))}
    let_in = {Path(line[1:]) for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name in (*install.BUILD_FILES, "requirements.lock"):
        for found in (copied, let_in):
            assert found & {Path(name), *Path(name).parents}, name


def test_a_source_that_changes_while_it_is_copied_is_not_built(install: ModuleType, checkout: Path, prefix: Path) -> None:
    """A wheel of two versions would be kept under the name of one."""
    installation = install.Installation(checkout, prefix)
    (checkout / "adapters" / "wire.py").write_text("# newer\n")
    with pytest.raises(install.ChangedMeanwhile):
        installation.compile(write_wheel, wait=True)
    assert installation.compiled_wheel() is None


def test_a_failed_compile_leaves_no_wheel(install: ModuleType, checkout: Path, prefix: Path) -> None:
    """It leaves no folder, either, and the next compile succeeds."""

    def fail(source: Path, out: Path, compiled: bool) -> None:
        (out / "half.whl").write_bytes(b"PK")
        raise subprocess.CalledProcessError(1, ["pip"])

    installation = install.Installation(checkout, prefix)
    with pytest.raises(subprocess.CalledProcessError):
        installation.compile(fail, wait=True)
    assert ["lock"] == [path.name for path in (prefix / "collector-builds").iterdir()]
    installation.compile(write_wheel, wait=True)
    assert installation.compiled_wheel() is not None


@pytest.fixture
def endless(checkout: Path, prefix: Path, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A compile in another process that has begun and does not end."""
    begun = tmp_path / "begun"
    arguments = [str(path) for path in (ROOT / "deploy" / "install.py", checkout, prefix, begun)]
    with subprocess.Popen([sys.executable, "-c", ENDLESS_COMPILE, *arguments]) as process:
        until(begun.exists)
        yield process
        process.kill()


def test_a_killed_compile_changes_nothing(
    install: ModuleType, checkout: Path, prefix: Path, endless: "subprocess.Popen[bytes]"
) -> None:
    """What it wrote is no wheel, and is removed by the next compile, which does not wait for it."""
    endless.send_signal(signal.SIGKILL)
    endless.wait()
    (left,) = (prefix / "collector-builds").glob("compile-*")
    installation = install.Installation(checkout, prefix)
    assert installation.compiled_wheel() is None
    assert not installation.is_installed(compiled=False)
    installation.compile(write_wheel, wait=False)
    assert installation.compiled_wheel() is not None
    assert not left.exists()


def test_the_second_compile_uses_the_wheel_of_the_first(
    install: ModuleType, checkout: Path, prefix: Path, endless: "subprocess.Popen[bytes]"
) -> None:
    """In the background it leaves the work to the first; in the foreground it waits, and then does what is left."""
    installation = install.Installation(checkout, prefix)
    installation.compile(write_wheel, wait=False)
    assert installation.compiled_wheel() is None
    waiting = threading.Thread(target=installation.compile, args=(write_wheel,), kwargs={"wait": True})
    waiting.start()
    assert waiting.is_alive()
    endless.kill()
    waiting.join()
    wheel = installation.compiled_wheel()
    assert wheel is not None

    def again(source: Path, out: Path, compiled: bool) -> None:
        raise AssertionError("it was compiled a second time")

    installation.compile(again, wait=True)


def test_a_failed_compiler_is_reported(
    install: ModuleType, checkout: Path, prefix: Path, installed: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each start and `make install` report it. The uncompiled wheel is installed once, and not called compiled."""
    installation = install.Installation(checkout, prefix)
    installation.compile(lambda source, out, _: write_wheel(source, out, False), wait=True)
    for command in (install.install_now, install.install_now, install.install_compiled):
        command(installation)
        said = capsys.readouterr().out
        assert "warning: the C compiler failed" in said
        assert str(installation.wheel.parent) in said
        assert "installing the compiled collector" not in said
    assert [False] == installed
    shutil.rmtree(installation.wheel.parent)
    install.install_compiled(installation)
    assert [False, True] == installed
    assert "warning" not in capsys.readouterr().out


def test_what_runs_is_not_replaced(
    install: ModuleType, checkout: Path, prefix: Path, installed: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    """A second `make serve` while the first one's collector runs uncompiled; after its end, the compiled wheel is installed."""
    installation = install.Installation(checkout, prefix)
    installation.install_uncompiled(write_wheel)
    installation.compile(write_wheel, wait=True)
    (prefix / "library.so").write_bytes(b"x" * 4096)
    program = "import mmap, sys; f = open(sys.argv[1]); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print(); input()"
    command = [sys.executable, "-c", program, str(prefix / "library.so"), "infrasage-collector"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as collector:
        assert collector.stdout is not None
        assert collector.stdout.readline()
        install.install_now(installation)
        assert [False] == installed
        assert f"process {collector.pid} runs the uncompiled collector" in capsys.readouterr().out
        collector.communicate(b"\n")
    install.install_now(installation)
    assert [False, True] == installed


@pytest.mark.usefixtures("installed")
def test_a_moved_environment_is_installed_anew(install: ModuleType, checkout: Path, prefix: Path) -> None:
    """Its scripts name the place where it was: another checkout's collector would run, or none."""
    installation = install.Installation(checkout, prefix)
    installation.install_uncompiled(write_wheel)
    assert installation.is_installed(compiled=False)
    moved = prefix.rename(prefix.with_name("moved"))
    assert not install.Installation(checkout, moved).is_installed(compiled=False)


def test_the_second_command_installs_nothing(
    install: ModuleType,
    checkout: Path,
    prefix: Path,
    installed: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Two `make serve` at once: the second waits until the first has installed, and finds it done."""
    first, second = (install.Installation(checkout, prefix) for _ in range(2))
    monkeypatch.setattr(install, "_may_compile", lambda: False)

    def run_second() -> None:
        with second.installing():
            install.install_now(second)

    waiting = threading.Thread(target=run_second)
    said = ""
    with first.installing():
        waiting.start()

        def is_waiting() -> bool:
            nonlocal said
            said += capfd.readouterr().out
            return "waiting for another `make`" in said

        until(is_waiting)
        install.install_now(first)
    waiting.join()
    assert [False] == installed


def test_half_an_environment_is_removed(tmp_path: Path) -> None:
    """Debian's Python makes the environment, and then fails where python3-venv is missing. The next `make` begins anew."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\n[ "$2" = venv ] || exit 0\nmkdir -p "$3/bin" && touch "$3/bin/python"\necho "no ensurepip" >&2\nexit 1\n'
    )
    python.chmod(0o755)
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    (tmp_path / "requirements.lock").touch()
    for _ in range(2):
        made = subprocess.run(["make", "serve", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert made.returncode != 0
        assert "no ensurepip" in made.stderr
        assert not (tmp_path / ".venv").exists()


def test_first_imports_write_bytecode(tmp_path: Path) -> None:
    """They write it even if the shell forbids it. Packages are installed without it, and each start would compile them."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "bytecode: ${PYTHONDONTWRITEBYTECODE-written}" >&2\nexit 1\n')
    python.chmod(0o755)
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    (tmp_path / "requirements.lock").touch()
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = ["make", "serve", f"PYTHON={python}"]
    made = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "bytecode: written\n" in made.stderr


def test_serve_starts_from_nothing(tmp_path: Path) -> None:
    """Without a compiler the package is installed uncompiled, and that is said; the second time there is nothing to do."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/*/site-packages")
    # What is installed here serves as the dependencies.
    (site / "here.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    command = [str(venv / "bin" / "python"), str(ROOT / "deploy" / "install.py"), "now"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"CC": "no-such-compiler"}
    said = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    no_compiler = (
        "there is no C compiler (no-such-compiler), so the hot path is not compiled: the same answers, several times slower\n"
    )
    assert [f"installing the collector, uncompiled: some seconds\n{no_compiler}", no_compiler] == said
    version = [str(venv / "bin" / "infrasage-collector"), "--version"]
    shown = subprocess.run(version, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert shown.endswith(" (not compiled)\n")


def test_an_environment_that_does_not_run_is_named(tmp_path: Path) -> None:
    """Its Python is gone, is too old, or has no pip, as after an upgrade of the system or a broken-off start."""
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    (tmp_path / "requirements.lock").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    for target in ("/nonexistent/python", "/bin/false"):
        python.symlink_to(target)
        made = subprocess.run(
            ["make", "serve", f"PYTHON={sys.executable}"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert made.returncode != 0
        assert "error: .venv has no Python 3.11 or newer with pip that runs" in made.stderr
        assert "rm -rf .venv" in made.stderr
        assert "Traceback" not in made.stderr
        python.unlink()


def test_two_commands_at_once_make_one_environment(tmp_path: Path) -> None:
    """The second waits until the first has made it, and goes on with it."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\n[ "$2" = venv ] || exit 0\necho made >> made\nmkdir -p "$3/bin"\n'
        'while [ ! -e go ]; do sleep 0.05; done\nln -s /bin/true "$3/bin/python"\n'
    )
    python.chmod(0o755)
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    (tmp_path / "requirements.lock").touch()
    command = ["make", ".venv/requirements.installed", f"PYTHON={python}"]
    with subprocess.Popen(command, cwd=tmp_path) as first:
        try:
            until((tmp_path / "made").exists)
            with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as second:
                assert second.stdout is not None
                line = second.stdout.readline()
                (tmp_path / "go").touch()
                assert (first.wait(), second.wait()) == (0, 0)
        finally:
            (tmp_path / "go").touch()
    assert "making .venv" in line
    assert (tmp_path / "made").read_text() == "made\n"
