"""Outputs that detectors and segmenters might have, for every head."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from splitpoint.codec import Array, TensorSpec

SIZE_PX = (64, 96)  # height, width
CLASSES, BOXES = 5, 126  # a YOLO's cells in an input of that size


def spec(name: str, *shape: int, dtype: str = "float32", batch_dim: int = 0) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape, batch_dim=batch_dim)


def specs_of(arrays: Mapping[str, Array]) -> dict[str, TensorSpec]:
    return {name: spec(name, 1, *array.shape[1:]) for name, array in arrays.items()}


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(shape, np.float32)


def outputs_of(head: str, batch: int = 1, seed: int = 0) -> dict[str, Array]:
    """Made up outputs: boxes that overlap, scores that are few and good."""
    n = BOXES * 3 if head == "yolov5" else BOXES
    height, width = SIZE_PX
    boxes = noise(batch, n, 4, seed=seed) * np.array(
        [width, height, 40, 40], np.float32
    )  # centre and size
    parts = boxes / np.array([width, height, width, height], np.float32)
    around = np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2,
                             boxes[..., :2] + boxes[..., 2:] / 2], axis=2)  # fmt: skip
    scores = noise(batch, n, CLASSES, seed=seed + 1) ** 8
    logits = 6 * noise(batch, n, CLASSES + 1, seed=seed + 2) - 4
    heat = noise(batch, 1, 16, 24, seed=seed + 3) ** 8
    maps = noise(batch, 14, 16, 24, seed=seed + 4)
    numbers = np.floor(CLASSES * noise(batch, n, 1, seed=seed + 5))
    match head:
        case "yolo":
            return {"out": np.concatenate([boxes, scores], axis=2).transpose(0, 2, 1).copy()}
        case "yolo_corners":
            return {"out": np.concatenate([around, scores], axis=2).transpose(0, 2, 1).copy()}
        case "yolov5":
            return {"out": np.concatenate([boxes, noise(batch, n, 1), scores], axis=2)}
        case "boxes":
            return {"out": np.concatenate([around, scores[..., :1], numbers], axis=2)}
        case "detr":
            return {"logits": logits, "pred_boxes": parts}
        case "rtdetr":
            return {"logits": logits[..., 1:], "pred_boxes": parts}
        case "rtdetr_joined":
            return {"out": np.concatenate([parts, scores], axis=2)}
        case "decoded":
            return {"boxes": around, "scores": scores}
        case "decoded_background":
            return {"boxes": around, "scores": scores}
        case "centerface":
            return {"537": heat, "538": maps[:, :2] + 1, "539": maps[:, 2:4], "540": maps[:, 4:]}
        case "segment":
            return {"out": noise(batch, CLASSES, 6, 7, seed=seed)}
        case "mask_logit":
            return {"out": noise(batch, 1, 6, 7, seed=seed) - 0.5}
    return {"out": noise(batch, 1, 6, 7, seed=seed)}
