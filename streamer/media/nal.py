"""H.264 byte streams: splitting packets into NAL units (ITU-T H.264, 7.3.1 and annex B; ISO/IEC 14496-15, 5.2.4)."""

from collections.abc import Iterable

SLICE, IDR, SEI, SPS, PPS = 1, 5, 6, 7, 8
START = b"\x00\x00\x00\x01"
_PICTURE = frozenset(range(1, 6))  # coded slices and their partitions


def kind(unit: bytes) -> int:
    """The nal_unit_type of a unit without its start code."""
    return unit[0] & 31


def from_annexb(data: bytes) -> list[bytes]:
    """The units of a byte stream with start codes; empty ones are left out.

    >>> [unit.hex() for unit in from_annexb(bytes.fromhex("00000001670a00000168"))]
    ['670a', '68']
    """
    units: list[bytes] = []
    start = data.find(b"\x00\x00\x01")
    while start >= 0:
        after = data.find(b"\x00\x00\x01", start + 3)
        unit = data[start + 3 : after if after >= 0 else len(data)].rstrip(b"\x00")
        if unit:
            units.append(unit)
        start = after
    return units


def from_lengths(data: bytes, length_size: int) -> list[bytes]:
    """The units of a packet in which each is preceded by its length. Raises ValueError if it does not add up."""
    units: list[bytes] = []
    place = 0
    while place < len(data):
        size = int.from_bytes(data[place : place + length_size], "big")
        place += length_size
        if size <= 0 or place + size > len(data):
            raise ValueError("a NAL unit reaches beyond its packet")
        units.append(data[place : place + size])
        place += size
    return units


def length_size(extradata: bytes) -> int | None:
    """Bytes of a unit's length where `extradata` is an avcC box; None where packets carry start codes."""
    return (extradata[4] & 3) + 1 if len(extradata) > 6 and extradata[0] == 1 else None


def parameter_sets(extradata: bytes) -> list[bytes]:
    """The SPS and PPS units of an avcC box or of an Annex B extradata; of a box that is cut off, those it holds."""
    if length_size(extradata) is None:
        return [unit for unit in from_annexb(extradata) if kind(unit) in (SPS, PPS)]
    units: list[bytes] = []
    place = 5
    for mask in (31, 255):
        count = int.from_bytes(extradata[place : place + 1], "big") & mask
        place += 1
        for _ in range(count):
            size = int.from_bytes(extradata[place : place + 2], "big")
            units.append(extradata[place + 2 : place + 2 + size])
            place += 2 + size
    return [unit for unit in units if unit and kind(unit) in (SPS, PPS)]


def annexb(units: Iterable[bytes]) -> bytes:
    """The units as a byte stream with start codes."""
    return b"".join(START + unit for unit in units)


def pictures(units: Iterable[bytes]) -> list[bytes]:
    """Only the coded slices: no SEI (camera identity, time codes, captions), no parameter sets, no filler."""
    return [unit for unit in units if kind(unit) in _PICTURE]


def set_id(unit: bytes) -> int:
    """The seq_parameter_set_id of an SPS, or the pic_parameter_set_id of a PPS: the first Exp-Golomb code.

    -1 for a unit that is too damaged to have one.
    """
    payload = unit[4:] if kind(unit) == SPS else unit[1:]
    bits = int.from_bytes(payload[:8].ljust(8, b"\x00"), "big")
    zeros = 64 - bits.bit_length()
    if zeros > 31:
        return -1
    return (bits >> (63 - 2 * zeros)) - 1
