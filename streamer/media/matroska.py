"""The outermost structure of a Matroska or WebM file (RFC 8794, RFC 9559), as far as FFmpeg does not tell of it."""

from pathlib import Path
from typing import BinaryIO

import av

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067  # ids of the two outermost elements
_MOST_ELEMENTS = 16  # before the segment: a header, and perhaps filling


def end_of(path: Path) -> int | None:
    """The size that the file has by what its segment says; None where that says nothing, as live recordings do."""
    with path.open("rb") as file:
        for number in range(_MOST_ELEMENTS):
            name, size = _number(file, keep_marker=True), _number(file, keep_marker=False)
            if name is None or size is None or (number == 0 and name != _EBML):
                return None
            if name == _SEGMENT:
                return file.tell() + size
            file.seek(size, 1)
    return None


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
