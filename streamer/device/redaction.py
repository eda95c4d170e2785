"""The pixel work of the CPU: mean values of cells, and the painting of regions. See Note [Mask regions].

It is done in machine code where that runs (`painter`); what follows here is its twin in NumPy and OpenCV, for all
other machines and for grids of many cells.

A plane is a matrix whose rows hold `lanes` values per sample (luma 1; chroma 2: Cb Cr Cb Cr; a still picture 3: R G B),
with `step` luma pixels per sample and axis (luma 1, chroma 2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.config import Style
from streamer.device import painter
from streamer.device.base import SOLID_CHROMA, SOLID_LUMA
from streamer.masking import Layout, Shape, alpha

Samples = NDArray[np.uint8]  # (rows, lanes * columns)
Means = NDArray[np.uint8]  # (rows, columns, lanes) of those cells of one grid that lie in the picture
Cover = NDArray[Any]  # (rows or 1, columns or 1) of a region's part of the picture, an item per sample
Groups = list[list[int]]  # indices of regions
Table = NDArray[np.int64]  # a row per _Grid or _Region
Weights = tuple[
    NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]
]  # of the region by samples, by values, and of the picture by values; the last two add up to 256

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
    item: Any  # dtype: all values of a sample as one, because what is copied together is copied faster


LUMA = Kind(1, 1, SOLID_LUMA, np.uint8)
CHROMA = Kind(2, 2, SOLID_CHROMA, np.uint16)


def interleaved(lanes: int) -> Kind:
    """Samples of a still picture, `lanes` (1 to 4) side by side: grey, RGB, transparency."""
    return Kind(1, lanes, SOLID_LUMA, np.dtype((np.void, lanes)) if lanes == 3 else f"u{lanes}")


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


def paint(plane: Samples, kind: Kind, layout: Layout, style: Style) -> None:
    """Mask the regions of `layout` in `plane`, in place; nothing is written before all means are taken."""
    height, width = plane.shape[0], plane.shape[1] // kind.lanes
    grids = _grids(layout, kind.step, width, height)
    regions = _regions(layout, kind.step, width, height)
    if not painter.paint(plane, kind.lanes, kind.step, kind.solid, grids, regions, style):
        _paint(
            plane,
            kind,
            [_Grid(*row) for row in grids.tolist()],
            [_Region(*row) for row in regions.tolist()],
            meeting(layout),
            style,
        )


def _paint(
    plane: Samples, kind: Kind, grids: list[_Grid], regions: list[_Region], groups: Groups, style: Style
) -> None:
    height, width = plane.shape[0], plane.shape[1] // kind.lanes
    pixels = plane.reshape(height, width, kind.lanes)
    means = [_means(pixels, grid) for grid in grids] if style is not Style.SOLID else []

    def cover(region: _Region) -> Cover:
        if style is Style.SOLID:
            return np.full((1, kind.lanes), kind.solid, np.uint8).view(kind.item)
        samples: Cover = _cover(means[region.grid], grids[region.grid], region, style).view(kind.item)
        return samples[..., 0]

    for group in groups:
        touching = [regions[index] for index in group]
        if len(touching) > 1:
            _paint_together(plane, kind, touching, cover)
            continue
        region = touching[0]
        if region.x0 >= region.x1 or region.y0 >= region.y1:
            continue
        shown = cover(region)
        if region.shape == Shape.RECTANGLE and region.feather == 0:
            plane.view(kind.item)[region.y0 : region.y1, region.x0 : region.x1] = shown
        else:
            _, ours, theirs = _weights(region, kind)
            target = plane[region.y0 : region.y1, region.x0 * kind.lanes : region.x1 * kind.lanes]
            _blend(target, _by_values(shown, region.x1 - region.x0, kind), ours, theirs)


def _paint_together(
    plane: Samples, kind: Kind, group: list[_Region], cover: Callable[["_Region"], Cover]
) -> None:
    """Regions that meet: each sample goes to the one of the largest weight, to the first of equals."""
    x0, y0 = min(region.x0 for region in group), min(region.y0 for region in group)
    x1, y1 = max(region.x1 for region in group), max(region.y1 for region in group)
    if x0 >= x1 or y0 >= y1:
        return
    weights, covers = np.zeros((y1 - y0, x1 - x0), np.uint16), np.zeros((y1 - y0, x1 - x0), kind.item)
    for region in group:
        rows, columns = slice(region.y0 - y0, region.y1 - y0), slice(region.x0 - x0, region.x1 - x0)
        best, ours = weights[rows, columns], _weights(region, kind)[0]
        stronger = ours > best
        np.maximum(best, ours, out=best)
        np.copyto(covers[rows, columns], cover(region), where=stronger)
    target = plane[y0:y1, x0 * kind.lanes : x1 * kind.lanes]
    ours = weights if kind.lanes == 1 else np.repeat(weights, kind.lanes, axis=1)
    _blend(target, covers.view(np.uint8), ours, 256 - ours)


def _blend(target: Samples, cover: Samples, ours: NDArray[np.uint16], theirs: NDArray[np.uint16]) -> None:
    mixed = target * theirs
    mixed += cover * ours
    mixed += 128
    np.right_shift(mixed, 8, out=target, casting="unsafe")


def _by_values(cover: Cover, width: int, kind: Kind) -> Samples:  # (rows or 1, columns or 1) of values
    if kind.lanes == 1:
        return cover
    whole = np.repeat(cover, width, axis=1) if cover.shape[1] == 1 < width else cover
    return whole.view(np.uint8)


def _cover(means: Means, grid: _Grid, region: _Region, style: Style) -> NDArray[np.uint8]:
    """What a style shows in a region's part of the picture, `(rows or 1, columns or 1, lanes)`."""
    if means.shape[:2] == (1, 1):
        return means
    left, right = region.x0 - grid.x, region.x1 - grid.x
    top, bottom = region.y0 - grid.y, region.y1 - grid.y
    if means.shape[:2] == (2, 1):
        return _between(means[0], means[1], grid.cell, top, bottom, style)[:, None]
    if means.shape[:2] == (1, 2):
        return _between(means[0, 0], means[0, 1], grid.cell, left, right, style)[None]
    size = (grid.columns * grid.cell, grid.rows * grid.cell)
    way = cv2.INTER_LINEAR if style is Style.BLUR else cv2.INTER_NEAREST_EXACT
    shown = cv2.resize(means, size, interpolation=way)
    if left < 0 or top < 0 or right > size[0] or bottom > size[1]:
        before_x, before_y = max(0, -left), max(0, -top)
        after_x, after_y = max(0, right - size[0]), max(0, bottom - size[1])
        shown = cv2.copyMakeBorder(shown, before_y, after_y, before_x, after_x, cv2.BORDER_REPLICATE)
        left, right, top, bottom = left + before_x, right + before_x, top + before_y, bottom + before_y
    part = np.ascontiguousarray(shown[top:bottom, left:right], np.uint8)
    return part.reshape(bottom - top, right - left, -1)


