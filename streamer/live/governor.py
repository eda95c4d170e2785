"""What gives way when the machine cannot keep up: first the detector's interval, then the size of its view."""

from dataclasses import dataclass

_LEVELS = (
    (1.0, 1.0),
    (1.6, 1.0),
    (2.5, 1.0),
    (2.5, 0.75),
    (2.5, 0.5),
)  # stretch of the interval, share of the view
_TOO_MANY = 0.05  # share of frames dropped
_WORSE_S, _BETTER_S = 2.0, 15.0  # how long it must last before the level changes
_MOST_CALM_S = 480.0


@dataclass(slots=True)
class Governor:
    """Moves between levels of effort by the share of frames that were dropped before detection.

    A way back that proves too early makes the next one wait twice as long, up to 8 minutes: a machine between two
    levels would go to and fro, and its log and its small faces with it.
    """

    level: int = 0
    _since_s: float | None = None  # the last change or calm
    _calm_s: float = _BETTER_S  # how long it must be calm
    _rose: bool = False  # whether the last change was one for the better
    _frames: int = 0
    _dropped: int = 0

    @property
    def stretch(self) -> float:
        """Factor on the detector's interval."""
        return _LEVELS[self.level][0]

    @property
    def view(self) -> float:
        """Share of the detector's view."""
        return _LEVELS[self.level][1]

    @property
    def problem(self) -> str | None:
        """What a viewer of the stream should know: with less than the whole view, small objects are not found."""
        if self.view == 1:
            return None
        return (
            f"this machine is too slow: the detector sees {self.view:.0%} of its usual size,"
            " small faces and plates may be missed"
        )

    def update(self, *, frames: int, dropped: int, at_s: float) -> None:
        """The stream's totals at this moment; call it about once a second or more often."""
        if self._since_s is None:
            self._since_s, self._frames, self._dropped = at_s, frames, dropped
            return
        waited = at_s - self._since_s
        if waited < _WORSE_S:
            return
        share = (dropped - self._dropped) / max(1, frames - self._frames)
        if share > _TOO_MANY:
            if self._rose and self.level < len(_LEVELS) - 1:
                self._calm_s = min(2 * self._calm_s, _MOST_CALM_S)
            self._rose = False
            self._move(min(self.level + 1, len(_LEVELS) - 1), frames, dropped, at_s)
        elif waited >= self._calm_s:
            if self._rose:
                self._calm_s = _BETTER_S
            self._rose = True
            self._move(max(self.level - 1, 0), frames, dropped, at_s)

    def _move(self, level: int, frames: int, dropped: int, at_s: float) -> None:
        self.level, self._since_s, self._frames, self._dropped = level, at_s, frames, dropped
