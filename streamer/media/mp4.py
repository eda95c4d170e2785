"""The outermost structure of an MP4 or MOV file, as far as FFmpeg does not tell of it (ISO/IEC 14496-12)."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from streamer.frame import Size
from streamer.media.crop import Crop, Crops, crop_of

_MOST_BOXES = 100_000
_HEADER, _LARGE_HEADER = 8, 16
_TO_ENTRIES = (b"mdia", b"minf", b"stbl", b"stsd")  # from a track to what its samples are
_ENTRY = 78  # bytes of a picture's sample entry before the boxes in it
_LONG = 4  # bytes of each number of a `clap` box


def movies(path: Path) -> int:
    """How many movies (`moov` boxes) lie one behind the other in the file; FFmpeg reads the first."""
    with path.open("rb") as file:
        return sum(kind == b"moov" for kind, _, _ in _boxes(file, 0, None))


def crops(path: Path) -> Crops:
    """What tracks of the first movie hide of their pictures (`clap`, 12.1.4), by number; nothing of other files."""
    with path.open("rb") as file:
        movie = _first(file, b"moov", 0, None)
        tracks = [box for box in _boxes(file, *movie) if box[0] == b"trak"] if movie else []
        found = [(_number(file, start, end), _crop(file, start, end)) for _, start, end in tracks]
        return {number: crop for number, crop in found if crop is not None}


def _number(file: BinaryIO, start: int, end: int) -> int:
    header = _first(file, b"tkhd", start, end)
    data = _read(file, header[0], 24) if header else b""
    at = 20 if data[:1] == b"\1" else 12  # behind two dates, which have 64 bits in version 1
    return int.from_bytes(data[at : at + 4], "big")


def _crop(file: BinaryIO, start: int, end: int) -> Crop | None:
    place: tuple[int, int] | None = (start, end)
    for kind in _TO_ENTRIES:
        place = _first(file, kind, *place) if place else None
    entries = _boxes(file, place[0] + 8, place[1]) if place else ()
    crops = [_crop_of_entry(file, at, after) for _, at, after in entries]
    # of several, pictures do not tell which is theirs: what one of them hides is hidden in all
    return next((crop for crop in crops if crop is not None), None)


def _crop_of_entry(file: BinaryIO, start: int, end: int) -> Crop | None:
    size = Size(*(int.from_bytes(_read(file, start + at, 2), "big") for at in (24, 26)))
    box = _first(file, b"clap", start + _ENTRY, end)
    if box is None:
        return None
    data = _read(file, box[0], 8 * _LONG)
    numbers = [int.from_bytes(data[at : at + _LONG], "big", signed=True) for at in range(0, len(data), _LONG)]
    if len(numbers) < 8 or min(numbers[1::2]) <= 0:
        return None
    width, height, across, down = (up / under for up, under in zip(numbers[::2], numbers[1::2], strict=True))
    left, top = (size.width - width) / 2 + across, (size.height - height) / 2 + down
    sides = left, top, size.width - width - left, size.height - height - top
    # what lies between two pixels is hidden, but for the errors of a division
    return crop_of(tuple(int(-(-max(0.0, side - 0.01) // 1)) for side in sides), size)  # type: ignore[arg-type]


def _first(file: BinaryIO, kind: bytes, start: int, end: int | None) -> tuple[int, int] | None:
    """Where the contents of the first box of that kind begin and end."""
    return next(((at, after) for found, at, after in _boxes(file, start, end) if found == kind), None)


def _boxes(file: BinaryIO, start: int, end: int | None) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each box between two places (None: the file's end), and where its contents begin and end."""
    at, whole = start, file.seek(0, 2)
    end = whole if end is None else min(end, whole)
    for _ in range(_MOST_BOXES):
        if at + _HEADER > end:
            return
        header = _read(file, at, _LARGE_HEADER)
        size, length = int.from_bytes(header[:4], "big"), _HEADER
        if size == 1:  # the size follows, in 64 bits
            size, length = int.from_bytes(header[8:], "big"), _LARGE_HEADER
        if len(header) < _HEADER:
            return
        if size < length:  # a box up to the end, or no box
            yield header[4:8], at + length, end
            return
        yield header[4:8], at + length, at + size
        at += size


def _read(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(length)
