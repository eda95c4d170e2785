"""From boxes that must be hidden to a plan of regions: the only input of the pixel work.

# Note [Mask regions]
A region is a shape in an even-cornered box (which may reach outside the picture) over a grid of square cells.
The grid is anchored at its own top left corner and travels with the track; a region's grid is its box, and
the strips of one zone share the zone's grid. Every style keeps nothing but one mean value per cell and plane
(solid keeps none): the rounded mean of the cell's pixels inside both grid and picture, as they were before
anything was masked. Mosaic shows a pixel the value of its cell (of the nearest cell beyond the grid's edge);
blur interpolates linearly between the centres of the cells.

Inside the shape a region's weight is 256; over `feather` pixels outside of it, it falls to 0 (`alpha`). A
pixel becomes `(picture * (256 - weight) + region * weight + 128) >> 8` of the one region that has the largest
weight there; on a tie, of the one that is first in the order of `lay_out`: larger cells first, so that
overlapping regions never strengthen each other's detail. The chroma plane is the same at half the size, with
the largest of the four luma weights, so that no colour stays.

# Note [Mask strength]
At most `cells` cells lie across the short side of a box and at most twice as many along the long side,
whatever its size: five rows of unlimited columns would still spell a number plate (3 x 5 pixels are a legible
font). Plates never get more than one: among 200 drawn plates of one typeface, a template attack that knows the
method names 88 % under masks of 5 cells, a third under 3, one in twenty under 2; of 100 faces, 44 % under 5 cells,
28 % under 3, 10 % under 2 (`tests/test_mask_strength.py` holds the harness). Only `solid` keeps nothing at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from streamer.boxes import Boxes, grow
from streamer.config import MaskPolicy, Style
from streamer.detection import Label
from streamer.frame import Size

_ELLIPSE_SCALE = 1.25  # an ellipse of 1.25 times a box's sides holds 97.2 % of the box
_PLATE_CELLS = 1  # see Note [Mask strength]
_MIN_SIDE = 8  # pixels; smaller boxes are masked as if they were this large
_STEPS = (
    8  # sides are rounded up to steps of 1/8 to 1/16 of themselves, so that sizes repeat and do not flicker
)


class Shape(IntEnum):
    """Outline of a masked region inside its box."""

    RECTANGLE = 0
    ELLIPSE = 1


@dataclass(frozen=True, slots=True, eq=False)
class MaskPlan:
    """Where to redact one frame, see Note [Mask regions]. Regions may overlap; their order is free."""

    boxes: NDArray[np.int32]  # (n, 4) x0 y0 x1 y1, half-open, all even
    cells: NDArray[np.int32]  # (n,) side of a cell in luma pixels, even, at least 2
    shapes: NDArray[np.uint8]  # (n,) Shape values
    feather: NDArray[np.int32]  # (n,) width of the soft edge outside, in luma pixels, even
    grids: NDArray[np.int32]  # (n, 4) the box that the cells are laid on, even

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A plan made ready for one picture: ordered, nothing twice, only what touches the picture."""

    boxes: NDArray[np.int32]  # (n, 4) as in the plan
    shapes: NDArray[np.uint8]  # (n,)
    feather: NDArray[np.int32]  # (n,)
    grid: NDArray[np.int32]  # (n,) index of the region's grid
    grids: NDArray[np.int32]  # (m, 4)
    cells: NDArray[np.int32]  # (m,)
    first: NDArray[np.int32]  # (m, 2) column and row of the first cell that lies in the picture
    counts: NDArray[np.int32]  # (m, 2) columns and rows in the picture, at least 1

    def __len__(self) -> int:
        return len(self.boxes)


