"""How the picture moved from one frame to the next, measured on a small luma picture.

# Note [Motion on demand]
Most frames of most videos hold few boxes, so nothing dense is computed. A `Motion` keeps both small pictures
and follows only the points of the boxes that somebody asks about: the tracker forward, the look-ahead
backward.
"""

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.boxes import Boxes
from streamer.flow import Flow, Luma, camera_shift, follow_boxes, global_shift
from streamer.frame import Size, Vectors

THUMBNAIL_WIDTH = 480  # long side of the small picture that the estimator likes best, in pixels
CELL = 8  # side of a cell of `Motion.changed`, in pixels of the small picture

_Change = Literal["no", "perhaps", "cut"]  # of the scene

_FAST = 2.0  # small pixels per frame from which a guess is tried
_CAMERA = 0.3  # share of the picture that changes when the camera moves
_CHANGE = 10  # grey levels by which a pixel counts as changed: above the noise of cameras and codecs
_CUT_SIZE = (64, 36)
_CUT_LIKENESS = 0.45  # correlation below which two pictures do not show the same scene
_DOUBTFUL_LIKENESS = 0.7  # below which they perhaps do not, if the picture changed much
_MUCH = 30.0  # mean difference in grey levels
_SAME = 6.0  # mean difference in grey levels below which two pictures show the same scene
_FLAT = 4.0  # standard deviation in grey levels below which a picture shows nothing (black, covered lens)


