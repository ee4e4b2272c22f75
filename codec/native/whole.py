"""Whether the file of the extension is as it was installed.

To load a shared library that was cut off, or in which a page is zeros, kills the process or hangs
it: no error is raised that could be caught. Files are left so by a full disk, or by a power cut
while a device was upgraded.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from pathlib import Path

_ELF_64_BIT_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
_TABLE = struct.Struct("<32xQ14xHH")  # of a head: where the table of parts begins; its rows
_PART = struct.Struct("<8xQ16xQ")  # where a part of the file begins, and its length
_HEAD_BYTES = 64


def damage_of(library: Path, packages: Path) -> str:
    """What is wrong with it, in words, or "". `packages` is where its top package lies.

    pip's RECORD has the hash of every file that it installed. A checkout has none: there, only a
    file that was cut off is seen.
    """
    data = library.read_bytes()
    if not _is_whole(data):
        return "it is cut off"
    recorded = _recorded(library.relative_to(packages).as_posix(), packages)
    found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return "" if recorded in ("", found) else "it is not what was installed"


def _recorded(name: str, packages: Path) -> str:
    """The SHA-256 of a file as pip's RECORD has it; "" if it has none."""
    for record in packages.glob("splitpoint-*.dist-info/RECORD"):
        for line in record.read_text("utf-8").splitlines():
            if line.startswith(f"{name},sha256="):
                return line.split(",")[1].removeprefix("sha256=")
    return ""


def _is_whole(data: bytes) -> bool:
    """Whether every part that its head names is there; not of other formats than ELF."""
    if not data.startswith(_ELF_64_BIT_LITTLE_ENDIAN):
        return True
    if len(data) < _HEAD_BYTES:
        return False
    begin, size, count = _TABLE.unpack_from(data)
    if size < _PART.size or begin + size * count > len(data):
        return False
    parts = (_PART.unpack_from(data, begin + size * number) for number in range(count))
    return all(offset + length <= len(data) for offset, length in parts)
