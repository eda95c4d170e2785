"""A window over the next moments, so that what is found late is masked early."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer.boxes import Boxes
from streamer.config import TrackPolicy
from streamer.motion import Motion
from streamer.tracking import Tracks

T = TypeVar("T")

_GROWTH_PER_S = 0.5  # a box carried back grows by this share of its sides in a second
_STRIDE_S = 0.1  # frames this close are followed two at a time; the one between gets the hull of both boxes
_SLOW = 1.5  # small pixels per frame below which boxes are followed so; flow loses what is faster
_VISIBLE = 0.1  # share of a box that must lie in the picture
_COVERED = 0.9  # share of a box under another one that makes it needless
_JUST_S = 1e-4  # since a look first missed a track: this one did
_LEAP_GROWTH = 0.15  # of the sides of a box on the way between two sightings, which may be curved
_STRAYED = 0.5  # IoU of a detection and its estimate below which the estimate was elsewhere


@dataclass(frozen=True, slots=True, eq=False)
class Ready(Generic[T]):
    """One item whose future has been seen, and what to mask in it."""

    item: T
    ids: NDArray[np.int64]  # (m,) track ids
    boxes: Boxes  # (m, 4) frame pixels; may reach over the border
    labels: NDArray[np.uint8]  # (m,) Label values
    scores: NDArray[np.float32]  # (m,) of the last detection, for early ones of the first
    early: NDArray[np.bool_]  # (m,) masked before its first detection

    def __len__(self) -> int:
        return len(self.ids)


def nothing_in(item: T) -> Ready[T]:
    """An item without anything to mask in it."""
    none = np.zeros(0, np.int64)
    return Ready(
        item,
        none,
        np.zeros((0, 4), np.float32),
        none.astype(np.uint8),
        none.astype(np.float32),
        none.astype(np.bool_),
    )


@dataclass(slots=True, eq=False)
class _Moment(Generic[T]):
    item: T
    tracks: Tracks
    motion: Motion
    at_s: float
    boxes: Boxes = field(init=False)  # of `tracks`, widened by what came later
    early: list[tuple[int, NDArray[np.float32], int, float]] = field(
        default_factory=list
    )  # id box label score

    def __post_init__(self) -> None:
        self.boxes = self.tracks.boxes.copy()

    def ready(self) -> Ready[T]:
        tracks, early = self.tracks, self.early
        late = np.zeros(len(tracks), np.bool_)
        return Ready(
            self.item,
            np.concatenate([tracks.ids, np.array([row[0] for row in early], np.int64)]),
            np.concatenate([self.boxes, np.array([row[1] for row in early], np.float32).reshape(-1, 4)]),
            np.concatenate([tracks.labels, np.array([row[2] for row in early], np.uint8)]),
            np.concatenate([tracks.scores, np.array([row[3] for row in early], np.float32)]),
            np.concatenate([late, np.ones(len(early), np.bool_)]),
        )


def _all_hide(boxes: Boxes) -> NDArray[np.bool_]:
    return np.ones(len(boxes), np.bool_)


class LookAhead(Generic[T]):
    """Holds items back for `look_ahead_s` and masks new tracks in them back to where they entered.

    Holds at most `most` items, whatever the clock says.
    """

    def __init__(
        self,
        policy: TrackPolicy,
        *,
        most: int = 64,
        hides: Callable[[Boxes], NDArray[np.bool_]] = _all_hide,
    ) -> None:
        """`hides`: which boxes (n, 4) will be masked (n,), because they lie in no zone that is kept as it is."""
        self.early_tracks = 0  # masked before their first detection, for the report
        self.early_boxes = 0  # so many boxes on all frames together
        self._ahead_s = policy.look_ahead_s
        self._most = max(1, most)
        self._hides = hides
        self._window: deque[_Moment[T]] = deque()

    def __len__(self) -> int:
        return len(self._window)

    def push(self, item: T, tracks: Tracks, motion: Motion, *, at_s: float) -> list[Ready[T]]:
        """Add one frame; the frames whose future is now known, oldest first.

        `motion` leads from the frame of the last call to this one. Where time runs backward, all earlier
        frames are ready at once.
        """
        out = self.flush() if self._window and at_s < self._window[-1].at_s else []
        self._window.append(_Moment(item, tracks, motion, at_s))
        if self._ahead_s > 0:
            self._spread_drift()
            self._carry_back()
            self._bridge_leaps()
        while self._window and (
            at_s - self._window[0].at_s >= self._ahead_s - 1e-6 or len(self._window) > self._most
        ):
            out.append(self._window.popleft().ready())
        return out

    def flush(self) -> list[Ready[T]]:
        """All frames still held, oldest first: the stream has ended."""
        out = [moment.ready() for moment in self._window]
        self._window.clear()
        return out

    def _carry_back(self) -> None:
        """Follow the tracks born or found elsewhere on the newest frame back through the window."""
        newest = self._window[-1].tracks
        born, until = self._late()
        boxes = newest.boxes[born]
        helped: set[int] = set()
        index, slow = len(self._window) - 1, False
        while index > 0 and len(born):
            motion, first = self._leading_to(index, strides=slow)
            if motion.cut:
                break
            moved = motion.backward(boxes)
            slow = bool((np.abs(moved - boxes) < _SLOW * (index - first) / motion.scale).all())
            step = max(0.0, self._window[index].at_s - self._window[first].at_s)
            moved = geometry.grow(moved, _GROWTH_PER_S * step)
            for between in range(first + 1, index):
                helped |= self._mask_early(self._window[between], newest, born, _hulls(boxes, moved))
            on = _visible(moved, motion.size) & (until <= first)
            born, until, boxes, index = born[on], until[on], moved[on], first
            helped |= self._mask_early(self._window[index], newest, born, boxes)
        self.early_tracks += int(newest.born[list(helped)].sum())

    def _late(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The rows of the newest frame that earlier frames need, each with the first moment that does: what is new, and
        what was not where its track was believed to be (behind a passing lorry, a track leaves with the lorry)."""
        tracks = self._window[-1].tracks
        born = np.flatnonzero(tracks.born)
        strayed = np.flatnonzero((tracks.unseen_s == 0) & ~tracks.born & tracks.drift.any(axis=1))
        if len(strayed):
            found = tracks.boxes[strayed]
            strayed = strayed[_same(found, found - tracks.drift[strayed]) < _STRAYED]
        unseen = [self._unseen_since(int(tracks.ids[row])) for row in strayed]
        return np.concatenate([born, strayed]), np.array([0] * len(born) + unseen, np.intp)

    def _unseen_since(self, track_id: int) -> int:
        """The first moment of the window after that in which the detector last saw a track."""
        seen = self._sighting(track_id, len(self._window) - 1)
        return 0 if seen is None else seen + 1

    def _leading_to(self, index: int, *, strides: bool) -> tuple[Motion, int]:
        """A motion that ends on a moment of the window, over two close frames if `strides`, and where it begins."""
        motion = self._window[index].motion
        if strides and index > 1:
            before = self._window[index - 1].motion
            span = self._window[index].at_s - self._window[index - 2].at_s
            if 0 < span <= _STRIDE_S and not before.cut and before.before.shape == motion.now.shape:
                return motion.after(before), index - 2
        return motion, index - 1

    def _mask_early(
        self, moment: _Moment[T], tracks: Tracks, born: NDArray[np.intp], boxes: Boxes
    ) -> set[int]:
        """Add the boxes of the `born` rows of `tracks` that nothing hides yet to a moment; which rows these were."""
        masked = self._hides(moment.boxes)
        bare = ~_hidden_already(
            boxes, tracks.labels[born], moment.boxes[masked], moment.tracks.labels[masked]
        )
        rows = born[bare].tolist()
        for row, box in zip(rows, boxes[bare], strict=True):
            entry = (int(tracks.ids[row]), box, int(tracks.labels[row]), float(tracks.scores[row]))
            moment.early.append(entry)
        self.early_boxes += len(rows)
        return set(rows)

    def _bridge_leaps(self) -> None:
        """Mask the way of what seems to have leapt: see Note [Leaps] in matching.py."""
        newest = self._window[-1].tracks
        ended = (newest.lost_s > 0) & (newest.lost_s < _JUST_S)
        leapt = newest.born | ended | (newest.origins == newest.ids)
        for row in np.flatnonzero((newest.origins > 0) & leapt).tolist():
            second = self._sighting(int(newest.ids[row]), len(self._window))
            first = self._sighting(int(newest.origins[row]), second or 0)
            if first is not None and second is not None:
                self._mask_way(row, first, second)

    def _sighting(self, track_id: int, before: int) -> int | None:
        """The last moment of the window, before the one named, in which the detector saw a track."""
        for index in range(before - 1, -1, -1):
            tracks = self._window[index].tracks
            at = np.flatnonzero(tracks.ids == track_id)
            if len(at) and tracks.unseen_s[at[0]] == 0:
                return index
        return None

    def _mask_way(self, row: int, first: int, second: int) -> None:
        """Mask a row of the newest frame where it was if it kept its pace from its origin, seen at the moment `first`,
        to its own last sighting at `second`: up to there from as long before its origin, and if it is lost, on to now.
        """
        newest, window = self._window[-1].tracks, self._window
        start = window[first].tracks.boxes[window[first].tracks.ids == newest.origins[row]][0]
        end = window[second].tracks.boxes[window[second].tracks.ids == newest.ids[row]][0]
        began_s, span_s = window[first].at_s, window[second].at_s - window[first].at_s
        if span_s <= 0:
            return
        rows, before = np.array([row], np.intp), second == len(window) - 1
        for index in range(second - 1, -1, -1) if before else range(second + 1, len(window)):
            share = (window[index].at_s - began_s) / span_s
            box = geometry.grow((start + (end - start) * np.float32(share))[None], _LEAP_GROWTH)
            if (
                share < -1
                or window[index + before].motion.cut
                or not _visible(box, window[index].motion.size)[0]
            ):
                break
            self._mask_early(window[index], newest, rows, box)

    def _spread_drift(self) -> None:
        """Where a detection moved an estimate, correct the unseen frames before it by their share."""
        newest = self._window[-1].tracks
        drifted = np.flatnonzero((newest.unseen_s == 0) & ~newest.born)
        ids, drift = newest.ids[drifted], newest.drift[drifted]
        unseen: list[
            tuple[_Moment[T], NDArray[np.intp], NDArray[np.intp]]
        ] = []  # with rows of `ids` and of it
        steps, which = np.ones(len(ids), np.float32), np.arange(len(ids))
        for index in range(len(self._window) - 2, -1, -1):
            moment = self._window[index]
            known, rows = np.nonzero(ids[which, None] == moment.tracks.ids)
            carried = moment.tracks.unseen_s[rows] > 0
            which, rows = which[known[carried]], rows[carried]
            if not len(which):
                break
            steps[which] += 1
            unseen.append((moment, which, rows))
        for nearness, (moment, which, rows) in enumerate(unseen, start=1):
            share = 1 - np.float32(nearness) / steps[which]
            self._correct(moment, rows, drift[which] * share[:, None])

    def _correct(self, moment: _Moment[T], rows: NDArray[np.intp], by: Boxes) -> None:
        """Widen boxes of a moment to where their tracks' estimates lie when they are moved."""
        before, moved = moment.boxes[rows], moment.tracks.boxes[rows] + by
        moment.boxes[rows] = _hulls(before, moved)
        for place in np.flatnonzero(~self._hides(moment.boxes[rows])).tolist():
            row = rows[place]
            both = np.stack([before[place], moved[place]])  # the centre of either may lie elsewhere
            track, label = int(moment.tracks.ids[row]), int(moment.tracks.labels[row])
            score = float(moment.tracks.scores[row])
            moment.early += [(track, box, label, score) for box in both[self._hides(both)]]


def _hulls(first: Boxes, second: Boxes) -> Boxes:
    low, high = np.minimum(first[:, :2], second[:, :2]), np.maximum(first[:, 2:], second[:, 2:])
    return np.concatenate([low, high], axis=1)


def _same(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """IoU (n,) of each box with the one in the same row."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    both = geometry.area(first) + geometry.area(second) - shared
    return np.asarray(shared / np.maximum(both, 1e-6), np.float32)


def _visible(boxes: Boxes, size: tuple[float, float]) -> NDArray[np.bool_]:
    inside = np.clip(boxes, 0, (*size, *size)).astype(np.float32)
    return np.asarray(geometry.area(inside) > _VISIBLE * geometry.area(boxes))


def _hidden_already(
    boxes: Boxes, labels: NDArray[np.uint8], others: Boxes, other_labels: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Which boxes (n,) lie under one of the others of their label."""
    shared = geometry.intersection(boxes, others)
    shared[labels[:, None] != other_labels[None]] = 0
    return np.asarray(shared.max(axis=1, initial=0) >= _COVERED * geometry.area(boxes))
