"""Small clips made by PyAV, so that no test needs a file that is not ours."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from numpy.typing import NDArray

Draw = Callable[[int, int, int], NDArray[np.uint8]]  # index, width, height -> (h, w, 3) RGB


def texture(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """A smooth picture that moves two pixels a frame."""
    y, x = np.mgrid[0:height, 0:width]
    shift = 2 * index
    red = 128 + 90 * np.sin((x + shift) / 17)
    green = 128 + 90 * np.sin((y - shift) / 23)
    blue = 128 + 90 * np.sin((x + y + shift) / 31)
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


@dataclass(frozen=True)
class Clip:
    """What a generated clip is like."""

    frames: int = 30
    width: int = 192
    height: int = 108
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    rate: int = 25
    gop: int = 10
    options: dict[str, str] = field(default_factory=dict)
    audio: str | None = None  # encoder
    pts: Sequence[int] | None = None  # in time_base units of 1/1000 s; None: even
    rotation: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    draw: Draw = texture
    format: str | None = None


def make(path: Path, clip: Clip = Clip()) -> Path:
    """Write the clip."""
    time_base = Fraction(1, 1000) if clip.pts else Fraction(1, clip.rate)
    with av.open(str(path), "w", format=clip.format) as container:
        container.metadata.update(clip.metadata)
        stream = container.add_stream(clip.codec, rate=clip.rate, options=_options(clip))
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, clip.pixel_format
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        if clip.rotation:
            stream.set_display_rotation(clip.rotation)
        sound = container.add_stream(clip.audio, rate=48_000, layout="mono") if clip.audio else None
        for index in range(clip.frames):
            picture = av.VideoFrame.from_ndarray(clip.draw(index, clip.width, clip.height), "rgb24")
            picture.pts = clip.pts[index] if clip.pts else index
            picture.time_base = time_base
            container.mux(_timed(stream.encode(picture), clip))
            if sound is not None:
                container.mux(sound.encode(_tone(index, clip.rate)))
        container.mux(_timed(stream.encode(None), clip))
        if sound is not None:
            container.mux(sound.encode(None))
    return path


def cropped(path: Path, **cut: int) -> Path:
    """The H.264 or HEVC clip, not encoded again; its SPS says how much is cut off: `left`, `right`, `top`, `bottom`."""
    target = path.with_stem(f"{path.stem}-cropped")
    with av.open(str(path)) as container, av.open(str(target), "w") as output:
        stream = container.streams.video[0]
        copy = output.add_stream_from_template(stream)
        sides = ":".join(f"crop_{side}={pixels}" for side, pixels in cut.items())
        cutting = BitStreamFilterContext(f"{stream.codec_context.name}_metadata={sides}", stream, copy)
        for packet in container.demux(stream):
            for filtered in cutting.filter(packet if packet.size else None):
                filtered.stream = copy
                output.mux(filtered)
    return target


def _timed(packets: list[av.Packet], clip: Clip) -> list[av.Packet]:
    if (
        clip.codec == "libx265" and clip.frames <= 2
    ):  # it takes the times of decoding from memory that it has not set
        for packet in packets:
            packet.dts = packet.pts
    return packets


def _options(clip: Clip) -> dict[str, str]:
    options = dict(clip.options)
    if clip.codec == "libx264":
        options = {"preset": "ultrafast", "crf": "18", "g": str(clip.gop), "sc_threshold": "0", **options}
    elif clip.codec == "libx265":
        options = {"preset": "ultrafast", "x265-params": f"log-level=error:keyint={clip.gop}", **options}
    return options


def _tone(index: int, rate: int) -> av.AudioFrame:
    count = 48_000 // rate
    at = (np.arange(count) + index * count) / 48_000
    samples = (np.sin(2 * np.pi * 440 * at) * 8000).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, index * count, Fraction(1, 48_000)
    return frame


@dataclass(frozen=True)
class Seen:
    """What a plain decoder makes of a file."""

    times_s: list[float]
    sizes: set[tuple[int, int]]
    kinds: list[str]
    metadata: dict[str, str]
    codec: str
    audio_s: tuple[float, float] | None


def look(path: Path) -> Seen:
    """Decode the whole file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        kinds = [stream.type for stream in container.streams]
        metadata, codec = dict(container.metadata), stream.codec_context.name
        times, sizes = [], set()
        for picture in container.decode(stream):
            times.append(float(picture.pts * picture.time_base))
            sizes.add((picture.width, picture.height))
    audio = None
    if "audio" in kinds:
        with av.open(str(path)) as container:
            stamps = [float(frame.pts * frame.time_base) for frame in container.decode(audio=0)]
            audio = (stamps[0], stamps[-1])
    return Seen(times, sizes, kinds, metadata, codec, audio)


def lumas(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The luma plane of every picture, as the file's own decoder gives it."""
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            plane = picture.planes[0]
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            yield rows[: plane.height, : plane.width].copy()
