"""The entropy stage against frames that lie: zstd frames are put together by hand here."""

import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from splitpoint.codec import CodecError
from splitpoint.codec.simple.entropy import compress, compressed_bound, decompress_exactly

BLOCK = 128 << 10  # zstd's largest block
BOMB_BYTES = 200_000_000


def rle_blocks(size):
    """Blocks of one repeated byte: 4 bytes stand for up to 128 KiB."""
    sizes = [BLOCK] * (size // BLOCK) + ([size % BLOCK] if size % BLOCK else [])
    heads = [length << 3 | 1 << 1 for length in sizes]
    heads[-1] |= 1  # the last block
    return b"".join(struct.pack("<I", head)[:3] + b"\0" for head in heads)


def frame(declared, blocks, window_log=None):
    """A zstd frame of these blocks; `declared` may be None, and a window may be asked for."""
    kind = (0 if declared is None else 3 << 6) | (0x20 if window_log is None else 0)
    window = b"" if window_log is None else bytes([(window_log - 10) << 3])
    size = b"" if declared is None else struct.pack("<Q", declared)
    return b"\x28\xb5\x2f\xfd" + bytes([kind]) + window + size + blocks


BOMB = frame(BOMB_BYTES, rle_blocks(BOMB_BYTES), window_log=20)
DATA = np.random.default_rng(0).integers(0, 9, 5000, np.uint8).tobytes()
HOSTILE = {
    "bomb that declares itself": BOMB,
    "bomb that declares what is expected": frame(5000, rle_blocks(BOMB_BYTES)),
    "bomb that declares too little": frame(4999, rle_blocks(BOMB_BYTES)),
    "bomb that declares nothing": frame(None, rle_blocks(BOMB_BYTES), window_log=20),
    "declares terabytes, holds the truth": frame(1 << 42, rle_blocks(5000)),
    "declares 2**64 - 2": frame((1 << 64) - 2, rle_blocks(5000)),
    "declares nothing, holds the truth": frame(None, rle_blocks(5000), window_log=20),
    "declares the truth, holds less": frame(5000, rle_blocks(4999)),
    "declares the truth, holds more": frame(5000, rle_blocks(5001)),
    "declares less, holds the truth": frame(4999, rle_blocks(5000)),
    "wants a window of 2 GB, is cut": frame(5000, rle_blocks(5000), window_log=31)[:-1],
    "wants a window of 128 MB, is cut": frame(5000, rle_blocks(5000), window_log=27)[:-1],
    "empty": b"",
    "magic alone": BOMB[:4],
    "header alone": frame(5000, b""),
    "skippable frame": b"\x50\x2a\x4d\x18" + struct.pack("<I", 5000) + bytes(5000),
    "no zstd": DATA,
    "bomb after the frame": compress(DATA) + BOMB,
}


def test_a_frame_made_by_hand_is_taken():
    """What the hostile frames are variations of, so that they fail for their own reason."""
    assert decompress_exactly(frame(5000, rle_blocks(5000)), 5000) == bytes(5000)
    assert decompress_exactly(frame(5000, rle_blocks(5000), window_log=20), 5000) == bytes(5000)
    assert len(BOMB) < 6200
    parts = zstandard.ZstdDecompressor().read_to_iter(BOMB)
    assert sum(map(len, parts)) == BOMB_BYTES


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_frame(name):
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            decompress_exactly(HOSTILE[name], 5000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


_MEASURE = r"""
import re, sys
from pathlib import Path
from splitpoint.codec import CodecError
from splitpoint.codec.simple.entropy import compress, decompress_exactly
def peak():
    # Not ru_maxrss: that starts at what the parent had.
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
decompress_exactly(compress(bytes(5000)), 5000)
before = peak()
accepted = 0
for line in sys.stdin:
    try:
        decompress_exactly(bytes.fromhex(line), 5000)
        accepted += 1
    except CodecError:
        pass
print(accepted, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_hostile_frames_do_not_grow_the_process():
    """What zstd itself allocates is invisible to tracemalloc.

    A true frame that names a huge window may pass, but must not get that window.
    """
    windows = [frame(5000, rle_blocks(5000), window_log=log) for log in (27, 31)]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE],
        input="".join(f"{payload.hex()}\n" for payload in [*HOSTILE.values(), *windows]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    accepted, growth_kib = map(int, done.stdout.split())
    assert accepted <= len(windows)
    assert growth_kib < 16 << 10


def test_a_declared_size_is_named_in_the_error():
    with pytest.raises(CodecError, match="declares 200000000 bytes, expected 5000"):
        decompress_exactly(BOMB, 5000)
    with pytest.raises(CodecError, match="declares no size"):
        decompress_exactly(HOSTILE["declares nothing, holds the truth"], 5000)


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 100, compress(DATA), compress(b""), b"\x28"])
def test_nothing_may_follow_the_frame(tail):
    assert decompress_exactly(compress(DATA), len(DATA)) == DATA
    for expected in (len(DATA), 2 * len(DATA)):
        with pytest.raises(CodecError):
            decompress_exactly(compress(DATA) + tail, expected)


def test_two_frames_do_not_add_up():
    halves = compress(DATA[:2500]) + compress(DATA[2500:])
    for expected in (2500, 5000):
        with pytest.raises(CodecError):
            decompress_exactly(halves, expected)


def test_every_truncation_is_refused():
    payload = compress(DATA[:700])
    for length in range(len(payload)):
        with pytest.raises(CodecError):
            decompress_exactly(payload[:length], 700)


def test_decompressor_works_after_errors():
    """The context is kept between calls; an error must not leave it in the middle of a frame."""
    for payload in HOSTILE.values():
        with pytest.raises(CodecError):
            decompress_exactly(payload, 5000)
        assert decompress_exactly(compress(DATA), 5000) == DATA


@given(st.binary(min_size=1, max_size=3000), st.integers(1, 50))
def test_roundtrip(data, repeats):
    data *= repeats
    payload = compress(data)
    assert decompress_exactly(payload, len(data)) == data
    assert len(payload) <= compressed_bound(len(data))
    for wrong in (len(data) - 1, len(data) + 1, 0):
        with pytest.raises(CodecError):
            decompress_exactly(payload, wrong)


@pytest.mark.parametrize("size", [1, 2, 63, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_bound_of_noise(size):
    noise = np.random.default_rng(size).bytes(size)
    assert size < len(compress(noise)) <= compressed_bound(size) <= size * 257 // 256 + 96
