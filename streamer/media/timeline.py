"""One time line over recordings glued together, whose time begins again, or leaps ahead, at each join."""

from collections import defaultdict
from fractions import Fraction

import av

_JUMP_S = Fraction(1, 2)  # so far back in decoding order only a new recording goes
_LEAP_S = 10  # so far ahead of all streams goes what follows a clock set anew; FFmpeg's limit too


class Timeline:
    """Moves packets of all streams so that time goes on where it began again.

    The video leads: at each of its joins it goes on after its last picture, and the sound of that recording is moved
    by as much, so that they stay together. Bounded state: one shift per join.
    """

    def __init__(self, video: int, shift: Fraction = Fraction(0), *, leaps: bool = False) -> None:
        """`video`: the index of the stream that leads; `shift`: seconds that the first recording is moved by.

        `leaps`: whether clocks are set anew within the file, as MPEG's are, so that a leap ahead is no pause.
        """
        self._leaps = leaps
        self._video = video
        self._shifts = [shift]  # seconds, of each recording
        self._recording: defaultdict[int, int] = defaultdict(int)  # in which one each stream is
        self._ends: dict[int, Fraction] = {}  # seconds, of each stream, as its packets say
        self._last: dict[int, int] = {}  # time stamp of each stream's last packet, as it was placed

    @property
    def joins(self) -> int:
        """How often time began again."""
        return len(self._shifts) - 1

    def place(self, packet: av.Packet) -> bool:
        """Move the packet's time stamps; False for sound that would be heard before what was heard already."""
        index, base, dts = packet.stream_index, packet.time_base, packet.dts
        if not base:
            return True
        if dts is not None:
            at = dts * base
            if not self._follow(index, at):
                return False
            self._ends[index] = at + (packet.duration or 0) * base
        if self._leaps and packet.pts is not None and index in self._ends:
            near = round(self._ends[index] / base) if dts is None else dts
            if abs(packet.pts - near) * base > _LEAP_S:  # nothing is reordered so far
                packet.pts = dts
        ticks = round(self._shifts[min(self._recording[index], self.joins)] / base)
        if packet.pts is not None:
            packet.pts += ticks
        if dts is None:
            return True
        packet.dts = dts + ticks
        if index == self._video:
            return True
        late = index in self._last and packet.dts <= self._last[index]
        if not late:
            self._last[index] = packet.dts
        return not late

    def _follow(self, index: int, at: Fraction) -> bool:
        """Find out which recording a stream is in now; False for sound of one that the video is not in yet."""
        end = self._ends.get(index)
        if end is None:
            return True
        leaps = self._leaps and at > end + _LEAP_S
        if leaps and at <= max(self._ends.values()) + _LEAP_S:
            self._recording[index] = self.joins  # it was silent: now it is where the others are
        elif leaps and index != self._video:
            return False
        elif leaps or at < end - _JUMP_S:
            self._recording[index] += 1
            if index == self._video:
                self._shifts.append(self._shifts[-1] + end - at)
        return True
