"""Image codecs for the picture at boundary 0: JPEG, WebP and PNG.

A payload is, for each sample of the batch, a little-endian uint32 length and that many bytes of
image file. The decoder looks at the structure of the file before it decodes a pixel: see
`picture_file`.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CodecError
from ..spec import Array, TensorSpec
from .picture_file import check_picture_file

_LENGTH = struct.Struct("<I")
# No encoder here inflates a picture beyond its pixels by more than headers and a few per cent.
_OVERHEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ImageCodec:
    """One image file format at one setting; `quality` is None for the lossless PNG.

    Settings are those of Pillow; JPEG keeps 4:2:0 chroma subsampling, as cameras and browsers do.
    """

    name: str
    file_format: str
    quality: int | None = None

    def supports(self, spec: TensorSpec) -> bool:  # noqa: D102
        return spec.is_picture

    def encode(self, array: Array, spec: TensorSpec) -> bytes:  # noqa: D102
        spec.check(array)
        options: dict[str, Any] = (
            {"compress_level": 3} if self.quality is None else {"quality": self.quality}
        )
        parts: list[bytes] = []
        for picture in array:
            file = io.BytesIO()
            try:
                Image.fromarray(picture).save(file, self.file_format, **options)
            except (OSError, ValueError) as error:
                raise CodecError(
                    f"a picture of {picture.shape[1]}x{picture.shape[0]} is beyond "
                    f"{self.file_format} ({error})",
                    "use the codec raw or png",
                ) from error
            parts += (_LENGTH.pack(file.tell()), file.getvalue())
        return b"".join(parts)

    def decode(self, payload: bytes, spec: TensorSpec, batch: int) -> Array:  # noqa: D102
        pictures = np.empty(spec.shape_at(batch), np.uint8)
        offset = 0
        for picture in pictures:
            start = offset + _LENGTH.size
            if start > len(payload):
                raise CodecError(f"payload of tensor {spec.name!r} ends before its last picture")
            (length,) = _LENGTH.unpack_from(payload, offset)
            offset = start + length
            if offset > len(payload):
                raise CodecError(f"payload of tensor {spec.name!r} ends within a picture")
            picture[:] = self._pixels(payload[start:offset], spec)
        if offset != len(payload):
            raise CodecError(f"payload of tensor {spec.name!r} has bytes after its last picture")
        return pictures

    def max_payload_bytes(self, spec: TensorSpec, batch: int) -> int:  # noqa: D102
        return 2 * spec.nbytes_at(batch) + batch * _OVERHEAD_BYTES

    def _pixels(self, file: bytes, spec: TensorSpec) -> Array:
        height, width = spec.shape[1:3]
        check_picture_file(self.file_format, file, width, height)
        try:
            with Image.open(io.BytesIO(file), formats=[self.file_format]) as image:
                if image.size != (width, height) or image.mode != "RGB":
                    raise CodecError(
                        f"picture is {image.mode} {image.size[0]}x{image.size[1]}, "
                        f"expected RGB {width}x{height}"
                    )
                return np.asarray(image)
        except CodecError:
            raise
        except Exception as error:
            # Pillow's own words may hold addresses in memory, and these go to whoever sent it.
            why = type(error).__name__
            raise CodecError(f"{self.file_format} picture is damaged ({why})") from error
