"""The outermost structure of an MP4 or MOV file, as far as FFmpeg does not tell of it."""

from pathlib import Path

_MOST_BOXES = 100_000
_HEADER, _LARGE_HEADER = 8, 16


def movies(path: Path) -> int:
    """How many movies (`moov` boxes, ISO/IEC 14496-12) lie one behind the other in the file; FFmpeg reads the first."""
    found = at = 0
    with path.open("rb") as file:
        for _ in range(_MOST_BOXES):
            file.seek(at)
            header = file.read(_LARGE_HEADER)
            found += header[4:8] == b"moov"
            size = int.from_bytes(header[:4], "big")
            if size == 1:  # the size follows, in 64 bits
                size = int.from_bytes(header[8:], "big")
            if len(header) < _HEADER or size < _HEADER:  # the end, a box up to the end, or no box
                break
            at += size
    return found
