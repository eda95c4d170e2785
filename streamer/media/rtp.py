"""How a compressed picture becomes RTP packets: payload formats and headers, nothing that knows a viewer.

# Note [Equal packets]
All packets of a unit are of one length except its last, which is shorter. So the system can be given them as one
block and told where to cut it (UDP_SEGMENT), which costs a fraction of a call for each.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import TypeVar

from streamer.media import nal

MOST_PAYLOAD = 1200  # bytes; with all headers and the tag of SRTP it fits into IPv6's smallest packet, 1280
CLOCK = 90_000  # of video
SEQUENCES = 1 << 16

D = TypeVar("D", bytes, memoryview)
_FU_A, _STAP_A = 28, 24
_FIRST, _REST = struct.Struct("!BBH"), struct.Struct("!LL")  # the two parts of an RTP header
_BLOCK = 60_000  # bytes that the system takes at once
_SEGMENTS = 64


def h264_payloads(data: bytes) -> list[bytes]:
    """The payloads of one access unit in Annex B form (RFC 6184, packetization-mode 1).

    Units that fit together into a packet share one; larger ones are cut as Note [Equal packets] says.
    """
    payloads: list[bytes] = []
    small: list[bytes] = []
    for unit in nal.from_annexb(data):
        if small and 1 + sum(len(one) + 2 for one in (*small, unit)) > MOST_PAYLOAD:
            payloads.append(_together(small))
            small = []
        if len(unit) > MOST_PAYLOAD:
            payloads += _fragments(unit)
        else:
            small.append(unit)
    return [*payloads, _together(small)] if small else payloads


def _together(units: list[bytes]) -> bytes:
    """STAP-A, or the unit itself if it is alone."""
    if len(units) == 1:
        return units[0]
    importance = max(unit[0] & 0x60 for unit in units)
    return bytes([importance | _STAP_A]) + b"".join(struct.pack("!H", len(unit)) + unit for unit in units)


def _fragments(unit: bytes) -> Iterator[bytes]:
    """FU-A."""
    indicator, kind = unit[0] & 0xE0 | _FU_A, unit[0] & 31
    step = MOST_PAYLOAD - 2
    for place in range(1, len(unit), step):
        start, end = place == 1, place + step >= len(unit)
        yield bytes([indicator, start << 7 | end << 6 | kind]) + unit[place : place + step]


def vp8_payloads(data: bytes, picture_id: int) -> list[bytes]:
    """The payloads of one VP8 picture (RFC 7741), `picture_id` in 0..32767."""
    tail = struct.pack("!BH", 0x80, 0x8000 | picture_id)
    step = MOST_PAYLOAD - 4
    return [
        bytes([0x80 | (not place) << 4]) + tail + data[place : place + step]
        for place in range(0, len(data), step)
    ]


def packets(
    parts: Sequence[bytes], numbers: tuple[int, int, int, int], extension: bytes, marker: bool
) -> list[bytes]:
    """The parts as RTP packets (RFC 3550), the last with the marker bit if `marker`.

    `numbers` are the payload type, the sequence number of the first part, the time stamp and the SSRC; `extension` is a
    whole header extension or empty.
    """
    kind, first, timestamp, ssrc = numbers
    version = 0x90 if extension else 0x80
    rest = _REST.pack(timestamp, ssrc) + extension
    pack = _FIRST.pack
    made = [
        pack(version, kind, (first + place) % SEQUENCES) + rest + part
        for place, part in enumerate(parts[:-1])
    ]
    sequence = (first + len(parts) - 1) % SEQUENCES
    return [*made, pack(version, marker << 7 | kind, sequence) + rest + parts[-1]]


def extension_of(profile: int, values: bytes) -> bytes:
    """A header extension with its own head; empty if there are no values."""
    return struct.pack("!HH", profile, len(values) // 4) + values if values else b""


def blocks(datagrams: list[D]) -> Iterator[list[D]]:
    """The datagrams in runs that may be handed to the system at once: see Note [Equal packets]."""
    run: list[D] = []
    size = 0
    for datagram in datagrams:
        full = len(run) == _SEGMENTS or size + len(datagram) > _BLOCK
        if run and (full or len(datagram) > len(run[0]) or len(run[-1]) < len(run[0])):
            yield run
            run, size = [], 0
        run.append(datagram)
        size += len(datagram)
    if run:
        yield run
