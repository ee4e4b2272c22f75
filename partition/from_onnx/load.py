"""From an ONNX file to a model that can be compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..model_spec import ModelSpec
from ..picture import PictureInput
from .fit import FittedGraph, fitted
from .graph_input import declared, inputs_of
from .known_export import KnownExport, known_export
from .model_file import read_onnx
from .picture_graph import PictureGraph, picture_graph, takes_pictures
from .picture_options import PictureOptions
from .random_inputs import joined
from .tail import without_tail

_FREE = "dynamic_axes={'INPUT': {0: 'batch'}}"


def onnx_model(path: Path, weights: str, picture: PictureOptions | None = None) -> ModelSpec:
    """The graph in an .onnx file as a torch module with example inputs.

    With `picture`, or where the file itself says that it takes pictures, it is captured from uint8
    pixels on. The module has been compared with onnxruntime on random inputs, alone and as a batch;
    `remarks` say where it takes no batch, and where the graph was cut. Raises `ModelError` for a
    file that cannot be read or converted, and where the two differ.
    """
    if weights not in ("default", "none"):
        raise ModelError("an ONNX file carries its own weights", "leave --weights out")
    model = read_onnx(path)
    known = known_export(model)
    remarks = without_tail(model, path, chooses=known is not None and known.chooses)
    if picture is None and known is not None and takes_pictures(model, path):
        picture = PictureOptions()
    if picture is not None:
        return _of_pictures(model, path, picture, known, remarks)
    fit = fitted(model, inputs_of(model, path), path)
    return ModelSpec(
        source=path.name,
        module=fit.module,
        kwargs=joined(fit.module, fit.samples),
        layer_prefix="nodes.",
        one_sample=bool(fit.one_sample),
        remarks=(*remarks, *_alone(fit, path)),
    )


def _of_pictures(
    model: Any,
    path: Path,
    options: PictureOptions,
    known: KnownExport | None,
    remarks: tuple[str, ...],
) -> ModelSpec:
    graph = picture_graph(model, path, options.size_px, known.size_px if known else None)
    fit = _fitted(model, path, graph, options)
    spec = ModelSpec.of_picture_model(
        path.name,
        fit.module,
        PictureInput(
            height_px=graph.height_px,
            width_px=graph.width_px,
            resize=known.resize if known else "crop",
        ),
        mean=options.mean or (0.0,) * 3,
        std=options.std or (1.0,) * 3,
        scale=options.scale,
        order=options.order,
        channels_last=graph.channels_last,
        labels=known.labels if known else (),
    )
    (pixels,) = spec.args
    size_px = graph.height_px, graph.width_px
    return replace(
        spec,
        task=known.task_for(fit.answer, size_px) if known else None,
        args=(pixels[:1] if fit.one_sample else pixels,),
        layer_prefix="model.nodes.",
        one_sample=bool(fit.one_sample),
        remarks=(*remarks, *_own_size(graph, options, path), *_alone(fit, path)),
    )


def _own_size(graph: PictureGraph, options: PictureOptions, path: Path) -> tuple[str, ...]:
    """What to tell where nobody said how large pictures are: files are often exported small."""
    if options.size_px is not None:
        return ()
    size = f"{graph.height_px}x{graph.width_px}"
    return (f"{path.name} takes pictures of {size}, as the file says: --input-size is for others",)


def _fitted(model: Any, path: Path, graph: PictureGraph, options: PictureOptions) -> FittedGraph:
    fit = _one_of_many(model, path)
    if fit is not None:
        return fit
    inputs = inputs_of(model, path)
    try:
        fit = fitted(model, inputs, path)
    except ModelError as error:
        if options.size_px is None:
            raise
        raise ModelError(
            f"{path} cannot take pictures of {graph.height_px}x{graph.width_px} ({error.what})",
            "give the --input-size that it was made for, often a multiple of 32",
        ) from error
    if fit.one_sample and inputs[0].shape[0] != 1:
        raise ModelError(
            f"{path} takes {inputs[0].shape[0]} pictures at a time, and no other number "
            f"({fit.one_sample})",
            f"export it with a batch of 1, or a free one: {_FREE}",
        )
    return fit


def _one_of_many(model: Any, path: Path) -> FittedGraph | None:
    """A graph that was written for a batch of several pictures, as one of a free batch.

    None where that is not how it can be taken. So many at once would only take time and memory.
    """
    (batch, *_) = declared(model)[0].type.tensor_type.shape.dim
    many = batch.dim_value
    if many < 2:
        return None
    batch.dim_value = 1
    try:
        fit = fitted(model, inputs_of(model, path), path)
    except ModelError:
        fit = None
    batch.dim_value = many
    return None if fit is None or fit.one_sample else fit


def _alone(fit: FittedGraph, path: Path) -> tuple[str, ...]:
    """What to tell of a graph that takes no batch."""
    if not fit.one_sample:
        return ()
    return (
        f"{path.name} takes one sample at a time, so that workers form no batches of it: "
        f"{fit.one_sample} (for batches, export it with {_FREE}, and no sizes written out)",
    )
