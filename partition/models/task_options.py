"""What a user says of a model's task, in place of what its source says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ModelError, PictureError, TaskError
from ..model_spec import ModelSpec
from ..tasks.heads import HEADS
from ..tasks.task import KINDS, Task
from ..tasks.user_head import allow_head, is_user_head


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """`kind` and `head` as in `Task`, a file of `labels`, a class a line, how photos `resize`.

    What is empty stays as it is. `max_detections` is that of a detector.
    """

    kind: str = ""
    head: str = ""
    labels: Path | None = None
    resize: str = ""
    max_detections: int | None = None

    def applied(self, spec: ModelSpec) -> ModelSpec:
        """The spec with what was said; `ModelError`, `TaskError` or `PictureError` for misfits."""
        task = self._task(spec.task)
        if self.max_detections is not None:
            if task is None or task.kind != "detect":
                raise TaskError(
                    "--max-detections is of a model that detects",
                    "leave it out, or give a --head that finds boxes",
                )
            task = replace(task, max_detections=self.max_detections)
        spec = replace(spec, task=task)
        if self.labels is not None:
            spec = replace(spec, labels=_lines_of(self.labels))
        if not self.resize:
            return spec
        if spec.picture is None:
            raise PictureError(f"{spec.source} takes no pictures", "leave --resize out")
        return replace(spec, picture=replace(spec.picture, resize=self.resize))

    def _task(self, known: Task | None) -> Task | None:
        if is_user_head(self.head):
            allow_head(self.head)  # by whoever names it here
            return Task.of_head(self.head, kind=self.kind or "raw")
        if self.head:
            task = Task.of_head(self.head)
            if self.kind and self.kind != task.kind:
                raise TaskError(
                    f"the head {self.head} is for the task {task.kind}", "leave --task out"
                )
            return task
        if self.kind and (known is None or known.kind != self.kind):
            heads = [name for name, form in HEADS.items() if form.kind == self.kind]
            if heads:
                raise TaskError(
                    f"nothing says how the outputs are to be read for the task {self.kind}",
                    f"name a head that fits them: --head {', '.join(heads)}",
                )
            if self.kind not in KINDS:
                raise TaskError(
                    f"unknown task {self.kind[:40]!r}", f"use one of {', '.join(KINDS)}"
                )
            known = Task(kind=self.kind)
        return known


def _lines_of(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read {file} ({error})", "give a text file, a class a line"
        ) from error
    if not any(lines):
        raise ModelError(f"{file} names no class", "write one a line")
    return tuple(line.strip() for line in lines)
