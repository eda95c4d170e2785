"""When pictures are due that can be had as fast as they are asked for: those of files, and of HLS by the segment."""

from streamer.clock import Clock

TICKS = 90_000  # per second
_GAP_S = 10.0  # a longer step is no pause but another time line
_LATE_S = 1.0  # behind which the time at which pictures are due begins anew


class Pace:
    """A file's own pace, from 0 on: where its time goes back or leaps, it goes on by one usual step."""

    def __init__(self, clock: Clock, *, step: int) -> None:
        """`step`: how long a picture is usually shown, in 1/90000 s."""
        self.shift = 0  # in 1/90000 s, from the file's time line to this one, where it is now
        self._clock = clock
        self._step = step
        self._begun_s: float | None = None
        self._last: int | None = None  # on the file's time line

    def wait_for(self, pts: int) -> int:
        """Wait until the next picture is due, which the file shows at `pts` (1/90000 s); its time on this line."""
        if self._last is None or self._begun_s is None:
            self.shift, self._begun_s = -pts, self._clock.now()
        elif not 0 < pts - self._last < _GAP_S * TICKS:
            self.shift += self._last + self._step - pts
        self._last = pts
        due_s = self._begun_s + (pts + self.shift) / TICKS
        self._clock.sleep(max(0.0, due_s - self._clock.now()))
        return pts + self.shift


class Spread:
    """The pace of what comes in pieces: newest wins, and most of a piece that comes at once would be dropped.

    What is late is not hurried: the pictures after it would be used up before the next piece comes.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun_s: float | None = None
        self._last_s = 0.0

    def wait_for(self, time_s: float) -> None:
        """Wait until the next picture is due, which the source shows at `time_s`."""
        now_s, step_s = self._clock.now(), time_s - self._last_s
        if self._begun_s is None or not 0 <= step_s < _GAP_S or now_s - self._begun_s - time_s > _LATE_S:
            self._begun_s = now_s - time_s
        self._last_s = time_s
        self._clock.sleep(max(0.0, self._begun_s + time_s - now_s))