def thumbnail_width(size: Size) -> int:
    """Width of the small picture for frames of `size`: its long side becomes `THUMBNAIL_WIDTH` or stays.

    >>> thumbnail_width(Size(1920, 1080)), thumbnail_width(Size(1080, 1920)), thumbnail_width(Size(320, 240))
    (480, 270, 320)
    """
    long = max(size.width, size.height)
    return max(1, min(size.width, round(size.width * THUMBNAIL_WIDTH / long)))


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """How the picture moved from the frame before (`before`) to this one (`now`). See Note [Motion on
    demand]."""

    before: Luma  # (h, w)
    now: Luma  # (h, w)
    scale: float  # small pixels per frame pixel
    vectors: Vectors | None = None  # the decoder's, where it gave them
    cut: bool = False  # another scene begins with this frame
    doubtful: bool = False  # perhaps another one does: what is known goes on, but is not enough
    changed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((1, 1), np.bool_))  # (rows, columns)
    novel: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((1, 1), np.bool_))  # and not tracked
    _camera: list[NDArray[np.float32]] = field(default_factory=list, repr=False)  # once it was asked for

    @property
    def camera(self) -> NDArray[np.float32]:
        """Shift (2,) of a fast picture as a whole from the frame before to this one, in small pixels; else zero."""
        if not self._camera:
            moves = self.activity > _CAMERA
            shift = camera_shift(self.before, self.now) if moves else np.zeros(2, np.float32)
            self._camera.append(shift if np.hypot(*shift) > _FAST else np.zeros(2, np.float32))
        return self._camera[0]

    @property
    def activity(self) -> float:
        """Share of the picture that changed, in [0, 1]."""
        return int(np.count_nonzero(self.changed)) / self.changed.size

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the frame in pixels."""
        height, width = self.now.shape
        return width / self.scale, height / self.scale

    def forward(self, boxes: Boxes) -> Boxes:
        """Boxes (n, 4) of the frame before, as they lie in this one; a copy, unmoved across a cut."""
        return self.flow(boxes).move(boxes)

    def backward(self, boxes: Boxes) -> Boxes:
        """Boxes (n, 4) of this frame, as they lay in the one before; a copy, unmoved across a cut."""
        return self.flow(boxes, back=True).move(boxes)

    def after(self, earlier: "Motion") -> "Motion":
        """The motion from before `earlier` to now, over the frame between; the decoder's vectors are left out."""
        cut = self.cut or earlier.cut
        changed = (
            self.changed if self.changed.shape != earlier.changed.shape else self.changed | earlier.changed
        )
        return Motion(earlier.before, self.now, self.scale, None, cut, self.doubtful, changed, self.novel)

    def flow(self, boxes: Boxes, *, back: bool = False, guess: NDArray[np.float32] | None = None) -> Flow:
        """How `boxes` (n, 4) of the frame before moved to this one; `back`: those of this frame, to the one
        before.

        `guess` (n, 2), in frame pixels, NaN where unknown: where a fast object should be, which flow alone
        does not reach; it is taken where the picture agrees better with it. A box that cannot be followed
        (flat, hidden, gone) takes a fast guess, else the decoder's vectors there, else the shift of the whole
        picture, and is marked as not sure.
        """
        count = len(boxes)
        still = Flow(np.zeros((count, 2), np.float32), np.ones(count, np.float32), np.zeros(count, np.bool_))
        if not count or self.cut or self.before.shape != self.now.shape:
            return still
        first, second = (self.now, self.before) if back else (self.before, self.now)
        small = boxes * np.float32(self.scale)
        seen = follow_boxes(first, second, small)
        camera = -self.camera if back else self.camera
        if camera.any():
            seen.improve(np.arange(count), follow_boxes(first, second, small, np.tile(camera, (count, 1))))
        rest = ~seen.sure
        if guess is not None:
            ahead = guess * np.float32(self.scale)
            fast = np.flatnonzero(np.hypot(ahead[:, 0], ahead[:, 1]) > _FAST)
            if len(fast):
                seen.improve(fast, follow_boxes(first, second, small[fast], ahead[fast]))
                rest[fast] = False
        shift = seen.shift / np.float32(self.scale)
        if rest.any():
            whole = global_shift(first, second, camera)
            shift[rest] = self._vectors_else(whole / np.float32(self.scale), boxes[rest], back)
        return Flow(shift, seen.ratio, seen.sure)

    def _vectors_else(self, whole: NDArray[np.float32], boxes: Boxes, back: bool) -> NDArray[np.float32]:
        shift = np.tile(whole, (len(boxes), 1))
        if self.vectors is None or not len(self.vectors.centers):
            return shift
        centers, shifts = self.vectors.centers, self.vectors.shifts
        from_where = centers if back else centers - shifts
        for row, box in enumerate(boxes):
            inside = ((from_where >= box[:2]) & (from_where < box[2:])).all(axis=1)
            if inside.any():
                shift[row] = np.median(shifts[inside], axis=0) * (-1 if back else 1)
        return shift


class MotionEstimator:
    """Makes one `Motion` per frame from small luma pictures. Bounded state: two small pictures."""

    def __init__(self) -> None:
        self._before: Luma | None = None
        self._scene: Luma | None = None  # the last picture that showed something, tiny

    def update(
        self,
        small: Luma,
        *,
        scale: float,
        vectors: Vectors | None = None,
        tracked: Boxes | None = None,
    ) -> Motion:
        """The motion from the last frame given to this one; from nothing to the first frame, or to one of
        another shape, it is a cut.

        `small` (h, w) is kept, not copied: it must not be written afterwards. `scale` is its pixels per
        frame pixel. `tracked` (n, 4) are boxes of the frame before, in frame pixels: change in and around
        them is not novel.
        """
        before, self._before = self._before, small
        fresh = before is None or before.shape != small.shape
        change = self._change_to(small, fresh)
        if before is None or fresh:
            grid = np.ones(_grid_shape(small), np.bool_)
            return Motion(small, small, scale, vectors, True, changed=grid, novel=grid)
        changed = _changed_cells(before, small)
        novel = changed if tracked is None else _without(changed, tracked, scale / CELL)
        return Motion(before, small, scale, vectors, change == "cut", change == "perhaps", changed, novel)

    def ends_before(self, small: Luma) -> bool:
        """Whether `small` (h, w), which was not given yet, shows another scene than what was given last, or may."""
        tiny = _tiny(small)
        return self._scene is not None and not _is_flat(tiny) and _change(self._scene, tiny) != "no"

    def _change_to(self, small: Luma, fresh: bool) -> _Change:
        tiny = _tiny(small)
        if _is_flat(tiny):  # wait for what comes next
            return "cut" if fresh else "no"
        scene, self._scene = self._scene, tiny
        return "cut" if fresh or scene is None else _change(scene, tiny)


