"""The committed protobuf code is what the pinned generator makes of splitpoint.proto."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ["splitpoint_pb2.py", "splitpoint_pb2.pyi"]


def committed(name):
    return (ROOT / "proto" / name).read_text()


def floors(package):
    """The floors of every requirement of `package` in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text()
    return re.findall(rf'"{package}>=([\d.]+)"', text)


def test_no_other_generated_file():
    assert sorted(path.name for path in (ROOT / "proto").glob("*_pb2*")) == sorted(FILES)


@pytest.mark.skipif(
    importlib.util.find_spec("grpc_tools") is None, reason="grpcio-tools is not installed"
)
def test_generated_code_is_current(tmp_path):
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-Isplitpoint/proto={ROOT / 'proto'}"),
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"),
            "splitpoint/proto/splitpoint.proto",
        ],
        check=True,
    )
    made = tmp_path / "splitpoint" / "proto"
    assert sorted(path.name for path in made.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (made / name).read_bytes() == (ROOT / "proto" / name).read_bytes(), name


def test_floors_are_the_versions_of_the_generated_code():
    """Generated code refuses to run with anything older than its generator."""
    protobuf = re.search(r"^# Protobuf Python Version: (\S+)$", committed(FILES[0]), re.MULTILINE)
    assert protobuf is not None
    assert floors("protobuf") == [protobuf[1]]
    assert floors("grpcio") == floors("grpcio-health-checking") == floors("grpcio-reflection")


def test_generator_is_pinned_to_the_same_version():
    text = (ROOT / "pyproject.toml").read_text()
    assert re.findall(r'"grpcio-tools==([\d.]+)"', text) == floors("grpcio")
