"""The painting of regions in machine code: `kernels/redact.c`, shipped as built for 64-bit x86 with AVX2.

It needs no compiler where it runs, and other threads run meanwhile. Where it cannot be used, `redaction` does the
same in NumPy, to the bit.
"""

import ctypes
import hashlib
import json
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer import resources
from streamer.config import Style

LIBRARY = "kernels/redact.x86_64.so"
FACTS = "kernels/redact.x86_64.json"  # what it was made of

_STYLES = {Style.MOSAIC: 0, Style.BLUR: 1, Style.SOLID: 2}
_AVX2 = 11  # CPU_AVX2 of OpenCV, whose Python leaves the name out
_MOST_LANES = 4
_BLENDED = 2  # cells of a grid that it blurs between


class _Job(ctypes.Structure):  # `Job` of kernels/redact.c
    _fields_ = (
        ("plane", ctypes.c_void_p),
        ("pitch", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("width", "height", "lanes", "step", "style", "solid")),
        ("grids", ctypes.c_void_p),
        ("regions", ctypes.c_void_p),
        ("grids_count", ctypes.c_int32),
        ("regions_count", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("means", "weights", "best", "covers", "active")),
    )


def problem() -> str | None:
    """Why the library is not used here, None where it is."""
    return _loaded()[1]


def other_machine() -> str | None:
    """Why this is no machine that the library was made for, None where it is."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 1 << 32):
        return f"it was made for 64-bit x86 and Linux, this is {platform.machine()} and {sys.platform}"
    return None if cv2.checkHardwareSupport(_AVX2) else "this processor has no AVX2"


@cache
def _loaded() -> tuple[Any, str | None]:  # its function, or what `problem` says
    other = other_machine()
    if other is not None:
        return None, other
    try:
        library = resources.path(LIBRARY)
        facts = json.loads(resources.path(FACTS).read_text(encoding="utf-8"))
        if hashlib.sha256(library.read_bytes()).hexdigest() != facts["library"]:
            return None, f"{LIBRARY} is not the file that was built"
        return opened(library), None
    except (OSError, ValueError, LookupError, AttributeError) as error:
        return None, f"{LIBRARY} cannot be loaded ({error})"


def opened(library: Path) -> Any:
    """The function of a library. Raises OSError or AttributeError."""
    function = ctypes.CDLL(str(library)).streamer_paint
    function.argtypes = (ctypes.POINTER(_Job),)
    function.restype = ctypes.c_int
    return function


def paint(
    plane: NDArray[np.uint8],
    lanes: int,
    step: int,
    solid: int,
    grids: NDArray[np.int64],
    regions: NDArray[np.int64],
    style: Style,
) -> bool:
    """Mask `plane` (rows, lanes * columns) in place as `redaction.paint` says; whether that was done.

    `grids` and `regions` have the columns of `redaction._Grid` and `_Region`. Raises ValueError where the library
    finds them wrong; then nothing was changed.
    """
    cells = grids[:, 3] * grids[:, 4]
    if not (
        problem() is None
        and plane.dtype == np.uint8
        and plane.strides[1] == 1
        and plane.flags.writeable
        and 0 < lanes <= _MOST_LANES
        and len(regions)
        and (style is not Style.BLUR or cells.max() <= _BLENDED)
    ):
        return False
    width = plane.shape[1] // lanes
    tables = [np.ascontiguousarray(table, np.int32) for table in (_numbered(grids, cells), regions)]
    scratch = [
        np.empty(int(cells.sum()) * lanes, np.uint8),
        np.empty(5 * width, np.uint16),
        np.empty(width, np.uint16),
        np.empty(2 * width * lanes, np.uint8),
        np.empty(len(regions), np.int32),
    ]
    job = _Job(
        plane.ctypes.data,
        plane.strides[0],
        *(width, plane.shape[0], lanes, step, _STYLES[style], solid),
        *(table.ctypes.data for table in tables),
        *(len(table) for table in tables),
        *(array.ctypes.data for array in scratch),
    )
    if _loaded()[0](ctypes.byref(job)):
        raise ValueError("a mask region or its cells are outside of what can be painted")
    return True


def _numbered(grids: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.column_stack([grids, np.cumsum(cells) - cells])
