"""Polygons of a fixed camera's picture that are always masked, or in which nothing is."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.boxes import Boxes
from streamer.config import MaskPolicy
from streamer.errors import ConfigError
from streamer.frame import Size
from streamer.masking import MaskPlan, Shape, cell_sides, join, nothing

Polygon = tuple[tuple[float, float], ...]  # x y of its corners, 0..1 of the picture's width and height

_ROWS = 48  # strips that a polygon is cut into, about
_LIMIT = 4096  # corners of one polygon
_COMMON = 1e-6  # share of a side that lies on another one, from which it is no rounding


@dataclass(frozen=True, slots=True)
class Zones:
    """What a zones file says."""

    mask: tuple[Polygon, ...] = ()  # always masked
    keep: tuple[Polygon, ...] = ()  # boxes whose centre lies in one of these are not masked


def load_zones(path: Path) -> Zones:
    """Zones from a JSON file `{"mask": [[[x, y], ...], ...], "keep": [...]}`. Raises ConfigError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_once)
    except OSError as error:
        raise ConfigError(f"cannot read the zones ({error.strerror}): {path}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the zones are not JSON ({error}): {path}") from error
    return zones_from(found, path)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object: of two lists of one name the first would be lost without a word. Raises ValueError."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'"{name}" stands there twice')
    return dict(pairs)


def zones_from(found: Any, origin: object) -> Zones:
    """Zones from what stands in a zones file; `origin` is named in errors. Raises ConfigError."""
    if not isinstance(found, dict) or not found.keys() <= {"mask", "keep"}:
        raise ConfigError(f'the zones must be an object with "mask" and "keep", lists of polygons: {origin}')
    return Zones(*(_polygons(found.get(name, []), name, origin) for name in ("mask", "keep")))


@lru_cache(maxsize=16)
def plan_zones(zones: Zones, policy: MaskPolicy, size: Size) -> MaskPlan:
    """Regions over every pixel that a `mask` polygon touches, and few beside.

    A polygon is cut into strips which share one grid over the polygon's bounds: its mask is as strong as that
    of a box of its size, however thin its parts. See Note [Mask strength].
    """
    return join([nothing(), *(_plan(polygon, policy, size) for polygon in zones.mask)])


def kept(zones: Zones, boxes: Boxes, size: Size) -> NDArray[np.bool_]:
    """Which of `boxes` (n, 4), in frame pixels, have their centre in a `keep` polygon, (n,)."""
    within = np.zeros(len(boxes), np.bool_)
    if not zones.keep:
        return within
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2 / np.array([size.width, size.height], np.float32)
    for polygon in zones.keep:
        outline = np.array(polygon, np.float32)
        for index, (x, y) in enumerate(centers.tolist()):
            if np.isfinite((x, y)).all():
                within[index] |= cv2.pointPolygonTest(outline, (x, y), False) >= 0
    return within


