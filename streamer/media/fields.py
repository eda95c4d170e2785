"""Which of an interlaced picture's two fields is shown first: PyAV has no name for it, FFmpeg's filters have."""

from fractions import Fraction

import av
from av.filter import Graph

_BOTTOM_FIRST = (3, 5)  # AV_FIELD_BB, AV_FIELD_BT


def is_top_first(picture: av.VideoFrame, context: av.VideoCodecContext) -> bool:
    """Whether the upper field of a picture that `context` decoded is shown first, as the picture itself says.

    Containers say it wrongly or not at all: DV, whose lower field always is the first, leaves it open. They are only
    believed of pictures that stay on a GPU, which the filter does not take.
    """
    if picture.sw_format is not None:
        return int(context.field_order) not in _BOTTOM_FIRST
    graph = _graph(picture, "select", r"eq(interlace_type\,TOPFIRST)")
    graph.push(picture)
    try:
        graph.pull()
    except (av.error.BlockingIOError, av.error.EOFError):
        return False
    return True


class TopFirst:
    """Marks pictures of one size and format as interlaced, upper field first: x264 asks each picture, not its own
    options, and takes those without a mark for the opposite.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None

    def marked(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture with the mark; its samples are not copied."""
        if self._graph is None:
            self._graph = _graph(picture, "setfield", "tff")
        self._graph.push(picture)
        return self._graph.vpull()


def _graph(picture: av.VideoFrame, name: str, argument: str) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=picture.time_base or Fraction(1),
    )
    graph.link_nodes(source, graph.add(name, argument), graph.add("buffersink")).configure()
    return graph