def plan_masks(boxes: Boxes, labels: NDArray[np.uint8], policy: MaskPolicy, size: Size) -> MaskPlan:
    """The regions that hide `boxes` (n, 4), in frame pixels, of `labels` (n,) in a picture of `size`.

    Faces become ellipses, plates rectangles, both larger than the box by `policy.margin`. Boxes outside of
    the picture are left out; inverted ones are put right; one that is not finite covers the whole picture.
    """
    if not len(boxes):
        return nothing()
    if not np.isfinite(boxes).all():
        return whole(size, policy.cells)
    picture = np.array([size.width, size.height] * 2, np.float32)
    upright = np.concatenate(
        [np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], 1
    )
    near = np.clip(upright, -picture, 2 * picture).astype(np.float32)
    ellipse = (labels == Label.FACE) & (near == upright).all(axis=1)
    grown = grow(near, policy.margin)
    shaped = np.where(ellipse[:, None], grow(grown, _ELLIPSE_SCALE - 1), grown)
    regions = _even(shaped)
    inside = (regions[:, :2] < picture[:2]).all(axis=1) & (regions[:, 2:] > 0).all(axis=1)
    edge = policy.soft_edge * (grown[:, 2:] - grown[:, :2]).min(axis=1, initial=np.inf)
    return _plan(
        regions[inside],
        np.where(
            labels == Label.PLATE,
            cell_sides(regions, min(policy.cells, _PLATE_CELLS)),
            cell_sides(regions, policy.cells),
        )[inside],
        np.where(ellipse, Shape.ELLIPSE, Shape.RECTANGLE)[inside],
        2 * np.ceil(edge[inside] / 2),
    )


def whole(size: Size, cells: int = 5) -> MaskPlan:
    """One region that hides the whole picture, of at most `cells` across its short side."""
    box = np.array([[0, 0, size.even.width, size.even.height]], np.int32)
    return _plan(box, cell_sides(box, cells), np.array([Shape.RECTANGLE]), np.zeros(1))


def weaknesses(policy: MaskPolicy) -> tuple[str, ...]:
    """What makes these masks weaker than the default ones, a sentence each. See Note [Mask strength]."""
    usual, found = MaskPolicy(), []
    if policy.style is not Style.SOLID and policy.cells > usual.cells:
        found.append(
            f"weaker masks than usual: faces keep {policy.cells} cells across instead of {usual.cells}"
        )
    if policy.margin < usual.margin:
        found.append(f"smaller masks than usual: the margin is {policy.margin:g} instead of {usual.margin:g}")
    return tuple(found)


def nothing() -> MaskPlan:
    """A plan without regions."""
    none = np.zeros(0)
    return _plan(np.zeros((0, 4)), none, none, none)


def join(plans: Sequence[MaskPlan]) -> MaskPlan:
    """All regions of several plans."""
    plans = [plan for plan in plans if len(plan)]
    if not plans:
        return nothing()
    if len(plans) == 1:
        return plans[0]
    return MaskPlan(
        np.concatenate([plan.boxes for plan in plans]),
        np.concatenate([plan.cells for plan in plans]),
        np.concatenate([plan.shapes for plan in plans]),
        np.concatenate([plan.feather for plan in plans]),
        np.concatenate([plan.grids for plan in plans]),
    )


