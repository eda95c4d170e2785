"""When each decoded picture is shown: its own time where that can be believed, else one that goes on evenly."""

from fractions import Fraction

import av

from streamer.media.picture import Timing
from streamer.tally import Tally

_COUNT_DECODED = {("avi", "h264"), ("avi", "hevc")}  # FFmpeg's pts of these follow the order of decoding


def usual_step(stream: av.VideoStream, base: Fraction) -> int:
    """A picture's usual length in `base`, at least 1."""
    return max(1, round(1 / (base * (stream.average_rate or stream.guessed_rate or 25))))


class DisplayTimes:
    """The times of one stream's pictures, in the order in which they are shown: each later than the one before."""

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        first_pts: int | None,
        tally: Tally,
    ) -> None:
        """`first_pts`: of a first picture that has none itself."""
        self._stream = stream
        self._tally = tally
        self._first_pts = first_pts or 0
        self._last_pts: int | None = None
        self._counts_decoded = (container.format.name, stream.codec_context.name) in _COUNT_DECODED
        self._reordering = 0  # from the decoding of the first picture to its display
        self._decoding_step = (
            0  # between the two pictures decoded last; the container's rate may be that of its clock
        )
        self._last_dts: int | None = None

    def of(self, picture: av.VideoFrame, number: int) -> Timing:
        """When the next picture, which gets that number, is shown and for how long."""
        base = picture.time_base or self._stream.time_base or Fraction(1, 90_000)
        step = usual_step(self._stream, base)
        pts = self._displayed(picture, step) if self._counts_decoded else picture.pts
        if pts is None or (self._last_pts is not None and pts <= self._last_pts):
            pts = self._first_pts if self._last_pts is None else self._last_pts + step
            self._tally.events["time stamps mended"] += 1
        self._last_pts = pts
        return Timing(number, pts, base, picture.duration or step)

    def _displayed(self, picture: av.VideoFrame, step: int) -> int:
        """When a picture is shown of which it is only known when it was decoded; see `_COUNT_DECODED`.

        Pictures come out in display order, each with the `dts` of the packet behind which it came, none at the end.
        """
        if self._last_pts is None:
            self._reordering = (picture.pts or 0) - (picture.dts or 0)
        if picture.dts is None:
            following = (self._last_pts or 0) + (self._decoding_step or step)
            return (picture.pts or 0) if self._last_pts is None else following
        if self._last_dts is not None:
            self._decoding_step = picture.dts - self._last_dts
        self._last_dts = picture.dts
        return picture.dts + self._reordering
