"""Groups of pictures of an H.264 or HEVC file, kept as packets so that clean ones can be copied.

A group starts at an IDR picture, so nothing in it refers to anything before it. It may be copied only if all of
this holds; each reason against is counted for the report:
every packet of it was sound and decoded to one picture; its pictures follow its IDR in time, or are decoded after it
and refer to nothing before it (RADL); nothing in it makes it open (RASL and BLA pictures of HEVC); the parameter sets
in force are those of the stream's header; and it fits into `MOST_BYTES` and `MOST_PACKETS`, so that memory stays flat.

# Note [Concealed damage]
What a decoder paints where a slice is damaged is its own choice: a viewer's may show something else than the one whose
pictures were judged. FFmpeg's H.264 decoder marks such a picture, and its group is refused. Its HEVC decoder says
nothing and leaves there what an older picture left in the buffer, and NVDEC says nothing either: their groups are
`silent`, and before one is copied it must decode a second time, on the cores, in a decoder that stops at whatever it
finds wrong and that has seen nothing before, to pictures that look as they did.
"""

from collections.abc import Callable, Iterator

import av

from streamer.errors import RedactionError
from streamer.frame import Frame
from streamer.media import nal
from streamer.media.syntax import Syntax

MOST_BYTES = 48 << 20
MOST_PACKETS = 1500

Decode = Callable[
    [list[av.Packet], int, bool], Iterator[Frame]
]  # packets, first frame's index, strict -> frames


class PacketGop:
    """One closed group of pictures with the packets it came from."""

    def __init__(self, first_index: int, start_pts: int, decode: Decode, *, silent: bool = False) -> None:
        self.packets: list[av.Packet] = []
        self.units: list[list[bytes]] = []  # the coded slices of each packet
        self.start_pts = start_pts
        self.frames = 0  # pictures that came out of the decoder so far
        self.refusal: str | None = None
        self.released = False
        self.silent = silent  # see Note [Concealed damage]
        self._first_index = first_index
        self._decode = decode
        self._bytes = 0

    @property
    def copyable(self) -> bool:
        """Whether nothing speaks against copying so far."""
        return self.refusal is None and not self.released

    @property
    def whole(self) -> bool:
        """Whether every packet gave exactly one picture."""
        return self.frames == len(self.packets)

    def refuse(self, reason: str) -> None:
        """Never copy this group."""
        self.refusal = self.refusal or reason

    def add(self, packet: av.Packet, units: list[bytes]) -> None:
        """The next packet of the group, in decoding order."""
        if self.released:
            return
        self.packets.append(packet)
        self.units.append(units)
        self._bytes += packet.size
        if self._bytes > MOST_BYTES or len(self.packets) > MOST_PACKETS:
            self.refuse("longer than what is kept in memory")

    def decode_again(self, count: int, *, strict: bool = False) -> Iterator[Frame]:
        """Its first `count` frames anew. Raises RedactionError if there are fewer or, if `strict`, for damage."""
        given = 0
        for frame in self._decode(self.packets, self._first_index, strict):
            if given == count:
                return
            yield frame
            given += 1
        if given < count:
            raise RedactionError("a group of pictures did not decode the same way twice")

    def release(self) -> None:
        """Let go of the packets."""
        self.released = True
        self.packets.clear()
        self.units.clear()


class GopCutter:
    """Sorts the packets of one stream into groups of pictures."""

    def __init__(self, syntax: Syntax, extradata: bytes, decode: Decode, *, silent: bool = False) -> None:
        self._syntax = syntax
        self.parameter_sets = syntax.parameter_sets(extradata)
        self._header = self._by_place(self.parameter_sets)
        self._enter(extradata)
        self._decode = decode
        self._silent = silent
        self._groups: list[PacketGop] = []
        self._frames = 0

    def _enter(self, extradata: bytes) -> None:
        """A part of the stream begins whose packets are read by this header."""
        self._length_size = self._syntax.length_size(extradata)
        self._in_force = self._by_place(self._syntax.parameter_sets(extradata))

    def add(self, packet: av.Packet) -> None:
        """Take note of a packet before it is decoded."""
        refusal = None
        if packet.has_sidedata("new_extradata"):
            self._enter(bytes(packet.get_sidedata("new_extradata")))
        try:
            data = bytes(packet)
            units = (
                nal.from_annexb(data)
                if self._length_size is None
                else nal.from_lengths(data, self._length_size)
            )
        except ValueError:
            units, refusal = [], "a damaged packet"
        if packet.pts is None or packet.is_corrupt or packet.is_discard:
            refusal = refusal or "a packet without time stamp, damaged or meant to be skipped"
        self._in_force |= self._by_place(units)
        if self._syntax.opens(units) and packet.pts is not None:
            self._groups.append(PacketGop(-1, packet.pts, self._decode, silent=self._silent))
        if not self._groups:
            return
        group = self._groups[-1]
        if self._in_force != self._header:
            refusal = refusal or "parameter sets that differ from the stream's header"
        refusal = refusal or self._syntax.refusal(units)
        if packet.pts is not None and packet.pts < group.start_pts:
            if self._syntax.leads(units):
                group.start_pts = packet.pts  # in time: it is not decoded yet, so it was not shown
            else:
                refusal = refusal or "pictures before its first one"
        if refusal is not None:
            group.refuse(refusal)
        group.add(packet, self._syntax.pictures(units))

    def group_of(self, pts: int | None, index: int) -> PacketGop | None:
        """The group that a decoded picture belongs to; earlier ones are finished with it."""
        if pts is None:
            return None
        while len(self._groups) > 1 and self._groups[1].start_pts <= pts:
            self._settle(self._groups.pop(0))
        if not self._groups or pts < self._groups[0].start_pts:
            return None
        group = self._groups[0]
        if group.frames == 0:
            group._first_index = index
        group.frames += 1
        return group

    def damaged(self) -> None:
        """A packet was not decoded: of which group is not known, since decoding runs behind."""
        for group in self._groups:
            group.refuse("pictures that did not decode")

    def end(self) -> None:
        """The stream is over."""
        for group in self._groups:
            self._settle(group)

    @staticmethod
    def _settle(group: PacketGop) -> None:
        if not group.whole and not group.released:
            group.refuse("pictures that did not decode")

    def _by_place(self, units: list[bytes]) -> dict[tuple[int, int], bytes]:
        """The parameter sets among the units, by kind and id: a later one takes the place of an earlier one."""
        placed = ((self._syntax.place(unit), unit) for unit in units)
        return {place: unit for place, unit in placed if place is not None}
