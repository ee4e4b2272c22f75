"""One example of each message of the wire, byte by byte, for those who write a client or a worker.

They stand in docs/wire-golden.json. Where one does not fit any more, messages of older releases are
not read any more either. `python tests/proto/test_golden.py` writes the file anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from splitpoint.codec import TensorSpec, codec_named
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import (
    build_frame,
    build_reply,
    encode_tensors,
    parse_client,
    parse_server,
)

PATH = Path(__file__).parents[2] / "docs" / "wire-golden.json"
DIGEST, SHA256 = "00112233445566778899aabbccddeeff" * 2, "0123456789abcdef" * 4
LOAD = pb.Load(queued=2, queue_ms=12.5, utilisation=0.75, slowdown=1.5, wait_ms=[12.5, 6.25, 0.0])
SEGMENT_MS = [4.0, 2.5, 0.5]
FEATURES = np.arange(6, dtype=np.float32).reshape(1, 2, 3) / 4
SCORES = np.array([[0.25, 0.75]], np.float32)


def tensors(name: str, values: np.ndarray, codec: str) -> list[pb.Tensor]:
    spec = TensorSpec(name=name, dtype=str(values.dtype), shape=values.shape, batch_dim=0)
    return encode_tensors({name: values}, [spec], codec_named(codec))


def examples() -> dict[str, tuple[str, Message]]:
    """What each shows, and the message, by name."""
    frame = build_frame(
        id=7,
        boundary=1,
        codec="raw",
        tensors=tensors("features", FEATURES, "raw"),
        budget_ms=250,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    half = tensors("features", FEATURES, "fp16")
    answer = pb.Reply(
        id=7,
        message_index=2,
        status=pb.OK,
        outputs=tensors("scores", SCORES, "raw"),
        times=pb.Times(queue_us=1500, decode_us=200, compute_us=7000, total_us=9100, batch=4),
        load=LOAD,
    )
    unreadable = pb.Reply(
        id=0, message_index=3, status=pb.MALFORMED, reason="the message cannot be parsed"
    )
    model = pb.ModelInfo(
        name="resnet50",
        digest=DIGEST,
        manifest_bytes=20480,
        segment_ms=SEGMENT_MS,
        device="cuda (NVIDIA L4)",
        segment_p95_ms=[5.0, 3.0, 1.0],
        decode=[pb.DecodeTime(boundary=1, codec="fp16", ms=0.25)],
        load=LOAD,
    )
    welcome = pb.Welcome(
        protocol=1,
        credits=4,
        max_batch=16,
        max_frame_bytes=9637888,
        segment_ms=SEGMENT_MS,
        load=LOAD,
    )
    hello = pb.Hello(protocol=1, model="resnet50", digest=DIGEST, client="camera-3/4242")
    client, server = pb.ClientMessage, pb.ServerMessage
    return {
        "describe": ("asks what is served", pb.DescribeRequest(protocol=1)),
        "described": (
            "one model",
            pb.DescribeReply(protocol=1, server="splitpoint 0.1.0", models=[model], load=LOAD),
        ),
        "fetch": (
            "asks for the rest of a file",
            pb.FetchRequest(digest=DIGEST, sha256=SHA256, offset=524288),
        ),
        "chunk": (
            "its last bytes",
            pb.Chunk(offset=524288, total=524292, data=b"\x00\x01\xfe\xff"),
        ),
        "hello": ("message 1 of the stream", client(hello=hello)),
        "welcome": ("the answer to it", server(welcome=welcome)),
        "frame": ("message 2: one float32 tensor [1, 2, 3], raw", client.FromString(frame)),
        "frame-fp16": (
            "the same values as fp16, without a limit of time",
            client.FromString(
                build_frame(id=8, boundary=1, codec="fp16", tensors=half, budget_ms=0)
            ),
        ),
        "reply": ("the answer to message 2", server.FromString(build_reply(answer))),
        "reply-unreadable": (
            "the answer to a message that could not be read: only its index says which",
            server.FromString(build_reply(unreadable)),
        ),
        "cancel": ("nobody waits for frame 8 any more", client(cancel=pb.Cancel(id=8))),
        "probe": ("some bytes to time", client(probe=pb.Probe(id=9, padding=bytes(4)))),
        "echo": ("the answer to it", server(probe=pb.ProbeReply(id=9, load=LOAD))),
        "draining": ("the worker stops", server(draining=pb.Draining(grace_ms=10000))),
        "draining-reopen": (
            "only this stream ends",
            server(draining=pb.Draining(grace_ms=5000, reopen=True)),
        ),
    }


def described() -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "shows": shows,
            "message": message.DESCRIPTOR.name,
            "json": MessageToDict(message, preserving_proto_field_name=True),
            "hex": message.SerializeToString(deterministic=True).hex(),
        }
        for name, (shows, message) in examples().items()
    ]


GOLDEN = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else []


def test_messages_are_built_as_they_always_were() -> None:
    assert described() == GOLDEN


@pytest.mark.parametrize("example", GOLDEN, ids=lambda example: example["name"])
def test_bytes_say_what_stands_beside_them(example: dict) -> None:
    """Neither depends on the other: a client may be checked against either."""
    kind, data = getattr(pb, example["message"]), bytes.fromhex(example["hex"])
    message = kind.FromString(data)
    assert message == ParseDict(example["json"], kind())
    if kind is pb.ClientMessage:
        assert parse_client(data) == message
    elif kind is pb.ServerMessage:
        assert parse_server(data) == message


def test_every_message_has_an_example() -> None:
    kinds = {example["message"] for example in GOLDEN}
    shown = {kind for example in GOLDEN for kind in example["json"]}
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            assert {method.input_type.name, method.output_type.name} <= kinds
    for stream in (pb.ClientMessage, pb.ServerMessage):
        assert {field.name for field in stream.DESCRIPTOR.fields} <= shown


if __name__ == "__main__":
    PATH.write_text(json.dumps(described(), indent=1) + "\n", encoding="utf-8")
