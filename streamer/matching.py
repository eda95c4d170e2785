"""Which detection belongs to which track.

# Note [Leaps]
What dashes by is elsewhere at each look of the detector, several of its own sizes away: a new track each time, while
the last one stays behind. So of what a look finds new and what it was the first to miss, seen once before, the pairs
of about one size and not too far apart may be one object. Nothing is taken back on this guess: both tracks live on by
themselves, and the look-ahead masks the way between them as well, the one before and the one behind.
"""

import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer.boxes import Boxes
from streamer.detection import Detections

_NEAREST = 8  # candidates per detection
_LEAP = 6.0  # box sides between two looks
_LEAP_ALIKE = 0.6  # the smaller side by the larger one


def affinity(
    boxes: Boxes,
    labels: NDArray[np.uint8],
    unseen_s: NDArray[np.float32],
    found: Detections,
    reach: float,
) -> NDArray[np.float32]:
    """How well (n, m) each box (n, 4) of a track fits each detection: IoU, or nearness in units of size, or 0 for not
    at all.

    `reach`: how many box sides the centres may be apart, before the time unseen (n,) widens it; 0 asks for overlap.
    """
    fit = geometry.iou(boxes, found.boxes)
    fit[fit < 0.1] = 0
    if reach > 0:
        apart, alike = _apart(boxes, found.boxes)
        near = 0.5 * (1 - apart / (reach + np.minimum(unseen_s, 1.0))[:, None]) * alike
        fit = np.maximum(fit, np.where(alike > 0.5, near, 0))
    fit[labels[:, None] != found.labels[None, :]] = 0
    return np.asarray(fit, np.float32)


def greedy(fit: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Pairs (row, column) by falling fit, each row and column at most once; only positive fits."""
    if len(fit) > _NEAREST:
        limit = np.partition(fit, len(fit) - _NEAREST, axis=0)[len(fit) - _NEAREST]
        fit = np.where(fit >= limit, fit, 0)
    rows, columns = np.nonzero(fit > 0)
    order = np.argsort(-fit[rows, columns], kind="stable")
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            pairs.append((row, column))
    return pairs


def leaps(
    lost: Boxes, lost_labels: NDArray[np.uint8], found: Boxes, labels: NDArray[np.uint8]
) -> NDArray[np.intp]:
    """For each box found new (m, 4) the row of the lost one (n, 4) that it may have been, or -1. See Note [Leaps]."""
    rows = np.full(len(found), -1, np.intp)
    if not len(lost) or not len(found):
        return rows
    apart, alike = _apart(lost, found)
    fit = (1 - apart / _LEAP) * alike
    fit[(alike < _LEAP_ALIKE) | (lost_labels[:, None] != labels[None, :])] = 0
    for row, column in greedy(fit.astype(np.float32)):
        rows[column] = row
    return rows


def _apart(boxes: Boxes, others: Boxes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance (n, m) between centres, in sides of the larger box, and the smaller side by the larger one."""
    side = np.sqrt(np.maximum(geometry.area(boxes), 1))[:, None]
    other = np.sqrt(np.maximum(geometry.area(others), 1))[None, :]
    centre = (boxes[:, :2] + boxes[:, 2:])[:, None] - (others[:, :2] + others[:, 2:])[None]
    apart = np.hypot(centre[..., 0], centre[..., 1]) * 0.5 / np.maximum(side, other)
    alike = np.minimum(side, other) / np.maximum(side, other)
    return np.asarray(apart, np.float32), np.asarray(alike, np.float32)
