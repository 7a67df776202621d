"""The package builds where only the build's own requirements are installed, and no source is left out."""

import fnmatch
import os
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = "infrasage_collector"
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
    assert "adapters/codec/wire.py" in options_and_files
    command = [sys.executable, "-m", "mypy", "--no-site-packages", "--cache-dir", str(tmp_path), *options_and_files]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_every_module_of_a_hot_package_is_compiled_unless_it_is_named() -> None:
    """The names of setup.py are those of files: one that was moved would else be compiled, or left out, unnoticed."""
    setup = runpy.run_path(str(ROOT / "setup.py"))
    packages = tuple(f"{name}/" for name in setup["HOT_PACKAGES"])
    named = [*setup["HOT_PACKAGES"], *setup["HOT_MODULES"], *setup["INTERPRETED"]]
    assert [] == [name for name in named if not (ROOT / name).exists()]
    assert [] == [name for name in setup["INTERPRETED"] if not name.startswith(packages)]
    assert [] == [name for name in setup["HOT_MODULES"] if name.startswith(packages)]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and with the wheel that is built from it, uncompiled."""
    place = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place), str(_copied(place / "source"))]
    built = subprocess.run(command, env=os.environ | {"INFRASAGE_UNCOMPILED": "1"}, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return place


def _copied(place: Path) -> Path:
    """The tracked files: a build writes beside its source."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.rstrip("\0").split("\0"):
        if not name.startswith(("tests/", "docs/", "bench/")) and (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / name)
    return place


