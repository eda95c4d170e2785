"""Geometry on arrays of boxes: (n, 4) `x0 y0 x1 y1`, half-open, in pixels. Free functions, no state."""

import cv2
import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]  # (n, 4) x0 y0 x1 y1


def area(boxes: Boxes) -> NDArray[np.float32]:
    """Areas (n,) in square pixels; 0 for an inverted box.

    >>> area(np.array([[0, 0, 2, 3]], np.float32)).tolist()
    [6.0]
    """
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1], np.float32)


def intersection(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """Shared area (n, m) of each of `first` with each of `second`, in square pixels."""
    across, down = (  # axis by axis: loops over pairs of numbers are slow
        np.minimum(first[:, None, axis + 2], second[None, :, axis + 2])
        - np.maximum(first[:, None, axis], second[None, :, axis])
        for axis in (0, 1)
    )
    return np.asarray(np.maximum(across, 0) * np.maximum(down, 0), np.float32)


def iou(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """Intersection over union (n, m); 0 where both boxes are empty.

    >>> iou(np.array([[0, 0, 2, 2]], np.float32), np.array([[0, 0, 2, 1]], np.float32)).tolist()
    [[0.5]]
    """
    shared = intersection(first, second)
    union = area(first)[:, None] + area(second)[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), np.float32)


def clip(boxes: Boxes, width: int, height: int) -> Boxes:
    """A copy with every corner inside a picture of that size."""
    limit = np.array([width, height, width, height], np.float32)
    return np.clip(boxes, 0, limit).astype(np.float32)


def grow(boxes: Boxes, share: float) -> Boxes:
    """A copy whose sides are `1 + share` times as long, around the same centres."""
    half = (boxes[:, 2:] - boxes[:, :2]) * (0.5 * share)
    return np.concatenate([boxes[:, :2] - half, boxes[:, 2:] + half], axis=1).astype(np.float32)


def turn(boxes: Boxes, width: float, height: float, quarters: int) -> Boxes:
    """Where boxes of a picture of that size lie once it is turned by `quarters`, counterclockwise (as by `np.rot90`).

    >>> turn(np.array([[6, 1, 9, 2]], np.float32), 10, 4, 1).tolist()
    [[1.0, 1.0, 2.0, 4.0]]
    """
    for quarter in range(quarters % 4):
        x0, y0, x1, y1 = boxes.T
        wide = height if quarter % 2 else width
        boxes = np.column_stack([y0, wide - x1, y1, wide - x0])
    return boxes


def nms(boxes: Boxes, scores: NDArray[np.float32], limit: float) -> NDArray[np.intp]:
    """Indices that greedy non-maximum suppression keeps, best score first; overlaps above `limit` IoU go.

    A score of 0 is never kept.
    """
    if not len(boxes):
        return np.zeros(0, np.intp)
    corner_and_sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    # lists: OpenCV reads arrays number by number as well, four times as slowly
    kept = cv2.dnn.NMSBoxes(corner_and_sides.tolist(), scores.tolist(), 0.0, limit)
    return np.asarray(kept, np.intp).reshape(-1)
