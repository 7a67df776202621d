"""deploy/systemd: the unit and the installer."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import typer

from collector.cli.main import app
from collector.config.reference import SETTINGS
from collector.config.sources import load

SYSTEMD = Path(__file__).parents[2] / "deploy" / "systemd"
# As small as a wheel can be: it has the command.
WHEEL_FILES = {
    "stand_in.py": "import sys\ndef main(): print('infrasage-collector', sys.prefix)\n",
    "infrasage_collector-VERSION.dist-info/METADATA": "Metadata-Version: 2.1\nName: infrasage-collector\nVersion: VERSION\n",
    "infrasage_collector-VERSION.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "infrasage_collector-VERSION.dist-info/entry_points.txt": "[console_scripts]\ninfrasage-collector = stand_in:main\n",
    "infrasage_collector-VERSION.dist-info/RECORD": "",
}


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SYSTEMD / "infrasage-collector@.service")
    return parser


def test_the_unit_runs_each_command_with_the_settings_of_its_file() -> None:
    """serve, gateway and writer all take --config; the file is usable as it is."""
    program, instance, flag, file = unit()["Service"]["ExecStart"].split()
    assert (program, instance, flag) == ("/opt/infrasage/bin/infrasage-collector", "%i", "--config")
    assert file == "/etc/infrasage/collector.toml"
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group has them
    for name in ("serve", "gateway", "writer"):
        assert "--config" in {option for parameter in commands[name].params for option in parameter.opts}
    settings = load(SYSTEMD / "collector.toml", environment={}).settings
    assert settings.data_dir == Path("/var/lib") / unit()["Service"]["StateDirectory"]


def test_what_is_commented_out_in_the_file_is_right(tmp_path: Path) -> None:
    """Each line in comments that is a setting has a name that exists and an allowed value."""
    lines = (SYSTEMD / "collector.toml").read_text().splitlines()
    settings = [line.removeprefix("# ") if "=" in line or line.startswith("# [") else line for line in lines]
    (tmp_path / "password").write_text("hunter2")
    text = "\n".join(settings).replace("/etc/infrasage/clickhouse-password", str(tmp_path / "password"))
    (tmp_path / "collector.toml").write_text(text)
    assert load(tmp_path / "collector.toml", environment={}).settings.kafka.bootstrap == "kafka-1:9092,kafka-2:9092"


def test_the_unit_gives_what_the_program_needs() -> None:
    """Time to stop, descriptors for all connections; it restarts, whatever ended it, and never stops trying."""
    service = unit()["Service"]
    default = {key: setting.field.default for key, setting in SETTINGS.items()}
    stop_s = float(default["shutdown.lame_duck_s"]) + float(default["shutdown.timeout_s"])
    assert float(service["TimeoutStopSec"]) > stop_s + 2
    needed = default["http.connections_max"] + default["grpc.connections_max"] + default["open_files_reserve"]
    assert int(service["LimitNOFILE"]) >= needed
    assert (service["Restart"], unit()["Unit"]["StartLimitIntervalSec"]) == ("always", "0")
    assert service["User"] != "root"
    assert service["CapabilityBoundingSet"] == ""


def _install(source: Path, root: Path, version: str, *, broken: bool = False) -> "subprocess.CompletedProcess[str]":

    wheels = source / "wheels"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(SYSTEMD, source)
    wheels.mkdir()
    with zipfile.ZipFile(wheels / f"infrasage_collector-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in WHEEL_FILES.items():
            if not (broken and name.endswith("METADATA")):
                wheel.writestr(name.replace("VERSION", version), text.replace("VERSION", version))
    return subprocess.run(
        ["sh", str(source / "install.sh"), "--files-only", "--root", str(root)],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_installer_installs_and_upgrades(tmp_path: Path) -> None:
    """The command runs from where it was installed; an upgrade that fails leaves it; a changed configuration is kept."""
    root = tmp_path / "a root"
    prefix = root / "opt" / "infrasage"
    command = [str(prefix / "bin" / "infrasage-collector")]
    first = _install(tmp_path / "one", root, "1.0")
    assert (first.returncode, first.stdout) == (0, f"infrasage-collector {prefix}\n"), first.stderr
    configuration = root / "etc" / "infrasage" / "collector.toml"
    configuration.write_text("# mine\n")
    broken = _install(tmp_path / "two", root, "2.0", broken=True)
    assert broken.returncode != 0
    assert "(infrasage_collector-2.0-py3-none-any.whl), and this is Python 3." in broken.stderr
    assert not prefix.with_name("infrasage.new").exists()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"infrasage-collector {prefix}\n"
    assert list(prefix.glob("lib/*/site-packages/infrasage_collector-1.0.dist-info"))
    second = _install(tmp_path / "two", root, "2.0")
    assert (second.returncode, second.stdout) == (0, f"infrasage-collector {prefix}\n"), second.stderr
    assert list(prefix.glob("lib/*/site-packages/infrasage_collector-2.0.dist-info"))
    assert configuration.read_text() == "# mine\n"
    assert (root / "etc/systemd/system/infrasage-collector@.service").is_file()


def test_what_root_installs_can_be_read_by_the_units_user(tmp_path: Path) -> None:
    """This holds also if root's umask keeps others out: the unit runs as another user."""
    before = os.umask(0o077)
    try:
        done = _install(tmp_path / "one", tmp_path / "root", "1.0")
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    installed = [tmp_path / "root" / "opt" / "infrasage", *(tmp_path / "root" / "opt" / "infrasage").rglob("*")]
    closed = [path for path in installed if not path.is_symlink() and path.stat().st_mode & 0o044 != 0o044]
    assert [] == closed
    assert (tmp_path / "root/etc/infrasage/collector.toml").stat().st_mode & 0o777 == 0o644
