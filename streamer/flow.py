"""Following boxes from one small luma picture to another.

Method: pyramidal Lucas-Kanade flow (Bouguet 2001), and the median over a few points of each box as in
Median Flow (Kalal et al., ICPR 2010); a point counts where the patches around it look alike.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.boxes import Boxes

Luma = NDArray[np.uint8]  # (h, w)
_Points = NDArray[np.float32]  # (..., 2) x y

_WINDOW = (11, 11)  # of Lucas-Kanade, in pixels of the small picture
_LEVELS = 3
_REACH = 64  # how far around its points Lucas-Kanade is shown the picture
_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 8, 0.03)
_UNLIKE = 12.0  # grey levels by which a patch may differ from what it was
_LEAST = 16  # small pixels that it is shown at least
_GROWTH_MOST = 0.04  # of a box side in one frame
_COARSER = 4  # times smaller pictures tell how the camera moved
_AGREED = 0.1  # share of the spectrum that must agree on it
_NINE = np.array([(x, y) for y in (-0.3, 0, 0.3) for x in (-0.3, 0, 0.3)], np.float32)  # of a box's sides
_FIVE = np.array([(0, 0), (-0.3, -0.3), (0.3, -0.3), (-0.3, 0.3), (0.3, 0.3)], np.float32)
_TWO = np.array([(-0.2, -0.2), (0.2, 0.2)], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """Where boxes went: shift of the centre, growth of the sides, and whether the picture told."""

    shift: NDArray[np.float32]  # (n, 2) frame pixels
    ratio: NDArray[np.float32]  # (n,) new side per old side
    sure: NDArray[np.bool_]  # (n,) False: the box itself could not be followed; shift is that of the picture

    def move(self, boxes: Boxes) -> Boxes:
        """A copy of the boxes, moved and scaled around their centres."""
        centre = (boxes[:, :2] + boxes[:, 2:]) * 0.5 + self.shift
        half = (boxes[:, 2:] - boxes[:, :2]) * (0.5 * self.ratio[:, None])
        return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


@dataclass(slots=True, eq=False)
class Seen:
    """What Lucas-Kanade saw of boxes, in small pixels."""

    shift: NDArray[np.float32]  # (n, 2)
    ratio: NDArray[np.float32]  # (n,)
    sure: NDArray[np.bool_]  # (n,)
    error: NDArray[np.float32]  # (n,) grey levels by which the patches differ

    def improve(self, rows: NDArray[np.intp], other: "Seen") -> None:
        """Take what `other` saw of `rows` where this saw nothing or fits clearly worse."""
        better = ~self.sure[rows] | (other.sure & (other.error < 0.7 * self.error[rows]))
        at = rows[better]
        self.shift[at], self.ratio[at] = other.shift[better], other.ratio[better]
        self.sure[at], self.error[at] = other.sure[better], other.error[better]


def follow_boxes(first: Luma, second: Luma, boxes: Boxes, guess: NDArray[np.float32] | None = None) -> Seen:
    """Follow boxes (n, 4) in small pixels, near `guess` (n, 2) if given; that is also the shift of the
    lost."""
    start = _points_in(boxes)
    levels = _LEVELS if guess is None else 1  # coarser ones would see the ground around the object
    near = np.zeros((len(boxes), 2), np.float32) if guess is None else guess
    end, good, error = _follow(first, second, start, start + near[:, None], levels)
    count = good.sum(axis=1)
    sure = np.asarray(count >= max(1, start.shape[1] // 3))
    seen = _median(np.concatenate([end - start, error[..., None]], axis=2), good, count)
    shift = np.where(sure[:, None], seen[:, :2], near).astype(np.float32)
    ratio = np.ones(len(boxes), np.float32)
    wide = np.flatnonzero((count >= 5) & ((boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 10))
    if len(wide):
        centre = ((boxes[:, :2] + boxes[:, 2:]) * 0.5)[wide, None]
        ratio[wide] = _growth(start[wide] - centre, end[wide] - centre - shift[wide, None], good[wide])
    return Seen(shift, ratio, sure, seen[:, 2])


def global_shift(first: Luma, second: Luma, near: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift (2,) of the picture as a whole, in small pixels: the median over a coarse grid of points, which are looked
    for at `near` (2,); that where too few are found."""
    height, width = first.shape
    x, y = np.meshgrid(np.linspace(0.1, 0.9, 6) * width, np.linspace(0.1, 0.9, 4) * height)
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    end, good, _ = _follow(first, second, points[None], points[None] + near, _LEVELS)
    if good.sum() < 4:
        return near
    return np.asarray(np.median((end[0] - points)[good[0]], axis=0), np.float32)


