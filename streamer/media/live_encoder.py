"""One encoder per live stream: redacted frames in, pictures for every outlet out, without delay."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.video.frame import PictureType

from streamer.device.base import VideoMemory
from streamer.errors import OutputError, RedactionError, StreamerError
from streamer.frame import Frame, Redacted, Size
from streamer.media.egress import Encoded
from streamer.media.encoders import NVENC
from streamer.media.hardware import FAILURES, GpuPictures, try_picture, words
from streamer.media.picture import picture_from_frame

_TICKS = Fraction(1, 90_000)
KEY_EVERY_S = 2.0  # also the shortest segment of HLS and of recordings
_KEY_APART_S = 0.5  # between key pictures that viewers ask for
_BITS_PER_PIXEL_S = 0.11  # of the bit rate ceiling: about 6.8 Mbit/s for 1080p30
_CEILING = (500_000, 12_000_000)
_NVENC = {
    "preset": "p2", "tune": "ull", "zerolatency": "1", "forced-idr": "1", "rc": "vbr", "cq": "25",
    "delay": "0",  # else FFmpeg holds back as many pictures as it has buffers for, but one
}  # fmt: skip
_X264 = {"preset": "superfast", "tune": "zerolatency", "forced-idr": "1", "crf": "24", "sc_threshold": "0"}
_VP8 = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "error-resilient": "1"}


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What a live encoder is asked for."""

    size: Size
    rate: float  # frames per second, about
    codec: str = "h264"  # or "vp8"
    bit_rate: int | None = None  # ceiling in bits per second; None: by size and rate
    threads: int = 2

    @property
    def ceiling(self) -> int:
        """Bits per second."""
        pixels = self.size.width * self.size.height * self.rate
        return self.bit_rate or max(_CEILING[0], min(round(pixels * _BITS_PER_PIXEL_S), _CEILING[1]))


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to encode."""

    name: str  # for people
    encoder: str  # FFmpeg's name
    pixel_format: str
    options: dict[str, str]
    memory: VideoMemory | None = None  # where pictures are handed over; None: in main memory
    last: bool = False  # there is no other


class LiveEncoding:
    """With what a live stream is encoded, over all its encoders: a chip that failed once is not asked again.

    The stream would go from one gap to the next.
    """

    def __init__(self, memory: VideoMemory | None = None) -> None:
        """With `memory`, NVENC is tried on pictures that lie there."""
        self.memory = memory
        self.failed: dict[str, str] = {}  # names of ways, and what they said


class LiveEncoder:
    """Encodes redacted frames as they come: no B pictures, no look-ahead, key pictures every 2 s and on demand.

    H.264 goes to NVENC where it opens, without leaving the GPU where `encoding` has its memory, else to libx264; VP8
    to libvpx. Frames in main memory (covered in place of others, or fitted into the stream's size) are uploaded for
    an NVENC that takes the others from the GPU. `name` and `why` say which it is and why. Raises OutputError if none
    opens.
    """

    def __init__(self, spec: EncoderSpec, encoding: LiveEncoding | None = None) -> None:
        self.spec = spec
        self.key_pictures = 0
        self._encoding = LiveEncoding() if encoding is None else encoding
        # in this order they go: see hardware.GpuPictures
        self._context, self._pictures, self._way, self.why = _open(spec, self._encoding)
        self.name = self._way.encoder
        self._want_key = True
        self._last_key_pts: int | None = None

    def want_key(self) -> None:
        """Make a key picture soon. May be called from any thread."""
        self._want_key = True

    def encode(self, item: Redacted, pts: int) -> list[Encoded]:
        """The frame as a compressed picture that is shown at `pts` (1/90000 s; see Note [Egress]).

        Raises RedactionError for anything but a redacted frame, OutputError if the encoder fails, DeviceError if the
        frame lies on a GPU that does.
        """
        if not isinstance(item, Redacted):
            raise RedactionError(f"not a redacted frame: {type(item).__name__}")
        try:
            packets = self._packets(item.frame, pts)
        except Exception as error:
            if not self._way.last:
                self._encoding.failed[self._way.name] = words(error)
            if isinstance(error, FAILURES):
                raise OutputError(f"the encoder {self.name} failed: {error}") from error
            raise
        for packet in packets:
            if packet.is_keyframe:
                self.key_pictures += 1
                self._last_key_pts = packet.pts
        return [Encoded(packet, self.spec.codec, item.result) for packet in packets]

    def _packets(self, frame: Frame, pts: int) -> list[av.Packet]:
        if self._pictures is not None:
            picture = self._pictures.picture_on_gpu(frame)
        else:
            picture = picture_from_frame(frame, self._way.pixel_format)
        picture.pts, picture.time_base, picture.duration = pts, _TICKS, 0
        picture.pict_type = PictureType.I if self._key_is_due(pts) else PictureType.NONE
        return self._context.encode(picture)

    def _key_is_due(self, pts: int) -> bool:
        since_s = None if self._last_key_pts is None else (pts - self._last_key_pts) / 90_000
        if since_s is None or since_s >= KEY_EVERY_S or (self._want_key and since_s >= _KEY_APART_S):
            self._want_key = False
            return True
        return False


def _open(
    spec: EncoderSpec, encoding: LiveEncoding
) -> tuple[av.VideoCodecContext, GpuPictures | None, _Way, str]:
    reasons = []
    for way in _ways(spec, encoding.memory):
        if way.name in encoding.failed:
            reasons.append(f"{way.name} failed ({encoding.failed[way.name]})")
            continue
        try:
            context, pictures = _context(spec, way), None
            if way.memory is None:
                context.open()
            else:  # it opens with its first picture
                pictures = GpuPictures(way.memory, spec.size)
                try_picture(_context(spec, way), pictures)
        except (*FAILURES, StreamerError) as error:
            reasons.append(f"{way.name} does not open ({words(error)})")
            continue
        return context, pictures, way, "; ".join([*reasons, f"{way.name} opens"])
    raise OutputError(f"no encoder for {spec.codec}: {'; '.join(reasons)}")


def _context(spec: EncoderSpec, way: _Way) -> av.VideoCodecContext:
    context = av.VideoCodecContext.create(way.encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    even = spec.size.even
    context.width, context.height = even.width, even.height
    context.pix_fmt = way.pixel_format
    context.time_base = _TICKS
    context.framerate = Fraction(spec.rate).limit_denominator(1001)
    context.gop_size = max(
        2, round(spec.rate * KEY_EVERY_S * 4)
    )  # we ask for key pictures by time, this is a net
    context.max_b_frames = 0
    context.thread_count = spec.threads
    context.options = way.options
    return context


def _ways(spec: EncoderSpec, memory: VideoMemory | None) -> Iterator[_Way]:
    """In the order in which they are tried."""
    ceiling, half_s = str(spec.ceiling), str(spec.ceiling // 2)
    if spec.codec == "vp8":
        options = {**_VP8, "b": ceiling, "maxrate": ceiling, "bufsize": half_s}
        yield _Way("libvpx", "libvpx", "yuv420p", options, last=True)
        return
    limits = {"profile": "baseline", "maxrate": ceiling, "bufsize": half_s}
    chip = NVENC["h264"]
    if memory is not None:
        name = f"{chip.encoder} on pictures of the GPU"
        yield _Way(name, chip.encoder, chip.pixel_format, {**_NVENC, **limits}, memory)
    yield _Way("h264_nvenc", "h264_nvenc", "nv12", {**_NVENC, **limits})
    yield _Way("libx264", "libx264", "nv12", {**_X264, **limits}, last=True)