def lay_out(plan: MaskPlan, size: Size) -> Layout:
    """The plan for planes of `size` (even). Raises ValueError where a number breaks Note [Mask regions]."""
    rows = np.column_stack([plan.cells, plan.boxes, plan.shapes, plan.feather, plan.grids]).astype(np.int64)
    boxes, feather, grids = rows[:, 1:5], rows[:, 6], rows[:, 7:]
    odd = (rows[:, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]] % 2).any()
    if odd or (rows[:, 0] < 2).any() or (feather < 0).any() or not (_upright(boxes) and _upright(grids)):
        raise ValueError("a mask region is not even, inverted, or has no cells")
    limits = np.array([size.width, size.height])
    touching = (boxes[:, :2] - feather[:, None] < limits) & (boxes[:, 2:] + feather[:, None] > 0)
    kept = sorted({(-row[0], *row[1:]) for row in rows[touching.all(axis=1)].tolist()})
    rows = np.array(kept, np.int64).reshape(-1, 11)
    ranks: dict[tuple[int, ...], int] = {}
    index = [ranks.setdefault((-row[0], *row[7:]), len(ranks)) for row in kept]
    laid = np.array(list(ranks), np.int64).reshape(-1, 5)
    cells, grids = laid[:, 0], laid[:, 1:]
    first = np.maximum(-grids[:, :2] // cells[:, None], 0)
    last = (np.minimum(grids[:, 2:], limits) - 1 - grids[:, :2]) // cells[:, None]
    return Layout(
        boxes=rows[:, 1:5].astype(np.int32),
        shapes=rows[:, 5].astype(np.uint8),
        feather=rows[:, 6].astype(np.int32),
        grid=np.array(index, np.int32),
        grids=grids.astype(np.int32),
        cells=cells.astype(np.int32),
        first=first.astype(np.int32),
        counts=np.maximum(last - first + 1, 1).astype(np.int32),
    )


def cell_sides(boxes: NDArray[np.int32], cells: int) -> NDArray[np.int64]:
    """The even side (n,) of the cells that make boxes (n, 4) unreadable. See Note [Mask strength]."""
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.int64)
    side = np.maximum(
        -(-sides.min(axis=1, initial=1 << 40) // cells), -(-sides.max(axis=1, initial=0) // (2 * cells))
    )
    return np.asarray(side + side % 2, np.int64)


def alpha(shape: int, width: int, height: int, feather: int) -> NDArray[np.uint16]:
    """Weights 0..256 of a region of that size, `(height + 2 feather, width + 2 feather)`.

    In float32 with one order of operations, which `kernels/redact.cu` repeats to the bit. One quarter is computed
    and mirrored: the distances from the middle are whole numbers of half pixels, so both halves are equal.
    """
    columns, rows = width + 2 * feather, height + 2 * feather
    left = np.arange(-feather, (columns + 1) // 2 - feather, dtype=np.int32)
    top = np.arange(-feather, (rows + 1) // 2 - feather, dtype=np.int32)
    quarter = (_corner_of_rectangle if shape == Shape.RECTANGLE else _corner_of_ellipse)(
        left, top, width, height, feather
    )
    whole = np.empty((rows, columns), np.uint16)
    whole[: len(top), : len(left)] = quarter
    whole[: len(top), columns - columns // 2 :] = quarter[:, columns // 2 - 1 :: -1] if columns > 1 else 0
    if rows > 1:
        whole[rows - rows // 2 :] = whole[rows // 2 - 1 :: -1]
    return whole


def _corner_of_rectangle(
    left: NDArray[np.int32], top: NDArray[np.int32], width: int, height: int, feather: int
) -> NDArray[np.uint16]:
    falls = [(256 * (feather + 1 - np.maximum(-side, 0)) // (feather + 1)) for side in (left, top)]
    across, down = (fall.astype(np.uint16) for fall in falls)
    return np.minimum(across, down[:, None])


def _corner_of_ellipse(
    left: NDArray[np.int32], top: NDArray[np.int32], width: int, height: int, feather: int
) -> NDArray[np.uint16]:
    dx = (2 * left + 1 - width).astype(np.float32)
    dy = (2 * top + 1 - height).astype(np.float32)[:, None]
    inner = _level(dx, dy, width, height)
    if feather == 0:
        return np.where(inner <= 1, 256, 0).astype(np.uint16)
    outer = _level(dx, dy, width + 2 * feather, height + 2 * feather)
    fall = np.float32(256) * ((np.float32(1) - outer) / (inner - outer))
    return np.where(inner <= 1, 256, np.clip(fall, 0, 256)).astype(np.uint16)


def _level(
    dx: NDArray[np.float32], dy: NDArray[np.float32], width: int, height: int
) -> NDArray[np.float32]:  # (h, w): 1 on the ellipse of that size, less inside; dx and dy in half pixels
    per_width, per_height = (
        np.float32(1) / np.float32(width * width),
        np.float32(1) / np.float32(height * height),
    )
    return np.asarray(dx * dx * per_width + dy * dy * per_height, np.float32)


def _even(boxes: Boxes) -> NDArray[np.int32]:  # rounded outward to even corners, sides to steps
    missing = np.maximum(_MIN_SIDE - (boxes[:, 2:] - boxes[:, :2]), 0) / 2
    low = 2 * np.floor((boxes[:, :2] - missing) / 2).astype(np.int64)
    sides = 2 * np.ceil((boxes[:, 2:] + missing) / 2).astype(np.int64) - low
    step = np.maximum(2 ** np.floor(np.log2(sides)).astype(np.int64) // _STEPS, 2)
    stepped = -(-sides // step) * step
    low -= (stepped - sides) // 4 * 2
    return np.concatenate([low, low + stepped], axis=1).astype(np.int32)


def _plan(
    boxes: NDArray[np.generic],
    cells: NDArray[np.generic],
    shapes: NDArray[np.generic],
    feather: NDArray[np.generic],
) -> MaskPlan:  # of regions whose grids are their boxes
    whole_boxes = boxes.astype(np.int32)
    return MaskPlan(
        whole_boxes, cells.astype(np.int32), shapes.astype(np.uint8), feather.astype(np.int32), whole_boxes
    )


def _upright(boxes: NDArray[np.int64]) -> bool:
    return bool((boxes[:, :2] < boxes[:, 2:]).all())
