"""When the detector looks: as often as the picture needs, and every reason is counted."""

from collections import Counter
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.motion import Motion
from streamer.tracking import Tracks

_MOVING_S = 0.32  # between runs while anything moves or is tracked, where the look-ahead allows three
_LIVE_S = 0.16  # and without look-ahead, where what enters is seen until the next run
_LOOKS = 0.4  # interval per look-ahead: so that a miss leaves time for a second look
_MOVING_FRAMES = 5  # and at least so many frames, so that slow streams do not pay for each
_MOVING_MOST_S = 0.5  # and at most, however slow
_STILL_S = 0.5  # between runs in a still picture without look-ahead
_STILL_MOST_S = 1.0  # and at most
_STILL_LOOKS = (
    0.8  # interval per look-ahead in a still picture: what begins to move there is looked at anyway
)
_CHECK_S = 0.1  # until a second look at the scene after a cut
_PUT_OFF_S = 0.1  # what nothing but the interval asks for, while the detector is busy with another stream
_JUMP_S = 1.0  # a gap in time after which nothing is taken for granted
_QUIET_S = 0.5  # a part of the picture that moves after resting so long is new motion
_USUAL_STEP_S = 1 / 25  # what a frame counts where time stands still
_ACTIVE = 0.002  # share of the picture that makes it a moving one
_FRESH = 2  # cells of a calm place that change where something begins to move
_SUDDEN = 2  # and, amid others that do, where something appears from one frame to the next
_SPARE = 3.0  # runs for that at once, where it happens often
_SPARE_EACH_S = 1.0  # until there is another
_PANNED = 0.5  # share of the picture that a camera may leave behind between runs
_AROUND = np.ones((3, 3), np.uint8)  # a cell and those around it


class Cadence:
    """Decides on each frame whether the detector runs, and why. State: one small grid."""

    def __init__(self, every: int | Literal["auto"], *, look_ahead_s: float = 0.0) -> None:
        """`every`: frames between runs at most, or `auto`. With look-ahead on, no interval is longer than the
        look-ahead: what a later run finds is carried back no farther."""
        self.reasons: Counter[str] = Counter()  # runs by reason, for the report
        self.frames = 0
        self.busy: Callable[[], bool] = lambda: False  # whether a run would wait for others
        self.stretch = 1.0  # factor on the intervals, for a machine that cannot keep up
        self.window: int | None = (
            None  # frames that the look-ahead really holds, which large pictures make few
        )
        self._every = None if every == "auto" else every
        self._longest_s = look_ahead_s if look_ahead_s > 0 else _STILL_S
        self._put_off_to_s = look_ahead_s if look_ahead_s > 0 else np.inf
        self._still_s = min(max(_STILL_S, _STILL_LOOKS * look_ahead_s), _STILL_MOST_S)
        self._moving_s = min(max(_LIVE_S, _LOOKS * look_ahead_s), _MOVING_S)
        self._last_s: float | None = None
        self._run_s = 0.0
        self._run_frames = 0
        self._again = False  # the last run was the first of a scene
        self._doubted = (
            False  # the last run was such a second look: what it misses waits for the next interval
        )
        self._rested: NDArray[np.float32] | None = None
        self._spare = _SPARE  # runs for sudden changes that are left
        self._panned = np.zeros(2)  # shares of the picture by which the camera went on since the last run

    def due(self, motion: Motion, tracks: Tracks, *, at_s: float, last: bool = False) -> str | None:
        """Why the detector should look at this frame, or None. `tracks` are those of the frame before.

        `last`: no frame of this scene follows, and so no later look that could be carried back to this one. The
        caller must run it where a reason is given.
        """
        step = 0.0 if self._last_s is None else at_s - self._last_s
        reason = self._certain(motion, step)
        self._last_s = at_s
        self.frames += 1
        step = step if step > 0 else _USUAL_STEP_S
        self._run_s += step
        self._run_frames += 1
        if self._every is None:
            fresh = self._newly_moving(motion, step)
            reason = reason or self._by_need(motion, tracks, fresh, step)
        else:
            reason = reason or self._by_count(step)
        if reason is None and last:
            reason = "last frame"
        if reason is not None:
            self.reasons[reason] += 1
            self._run_s, self._run_frames, self._panned = 0.0, 0, np.zeros(2)
            self._again = reason in ("first frame", "scene cut", "perhaps a cut", "time jump")
            self._doubted = reason == "uncertain track"
        return reason

    def _certain(self, motion: Motion, step: float) -> str | None:
        if self._last_s is None:
            return "first frame"
        if not 0 <= step <= _JUMP_S:
            return "time jump"
        if motion.cut:
            return "scene cut"
        return "perhaps a cut" if motion.doubtful else None

    def _by_count(self, step: float) -> str | None:
        counted = self._every is not None and self._run_frames >= self._every
        too_long = self._run_s + 0.25 * step >= self.stretch * self._longest_s
        return "interval" if counted or too_long or self._full() else None

    def _full(self) -> bool:
        return self.window is not None and self._run_frames >= self.window

    def _by_need(self, motion: Motion, tracks: Tracks, fresh: NDArray[np.bool_], step: float) -> str | None:
        waited = self._run_s + 0.25 * step  # half a frame early rather than half a frame late
        self._spare = min(_SPARE, self._spare + step / _SPARE_EACH_S)
        moving = motion.activity > (_ACTIVE if len(tracks) == 0 else 0)
        often = self.stretch * max(self._moving_s, min(_MOVING_FRAMES * step, _MOVING_MOST_S))
        usual = often if moving else self._still_s
        overdue = waited - min(usual, self.stretch * self._longest_s)
        too_late = overdue >= _PUT_OFF_S or waited >= self.stretch * self._put_off_to_s
        if self._full() or too_late or (overdue >= 0 and not self.busy()):
            return "interval"
        if waited >= _CHECK_S * (self.stretch - 1):
            self._panned += np.abs(motion.camera) / motion.now.shape[::-1]
            if self._panned.max() >= _PANNED:
                return "fast pan"
            appeared = np.count_nonzero(cv2.erode(fresh.astype(np.uint8), _AROUND)) >= _SUDDEN
            if appeared and self._spare >= 1:
                self._spare -= 1
                return "sudden change"
        if waited < _CHECK_S * self.stretch:
            return None
        if self._again:
            return "after a cut"
        if waited < often / 2:
            return None
        return "new motion" if np.count_nonzero(fresh & motion.novel) >= _FRESH else self._doubt(tracks)

    def _doubt(self, tracks: Tracks) -> str | None:
        """A second look at what the last run was the first to miss; weak tracks come and go, and are held anyway."""
        if self._doubted:
            return None
        missed = tracks.steady & (tracks.lost_s > 0) & (tracks.lost_s <= self._run_s + 1e-3)
        return "uncertain track" if missed.any() else None

    def _newly_moving(self, motion: Motion, step: float) -> NDArray[np.bool_]:
        """The cells that move where all rested for a while: since a cut, a short one."""
        if motion.cut or self._rested is None or self._rested.shape != motion.changed.shape:
            self._rested = np.full(motion.changed.shape, _QUIET_S - _CHECK_S, np.float32)
            return np.zeros(motion.changed.shape, np.bool_)
        calm = cv2.erode(self._rested, _AROUND)  # the least of the cells around
        fresh = np.asarray(motion.changed & (calm >= _QUIET_S))
        self._rested += np.float32(step)
        self._rested[motion.changed] = 0
        return fresh