def _plan(polygon: Polygon, policy: MaskPolicy, size: Size) -> MaskPlan:
    planes = size.even
    corners = np.array(polygon) * [size.width, size.height]
    low = np.clip(2 * np.floor(corners.min(axis=0) / 2), 0, [planes.width - 2, planes.height - 2]).astype(int)
    high = np.clip(2 * np.ceil(corners.max(axis=0) / 2), low + 2, [planes.width, planes.height]).astype(int)
    step = 2 * max(1, int(high[1] - low[1]) // (2 * _ROWS))
    strips = _strips(_touched(corners, planes), low, high, step)
    count = len(strips)
    grid = np.array([[*low, *high]], np.int32)
    return MaskPlan(
        boxes=strips,
        cells=np.repeat(cell_sides(grid, policy.cells), count).astype(np.int32),
        shapes=np.full(count, Shape.RECTANGLE, np.uint8),
        feather=np.zeros(count, np.int32),
        grids=np.repeat(grid, count, axis=0),
    )


def _touched(
    corners: NDArray[np.float64], planes: Size
) -> NDArray[np.uint8]:  # (h, w): 1 where the polygon is
    inside = np.zeros((planes.height, planes.width), np.uint8)
    shifted = np.rint((corners - 0.5) * 16).astype(np.int32)  # pixel centres are whole numbers to OpenCV
    cv2.fillPoly(inside, [shifted], 1, cv2.LINE_8, 4)
    cv2.polylines(
        inside, [shifted], True, 1, 2, cv2.LINE_8, 4
    )  # filling alone loses slivers of parts of a pixel
    return np.asarray(cv2.dilate(inside, np.ones((3, 3), np.uint8)), np.uint8)


def _strips(
    inside: NDArray[np.uint8], low: NDArray[np.int_], high: NDArray[np.int_], step: int
) -> NDArray[
    np.int32
]:  # (n, 4) even boxes over all of `inside`, those of equal width below each other joined
    open_runs: dict[tuple[int, int], int] = {}
    strips: list[tuple[int, int, int, int]] = []
    for top in range(low[1], high[1] + step, step):
        bottom = min(top + step, int(high[1]))
        line = inside[top:bottom, low[0] : high[0]].any(axis=0) if top < bottom else np.zeros(0, np.bool_)
        pairs = line.reshape(-1, 2).any(axis=1)
        edges = np.flatnonzero(np.diff(pairs, prepend=False, append=False)) * 2 + low[0]
        runs = set(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
        for run in open_runs.keys() - runs:
            strips.append((run[0], open_runs.pop(run), run[1], min(top, int(high[1]))))
        for run in runs:
            open_runs.setdefault(run, top)
    return np.array(sorted(strips), np.int32).reshape(-1, 4)


def _polygons(found: Any, name: str, origin: object) -> tuple[Polygon, ...]:
    if not isinstance(found, list):
        raise ConfigError(f'"{name}" must be a list of polygons: {origin}')
    return tuple(_polygon(item, f"{name}[{place}]", origin) for place, item in enumerate(found))


def _polygon(found: Any, place: str, origin: object) -> Polygon:
    if not isinstance(found, list) or not 3 <= len(found) <= _LIMIT:
        raise ConfigError(f"{place} must be a list of 3 to {_LIMIT} corners [x, y]: {origin}")
    for corner in found:
        right = isinstance(corner, list) and len(corner) == 2 and all(map(_is_share, corner))
        if not right:
            raise ConfigError(f"{place} has a corner that is not [x, y] with x and y in 0..1: {origin}")
    polygon = tuple((float(x), float(y)) for x, y in found)
    if _crosses_itself(polygon):
        raise ConfigError(
            f"{place} crosses itself or is drawn twice; give its corners once, in the order of its outline: {origin}"
        )
    return polygon


def _crosses_itself(polygon: Polygon) -> bool:
    """Whether two sides cross, or lie on each other and go the same way, as of an outline that is drawn twice: what
    such a polygon encloses twice, or not at all, is less than was meant.

    Sides that touch, or lie on each other and go opposite ways, as around a hole, do not cross.
    """
    starts = np.array(polygon)
    ends = np.roll(starts, -1, axis=0)
    for start, end in zip(starts, ends, strict=True):
        first, second = _turns(start, end, starts), _turns(start, end, ends)
        if ((first * second < 0) & (_turns(starts, ends, start) * _turns(starts, ends, end) < 0)).any():
            return True
        level = (first == 0) & (second == 0)
        side = end - start
        length = side @ side
        begin, stop = ((places[level] - start) @ side for places in (starts, ends))
        if (np.minimum(stop, length) - np.maximum(begin, 0) > _COMMON * length).sum() > 1:  # with itself
            return True
    return False


def _turns(
    start: NDArray[np.float64], end: NDArray[np.float64], point: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Whether points (..., 2) lie left (1), right (-1) or on (0) the lines from `start` to `end` (..., 2)."""
    (dx, dy), (px, py) = (end - start).T, (point - start).T
    return np.asarray(np.sign(np.round(dx * py - dy * px, 12)))  # what lies on it but for rounding lies on it


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
