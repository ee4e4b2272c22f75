"""The bundle on disk: `NAME.split/` with a manifest, and the manifest's SHA-256 beside it.

    NAME.split/
      manifest.json          everything there is to know, with the SHA-256 of every other file
      manifest.sha256        the digest of the bundle: SHA-256 of manifest.json
      labels.txt             one class a line (only for classifiers that have names)
      segments/03.json       the cloud's program of segment 3
      segments/03.onnx       the edge's model of segment 3
      segments/03.safetensors  the weights that both of them refer to
      segments/03.int8.onnx  the edge's model in INT8, weights inside (only with --int8)
      codecs/03.safetensors  the transform codec's tables at boundary 3 (only when calibrated)
      learned/03/            tables and networks of its learned codec (only with `learn`)

The digest therefore covers every byte. Nothing is unpickled, and nothing here needs torch.

Longer than others: what a manifest holds is said, written, read and checked side by side.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from splitpoint.codec import SplitpointError

from ..errors import BundleError
from ..look import UsualLook
from ..picture import PictureInput
from ..tasks.head import Head
from ..tasks.task import Task
from .boundary import Boundary as Boundary
from .bundle_file import COMPILE_AGAIN, File, verify_file
from .graph import Layer
from .model_kind import CLASSIFY, RAW_TASK, holds_classes

SCHEMA = 3
OLDER_SCHEMAS = (2,)  # without tasks: they say only whether a model is a classifier
LEARNED_SCHEMA = 4  # of bundles with a learned codec: who does not know it refuses the bundle
MANIFEST, DIGEST = "manifest.json", "manifest.sha256"
MAX_MANIFEST_BYTES = 64 << 20
LONGEST_LABEL = 200  # characters

_PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The files of one segment, as paths inside the bundle, and its operations for one sample.

    `int8` is empty where the bundle has no INT8 form of its segments.
    """

    program: str
    onnx: str
    weights: str
    flops: int
    int8: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that a bundle says about its model."""

    name: str
    source: str
    weights: str
    layers: tuple[Layer, ...]
    boundaries: tuple[Boundary, ...]
    segments: tuple[Segment, ...]
    outputs: Mapping[str, str]  # the user's name -> tensor of the last boundary
    picture: PictureInput | None
    task: Task
    labels_file: str | None
    unsupported_ops: tuple[str, ...]
    max_relative_error: float  # of the segments against the whole, seen when compiling
    files: Mapping[str, File]
    usual_look: UsualLook | None = None  # of calibration's pictures
    # What inputs of integers are full of in measurements, where the model does not take 0.
    stand_ins: Mapping[str, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal manifests have equal bytes, and so equal digests.

        Keys are sorted, but for the outputs, which stay in the order that the model returns.
        """
        data = {
            "schema": LEARNED_SCHEMA if self.has_learned else SCHEMA,
            "name": self.name,
            "source": self.source,
            "weights": self.weights,
            "layers": [layer.to_json() for layer in self.layers],
            "boundaries": [b.to_json() for b in self.boundaries],
            "segments": [
                {"program": s.program, "onnx": s.onnx, "weights": s.weights, "flops": s.flops}
                | ({"int8": s.int8} if s.int8 else {})
                for s in self.segments
            ],
            "outputs": dict(self.outputs),
            "picture": self.picture and self.picture.to_json(),
            "task": self.task.to_json(),
            "labels_file": self.labels_file,
            "unsupported_ops": list(self.unsupported_ops),
            "max_relative_error": self.max_relative_error,
            "files": {
                path: {"sha256": file.sha256, "bytes": file.nbytes}
                for path, file in sorted(self.files.items())
            },
        }
        if self.usual_look is not None:  # a bundle without it keeps its digest
            data["usual_look"] = self.usual_look.to_json()
        if self.stand_ins:
            data["stand_ins"] = dict(self.stand_ins)
        fields = [
            f'"{key}":{json.dumps(value, sort_keys=key != "outputs", separators=(",", ":"))}'
            for key, value in sorted(data.items())
        ]
        return f"{{{','.join(fields)}}}".encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """Reads and checks a manifest; `BundleError` says what is wrong with `where`."""
        try:
            record = json.loads(data)
            schema = record["schema"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BundleError(f"{where} is no manifest ({error})", COMPILE_AGAIN) from error
        if schema not in (SCHEMA, LEARNED_SCHEMA, *OLDER_SCHEMAS):
            raise BundleError(
                f"{where} has bundle schema {ascii(schema)[:40]}, "
                f"this splitpoint reads {LEARNED_SCHEMA}",
                f"{COMPILE_AGAIN}, or install the splitpoint that wrote it",
            )
        try:
            manifest = cls._from_record(record)
            manifest._check()
            if (schema == LEARNED_SCHEMA) != manifest.has_learned:
                raise BundleError(
                    f"{where} has bundle schema {schema}, and not what belongs to it", COMPILE_AGAIN
                )
        except BundleError:
            raise
        except (
            SplitpointError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError
        ) as error:  # fmt: skip
            raise BundleError(
                f"{where} is malformed ({type(error).__name__}: {str(error)[:200]})", COMPILE_AGAIN
            ) from error
        # Any model of photos was once taken for a classifier, and a worker may say anything.
        classes = holds_classes(manifest.outputs, manifest.boundaries[-1].tensors)
        return manifest if classes or not manifest.classifies else replace(manifest, task=RAW_TASK)

    @classmethod
    def _from_record(cls, record: Mapping[str, Any]) -> Manifest:
        picture, look = record["picture"], record.get("usual_look")
        return cls(
            name=str(record["name"]),
            source=str(record["source"]),
            weights=str(record["weights"]),
            layers=tuple(Layer.from_json(layer) for layer in record["layers"]),
            boundaries=tuple(Boundary.from_json(boundary) for boundary in record["boundaries"]),
            segments=tuple(
                Segment(
                    program=segment["program"],
                    onnx=segment["onnx"],
                    weights=segment["weights"],
                    flops=segment["flops"],
                    int8=str(segment.get("int8", "")),
                )
                for segment in record["segments"]
            ),
            outputs={str(name): str(tensor) for name, tensor in record["outputs"].items()},
            picture=None if picture is None else PictureInput.from_json(picture),
            task=_task_of(record),
            labels_file=record["labels_file"],
            unsupported_ops=tuple(record["unsupported_ops"]),
            max_relative_error=float(record["max_relative_error"]),
            files={
                path: File(sha256=file["sha256"], nbytes=file["bytes"])
                for path, file in record["files"].items()
            },
            usual_look=None if look is None else UsualLook.from_json(look),
            stand_ins=dict(record.get("stand_ins", {})),
        )

    def _check(self) -> None:
        if len(self.boundaries) != len(self.segments) + 1 or not self.segments:
            raise BundleError("a bundle needs one boundary more than segments", COMPILE_AGAIN)
        if [b.id for b in self.boundaries] != list(range(len(self.boundaries))):
            raise BundleError("the boundaries are not numbered in order", COMPILE_AGAIN)
        for path, file in self.files.items():
            if not _PATH.fullmatch(path) or not _SHA256.fullmatch(file.sha256) or file.nbytes < 0:
                raise BundleError(f"the bundle names an impossible file {path[:80]!r}")
        inner = self.boundaries[1:]
        named = [path for s in self.segments for path in (s.program, s.onnx, s.weights)]
        named += [s.int8 for s in self.segments if s.int8]
        if len({*(bool(s.int8) for s in self.segments), *(b.int8 is not None for b in inner)}) > 1:
            raise BundleError("only a part of the bundle is in INT8", COMPILE_AGAIN)
        if self.labels_file is not None:
            named.append(self.labels_file)
        named += [path for boundary in self.boundaries for path in boundary.codec_files]
        for path in named:
            if path not in self.files:
                raise BundleError(f"the bundle does not list its file {path[:80]!r}", COMPILE_AGAIN)
        last = {spec.name for spec in self.boundaries[-1].tensors}
        if not last or not set(self.outputs.values()) <= last:
            raise BundleError("an output is no tensor of the last boundary", COMPILE_AGAIN)
        for boundary in (*self.boundaries[:1], *self.boundaries[-1:]):
            if boundary.learned:
                raise BundleError("neither input nor output has a learned codec", COMPILE_AGAIN)
        if not self.boundaries[0].can_be_full_of(self.stand_ins):
            raise BundleError("an input cannot be full of the number that stands in for 0")
        self.open_head()

    @property
    def picture_tensor(self) -> str | None:
        """The input that a photo becomes; None where there is none, or it is no picture here."""
        if self.picture is None:
            return None
        first = self.boundaries[0].tensors[:1]
        return next((spec.name for spec in first if spec.is_picture), None)

    @property
    def classifies(self) -> bool:
        """Whether the first output holds one logit for each class."""
        return self.task.kind == "classify"

    def open_head(self) -> Head | None:
        """What makes answers of the outputs; `TaskError` where it does not fit them."""
        tensors = {spec.name: spec for spec in self.boundaries[-1].tensors}
        size = None if self.picture is None else (self.picture.height_px, self.picture.width_px)
        return self.task.open({name: tensors[t] for name, t in self.outputs.items()}, size)

    @property
    def has_int8(self) -> bool:
        """Whether every segment is there in INT8 as well."""
        return bool(self.segments[0].int8)

    @property
    def has_learned(self) -> bool:
        """Whether any boundary has a learned codec."""
        return any(boundary.learned for boundary in self.boundaries)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which holds that of every file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def _task_of(record: Mapping[str, Any]) -> Task:
    if record["schema"] in OLDER_SCHEMAS:
        return CLASSIFY if record["classifies"] else RAW_TASK
    return Task.from_json(record["task"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A manifest and the folder that holds its files."""

    folder: Path
    manifest: Manifest
    digest: str

    def path(self, file: str) -> Path:
        """Where a file of the bundle lies."""
        return self.folder / file

    def labels(self) -> list[str]:
        """Class names, empty where the bundle has none."""
        if self.manifest.labels_file is None:
            return []
        return read_labels(self.path(self.manifest.labels_file))


def read_labels(path: Path) -> list[str]:
    """One class a line. Whoever wrote the file, each is short enough to be shown."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line[:LONGEST_LABEL] for line in lines]


def open_bundle(folder: Path, *, verify_files: bool = True) -> Bundle:
    """Reads a bundle and verifies every file against its digest; `BundleError` names the file.

    Without `verify_files` only the manifest is read and verified.
    """
    if not (folder / MANIFEST).is_file():
        what = f"{folder} is no bundle" if folder.exists() else f"there is no bundle {folder}"
        raise BundleError(what, "make one with `splitpoint compile MODEL --out NAME.split`")
    data = (folder / MANIFEST).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    try:
        said = (folder / DIGEST).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / DIGEST} cannot be read", COMPILE_AGAIN) from error
    if said != digest:
        raise BundleError(
            f"{folder / MANIFEST} is damaged: its digest is {digest[:12]}, not {said[:12]}",
            COMPILE_AGAIN,
        )
    manifest = Manifest.from_bytes(data, str(folder / MANIFEST))
    if verify_files:
        for path, file in manifest.files.items():
            verify_file(folder / path, file)
    return Bundle(folder=folder, manifest=manifest, digest=digest)


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Seals a folder whose other files are in place."""
    data = manifest.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    for name, content in ((MANIFEST, data), (DIGEST, f"{digest}\n".encode())):
        with (folder / name).open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    return Bundle(folder=folder, manifest=manifest, digest=digest)
