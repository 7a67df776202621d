"""Makes the _pb2.py and .pyi of our .proto files. --check: fails where what is committed is not what would be made.

opentelemetry-proto ships no .proto files, so protoc is given the descriptors of its Python modules instead.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

HERE = Path(__file__).resolve().parent
SOURCES = [
    "infrasage/v1/telemetry.proto",
    "infrasage/v1/telemetry_v1.proto",
    "infrasage/v1/dead_letter.proto",
    "infrasage/prometheus/v1/write.proto",
    "infrasage/prometheus/v2/write.proto",
]


def generate(out: Path) -> None:
    descriptors = FileDescriptorSet()
    for module in (common_pb2, resource_pb2, logs_pb2, metrics_pb2, trace_pb2):
        module.DESCRIPTOR.CopyToProto(descriptors.file.add())
    imported = out / "opentelemetry.descriptors"
    imported.write_bytes(descriptors.SerializeToString())
    # Sources win over descriptors, so that ours are read as text, comments and all.
    command = ["protoc", f"--proto_path={HERE}", f"--descriptor_set_in={imported}", f"--python_out={out}", f"--pyi_out={out}"]
    if protoc.main([*command, *SOURCES]):
        sys.exit("protoc failed")
    imported.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as directory:
        generate(Path(directory))
        for made in sorted(Path(directory).rglob("*_pb2.py*")):
            committed = HERE / made.relative_to(directory)
            if not check:
                committed.write_bytes(made.read_bytes())
            elif not committed.exists() or committed.read_bytes() != made.read_bytes():
                sys.exit(f"{committed.relative_to(HERE.parent)} is not what its .proto file gives: run make proto")


if __name__ == "__main__":
    main()
