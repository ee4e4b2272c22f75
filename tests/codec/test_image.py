"""JPEG, WebP and PNG: what they keep, and pictures that are not what the boundary wants."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from splitpoint.codec import CodecError, SpecError, TensorSpec, codec_named

IMAGE_CODECS = ["jpeg", "webp", "png"]
FORMATS = {"jpeg": "JPEG", "webp": "WEBP", "png": "PNG"}


def spec_of(height, width):
    return TensorSpec(name="picture", dtype="uint8", shape=(1, height, width, 3), batch_dim=0)


SPEC = spec_of(24, 40)


def smooth(batch=1, height=24, width=40):
    y, x = np.mgrid[0:height, 0:width]
    planes = [4 * y + 20 * sample + x for sample in range(batch)]
    pictures = [np.stack([plane, 200 - plane, plane // 2 + 60], axis=-1) for plane in planes]
    return np.stack(pictures).clip(0, 255).astype(np.uint8)


def noise(batch=1, height=24, width=40):
    shape = (batch, height, width, 3)
    return np.random.default_rng(height * width).integers(0, 256, shape, np.uint8)


def file_of(pictures, file_format, mode="RGB", **options):
    first, *rest = (Image.fromarray(picture).convert(mode) for picture in pictures)
    file = io.BytesIO()
    if rest:
        options |= {"save_all": True, "append_images": rest}
    first.save(file, file_format, **options)
    return file.getvalue()


def packed(*files):
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(24, 40), (1, 1), (17, 3)])
def test_png_is_lossless(batch, size):
    png, spec = codec_named("png"), spec_of(*size)
    for pictures in (smooth(batch, *size), noise(batch, *size)):
        decoded = png.decode(png.encode(pictures, spec), spec, batch)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, pictures)


@pytest.mark.parametrize("name", ["jpeg", "webp", "jpeg@75", "webp@75"])
@pytest.mark.parametrize("batch", [1, 3])
def test_lossy_is_close_on_a_smooth_picture(name, batch):
    codec, pictures = codec_named(name), smooth(batch)
    payload = codec.encode(pictures, SPEC)
    assert len(payload) < pictures.nbytes / 2
    decoded = codec.decode(payload, SPEC, batch)
    assert (decoded.shape, decoded.dtype) == (pictures.shape, np.uint8)
    error = abs(decoded.astype(int) - pictures)
    assert 0 < error.mean() < 4
    for sample in range(batch):  # no sample took another's place
        assert error[sample].mean() < 4


@pytest.mark.parametrize("name", [*IMAGE_CODECS, "jpeg@100", "webp@100", "jpeg@1"])
@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (96, 96)])
def test_noise_stays_within_the_bound(name, size):
    codec, spec = codec_named(name), spec_of(*size)
    bits = noise(2, *size)
    for pictures in (bits, (bits >> 7) * np.uint8(255)):
        payload = codec.encode(pictures, spec)
        assert len(payload) <= codec.max_payload_bytes(spec, 2)
        assert codec.decode(payload, spec, 2).shape == pictures.shape


@pytest.mark.parametrize("name", IMAGE_CODECS)
def test_strided_pictures(name):
    codec, pictures = codec_named(name), noise(2)
    wide = np.repeat(pictures, 2, axis=2)[:, :, ::2]
    for same in (wide, np.asfortranarray(pictures)):
        assert codec.encode(same, SPEC) == codec.encode(pictures, SPEC)


@pytest.mark.parametrize("name", IMAGE_CODECS)
def test_encode_checks_the_array(name):
    for array in (smooth().astype(np.int8), smooth()[:, 1:], smooth()[0], smooth()[..., :1]):
        with pytest.raises(SpecError):
            codec_named(name).encode(array, SPEC)


@pytest.mark.parametrize(("name", "width"), [("webp", 16384), ("jpeg", 65536)])
@pytest.mark.parametrize("upright", [False, True])
def test_picture_too_large_for_its_format(name, width, upright):
    spec = spec_of(width, 1) if upright else spec_of(1, width)
    with pytest.raises(CodecError):
        codec_named(name).encode(np.zeros(spec.shape, np.uint8), spec)


# --- names ---


@pytest.mark.parametrize(("base", "default"), [("jpeg", 92), ("webp", 90)])
def test_quality_in_the_name(base, default):
    for quality in (1, 75, 100):
        codec = codec_named(f"{base}@{quality}")
        assert codec.name == f"{base}@{quality}"
        expected = packed(file_of(noise(), FORMATS[base], quality=quality))
        assert codec.encode(noise(), SPEC) == expected
    plain = codec_named(base).encode(noise(), SPEC)
    assert plain == codec_named(f"{base}@{default}").encode(noise(), SPEC)
    assert plain != codec_named(f"{base}@75").encode(noise(), SPEC)
    # The quality is the sender's affair: any of them decodes any other.
    np.testing.assert_array_equal(
        codec_named(f"{base}@1").decode(plain, SPEC, 1), codec_named(base).decode(plain, SPEC, 1)
    )


@pytest.mark.parametrize(
    "name",
    [
        *("jpeg@0", "jpeg@101", "jpeg@", "jpeg@-1", "jpeg@+5", "jpeg@ 5", "jpeg@5 ", "jpeg@7.5"),
        *("jpeg@1_0", "jpeg@1000", "jpeg@075", "jpeg@75@75", "jpeg@x", "jpeg@\u0667\u0665"),
        *("jpeg@\u00b2", "jpeg@\uff17\uff15", "webp@0", "webp@101", "png@3", "png@", "raw@1"),
        *("raw@", "q8@8", "fp16@1", "", "@", "@75", "JPEG", "jpg", "jpeg ", "raw\0", "x" * 9999),
    ],
)
def test_bad_names(name):
    with pytest.raises(CodecError, match="choose one of raw, fp16, q8, q4, jpeg") as caught:
        codec_named(name)
    assert len(str(caught.value)) < 200


# --- payloads that are not what is wanted ---


@pytest.mark.parametrize("name", IMAGE_CODECS)
def test_payload_of_another_length(name):
    codec = codec_named(name)
    payload = codec.encode(smooth(2), SPEC)
    single = codec.encode(smooth(), SPEC)
    assert payload.startswith(single)
    for length in range(0, len(payload), 7):
        with pytest.raises(CodecError):
            codec.decode(payload[:length], SPEC, 2)
    for tail in (b"\0", b"\0\0\0\0", single, payload):
        with pytest.raises(CodecError, match="after its last"):
            codec.decode(payload + tail, SPEC, 2)
    with pytest.raises(CodecError, match="after its last"):
        codec.decode(payload, SPEC, 1)
    with pytest.raises(CodecError, match="ends before"):
        codec.decode(payload, SPEC, 3)


@pytest.mark.parametrize("name", IMAGE_CODECS)
@pytest.mark.parametrize("length", [0, 1, 100, 1 << 31, (1 << 32) - 1])
def test_wrong_length_of_a_picture(name, length):
    codec = codec_named(name)
    file = codec.encode(smooth(), SPEC)[4:]
    with pytest.raises(CodecError):
        codec.decode(struct.pack("<I", length) + file, SPEC, 1)


def test_pillows_own_words_are_told_nobody(monkeypatch):
    file = file_of(noise(), "PNG")

    def broken(*_, **__):
        raise OSError("cannot identify image file <_io.BytesIO object at 0x7f3a> in /srv/models")

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(CodecError, match=r"damaged \(OSError\)$"):
        codec_named("png").decode(packed(file), SPEC, 1)


@pytest.mark.parametrize("name", IMAGE_CODECS)
def test_truncated_file(name):
    """The length is honest, the file is not whole."""
    codec = codec_named(name)
    file = file_of(noise(), FORMATS[name])
    assert codec.decode(packed(file), SPEC, 1).shape == SPEC.shape
    for length in (0, 1, 10, 40, len(file) // 2, len(file) - 24):
        with pytest.raises(CodecError, match="damaged"):
            codec.decode(packed(file[:length]), SPEC, 1)


@pytest.mark.parametrize("name", IMAGE_CODECS)
@pytest.mark.parametrize("size", [(40, 24), (24, 41), (23, 40), (48, 80), (1, 1)])
def test_picture_of_another_size(name, size):
    codec = codec_named(name)
    payload = codec.encode(smooth(1, *size), spec_of(*size))
    with pytest.raises(CodecError, match=f"RGB {size[1]}x{size[0]}, expected RGB 40x24"):
        codec.decode(payload, SPEC, 1)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *(("png", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
        *(("jpeg", mode) for mode in ("L", "CMYK")),
    ],
)
def test_picture_of_another_mode(name, mode):
    with pytest.raises(CodecError, match="expected RGB 40x24"):
        codec_named(name).decode(packed(file_of(smooth(), FORMATS[name], mode)), SPEC, 1)


def test_webp_with_transparency():
    clear = np.zeros((1, 24, 40, 4), np.uint8)
    with pytest.raises(CodecError, match="RGBA 40x24, expected RGB"):
        codec_named("webp").decode(packed(file_of(clear, "WEBP", "RGBA")), SPEC, 1)


@pytest.mark.parametrize("name", IMAGE_CODECS)
@pytest.mark.parametrize("other", ["JPEG", "WEBP", "PNG", "GIF", "BMP", "TIFF", "PPM", "MPO"])
def test_picture_of_another_format(name, other):
    """Only the named format's decoder may run."""
    payload = packed(file_of(smooth(), other))
    if FORMATS[name] == other or (name, other) == ("jpeg", "MPO"):  # one MPO picture is a JPEG
        assert codec_named(name).decode(payload, SPEC, 1).shape == SPEC.shape
    else:
        with pytest.raises(CodecError):
            codec_named(name).decode(payload, SPEC, 1)


