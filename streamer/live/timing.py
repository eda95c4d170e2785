"""When things happen in a live stream: its own time line, retries, and the moment at which a picture is overdue."""

from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction

from streamer.clock import RETRY_S

TIME_BASE = Fraction(1, 90_000)  # of everything that leaves
TICKS = 90_000  # per second

_JUMP_S = 1.0  # a step of the source's time that is not believed
_ASTRAY_S = 0.5  # between our time line and the clock
_FAR_S = 2.0  # between sound and the clock, beyond which it is left out
_PULL = 0.005  # share of the distance to the clock that each frame makes good
_REMEMBERED = 256  # frames whose arrival is known

DELAYS_S: tuple[float, ...] = RETRY_S  # to connect
SETTLED_S = (
    10.0  # a connection that held so long counts as good: the next loss starts with the shortest delay
)


class Timeline:
    """Maps the time stamps of whatever a source sends to one time line that never runs backward.

    It follows the source's own steps, which are smoother than arrivals, and drifts towards the clock; steps
    that no camera makes, and time lines far from the clock, start anew at the clock.
    """

    def __init__(self) -> None:
        self.jumps = 0
        self._start_s: float | None = None
        self._offset_s = 0.0  # our time minus the source's
        self._source_s: float | None = None
        self._last = -1
        self._arrivals: OrderedDict[int, float] = OrderedDict()

    def stamp(self, source_s: float | None, *, at_s: float) -> int:
        """The pts, in TIME_BASE, of a frame that says `source_s` and has come at `at_s` on our clock."""
        if self._start_s is None:
            self._start_s = at_s
        ours_s = at_s - self._start_s
        if self._believable(source_s, ours_s):
            assert source_s is not None
            self._offset_s += _PULL * (ours_s - source_s - self._offset_s)
            ours_s = source_s + self._offset_s
        elif source_s is not None:
            self.jumps += self._source_s is not None
            self._offset_s = ours_s - source_s
        self._source_s = source_s
        self._last = max(round(ours_s * TICKS), self._last + 1)
        self._arrivals[self._last] = at_s
        while len(self._arrivals) > _REMEMBERED:
            self._arrivals.popitem(last=False)
        return self._last

    def _believable(self, source_s: float | None, ours_s: float) -> bool:
        if source_s is None or self._source_s is None:
            return False
        step = source_s - self._source_s
        return 0 < step <= _JUMP_S and abs(source_s + self._offset_s - ours_s) <= _ASTRAY_S

    def place(self, source_s: float, *, at_s: float) -> int | None:
        """Where on our time line that moment of the source's is; None while that is unknown or not to be believed."""
        if self._start_s is None or self._source_s is None:
            return None
        ours_s = source_s + self._offset_s
        return round(ours_s * TICKS) if abs(ours_s - (at_s - self._start_s)) <= _FAR_S else None

    def restart(self) -> None:
        """A new connection: its time stamps have nothing to do with those before."""
        self._source_s = None

    def arrival_s(self, pts: int) -> float | None:
        """When the frame with that pts came, for frames of the last seconds."""
        return self._arrivals.get(pts)

    def pts_at(self, at_s: float) -> int:
        """The pts of this moment."""
        return 0 if self._start_s is None else round((at_s - self._start_s) * TICKS)


@dataclass(slots=True)
class Backoff:
    """How long to wait before the next try to connect."""

    failures: int = 0

    def next_s(self, *, held_s: float) -> float:
        """The delay after a connection that gave pictures for `held_s` (0: it gave none)."""
        if held_s >= SETTLED_S:
            self.failures = 0
        delay = DELAYS_S[min(self.failures, len(DELAYS_S) - 1)]
        self.failures += 1
        return delay


@dataclass(slots=True)
class Pacer:
    """Keeps the output going: says when a covered picture must stand in for one that does not come.

    # Note [Late pictures]
    The output never waits longer than `patience_s` for a picture. A picture that is older than `limit_s` when it is
    ready is dropped: its masks were made for a moment that is over. Time never goes back: pictures that come
    after a covered one took their place are moved behind it, and move back to their own time little by little.
    With look-ahead a picture leaves when a later one has come: at one picture a second that is a second later,
    so the limit grows by the source's own step, which is known where no picture was dropped on the way.
    """

    patience_s: float
    limit_s: float  # age since decoding at which a picture is too old to leave
    looks_ahead: bool = False
    interval_s: float = 1 / 25
    last_pts: int | None = None
    _shift: int = 0  # ticks that pictures are late on the output's time line
    _source_pts: int | None = None
    _index: int | None = None
    _own_s: float = 0.0  # the source's last step between two pictures that follow each other
    _steps: int = 0
    _last_at_s: float = 0.0
    _standing_in: bool = False

    @property
    def shift(self) -> int:
        """By how many ticks pictures leave later on the time line than they came."""
        return self._shift

    def begin(self, pts: int, *, now_s: float) -> None:
        """Nothing has left yet and nothing is ready: the time starts now."""
        self.last_pts, self._last_at_s = pts, now_s

    def wait_s(self, now_s: float) -> float | None:
        """How long to wait for a picture; None before the first one."""
        if self.last_pts is None:
            return None
        patience = self.interval_s if self._standing_in else max(self.patience_s, 2 * self.interval_s)
        return max(0.0, self._last_at_s + patience - now_s)

    def admit(self, pts: int, *, age_s: float, now_s: float, index: int | None = None) -> int | None:
        """The pts with which a picture may leave now; None if it is too old. `index` counts the source's pictures."""
        step = self._learn(pts, index)
        if age_s > self.limit_s + (self._own_s if self.looks_ahead else 0.0):
            return None
        if 0 < step < 5 * TICKS and not self._standing_in:
            self._shift -= min(self._shift, step // 50)
        if self.last_pts is not None:
            self._shift = max(self._shift, self.last_pts + 1 - pts)
        self.last_pts = pts + self._shift
        self._last_at_s, self._standing_in = now_s, False
        return self.last_pts

    def _learn(self, pts: int, index: int | None) -> int:
        """Follow the source's interval; its step to this picture, in ticks.

        A step in which covered pictures stood in counts only if the source is as slow itself, twice in a row: what was
        lost or late once is no interval, what comes once a second is.
        """
        step = 0 if self._source_pts is None else pts - self._source_pts
        follows = index is not None and self._index is not None and index == self._index + 1
        self._source_pts, self._index = pts, index
        if not 0 < step < 5 * TICKS:
            return step
        step_s = min(max(step / TICKS, 1 / 120), 2.0)
        before_s, self._own_s = self._own_s, step_s if follows else 0.0
        if self._standing_in:
            if min(before_s, self._own_s) > 4 * self.interval_s:
                self.interval_s = min(before_s, self._own_s)
            return step
        share = 0.1 if self._steps else 1.0
        self._steps += 1
        self.interval_s += share * (step_s - self.interval_s)
        return step

    def stand_in(self, *, now_s: float) -> int:
        """The pts of the covered picture that leaves now."""
        assert self.last_pts is not None
        self.last_pts += max(1, round((now_s - self._last_at_s) * TICKS))
        self._last_at_s, self._standing_in = now_s, True
        return self.last_pts
