"""The only seam between processors: where pixels live and are worked on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.boxes import Boxes
from streamer.config import Style
from streamer.frame import Color, Frame, Plane, Size
from streamer.masking import MaskPlan
from streamer.models import ModelSpec

_WIDE = (1, 9, 10)  # H.273 MatrixCoefficients of BT.709 and BT.2020

_MAX_HALVINGS = 3  # `tap` in kernels/view.cu knows as many
GREY = 114  # of the letterbox's empty part
SOLID_LUMA, SOLID_CHROMA = 64, 128  # what covers

Tensor = Any  # (b, 3, h, w) float32 on the device


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a part of a frame is laid into the detector's input: scaled, at the top left, the rest grey."""

    size: Size  # of the input, in pixels
    scale: float  # view pixels per frame pixel
    window: tuple[int, int, int, int]  # x0 y0 x1 y1 of the part of the frame that is looked at, even

    def frame_from_view(self, boxes: Boxes) -> Boxes:
        """Boxes of the view in frame pixels."""
        offset = np.array([self.window[0], self.window[1]] * 2, np.float32)
        return (boxes / np.float32(self.scale) + offset).astype(np.float32)


def letterbox(size: Size, side: int, stride: int = 32) -> Letterbox:
    """The view of a whole picture whose long side becomes `side` (enlarged at most by a quarter)."""
    return part_letterbox((0, 0, size.even.width, size.even.height), side, stride)


def part_letterbox(window: tuple[int, int, int, int], side: int, stride: int = 32) -> Letterbox:
    """The view of one part of a picture whose long side becomes `side` (enlarged at most by a quarter)."""
    width, height = window[2] - window[0], window[3] - window[1]
    scale = min(1.25, side / max(width, height))
    sides = (-(-max(1, round(side_px * scale)) // stride) * stride for side_px in (width, height))
    return Letterbox(Size(*sides), scale, window)


def crop_letterbox(middle: tuple[float, float], span: float, size: Size, side: int) -> Letterbox:
    """The view of a square of about `span` frame pixels, `side` pixels wide: even, and clipped to the picture.

    What lies outside is grey at the right and below, whichever side of the picture it is.
    """
    length = max(8, 2 * round(span / 2))
    left, top = (2 * round((at - length / 2) / 2) for at in middle)
    x0, y0 = (min(max(0, start), limit - 2) for start, limit in ((left, size.width), (top, size.height)))
    x1, y1 = max(x0 + 2, min(left + length, size.width)), max(y0 + 2, min(top + length, size.height))
    return Letterbox(Size(side, side), side / length, (x0, y0, x1, y1))


def shown_size(box: Letterbox) -> tuple[int, int]:
    """Width and height that the window takes up in the view."""
    x0, y0, x1, y1 = box.window
    width, height = round((x1 - x0) * box.scale), round((y1 - y0) * box.scale)
    return max(1, min(box.size.width, width)), max(1, min(box.size.height, height))


def halvings(columns: int, rows: int, width: int, height: int) -> tuple[int, int, int]:
    """How often a plane is halved before it is interpolated to (width, height), and its size then.

    >>> halvings(1920, 1081, 640, 360)
    (1, 960, 540)
    """
    level = 0
    while level < _MAX_HALVINGS and rows >> 1 >= height and columns >> 1 >= width:
        columns, rows, level = columns >> 1, rows >> 1, level + 1
    return level, columns, rows


@lru_cache(maxsize=16)
def yuv_to_bgr(color: Color) -> NDArray[np.float32]:
    """The matrix (3, 4) that makes B G R of Y Cb Cr 1, all 0..255, after ITU-T H.273.

    BT.2020 counts as BT.709, whose coefficients are near; what says nothing of itself counts as BT.601.
    """
    red, blue = (0.2126, 0.0722) if color.matrix in _WIDE else (0.299, 0.114)
    green = 1 - red - blue
    luma, chroma, black = (1.0, 1.0, 0) if color.full_range else (255 / 219, 255 / 224, 16)
    to_red, to_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    matrix = np.array(
        [
            [luma, to_blue, 0],
            [luma, -to_blue * blue / green, -to_red * red / green],
            [luma, 0, to_red],
        ]
    )
    offset = -matrix @ np.array([black, 128, 128])
    return np.column_stack([matrix, offset]).astype(np.float32)


class Session(Protocol):
    """A loaded network."""

    def __call__(self, batch: Tensor) -> Sequence[NDArray[np.float32]]:
        """Its outputs on the host, batch first; they stay valid until the next call."""


class Lender(Protocol):
    """Hands frames to one hardware encoder. Keep it as long as that, which remembers the addresses of surfaces."""

    stream: int  # CUstream for the encoder alone: nothing of ours waits for what it does

    def surface(self, frame: Frame) -> tuple[Plane, Plane]:
        """A copy of both planes, complete on return, for the encoder, who takes the memory behind luma for chroma.

        Its memory is used for another frame once nobody holds the planes. Raises DeviceError.
        """


class VideoMemory(Protocol):
    """Memory that a chip's own video decoder and encoder share with us, so that pictures need not visit the host."""

    def own(self, plane: Any) -> Plane:
        """Our writable copy of a plane that lies there."""

    def lender(self) -> Lender:
        """For one encoder. Raises DeviceError."""


class Device(Protocol):
    """Where pixels live and are worked on."""

    name: str  # "cpu", "cuda:0"

    @property
    def video(self) -> VideoMemory | None:
        """The memory that it shares with a video decoder and encoder; None where pictures come in main memory."""

    def own(self, plane: Any) -> Plane:
        """Our writable copy of a decoder's plane, on this device."""

    def view(self, frame: Frame, box: Letterbox, spec: ModelSpec) -> Tensor:
        """The detector's input (1, 3, h, w) float32 made from the planes, on this device."""

    def views(self, frames: Sequence[Frame], box: Letterbox, spec: ModelSpec) -> Tensor:
        """One input (b, 3, h, w) float32 made of frames of equal size and colour."""

    def crops(self, frame: Frame, boxes: Sequence[Letterbox], spec: ModelSpec) -> Tensor:
        """Parts of one frame as one input (b, 3, h, w) float32; all `boxes` have one size."""

    def turned(self, views: Tensor, quarters: int) -> Tensor:
        """Views (b, 3, h, w) turned by 1 to 3 quarters, counterclockwise as by `np.rot90`; a copy."""

    def most_views(self, side: int) -> int:
        """How many views of that side one run of a network should take; 1 where more are no faster."""

    def runs_at_once(self) -> int:
        """How many threads may run one session at the same time; 1 where `most_views` is more."""

    def thumbnail(self, frame: Frame, width: int) -> NDArray[np.uint8]:
        """A small luma picture (h, w) on the host, `width` wide or the frame's own width if less."""

    def load(self, spec: ModelSpec, side: int) -> Session:
        """A session for views whose long side is at most `side` pixels, before it is rounded up to the model's stride.

        Raises ModelError or DeviceError.
        """

    def redact(self, frame: Frame, plan: MaskPlan, style: Style) -> None:
        """Mask the plan's regions in the frame's planes; complete on return."""

    def cover(self, frame: Frame) -> None:
        """Make the whole picture unreadable, whatever it holds; complete on return."""