def test_a_wheel_built_from_the_source_distribution_is_whole(distributions: Path) -> None:
    """It has every module and every data file of the checkout, the licence and the command; found by rule, without a list."""
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (commands,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        assert "infrasage-collector = " in archive.read(commands).decode()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    kinds = ("*.py", "*.pyi", "*.sql", "*.proto", "py.typed", "static/*", "templates/*")
    folders = {
        "adapters": f"{HOME}/adapters",
        "collector": f"{HOME}/collector",
        f"deploy/package/{HOME}": HOME,
        "proto/infrasage": "infrasage",
    }
    expected = {
        f"{place}/{source.relative_to(ROOT / folder).as_posix()}"
        for folder, place in folders.items()
        for kind in kinds
        for source in (ROOT / folder).rglob(kind)
    }
    assert expected == {name for name in names if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def site(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed, where another distribution has modules of the collector's own names."""
    place = tmp_path_factory.mktemp("site")
    for name in ("adapters", "collector"):
        (place / name).mkdir()
        (place / name / "__init__.py").write_text("raise ImportError('this is another distribution')\n")
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


@pytest.mark.parametrize(
    "command",
    [
        ["-m", HOME, "--version"],
        ["-m", HOME, "schema", "show"],  # reads data files
        ["-c", f"import sys; sys.argv[1:] = ['--version']; from {HOME} import main; main()"],  # the command's script
        ["-c", f"import {HOME}, collector, adapters; from infrasage.v1 import telemetry_pb2; print(collector.__file__)"],
    ],
    ids=["module", "data", "script", "import"],
)
def test_no_other_distribution_collides_with_it(site: Path, tmp_path: Path, command: list[str]) -> None:
    """If another one has `adapters` and `collector`, the collector runs on its own, and the other's files are unchanged."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {"adapters", "collector", HOME, "infrasage"} == {path.name for path in site.iterdir() if path.suffix != ".dist-info"}
    assert "another distribution" in (site / "collector" / "__init__.py").read_text()


def test_other_programs_do_not_see_its_modules(site: Path, tmp_path: Path) -> None:
    """`import collector` finds the other distribution's in a process that does not import ours."""
    done = subprocess.run(
        [sys.executable, "-c", "import collector"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "this is another distribution" in done.stderr


def test_wheels_are_configured_for_every_python_and_processor() -> None:
    """`[tool.cibuildwheel]` has CPython 3.11 to 3.14 on x86-64 and aarch64, and refuses an uncompiled wheel."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    assert [f"cp3{minor}-manylinux_*" for minor in (11, 12, 13, 14)] == configuration["build"]
    assert ["x86_64", "aarch64"] == configuration["linux"]["archs"]
    assert "(compiled)" in configuration["test-command"]


@pytest.mark.parametrize(
    ("compiler", "headers", "said"),
    [
        ("no-such-compiler", "include", "there is no C compiler (no-such-compiler)"),
        (sys.executable, "nowhere", "there is no nowhere/Python.h (Debian's package python3-dev)"),
        (sys.executable, "include", None),
    ],
)
def test_what_a_compile_lacks_is_named_before_it_begins(
    compiler: str, headers: str, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without a compiler, or without Python's headers, installs uncompiled, at once."""
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "Python.h").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CC", f"{compiler} -pthread")
    monkeypatch.delenv("INFRASAGE_UNCOMPILED", raising=False)
    setup = runpy.run_path(str(ROOT / "setup.py"))
    monkeypatch.setattr("sysconfig.get_path", lambda name: headers)
    assert said == setup["missing_to_compile"]()
    if said is not None:
        assert [] == setup["_extensions"]()


def test_uv_builds_anew_where_a_source_has_changed() -> None:
    """uv keeps what it built of a folder, and looks only at the files that `cache-keys` names."""
    keys = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["cache-keys"]
    patterns = [key["file"] for key in keys if "file" in key]
    for source in ("pyproject.toml", "setup.py", "adapters", "collector", f"deploy/package/{HOME}", "proto/infrasage"):
        file = next((ROOT / source).rglob("*.py"), ROOT / source).relative_to(ROOT)
        assert any(fnmatch.fnmatch(file.as_posix(), pattern.replace("**/*", "*")) for pattern in patterns), source
    assert {"CC", "INFRASAGE_UNCOMPILED"} == {key["env"] for key in keys if "env" in key}


# In mypyc's place, in a build's environment: compiles the modules of MODULES from the C source BODY.
COMPILER = """
import os
from setuptools import Extension

def mypycify(paths, **options):
    modules = os.environ["MODULES"].split()
    for name in modules:
        with open(f"{name}.c", "w") as source:
            source.write(os.environ["BODY"] % name.rpartition(".")[2])
    return [Extension(name, [f"{name}.c"]) for name in modules]
"""
EMPTY_MODULE = "void *PyInit_%s(void) { return 0; }"


def test_a_build_has_nothing_of_the_build_before_it(tmp_path: Path) -> None:
    """`pip install PATH` builds in PATH: a module that is gone, no longer compiled or not compilable is not in the wheel."""
    (tmp_path / "mypyc").mkdir()
    (tmp_path / "mypyc" / "__init__.py").touch()
    (tmp_path / "mypyc" / "build.py").write_text(COMPILER)
    source = _copied(tmp_path / "source")

    def compiled_and_modules(modules: str, body: str) -> tuple[set[str], set[str]]:
        environment = {name: value for name, value in os.environ.items() if name != "INFRASAGE_UNCOMPILED"}
        environment |= {"PYTHONPATH": str(tmp_path), "MODULES": modules, "BODY": body}
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(source),
        ]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        (wheel,) = tmp_path.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        wheel.unlink()
        return {name.partition(".")[0] for name in names if name.endswith(".so")}, names

    hot = {f"{HOME}/adapters/codec/wire", f"{HOME}/adapters/rules", f"{HOME}/infrasage__mypyc"}
    compiled, _ = compiled_and_modules("adapters.codec.wire adapters.rules infrasage__mypyc", EMPTY_MODULE)
    assert hot == compiled
    (source / "adapters" / "rows.py").unlink()
    compiled, names = compiled_and_modules("adapters.codec.wire infrasage__mypyc", EMPTY_MODULE)
    assert hot - {f"{HOME}/adapters/rules"} == compiled
    assert f"{HOME}/adapters/rules.py" in names
    assert f"{HOME}/adapters/rows.py" not in names
    compiled, _ = compiled_and_modules("adapters.codec.wire infrasage__mypyc", "not %s, but an error of C")
    assert compiled == set()
