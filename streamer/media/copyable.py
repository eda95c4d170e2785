"""Whether groups of pictures of a source may be copied, by what its stream and its first picture are. See media.gop."""

from fractions import Fraction

import av

from streamer.frame import Frame
from streamer.media.picture import is_mirrored, turn_of
from streamer.media.syntax import SYNTAXES

_CONTAINERS = ("mov", "matroska", "mpegts", "flv")
_SAMPLES = ("yuv420p", "yuvj420p", "nv12")
_FILLING = 16  # columns or rows, fewer of which an encoder adds to make the size one of its blocks


def stream_refusal(context: av.VideoCodecContext, container: str, into: str | None) -> str | None:
    """Why no group of a stream may be copied into the codec `into` (None: its own); None where groups may."""
    if context.name not in SYNTAXES:
        return f"the source is {context.name}, neither H.264 nor HEVC"
    if into is not None and context.name != into:
        return f"the source is {context.name}, the output {into} (--codec {context.name} could copy)"
    if not context.extradata:
        return "the stream has no parameter sets in its header"
    if container.split(",")[0] not in _CONTAINERS:
        return f"the container is {container}"
    syntax = SYNTAXES[context.name]
    sets = syntax.parameter_sets(bytes(context.extradata))
    if not sets or any(-1 in (syntax.place(unit) or ()) for unit in sets) or syntax.naming(sets) is None:
        return "its parameter sets cannot be read, or leave no id for ours"
    return None


def _hides_more(context: av.VideoCodecContext, picture: av.VideoFrame) -> bool:
    """Whether the packets hold more of a picture than its decoder shows: cropping without encoding only says so in
    the SPS, and what is cut off, which nobody looked at, would travel with them.
    """
    hidden = context.coded_width - picture.width, context.coded_height - picture.height
    return max(hidden) >= _FILLING


def picture_refusal(
    context: av.VideoCodecContext, aspect: Fraction | None, picture: av.VideoFrame, frame: Frame
) -> str | None:
    """Why no group may be copied whose pictures are like this one, just decoded, which became `frame`; None where
    groups may. `aspect`: of the pixels as the container says, where it does.
    """
    if turn_of(picture) or is_mirrored(picture):
        return "the source is rotated"
    samples = picture.sw_format or picture.format
    if samples.name not in _SAMPLES:
        return f"the source has {samples.name} samples"
    if frame.size != frame.size.even:
        return "the source has an odd size"
    if _hides_more(context, picture):
        return "the source is cropped: more is in its packets than it shows"
    if picture.interlaced_frame:
        return "the source is interlaced"
    if (aspect or 1) != (context.sample_aspect_ratio or 1):
        return "the container gives the pixels another shape than the stream, which copied packets would not have"
    return None
