"""The three headers of Vorbis (Vorbis I specification, 4.2 and 5.2.2), which a container keeps as one."""

from itertools import pairwise

_XIPH = 2  # first byte: how many headers follow the sizes, less one
_FIRST_SIZE = 30
_TYPES = (b"\x01vorbis", b"\x03vorbis", b"\x05vorbis")
_NO_COMMENTS = _TYPES[1] + bytes(4) + bytes(4) + b"\x01"  # no vendor, no comments, framing


def without_comments(headers: bytes) -> bytes | None:
    """The headers without what the comments say (names, titles, places); None where they cannot be read.

    >>> without_comments(b"no headers") is None
    True
    """
    parts = _laced(headers) if headers[:1] == bytes([_XIPH]) else _sized(headers)
    if len(parts) != len(_TYPES) or len(parts[0]) != _FIRST_SIZE:
        return None
    if any(not part.startswith(kind) for part, kind in zip(parts, _TYPES, strict=True)):
        return None
    first, _, setup = parts
    return bytes([_XIPH, len(first), len(_NO_COMMENTS)]) + first + _NO_COMMENTS + setup


def _laced(headers: bytes) -> list[bytes]:
    """Split headers whose sizes, but for the last, stand before all of them: as many 255s as fit, then the rest."""
    sizes, at = [], 1
    for _ in range(_XIPH):
        size = 0
        while headers[at : at + 1] == b"\xff":
            size, at = size + 255, at + 1
        size, at = size + int.from_bytes(headers[at : at + 1]), at + 1
        sizes.append(size)
    ends = [at, at + sizes[0], at + sum(sizes), len(headers)]
    return [headers[start:end] for start, end in pairwise(ends)]


def _sized(headers: bytes) -> list[bytes]:
    """Split headers of which each follows its size in 16 bits."""
    parts, at = [], 0
    while at < len(headers):
        size = int.from_bytes(headers[at : at + 2], "big")
        parts.append(headers[at + 2 : at + 2 + size])
        at += 2 + size
    return parts
