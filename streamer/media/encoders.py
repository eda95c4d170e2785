"""Which encoder a file gets, and with which options: what users of ffmpeg would expect, chosen by opening it."""

import os
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import Flags

from streamer.config import OutputPolicy
from streamer.errors import ConfigError, OutputError
from streamer.frame import Color, Size

os.environ.setdefault("SVT_LOG", "1")  # only errors: SVT-AV1 else tells all its settings on stderr

CONTAINERS = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".flv": "flv",
    ".ts": "mpegts", ".mts": "mpegts", ".m2ts": "mpegts",
}  # fmt: skip
_CODECS = {
    "matroska": ("h264", "hevc", "av1", "vp9"),
    "mp4": ("h264", "hevc", "av1", "vp9"),
    "mov": ("h264", "hevc"),
    "mpegts": ("h264", "hevc"),
    "webm": ("vp9", "av1"),
}
_OTHER = ("h264",)
_SLICES = (
    4  # threads of x264, each at a slice: each at a picture they hold 60 MiB more at 1080p, 300 on many cores
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to encode a codec."""

    encoder: str  # FFmpeg's name
    pixel_format: str
    crf: int
    preset: str
    presets: tuple[str, ...]
    preset_option: str = "preset"
    options: dict[str, str] = field(default_factory=dict)
    quality_option: str = "crf"
    worst: int = 63  # quality; lower is better
    best: int = 0  # what asks for better gets this
    smallest: int = 1  # width and height
    largest: tuple[int, int] = (65_535, 65_535)


_X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
RECIPES = {
    "h264": Recipe("libx264", "nv12", 23, "veryfast", _X26X, worst=51, smallest=2, largest=(16_384, 16_384)),
    "hevc": Recipe(
        "libx265", "yuv420p", 26, "superfast", _X26X, options={"x265-params": "log-level=error"},
        worst=51, smallest=16,
    ),
    "av1": Recipe("libsvtav1", "yuv420p", 32, "10", tuple(map(str, range(14))), smallest=4, largest=(16_384, 8704)),
    "vp9": Recipe(
        "libvpx-vp9", "yuv420p", 32, "6", tuple(map(str, range(9))), "cpu-used",
        {"b": "0", "deadline": "realtime", "row-mt": "1"},
    ),
}  # fmt: skip
_NVENC: dict[str, str] = {"rc": "vbr", "b": "0", "tune": "hq"}
NVENC = {  # `cuda`: pictures in the GPU's memory; a quality of 0 would leave the choice to NVENC
    "h264": Recipe("h264_nvenc", "cuda", 23, "p4", (), quality_option="cq", options=_NVENC, best=1),
    "hevc": Recipe("hevc_nvenc", "cuda", 26, "p4", (), quality_option="cq", options=_NVENC, best=1),
    "av1": Recipe("av1_nvenc", "cuda", 32, "p4", (), quality_option="cq", options=_NVENC, best=1),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What every frame of a stretch has in common."""

    size: Size
    time_base: Fraction
    rate: Fraction
    color: Color
    sample_aspect_ratio: Fraction = Fraction(1)
    top_field_first: bool | None = None  # None: progressive


def container_of(path: Path) -> str:
    """FFmpeg's name of the container that the file name asks for. Raises ConfigError for an unknown ending."""
    name = CONTAINERS.get(path.suffix.lower())
    if name is None:
        raise ConfigError(f"no container is known for this ending; use one of {' '.join(CONTAINERS)}: {path}")
    return name


def codec_of(container: str, policy: OutputPolicy) -> str:
    """The codec that the policy asks for, or the container's first choice. Raises ConfigError if it cannot hold it."""
    allowed = _CODECS.get(container, _OTHER)
    codec = policy.codec or allowed[0]
    if codec not in allowed:
        raise ConfigError(f"{container} cannot hold {codec} everywhere; it takes {', '.join(allowed)}")
    return codec


def planes_size(codec: str, size: Size) -> Size:
    """The size that is encoded: H.264 and HEVC know only even sizes in 4:2:0, the others any."""
    return size.even if codec in ("h264", "hevc") else size


def knows_fields(codec: str, size: Size) -> bool:
    """Whether pictures of that size can be written interlaced: H.264 counts the lines of 4:2:0 in fours then."""
    return codec == "h264" and size.even.height % 4 == 0


def options_of(codec: str, policy: OutputPolicy, shape: Shape) -> dict[str, str]:
    """The options of the encoder on the cores.

    Raises ConfigError for a preset or a quality that it does not know, and OutputError for a size.
    """
    recipe = RECIPES[codec]
    size, (widest, highest) = planes_size(codec, shape.size), recipe.largest
    if min(size.width, size.height) < recipe.smallest or size.width > widest or size.height > highest:
        raise OutputError(
            f"{codec} is encoded from {recipe.smallest}x{recipe.smallest} to {widest}x{highest},"
            f" not at {size.width}x{size.height}; another --codec may take it"
        )
    preset = policy.preset or recipe.preset
    if preset not in recipe.presets:
        raise ConfigError(f'{codec} has no preset "{preset}"; it has {" ".join(recipe.presets)}')
    if policy.crf is not None and policy.crf > recipe.worst:
        raise ConfigError(f"{codec} takes a crf of 0 to {recipe.worst}, not {policy.crf}")
    options = _options(recipe, policy, preset)
    if shape.top_field_first is not None and codec == "h264":
        options["x264-params"] = "tff=1" if shape.top_field_first else "bff=1"
    return options


def gpu_options(codec: str, policy: OutputPolicy) -> dict[str, str]:
    """The options of NVENC, whose constant quality takes the place of x264's."""
    return _options(NVENC[codec], policy, NVENC[codec].preset)


def _options(recipe: Recipe, policy: OutputPolicy, preset: str) -> dict[str, str]:
    quality = str(max(recipe.best, recipe.crf if policy.crf is None else policy.crf))
    return {**recipe.options, recipe.preset_option: preset, recipe.quality_option: quality}


def set_up(context: av.VideoCodecContext, codec: str, shape: Shape, pixel_format: str | None = None) -> None:
    """Tell the encoder what it will be given; `pixel_format` where it is not what the cores' encoder takes."""
    size = planes_size(codec, shape.size)
    context.width, context.height = size.width, size.height
    context.pix_fmt = pixel_format or RECIPES[codec].pixel_format
    context.time_base = shape.time_base
    context.framerate = shape.rate
    context.sample_aspect_ratio = shape.sample_aspect_ratio
    color = shape.color
    context.color_range = 2 if color.full_range else 1
    context.colorspace = color.matrix
    context.color_primaries = color.primaries
    context.color_trc = color.transfer
    if context.codec.name == "libx264":
        context.thread_type, context.thread_count = "SLICE", min(os.cpu_count() or 1, _SLICES)
    else:
        context.thread_type = "AUTO"


def open_encoder(codec: str, policy: OutputPolicy, shape: Shape, *, params: str) -> av.VideoCodecContext:
    """A free-standing x264 or x265 with its parameter sets in its extradata; `params` are further ones of its own."""
    context = av.VideoCodecContext.create(RECIPES[codec].encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    set_up(context, codec, shape)
    options = options_of(codec, policy, shape)
    name = "x264-params" if codec == "h264" else "x265-params"
    options[name] = f"{options[name]}:{params}" if name in options else params
    context.options = options
    context.flags |= Flags.global_header
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        raise OutputError(f"the encoder {RECIPES[codec].encoder} cannot be opened: {error}") from error
    return context