def _between(
    first: NDArray[np.uint8], second: NDArray[np.uint8], cell: int, begin: int, end: int, style: Style
) -> NDArray[np.uint8]:
    """What two cells in a row show at the samples `begin` to `end` from the first one's start, (n, lanes)."""
    shown: NDArray[np.float32] = _shares(cell, begin, end, style) * (second.astype(np.float32) - first)
    shown += first + np.float32(0.5)
    return shown.astype(np.uint8)


@lru_cache(maxsize=1024)
def _shares(cell: int, begin: int, end: int, style: Style) -> NDArray[np.float32]:
    """Of the second of two cells, (n, 1)."""
    at = np.arange(begin, end, dtype=np.float32)[:, None]
    if style is Style.MOSAIC:
        return np.asarray(at >= cell, np.float32)
    return np.asarray(np.clip((at + np.float32(0.5 - 0.5 * cell)) / np.float32(cell), 0, 1), np.float32)


def _means(pixels: NDArray[np.uint8], grid: _Grid) -> Means:
    lanes = pixels.shape[2]
    if grid.x1 <= grid.x0 or grid.y1 <= grid.y0:
        return np.full((grid.rows, grid.columns, lanes), 128, np.uint8)
    if grid.columns * grid.rows <= _SINGLY:
        return _means_one_by_one(pixels, grid)
    part = pixels[grid.y0 : grid.y1, grid.x0 : grid.x1].reshape(grid.y1 - grid.y0, -1)
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


