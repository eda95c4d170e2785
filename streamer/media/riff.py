"""The outermost structure of an AVI file (RIFF, OpenDML's chunks too), as far as FFmpeg does not tell of it."""

from pathlib import Path

_HEADER = 8  # a name and a size, which does not count it: with some writers it does
_UNKNOWN = (0, 0xFFFFFFFF)  # not written yet, as in recordings that were broken off
_MOST_CHUNKS = 100_000


def end_of(path: Path) -> int | None:
    """The size that the file has by what its chunks say; None where they say nothing, or that all is there."""
    at, whole = 0, path.stat().st_size
    with path.open("rb") as file:
        for _ in range(_MOST_CHUNKS):
            file.seek(at)
            header = file.read(_HEADER)
            size = int.from_bytes(header[4:], "little")
            if header[:4] != b"RIFF" or len(header) < _HEADER or size in _UNKNOWN:
                return None
            if at + size > whole:
                return at + _HEADER + size
            at += _HEADER + size + size % 2
    return None
