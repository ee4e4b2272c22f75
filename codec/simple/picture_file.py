"""What a picture file will cost to decode, read from its structure before a pixel is decoded.

Pillow and its libraries take any file that the standards allow, and those allow work without end: a
JPEG of 28,000 scans, each a pass over the whole picture, a PNG of 100,000 empty chunks, metadata
that unfolds. Here a file passes only if it holds one RGB picture of the expected size and little
else, so that decoding takes a time that goes with its bytes and its pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..errors import CodecError

# Each scan is a pass over all coefficients. libjpeg's own script for a progressive colour picture
# has 10 (jcparam.c), and no encoder gains anything from more than a few beyond that.
MAX_SCANS = 20
# What is neither pixels nor needed for them. Encoders write some hundred bytes; Pillow reads it in
# Python, at a cost for each segment or chunk.
MAX_HEADER_BYTES, MAX_PARTS = 1 << 16, 100
# libpng writes 8 kB of pixels in a chunk; with chunks this small their number is still bounded.
PNG_CHUNK_BYTES = 1 << 10


def check_picture_file(file_format: str, file: bytes, width: int, height: int) -> None:
    """Raises `CodecError` unless `file` is one RGB picture of exactly `width` x `height`.

    `file_format` is Pillow's name: JPEG, PNG or WEBP. Entropy-coded data is not looked at.
    """
    try:
        {"JPEG": _check_jpeg, "PNG": _check_png, "WEBP": _check_webp}[file_format](
            file, width, height
        )
    except IndexError as error:
        raise _damaged(file_format, "it ends within a header") from error


def _damaged(file_format: str, why: str) -> CodecError:
    return CodecError(f"{file_format} picture is damaged ({why})")


def _check_size(kind: str, found: tuple[int, int], expected: tuple[int, int]) -> None:
    if kind != "RGB" or found != expected:
        raise CodecError(
            f"picture is {kind} {found[0]}x{found[1]}, expected RGB {expected[0]}x{expected[1]}"
        )


# --- JPEG: ITU-T T.81, annex B ---

_SOI, _EOI, _SOS, _APP0, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xEE, 0xFE
# Sequential and progressive with Huffman codes. Not lossless, hierarchical or arithmetic ones.
_FRAMES = (0xC0, 0xC1, 0xC2)
_TABLES = (0xC4, 0xDB, 0xDD)  # Huffman codes, quantisation, restart interval
# JFIF, Adobe's colour transform and a comment; EXIF, profiles and further pictures are not needed.
_JPEG_MARKERS = frozenset((*_FRAMES, *_TABLES, _SOS, _APP0, _APP14, _COM))
# The end of a scan: no stuffed byte, no restart.
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_KINDS = {1: "L", 3: "RGB", 4: "CMYK"}


def _check_jpeg(file: bytes, width: int, height: int) -> None:
    scans = frames = header_bytes = parts = 0
    if file[:2] != bytes((0xFF, _SOI)):
        raise _damaged("JPEG", "it does not begin like one")
    offset = 2
    while file[offset] == 0xFF and (marker := file[offset + 1]) != _EOI:
        length = int.from_bytes(file[offset + 2 : offset + 4], "big")
        body, end = offset + 4, offset + 2 + length
        if length < 2 or end > len(file):
            raise _damaged("JPEG", f"segment {marker:02X} has an impossible length")
        if marker not in _JPEG_MARKERS:
            raise CodecError(f"JPEG picture carries a segment {marker:02X}: send pixels alone")
        parts, header_bytes = parts + 1, header_bytes + length
        if parts > MAX_PARTS or header_bytes > MAX_HEADER_BYTES:
            raise CodecError("JPEG picture has too much beside its pixels")
        if marker in _FRAMES:
            frames += 1
            rows, columns = (int.from_bytes(file[body + i : body + i + 2], "big") for i in (1, 3))
            depth, count = file[body], file[body + 5]
            kind = _JPEG_KINDS.get(count, f"{count} components") if depth == 8 else f"{depth}-bit"
            _check_size(kind, (columns, rows), (width, height))
        elif marker == _SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise CodecError(f"JPEG picture has more than {MAX_SCANS} scans")
            found = _SCAN_END.search(file, end)
            end = found.start() if found else len(file)
        offset = end
    if offset + 2 != len(file):
        raise _damaged("JPEG", "it does not end where its last scan does")
    if frames != 1 or not scans:
        raise _damaged("JPEG", f"{frames} frames and {scans} scans")


# --- PNG ---

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Those that hold a few bytes each. Text, profiles and EXIF are not needed, and unfold.
_PNG_CHUNKS = frozenset(
    (b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"sBIT", b"tIME", b"bKGD")
)
_PNG_ANIMATION = frozenset((b"acTL", b"fcTL", b"fdAT"))
_PNG_KINDS = {
    (8, 2): "RGB", (16, 2): "RGB of 16 bit", (8, 6): "RGBA", (16, 6): "RGBA of 16 bit",
    (8, 4): "LA", (16, 4): "LA of 16 bit", (8, 0): "L", (16, 0): "L of 16 bit",
}  # fmt: skip


def _check_png(file: bytes, width: int, height: int) -> None:
    if not file.startswith(_PNG_SIGNATURE):
        raise _damaged("PNG", "it does not begin like one")
    kinds = []
    header_bytes = 0
    for kind, body, size in _png_chunks(file):
        if kind in _PNG_ANIMATION:
            raise CodecError("picture has several frames")
        if kind not in _PNG_CHUNKS:
            name = kind.decode("ascii", "replace")
            raise CodecError(f"PNG picture carries a {name} chunk: send pixels alone")
        kinds.append(kind)
        header_bytes += size if kind != b"IDAT" else 0
        if len(kinds) > MAX_PARTS + len(file) // PNG_CHUNK_BYTES or header_bytes > MAX_HEADER_BYTES:
            raise CodecError("PNG picture has too many chunks")
        if (kind == b"IHDR" and size == 13) != (len(kinds) == 1):
            raise _damaged("PNG", "it does not begin with its one header")
        if kind == b"IHDR":
            extent = tuple(int.from_bytes(file[body + i : body + i + 4], "big") for i in (0, 4))
            pixel = (file[body + 8], file[body + 9])
            name = _PNG_KINDS.get(pixel, f"of {pixel[0]} bit, type {pixel[1]},")
            _check_size(name, (extent[0], extent[1]), (width, height))
    if kinds[-1:] != [b"IEND"] or kinds.count(b"IEND") != 1:
        raise _damaged("PNG", "it does not end with its end")


def _png_chunks(file: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, where its data begins, and how many bytes those are."""
    offset = len(_PNG_SIGNATURE)
    while offset < len(file):
        size = int.from_bytes(file[offset : offset + 4], "big")
        if offset + 12 + size > len(file):
            raise _damaged("PNG", "it ends within a chunk")
        yield file[offset + 4 : offset + 8], offset + 8, size
        offset += 12 + size


