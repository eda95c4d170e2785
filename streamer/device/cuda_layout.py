"""Plans as the tables that the kernels read: the structures of `kernels/nv12.cuh`, `redact.cu` and `view.cu`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.frame import Size
from streamer.masking import Layout, MaskPlan, lay_out

SURFACE = np.dtype(
    [
        ("luma", "u8"),
        ("chroma", "u8"),
        ("luma_out", "u8"),
        ("chroma_out", "u8"),
        ("luma_pitch", "i4"),
        ("chroma_pitch", "i4"),
        ("luma_out_pitch", "i4"),
        ("chroma_out_pitch", "i4"),
        ("width", "i4"),
        ("height", "i4"),
        ("first_region", "i4"),
        ("regions", "i4"),
    ]
)
GRID = np.dtype(
    [
        ("box", "i4", 4),
        ("cell", "i4"),
        ("first", "i4", 2),
        ("counts", "i4", 2),
        ("surface", "i4"),
        ("first_cell", "i4"),
        ("first_block", "i4"),
        ("strips", "i4"),
        ("unused", "i4"),
    ]
)
REGION = np.dtype([("box", "i4", 4), ("shape", "i4"), ("feather", "i4"), ("grid", "i4"), ("unused", "i4")])
SOURCE = np.dtype([("luma", "u8"), ("chroma", "u8"), ("luma_pitch", "i4"), ("chroma_pitch", "i4")])
SUM_ARGS = np.dtype(
    [("surfaces", "u8"), ("grids", "u8"), ("sums", "u8"), ("grids_count", "i4"), ("unused", "i4")]
)
ROUND_ARGS = np.dtype(
    [
        ("surfaces", "u8"),
        ("grids", "u8"),
        ("sums", "u8"),
        ("means", "u8"),
        ("grids_count", "i4"),
        ("cells", "i4"),
    ]
)
PAINT_ARGS = np.dtype(
    [
        ("surfaces", "u8"),
        ("grids", "u8"),
        ("regions", "u8"),
        ("means", "u8"),
        ("style", "i4"),
        ("solid_luma", "i4"),
        ("solid_chroma", "i4"),
        ("unused", "i4"),
    ]
)
COVER_ARGS = np.dtype([("surfaces", "u8"), ("luma", "i4"), ("chroma", "i4")])
HALVED = [("level", "i4"), ("width", "i4"), ("height", "i4")]
LAID = [("luma", HALVED), ("chroma", HALVED), ("shown_width", "i4"), ("shown_height", "i4")]
DRAWN = [
    ("width", "i4"),
    ("height", "i4"),
    ("rgb", "i4"),
    ("scale", "f4"),
    ("grey", "f4"),
    ("matrix", "f4", 12),
    ("offset", "f4"),
]
VIEW_ARGS = np.dtype([("table", "u8"), ("tensor", "u8"), ("laid", LAID), ("drawn", DRAWN)])
CROP = np.dtype([("source", SOURCE), ("laid", LAID)])
CROP_ARGS = np.dtype([("table", "u8"), ("tensor", "u8"), ("drawn", DRAWN)])
TURN_ARGS = np.dtype(
    [
        ("tensor", "u8"),
        ("turned", "u8"),
        ("quarters", "i4"),
        ("width", "i4"),
        ("height", "i4"),
        ("unused", "i4"),
    ]
)
THUMBNAIL_ARGS = np.dtype(
    [("luma", "u8"), ("small", "u8"), ("size", HALVED), ("pitch", "i4"), ("width", "i4"), ("height", "i4")]
)

_STRIP_PIXELS = 8192  # luma pixels that one block of `sum_cells` adds up, about


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """The regions and grids of several frames, and how much work they are."""

    grids: NDArray[np.void]  # (m,) GRID
    regions: NDArray[np.void]  # (n,) REGION
    first_region: NDArray[np.int32]  # (frames,) index into `regions`
    counts: NDArray[np.int32]  # (frames,) how many
    cells: int  # of all grids
    blocks: int  # of the launch of `sum_cells`


def tables(plans: Sequence[MaskPlan], sizes: Sequence[Size]) -> Tables:
    """The tables of one plan per frame; `sizes` are those of the planes. Raises ValueError as `lay_out` does."""
    layouts = [lay_out(plan, size) for plan, size in zip(plans, sizes, strict=True)]
    counts = np.array([len(layout) for layout in layouts], np.int32)
    grids = _joined([_grids(layout, frame) for frame, layout in enumerate(layouts)])
    cells = grids["counts"].prod(axis=1, dtype=np.int64)
    blocks = cells * grids["strips"]
    if max(cells.sum(), blocks.sum()) >= 1 << 31:
        raise ValueError("the plan has more cells than a launch can take")
    grids["first_cell"] = np.cumsum(cells) - cells
    grids["first_block"] = np.cumsum(blocks) - blocks
    before = np.cumsum([0, *(len(layout.grids) for layout in layouts[:-1])])
    regions = _joined([_regions(layout, int(first)) for layout, first in zip(layouts, before, strict=True)])
    return Tables(
        grids,
        regions,
        (np.cumsum(counts) - counts).astype(np.int32),
        counts,
        int(cells.sum()),
        int(blocks.sum()),
    )


def _joined(tables: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    return (
        tables[0] if len(tables) == 1 else np.concatenate(tables)
    )  # which compares every field of structures


def _grids(layout: Layout, frame: int) -> NDArray[np.void]:
    table = np.zeros(len(layout.grids), GRID)
    table["box"], table["cell"] = layout.grids, layout.cells
    table["first"], table["counts"], table["surface"] = layout.first, layout.counts, frame
    pixels = layout.cells.astype(np.int64) ** 2
    table["strips"] = np.clip(-(-pixels // _STRIP_PIXELS), 1, layout.cells // 2)
    return table


def _regions(layout: Layout, first_grid: int) -> NDArray[np.void]:
    table = np.zeros(len(layout), REGION)
    table["box"], table["shape"], table["feather"] = layout.boxes, layout.shapes, layout.feather
    table["grid"] = layout.grid + first_grid
    return table
