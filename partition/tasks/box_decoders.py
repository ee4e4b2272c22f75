"""Outputs that are lists of boxes: what each exporter writes, and where its source says so.

Each function is a `Decode` of detect_head.py. In a shape N is the number of boxes or queries, C
that of classes. Where a source is named its last step is the same, but for boxes of equal scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from splitpoint.codec import Array

from .detections import MAX_CLASS, Detections
from .scored import best_class, every_class


def corners(boxes: Array) -> Array:
    """`[n, 4]` of x0, y0, x1, y1 from the centre's x and y, the width and the height: float64."""
    boxes = boxes.astype(np.float64)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def yolo(outputs: Sequence[Array], min_score: float) -> Detections:
    """`[4 + C, N]`: centre and size in pixels, and a probability of each class.

    ultralytics' export of YOLOv8, YOLO11 and the like (`Detect` in ultralytics/nn/modules/head.py).
    A box is of its best class, as in its `predict`.
    """
    (output,) = outputs
    found = best_class(output[4:].T, min_score)
    return found.at(corners(output[:4, found.rows].T))


def yolo_corners(outputs: Sequence[Array], min_score: float) -> Detections:
    """`[4 + C, N]`: x0, y0, x1, y1 in pixels, and a probability of each class.

    What ultralytics' YOLO26 and YOLOv10 choose from (`Detect.postprocess` in
    ultralytics/nn/modules/head.py). A box may be of several classes, and no box lies on another.
    """
    (output,) = outputs
    found = every_class(output[4:].T, min_score)
    return found.at(output[:4, found.rows].T)


def yolov5(outputs: Sequence[Array], min_score: float) -> Detections:
    """`[N, 5 + C]`: centre and size in pixels, the probability of a thing, and of each class of it.

    YOLOv5's and YOLOv7's export (`non_max_suppression` in yolov5's utils/general.py). The score is
    the product of both probabilities.
    """
    (output,) = outputs
    # No product is above its first factor: most rows need no other.
    rows = np.flatnonzero(output[:, 4] >= min_score)
    found = best_class(output[rows, 5:] * output[rows, 4:5], min_score)
    return found.at(corners(output[rows[found.rows], :4]))


def boxes_of_six(outputs: Sequence[Array], min_score: float) -> Detections:
    """`[N, 6]`: x0, y0, x1, y1 in pixels, score, class. The best boxes are chosen in the model.

    ultralytics' export with `nms=True`, and of YOLOv10 and other models without suppression. Their
    lists are filled up with rows that score 0.
    """
    (output,) = outputs
    score, number = output[:, 4:5], np.rint(output[:, 5])
    found = best_class(score, min_score)
    classes = number[found.rows]
    known = (classes >= 0) & (classes < MAX_CLASS)
    rows = found.rows[known]
    return Detections(output[rows, :4], found.scores[known], classes[known].astype(np.int64))


def detr(outputs: Sequence[Array], min_score: float) -> Detections:
    """Logits `[N, C + 1]`, the last of which is "nothing there", and relative boxes `[N, 4]`.

    Boxes are centre and size. DETR and YOLOS (`post_process_object_detection` of transformers'
    DetrImageProcessor).
    """
    logits, boxes = outputs
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = powers[:, :-1] / powers.sum(axis=1, keepdims=True)
    found = best_class(shares.astype(np.float32), min_score)
    return found.at(corners(boxes[found.rows]))


def rtdetr(outputs: Sequence[Array], min_score: float) -> Detections:
    """Logits `[N, C]`, each for itself, and relative boxes `[N, 4]` of centre and size.

    RT-DETR and Deformable DETR (`post_process_object_detection` of transformers'
    RTDetrImageProcessor with its focal loss). A box may be of several classes.
    """
    logits, boxes = outputs
    shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
    found = every_class(shares.astype(np.float32), min_score)
    return found.at(corners(boxes[found.rows]))


def rtdetr_joined(outputs: Sequence[Array], min_score: float) -> Detections:
    """`[N, 4 + C]`: relative centre and size, and a probability of each class.

    ultralytics' export of RT-DETR (`RTDETRDecoder` in ultralytics/nn/modules/head.py). A box is of
    its best class, as in its `predict`.
    """
    (output,) = outputs
    found = best_class(output[:, 4:], min_score)
    return found.at(corners(output[found.rows, :4]))


def decoded(outputs: Sequence[Array], min_score: float) -> Detections:
    """Boxes `[N, 4]` of x0, y0, x1, y1 in pixels, and a probability of each class `[N, C]`.

    A box may be of several classes, as in torchvision's RetinaNet and FCOS.
    """
    boxes, scores = outputs
    found = every_class(scores, min_score)
    return found.at(boxes[found.rows])


def decoded_background(outputs: Sequence[Array], min_score: float) -> Detections:
    """The same with the background as class 0, which is never found; the others keep their number.

    As in torchvision's SSD, whose names of classes begin with the background, too.
    """
    boxes, scores = outputs
    found = every_class(scores[:, 1:], min_score)
    return Detections(boxes[found.rows], found.scores, found.classes + 1)
