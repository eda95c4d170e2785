"""One encoder per live stream: redacted frames in, pictures for every outlet out, without delay."""

from dataclasses import dataclass
from fractions import Fraction

import av
from av.video.frame import PictureType

from streamer.errors import OutputError, RedactionError
from streamer.frame import Redacted, Size
from streamer.media.egress import Encoded
from streamer.media.picture import picture_from_frame

_TICKS = Fraction(1, 90_000)
KEY_EVERY_S = 2.0  # also the shortest segment of HLS and of recordings
_KEY_APART_S = 0.5  # between key pictures that viewers ask for
_BITS_PER_PIXEL_S = 0.11  # of the bit rate ceiling: about 6.8 Mbit/s for 1080p30
_CEILING = (500_000, 12_000_000)


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


class LiveEncoder:
    """Encodes redacted frames as they come: no B pictures, no look-ahead, key pictures every 2 s and on demand.

    H.264 goes to NVENC where it opens, else to libx264; VP8 to libvpx. `name` and `why` say which and why.
    Raises OutputError if none opens.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        self.key_pictures = 0
        self._context, self.name, self.why = _open(spec)
        self._want_key = True
        self._last_key_pts: int | None = None

    def want_key(self) -> None:
        """Make a key picture soon. May be called from any thread."""
        self._want_key = True

    def encode(self, item: Redacted, pts: int) -> list[Encoded]:
        """The frame as a compressed picture that is shown at `pts` (1/90000 s; see Note [Egress]).

        Raises RedactionError for anything but a redacted frame, OutputError if the encoder fails.
        """
        if not isinstance(item, Redacted):
            raise RedactionError(f"not a redacted frame: {type(item).__name__}")
        frame = item.frame
        picture = picture_from_frame(frame, "nv12" if self.spec.codec == "h264" else "yuv420p")
        picture.pts, picture.time_base, picture.duration = pts, _TICKS, 0
        picture.pict_type = PictureType.I if self._key_is_due(pts) else PictureType.NONE
        try:
            packets = self._context.encode(picture)
        except (av.error.FFmpegError, ValueError) as error:
            raise OutputError(f"the encoder {self.name} failed: {error}") from error
        for packet in packets:
            if packet.is_keyframe:
                self.key_pictures += 1
                self._last_key_pts = packet.pts
        return [Encoded(packet, self.spec.codec, item.result) for packet in packets]

    def _key_is_due(self, pts: int) -> bool:
        since_s = None if self._last_key_pts is None else (pts - self._last_key_pts) / 90_000
        if since_s is None or since_s >= KEY_EVERY_S or (self._want_key and since_s >= _KEY_APART_S):
            self._want_key = False
            return True
        return False


def _open(spec: EncoderSpec) -> tuple[av.VideoCodecContext, str, str]:
    reasons = []
    for name, options in _candidates(spec):
        try:
            context = av.VideoCodecContext.create(name, "w")
            assert isinstance(context, av.VideoCodecContext)
            _set_up(context, spec, options)
            context.open()
        except (av.error.FFmpegError, ValueError) as error:
            reasons.append(f"{name} does not open ({getattr(error, 'strerror', None) or error})")
            continue
        return context, name, "; ".join([*reasons, f"{name} opens"])
    raise OutputError(f"no encoder for {spec.codec}: {'; '.join(reasons)}")


def _set_up(context: av.VideoCodecContext, spec: EncoderSpec, options: dict[str, str]) -> None:
    even = spec.size.even
    context.width, context.height = even.width, even.height
    context.pix_fmt = "nv12" if spec.codec == "h264" else "yuv420p"
    context.time_base = _TICKS
    context.framerate = Fraction(spec.rate).limit_denominator(1001)
    context.gop_size = max(
        2, round(spec.rate * KEY_EVERY_S * 4)
    )  # we ask for key pictures by time, this is a net
    context.max_b_frames = 0
    context.thread_count = spec.threads
    context.options = options


def _candidates(spec: EncoderSpec) -> list[tuple[str, dict[str, str]]]:
    ceiling = str(spec.ceiling)
    half_s = str(spec.ceiling // 2)
    if spec.codec == "vp8":
        options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "error-resilient": "1"}
        return [("libvpx", {**options, "b": ceiling, "maxrate": ceiling, "bufsize": half_s})]
    nvenc = {"preset": "p2", "tune": "ull", "zerolatency": "1", "forced-idr": "1", "rc": "vbr", "cq": "25"}
    x264 = {"preset": "superfast", "tune": "zerolatency", "forced-idr": "1", "crf": "24", "sc_threshold": "0"}
    limits = {"profile": "baseline", "maxrate": ceiling, "bufsize": half_s}
    return [("h264_nvenc", {**nvenc, **limits}), ("libx264", {**x264, **limits})]
