"""The part of a picture that its container shows, where it shows less than all: FFmpeg decodes the whole.

# Note [Cropping]
Whoever crops a file without encoding it again means to hide what is outside, and players do not show it: neither may
the result. A picture is cut before anything looks at it, and no packets of such a file are copied.
"""

from dataclasses import dataclass
from fractions import Fraction

import av
from av.filter import Graph

from streamer.frame import Size
from streamer.media.tracks import videos_in

Crops = dict[int, "Crop"]  # by the number of the video track in MP4, by its place among them in Matroska

ONLY_A_PART = "the container shows only a part of the picture"


@dataclass(frozen=True, slots=True)
class Crop:
    """What is hidden at each side, in pixels of a decoded picture of size `of`, before it is turned upright."""

    left: int
    top: int
    right: int
    bottom: int
    of: Size

    def shown(self, size: Size, *, interlaced: bool = False) -> tuple[int, int, int, int]:
        """Left, top, width and height of what is shown of a picture of that size, whose colours begin at even places,
        and those of each of its fields, if it is `interlaced`, at every fourth line.

        >>> Crop(9, 0, 8, 0, of=Size(720, 576)).shown(Size(720, 576))
        (10, 0, 702, 576)
        """
        across, down = Fraction(size.width, self.of.width), Fraction(size.height, self.of.height)
        lines = 4 if interlaced else 2
        left, top = -(-self.left * across // 2) * 2, -(-self.top * down // lines) * lines
        right, bottom = size.width - -(-self.right * across // 1), size.height - -(-self.bottom * down // 1)
        return left, top, max(1, right - left), max(1, bottom - top)


def crop_of(sides: tuple[int, int, int, int], of: Size) -> Crop | None:
    """The crop that a container says, left, top, right and bottom; None where it hides nothing, or all."""
    left, top, right, bottom = sides
    if min(sides) < 0 or not any(sides) or left + right >= of.width or top + bottom >= of.height:
        return None
    return Crop(*sides, of)


class Cropper:
    """Cuts the decoded pictures of one stream."""

    def __init__(self, crop: Crop, time_base: Fraction) -> None:
        """`time_base`: of the stream, as the last pictures out of a decoder do not say it."""
        self._crop = crop
        self._time_base = time_base
        self._kind: tuple[object, ...] = ()
        self._interlaced = False  # the first picture
        self._graph = Graph()

    def cropped(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The shown part of a picture, whose samples are not copied."""
        if not self._kind:
            self._interlaced = picture.interlaced_frame
        kind = picture.width, picture.height, picture.format.name
        if kind != self._kind:
            size = Size(picture.width, picture.height)
            left, top, width, height = self._crop.shown(size, interlaced=self._interlaced)
            self._kind, self._graph = kind, Graph()
            source = self._graph.add_buffer(
                width=picture.width,
                height=picture.height,
                format=picture.format,
                time_base=self._time_base,
            )
            cut = self._graph.add("crop", f"{width}:{height}:{left}:{top}:exact=1")
            self._graph.link_nodes(source, cut, self._graph.add("buffersink")).configure()
        self._graph.push(picture)
        return self._graph.vpull()


def cropper_of(stream: av.VideoStream, crops: Crops) -> Cropper | None:
    """What cuts the stream's pictures; None where its container hides nothing of them."""
    container, number = stream.container, stream.id
    assert isinstance(container, av.container.InputContainer)
    if "mp4" not in container.format.name:  # Matroska: FFmpeg keeps its numbers to itself
        number = [each.index for each in videos_in(container)].index(stream.index)
    crop = crops.get(number)
    return Cropper(crop, stream.time_base or Fraction(1, 90_000)) if crop is not None else None
