"""Whether a file of a container that does not say its own size ends in the middle of one of its packets or pages."""

from pathlib import Path

_TS_PACKET = 188
_TS_SPACES = (188, 192, 204)  # from one packet to the next: bare, behind a time (M2TS), before a checksum
_TS_SYNC = 0x47
_TS_LOOKED_AT = 8  # packets, at either end
_OGG_PAGE, _OGG_HEADER = 65_307, 27  # bytes: the longest page, and a header without its table of segments


def ts_is_torn(path: Path) -> bool:
    """MPEG-TS (ISO/IEC 13818-1, 2.4.3.2): False where its packets are not found at both ends."""
    longest = _TS_SPACES[-1] * (_TS_LOOKED_AT + 1)
    head, tail, size = _ends_of(path, longest)
    for space in _TS_SPACES:
        for first in range(min(space, len(head))):
            if not _are_syncs(head[first::space]):
                continue
            after = (size - first) % space  # bytes from the last sync byte on
            whole = _TS_PACKET % space if space < _TS_SPACES[-1] else 0
            return after != whole and _are_syncs(tail[::-1][(after or space) - 1 :: space])
    return False


def _are_syncs(found: bytes) -> bool:
    looked_at = found[:_TS_LOOKED_AT]
    return len(looked_at) == _TS_LOOKED_AT and set(looked_at) == {_TS_SYNC}


def ogg_is_torn(path: Path) -> bool:
    """Ogg (RFC 3533): whether its last page is longer than what is left of the file."""
    _, tail, _ = _ends_of(path, 2 * _OGG_PAGE)
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if not page.startswith(b"OggS"):
        return False
    if len(page) < _OGG_HEADER:
        return True
    segments, table = page[_OGG_HEADER - 1], page[_OGG_HEADER:]
    return len(table) < segments + sum(table[:segments])


def _ends_of(path: Path, length: int) -> tuple[bytes, bytes, int]:
    """The first and the last bytes of a file, and its size."""
    with path.open("rb") as file:
        head = file.read(length)
        size = file.seek(0, 2)
        file.seek(max(0, size - length))
        return head, file.read(length), size
