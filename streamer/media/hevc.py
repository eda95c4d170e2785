"""HEVC byte streams: NAL units and the ids of parameter sets (ITU-T H.265, 7.3; ISO/IEC 14496-15, 8.3.2).

# Note [Ids of HEVC parameter sets]
x265 always writes id 0, as most cameras do, and two kinds of sets cannot stand in one header under the same ids. So
ours are renamed: VPS, SPS and PPS are written anew with another id, and every slice names its PPS. A slice's header
ends on a byte, and its length in bits must not change by anything but whole bytes, or all that follows would have to
be parsed and shifted. PPS id 0 is the single bit 1; the ids 15 to 30 take nine bits, one byte more. Of these only
those are used whose last two bits (of id + 1) are not both 0: then neither of the two bytes that take the place of
one is 0, and no emulation prevention has to be added or taken away.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from streamer.media import nal

RADL, RASL, BLA, IDR, CRA = (6, 7), (8, 9), (16, 17, 18), (19, 20), 21
VPS, SPS, PPS = 32, 33, 34
_ENDS = frozenset({36, 37})  # end of sequence, end of bitstream
_PICTURE = frozenset({*range(10), *range(16, 22)})  # coded slices; the other numbers below 32 are reserved
_IDS = {VPS: range(1, 16), SPS: range(1, 16), PPS: [number for number in range(15, 31) if (number + 1) & 3]}


@dataclass(frozen=True, slots=True)
class Ids:
    """What our parameter sets are called."""

    vps: int
    sps: int
    pps: int


def kind(unit: bytes) -> int:
    """The nal_unit_type of a unit without its start code."""
    return unit[0] >> 1 & 63


def layer(unit: bytes) -> int:
    """The nuh_layer_id of a unit; 0 is the picture that every decoder shows."""
    return (unit[0] & 1) << 5 | unit[1] >> 3 if len(unit) > 1 else 0


def length_size(extradata: bytes) -> int | None:
    """Bytes of a unit's length where `extradata` is an hvcC box; None where packets carry start codes."""
    return (extradata[21] & 3) + 1 if len(extradata) > 22 and extradata[0] == 1 else None


def parameter_sets(extradata: bytes) -> list[bytes]:
    """The VPS, SPS and PPS units of an hvcC box or of Annex B extradata; of a box that is cut off, those it holds."""
    if length_size(extradata) is None:
        units = nal.from_annexb(extradata)
    else:
        units = []
        place = 23
        for _ in range(extradata[22]):
            count = int.from_bytes(extradata[place + 1 : place + 3], "big")
            place += 3
            for _ in range(count):
                size = int.from_bytes(extradata[place : place + 2], "big")
                units.append(extradata[place + 2 : place + 2 + size])
                place += 2 + size
                if place > len(extradata):
                    break
    return [unit for unit in units if len(unit) > 2 and kind(unit) in (VPS, SPS, PPS) and layer(unit) == 0]


def pictures(units: Iterable[bytes]) -> list[bytes]:
    """Only the coded slices of the base layer: no SEI, no parameter sets, no filler, nothing unspecified."""
    return [unit for unit in units if kind(unit) in _PICTURE and layer(unit) == 0]


def opens(units: Iterable[bytes]) -> bool:
    """Whether a closed group begins here: an IDR picture. CRA and BLA pictures begin none."""
    return any(kind(unit) in IDR for unit in units)


def leads(units: Iterable[bytes]) -> bool:
    """Whether this picture is decoded after its IDR picture, refers to no earlier one, and is shown before it."""
    kinds = {kind(unit) for unit in pictures(units)}
    return bool(kinds) and kinds <= set(RADL)


def refusal(units: Iterable[bytes]) -> str | None:
    """Why a packet of these units may not be copied; None where it may."""
    for unit in units:
        number = kind(unit)
        if number < 32 and (layer(unit) or len(unit) < 3):
            return "pictures of a second layer, or empty ones"
        if number < 32 and number not in _PICTURE:
            return "slices of a kind that is reserved"
        if number in RASL or number in BLA:
            return "an open group: pictures that refer to what comes before their key picture"
        if number in _ENDS:
            return "a sequence that ends within"
        if number in IDR and unit[2] & 0x40:
            return "a key picture that discards the pictures before it"
    return None


