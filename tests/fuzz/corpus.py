"""The fuzzer's inputs as one file: each after its length, uint32."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

FILE = Path(__file__).with_name("corpus.bin")


def inputs() -> Iterator[bytes]:
    """Those that are kept with the source."""
    data, at = FILE.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def spread(found: Iterable[bytes], folder: Path) -> None:
    """A file each, as libFuzzer takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in found:
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def keep(folder: Path) -> int:
    """Writes `FILE` from the files of `folder`; how many there are."""
    found = sorted((path.read_bytes() for path in folder.iterdir()), key=lambda d: (len(d), d))
    FILE.write_bytes(b"".join(struct.pack("<I", len(data)) + data for data in found))
    return len(found)
