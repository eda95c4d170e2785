"""Whether groups of pictures of a source may be copied, by what its stream and its first picture are. See media.gop."""

import av

from streamer.frame import Frame
from streamer.media.picture import is_mirrored, turn_of
from streamer.media.syntax import SYNTAXES

_CONTAINERS = ("mov", "matroska", "mpegts", "flv")
_SAMPLES = ("yuv420p", "yuvj420p", "nv12")


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


def picture_refusal(picture: av.VideoFrame, frame: Frame) -> str | None:
    """Why no group may be copied whose pictures are like this one, which became `frame`; None where groups may."""
    if turn_of(picture) or is_mirrored(picture):
        return "the source is rotated"
    samples = picture.sw_format or picture.format
    if samples.name not in _SAMPLES:
        return f"the source has {samples.name} samples"
    if frame.size != frame.size.even:
        return "the source has an odd size"
    if picture.interlaced_frame:
        return "the source is interlaced"
    return None
