"""Boxes that live between detector runs: who is where now, seen on this frame or not.

# Note [Nothing waits]
A detection is in the returned boxes on the frame it was made, whether the tracker knows it or not: there is
no probation and no cap. Detections below the model's threshold never start a track but continue one (the
idea of ByteTrack, Zhang et al., ECCV 2022): a face that turns away scores low before it is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer.boxes import Boxes
from streamer.config import TrackPolicy
from streamer.detection import Detections, Label
from streamer.errors import RedactionError
from streamer.frame import Size
from streamer.matching import affinity, greedy, leaps
from streamer.motion import Motion

CONTINUE_SHARE = 0.4  # a score this share of its threshold is enough to continue a track
STEADY_SHARE = (
    1.5  # that once scored this share of it: a weak track that lives on weak finds is a false alarm
)

_USUAL_STEP_S = 1 / 25  # what a frame counts where time stands still or runs backward
_GROWTH_PER_S = 0.4  # an unseen box grows by this share of its sides in a second
_GROWTH_MOST = 0.3
_LAG = 0.5  # share by which an edge of a mask lags behind a shrinking detection
_LAG_MOST = 0.15  # of the side
_STEADY_S = 0.25  # a missed object is expected to keep its speed so long
_AT_BORDER = 0.005  # of the long side of the picture
_ENTERING = 2.0  # how much larger than its visible part an entering object may be
_VISIBLE = 0.1  # a track ends when less of its box is left in the picture
_LEAP_S = 0.6  # between two looks of which only one saw each of two tracks that may be one object
_OUTWARD = np.array([-1, -1, 1, 1], np.float32)  # the direction that makes a box larger, by side

_Rows = NDArray[np.void]
_ROW = np.dtype(
    [
        ("id", np.int64),
        ("box", np.float32, (4,)),
        ("label", np.uint8),
        ("score", np.float32),
        ("best", np.float32),
        ("unseen_s", np.float32),
        ("lost_s", np.float32),  # since the detector first looked and did not find it; 0 before
        ("shaded_s", np.float32),  # for how long a seen track has covered this unseen one
        ("born", np.bool_),
        ("drift", np.float32, (4,)),
        ("seen", np.float32, (2,)),  # centre of the last detection
        ("sides", np.float32, (2,)),  # of the last detection
        ("origin", np.int64),  # what was lost when this was found: see Note [Leaps] in matching.py
        ("cropped", np.bool_, (4,)),  # edges of the last detection that the border of the picture cut
        ("speed", np.float32, (2,)),  # of that centre, pixels per second; NaN after one detection
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """What is believed to be in a frame; arrays of the same length."""

    ids: NDArray[np.int64]  # (n,) never reused by the same tracker
    boxes: Boxes  # (n, 4) estimated for now, in frame pixels; may reach over the border
    labels: NDArray[np.uint8]  # (n,) Label values
    scores: NDArray[np.float32]  # (n,) of the last detection
    unseen_s: NDArray[np.float32]  # (n,) stream time since the last detection; 0: detected on this frame
    lost_s: NDArray[np.float32]  # (n,) stream time since a detector run first missed it; 0: not missed
    born: NDArray[np.bool_]  # (n,) first seen on this frame
    drift: Boxes  # (n, 4) how far this frame's detection moved the edges that motion alone had estimated
    steady: NDArray[np.bool_]  # (n,) once scored `STEADY_SHARE` of the threshold: hardly a false alarm
    origins: NDArray[np.int64]  # (n,) the track, or the same, from which this one may have leapt; 0: none

    def __len__(self) -> int:
        return len(self.ids)


def no_tracks() -> Tracks:
    """No tracks."""
    return _tracks(np.zeros(0, _ROW), np.zeros(0, np.bool_))


class Tracker:
    """Follows objects from frame to frame. State is bounded by what is visible within the hold time."""

    def __init__(self, policy: TrackPolicy, thresholds: Mapping[Label, float]) -> None:
        """`thresholds`: the score from which a detection of a class starts a track; `CONTINUE_SHARE` of it
        continues one. A class that is not named starts at any score."""
        self._hold_s = policy.hold_s
        self._thresholds = np.array([thresholds.get(label, 0.0) for label in Label], np.float32)
        self._rows = np.zeros(0, _ROW)
        self._next_id = 1
        self._last_s: float | None = None

    @property
    def tracks(self) -> Tracks:
        """Those of the last update."""
        return _tracks(self._rows, self._steady(self._rows))

    def _steady(self, rows: _Rows) -> NDArray[np.bool_]:
        return np.asarray(rows["best"] >= STEADY_SHARE * self._thresholds[rows["label"]])

    def update(self, found: Detections | None, *, motion: Motion, at_s: float, size: Size) -> Tracks:
        """All tracks alive now, those first seen now included. See Note [Nothing waits].

        `found` holds what the detector saw in this frame (scores down to `CONTINUE_SHARE` of the threshold
        help), or None if it did not look. `motion` leads from the frame of the last call to this one. Time
        may jump: backward it counts as one frame, forward as what it says. Raises RedactionError for boxes
        or scores that are not numbers.
        """
        step = self._step(at_s)
        if not len(self._rows) and (found is None or not len(found)):
            return no_tracks()
        rows = self._rows.copy()
        if motion.cut and found is not None:
            rows = rows[:0]
        if len(rows):
            guess = np.where(rows["lost_s"][:, None] < _STEADY_S, rows["speed"] * np.float32(step), np.nan)
            rows["box"] = motion.flow(rows["box"], guess=guess).move(rows["box"])
            rows["box"] = _entering(rows, size)
            rows["unseen_s"] += step
            rows["lost_s"] += np.where(rows["lost_s"] > 0, step, 0)
            rows["born"] = False
            rows["drift"] = 0
            rows["origin"][rows["origin"] == rows["id"]] = 0
        if found is not None:
            rows = self._see(rows, _checked(found))
            rows["cropped"] = np.where(rows["unseen_s"][:, None] > 0, rows["cropped"], _cropped(rows, size))
        self._rows = self._alive(rows, step, size)
        return self.tracks

    def _step(self, at_s: float) -> float:
        last, self._last_s = self._last_s, at_s
        return at_s - last if last is not None and at_s > last else _USUAL_STEP_S

    def _see(self, rows: _Rows, found: Detections) -> _Rows:
        threshold = self._thresholds[found.labels]
        strong = found.scores >= threshold
        weak = ~strong & (found.scores >= threshold * CONTINUE_SHARE)
        free = np.ones(len(rows), np.bool_)
        known = _continue(rows, free, found, np.flatnonzero(strong), reach=1.5)
        steady = free & self._steady(rows)
        open_before = steady.copy()
        _continue(rows, steady, found, np.flatnonzero(weak), reach=0.0)
        free &= steady | ~open_before
        missed = free & (rows["lost_s"] == 0)
        rows["lost_s"][missed] = 1e-6
        new = np.flatnonzero(strong)[~known]
        if not len(new):
            return rows
        born = np.zeros(len(new), _ROW)
        born["id"] = self._next_id + np.arange(len(new))
        self._next_id += len(new)
        born["box"], born["label"], born["score"] = found.boxes[new], found.labels[new], found.scores[new]
        born["best"] = born["score"]
        born["born"] = True
        once = rows[missed & np.isnan(rows["speed"][:, 0]) & (rows["unseen_s"] <= _LEAP_S)]
        from_row = leaps(once["box"], once["label"], born["box"], born["label"])
        born["origin"][from_row >= 0] = once["id"][from_row[from_row >= 0]]
        born["seen"] = (born["box"][:, :2] + born["box"][:, 2:]) / 2
        born["sides"] = born["box"][:, 2:] - born["box"][:, :2]
        born["speed"] = np.nan
        return np.concatenate([rows, born])

    def _alive(self, rows: _Rows, step: float, size: Size) -> _Rows:
        unseen = rows["unseen_s"] > 0
        visible = geometry.area(geometry.clip(rows["box"], size.width, size.height))
        gone = unseen & (visible <= _VISIBLE * geometry.area(rows["box"]))
        lost = (rows["lost_s"] > 0) & (rows["lost_s"] >= self._hold_s)
        rows["shaded_s"] = np.where(_shaded(rows), rows["shaded_s"] + step, 0)
        return rows[~(gone | lost | (rows["shaded_s"] > self._hold_s / 2))]


def _tracks(rows: _Rows, steady: NDArray[np.bool_]) -> Tracks:
    growth = np.minimum(rows["unseen_s"] * _GROWTH_PER_S, _GROWTH_MOST)[:, None]
    half = (rows["box"][:, 2:] - rows["box"][:, :2]) * (0.5 * growth)
    boxes = np.concatenate([rows["box"][:, :2] - half, rows["box"][:, 2:] + half], axis=1)
    return Tracks(
        ids=rows["id"].copy(),
        boxes=boxes.astype(np.float32),
        labels=rows["label"].copy(),
        scores=rows["score"].copy(),
        unseen_s=rows["unseen_s"].copy(),
        lost_s=rows["lost_s"].copy(),
        born=rows["born"].copy(),
        drift=rows["drift"].copy(),
        steady=steady,
        origins=rows["origin"].copy(),
    )


def _checked(found: Detections) -> Detections:
    if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        raise RedactionError("the detector answered with boxes that are not numbers: check the model")
    return found


def _cropped(rows: _Rows, size: Size) -> NDArray[np.bool_]:
    """Which edges (n, 4) of the boxes lie at the border of the picture."""
    near = _AT_BORDER * max(size.width, size.height)
    low = rows["box"][:, :2] <= near
    high = rows["box"][:, 2:] >= np.array([size.width, size.height]) - near
    return np.concatenate([low, high], axis=1)


def _entering(rows: _Rows, size: Size) -> Boxes:
    """The boxes, with cropped edges kept at the border while they move inward: more of the object comes
    in."""
    low, high, most = rows["box"][:, :2], rows["box"][:, 2:], rows["sides"] * _ENTERING
    border = np.array([size.width, size.height], np.float32)
    wide_low = np.where(rows["cropped"][:, :2], np.minimum(low, np.maximum(0, high - most)), low)
    wide_high = np.where(rows["cropped"][:, 2:], np.maximum(high, np.minimum(border, low + most)), high)
    return np.concatenate([wide_low, wide_high], axis=1).astype(np.float32)


def _continue(
    rows: _Rows, free: NDArray[np.bool_], found: Detections, which: NDArray[np.intp], reach: float
) -> NDArray[np.bool_]:
    """Give the detections `which` to the free rows that they fit; both are marked. Whether each was given
    (m,)."""
    given = np.zeros(len(which), np.bool_)
    open_rows = np.flatnonzero(free)
    if not len(which) or not len(open_rows):
        return given
    fit = affinity(
        rows["box"][open_rows],
        rows["label"][open_rows],
        rows["unseen_s"][open_rows],
        found.take(which),
        reach,
    )
    pairs = greedy(fit)
    if pairs:
        row, column = np.array(pairs, np.intp).T
        free[open_rows[row]] = False
        given[column] = True
        _renew(rows, open_rows[row], found.take(which[column]))
    return given


def _renew(rows: _Rows, index: NDArray[np.intp], found: Detections) -> None:
    """The rows at `index` (n,), none twice, as seen now: the boxes of `found` (n,), whose edges only lag where the mask
    would shrink."""
    before, seen = rows[index], found.boxes
    sides = seen[:, 2:] - seen[:, :2]
    lag = np.clip((before["box"] - seen) * _OUTWARD * _LAG, 0, _LAG_MOST * np.concatenate([sides, sides], 1))
    rows["box"][index] = boxes = seen + lag * _OUTWARD
    rows["drift"][index] = boxes - before["box"]
    centre = (seen[:, :2] + seen[:, 2:]) / 2
    speed = (centre - before["seen"]) / np.maximum(before["unseen_s"], np.float32(1e-3))[:, None]
    known = np.isfinite(before["speed"])
    leapt = ~known[:, 0] & (np.abs(centre - before["seen"]) > before["sides"]).any(axis=1)
    rows["origin"][index] = np.where(leapt, before["id"], before["origin"])
    rows["speed"][index] = np.where(known, (before["speed"] + speed) / 2, speed)
    rows["seen"][index], rows["sides"][index] = centre, sides
    rows["score"][index] = found.scores
    rows["best"][index] = np.maximum(before["best"], found.scores)
    rows["unseen_s"][index] = rows["lost_s"][index] = 0


def _shaded(rows: _Rows) -> NDArray[np.bool_]:
    """Which unseen rows (n,) lie under a row of their label that was seen later: two tracks over one
    object."""
    unseen = np.flatnonzero(rows["lost_s"] > 0)
    shaded = np.zeros(len(rows), np.bool_)
    if not len(unseen):
        return shaded
    over = geometry.iou(rows["box"][unseen], rows["box"]) > 0.6
    over &= rows["label"][unseen][:, None] == rows["label"][None, :]
    over &= rows["unseen_s"][unseen][:, None] > rows["unseen_s"][None, :]
    shaded[unseen] = over.any(axis=1)
    return shaded
