"""The one generator that turns frames into redacted frames: detect, track, look ahead, plan, redact.

# Note [Last frames]
What enters between two looks of the detector is masked back to where it came in by the second one. After the last
look before a cut or the end of a file no second one comes. So where frames are held back anyway (files with
look-ahead), one more waits until it is known what follows it; the last frame of a scene is always looked at.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from streamer import masking
from streamer.cadence import Cadence
from streamer.config import Settings
from streamer.detection import Detections, Label
from streamer.detector import Detect
from streamer.device.base import Device
from streamer.errors import RedactionError, StreamerError
from streamer.flow import Luma
from streamer.frame import Clean, Frame, FrameResult, Gop, HiddenObject, Redacted
from streamer.lookahead import LookAhead, Ready, nothing_in
from streamer.masking import MaskPlan
from streamer.motion import Motion, MotionEstimator, thumbnail_width
from streamer.tally import Tally
from streamer.tracking import Tracker, Tracks, no_tracks
from streamer.zones import Zones, kept, plan_zones

P = TypeVar("P")

HELD_BYTES = 56 << 20  # pixels that look-ahead may hold
HELD_AT_LEAST = 15  # frames, however large
_TEXTS = [label.text for label in Label]


@dataclass(frozen=True, slots=True)
class Means:
    """What `anonymize` works with: who finds, where pixels live, what was asked for."""

    detect: Detect
    thresholds: dict[Label, float]
    device: Device
    settings: Settings
    zones: Zones
    on_error: Literal["stop", "cover"] = "stop"  # files stop; live covers the whole picture and goes on
    mask_age_s: float | None = None  # a picture so long after the last detector run is covered whole
    stretch: Callable[[], float] = lambda: (
        1.0
    )  # factor on the detector's interval, when the machine is too slow
    busy: Callable[[], bool] = lambda: False  # whether a run of the detector would wait for another stream's


def anonymize(items: Iterable[Frame | P], means: Means, tally: Tally) -> Iterator[Redacted | Clean | P]:
    """Redact every frame, in order; whatever is not a frame passes at once.

    Each frame waits for the look-ahead, so that an object found late is masked early. A group of pictures in
    which nothing is hidden comes out as one `Clean` instead of its frames, if its source allows it. Raises
    RedactionError if a frame cannot be made safe (with `on_error="cover"` it is covered whole instead).
    """
    judge = _Judge(means, tally)
    gate = _Gate(means, tally)
    for item in items:
        if not isinstance(item, Frame):
            yield item
            continue
        for ready in judge.push(item):
            yield from gate.pass_on(ready)
    for ready in judge.flush():
        yield from gate.pass_on(ready)
    yield from gate.end()


def cover(frame: Frame, why: str, device: Device, tally: Tally) -> Redacted:
    """The frame with its whole picture covered, whatever it holds; `why` stands in its receipt."""
    device.cover(frame)
    tally.events["frames covered whole"] += 1
    tally.events[f"covered: {why}"] += 1
    size = frame.size
    return Redacted(
        frame, FrameResult(frame.index, frame.pts, frame.time_s, size.width, size.height, (), why)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Moment:
    frame: Frame
    covered: str | None  # why the whole picture must be covered
    looks: int  # fingerprint of the picture that was judged, where it may be decoded again


class _Judge:
    """Finds out what is in each frame: detector, tracker and look-ahead of one stream. See Note [Last frames]."""

    def __init__(self, means: Means, tally: Tally) -> None:
        self._means = means
        self._tally = tally
        self._look_ahead: LookAhead[_Moment] | None = None
        self._held: int | None = None  # frames that the look-ahead holds at most, once their size is known
        self._patient = means.on_error == "stop" and means.settings.track.look_ahead_s > 0
        self._waiting: tuple[Frame, Luma] | None = None  # undecided, with its small picture
        self._forget()

    def _forget(self) -> None:
        settings = self._means.settings
        self._motion = MotionEstimator()
        self._cadence = Cadence(settings.detect.every, look_ahead_s=settings.track.look_ahead_s)
        self._cadence.window = self._held
        self._cadence.busy = self._means.busy
        self._tracker = Tracker(settings.track, self._means.thresholds)
        self._tracks = no_tracks()
        self._failed: str | None = None
        self._looked_s: float | None = None  # the frame that the detector last succeeded on

    def push(self, frame: Frame) -> list[Ready[_Moment]]:
        """The frames that are decided now that `frame` is known."""
        try:
            return self._push(frame)
        except Exception as error:
            if self._means.on_error == "stop":
                raise _ours(error, "tracking failed") from error
            return self._start_again(frame)

    def _start_again(self, frame: Frame) -> list[Ready[_Moment]]:
        """Nothing is known any more: the frame is covered, the next one starts with a fresh tracker."""
        self._tally.events["tracking failures"] += 1
        ready = [each for each in self._release() if each.item.frame is not frame]
        self._forget()
        return [*ready, nothing_in(_Moment(frame, "tracking failed", 0))]

    def _push(self, frame: Frame) -> list[Ready[_Moment]]:
        with self._tally.stage("motion"):
            small = self._means.device.thumbnail(frame, thumbnail_width(frame.size))
        if not self._patient:
            return self._decide(frame, small)
        waiting, self._waiting = self._waiting, (frame, small)
        return [] if waiting is None else self._decide(*waiting, following=small)

    def _decide(
        self, frame: Frame, small: Luma, *, following: Luma | None = None, last: bool = False
    ) -> list[Ready[_Moment]]:
        with self._tally.stage("motion"):
            motion = self._motion.update(
                small,
                scale=small.shape[1] / frame.planes_size.width,
                vectors=frame.vectors,
                tracked=self._tracks.boxes[self._tracks.lost_s == 0],  # what was missed may be something else
            )
            last = last or (following is not None and self._motion.ends_before(following))
        found = self._detect(frame, motion, last=last)
        with self._tally.stage("track"):
            tracks = self._tracker.update(found, motion=motion, at_s=frame.time_s, size=frame.size)
            self._tracks = tracks
            self._tally.events["faces"] += int((tracks.born & (tracks.labels == Label.FACE)).sum())
            self._tally.events["plates"] += int((tracks.born & (tracks.labels == Label.PLATE)).sum())
            self._measure(tracks, frame)
            looks = _fingerprint(small) if frame.gop is not None else 0
            moment = _Moment(frame, self._failed or self._too_old(frame), looks)
            return self._window(frame).push(moment, tracks, motion, at_s=frame.time_s)

    def _measure(self, tracks: Tracks, frame: Frame) -> None:
        levels = self._tally.levels
        levels["carried box age"] = float(tracks.unseen_s.max()) if len(tracks) else 0.0
        levels["detector lag"] = 0.0 if self._looked_s is None else frame.time_s - self._looked_s

    def _too_old(self, frame: Frame) -> str | None:
        limit = self._means.mask_age_s
        if limit is None or (self._looked_s is not None and frame.time_s - self._looked_s <= limit):
            return None
        return "masks too old"

    def _detect(self, frame: Frame, motion: Motion, *, last: bool) -> Detections | None:
        self._cadence.stretch = self._means.stretch()
        reason = self._cadence.due(motion, self._tracks, at_s=frame.time_s, last=last)
        if reason is None and self._failed is None:
            return None
        self._tally.events["detector runs"] += 1
        self._tally.events[f"detector: {reason or 'after a failure'}"] += 1
        try:
            with self._tally.stage("detect"):
                found = self._means.detect(frame)
        except Exception as error:
            if self._means.on_error == "stop":
                raise _ours(error, "the detector failed") from error
            self._failed = "the detector failed"
            self._tally.events["detector failures"] += 1
            return None
        self._failed = None
        self._looked_s = frame.time_s
        return found

    def _window(self, frame: Frame) -> LookAhead[_Moment]:
        if self._look_ahead is None:
            per_frame = frame.planes_size.width * frame.planes_size.height * 3 // 2
            most = max(HELD_AT_LEAST, HELD_BYTES // per_frame)
            policy, zones, size = self._means.settings.track, self._means.zones, frame.size
            self._look_ahead = LookAhead(policy, most=most, hides=lambda boxes: ~kept(zones, boxes, size))
            self._held = self._cadence.window = most if policy.look_ahead_s > 0 else None
        return self._look_ahead

    def flush(self) -> list[Ready[_Moment]]:
        """The frames that still waited, decided without a future. Raises RedactionError."""
        waiting, self._waiting = self._waiting, None
        try:
            ready = [] if waiting is None else self._decide(*waiting, last=True)
        except Exception as error:
            raise _ours(error, "tracking failed") from error
        return [*ready, *self._release()]

    def _release(self) -> list[Ready[_Moment]]:
        return self._look_ahead.flush() if self._look_ahead is not None else []


def _fingerprint(small: Luma) -> int:
    return zlib.crc32(np.ascontiguousarray(small).data)


class _Gate:
    """The only maker of `Redacted` and `Clean`: see Note [Receipts].

    Frames of a copyable group of pictures that need no mask are held back as a count, not as pixels. The first
    frame of the group that needs one makes the group dirty: the held frames are decoded again and leave as
    frames. A group that stays clean to its end leaves as its packets.

    A damaged group may give other pictures when it is decoded again: those that do not look as they did when they
    were judged are covered whole. See also Note [Concealed damage] in media.gop.
    """

    def __init__(self, means: Means, tally: Tally) -> None:
        self._means = means
        self._tally = tally
        self._gop: Gop | None = None
        self._dirty = False
        self._held: list[tuple[FrameResult, int]] = []  # with what the picture looked like

    def pass_on(self, ready: Ready[_Moment]) -> Iterator[Redacted | Clean]:
        frame = ready.item.frame
        if frame.gop is not self._gop:
            yield from self.end()
            self._gop = frame.gop
            self._dirty = frame.gop is None
        result = self._result(ready)
        plan = self._plan(ready)
        if result.objects and not len(plan):
            raise RedactionError("objects were found and no mask was planned for them")
        nothing = not len(plan) and result.covered is None
        if nothing and not self._dirty and self._gop is not None and self._gop.copyable:
            self._held.append((result, ready.item.looks))
            return
        yield from self._spoil()
        yield self._redacted(frame, plan, result)

    def end(self) -> Iterator[Redacted | Clean]:
        """The group of pictures is over: what was held leaves, as packets if it may."""
        if self._gop is not None and self._held:
            if self._gop.copyable and self._is_sound(self._gop):
                self._tally.events["frames copied"] += len(self._held)
                clean = Clean(self._gop, tuple(result for result, _ in self._held))
                self._held = []
                yield clean
            else:
                yield from self._spoil()
        self._gop = None

    def _is_sound(self, gop: Gop) -> bool:
        """Whether nothing in it is concealed: what its decoder does not say, decoding it strictly does."""
        if not gop.silent:
            return True
        try:
            again = gop.decode_again(len(self._held), strict=True)
            sound = all(
                self._looks_as(frame, looks) for frame, (_, looks) in zip(again, self._held, strict=True)
            )
        except RedactionError:
            sound = False
        self._tally.events["groups with concealed damage"] += not sound
        return sound

    def _looks_as(self, frame: Frame, looks: int) -> bool:
        return _fingerprint(self._means.device.thumbnail(frame, thumbnail_width(frame.size))) == looks

    def _spoil(self) -> Iterator[Redacted]:
        if self._dirty or self._gop is None:
            return
        self._dirty = True
        held, self._held = self._held, []
        nothing = masking.nothing()
        if held:
            self._tally.events["frames decoded twice"] += len(held)
            for frame, (result, looks) in zip(self._gop.decode_again(len(held)), held, strict=True):
                if frame.pts != result.pts:
                    raise RedactionError("a group of pictures did not decode the same way twice")
                if not self._looks_as(frame, looks):
                    result = replace(result, covered="damaged: decoded to another picture the second time")
                yield self._redacted(frame, nothing, result)
        self._gop.release()

    def _plan(self, ready: Ready[_Moment]) -> MaskPlan:
        size = ready.item.frame.size
        zones, policy = self._means.zones, self._means.settings.mask
        hidden = ~kept(zones, ready.boxes, size)
        plan = masking.plan_masks(ready.boxes[hidden], ready.labels[hidden], policy, size)
        return masking.join([plan, plan_zones(zones, policy, size)])

    def _redacted(self, frame: Frame, plan: MaskPlan, result: FrameResult) -> Redacted:
        with self._tally.stage("mask"):
            try:
                if result.covered is None and len(plan):
                    self._means.device.redact(frame, plan, self._means.settings.mask.style)
                    self._tally.events["frames masked"] += 1
            except Exception as error:
                if self._means.on_error == "stop":
                    raise _ours(error, "masking failed") from error
                result = replace(result, covered="masking failed")
            if result.covered is not None:
                return replace(cover(frame, result.covered, self._means.device, self._tally), result=result)
        return Redacted(frame, result)

    def _result(self, ready: Ready[_Moment]) -> FrameResult:
        frame = ready.item.frame
        size = frame.size
        hidden = ~kept(self._means.zones, ready.boxes, size)
        limit = np.array([size.width, size.height] * 2, np.float32)
        corners = np.clip(ready.boxes / limit, 0, 1)
        hidden &= (corners[:, 2:] > corners[:, :2]).all(axis=1)  # a track may have left the picture
        places = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        columns = (each[hidden].tolist() for each in (ready.labels, places, ready.scores, ready.ids))
        objects = tuple(
            HiddenObject(_TEXTS[label], tuple(place), score, track)
            for label, place, score, track in zip(*columns, strict=True)
        )
        self._tally.events["frames masked early"] += bool((ready.early & hidden).any())
        return FrameResult(
            frame.index, frame.pts, frame.time_s, size.width, size.height, objects, ready.item.covered
        )


def _ours(error: Exception, what: str) -> StreamerError:
    """Our own error for whatever went wrong between detection and mask."""
    return (
        error
        if isinstance(error, StreamerError)
        else RedactionError(f"{what}: {type(error).__name__}: {error}")
    )
