"""The pixel work of the CPU: mean values of cells, and the painting of regions. See Note [Mask regions].

A plane is a matrix whose rows hold `lanes` values per sample (luma 1; chroma 2: Cb Cr Cb Cr; a still picture 3: R G B),
with `step` luma pixels per sample and axis (luma 1, chroma 2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.config import Style
from streamer.device.base import SOLID_CHROMA, SOLID_LUMA
from streamer.masking import Layout, Shape, alpha

Samples = NDArray[np.uint8]  # (rows, lanes * columns)
Means = NDArray[np.uint8]  # (rows, columns, lanes) of those cells of one grid that lie in the picture
Cover = Samples | np.uint16  # what is shown: a value, a row, a column, or all of a part
Weights = tuple[NDArray[np.uint16], NDArray[np.uint16]]  # of the region and of the picture; their sum is 256

_SINGLY = 4  # cells that are summed one by one
_FEW = 1 << 15  # values below which NumPy sums a grid faster than OpenCV, called once per row of cells
_SMALL, _LARGE = (
    1 << 14,
    1 << 20,
)  # luma pixels of regions whose weights are kept: many small, few large, none above
_PAIRWISE = 1024  # regions up to which each is compared with each


@dataclass(frozen=True, slots=True)
class Kind:
    """What the values of a plane are."""

    step: int  # luma pixels per sample
    lanes: int  # values per sample
    solid: int  # the value that covers


LUMA = Kind(1, 1, SOLID_LUMA)
CHROMA = Kind(2, 2, SOLID_CHROMA)


def interleaved(lanes: int) -> Kind:
    """Samples of a still picture, `lanes` (1 to 4) side by side: grey, RGB, transparency."""
    return Kind(1, lanes, SOLID_LUMA)


class _Grid(NamedTuple):
    """Cells in samples of one plane; those in the picture are `columns` by `rows` from `x`, `y` on."""

    x: int
    y: int
    cell: int
    columns: int
    rows: int
    x0: int  # the part of the grid inside the picture
    y0: int
    x1: int
    y1: int


class _Region(NamedTuple):
    """One region in samples of one plane."""

    rank: int  # its place in the layout
    shape: int
    width: int  # luma pixels, without the soft edge
    height: int
    feather: int  # luma pixels
    grid: int
    left: int  # where its weights begin
    top: int
    x0: int  # its part of the picture, soft edge included
    y0: int
    x1: int
    y1: int

    def part(self, plane: Any, lanes: int) -> Any:
        """The samples of a plane that it touches, as a view."""
        return plane[self.y0 : self.y1, self.x0 * lanes : self.x1 * lanes]


def paint(plane: Samples, kind: Kind, layout: Layout, style: Style) -> None:
    """Mask the regions of `layout` in `plane`, in place; nothing is written before all means are taken."""
    height, width = plane.shape[0], plane.shape[1] // kind.lanes
    grids = _grids(layout, kind.step, width, height)
    regions = _regions(layout, kind.step, width, height)
    means = [] if style is Style.SOLID else [_means(plane, grid, kind.lanes) for grid in grids]

    def cover(region: _Region) -> Cover:
        if style is Style.SOLID:
            return np.uint16(kind.solid)
        return _cover(means[region.grid], grids[region.grid], region, style)

    for group in _groups(regions):
        if len(group) > 1:
            _paint_together(plane, kind, group, cover)
            continue
        region = group[0]
        target = region.part(plane, kind.lanes)
        if region.shape == Shape.RECTANGLE and region.feather == 0:
            target[:] = cover(region)
        else:
            _blend(target, cover(region), _weights(region, kind))


def _paint_together(
    plane: Samples, kind: Kind, group: list[_Region], cover: Callable[["_Region"], Cover]
) -> None:
    """Regions that meet: each sample goes to the one of the largest weight, to the first of equals."""
    window = group[0]._replace(
        x0=min(region.x0 for region in group),
        y0=min(region.y0 for region in group),
        x1=max(region.x1 for region in group),
        y1=max(region.y1 for region in group),
    )
    target = window.part(plane, kind.lanes)
    weights, covers = np.zeros(target.shape, np.uint16), np.zeros(target.shape, np.uint8)
    for region in group:
        moved = region._replace(
            x0=region.x0 - window.x0,
            y0=region.y0 - window.y0,
            x1=region.x1 - window.x0,
            y1=region.y1 - window.y0,
        )
        best, ours = moved.part(weights, kind.lanes), _weights(region, kind)[0]
        stronger = ours > best
        np.copyto(best, ours, where=stronger)
        np.copyto(moved.part(covers, kind.lanes), cover(region), where=stronger, casting="unsafe")
    _blend(target, covers, (weights, 256 - weights))


def _blend(target: Samples, cover: Cover, weights: Weights) -> None:
    mixed = target * weights[1]
    mixed += cover * weights[0]
    mixed += 128
    np.right_shift(mixed, 8, out=target, casting="unsafe")


def _cover(means: Means, grid: _Grid, region: _Region, style: Style) -> Cover:
    """What a style shows in a region's part of the picture."""
    if means.shape[:2] == (1, 1):
        if means.shape[2] == 1:
            return np.uint16(means[0, 0, 0])
        return np.tile(means[0, 0], region.x1 - region.x0)
    size = (grid.columns * grid.cell, grid.rows * grid.cell)
    left, top = region.x0 - grid.x, region.y0 - grid.y
    right, bottom = region.x1 - grid.x, region.y1 - grid.y
    if means.shape[0] == 1:  # all rows are alike: one is made
        size, top, bottom = (size[0], 1), 0, 1
    elif means.shape[1] == 1:  # all columns are
        size, left, right = (1, size[1]), 0, 1
    way = cv2.INTER_LINEAR if style is Style.BLUR else cv2.INTER_NEAREST_EXACT
    shown = cv2.resize(means, size, interpolation=way)
    if left < 0 or top < 0 or right > size[0] or bottom > size[1]:
        before_x, before_y = max(0, -left), max(0, -top)
        after_x, after_y = max(0, right - size[0]), max(0, bottom - size[1])
        shown = cv2.copyMakeBorder(shown, before_y, after_y, before_x, after_x, cv2.BORDER_REPLICATE)
        left, right, top, bottom = left + before_x, right + before_x, top + before_y, bottom + before_y
    part = np.asarray(shown[top:bottom, left:right], np.uint8).reshape(bottom - top, -1)
    return np.tile(part, region.x1 - region.x0) if means.shape[1] == 1 < means.shape[2] else part


