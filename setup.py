"""Compiles the hot path with mypyc. Where there is no C compiler it installs the same modules uncompiled, and says so."""

import os
from pathlib import Path

from setuptools import Extension, setup

# All of the adapters but decompress.py, which only hands bytes to C libraries; and what else each request passes.
COMPILED = [
    *sorted(str(path) for path in Path("adapters").rglob("*.py") if path.name not in ("__init__.py", "decompress.py")),
    "collector/broker/kafka/protocol/fetch.py",
    "collector/broker/kafka/transport.py",
    "collector/broker/kafka/producer.py",
    "collector/broker/kafka/protocol/produce.py",
    "collector/telemetry/counters.py",
    "collector/telemetry/metrics.py",
    "collector/ingest/pipeline.py",
    "collector/ingest/produce.py",
    "collector/ingest/receipts.py",
    "collector/receivers/http/telemetry_request.py",
    "collector/receivers/grpc/unary_call.py",
    "collector/receivers/grpc/connection.py",
    "collector/receivers/grpc/services.py",
    "collector/receivers/grpc/status.py",
    "collector/receivers/grpc/stream_call.py",
    "collector/receivers/responses.py",
    "collector/receivers/transport/connections.py",
    "collector/receivers/http/http1.py",
    "collector/receivers/http/http2.py",
    "collector/receivers/transport/http2_connection.py",
    "collector/http2/engine.py",
    "collector/http2/headers.py",
    "collector/tenancy/access.py",
    "collector/ingest/validate.py",
]

# An isolated build has the compiler, but not the libraries that the program runs with. What comes from them is then untyped:
# the compiled code treats it as any object. `make check` does the strict check, with all libraries installed.
BUILD_OPTIONS = [
    "--ignore-missing-imports",
    "--allow-subclassing-any",
    "--no-warn-return-any",
    "--no-warn-unused-ignores",
    "--allow-untyped-decorators",
]


def _extensions() -> list[Extension]:
    if os.environ.get("INFRASAGE_UNCOMPILED"):
        return []
    from mypyc.build import mypycify

    extensions: list[Extension] = mypycify([*BUILD_OPTIONS, *COMPILED], opt_level="3", debug_level="0", group_name="infrasage")
    for extension in extensions:
        extension.optional = True  # no compiler: a warning now and at start, not a failed installation
        # Nobody replaces a function of ours by another of its name: so the compiler may inline them, for a fifth of the time.
        extension.extra_compile_args = [*extension.extra_compile_args, "-fno-semantic-interposition"]
    return extensions


if __name__ == "__main__":  # checks/compiled_handlers.py only reads COMPILED
    setup(ext_modules=_extensions())
