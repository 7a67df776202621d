"""Builds the package of the collector under one name, and compiles the hot path with mypyc.

Without a C compiler it installs the same modules uncompiled, and prints a warning. The packages of the checkout are put into
the package `infrasage_collector`, since `adapters` and `collector` are too common as names of top-level packages:
docs/adr/0036.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

HOME = "infrasage_collector"
INSIDE = find_packages(include=["adapters", "adapters.*", "collector", "collector.*"])
PACKAGES = {
    HOME: f"deploy/package/{HOME}",
    **{f"{HOME}.{name}": name.replace(".", "/") for name in INSIDE},
    **{name: f"proto/{name.replace('.', '/')}" for name in find_packages("proto")},
}
PACKAGE_DATA = {
    f"{HOME}.adapters": ["py.typed"],
    f"{HOME}.collector": ["py.typed"],
    f"{HOME}.collector.api.web": ["static/*", "templates/*.html"],
    f"{HOME}.collector.store": ["schema/*.sql", "schema/*.proto"],
    "infrasage": ["py.typed", "v1/*.proto", "v1/*.pyi", "prometheus/*/*.proto", "prometheus/*/*.pyi"],
}

# The hot path: every module of these packages is compiled, except those in INTERPRETED.
HOT_PACKAGES = [
    "adapters",
    "collector/broker/kafka/protocol",
    "collector/http2",
    "collector/ingest",
    "collector/receivers/grpc",
    "collector/receivers/http",
    "collector/receivers/transport",
]
# Modules of the hot path in other packages.
HOT_MODULES = [
    "collector/broker/kafka/producer.py",
    "collector/broker/kafka/producer_batches.py",
    "collector/broker/kafka/producer_queue.py",
    "collector/broker/kafka/producer_session.py",
    "collector/broker/kafka/transport.py",
    "collector/broker/message.py",
    "collector/query/recent_batches.py",
    "collector/receivers/encodings.py",
    "collector/receivers/http2_bodies.py",
    "collector/receivers/refusals.py",
    "collector/receivers/request.py",
    "collector/receivers/responses.py",
    "collector/receivers/rpc_codes.py",
    "collector/receivers/unfinished_bodies.py",
    "collector/records/dead_letter.py",
    "collector/runtime/latest_entries.py",
    "collector/telemetry/counters.py",
    "collector/telemetry/instruments.py",
    "collector/telemetry/metrics.py",
    "collector/tenancy/access.py",
    "collector/writer/fingerprint_memory.py",
]
# Modules that run once for each connection, page or start, or that only pass bytes to C libraries.
INTERPRETED = {
    "adapters/codec/decompress.py",
    "adapters/codec/growing_bytes.py",
    # It runs in a thread, and a compiled loop would not release the interpreter's lock.
    "collector/broker/kafka/protocol/compression.py",
    "collector/broker/kafka/protocol/foreign_records.py",
    "collector/broker/kafka/protocol/offsets.py",
    "collector/ingest/large_bodies.py",
    "collector/receivers/grpc/health.py",
    "collector/receivers/grpc/reflection.py",
    "collector/receivers/grpc/server.py",
    "collector/receivers/http/asgi.py",
    "collector/receivers/http/asgi_page.py",
    "collector/receivers/http/cors.py",
    "collector/receivers/http/http1_asgi.py",
    "collector/receivers/http/http1_hypercorn.py",
    "collector/receivers/http/http2_asgi.py",
    "collector/receivers/http/page_gate.py",
    "collector/receivers/http/protocol_detection.py",
    "collector/receivers/http/server.py",
    "collector/receivers/http/targets.py",
    "collector/receivers/transport/certificates.py",
    "collector/receivers/transport/eviction.py",
    "collector/receivers/transport/listeners.py",
    "collector/receivers/transport/pending.py",
    "collector/receivers/transport/server.py",
    "collector/receivers/transport/tls_context.py",
    "collector/receivers/transport/tls_listener.py",
}
COMPILED = sorted(
    {*HOT_MODULES}
    | {
        path.as_posix()
        for package in HOT_PACKAGES
        for path in Path(package).rglob("*.py")
        if path.name != "__init__.py" and path.as_posix() not in INTERPRETED
    }
)

# An isolated build has the compiler, but not the libraries with which the program runs. Names from these libraries are then
# untyped: compiled code treats their values as any object. `make check` does the strict check, with all libraries installed.
BUILD_OPTIONS = [
    "--ignore-missing-imports",
    "--allow-subclassing-any",
    "--no-warn-return-any",
    "--no-warn-unused-ignores",
    "--allow-untyped-decorators",
]


# Commands of a build that compile nothing. Without this list each would type-check and translate the hot path, as the build
# does.
METADATA_COMMANDS = {"egg_info", "dist_info", "sdist"}


def missing_to_compile() -> str | None:
    """Return what a compilation needs and the machine lacks; None if nothing is missing. Otherwise mypyc would work for a
    minute before it fails."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        return f"there is no {header} (Debian's package python3-dev)"
    return None


def _extensions() -> list[Extension]:
    if os.environ.get("INFRASAGE_UNCOMPILED") or METADATA_COMMANDS.intersection(sys.argv):
        return []
    if (missing := missing_to_compile()) is not None:
        print(f"warning: {missing}, so the hot path is not compiled", file=sys.stderr)
        return []
    from mypyc.build import mypycify

    extensions: list[Extension] = mypycify([*BUILD_OPTIONS, *COMPILED], opt_level="3", debug_level="0", group_name="infrasage")
    for extension in extensions:
        extension.optional = True  # a compiler error is a warning now and at the start, not a failed installation
        # No other library replaces our functions, so the compiler may inline them, which saves a fifth of the time.
        # In one file of 126 MB, gcc 12 takes 350 s of CPU to look for misleading indentation, and 150 s for everything else.
        extension.extra_compile_args = [
            *extension.extra_compile_args,
            "-fno-semantic-interposition",
            "-Wno-misleading-indentation",
        ]
    return extensions


class BuildExactly(build):
    """Removes files that an earlier build of the same folder has left. Otherwise pip would pack deleted modules, and the
    program would run them compiled."""

    def run(self) -> None:
        super().run()
        made = {
            Path(file).resolve() for name in self.get_sub_commands() for file in self.get_finalized_command(name).get_outputs()
        }
        for file in Path(self.build_lib).resolve().rglob("*"):
            if file.is_file() and file not in made:
                file.unlink()


class BuildInside(build_ext):
    """Puts compiled modules beside their sources, in HOME. Their names do not change, since compiled code contains its module's
    name."""

    def get_ext_fullpath(self, ext_name: str) -> str:
        path = super().get_ext_fullpath(ext_name)
        return path if self.inplace else str(Path(self.build_lib, HOME, Path(path).relative_to(self.build_lib)))

    def build_extension(self, ext: Extension) -> None:
        """Compile. If the compiler fails, remove the compiled module of an earlier build, so that it is not used beside its
        newer source."""
        try:
            super().build_extension(ext)
        except BaseException:
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
            raise


if __name__ == "__main__":  # deploy/install.py and .ci/checks/compiled_handlers.py only read names of this module
    setup(
        packages=list(PACKAGES),
        package_dir=PACKAGES,
        package_data=PACKAGE_DATA,
        include_package_data=False,  # PACKAGE_DATA has all files; without this, setuptools warns of each folder, in 40 lines
        ext_modules=_extensions(),
        cmdclass={"build": BuildExactly, "build_ext": BuildInside},
    )
