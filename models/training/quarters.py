"""Whole samples turned by quarters: people who lie down, cameras on ceilings, phones held the wrong way round.

The teacher knows upright faces only. So it sees the sample upright, and what it said is turned with the picture: a
quarter turn of a square moves cells onto cells, so nothing is resampled.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry

from .teacher import Lesson

SHARES = (0.375, 0.25, 0.375)  # of the turned samples, those turned by 1, 2 and 3 quarters
_STREAM = 1 << 32  # random numbers of their own: the samples stay what they were


def drawn(seed: int, index: tuple[int, ...], share: float) -> int:
    """By how many quarters, counterclockwise, the sample called `index` is turned, where `share` of all are."""
    shares = (1 - share, *(part * share for part in SHARES))
    return int(np.random.default_rng([seed, _STREAM, *index]).choice(4, p=shares))


def turned_maps(maps: NDArray[np.generic], turns: list[int], axes: tuple[int, int]) -> NDArray[np.generic]:
    """Square maps, one of the batch per turn; `axes` are rows and columns of the whole array."""
    rows, columns = (axis - 1 for axis in axes)
    return np.stack([np.rot90(one, turn, (rows, columns)) for one, turn in zip(maps, turns, strict=True)])


def turned_boxes(boxes: NDArray[np.float32], turns: list[int], side: int) -> NDArray[np.float32]:
    """Rows `(n, 6)` of image, class and corners, in samples `side` px square."""
    turned = boxes.copy()
    for image, turn in enumerate(turns):
        of_image = boxes[:, 0] == image
        turned[of_image, 2:] = geometry.turn(boxes[of_image, 2:], side, side, turn)
    return turned


def turned_lesson(lesson: Lesson, turns: list[int], side: int) -> Lesson:
    """What the teacher said of the upright samples, as it holds for the turned ones."""
    return replace(
        lesson,
        doubtful=turned_boxes(lesson.doubtful, turns, side),
        features=[np.asarray(turned_maps(level, turns, (2, 3)), np.float32) for level in lesson.features],
        scores=[np.asarray(turned_maps(level, turns, (2, 3)), np.float32) for level in lesson.scores],
    )
