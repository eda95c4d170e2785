"""Sound of a file: copied untouched where the container allows it, else encoded again; in sync either way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import av
from av.audio.stream import AudioStream

from streamer.errors import OutputError
from streamer.media.vorbis import without_comments
from streamer.tally import Tally

_OF_QUICKTIME = {  # languages that FFmpeg writes into MOV under one of their two ISO 639-2 codes only
    "deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "fre": "fra", "swe": "sve", "cze": "ces",
    "rum": "ron", "slo": "slk", "fas": "per", "mkd": "mac", "eus": "baq", "cym": "wel",
}  # fmt: skip
_FALLBACK = {"webm": "libopus"}  # the others: AAC
_PLAYED = {  # what common players read in a container whose muxer says too little or too much
    "mp4": {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "amr_nb", "amr_wb"},
    "mpegts": {"aac", "mp3", "mp2", "ac3", "eac3"},
    "flv": {"aac", "mp3"},
}


class AudioTrack(Protocol):
    """One audio track of the output."""

    def packets(self, packet: av.Packet) -> list[av.Packet]:
        """What is to be written for a packet of the source."""

    def flush(self) -> list[av.Packet]:
        """What is left at the end."""


def audio_track(container: av.container.OutputContainer, source: AudioStream, tally: Tally) -> AudioTrack:
    """A track for the source's audio stream: a copy if the container takes its codec, else an encoder."""
    name = source.codec_context.name
    plain = {"mp3float": "mp3", "libopus": "opus"}.get(name, name)
    raw = container.format.name == "mov" and plain.startswith("pcm_")
    fits = raw or plain in _PLAYED.get(container.format.name, container.supported_codecs)
    header = None
    if plain == "vorbis":
        header = without_comments(bytes(source.codec_context.extradata or b""))
        fits = fits and header is not None
    if fits:
        track: AudioTrack = _Copied(container, source, header)
    else:
        encoder = _FALLBACK.get(container.format.name, "aac")
        tally.note(f"audio: {name} does not fit into {container.format.name}, encoded as {encoder}")
        track = _Encoded(container, source, encoder)
    tally.note("audio is kept: voices are not changed")
    return track


def _keep_tags(target: AudioStream, source: AudioStream) -> None:
    """Its language, and what a player goes by: whether it is the default, a dub, a comment, for the blind.

    Titles and handlers stay behind: they can name people.
    """
    target.disposition = source.disposition
    target.metadata.clear()
    language = source.metadata.get("language")
    if language is not None:
        in_mov = target.container.format.name == "mov"
        target.metadata["language"] = _OF_QUICKTIME.get(language, language) if in_mov else language


class _Copied:
    """The source's packets; `header` takes the place of its own, which may name people."""

    def __init__(
        self, container: av.container.OutputContainer, source: AudioStream, header: bytes | None
    ) -> None:
        self._stream = container.add_stream_from_template(source)
        if header is not None:
            self._stream.codec_context.extradata = header
        self._stream.time_base = source.time_base
        _keep_tags(self._stream, source)

    def packets(self, packet: av.Packet) -> list[av.Packet]:
        if packet.dts is None and packet.pts is None:
            return []
        packet.stream = self._stream
        return [packet]

    def flush(self) -> list[av.Packet]:
        return []


def _layout(channels: int) -> str:
    """The usual arrangement of so many channels; more than eight are mixed down."""
    return {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}.get(
        channels, "stereo"
    )


def _rate(encoder: str, wanted: int) -> int:
    """The encoder's next higher number of samples a second, or its highest."""
    rates = av.Codec(encoder, "w").audio_rates or [wanted]
    return min((rate for rate in rates if rate >= wanted), default=max(rates))


class _Encoded:
    def __init__(self, container: av.container.OutputContainer, source: AudioStream, encoder: str) -> None:
        self._decoder = source.codec_context
        rate = _rate(encoder, self._decoder.sample_rate)
        stream = container.add_stream(encoder, rate=rate, layout=_layout(self._decoder.layout.nb_channels))
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._resampler: av.AudioResampler | None = None
        self._kind: tuple[object, ...] = ()
        self._rate = rate
        _keep_tags(self._stream, source)

    def packets(self, packet: av.Packet) -> list[av.Packet]:
        with self._errors():
            return self._encode(self._decoded(packet))

    def flush(self) -> list[av.Packet]:
        with self._errors():
            frames = self._encode(self._decoded(None))
            rest = self._resampler.resample(None) if self._resampler is not None else []
            return [
                *frames,
                *(out for frame in rest for out in self._stream.encode(frame)),
                *self._stream.encode(None),
            ]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            message = f"the sound cannot be encoded as {self._stream.codec_context.name} ({reason}); use --audio drop"
            raise OutputError(message) from error

    def _decoded(self, packet: av.Packet | None) -> list[av.AudioFrame]:
        try:
            return self._decoder.decode(packet)
        except av.error.FFmpegError:
            return []

    def _encode(self, frames: list[av.AudioFrame]) -> list[av.Packet]:
        return [
            packet
            for frame in frames
            for part in self._resampler_for(frame).resample(frame)
            for packet in self._stream.encode(part)
        ]

    def _resampler_for(self, frame: av.AudioFrame) -> av.AudioResampler:
        """One per kind of sound: at a change the old one's rest, less than the encoder takes at once, is lost."""
        kind = frame.format.name, frame.layout.name, frame.sample_rate, frame.time_base
        if self._resampler is None or kind != self._kind:
            context = self._stream.codec_context
            self._kind = kind
            self._resampler = av.AudioResampler(
                format=context.format,
                layout=context.layout,
                rate=self._rate,
                frame_size=context.frame_size or None,
            )
        return self._resampler
