"""Files that are valid and cost more than their pixels: refused before anything is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image
from splitpoint.codec import Array, CodecError, TensorSpec, codec_named
from splitpoint.codec.simple.picture_file import MAX_SCANS

HEIGHT, WIDTH = 24, 40
SPEC = TensorSpec(name="picture", dtype="uint8", shape=(1, HEIGHT, WIDTH, 3), batch_dim=0)
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def file_of(file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, file_format, **options)
    return file.getvalue()


def decode(name: str, file: bytes) -> Array:
    return codec_named(name).decode(struct.pack("<I", len(file)) + file, SPEC, 1)[0]


def segment(marker: int, data: bytes = b"") -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def after_start(*parts: bytes) -> bytes:
    """A JPEG with further segments at its beginning."""
    plain = file_of("JPEG")
    return plain[:2] + b"".join(parts) + plain[2:]


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan, which refines bits, comes again until there are so many.

    Pillow decodes it: each is a pass over the picture for a few bytes.
    """
    plain = file_of("JPEG", progressive=True)
    starts = [i for i in range(len(plain)) if plain[i : i + 2] == b"\xff\xda"]
    # The codes of the one before it may have been replaced: what comes again is all of its parts.
    last = plain[plain.rindex(b"\xff\xc4") : -2]
    assert last.count(b"\xff\xda") == 1
    return plain[:-2] + (count - len(starts)) * last + plain[-2:]


def with_frame(marker: int, **changed: int) -> bytes:
    """A JPEG whose frame header is another one."""
    file = bytearray(file_of("JPEG"))
    start = file.index(b"\xff\xc0")
    file[start + 1] = marker
    for place, value in changed.items():
        file[start + {"depth": 4, "height": 6, "width": 8, "components": 9}[place]] = value
    return bytes(file)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def png_with(chunks: Iterable[bytes]) -> bytes:
    """Behind the header."""
    plain = file_of("PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunk(**options: Any) -> tuple[bytes, bytes]:
    file = file_of("WEBP", **options)
    return file[12:16], file[20 : 20 + struct.unpack("<I", file[16:20])[0]]


def extended(flags: int) -> tuple[bytes, bytes]:
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (WIDTH, HEIGHT))
    return b"VP8X", bytes((flags, 0, 0, 0)) + sides


EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\0"
COSTLY = [
    ("jpeg", "more than 20 scans", scans(MAX_SCANS + 1)),
    ("jpeg", "more than 20 scans", scans(28_000)),
    ("jpeg", "too much beside", after_start(*[segment(0xFE)] * 100_000)),
    ("jpeg", "too much beside", after_start(*[segment(0xFE, bytes(60_000))] * 2)),
    ("jpeg", "too much beside", after_start(*[segment(0xDB, bytes(65))] * 1000)),
    ("jpeg", "segment E1", after_start(segment(0xE1, EXIF))),
    ("jpeg", "segment E2", after_start(segment(0xE2, b"ICC_PROFILE\0\1\1"))),
    ("jpeg", "segment CA", with_frame(0xCA)),  # arithmetic
    ("jpeg", "segment C3", with_frame(0xC3)),  # lossless
    ("jpeg", "segment CC", after_start(segment(0xCC))),
    ("jpeg", "segment D8", after_start(b"\xff\xd8")),
    ("jpeg", "2 frames", after_start(file_of("JPEG")[slice(*(lambda f: (f, f + 19))(
        file_of("JPEG").index(b"\xff\xc0")))])),
    ("jpeg", "12-bit", with_frame(0xC1, depth=12)),
    ("jpeg", "RGB 40x25", with_frame(0xC0, height=25)),
    ("jpeg", "RGB 40x0", with_frame(0xC0, height=0)),
    ("jpeg", "200 components", with_frame(0xC0, components=200)),
    ("jpeg", "does not end", file_of("JPEG") + b"\0"),
    ("jpeg", "does not end", 2 * file_of("JPEG")),
    ("jpeg", "does not begin", b"\xff\xff" + file_of("JPEG")),
    ("jpeg", "0 scans", file_of("JPEG").partition(b"\xff\xda")[0] + b"\xff\xd9"),
    ("png", "too many chunks", png_with([chunk(b"IDAT")] * 10_000)),
    ("png", "too many chunks", png_with([chunk(b"tIME", bytes(7))] * 1000)),
    ("png", "too many chunks", png_with([chunk(b"pHYs", bytes(70_000))])),
    ("png", "carries a tRNS", png_with([chunk(b"tRNS", bytes(6))])),
    ("png", "carries a eXIf", png_with([chunk(b"eXIf", EXIF[6:])])),
    ("png", "carries a iTXt", png_with([chunk(b"iTXt", b"k\0\0\0\0\0")])),
    ("png", "several frames", png_with([chunk(b"acTL", bytes(8))])),
    ("png", "one header", png_with([file_of("PNG")[8:33]])),
    ("png", "its end", file_of("PNG") + chunk(b"IDAT")),
    ("png", "its end", file_of("PNG") + chunk(b"IEND")),
    ("webp", "several frames", riff(extended(0x02), (b"ANIM", bytes(6)))),
    ("webp", "RGBA 40x24", riff(extended(0x10), webp_chunk())),
    ("webp", "extended", riff(extended(0), webp_chunk())),
    ("webp", "extended", riff(extended(0x08), webp_chunk(), (b"EXIF", EXIF))),
    ("webp", "not all of it", riff(webp_chunk(), *[(b"JUNK", b"")] * 10_000)),
    ("webp", "not all of it", riff(webp_chunk(), webp_chunk())),
    ("webp", "no picture", riff((b"JUNK", b""))),
    ("webp", "its length", file_of("WEBP") + bytes(2)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words", "file"), COSTLY, ids=[f"{n}-{w}" for n, w, _ in COSTLY])
def test_a_costly_file_never_reaches_the_decoder(
    name: str, words: str, file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(Image, "open", lambda *_, **__: opened.append(1))
    with pytest.raises(CodecError, match=words) as caught:
        decode(name, file)
    assert not opened
    assert len(str(caught.value)) < 150


def test_the_crafted_scans_are_what_pillow_would_decode() -> None:
    """Or the bound would be one on files that fail anyway."""
    with Image.open(io.BytesIO(scans(MAX_SCANS + 1))) as image:
        assert image.convert("RGB").size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_every_prefix_and_every_changed_byte_of_a_header(name: str) -> None:
    """Nothing but `CodecError` comes out, whatever the header says."""
    plain = file_of({"jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}[name])
    rng = np.random.default_rng(1)
    for place in range(200):
        with pytest.raises(CodecError):
            decode(name, plain[:place])
        changed = bytearray(plain)
        changed[place] = rng.integers(256)
        with suppress(CodecError):
            assert decode(name, bytes(changed)).shape == PIXELS.shape


# --- what honest encoders write ---


def test_progressive_as_every_encoder_writes_it() -> None:
    plain = file_of("JPEG", progressive=True, quality=95)
    assert 2 < plain.count(b"\xff\xda") <= MAX_SCANS
    with Image.open(io.BytesIO(plain)) as image:
        assert np.array_equal(decode("jpeg", plain), np.asarray(image))
    assert decode("jpeg", scans(MAX_SCANS)).shape == PIXELS.shape


@pytest.mark.parametrize(
    "options",
    [
        {"optimize": True, "quality": 100, "subsampling": 0},
        {"restart_marker_blocks": 1},
        {"dpi": (72, 72), "comment": b"made by a test"},
        {"keep_rgb": True, "subsampling": 0},
    ],
)
def test_settings_of_jpeg(options: dict[str, Any]) -> None:
    file = file_of("JPEG", **options)
    with Image.open(io.BytesIO(file)) as image:
        assert np.array_equal(decode("jpeg", file), np.asarray(image))


@pytest.mark.parametrize("name", ["png", "webp"])
def test_lossless(name: str) -> None:
    file = file_of("WEBP", lossless=True) if name == "webp" else file_of("PNG", dpi=(72, 72))
    assert np.array_equal(decode(name, file), PIXELS)


@pytest.mark.parametrize(
    ("name", "suffix", "flags"),
    [
        ("jpeg", ".jpg", ("IMWRITE_JPEG_PROGRESSIVE", 1)),
        ("jpeg", ".jpg", ("IMWRITE_JPEG_RST_INTERVAL", 2)),
        ("png", ".png", ("IMWRITE_PNG_COMPRESSION", 9)),
        ("webp", ".webp", ("IMWRITE_WEBP_QUALITY", 80)),
    ],
)
def test_files_of_another_encoder(name: str, suffix: str, flags: tuple[str, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    done, data = cv2.imencode(suffix, PIXELS[..., ::-1], [getattr(cv2, flags[0]), flags[1]])
    assert done
    with Image.open(io.BytesIO(data.tobytes())) as image:
        assert np.array_equal(decode(name, data.tobytes()), np.asarray(image))
