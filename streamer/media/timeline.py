"""One time line over recordings glued together, whose time begins again at each join."""

from collections import defaultdict
from fractions import Fraction

import av

_JUMP_S = Fraction(1, 2)  # so far back in decoding order only a new recording goes


class Timeline:
    """Moves packets of all streams so that time goes on where it began again.

    The video leads: at each of its joins it goes on after its last picture, and the sound of that recording is moved
    by as much, so that they stay together. Bounded state: one shift per join.
    """

    def __init__(self, video: int, shift: Fraction = Fraction(0)) -> None:
        """`video`: the index of the stream that leads; `shift`: seconds that the first recording is moved by."""
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
        if dts is None:
            if packet.pts is not None:
                packet.pts += self._ticks(index, base)
            return True
        at, end = dts * base, self._ends.get(index)
        if end is not None and at < end - _JUMP_S:
            self._recording[index] += 1
            if index == self._video:
                self._shifts.append(self._shifts[-1] + end - at)
        self._ends[index] = at + (packet.duration or 0) * base
        ticks = self._ticks(index, base)
        packet.dts = dts + ticks
        if packet.pts is not None:
            packet.pts += ticks
        if index == self._video:
            return True
        late = index in self._last and packet.dts <= self._last[index]
        if not late:
            self._last[index] = packet.dts
        return not late

    def _ticks(self, index: int, base: Fraction) -> int:
        return round(self._shifts[min(self._recording[index], self.joins)] / base)
