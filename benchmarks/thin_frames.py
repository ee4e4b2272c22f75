"""Frames of the thin model as each codec sends them, and a worker and an echo to send them to."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bare_echo import start_echo
from listening import start
from splitpoint.codec import Array
from splitpoint.partition.bundle.bundle import Bundle
from splitpoint.partition.run.codecs import codecs_of
from splitpoint.partition.run.onnx_chain import OnnxChain
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import encode_tensors, parse_server
from steady_load import Loaded, messages_of

SERVE = ["-c", "from splitpoint.cli.main import main; main()", "serve"]
BOUNDARY, BYTES = 1, 60_000
CUTS = ((BOUNDARY, "raw"), (BOUNDARY, "q8"), (BOUNDARY, "fkt@4"), (0, "jpeg"))


@dataclass(frozen=True)
class Sent:
    """A photo's frame at one boundary, and what the worker has to answer."""

    boundary: int
    codec: str
    messages: list[bytes]
    inputs: dict[str, Array]
    expected: Array

    @property
    def name(self) -> str:
        return f"{self.codec}, {len(self.messages[0]) / 1e3:.1f} kB"

    def check(self, output: Array) -> None:
        """Values, after the clock has stopped: as near as the codec is to the tensor."""
        error = np.abs(output - self.expected).max() / np.abs(self.expected).max()
        assert error < (1e-4 if self.codec == "raw" else 0.2), (self.codec, error)


def frames_of(bundle: Bundle, photo: Path) -> list[Sent]:
    """The photo as each of `CUTS` sends it."""
    manifest = bundle.manifest
    assert manifest.picture is not None
    assert manifest.boundaries[BOUNDARY].nbytes == BYTES
    codecs, chain = codecs_of(manifest, bundle.folder), OnnxChain(bundle)
    inputs = {manifest.boundaries[0].tensors[0].name: manifest.picture.read(photo)[np.newaxis]}
    states = [chain.place(inputs)]
    for segment in range(len(manifest.segments)):
        chain.load(segment)
        states.append(states[-1] | chain.step(segment, states[-1]))
    output = states[-1][manifest.boundaries[-1].tensors[0].name]
    found = []
    for boundary, name in CUTS:
        specs, codec = manifest.boundaries[boundary].tensors, codecs.named(name, boundary)
        tensors = encode_tensors(states[boundary], specs, codec)
        messages = messages_of(boundary, name, tensors)
        found.append(Sent(boundary, name, messages, inputs, output))
    return found


def check(sent: Sent, run: Loaded) -> None:
    """Every reply: one that was refused would have cost next to nothing."""
    replies = [parse_server(data).reply for data in run.replies]
    for reply in replies:
        assert reply.status == pb.OK, reply.reason
    for payload in {reply.outputs[0].payload for reply in replies}:
        sent.check(np.frombuffer(payload, np.float32))


@dataclass(frozen=True)
class Servers:
    """The worker and the echo, each a process of its own."""

    worker: subprocess.Popen[str]
    address: str
    echo: subprocess.Popen[str]
    echo_address: str

    @classmethod
    def start(cls, bundle: Bundle, ingest: int = 0, device: str = "cpu") -> Servers:
        where = ["--listen", "127.0.0.1:0", "--device", device, "--precision", "fp32",
                 "--ingest", str(ingest)]  # fmt: skip
        return cls(*start([*SERVE, str(bundle.folder), *where]), *start_echo())

    def stop(self) -> None:
        for process in (self.worker, self.echo):
            process.terminate()
            process.communicate(timeout=20)
