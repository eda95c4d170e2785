"""A video file as the end of a stream: written as NAME.part, under its own name only once it is whole."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import av

from streamer.config import OutputPolicy
from streamer.device.base import Device, VideoMemory
from streamer.errors import ConfigError, OutputError, RedactionError, StreamerError
from streamer.frame import Clean, Redacted
from streamer.media import hardware
from streamer.media.audio import AudioTrack, audio_track
from streamer.media.encoders import (
    NVENC,
    RECIPES,
    Recipe,
    Shape,
    codec_of,
    container_of,
    gpu_options,
    knows_fields,
    options_of,
    planes_size,
    set_up,
)
from streamer.media.fields import TopFirst
from streamer.media.gop import PacketGop
from streamer.media.picture import picture_from_frame
from streamer.media.source import AudioPacket, FileSource
from streamer.media.splice import SplicedVideo
from streamer.media.syntax import SYNTAXES
from streamer.part import Part, part_of
from streamer.tally import Tally

_SPLICED = {"h264": ("mp4", "mov", "matroska", "mpegts"), "hevc": ("mp4", "mov", "matroska")}
_REORDERED = 2  # pictures that x265 reads before it knows the time between decoding and display
_DAMAGED_SOUND = (av.error.InvalidDataError, av.error.PatchWelcomeError)


def copy_refusal(path: Path, policy: OutputPolicy) -> str | None:
    """Why a file of that name takes no packets of any source; None where it takes those of its codec.

    Raises ConfigError for a container or a codec that cannot be.
    """
    container = container_of(path)
    if policy.reencode == "all":
        return "every picture was asked to be encoded (--reencode all)"
    codec = codec_of(container, policy)
    if container not in _SPLICED.get(codec, ()):
        return f"the output is {codec} in {container}"
    return None


class FileSink:
    """Writes redacted frames, clean groups of pictures and audio into one file.

    Use it in a with-statement: leaving it without an error puts the file under its name, leaving it with one
    leaves nothing. `source` gives the shape of the stream, the audio tracks and what may be copied.

    With a `device` that shares memory with NVENC, that encodes where it takes the shape; `encoding` says who does.
    Where groups are copied, the cores encode: our parameter sets need ids that the source does not use.
    """

    def __init__(
        self,
        path: Path,
        source: FileSource,
        policy: OutputPolicy,
        *,
        tally: Tally,
        device: Device | None = None,
    ) -> None:
        self.path = path
        self._tally = tally
        info = source.info
        container = container_of(path)
        self.codec = codec_of(container, policy)
        fields = info.top_field_first if knows_fields(self.codec, info.size) else None
        self._shape = Shape(
            info.size, info.time_base, info.rate, info.color, info.sample_aspect_ratio, fields
        )
        if planes_size(self.codec, info.size) != info.size:
            even = info.size.even
            tally.note(
                f"{self.codec} knows only even sizes: {even.width}x{even.height}, the last line repeated"
            )
        if (
            container in ("matroska", "webm")
            and self.codec in ("vp9", "av1")
            and info.sample_aspect_ratio != 1
        ):
            tally.note(f"pixels are {info.sample_aspect_ratio} as wide as high, which cannot be said there")
        if fields != info.top_field_first:
            which = self.codec if self.codec != "h264" else f"h264 of {info.size.even.height} lines"
            tally.note(f"interlaced: {which} is written as progressive, with both fields in each picture")
        self._part = Part(path)
        try:
            self._container = _open_output(self._part.path, container)
        except BaseException:
            self._part.drop()
            raise
        self._spliced: SplicedVideo | None = None
        self._gpu: hardware.GpuPictures | None = None
        self._fields = TopFirst() if fields else None
        self._pictures = 0  # encoded
        self._early: list[AudioPacket] | None = None  # audio before the first picture
        try:
            if copy_refusal(path, policy) is None and info.copy_refusal is None and info.codec == self.codec:
                self._splice(source, policy, in_band=container == "mpegts")
                encoder = RECIPES[self.codec].encoder
                self.encoding = f"encoded on the cores by {encoder}, between groups that are copied"
            else:
                self._choose(policy, device.video if device is not None else None)
            self._audio: dict[int, AudioTrack] = {}
            for stream in source.audio if policy.audio == "keep" else []:
                self._audio[stream.index] = audio_track(self._container, stream, tally)
            if policy.keep_metadata:
                self._container.metadata.update(source.metadata)
        except BaseException:
            self._abandon()
            raise

    def __enter__(self) -> "FileSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandon()
            return
        try:
            self._finish()
        except BaseException:
            self._abandon()
            raise

    def write(self, item: Redacted | Clean | AudioPacket) -> None:
        """The next item, in the order in which `anonymize` gives them. Raises OutputError if it cannot be written."""
        if isinstance(item, AudioPacket):
            if self._early is not None:
                self._early.append(item)
                return
            track = self._audio.get(item.packet.stream_index)
            if track is not None:
                self._mux_sound(track.packets(item.packet))
        elif isinstance(item, Redacted):
            with self._encoding():
                packets = self._encoded(item)
            self._mux_video(packets)
            early, self._early = self._early, None
            for packet in early or ():
                self.write(packet)
        elif isinstance(item, Clean):
            if self._spliced is None or not isinstance(item.gop, PacketGop):
                raise RedactionError("packets of the source cannot go into this file")
            with self._encoding():
                packets = self._spliced.copy(item.gop)
            self._mux_video(packets)
            item.gop.release()
        else:
            raise RedactionError(f"not a redacted frame: {type(item).__name__}")

    def _encoded(self, item: Redacted) -> list[av.Packet]:
        self._pictures += 1
        if self._spliced is not None:
            return self._spliced.encode(item.frame)
        if self._gpu is not None:
            return self._stream.encode(self._gpu.picture_on_gpu(item.frame))
        picture = picture_from_frame(item.frame, RECIPES[self.codec].pixel_format)
        return self._stream.encode(self._fields.marked(picture) if self._fields is not None else picture)

    @contextmanager
    def _encoding(self) -> Iterator[None]:
        try:
            with self._tally.stage("encode"):
                yield
        except (av.error.FFmpegError, ValueError) as error:
            if isinstance(error, StreamerError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"the encoder failed ({reason}): {self.path}") from error

    def _splice(self, source: FileSource, policy: OutputPolicy, *, in_band: bool) -> None:
        info = source.info
        self._spliced = SplicedVideo(
            SYNTAXES[self.codec],
            source.parameter_sets,
            info.reorder_depth,
            policy,
            self._shape,
            in_band=in_band,
        )
        self._stream = self._container.add_stream_from_template(source.stream)
        self._stream.codec_context.extradata = self._spliced.extradata
        self._tag()
        self._stream.time_base = info.time_base
        self._stream.metadata.clear()

    def _choose(self, policy: OutputPolicy, memory: VideoMemory | None) -> None:
        options = options_of(self.codec, policy, self._shape)
        recipe = RECIPES[self.codec]
        self.encoding = f"encoded on the cores by {recipe.encoder}"
        if memory is not None:
            answer = hardware.try_encoder(self.codec, policy, self._shape, memory)
            self.encoding = answer.reason
            if answer.works:
                recipe, options = NVENC[self.codec], gpu_options(self.codec, policy)
                self._gpu = hardware.GpuPictures(memory, self._shape.size)
                self._early = []  # NVENC opens with its first picture, and the file's header waits for it
        self._encode(recipe, options)

    def _encode(self, recipe: Recipe, options: dict[str, str]) -> None:
        try:
            stream = self._container.add_stream(recipe.encoder, rate=self._shape.rate, options=options)
            assert isinstance(stream, av.VideoStream)
            self._stream = stream
            set_up(self._stream.codec_context, self.codec, self._shape, recipe.pixel_format)
            self._stream.time_base = self._shape.time_base
            self._tag()
        except (av.error.FFmpegError, ValueError) as error:
            raise OutputError(f"the encoder {recipe.encoder} cannot be opened: {error}") from error

    def _tag(self) -> None:
        """Apple's players take HEVC only where the name says that no parameter sets come in band."""
        if self.codec == "hevc" and self._container.format.name in ("mp4", "mov"):
            self._stream.codec_context.codec_tag = "hvc1"

    def _mux_video(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            packet.stream = self._stream
        self._mux(packets)

    def _mux_sound(self, packets: list[av.Packet]) -> None:
        """Leave out what cannot be: damaged packets, which FFmpeg's filters into the container read."""
        for packet in packets:
            try:
                self._mux([packet])
            except OutputError as error:
                if not isinstance(error.__cause__, _DAMAGED_SOUND):
                    raise
                self._tally.events["damaged packets"] += 1

    def _mux(self, packets: list[av.Packet]) -> None:
        try:
            with self._tally.stage("write"):
                for packet in packets:
                    self._container.mux_one(packet)
        except av.error.FFmpegError as error:
            raise OutputError(f"cannot be written ({error.strerror or error}): {self.path}") from error

    def _finish(self) -> None:
        with self._encoding():
            packets = self._spliced.end_stretch() if self._spliced is not None else self._last()
        self._mux_video(packets)
        for track in self._audio.values():
            self._mux_sound(track.flush())
        try:
            self._container.close()
            self._part.keep()
        except (av.error.FFmpegError, OSError) as error:
            raise OutputError(f"cannot be written ({error.strerror or error}): {self.path}") from error

    def _last(self) -> list[av.Packet]:
        packets = self._stream.encode(None)
        if self.codec == "hevc" and self._pictures <= _REORDERED:
            for packet in packets:
                packet.dts = packet.pts  # theirs comes from memory that x265 has not set
        return packets

    def _abandon(self) -> None:
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError, ValueError):
            self._tally.events["unfinished outputs"] += 1
        self._part.drop()


