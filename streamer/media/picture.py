"""Between PyAV's pictures and our frames: the only place where samples change their layout.

# Note [Reference frames]
Decoded pictures are reference frames of the decoder: writing into them corrupts the pictures that follow.
Every frame of ours is a copy.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from numpy.typing import NDArray

from streamer.frame import Color, Frame, Size, Vectors

_PLANAR = frozenset({"yuv420p", "yuvj420p"})
_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
_MPEG, _JPEG = 1, 2  # AVCOL_RANGE
# samples of which FFmpeg's direct way to 4:2:0 leaves the last row or column of an odd size as it found the memory
_LEFT_UNSET = frozenset({"yuyv422", "uyvy422", "yvyu422", "nv24", "nv42"})


@dataclass(frozen=True, slots=True)
class Timing:
    """When a picture is shown, as its source says."""

    index: int
    pts: int
    time_base: Fraction
    duration: int = 0


def turn_of(picture: av.VideoFrame) -> int:
    """Degrees counter-clockwise (0, 90, 180, 270) by which the picture must be turned to stand upright."""
    return round(picture.rotation / 90) * 90 % 360


def is_mirrored(picture: av.VideoFrame) -> bool:
    """Whether the picture must be flipped top to bottom before it is turned, as front cameras ask for."""
    data = _side_data(picture, "DISPLAYMATRIX")
    if data is None:
        return False
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    return bool(a * d - b * c < 0)


def lost_shape_of(picture: av.VideoFrame) -> list[str]:
    """What players make more of a picture by than a flat one, and no result says."""
    kinds = {"SPHERICAL": "a 360 degree view", "STEREO3D": "a picture for either eye"}
    return [words for name, words in kinds.items() if _side_data(picture, name) is not None]


def color_of(picture: av.VideoFrame) -> Color:
    """What the picture says of its samples; RGB pictures become BT.709 (BT.601 below 720 lines), as encoders expect."""
    full = picture.color_range == _JPEG or picture.format.name.startswith("yuvj")
    matrix = int(picture.colorspace)
    if picture.format.is_rgb or matrix == 0:
        return Color(1 if picture.height >= 720 else 6, full_range=False)
    return Color(matrix, int(picture.color_primaries), int(picture.color_trc), full)


def frame_from_picture(picture: av.VideoFrame, timing: Timing, size: Size | None = None) -> Frame:
    """Our own upright NV12 copy of a decoded picture (see Note [Reference frames]).

    `size` is that of the stream as a viewer sees it: a picture of another size is scaled to it, between black bars
    if its shape is another. Samples of 8-bit 4:2:0 are copied as they are; other formats are converted once,
    keeping matrix and range.
    """
    turn = turn_of(picture)
    upright = (
        Size(picture.height, picture.width) if turn in (90, 270) else Size(picture.width, picture.height)
    )
    wanted = size or upright
    color = color_of(picture)
    planes = _planes(picture, turn, fitted(upright, wanted), color)
    luma, chroma = _letterboxed(*planes, wanted, color)
    plain = turn == 0 and not is_mirrored(picture) and wanted == upright
    vectors = vectors_of(picture) if plain else None
    return Frame(
        luma, chroma, wanted, timing.index, timing.pts, timing.time_base, color, timing.duration, vectors
    )


def fitted(size: Size, into: Size) -> Size:
    """The size that a picture has when it is scaled to fit: `into` itself, or even and with bars at two sides.

    >>> fitted(Size(640, 360), Size(1280, 720)), fitted(Size(640, 480), Size(1280, 720))
    (Size(width=1280, height=720), Size(width=960, height=720))
    """
    scale = min(into.width / size.width, into.height / size.height)
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (size.width, size.height))
    if into.width - width <= 2 and into.height - height <= 2:
        return into
    return Size(min(width, into.even.width), min(height, into.even.height))


def _letterboxed(
    luma: NDArray[np.uint8], chroma: NDArray[np.uint8], size: Size, color: Color
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The planes in the middle of a black picture of that size; they themselves if they fill it."""
    height, width = luma.shape
    even = size.even
    if (width, height) == (even.width, even.height):
        return luma, chroma
    whole = np.full((even.height, even.width), 0 if color.full_range else 16, np.uint8)
    colors = np.full((even.height // 2, even.width // 2, 2), 128, np.uint8)
    x, y = (even.width - width) // 4, (even.height - height) // 4  # in chroma samples
    whole[2 * y : 2 * y + height, 2 * x : 2 * x + width] = luma
    colors[y : y + height // 2, x : x + width // 2] = chroma
    return whole, colors


def _planes(
    picture: av.VideoFrame, turn: int, size: Size, color: Color
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    lying = Size(size.height, size.width) if turn in (90, 270) else size
    mirrored = is_mirrored(picture)
    if picture.format.name not in _PLANAR or (picture.width, picture.height) != (lying.width, lying.height):
        picture = _converted(picture, lying, color)
    y, u, v = (_samples(plane) for plane in picture.planes)
    if mirrored:
        y, u, v = (np.ascontiguousarray(plane[::-1]) for plane in (y, u, v))
    if turn:
        y, u, v = (cv2.rotate(plane, _TURNS[turn]) for plane in (y, u, v))  # type: ignore[assignment]
    even = size.even
    luma = np.empty((even.height, even.width), np.uint8)
    luma[: y.shape[0], : y.shape[1]] = y
    luma[y.shape[0] :] = luma[y.shape[0] - 1]
    luma[:, y.shape[1] :] = luma[:, y.shape[1] - 1 : y.shape[1]]
    chroma = cv2.merge([u, v])
    return luma, chroma  # type: ignore[return-value]


def _converted(picture: av.VideoFrame, size: Size, color: Color) -> av.VideoFrame:
    span = _JPEG if color.full_range else _MPEG
    options: dict[str, Any] = {"dst_color_range": span}
    if picture.format.is_rgb:
        options["dst_colorspace"] = color.matrix if color.matrix in (1, 5, 6) else 6
    else:
        options["src_color_range"] = span
    if picture.format.name in _LEFT_UNSET and (picture.width % 2 or picture.height % 2):
        picture = picture.reformat(format="yuv444p", interpolation="BICUBIC", **options)
    return picture.reformat(size.width, size.height, "yuv420p", interpolation="BICUBIC", **options)


def _samples(plane: Any) -> NDArray[np.uint8]:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def vectors_of(picture: av.VideoFrame) -> Vectors | None:
    """The decoder's motion vectors, if it exported any and each points one picture back.

    Vectors of B pictures, and those of the P pictures between which B pictures lie, span an unknown number of
    pictures; the caller leaves the export off for such streams.
    """
    data = _side_data(picture, "MOTION_VECTORS")
    if data is None:
        return None
    blocks = data.to_ndarray()
    scale = np.maximum(blocks["motion_scale"], 1).astype(np.float32)
    centers = np.stack([blocks["dst_x"], blocks["dst_y"]], axis=1).astype(np.float32)
    # FFmpeg: source = destination + motion / scale, so the block moved by the negative of that
    shifts = np.stack([-blocks["motion_x"] / scale, -blocks["motion_y"] / scale], axis=1).astype(np.float32)
    return Vectors(centers, shifts)


def _side_data(picture: av.VideoFrame, name: str) -> Any:
    # not picture.side_data: picture and container would hold each other, and pictures pile up until a collection
    return SideDataContainer(picture).get(name)  # type: ignore[call-arg]


def picture_from_frame(frame: Frame, pixel_format: str = "nv12") -> av.VideoFrame:
    """A picture for an encoder on the cores: `nv12` shares the frame's planes, `yuv420p` is a copy of its exact size.

    Planes on a GPU are copied to main memory first. Raises DeviceError.
    """
    luma, chroma = np.asarray(frame.luma), np.asarray(frame.chroma)
    if pixel_format == "nv12":
        picture = av.VideoFrame.from_dlpack((luma, chroma), format="nv12")
    else:
        picture = av.VideoFrame(frame.size.width, frame.size.height, "yuv420p")
        planes = (luma, *cv2.split(chroma))
        for target, samples in zip(picture.planes, planes, strict=True):
            _samples_into(target, samples)
    stamp(picture, frame)
    return picture


def stamp(picture: av.VideoFrame, frame: Frame) -> None:
    """Give the picture the frame's times and colours."""
    picture.pts = frame.pts
    picture.time_base = frame.time_base
    picture.duration = frame.duration
    color = frame.color
    picture.color_range = _JPEG if color.full_range else _MPEG
    picture.colorspace, picture.color_primaries, picture.color_trc = (
        color.matrix,
        color.primaries,
        color.transfer,
    )


def _samples_into(plane: Any, samples: NDArray[np.uint8]) -> None:
    rows = np.zeros((plane.buffer_size // plane.line_size, plane.line_size), np.uint8)
    rows[: plane.height, : plane.width] = samples[: plane.height, : plane.width]
    plane.update(rows.tobytes())