@pytest.mark.parametrize(
    ("name", "file_format", "words"),
    [
        ("jpeg", "MPO", "carries a segment E2"),
        ("webp", "WEBP", "several frames"),
        ("png", "PNG", "several frames"),
    ],
)
def test_animation(name, file_format, words):
    with pytest.raises(CodecError, match=words):
        codec_named(name).decode(packed(file_of(smooth(3), file_format)), SPEC, 1)


# --- memory ---


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def declaring(name, extent):
    """A small picture whose header declares `extent` x `extent` pixels."""
    if name == "png":
        file = file_of(smooth(), "PNG")
        return (
            file[:8]
            + png_chunk(b"IHDR", struct.pack(">II", extent, extent) + file[24:29])
            + (file[33:])
        )
    if name == "jpeg":
        file = bytearray(file_of(smooth(), "JPEG"))
        start = file.index(b"\xff\xc0") + 5
        file[start : start + 4] = struct.pack(">HH", extent, extent)
    else:
        file = bytearray(file_of(smooth(2), "WEBP"))
        start = file.index(b"VP8X") + 12
        file[start : start + 6] = 2 * (extent - 1).to_bytes(3, "little")
    return bytes(file)


def png_with(*chunks):
    file = file_of(smooth(), "PNG")
    return file[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + file[33:]


def png_bomb(size):
    """Whole, but its pixel data goes on for `size` bytes."""
    data = zlib.compress(bytes(size), 9)
    return file_of(smooth(), "PNG")[:33] + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


_MEASURE = r"""
import re, sys, warnings
from pathlib import Path
from splitpoint.codec import CodecError, TensorSpec, codec_named
import numpy as np
def peak():
    # Not ru_maxrss: that starts at what the parent had.
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
warnings.simplefilter("ignore")  # of Pillow's, about large pictures
spec = TensorSpec(name="picture", dtype="uint8", shape=(1, 24, 40, 3), batch_dim=0)
codec = codec_named(sys.argv[1])
codec.decode(codec.encode(np.zeros((1, 24, 40, 3), np.uint8), spec), spec, 1)
payloads = [bytes.fromhex(line) for line in sys.stdin]
before = peak()
for payload in payloads:
    try:
        codec.decode(payload, spec, 1)
    except CodecError:
        continue
print(peak() - before)
"""


def growth_mib(name, files):
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, name],
        input="".join(f"{packed(file).hex()}\n" for file in files),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout) / 1024


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("name", IMAGE_CODECS)
@pytest.mark.parametrize("extent", [4000, 12_000, 16_000])
@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
def test_declared_size_is_refused(name, extent):
    with pytest.raises(CodecError):
        codec_named(name).decode(packed(declaring(name, extent)), SPEC, 1)


@linux_only
@pytest.mark.parametrize("name", IMAGE_CODECS)
def test_declared_size_does_not_grow_the_process(name):
    files = [declaring(name, extent) for extent in (4000, 12_000, 16_000)]
    assert growth_mib(name, files) < 16


@linux_only
def test_png_bombs_do_not_grow_the_process():
    profile = b"k\0\0" + zlib.compress(bytes(50_000_000), 9)
    assert growth_mib("png", [png_bomb(50_000_000), png_with((b"iCCP", profile))]) < 16


@linux_only
def test_png_text_does_not_grow_the_process():
    """60 chunks of 1 kB that hold 1 MB each, in a payload that is not too long."""
    text = b"\0\0" + zlib.compress(bytes(1_000_000), 9)
    before = png_with(*((b"zTXt", b"k%d" % number + text) for number in range(60)))
    plain = png_with()
    after = plain[:-12] + before[33 : 33 + len(before) - len(plain)] + plain[-12:]
    for file in (before, after):
        assert len(packed(file)) <= codec_named("png").max_payload_bytes(SPEC, 1)
        assert growth_mib("png", [file]) < 16
