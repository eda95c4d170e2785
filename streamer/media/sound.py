"""Sound of a live stream: decoded once from whatever the source sends, encoded once for each codec that is wanted.

# Note [Sound]
Sound is never changed and never let out alone: it leaves with a redacted picture that is shown at its time or later,
under that picture's receipt, so it waits as long as pictures do and stops when they stop.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from streamer.errors import OutputError
from streamer.frame import FrameResult
from streamer.media.egress import Encoded

RATE = 48_000  # samples per second, of all sound in live streams
TICKS_PER_SAMPLE = Fraction(90_000, RATE)
CHUNK = 960  # samples: 20 ms
BIT_RATES = {"opus": 64_000, "aac": 96_000}
_ENCODERS = {"opus": ("libopus", "s16"), "aac": ("aac", "fltp")}
_LAYOUT = "stereo"
_ASTRAY_S = 0.08  # between the samples that were counted and the time they say they belong to


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """20 ms of sound."""

    samples: Any  # (1, 2 * CHUNK) int16, left and right in turn
    time_s: float  # of the first sample, on the source's time line

    @property
    def length_s(self) -> float:
        """Seconds."""
        return CHUNK / RATE


class SoundReader:
    """Decodes the audio stream of one connection. What cannot be decoded is left out and counted in `damaged`."""

    def __init__(self, stream: Any) -> None:
        self.damaged = 0
        self.stream = stream
        self._resampler = av.AudioResampler(format="s16", layout=_LAYOUT, rate=RATE, frame_size=CHUNK)

    def read(self, packet: av.Packet) -> Iterator[Sound]:
        """The sound that a packet completes."""
        try:
            frames: Any = packet.decode()
            parts = [part for frame in frames for part in self._resampler.resample(frame)]
        except (av.error.FFmpegError, ValueError):
            self.damaged += 1
            self._resampler = av.AudioResampler(format="s16", layout=_LAYOUT, rate=RATE, frame_size=CHUNK)
            return
        for part in parts:
            if part.pts is not None and part.time_base is not None and part.samples == CHUNK:
                yield Sound(part.to_ndarray(), float(part.pts * part.time_base))


class SoundEncoder:
    """One codec's encoder. Its packets follow each other without a gap; where their time and that of the sound part by
    more than 80 ms, they begin anew.

    Raises OutputError if it does not open.
    """  # fmt: skip

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self._context: Any = None
        self._open()
        self._next = 0  # the sample that comes next, counted from pts 0
        self._started = False
        self._rest = np.empty((1, 0), np.int16)

    def _open(self) -> None:
        name, sample_format = _ENCODERS[self.codec]
        try:
            context: Any = av.AudioCodecContext.create(name, "w")
            context.sample_rate, context.layout, context.format = RATE, _LAYOUT, sample_format
            context.bit_rate, context.time_base = BIT_RATES[self.codec], Fraction(1, RATE)
            context.open()
        except (av.error.FFmpegError, ValueError) as error:
            raise OutputError(f"no encoder for {self.codec}: {error}") from error
        self._context = context
        self._converter = av.AudioResampler(format=sample_format, layout=_LAYOUT, rate=RATE)

    def encode(self, sound: Sound, pts: int, receipt: FrameResult) -> list[Encoded]:
        """The packets that this sound completes, which is heard at `pts` (1/90000 s) with the picture of `receipt`."""
        wanted = round(pts / TICKS_PER_SAMPLE / 8) * 8  # a whole number of ticks
        held = self._rest.shape[1] // 2
        if not self._started or abs(wanted - self._next - held) > _ASTRAY_S * RATE:
            if self._started and wanted < self._next + held:
                return []  # it is late: what follows catches up
            self._next, self._started = wanted, True
            self._rest = np.empty((1, 0), np.int16)
        self._rest = np.concatenate([self._rest, sound.samples], axis=1)
        size = self._context.frame_size or CHUNK
        made: list[Encoded] = []
        while self._rest.shape[1] >= 2 * size:
            block, self._rest = self._rest[:, : 2 * size], self._rest[:, 2 * size :]
            made += self._block(block, receipt)
            self._next += size
        return made

    def _block(self, block: Any, receipt: FrameResult) -> list[Encoded]:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="s16", layout=_LAYOUT)
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), self._next
        try:
            packets = [
                packet for part in self._converter.resample(frame) for packet in self._context.encode(part)
            ]
        except (av.error.FFmpegError, ValueError) as error:
            raise OutputError(f"the encoder of {self.codec} failed: {error}") from error
        for packet in packets:
            packet.pts = packet.dts = int((packet.pts or 0) * TICKS_PER_SAMPLE)
            packet.time_base = Fraction(1, 90_000)
        return [Encoded(packet, self.codec, receipt) for packet in packets]
