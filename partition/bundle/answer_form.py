"""What a frame's answer is: the model's outputs, or what the head of its task makes of them.

Whichever side runs the last segment makes the answer, with the same code, so that a worker sends a
few boxes and not megabytes of scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from splitpoint.codec import RAW, Array, Codec, TensorSpec
from splitpoint.codec.simple.plain import Lossless

from ..tasks.head import Head
from .bundle import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """The tensors that an answer crosses the link as, and the `codec` that they travel in.

    Where there is no `head`, these are the tensors of the last boundary.
    """

    specs: tuple[TensorSpec, ...]
    codec: Codec
    outputs: Mapping[str, str]  # the user's names -> tensors of the last boundary
    head: Head | None

    @classmethod
    def of(cls, manifest: Manifest) -> AnswerForm:
        """That of a model; `TaskError` where its head does not fit its outputs."""
        tensors = manifest.boundaries[-1].tensors
        head = manifest.open_head()
        return cls(
            specs=tensors if head is None else head.specs,
            codec=RAW if head is None else Lossless(),
            outputs=manifest.outputs,
            head=head,
        )

    def made(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors of `specs`, from those of the last boundary."""
        if self.head is None:
            return {spec.name: values[spec.name] for spec in self.specs}
        return self.head.answer(self.named_outputs(values))

    def named(self, answer: Mapping[str, Array]) -> dict[str, Array]:
        """What `made` returned, by the names that the user knows."""
        return dict(answer) if self.head is not None else self.named_outputs(answer)

    def named_outputs(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The model's outputs by its own names."""
        return {name: values[tensor] for name, tensor in self.outputs.items()}