def _means(plane: Samples, grid: _Grid, lanes: int) -> Means:
    if grid.x1 <= grid.x0 or grid.y1 <= grid.y0:
        return np.full((grid.rows, grid.columns, lanes), 128, np.uint8)
    if grid.columns * grid.rows <= _SINGLY:
        return _means_one_by_one(plane, grid, lanes)
    part = plane[grid.y0 : grid.y1, grid.x0 * lanes : grid.x1 * lanes]
    tops, heights = _cuts(grid.y - grid.y0, grid.cell, grid.rows, grid.y1 - grid.y0)
    lefts, widths = _cuts(grid.x - grid.x0, grid.cell, grid.columns, grid.x1 - grid.x0)
    if part.size < _FEW:
        strips = np.add.reduceat(part, tops, axis=0, dtype=np.uint32)
    else:
        strips = np.empty((grid.rows, part.shape[1]), np.int32)
        for row, (top, height) in enumerate(zip(tops.tolist(), heights.tolist(), strict=True)):
            cv2.reduce(part[top : top + height], 0, cv2.REDUCE_SUM, strips[row : row + 1], cv2.CV_32S)
    sums = np.add.reduceat(strips.reshape(grid.rows, -1, lanes), lefts, axis=1, dtype=np.int64)
    counts = np.multiply.outer(heights, widths)[:, :, None]
    sums *= 2
    sums += counts
    sums //= 2 * counts
    return sums.astype(np.uint8)


