"""One H.264 or HEVC track made of encoded stretches and of the source's own packets.

# Note [Splicing]
Encoded stretches come from encoders whose SPS and PPS carry an id that the source does not use (x264 takes one; what
x265 writes gets its ids here, see Note [Ids of HEVC parameter sets]). Both kinds of
parameter sets stand in the track's header, so every player knows all of them from the start and nothing changes
in band (MPEG-TS has no header: there they precede each IDR picture). Of copied packets only the coded slices
travel: SEI (camera identity, time codes, captions) stays behind.

Decoding time stamps: packet number i of the track, in decoding order, gets the presentation time stamp of the
picture number i - depth in display order, where depth is how far either kind reorders. Every stretch is closed,
so this rises strictly over all seams and never exceeds the packet's own pts.
"""

from collections import deque

import av

from streamer.config import OutputPolicy
from streamer.errors import OutputError
from streamer.frame import Frame
from streamer.media import nal
from streamer.media.encoders import RECIPES, Shape, open_encoder
from streamer.media.gop import PacketGop
from streamer.media.picture import picture_from_frame
from streamer.media.syntax import Syntax


class DecodingTimes:
    """Decoding time stamps for packets of closed stretches, from the display order alone."""

    def __init__(self, depth: int, step: int) -> None:
        self._depth = depth
        self._step = step
        self._waiting: deque[int] = deque()
        self._count = 0

    def shown(self, pts: int) -> None:
        """The next picture in display order."""
        if not self._waiting and self._count == 0:
            self._waiting.extend(pts - (self._depth - i) * self._step for i in range(self._depth))
        self._waiting.append(pts)
        self._count += 1

    def next(self) -> int:
        """The decoding time stamp of the next packet in decoding order."""
        return self._waiting.popleft()


class SplicedVideo:
    """The video track of a file in which clean groups of pictures are copied."""

    def __init__(
        self,
        syntax: Syntax,
        source_sets: list[bytes],
        source_depth: int,
        policy: OutputPolicy,
        shape: Shape,
        *,
        in_band: bool,
    ) -> None:
        self._policy = policy
        self._shape = shape
        self._syntax = syntax
        naming = syntax.naming(source_sets)
        if naming is None:
            raise OutputError("the source uses every id of parameter sets; use --reencode all")
        self._naming = naming
        context = self._open()
        ours = self._sets_of(context)
        # the header names the profile of the first set: the more demanding one goes first
        sets = sorted([*source_sets, *ours], key=syntax.order)
        self.extradata = nal.annexb(sets)
        self._before_idr = sets if in_band else []
        step = max(1, round(1 / (shape.rate * shape.time_base)))
        self._times = DecodingTimes(max(source_depth, 2), step)
        self._encoder: av.VideoCodecContext | None = context
        self._ours = ours
        self._pixel_format = RECIPES[syntax.codec].pixel_format

    def encode(self, frame: Frame) -> list[av.Packet]:
        """The packets that come out when the frame goes in."""
        if self._encoder is None:
            self._encoder = self._open()
            if self._sets_of(self._encoder) != self._ours:
                raise OutputError("the encoder changed its parameter sets; use --reencode all")
        self._times.shown(frame.pts)
        return self._mended(self._encoder.encode(picture_from_frame(frame, self._pixel_format)))

    def copy(self, gop: PacketGop) -> list[av.Packet]:
        """What the encoder still held, then the packets of a clean group of pictures."""
        packets = self.end_stretch()
        for packet in sorted(gop.packets, key=lambda packet: packet.pts or 0):
            self._times.shown(packet.pts or 0)
        for packet, units in zip(gop.packets, gop.units, strict=True):
            copied = av.Packet(nal.annexb(self._with_sets(units)))
            copied.pts, copied.duration = packet.pts, packet.duration
            copied.is_keyframe = packet.is_keyframe
            packets.append(self._timed(copied))
        return packets

    def end_stretch(self) -> list[av.Packet]:
        """Flush the encoder; the next frame gets a fresh one."""
        if self._encoder is None:
            return []
        packets = self._mended(self._encoder.encode(None))
        self._encoder = None
        return packets

    def _open(self) -> av.VideoCodecContext:
        return open_encoder(self._syntax.codec, self._policy, self._shape, params=self._naming.params)

    def _sets_of(self, encoder: av.VideoCodecContext) -> list[bytes]:
        sets = self._syntax.parameter_sets(bytes(encoder.extradata or b""))
        return [self._naming.named(unit) for unit in sets]

    def _mended(self, packets: list[av.Packet]) -> list[av.Packet]:
        mended = []
        for packet in packets:
            slices = self._syntax.pictures(nal.from_annexb(bytes(packet)))
            units = [self._naming.named(unit) for unit in slices]
            ours = av.Packet(nal.annexb(self._with_sets(units)))
            ours.pts, ours.duration, ours.is_keyframe = packet.pts, packet.duration, packet.is_keyframe
            mended.append(self._timed(ours))
        return mended

    def _with_sets(self, units: list[bytes]) -> list[bytes]:
        return [*self._before_idr, *units] if self._syntax.opens(units) else units

    def _timed(self, packet: av.Packet) -> av.Packet:
        packet.dts = self._times.next()
        packet.time_base = self._shape.time_base
        return packet