# --- WebP: RFC 9649 ---

_RIFF_BYTES, _CHUNK_BYTES = 12, 8
_ANIMATION, _ALPHA = 0x02, 0x10  # flags of the extended format


def _check_webp(file: bytes, width: int, height: int) -> None:
    """Only the simple format passes: one chunk, lossy or lossless, and nothing else."""
    size = int.from_bytes(file[4:8], "little")
    if file[:4] != b"RIFF" or file[8:12] != b"WEBP" or size + 8 != len(file):
        raise _damaged("WEBP", "its length is not that of its header")
    kind, body = file[12:16], _RIFF_BYTES + _CHUNK_BYTES
    data = file[body:]
    if kind == b"VP8X":
        if data[0] & _ANIMATION:
            raise CodecError("picture has several frames")
        extent = [int.from_bytes(data[i : i + 3], "little") + 1 for i in (4, 7)]
        _check_size("RGBA" if data[0] & _ALPHA else "RGB", (extent[0], extent[1]), (width, height))
        raise CodecError("WEBP picture is in the extended format: send pixels alone")
    length = int.from_bytes(file[16:20], "little")
    if length + length % 2 != len(data):
        raise _damaged("WEBP", "its pixels are not all of it")
    if kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a":
        lossy = [int.from_bytes(data[i : i + 2], "little") & 0x3FFF for i in (6, 8)]
        _check_size("RGB", (lossy[0], lossy[1]), (width, height))
    elif kind == b"VP8L" and data[0] == 0x2F:
        bits = int.from_bytes(data[1:5], "little")
        extent = [(bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1]
        _check_size("RGBA" if bits >> 28 & 1 else "RGB", (extent[0], extent[1]), (width, height))
    else:
        raise _damaged("WEBP", "it holds no picture")