def camera_shift(first: Luma, second: Luma) -> NDArray[np.float32]:
    """Shift (2,) of the picture as a whole, in small pixels, however far: phase correlation (Kuglin and Hines, 1975)
    of both pictures at a quarter of their size, so only good to a pixel or two; zero where they do not agree."""
    shape = max(8, first.shape[1] // _COARSER), max(8, first.shape[0] // _COARSER)
    small, other = (
        cv2.resize(p, shape, interpolation=cv2.INTER_AREA).astype(np.float32) for p in (first, second)
    )
    (x, y), response = cv2.phaseCorrelate(small, other, _window(shape))
    if response < _AGREED:
        return np.zeros(2, np.float32)
    return np.array([x * first.shape[1] / shape[0], y * first.shape[0] / shape[1]], np.float32)


@lru_cache(maxsize=16)
def _window(shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2.createHanningWindow(shape, cv2.CV_32F), np.float32)


def _points_in(boxes: Boxes) -> NDArray[np.float32]:
    """Points (n, k, 2) spread over each box: nine for few boxes, two for hundreds."""
    count = len(boxes)
    spread = _NINE if count <= 6 else _FIVE if count <= 40 else _TWO
    centre = (boxes[:, :2] + boxes[:, 2:]) * 0.5
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 4)
    points = centre[:, None] + sides[:, None] * spread
    return np.ascontiguousarray(points, np.float32)


def _follow(
    first: Luma, second: Luma, points: _Points, expected: _Points, levels: int
) -> tuple[_Points, NDArray[np.bool_], NDArray[np.float32]]:
    """Where each point (n, k, 2) of `first` lies in `second`, whether it was found there, and by how much the
    patches differ (n, k)."""
    height, width = first.shape
    part, origin = _surroundings(points, expected, width, height)
    start = (points - origin).reshape(-1, 1, 2)
    near = (expected - origin).reshape(-1, 1, 2)
    flags = cv2.OPTFLOW_USE_INITIAL_FLOW
    there, found, differ = cv2.calcOpticalFlowPyrLK(
        first[part], second[part], start, near, winSize=_WINDOW, maxLevel=levels, criteria=_STOP, flags=flags
    )
    good = (found > 0) & (differ < _UNLIKE)
    shape = points.shape[:2]
    end = there.reshape(points.shape) + origin
    return end, np.asarray(good.reshape(shape)), np.asarray(differ.reshape(shape), np.float32)


def _surroundings(
    points: _Points, expected: _Points, width: int, height: int
) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """The part of the picture that following `points` looks at, and its left top corner."""
    both = np.concatenate([points.reshape(-1, 2), expected.reshape(-1, 2)])
    low = np.clip(both.min(axis=0).astype(int) - _REACH, 0, (max(0, width - _LEAST), max(0, height - _LEAST)))
    high = np.clip(both.max(axis=0).astype(int) + _REACH, low + _LEAST, (width, height))
    return (slice(low[1], high[1]), slice(low[0], high[0])), low.astype(np.float32)


def _median(
    values: NDArray[np.float32], good: NDArray[np.bool_], count: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Median (n, c) over axis 1 of `values` (n, k, c), of the `count` that are good; infinite where none
    is."""
    ordered = np.sort(np.where(good[..., None], values, np.float32(np.inf)), axis=1)
    rows = np.arange(len(values))
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[1] - 1)
    return np.asarray((ordered[rows, low] + ordered[rows, high]) * np.float32(0.5))


def _growth(
    before: NDArray[np.float32], after: NDArray[np.float32], good: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """How much farther the points (n, k, 2) lie from the centre: their median, at most 10 % in a frame."""
    far = np.hypot(before[..., 0], before[..., 1])
    use = good & (far > 1)
    ratio = (np.hypot(after[..., 0], after[..., 1]) / np.maximum(far, 1)).astype(np.float32)
    return np.clip(
        _median(ratio[..., None], use, use.sum(axis=1))[:, 0], 1 - _GROWTH_MOST, 1 + _GROWTH_MOST
    ).astype(np.float32)
