"""A video file as an iterator: our frames, in order, with the packets of the other streams between them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
from av.codec.context import Flags, Flags2
from av.stream import Disposition

from streamer.closing import Closing
from streamer.device.base import Device
from streamer.errors import InputError, RedactionError
from streamer.frame import Color, Frame, Size
from streamer.media import hardware
from streamer.media.beginning import Preroll, beginning_of
from streamer.media.copyable import picture_refusal, stream_refusal
from streamer.media.crop import ONLY_A_PART, cropper_of
from streamer.media.display import DisplayTimes, usual_step
from streamer.media.ending import Ending
from streamer.media.fields import is_top_first
from streamer.media.gop import GopCutter
from streamer.media.matroska import has_alpha
from streamer.media.opening import check_regular, crops_in, open_input
from streamer.media.picture import Timing, frame_from_picture, lost_shape_of, turn_of
from streamer.media.syntax import SYNTAXES
from streamer.media.timeline import Timeline
from streamer.media.tracks import videos_in
from streamer.tally import Tally

_MOTION_CODECS = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video", "h263", "flv1"})
_TELLS_OF_DAMAGE = frozenset({"h264"})  # FFmpeg's own decoders that mark concealed pictures
_PQ, _HLG = 16, 18
_MOST_SOUND = 64 << 20  # bytes of packets before the first picture, which the output's header waits for
_LISTS = frozenset({"concat", "dash", "imf"})  # formats of texts that name other files
_LEAPING = frozenset({"mpeg", "mpegts"})  # formats whose clock may be set anew on the way
_SEEN_THROUGH = "transparency is left out: what it hid can be seen"
_GARBAGE_OF_NVDEC = 60  # packets in a row that give no picture, after others did: it is broken


@dataclass(frozen=True, slots=True, eq=False)
class AudioPacket:
    """A compressed packet of one of the source's audio streams, untouched."""

    packet: av.Packet


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the video stream of a source is."""

    path: Path
    container: str
    codec: str
    size: Size  # as a viewer sees it
    time_base: Fraction
    rate: Fraction  # average frames per second
    color: Color
    sample_aspect_ratio: Fraction
    top_field_first: bool | None  # None: progressive
    duration_s: float | None
    frames: int | None  # as the container says or the duration suggests; for progress only
    reorder_depth: int  # pictures that decoding order runs ahead of display order
    profile: str | None
    copy_refusal: str | None  # why no group of pictures may be copied; None where they may


class FileSource(Closing):
    """A video file opened for one pass. Iterate once; close, or use it in a with-statement.

    Yields `Frame`s in display order with strictly increasing pts and, if `audio`, `AudioPacket`s in container
    order. With `groups`, frames carry their group of pictures (see media.gop) where the stream allows copying, and
    where it is of the codec `into` (None: whichever it is).
    Damaged packets are skipped and counted. Raises InputError on opening if nothing can be decoded.

    With a `device` that shares memory with NVDEC, frames are decoded there if NVDEC takes the file; `decoding` says
    who does. A GPU that fails on the way is an InputError or a DeviceError: the file is not gone on with.
    """

    def __init__(
        self,
        path: Path,
        *,
        tally: Tally,
        audio: bool = True,
        groups: bool = True,
        into: str | None = None,
        device: Device | None = None,
    ) -> None:
        self.path = path
        self._tally = tally
        self._gpu = device.video if device is not None else None
        self.decoding = hardware.ON_CORES
        check_regular(path)
        crops = crops_in(path)
        if crops:
            self._gpu = None
            self.decoding = f"{hardware.ON_CORES}: {ONLY_A_PART}"
        elif self._gpu is not None:
            answer = hardware.try_file(path, self._gpu)
            self.decoding = answer.reason
            self._gpu = self._gpu if answer.works else None
        self._container = open_input(path) if self._gpu is None else hardware.open_on_gpu(path)
        try:
            if self._container.format.name in _LISTS:
                raise InputError(f"names other files and is no video itself; name those instead: {path}")
            self.stream = self._video_stream()
            self.audio = [
                stream
                for stream in self._container.streams.audio
                if audio
                and stream.codec_context
                and stream.codec_context.sample_rate  # 0: none was found in it
            ]
            self._cropper = cropper_of(self.stream, crops)
            self._note_what_stays_behind(audio)
            self._ending = Ending(path, self._container, tally)
            self._context = self.stream.codec_context
            self._context.thread_type = "AUTO"
            self._context.flags |= Flags.unaligned  # else only some of what is cut off at the left is
            self._cutter: GopCutter | None = None
            self._read = 0  # whole packets of the video
            self._fruitless = 0  # packets of it in a row that gave no picture
            self._demuxed = self._packets()
            step = usual_step(self.stream, self.stream.time_base or Fraction(1, 90_000))
            self._beginning = beginning_of(self._container, self.stream, self._demuxed, step)
            leaps = self._container.format.name in _LEAPING
            self._timeline = Timeline(self.stream.index, self._beginning.shift, leaps=leaps)
            self._preroll = Preroll()
            self._times = DisplayTimes(self._container, self.stream, self._beginning.first_pts, self._tally)
            self._frames = 0
            self._size: Size | None = None
            self._raw = (0, 0)
            self._progressive = False  # the first picture
            self._pending: list[Frame | AudioPacket] = []
            self.info = self._look(groups, into)
        except BaseException:
            self._container.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def parameter_sets(self) -> list[bytes]:
        """VPS, SPS and PPS of a stream whose groups may be copied."""
        return self._cutter.parameter_sets if self._cutter is not None else []

    @property
    def metadata(self) -> dict[str, str]:
        """The container's own tags (titles, dates, places): personal data."""
        return dict(self._container.metadata)

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        yield from self._pending
        self._pending = []
        yield from self._items

    def _look(self, groups: bool, into: str | None) -> VideoInfo:
        """Decode up to the first picture, which tells what the container may not."""
        context, stream = self._context, self.stream
        depth = max(0, context.reorder_depth)
        if context.name in _MOTION_CODECS and depth == 0 and self._cropper is None:
            context.flags2 |= Flags2.export_mvs
        self._items = self._decode_all()
        first: tuple[Frame, av.VideoFrame] | None = None
        container = self._container.format.name
        refusal = stream_refusal(context, container, into) if groups else "copying is switched off"
        if self._cropper is not None:
            refusal = refusal or "the source is cropped: more is in its packets than it shows"
        if refusal is None:
            silent = context.name not in _TELLS_OF_DAMAGE or self._gpu is not None
            header = bytes(context.extradata or b"")
            self._cutter = GopCutter(SYNTAXES[context.name], header, self._decode_again, silent=silent)
        sound = 0
        for item in self._items:
            self._pending.append(item)
            if isinstance(item, Frame):
                first = item, self._seen
                break
            sound += item.packet.size
            if sound > _MOST_SOUND:
                raise InputError(f"only sound for its first {sound >> 20} MiB; try --audio drop: {self.path}")
        if first is None:
            if context.name == "webp":
                raise InputError(
                    f"a moving WebP, which this FFmpeg cannot decode; make it a GIF or a video: {self.path}"
                )
            raise InputError(f"no picture can be decoded; is it a video? {self.path}")
        frame, picture = first
        refusal = refusal or picture_refusal(context, stream.sample_aspect_ratio, picture, frame)
        if refusal is not None and self._cutter is not None:
            self._cutter = None
            self._pending = [
                replace(item, gop=None) if isinstance(item, Frame) else item for item in self._pending
            ]
        self._note_what_changes(picture)
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        duration_s = self._duration_s()
        return VideoInfo(
            path=self.path,
            container=container,
            codec=context.name,
            size=frame.size,
            time_base=frame.time_base,
            rate=rate,
            color=frame.color,
            sample_aspect_ratio=_upright_aspect(stream.sample_aspect_ratio, turn_of(picture)),
            top_field_first=is_top_first(picture, context) if picture.interlaced_frame else None,
            duration_s=duration_s,
            frames=stream.frames or (round(duration_s * rate) if duration_s else None),
            reorder_depth=depth,
            profile=context.profile,
            copy_refusal=refusal,
        )

    def _video_stream(self) -> av.VideoStream:
        streams = [stream for stream in videos_in(self._container) if stream.codec_context is not None]
        if not streams:
            raise InputError(f"no video stream in it: {self.path}")
        best = self._container.streams.best("video")
        return next((stream for stream in streams if stream is best), streams[0])

    def _note_what_stays_behind(self, audio: bool) -> None:
        kept = {self.stream.index, *(stream.index for stream in self.audio)}
        for stream in self._container.streams:
            if stream.index not in kept:
                attached = stream.disposition & Disposition.attached_pic
                kind = "cover art" if attached else f"{stream.type} stream"
                self._tally.note(f"left out: {kind} {stream.index}")

    def _note_what_changes(self, picture: av.VideoFrame) -> None:
        """What no result can be like its source in, told by the first picture."""
        if self._cropper is not None:
            self._tally.note("its container hides the edges of the picture: they are cut off")
        if picture.color_trc in (_PQ, _HLG):
            self._tally.note("HDR: written with 8 bits and its own transfer curve")
        for shape in lost_shape_of(picture):
            self._tally.note(f"left out: that it is {shape}; players show it flat")
        if _is_transparent(picture):
            self._tally.note(_SEEN_THROUGH)

    def _duration_s(self) -> float | None:
        if self.stream.duration is not None and self.stream.time_base is not None:
            return float(self.stream.duration * self.stream.time_base)
        return self._container.duration / av.time_base if self._container.duration else None

    def _packets(self) -> Iterator[av.Packet]:
        wanted = [self.stream, *self.audio]
        packets = self._container.demux(wanted)
        while True:
            try:
                packet = next(packets, None)
            except IndexError:  # PyAV has no name for a stream that begins later; its packet is read by now
                packets = self._container.demux(wanted)
                self._tally.events["packets of streams that began late"] += 1
                continue
            except av.error.FFmpegError as error:
                self._tally.note(f"the file is damaged and ends early: {error.strerror or error}")
                self._tally.events["read errors"] += 1
                packet = None
            if packet is None:
                return
            yield packet

    def _decode_all(self) -> Iterator[Frame | AudioPacket]:
        last: av.Packet | None = None
        for packet in chain(self._beginning.packets, self._demuxed):
            if not packet.size:
                continue
            last = packet
            self._read += packet.stream is self.stream and not packet.is_corrupt
            in_time = self._timeline.place(packet)
            if packet.stream is self.stream:
                if has_alpha(self.stream, packet):
                    self._tally.note(_SEEN_THROUGH)
                if self._cutter is not None:
                    self._cutter.add(packet)
                pictures = self._decode(packet)
                self._check_fruit(pictures)
                yield from self._frames_of(pictures)
            elif in_time:
                yield from map(AudioPacket, self._preroll.heard(packet))
            else:
                self._tally.events["sound out of time"] += 1
        yield from self._frames_of(self._decode(None))
        self._ending.reached(self.stream, self._read, last)
        if self._timeline.joins:
            self._tally.note(f"time begins again {self._timeline.joins} times in it: it goes on instead")
        if self._cutter is not None:
            self._cutter.end()

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        try:
            with self._tally.stage("decode"):
                pictures = self._context.decode(packet)
                return (
                    pictures if self._cropper is None else [self._cropper.cropped(each) for each in pictures]
                )
        except av.error.FFmpegError as error:
            if self._gpu is not None and not isinstance(error, av.error.InvalidDataError):
                message = (
                    f"NVDEC failed on the way ({error.strerror or error}); use --device cpu: {self.path}"
                )
                raise InputError(message) from error
            self._tally.events["damaged packets"] += 1
            if self._cutter is not None:
                self._cutter.damaged()
            return []

    def _check_fruit(self, pictures: list[av.VideoFrame]) -> None:
        """Raises InputError if NVDEC decodes no more: of H.264, FFmpeg calls all that follows damaged packets."""
        self._fruitless = 0 if pictures else self._fruitless + 1
        if self._gpu is not None and self._frames and self._fruitless > _GARBAGE_OF_NVDEC:
            raise InputError(
                f"NVDEC decodes nothing from picture {self._frames} on; use --device cpu: {self.path}"
            )

    def _own(self, picture: av.VideoFrame) -> Frame:
        timing = self._times.of(picture, self._frames)
        if self._gpu is not None and hardware.suits(picture, self._size):
            return hardware.frame_on_gpu(picture, timing, self._gpu)
        return frame_from_picture(picture, timing, self._size)

    def _frames_of(self, pictures: list[av.VideoFrame]) -> Iterator[Frame]:
        for picture in pictures:
            self._seen = picture
            with self._tally.stage("copy"):
                frame = self._own(picture)
            if self._size is not None and (picture.width, picture.height) != self._raw:
                self._tally.note("the size changes on the way: scaled to the first one")
            elif self._size is None:
                self._size, self._raw = frame.size, (picture.width, picture.height)
                self._progressive = not picture.interlaced_frame
            if self._progressive and picture.interlaced_frame:
                self._tally.note(
                    "interlaced pictures come on the way: written as progressive, like the first one"
                )
            if self._cutter is not None:
                gop = self._cutter.group_of(picture.pts, frame.index)
                if gop is not None and picture.pts != frame.pts:
                    gop.refuse("time stamps that had to be mended")
                if gop is not None and (picture.is_corrupt or picture.interlaced_frame):
                    gop.refuse("damaged or interlaced pictures")
                frame = replace(frame, gop=gop)
            self._frames += 1
            yield frame

    def _decode_again(self, packets: list[av.Packet], first_index: int, strict: bool) -> Iterator[Frame]:
        context = av.VideoCodecContext.create(self._context.name, "r")
        assert isinstance(context, av.VideoCodecContext)
        context.extradata = self._context.extradata
        context.thread_type = "AUTO"
        context.flags |= Flags.unaligned
        if strict:
            context.options = {"err_detect": "explode"}
            # FFmpeg compares where rows of HEVC end with where they should (WPP) only if it decodes rows side by side
            context.thread_type, context.thread_count = "SLICE", 4
        index = first_index
        for packet in [*packets, None]:
            try:
                with self._tally.stage("decode again"):
                    pictures = context.decode(packet)
            except av.error.FFmpegError as error:
                if strict:
                    raise RedactionError("a group of pictures is damaged") from error
                continue
            for picture in pictures:
                if strict and picture.is_corrupt:
                    raise RedactionError("a group of pictures is damaged")
                base = picture.time_base or self.stream.time_base
                timing = Timing(index, picture.pts or 0, Fraction(base or 1), picture.duration or 0)
                index += 1
                yield frame_from_picture(picture, timing, self._size)


def _is_transparent(picture: av.VideoFrame) -> bool:
    """Whether a viewer would see through any of it: GIFs, PNGs and others have a plane for that which may say no."""
    if picture.sw_format is not None:  # decoded by a chip, of which none knows transparency
        return False
    if not any(component.is_alpha for component in picture.format.components):
        return False
    samples = picture.to_ndarray(format="rgba")
    return bool(samples[:, :, 3].min() < 255)


def _upright_aspect(aspect: Fraction | None, turn: int) -> Fraction:
    if not aspect:
        return Fraction(1)
    return Fraction(1) / aspect if turn in (90, 270) else Fraction(aspect)
