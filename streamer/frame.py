"""The picture that flows through everything, and the proof that it may leave.

# Note [Receipts]
A raw picture is a `Frame`. The only things that a sink, an encoder, a viewer or a file accepts as video are
`Redacted` (a frame whose masks are in its pixels) and `Clean` (a group of source packets whose every frame
was judged and needs no mask). Both are made in one module, `anonymizer`, and nowhere else; a test looks for their
constructors. They are classes and not aliases so that a sink can also refuse a raw frame at run time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Plane = Any  # a uint8 array: NumPy on the CPU, a device array on a GPU; only device/ looks inside


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height of a picture in pixels."""

    width: int
    height: int

    @property
    def even(self) -> "Size":
        """The size of the planes that hold a picture of this size: rounded up to even numbers."""
        return Size(self.width + self.width % 2, self.height + self.height % 2)


@dataclass(frozen=True, slots=True)
class Color:
    """How the samples are meant, as FFmpeg (and ITU-T H.273) numbers it; 2 is unspecified."""

    matrix: int = 2
    primaries: int = 2
    transfer: int = 2
    full_range: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Where the blocks of a picture came from, as the decoder saw it."""

    centers: NDArray[np.float32]  # (n, 2) x y of each block in this picture, in pixels
    shifts: NDArray[np.float32]  # (n, 2) how far it moved since the picture before, in pixels


class Gop(Protocol):
    """One closed group of pictures of a file, whose source packets are still at hand."""

    @property
    def copyable(self) -> bool:
        """Whether its packets may travel as they are, as far as is known, if no frame of it needs a mask."""

    @property
    def silent(self) -> bool:
        """Whether its decoder conceals damage and does not say so."""

    def decode_again(self, count: int, *, strict: bool = False) -> "Iterator[Frame]":
        """Its first `count` frames anew, in order, from the packets.

        Raises RedactionError if there are fewer and, if `strict`, for whatever a decoder objects to.
        """

    def release(self) -> None:
        """Its packets will not be wanted: let go of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One upright NV12 picture with even-sized planes that we own and may write.

    `size` is the picture as a viewer sees it; where a side is odd, the planes hold one more row or column (a
    copy of the last).
    """

    luma: Plane  # (H, W) uint8, H and W even
    chroma: Plane  # (H/2, W/2, 2) uint8, Cb Cr interleaved
    size: Size
    index: int  # counts the frames of the source from 0
    pts: int  # in time_base units
    time_base: Fraction  # seconds
    color: Color = Color()
    duration: int = 0  # in time_base units; 0 where unknown
    vectors: Vectors | None = None
    gop: Gop | None = None
    layout: int = (
        0  # another number: the source's pictures have another shape than before, and things other places
    )

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        return (
            self.pts * self.time_base.numerator / self.time_base.denominator
        )  # exact, without a new Fraction

    @property
    def planes_size(self) -> Size:
        """The size of the luma plane."""
        return self.size.even


@dataclass(frozen=True, slots=True)
class HiddenObject:
    """One object that is hidden in a frame, as the image API names it."""

    label: str  # "Face" or "License plate"
    box: tuple[float, float, float, float]  # x y w h, normalised to 0..1
    score: float | None = None  # the detector's, None where nothing was detected (static zone)
    track_id: int | None = None


@dataclass(frozen=True, slots=True)
class FrameResult:
    """The image API's answer for one frame."""

    index: int
    pts: int
    time_s: float
    width: int
    height: int
    objects: tuple[HiddenObject, ...] = ()
    covered: str | None = None  # why the whole picture was covered; None when it was not

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: `objects[{class, box{x,y,w,h}, score, track_id}]`."""
        objects = []
        for item in self.objects:
            entry: dict[str, Any] = {
                "class": item.label,
                "box": dict(zip("xywh", (round(side, 6) for side in item.box), strict=True)),
            }
            if item.score is not None:
                entry["score"] = round(item.score, 4)
            if item.track_id is not None:
                entry["track_id"] = item.track_id
            objects.append(entry)
        answer = {
            "frame": self.index,
            "pts": self.pts,
            "time_s": round(self.time_s, 6),
            "width": self.width,
            "height": self.height,
            "objects": objects,
        }
        if self.covered is not None:
            answer["covered"] = self.covered
        return answer


@dataclass(frozen=True, slots=True, eq=False)
class Redacted:
    """A frame whose masks are in its pixels, with its receipt. See Note [Receipts]."""

    frame: Frame
    result: FrameResult


@dataclass(frozen=True, slots=True, eq=False)
class Clean:
    """A group of pictures whose every frame was judged and needs no mask. See Note [Receipts]."""

    gop: Gop
    results: tuple[FrameResult, ...] = field(default=())