def _tiny(small: Luma) -> Luma:
    return np.asarray(cv2.resize(small, _CUT_SIZE, interpolation=cv2.INTER_LINEAR), np.uint8)


def _is_flat(tiny: Luma) -> bool:  # a black frame, a covered lens
    return cv2.meanStdDev(tiny)[1].item() < _FLAT


def _change(scene: Luma, tiny: Luma) -> _Change:
    """Whether another scene begins. See `Motion.doubtful`: of two pictures some are alike by chance."""
    difference = cv2.norm(scene, tiny, cv2.NORM_L1) / tiny.size
    if difference < _SAME:
        return "no"
    likeness = _likeness(_normalised(scene), _normalised(tiny))
    if likeness < _CUT_LIKENESS:
        return "cut"
    return "perhaps" if likeness < _DOUBTFUL_LIKENESS and difference > _MUCH else "no"


def _normalised(picture: Luma) -> NDArray[np.float32]:
    return np.asarray((picture - picture.mean()) / picture.std(), np.float32)


def _likeness(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Correlation of two normalised pictures, at the shift that fits best if they differ where they are."""
    still = float((first * second).mean())
    if still >= _CUT_LIKENESS:
        return still
    (x, y), _ = cv2.phaseCorrelate(first, second)
    move = np.array([[1, 0, x], [0, 1, y]], np.float32)
    moved = cv2.warpAffine(first, move, _CUT_SIZE, borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan)
    shared = ~np.isnan(moved)
    if shared.mean() < 0.3:
        return still
    a, b = moved[shared], second[shared]
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(1e-6, float(np.sqrt((a * a).sum() * (b * b).sum()))))


def _grid_shape(small: Luma) -> tuple[int, int]:
    return max(1, small.shape[0] // CELL), max(1, small.shape[1] // CELL)


def _changed_cells(before: Luma, now: Luma) -> NDArray[np.bool_]:
    rows, columns = _grid_shape(now)
    whole = slice(rows * CELL), slice(columns * CELL)  # cv2 averages whole cells much faster
    _, over = cv2.threshold(cv2.absdiff(before[whole], now[whole]), _CHANGE, 255, cv2.THRESH_BINARY)
    share = cv2.resize(over, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(share > 25)  # a tenth of the cell


def _without(cells: NDArray[np.bool_], boxes: Boxes, cells_per_pixel: float) -> NDArray[np.bool_]:
    """The cells that lie neither in the boxes nor around them (one box width beside, five heights below:
    the body)."""
    rest = cells.copy()
    rows, columns = rest.shape
    sides = boxes[:, 2:] - boxes[:, :2]
    low = np.floor((boxes[:, :2] - sides) * cells_per_pixel)
    high = np.ceil((boxes[:, 2:] + sides * (1, 5)) * cells_per_pixel)
    bounds = np.clip(np.concatenate([low, high], axis=1), 0, [columns, rows, columns, rows]).astype(int)
    for x0, y0, x1, y1 in bounds:
        rest[y0:y1, x0:x1] = False
    return rest


def still(size: Size) -> Motion:
    """A motion in which nothing moved, for single pictures and for tests of what comes after."""
    width = thumbnail_width(size)
    blank = np.zeros((max(1, round(size.height * width / size.width)), width), np.uint8)
    return Motion(blank, blank, width / size.width)
