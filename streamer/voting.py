"""One box for each object, of the many that a network gives for it.

# Note [Votes]
Our networks learn to mark an object at up to nine cells, each with a box and a score of its own; a mistake is mostly
marked at few. So what NMS keeps is made of all boxes that agree with it: its corners are their mean, weighted with the
squares of their scores (box voting, Gidaris and Komodakis, ICCV 2015), and its score is the mean of its own and of the
nine best among them, where a missing one counts nothing. On the development set at 640 that moves `accurate` from
0.744 / 0.869 / 0.897 (faces: all, medium, easy) to 0.743 / 0.882 / 0.913 and `fast` from 0.701 / 0.835 / 0.869 to
0.698 / 0.845 / 0.884; plates between 24 and 96 pixels that are found as often have a third fewer false alarms. The
smallest objects lie on few cells and score less for it, so their thresholds are lower.
"""

import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer import detection
from streamer.boxes import Boxes
from streamer.detection import Detections

FLOOR = 0.05  # score from which a box has a vote, whatever is asked for: else scores would depend on the threshold
_BOX_IOU = 0.6  # with the kept box, from which another moves its corners
_SCORE_IOU = 0.5  # and from which it supports its score
_LEAST_AREA = 1e-6  # square pixels; below, a box does not agree with itself: rounding
_AT_ONCE = 1 << 20  # pairs of boxes that are compared at once


def vote(found: Detections, votes: int, limit: float) -> Detections:
    """What non-maximum suppression within each class keeps (overlaps above `limit` IoU go), with the others' votes.

    `votes` is how many a box needs for its whole score. See Note [Votes].
    """
    real = geometry.area(found.boxes) > _LEAST_AREA
    parts = []
    for label in sorted(set(found.labels.tolist())):
        mine = found.take((found.labels == label) & real)
        mine = mine.take(np.argsort(-mine.scores, kind="stable"))
        kept = geometry.nms(mine.boxes, mine.scores, limit)
        rows = max(1, _AT_ONCE // max(1, len(mine)))
        parts += [_voted(mine, kept[at : at + rows], votes) for at in range(0, len(kept), rows)]
    return detection.concatenate(parts)


def _voted(found: Detections, kept: NDArray[np.intp], votes: int) -> Detections:
    """`found` stands best first. Of all pairs of boxes few agree; only those are summed."""
    overlap = geometry.iou(found.boxes[kept], found.boxes)
    row, other = np.nonzero(overlap >= _SCORE_IOU)
    scores, rank = found.scores[other], np.arange(len(row)) - np.searchsorted(row, row)
    support = np.bincount(row, np.where(rank < votes, scores, 0))
    weights = np.where(overlap[row, other] >= _BOX_IOU, np.square(scores), 0)
    corners = [np.bincount(row, weights * corner) for corner in found.boxes[other].T]
    boxes: Boxes = (np.stack(corners, axis=1) / np.bincount(row, weights)[:, None]).astype(np.float32)
    voted = (found.scores[kept] + support / votes) / 2
    return Detections(boxes, voted.astype(np.float32), found.labels[kept])