def _means_one_by_one(pixels: NDArray[np.uint8], grid: _Grid) -> Means:
    """The same for few cells, each summed by one call."""
    lanes, means = pixels.shape[2], []
    ys = [grid.y0, *(grid.y + row * grid.cell for row in range(1, grid.rows)), grid.y1]
    xs = [grid.x0, *(grid.x + column * grid.cell for column in range(1, grid.columns)), grid.x1]
    for top, bottom in pairwise(ys):
        for left, right in pairwise(xs):
            count = (bottom - top) * (right - left)
            sums = cv2.sumElems(pixels[top:bottom, left:right])
            means += [(2 * int(value) + count) // (2 * count) for value in sums[:lanes]]
    return np.array(means, np.uint8).reshape(grid.rows, grid.columns, lanes)


@lru_cache(maxsize=256)
def _cuts(origin: int, cell: int, count: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where `count` cells begin in samples 0..end, and how long they are; the first is at `origin` <= 0."""
    starts = origin + cell * np.arange(count)
    starts[0] = 0
    return starts, np.diff(starts, append=end)


def _weights(region: _Region, kind: Kind) -> Weights:
    area = region.width * region.height
    made = _many_made if area <= _SMALL else _few_made if area <= _LARGE else _made
    whole = made(region.shape, region.width, region.height, region.feather, kind.step, kind.lanes)
    left, top = region.x0 - region.left, region.y0 - region.top
    right, bottom = left + region.x1 - region.x0, top + region.y1 - region.y0
    if left == top == 0 and (bottom, right) == whole[0].shape:
        return whole
    samples, ours, theirs = whole
    values = slice(left * kind.lanes, right * kind.lanes)
    return samples[top:bottom, left:right], ours[top:bottom, values], theirs[top:bottom, values]


def _made(shape: int, width: int, height: int, feather: int, step: int, lanes: int) -> Weights:
    samples = alpha(shape, width, height, feather)
    if step == 2:
        samples = np.maximum(samples[::2], samples[1::2])
        samples = np.maximum(samples[:, ::2], samples[:, 1::2])
    ours = np.repeat(samples, lanes, axis=1) if lanes > 1 else samples
    return samples, ours, 256 - ours


_many_made, _few_made = lru_cache(maxsize=512)(_made), lru_cache(maxsize=12)(_made)


def meeting(layout: Layout) -> Groups:
    """The regions whose boxes, soft edges included, meet directly or through others, together; each in its order."""
    count = len(layout)
    if count > _PAIRWISE:
        return [list(range(count))]
    if count < 2:
        return [[index] for index in range(count)]
    x0, y0, x1, y1 = (layout.boxes + layout.feather[:, None] * np.array([-1, -1, 1, 1], np.int32)).T
    meets = (x0[:, None] < x1) & (x0 < x1[:, None]) & (y0[:, None] < y1) & (y0 < y1[:, None])
    first = np.arange(count)
    while True:
        lowest = np.minimum(np.where(meets, first, count).min(axis=1), first)
        if (lowest == first).all():
            break
        first = lowest
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(first.tolist()):
        groups.setdefault(group, []).append(index)
    return list(groups.values())


def _regions(layout: Layout, step: int, width: int, height: int) -> Table:
    outer = (layout.boxes + layout.feather[:, None] * np.array([-1, -1, 1, 1], np.int32)) // step
    spans = np.clip(outer, 0, [width, height, width, height])
    sides = layout.boxes[:, 2:] - layout.boxes[:, :2]
    return np.column_stack([layout.shapes, sides, layout.feather, layout.grid, outer[:, :2], spans])


def _grids(layout: Layout, step: int, width: int, height: int) -> Table:
    cells = layout.cells // step
    boxes = layout.grids // step
    origins = boxes[:, :2] + layout.first * cells[:, None]
    inside = np.clip(boxes, 0, [width, height, width, height])
    return np.column_stack([origins, cells, layout.counts, inside])