def _open_output(part: Path, container: str) -> av.container.OutputContainer:
    options = {"movflags": "+faststart"} if container in ("mp4", "mov") else {}
    try:
        return av.open(f"file:{part}", "w", format=container, container_options=options)
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"cannot be written ({error.strerror or error}): {part}") from error


def check_output(source: Path, target: Path, *, overwrite: bool) -> None:
    """Refuse a target that is the source, exists already or has no folder. Raises ConfigError or OutputError."""
    container_of(target)
    check_target(source, target, overwrite=overwrite)


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """The part of `check_output` that holds for every kind of file."""
    if not target.parent.is_dir():
        raise OutputError(f"no such folder: {target.parent}")
    if _is_same(target, source) or _is_same(part_of(target), source):
        raise ConfigError(f"the output would replace the input; choose another name: {target}")
    if target.exists() and not overwrite:
        raise ConfigError(f"the output exists already; use --overwrite to replace it: {target}")


def check_beside(path: Path, media: Iterable[Path]) -> None:
    """Refuse a file for facts (objects, a report) that is a folder, has none, would replace one of `media` or cannot
    be written.

    Raises ConfigError or OutputError.
    """
    if path.is_dir():
        raise ConfigError(f"this is a folder; name a file in it: {path}")
    if not path.parent.is_dir():
        raise OutputError(f"no such folder: {path.parent}")
    for other in media:
        if _is_same(path, other) or _is_same(part_of(path), other):
            raise ConfigError(f"this would replace an input or a result; choose another name: {path}")
    _try_to_write(path)


def _try_to_write(path: Path) -> None:
    """Find out before a long run whether a file can be written, which permissions alone do not say."""
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"cannot be written (Permission denied): {path}")
    if not path.is_symlink() and (
        path.is_file() or not path.exists()
    ):  # nothing takes the place of /dev/stdout
        Part(path).drop()


def _is_same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.absolute() == other.absolute()