def _means_one_by_one(plane: Samples, grid: _Grid, lanes: int) -> Means:
    """The same for few cells, each summed by one call."""
    pixels = plane.reshape(plane.shape[0], -1, lanes)
    means = np.empty((grid.rows, grid.columns, lanes), np.uint8)
    for row in range(grid.rows):
        top = max(grid.y + row * grid.cell, grid.y0)
        bottom = grid.y1 if row == grid.rows - 1 else grid.y + (row + 1) * grid.cell
        for column in range(grid.columns):
            left = max(grid.x + column * grid.cell, grid.x0)
            right = grid.x1 if column == grid.columns - 1 else grid.x + (column + 1) * grid.cell
            sums = cv2.sumElems(pixels[top:bottom, left:right])
            count = (bottom - top) * (right - left)
            means[row, column] = [(2 * int(value) + count) // (2 * count) for value in sums[:lanes]]
    return means


@lru_cache(maxsize=256)
def _cuts(origin: int, cell: int, count: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where `count` cells begin in samples 0..end, and how long they are; the first is at `origin` <= 0."""
    starts = origin + cell * np.arange(count)
    starts[0] = 0
    return starts, np.diff(starts, append=end)


def _weights(region: _Region, kind: Kind) -> Weights:
    area = region.width * region.height
    made = _many_made if area <= _SMALL else _few_made if area <= _LARGE else _made
    ours, theirs = made(region.shape, region.width, region.height, region.feather, kind)
    left, top = (region.x0 - region.left) * kind.lanes, region.y0 - region.top
    right, bottom = left + (region.x1 - region.x0) * kind.lanes, top + region.y1 - region.y0
    return ours[top:bottom, left:right], theirs[top:bottom, left:right]


def _made(shape: int, width: int, height: int, feather: int, kind: Kind) -> Weights:
    ours = alpha(shape, width, height, feather)
    if kind.step == 2:
        ours = np.maximum(ours[::2], ours[1::2])
        ours = np.maximum(ours[:, ::2], ours[:, 1::2])
    if kind.lanes > 1:
        ours = np.repeat(ours, kind.lanes, axis=1)
    return ours, 256 - ours


_many_made, _few_made = lru_cache(maxsize=512)(_made), lru_cache(maxsize=12)(_made)


def _groups(regions: list[_Region]) -> list[list[_Region]]:
    """The regions whose parts of the picture meet, directly or through others, together; each in its order."""
    if len(regions) > _PAIRWISE:
        return [regions]
    if len(regions) < 2:
        return [[region] for region in regions]
    x0, y0, x1, y1 = np.array([region[-4:] for region in regions], np.int32).T
    meets = (x0[:, None] < x1) & (x0 < x1[:, None]) & (y0[:, None] < y1) & (y0 < y1[:, None])
    first = np.arange(len(regions))
    while True:
        lowest = np.where(meets, first, len(regions)).min(axis=1)
        lowest = np.minimum(lowest, first)
        if (lowest == first).all():
            break
        first = lowest
    groups: dict[int, list[_Region]] = {}
    for region, group in zip(regions, first.tolist(), strict=True):
        groups.setdefault(group, []).append(region)
    return list(groups.values())


def _regions(layout: Layout, step: int, width: int, height: int) -> list[_Region]:
    outer = (layout.boxes + layout.feather[:, None] * np.array([-1, -1, 1, 1], np.int32)) // step
    spans = np.clip(outer, 0, [width, height, width, height])
    sides = layout.boxes[:, 2:] - layout.boxes[:, :2]
    table = np.column_stack([layout.shapes, sides, layout.feather, layout.grid, outer[:, :2], spans])
    return [_Region(rank, *row) for rank, row in enumerate(table.tolist())]


def _grids(layout: Layout, step: int, width: int, height: int) -> list[_Grid]:
    cells = layout.cells // step
    boxes = layout.grids // step
    origins = boxes[:, :2] + layout.first * cells[:, None]
    inside = np.clip(boxes, 0, [width, height, width, height])
    table = np.column_stack([origins, cells, layout.counts, inside])
    return [_Grid(*row) for row in table.tolist()]
