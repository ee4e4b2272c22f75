"""Messages that would cost protobuf seconds are refused before it sees them; all others are not."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.proto import frames as frames_module
from splitpoint.proto import splitpoint_pb2 as pb
from splitpoint.proto.frames import FrameError, parse_client, parse_server
from splitpoint.proto.wire_scan import CLIENT_MESSAGE, MOST_FIELDS, OutlineError

N = 1_000_000


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def client_frame(content: bytes) -> bytes:
    return field(2, b"\x08\x07" + field(3, b"raw") + content)  # id 7, codec "raw"


BOMBS = {
    "a packed shape": client_frame(field(4, b"\x08\x03" + field(2, bytes(N)))),
    "a shape, number by number": client_frame(field(4, b"\x10\x01" * N)),
    "empty tensors": client_frame(b"\x22\x00" * N),
    "frames in one message": b"\x12\x00" * N,
    "fields that nobody knows": b"\x78\x01" * N,
    "a codec's name": client_frame(field(3, b"x" * N)),
    "a digest": field(1, field(3, b"0" * N)),
    "a client's name": field(1, field(4, b"\n" * N)),
    "a cancel that says its id again and again": field(3, b"\x08\x01" * N),
    "a probe of fields that nobody knows": field(4, b"\x78\x01" * N),
}


class NeverParsed:
    @staticmethod
    def FromString(data: bytes) -> None:
        raise AssertionError("protobuf has seen it")


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_unparsed(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module.pb, "ClientMessage", NeverParsed)
    with pytest.raises(FrameError) as caught:
        parse_client(bomb)
    assert caught.value.status == pb.MALFORMED
    assert len(str(caught.value)) < 100


def test_a_worker_may_send_no_bomb_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module.pb, "ServerMessage", NeverParsed)
    for outputs in (b"\x2a\x00" * N, field(5, field(2, bytes(N)))):
        with pytest.raises(FrameError):
            parse_server(field(2, b"\x08\x07" + outputs))


MESSAGES = st.one_of(
    st.builds(
        lambda **fields: pb.ClientMessage(frame=pb.Frame(**fields)),
        id=st.integers(0, 2**64 - 1),
        boundary=st.integers(0, 2**32 - 1),
        codec=st.text(max_size=40),
        budget_ms=st.integers(0, 2**32 - 1),
        crc32=st.integers(0, 2**32 - 1),
        tensors=st.lists(
            st.builds(
                pb.Tensor,
                dtype=st.integers(0, 2**32 - 1),
                payload=st.binary(max_size=300),
                shape=st.lists(st.integers(0, 2**32 - 1), max_size=8),
            ),
            max_size=3,
        ),
    ),
    st.builds(
        lambda **fields: pb.ClientMessage(hello=pb.Hello(**fields)),
        protocol=st.integers(0, 2**32 - 1),
        model=st.text(max_size=40),
        digest=st.text(max_size=40),
        client=st.text(max_size=40),
    ),
    st.builds(lambda id: pb.ClientMessage(cancel=pb.Cancel(id=id)), st.integers(0, 2**64 - 1)),
    st.builds(
        lambda id, padding: pb.ClientMessage(probe=pb.Probe(id=id, padding=padding)),
        st.integers(0, 2**64 - 1),
        st.binary(max_size=300),
    ),
)


@given(MESSAGES, st.integers(0, 2**32))
def test_every_message_of_ours_passes_and_no_broken_one_does(message, cut) -> None:
    data = message.SerializeToString()
    CLIENT_MESSAGE.check(data)
    part = data[: cut % (len(data) + 1)]
    try:
        CLIENT_MESSAGE.check(part)
    except OutlineError:
        with pytest.raises(DecodeError):
            pb.ClientMessage.FromString(part)


@given(st.binary(max_size=60))
def test_what_protobuf_takes_apart_passes_unless_it_holds_groups(data: bytes) -> None:
    try:
        pb.ClientMessage.FromString(data)
    except DecodeError:
        return
    try:
        CLIENT_MESSAGE.check(data)
    except OutlineError:
        assert any(byte & 7 in (3, 4) for byte in data)


def test_a_frame_of_five_hundred_tensors_passes() -> None:
    tensor = pb.Tensor(dtype=1, shape=[1, 2, 3, 4], payload=b"x")
    frame = pb.Frame(id=1, codec="raw", tensors=[tensor] * 500)
    assert MOST_FIELDS > 4 * 500
    CLIENT_MESSAGE.check(pb.ClientMessage(frame=frame).SerializeToString())
