"""What a worker serves after an upgrade: other weights and labels, for the same inputs."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from splitpoint.partition.model_spec import ModelSpec

NEW_LABELS = ("fox", "gnu", "hen", "ibis", "jay")


def newer_of(spec: ModelSpec) -> ModelSpec:
    module = copy.deepcopy(spec.module)
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(-1.5)
    return replace(spec, module=module, labels=NEW_LABELS)
