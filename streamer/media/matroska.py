"""The outermost structure of a Matroska or WebM file (RFC 8794, RFC 9559), as far as FFmpeg does not tell of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av

from streamer.frame import Size
from streamer.media.crop import Crop, Crops, crop_of

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067  # ids of the two outermost elements
_MOST_ELEMENTS = 16  # before the segment: a header, and perhaps filling
_TRACKS, _TRACK, _TRACK_TYPE, _VIDEO = 0x1654AE6B, 0xAE, 0x83, 0xE0
_IS_VIDEO = 1  # of the types of tracks
_WIDTH, _HEIGHT = 0xB0, 0xBA
_SIDES = 0x54CC, 0x54BB, 0x54DD, 0x54AA  # PixelCropLeft, Top, Right, Bottom
_MOST_INSIDE = 100_000  # elements of one other


def end_of(path: Path) -> int | None:
    """The size that the file has by what its segment says; None where that says nothing, as live recordings do."""
    with path.open("rb") as file:
        segment = _segment(file)
        return segment[1] if segment is not None else None


def crops(path: Path) -> Crops:
    """What video tracks hide of their pictures, by their places; nothing of other files."""
    with path.open("rb") as file:
        segment = _segment(file)
        tracks = _first(file, _TRACKS, *segment) if segment is not None else None
        found = [
            _crop(file, start, end)
            for name, start, end in (_elements(file, *tracks) if tracks is not None else ())
            if name == _TRACK and _integer(file, _TRACK_TYPE, start, end) == _IS_VIDEO
        ]
        return {place: crop for place, crop in enumerate(found) if crop is not None}


def _crop(file: BinaryIO, start: int, end: int | None) -> Crop | None:
    video = _first(file, _VIDEO, start, end)
    if video is None:
        return None
    left, top, right, bottom = (_integer(file, side, *video) for side in _SIDES)
    return crop_of(
        (left, top, right, bottom), Size(_integer(file, _WIDTH, *video), _integer(file, _HEIGHT, *video))
    )


def _segment(file: BinaryIO) -> tuple[int, int | None] | None:
    """Where the contents of the segment begin and end (None: it does not say); None where there is none."""
    for number, (name, start, end) in enumerate(_elements(file, 0, None)):
        if number == _MOST_ELEMENTS or (number == 0 and name != _EBML):
            return None
        if name == _SEGMENT:
            return start, end
    return None


def _first(file: BinaryIO, wanted: int, start: int, end: int | None) -> tuple[int, int | None] | None:
    return next(((at, after) for name, at, after in _elements(file, start, end) if name == wanted), None)


def _integer(file: BinaryIO, wanted: int, start: int, end: int | None) -> int:
    """The unsigned integer in that element; 0, which all have for a default that are asked for, where it is missing."""
    found = _first(file, wanted, start, end)
    if found is None or found[1] is None:
        return 0
    file.seek(found[0])
    return int.from_bytes(file.read(min(8, found[1] - found[0])), "big")


def _elements(file: BinaryIO, start: int, end: int | None) -> Iterator[tuple[int, int, int | None]]:
    """Id of each element between two places (None: the file's end), and where its contents begin and end."""
    at, whole = start, file.seek(0, 2)
    end = whole if end is None else min(end, whole)
    for _ in range(_MOST_INSIDE):
        if at >= end:  # a size may be larger than any place in a file
            return
        file.seek(at)
        name, size = _number(file, keep_marker=True), _number(file, keep_marker=False)
        if name is None:
            return
        begin = file.tell()
        yield name, begin, None if size is None else begin + size
        if size is None:  # what follows is in it
            return
        at = begin + size


def has_alpha(stream: av.VideoStream, packet: av.Packet) -> bool:
    """Whether transparency lies beside the packet; FFmpeg's own decoders of VP8 and VP9 leave it there.

    The stream's word alone says nothing: browsers give it for every recording.
    """
    return stream.metadata.get("alpha_mode") == "1" and packet.has_sidedata("matroska_block_additional")


def _number(file: BinaryIO, *, keep_marker: bool) -> int | None:
    """The next number of variable length: an id, which keeps its length marker, or a size. None: unknown, or none."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    data = first + file.read(length - 1)
    if len(data) < length:
        return None
    marker = 1 << (7 * length)
    found = int.from_bytes(data, "big")
    if keep_marker:
        return found
    return None if found == 2 * marker - 1 else found - marker