def set_id(unit: bytes) -> int:
    """The id of a VPS, SPS or PPS; -1 for a unit that is too damaged to have one."""
    try:
        bits = _bits(unit[:120])
        if kind(unit) == VPS:
            return int(bits[:4], 2)
        return _number(bits, _sps_id_at(bits) if kind(unit) == SPS else 0)[0]
    except ValueError:
        return -1


def free_ids(taken: Iterable[bytes]) -> Ids | None:
    """Ids for our parameter sets that none of these uses; None where there are none left."""
    used = {(kind(unit), set_id(unit)) for unit in taken}
    found = [
        next((number for number in _IDS[which] if (which, number) not in used), None)
        for which in (VPS, SPS, PPS)
    ]
    vps, sps, pps = found
    return Ids(vps, sps, pps) if vps is not None and sps is not None and pps is not None else None


def renamed(unit: bytes, ids: Ids) -> bytes:
    """A parameter set or a slice of x265 under other ids; see Note [Ids of HEVC parameter sets].

    Raises ValueError if its own ids are not 0.
    """
    if kind(unit) in _PICTURE:
        return _slice_renamed(unit, ids.pps)
    bits = _bits(unit).rstrip("0")  # up to the stop bit
    if kind(unit) == VPS:
        return _unit(unit[:2], f"{ids.vps:04b}{bits[4:]}")
    if kind(unit) == SPS:
        at = _sps_id_at(bits)
        number, after = _number(bits, at)
        new = f"{ids.vps:04b}{bits[4:at]}{_code(ids.sps)}{bits[after:]}"
    elif kind(unit) == PPS:
        number, middle = _number(bits, 0)
        second, after = _number(bits, middle)
        number = number or second
        new = f"{_code(ids.pps)}{_code(ids.sps)}{bits[after:]}"
    else:
        raise ValueError("neither a slice nor a parameter set")
    if number:
        raise ValueError("parameter sets with an id already")
    return _unit(unit[:2], new)


def _slice_renamed(unit: bytes, pps: int) -> bytes:
    at = 2 if 16 <= kind(unit) <= 23 else 1  # flags before the id
    bits = f"{unit[2]:08b}"
    if len(unit) < 4 or bits[at] != "1":
        raise ValueError("a slice whose parameter set is not number 0")
    new = f"{bits[:at]}{_code(pps)}{bits[at + 1 :]}"
    return unit[:2] + int(new, 2).to_bytes(2, "big") + unit[3:]


def _bits(unit: bytes) -> str:
    """The payload without emulation prevention, as a text of 0 and 1."""
    payload = unit[2:]
    clean = bytearray()
    zeros = 0
    for byte in payload:
        if zeros >= 2 and byte == 3:
            zeros = 0
            continue
        zeros = zeros + 1 if byte == 0 else 0
        clean.append(byte)
    return "".join(f"{byte:08b}" for byte in clean)


def _unit(header: bytes, bits: str) -> bytes:
    """A unit from bits that end with their stop bit."""
    whole = bits + "0" * (-len(bits) % 8)
    unit = bytearray(header)
    zeros = 0
    for byte in int(whole, 2).to_bytes(len(whole) // 8, "big"):
        if zeros >= 2 and byte <= 3:
            unit.append(3)
            zeros = 0
        zeros = zeros + 1 if byte == 0 else 0
        unit.append(byte)
    return bytes(unit)


def _sps_id_at(bits: str) -> int:
    """Where the id of an SPS stands: behind profile_tier_level, whose length depends on the sub-layers."""
    more = int(bits[4:7], 2)
    at = 8 + 96
    if more:
        flags = bits[at : at + 2 * more]
        at += 16 + 88 * flags[::2].count("1") + 8 * flags[1::2].count("1")
    return at


def _number(bits: str, at: int) -> tuple[int, int]:
    """The Exp-Golomb code at a place, and the place behind it. Raises ValueError where there is none."""
    one = bits.find("1", at)
    end = 2 * one - at + 1
    if one < 0 or one - at > 31 or end > len(bits):
        raise ValueError("no number where one should be")
    return int(bits[one:end], 2) - 1, end


def _code(number: int) -> str:
    """The Exp-Golomb code of a number."""
    bits = f"{number + 1:b}"
    return "0" * (len(bits) - 1) + bits
