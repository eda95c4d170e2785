"""Where the time of a file begins: at 0 or later when it leaves the source, so that any container can say it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import av

_PREROLL_S = Fraction(1, 10)  # of sound that an edit list or a codec hides before its first sample
_MOST_EARLY, _MOST_EARLY_BYTES = 1500, 64 << 20
_REORDERED = 16  # pictures, at most, between decoding and display


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a file begins."""

    shift: Fraction = Fraction(0)  # seconds by which everything in it is later when it leaves
    packets: list[av.Packet] = field(default_factory=list)  # read to find out, not yet moved
    first_pts: int | None = None  # of a first picture that has none itself, moved


def beginning_of(
    container: av.container.InputContainer, video: av.VideoStream, packets: Iterable[av.Packet], step: int
) -> Beginning:
    """Read from `packets` as little as needed; `step` is a picture's usual length in the video's time base.

    What comes before 0 is moved there with all the rest: MP4 hides it, and no other container shows it everywhere.
    Only the little sound before 0 that a decoder needs to start stays where it is.
    """
    base = video.time_base or Fraction(1)
    early = _packets_before_time(video, packets) if "matroska" in container.format.name else []
    times = [packet.pts for packet in early if packet.stream is video and packet.pts is not None]
    timeless = sum(packet.stream is video and packet.pts is None for packet in early)
    start = (video.start_time or 0) if not times else min(times) - timeless * step
    first = min(start * base, Fraction(container.start_time or 0, av.time_base))
    shift = -first if start < 0 or first < -_PREROLL_S else Fraction(0)
    return Beginning(shift, early, start + round(shift / base) if times and timeless else None)


def _packets_before_time(video: av.VideoStream, packets: Iterable[av.Packet]) -> list[av.Packet]:
    """All up to the first picture if that has a time, else up to those that follow it, however they are reordered.

    FFmpeg reads no times before 0 of Matroska.
    """
    taken: list[av.Packet] = []
    size = timed = timeless = 0
    for packet in packets:
        taken.append(packet)
        size += packet.size
        if packet.stream is video and packet.size:
            timeless += packet.pts is None
            timed += packet.pts is not None
        if timed > (_REORDERED if timeless else 0) or len(taken) > _MOST_EARLY or size > _MOST_EARLY_BYTES:
            break
    return taken


class Preroll:
    """Leaves out sound that an edit list hides, but for the last of it: a decoder needs that to start."""

    def __init__(self) -> None:
        self._held: dict[int, list[av.Packet]] = {}  # hidden packets of each stream, the last 100 ms

    def heard(self, packet: av.Packet) -> list[av.Packet]:
        """The packets to keep now that this one was read."""
        held = self._held.pop(packet.stream_index, [])
        base = packet.time_base or Fraction(1)
        oldest = (packet.pts or 0) - _PREROLL_S / base
        held = [before for before in held if (before.pts or 0) >= oldest]
        if packet.is_discard:
            self._held[packet.stream_index] = [*held, packet]
            return []
        return [*held, packet]
