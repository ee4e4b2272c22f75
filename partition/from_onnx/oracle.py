"""What onnxruntime answers to an ONNX graph: the only judge of what was made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime
from splitpoint.codec import Array

from ..errors import ModelError


class Oracle:
    """The graph in onnxruntime on the CPU; `ModelError` where it cannot be loaded."""

    def __init__(self, model: Any) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(
                f"onnxruntime cannot load the model ({_first_line(error)})",
                "export it again, and try it in onnxruntime",
            ) from error

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Its outputs by name."""
        names = [value.name for value in self._session.get_outputs()]
        try:
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        except Exception as error:
            raise ModelError(
                f"onnxruntime fails on random inputs ({_first_line(error)})",
                "try the model in onnxruntime on inputs of its declared shapes",
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
