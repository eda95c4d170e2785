"""One connection to whatever sends pictures now: a camera, a stream, a webcam, or a file played at its own pace."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import Flags, Flags2
from av.codec.hwaccel import HWAccel

from streamer.address import without_secrets
from streamer.clock import SYSTEM, Clock
from streamer.closing import Closing
from streamer.errors import DeviceError, InputError
from streamer.frame import Frame, Size
from streamer.media import hardware
from streamer.media.crop import ONLY_A_PART, cropper_of
from streamer.media.display import DisplayTimes
from streamer.media.hardware import LiveDecoding
from streamer.media.live_spec import LiveSpec
from streamer.media.opening import crops_in
from streamer.media.pacing import TICKS, Pace, Spread
from streamer.media.picture import Timing, frame_from_picture
from streamer.media.sound import Sound, SoundReader
from streamer.media.tracks import videos_in
from streamer.tally import Tally

_TEXTS = frozenset({"concat", "imf", "tty"})  # formats of files that name others, or are shown as text
_TICKS = Fraction(1, TICKS)
_GARBAGE = (
    200  # packets in a row that give no picture, before the first one, until the connection is given up
)
_NO_MORE = 60  # the same, after others gave some: as when another codec comes on the same track
_GARBAGE_OF_NVDEC = 60  # the same, before the cores are asked instead
_WORTH = 10  # such packets that one with a picture outweighs: of another codec, a few seem to hold one
_MOST_PIXELS = 8192 * 8192
_UNTIMED = frozenset({"mpjpeg", "mjpeg", "h264", "hevc"})  # without times: FFmpeg counts 25 pictures a second
_NOBODY_THERE = (ConnectionError, TimeoutError, FileNotFoundError)
_BY_ORDER = frozenset({"h264", "hevc"})  # whose decoders put pictures in order also where they hold none back


class AwaitsKey:
    """What came shows nothing without a key picture, which is yet to come."""


class LiveSource(Closing):
    """One connection. Iterate once, with a with-statement; a lost connection, or one that gives no picture for
    `read_s`, raises InputError, an end just ends.

    Yields our own frames with the source's time stamps in 1/90000 s, which may jump (see live.timing); pictures of
    another size than the first, or than `size` if given, are scaled to it, between bars if their shape is another, and
    counted in `layout`. If the spec asks for sound, `Sound`s come in between, as the source sends them. A connection
    that begins between two key pictures yields `AwaitsKey` for each packet until there is one. Errors name the address
    without secrets.

    With `decoding`, NVDEC decodes into GPU memory while that says so. A stream that NVDEC refuses is opened on the
    cores at once; an NVDEC that fails on the way ends the connection, and the next one with the same `decoding` is the
    cores'.
    """

    def __init__(
        self, spec: LiveSpec, *, tally: Tally, size: Size | None = None, clock: Clock = SYSTEM,
        decoding: LiveDecoding | None = None,
    ) -> None:  # fmt: skip
        self._spec = spec
        self._tally = tally
        self._clock = clock
        self._decoding = LiveDecoding() if decoding is None else decoding
        self._index = self._layout = 0
        self._shape: tuple[int, int, int] | None = None  # width, height and rotation of the last picture
        self.size = size
        self._container = self._open()
        try:
            streams = videos_in(self._container)
            if not streams or self._container.format.name in _TEXTS:
                raise InputError(f"sends no video: {spec.shown}")
            self._stream = streams[0]
            self._set_up_decoder()
            self._sound = self._sound_reader()
            self._times = self._display_times()
        except BaseException:
            self._container.close()
            raise

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(av.error.FFmpegError, OSError):
            self._container.close()

    @property
    def rate(self) -> float:
        """Frames per second as the stream claims, 25 where it claims nothing sensible."""
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        return rate if 0.1 <= rate <= 240 else 25.0

    def _open(self) -> av.container.InputContainer:
        file = Path(self._spec.url)
        self._crops = crops_in(file) if self._spec.kind == "file" and file.is_file() else {}
        if self._crops:
            self._decoding.give_up(ONLY_A_PART)
        refused: Exception | None = None
        if self._decoding.memory is not None:
            try:
                return self._opened(hardware.on_gpu())
            except (*_NOBODY_THERE, av.error.ExitError) as error:
                raise self._lost("cannot be opened", error) from None
            except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
                refused = error  # NVDEC's word or the source's: the cores will tell
        try:
            container = self._opened(None)
        except InputError:
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._lost("cannot be opened", error) from None  # the cause holds the address
        if refused is not None:
            self._decoding.give_up(without_secrets(hardware.words(refused), self._spec.url))
        return container

    def _opened(self, hwaccel: HWAccel | None) -> av.container.InputContainer:
        spec = self._spec
        name, format_name, options = spec.for_ffmpeg()
        return av.open(
            name, format=format_name, options=options, timeout=(spec.open_s, spec.read_s),
            metadata_errors="replace", hwaccel=hwaccel,
        )  # fmt: skip

    def _lost(self, what: str, error: Exception) -> InputError:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, av.error.ExitError):
            reason = "nobody has connected" if self._spec.listens else "no answer in time"
        return InputError(f"{what} ({without_secrets(reason, self._spec.url)}): {self._spec.shown}")

    def _set_up_decoder(self) -> None:
        context = self._stream.codec_context
        if context is None:
            raise InputError(f"sends video in a codec that is not known here: {self._spec.shown}")
        self._context = context
        self._cropper = cropper_of(self._stream, self._crops)
        context.thread_type = "SLICE"  # threads by frame hold pictures back
        context.flags |= Flags.unaligned  # else only some of what is cut off at the left is
        if context.name in _BY_ORDER or context.reorder_depth == 0:
            context.flags |= Flags.low_delay
        if context.name == "h264" and context.reorder_depth == 0 and self._cropper is None:
            context.flags2 |= Flags2.export_mvs

    @property
    def has_sound(self) -> bool:
        """Whether it sends sound that is wanted and can be read."""
        return self._sound is not None

    def _sound_reader(self) -> SoundReader | None:
        streams = self._container.streams.audio if self._spec.sound else ()
        return SoundReader(streams[0]) if streams and streams[0].codec_context is not None else None

    def __iter__(self) -> Iterator[Frame | Sound | AwaitsKey]:
        if self._spec.kind == "file":
            yield from self._paced()
        elif self._in_pieces:
            yield from self._spread()
        else:
            yield from self._frames()

    @property
    def _in_pieces(self) -> bool:
        """Whether pictures come as fast as they can be fetched: HLS by the segment, and files over HTTP."""
        web = self._spec.url.lower().startswith("http")
        return web and (
            self._container.format.name in ("hls", "dash") or self._container.duration is not None
        )

    def _display_times(self) -> DisplayTimes | None:
        """Of a file, whose times may be those of decoding, or missing; None for what tells the time as it comes."""
        if self._spec.kind != "file" and self._container.duration is None:
            return None
        return DisplayTimes(self._container, self._stream, None, self._tally)

    @property
    def _untimed(self) -> bool:
        """Whether the moment at which a picture comes is all that is known of its time, as from MJPEG cameras."""
        return (
            self._spec.kind == "network" and self._container.format.name in _UNTIMED and not self._in_pieces
        )

    def _spread(self) -> Iterator[Frame | Sound | AwaitsKey]:
        pace = Spread(self._clock)
        for frame in self._frames():
            if isinstance(frame, Frame):
                pace.wait_for(frame.time_s)
            yield frame

    def _paced(self) -> Iterator[Frame | Sound | AwaitsKey]:
        """A file's frames when they are due; from the start again at its end if it loops."""
        pace = Pace(self._clock, step=round(TICKS / self.rate))
        while True:
            begun = False
            for frame in self._frames():
                if isinstance(frame, Frame):
                    begun = True
                    yield replace(frame, pts=pace.wait_for(frame.pts))
                elif begun and isinstance(frame, Sound):
                    yield replace(frame, time_s=frame.time_s + pace.shift / TICKS)
            if not self._spec.loop or not begun:
                return
            self._rewind()

    def _rewind(self) -> None:
        self._container.close()
        self._container = self._open()
        self._stream = videos_in(self._container)[0]
        self._set_up_decoder()
        self._sound = self._sound_reader()
        self._times = self._display_times()

    def _frames(self) -> Iterator[Frame | Sound | AwaitsKey]:
        fruitless, keyed = 0, False
        since_s, limit_s = self._clock.now(), self._spec.open_s + self._spec.read_s
        packets = (
            self._container.demux()
        )  # all streams: while one of them goes on, waiting for another has no end
        while True:
            packet = self._read(packets)
            if packet is None:
                return
            if self._clock.now() - since_s > limit_s:
                what = "no more pictures" if keyed else "no key picture"
                raise InputError(f"sends {what}: {self._spec.shown}")
            if packet.stream is not self._stream:
                yield from self._heard(packet)
                continue
            pictures = self._decode(packet)
            keyed = keyed or packet.is_keyframe or bool(pictures)
            if not keyed:
                limit_s = self._spec.key_s
                yield AwaitsKey()
                continue
            fruitless = max(0, fruitless - _WORTH) if pictures else fruitless + 1
            self._check_fruit(fruitless)
            for picture in pictures:
                yield self._frame(picture)
            if pictures:
                since_s, limit_s = self._clock.now(), self._spec.read_s

    def _read(self, packets: Iterator[av.Packet]) -> av.Packet | None:
        try:
            return next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            if isinstance(error, av.error.EOFError):
                return None
            raise self._lost("the connection was lost", error) from None
        except IndexError:  # PyAV's, of a stream that began after all others
            raise InputError(f"sends other streams than before: {self._spec.shown}") from None

    def _heard(self, packet: av.Packet) -> Iterator[Sound]:
        if self._sound is not None and packet.stream is self._sound.stream:
            yield from self._sound.read(packet)
            self._tally.levels["damaged sound"] = float(self._sound.damaged)

    def _check_fruit(self, fruitless: int) -> None:
        """Raises InputError where so many packets gave no picture that none is to be expected."""
        if self._decoding.memory is not None and fruitless > _GARBAGE_OF_NVDEC:
            self._decoding.give_up("it decodes nothing")
            raise InputError(f"NVDEC decodes nothing of what it sends: {self._spec.shown}")
        if fruitless > (_NO_MORE if self._index else _GARBAGE):
            raise InputError(f"what it sends cannot be decoded: {self._spec.shown}")

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            with self._tally.stage("decode"):
                pictures = self._context.decode(packet)
                return (
                    pictures if self._cropper is None else [self._cropper.cropped(each) for each in pictures]
                )
        except av.error.FFmpegError as error:
            if self._decoding.memory is not None and not isinstance(error, av.error.InvalidDataError):
                self._decoding.give_up(error)
                raise InputError(
                    f"NVDEC failed on the way ({hardware.words(error)}): {self._spec.shown}"
                ) from error
            self._tally.events["damaged packets"] += 1
            return []

    def _frame(self, picture: av.VideoFrame) -> Frame:
        if picture.width * picture.height > _MOST_PIXELS:
            raise InputError(f"sends pictures of {picture.width} x {picture.height}: {self._spec.shown}")
        if picture.is_corrupt:
            self._tally.events["damaged pictures"] += 1
        timing = Timing(self._index, self._pts_of(picture), _TICKS)
        with self._tally.stage("copy"):
            frame = self._own(picture, timing)
        shape = (picture.width, picture.height, picture.rotation)
        if self._shape is not None and shape != self._shape:
            self._layout += 1
            self._tally.events["size changes"] += 1
        self._shape = shape
        self.size = frame.size
        self._index += 1
        return replace(frame, layout=self._layout) if self._layout else frame

    def _pts_of(self, picture: av.VideoFrame) -> int:
        """When it is shown, in 1/90000 s."""
        if self._untimed:
            return round(self._clock.now() * TICKS)
        if self._times is not None:
            timing = self._times.of(picture, self._index)
            return round(timing.pts * timing.time_base * TICKS)
        if picture.pts is None:
            self._tally.events["time stamps missing"] += 1
        return round((picture.pts or 0) * (picture.time_base or self._stream.time_base or _TICKS) * TICKS)

    def _own(self, picture: av.VideoFrame, timing: Timing) -> Frame:
        memory = self._decoding.memory
        if (
            memory is not None and picture.format.name != "cuda"
        ):  # as of a webcam that sends no compressed video
            self._decoding.give_up(f"{self._context.name} as {picture.format.name}")
            memory = None
        if memory is not None and self._shape is None and hardware.is_cut(picture, self._context):
            self._decoding.give_up(hardware.CUT)
            raise InputError(f"NVDEC shows what its stream cuts off: {self._spec.shown}")
        if memory is None or not hardware.suits(picture, self.size):
            return frame_from_picture(picture, timing, self.size)
        try:
            return hardware.frame_on_gpu(picture, timing, memory)
        except DeviceError as error:
            self._decoding.give_up(error)
            raise
