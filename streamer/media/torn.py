"""Whether a file of a container that does not say its own size ends in the middle of one of its packets or pages."""

from pathlib import Path

_TS_PACKET = 188
_TS_SPACES = (188, 192, 204)  # from one packet to the next: bare, behind a time (M2TS), before a checksum
_TS_SYNC = 0x47
_TS_LOOKED_AT = 8  # packets, at either end
_OGG_PAGE, _OGG_HEADER = 65_307, 27  # bytes: the longest page, and a header without its table of segments

_DV_BEGINS, _DV_SEQUENCE = b"\x1f\x07\0", 12_000  # of a frame; bytes of each of its sequences
_GIF_HEADER = 13  # bytes, with the description of the screen
_PS_PACK, _PS_END, _PS_FIRST = (
    b"\0\0\1\xba",
    b"\0\0\1\xb9",
    0xBB,
)  # start codes; the first of a packet with a length
_PS_LOOKED_AT = 1 << 20  # bytes at the end: more than a pack
_PS_PACK_1, _PS_PACK_2 = 12, 14  # bytes of a pack's header in MPEG-1 and in MPEG-2, where filling may follow


def ps_is_torn(path: Path) -> bool:
    """MPEG-PS (ISO/IEC 13818-1, 2.5.3): whether the last packet of its last pack is longer than what is left of it."""
    _, tail, _ = _ends_of(path, _PS_LOOKED_AT)
    at = tail.rfind(_PS_PACK)
    while 0 <= at < len(tail):
        rest = tail[at : at + 16]
        if rest.startswith(_PS_END):
            return False
        if not rest.startswith(_PS_PACK[: min(3, len(rest))]):
            return False  # what lies behind the file, or no such packets
        if len(rest) < 6:
            return True
        if rest.startswith(_PS_PACK):
            at += _PS_PACK_2 + (rest[13] & 7 if len(rest) > 13 else 0) if rest[4] >> 6 == 1 else _PS_PACK_1
        elif rest[3] < _PS_FIRST:
            return False
        else:
            at += 6 + int.from_bytes(rest[4:6], "big")
    return at > len(tail)


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


def dv_is_torn(path: Path) -> bool:
    """DV (SMPTE 314M), whose frames all have one size: False where no frame begins with the file."""
    head, _, size = _ends_of(path, len(_DV_BEGINS) + 1)
    if not head.startswith(_DV_BEGINS):
        return False
    sequences = 12 if head[-1] & 0x80 else 10  # 50 or 60 fields a second
    return size % (sequences * _DV_SEQUENCE) != 0


def gif_is_torn(path: Path) -> bool:
    """GIF89a: whether it ends before its trailer."""
    with path.open("rb") as file:
        flags = file.read(_GIF_HEADER)[10:11]
        file.seek(_gif_colors(flags), 1)
        while introducer := file.read(1):
            if introducer == b",":
                file.seek(_gif_colors(file.read(9)[8:]) + 1, 1)
            elif introducer == b"!":
                file.seek(1, 1)
            else:
                return False  # the trailer, or no GIF
            while length := int.from_bytes(file.read(1), "big"):
                file.seek(length, 1)
    return True


def _gif_colors(flags: bytes) -> int:
    """Bytes of the table of colours that these flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


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
