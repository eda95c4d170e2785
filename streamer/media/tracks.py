"""Which streams of a container are videos."""

import av
from av.stream import Disposition


def videos_in(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Its video streams in their order, without attached pictures such as cover art, which may come first."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
