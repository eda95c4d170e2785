"""The process that talks to one push target, started by `media.push`: see Note [A process for each target].

Reads the address (one line) and then packets from stdin: pts, kind, length, bytes. Says on stdout, one line each,
`ready` when the target has accepted the stream, or `failed: REASON` before it ends.
"""

import struct
import sys
from fractions import Fraction
from typing import BinaryIO

import av

from streamer.address import without_secrets
from streamer.media.remux import Remuxer

HEADER = struct.Struct("<qBI")  # pts in 1/90000 s, what it is, bytes that follow
PICTURE, KEY, SOUND = range(3)
_TICKS = Fraction(1, 90_000)


def main(source: BinaryIO, format_name: str, options: dict[str, str], *, sound: bool) -> int:
    """Publish until stdin ends. The first packet is a key picture."""
    url = source.readline().decode().rstrip("\n")
    try:
        first = read_packet(source)
        if first is None:
            return 0
        with Remuxer(url, format_name, first[0], options=options, sound=sound) as remuxer:
            remuxer.write_now(first[0])
            say("ready")
            while (item := read_packet(source)) is not None:
                packet, kind = item
                if kind == SOUND:
                    remuxer.write_sound(packet)
                else:
                    remuxer.write_now(packet)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        say(f"failed: {without_secrets(getattr(error, 'strerror', None) or str(error), url)}")
        return 1
    return 0


def read_packet(source: BinaryIO) -> tuple[av.Packet, int] | None:
    """The next packet of the pipe and what it is; None at its end."""
    head = source.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    pts, kind, size = HEADER.unpack(head)
    packet = av.Packet(source.read(size))
    packet.pts = packet.dts = pts
    packet.time_base = _TICKS
    packet.is_keyframe = kind == KEY
    return packet, kind


def say(line: str) -> None:
    """Tell the parent one line."""
    sys.stdout.write(line.replace("\n", " ") + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    given = dict(pair.split("=", 1) for pair in sys.argv[3:])
    sys.exit(main(sys.stdin.buffer, sys.argv[1], given, sound=sys.argv[2] == "sound"))
