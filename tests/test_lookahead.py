"""Look-ahead: what is found late is masked early, in order, within bounds."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer import detection
from streamer.boxes import Boxes
from streamer.config import TrackPolicy
from streamer.detection import Label
from streamer.lookahead import LookAhead
from streamer.motion import MotionEstimator, still
from streamer.tracking import Tracker, Tracks
from tests.scenes import SCALE, SIZE, covered, detector, scene, texture

THRESHOLDS = {Label.FACE: 0.3, Label.PLATE: 0.3}


def run(shown, look, due, **policy):
    """The ready frames of a scene in which the detector looks on the frames that `due` tells."""
    policy = TrackPolicy(**policy)
    ahead, tracker, estimator = LookAhead(policy), Tracker(policy, THRESHOLDS), MotionEstimator()
    out = []
    for index, picture in enumerate(shown.pictures):
        motion = estimator.update(picture, scale=SCALE, tracked=tracker.tracks.boxes)
        found = look(index) if due(index) else None
        tracks = tracker.update(found, motion=motion, at_s=shown.at_s(index), size=SIZE)
        out += ahead.push(index, tracks, motion, at_s=shown.at_s(index))
    out += ahead.flush()
    assert [ready.item for ready in out] == list(range(len(shown.pictures)))
    return out, ahead


WALK = [lambda t: (300 + 250 * t, 500, 100)]


def test_a_track_found_late_is_masked_back_to_where_the_window_began():
    shown = scene(WALK, 1.0)
    ready, ahead = run(shown, detector(shown), lambda index: index >= 12, look_ahead_s=0.5)
    shares = [covered(shown.boxes[one.item], one.boxes).min() for one in ready]
    assert min(shares) > 0.9
    assert [bool(one.early.any()) for one in ready] == [True] * 12 + [False] * 13
    assert (ahead.early_tracks, ahead.early_boxes) == (1, 12)
    assert {int(i) for one in ready for i in one.ids} == {1}


def test_it_reaches_no_further_back_than_the_window():
    shown = scene(WALK, 1.2)
    ready, _ = run(shown, detector(shown), lambda index: index >= 20, look_ahead_s=0.4)
    assert [len(one) for one in ready[:20]] == [0] * 10 + [1] * 10


def test_who_enters_between_two_looks_is_masked_from_the_border_on():
    shown = scene([lambda t: (-60 + 700 * t, 500, 110)], 1.0)
    ready, _ = run(shown, detector(shown), lambda index: index % 6 == 0, look_ahead_s=0.5)
    shares = np.concatenate([covered(shown.boxes[one.item], one.boxes) for one in ready])
    assert shares.min() > 0.85


def test_it_does_not_reach_across_a_cut():
    first, second = scene([], 0.4, seed=1), scene(WALK, 0.4, seed=2)
    both = type(second)(first.pictures + second.pictures, first.boxes + second.boxes, first.ids + second.ids)
    ready, _ = run(both, detector(both), lambda index: index == 15, look_ahead_s=1.0)
    assert [len(one) for one in ready] == [0] * 10 + [1] * 10


def test_without_look_ahead_every_frame_passes_at_once():
    ahead = LookAhead(TrackPolicy(look_ahead_s=0))
    tracker = Tracker(TrackPolicy(), THRESHOLDS)
    for index in range(5):
        found = detection.detections([[9, 9, 90, 90]], [0.9], [Label.PLATE])
        tracks = tracker.update(found, motion=still(SIZE), at_s=index / 25, size=SIZE)
        (ready,) = ahead.push(index, tracks, still(SIZE), at_s=index / 25)
        assert ready.item == index
        assert ready.boxes.tolist() == tracks.boxes.tolist()
        assert not ready.early.any()
    assert ahead.flush() == []


def test_a_wrong_estimate_is_put_right_by_the_next_detection():
    shown = scene([lambda t: (300 + 2200 * t, 500, 110)], 0.6)
    due = lambda index: index % 3 == 0  # noqa: E731
    late, _ = run(shown, detector(shown), due, look_ahead_s=0.4)
    now, _ = run(shown, detector(shown), due, look_ahead_s=0)
    mean = [
        np.mean([covered(shown.boxes[one.item], one.boxes).min() for one in each]) for each in (late, now)
    ]
    assert mean[0] >= mean[1]


def test_a_track_that_left_with_a_passing_lorry_is_masked_where_it_was_found_again():
    face, lorry = np.array([[900, 500, 1000, 600]], np.float32), np.array([[960, 640, 1060, 740]], np.float32)
    picture, one = texture(270, 480, 3), np.ones(1, np.float32)

    def known(boxes, unseen_s, drift):
        born = np.zeros(1, np.bool_)
        return Tracks(
            np.ones(1, np.int64),
            boxes,
            np.zeros(1, np.uint8),
            one,
            one * unseen_s,
            0 * one,
            born,
            drift,
            ~born,
            np.zeros(1, np.int64),
        )

    ahead, estimator = LookAhead(TrackPolicy(look_ahead_s=1)), MotionEstimator()
    steps = [known(face, 0, 0 * face), known(lorry, 0.04, 0 * face), known(face, 0, face - lorry)]
    for index, tracks in enumerate(steps):
        ahead.push(index, tracks, estimator.update(picture, scale=SCALE), at_s=index / 25)
    first, between, last = ahead.flush()
    assert [len(ready) for ready in (first, last)] == [1, 1]
    assert covered(lorry, between.boxes).min() > 0.99
    assert max(covered(face, box[None]).min() for box in between.boxes) > 0.95  # by one
    assert ahead.early_tracks == 0  # it was known before


def test_what_is_corrected_out_of_a_kept_zone_is_masked_where_it_was() -> None:
    """The hull of where it was believed and where it was has its centre elsewhere than both."""
    believed, true = (
        np.array([[940, 500, 1040, 600]], np.float32),
        np.array([[900, 500, 1000, 600]], np.float32),
    )
    one = np.ones(1, np.float32)

    def hides(boxes: Boxes) -> NDArray[np.bool_]:
        return np.asarray((boxes[:, 0] + boxes[:, 2]) / 2 < 980)

    ahead = LookAhead(TrackPolicy(look_ahead_s=1), hides=hides)
    for index, (box, drift) in enumerate([(true, 0 * true), (believed, 0 * true), (true, true - believed)]):
        tracks = Tracks(
            np.ones(1, np.int64),
            box,
            np.zeros(1, np.uint8),
            one,
            one * (index == 1),
            0 * one,
            np.zeros(1, np.bool_),
            drift,
            np.ones(1, np.bool_),
            np.zeros(1, np.int64),
        )
        ahead.push(index, tracks, still(SIZE), at_s=index / 25)
    between = ahead.flush()[1]
    corrected = believed + (true - believed) / 2
    assert hides(corrected)[0]
    assert covered(corrected, between.boxes[hides(between.boxes)]).max(initial=0) > 0.99


@pytest.mark.parametrize("pace", [0.35, 0.6])  # of its side, each frame
@pytest.mark.parametrize("side", [1, -1])
def test_what_dashes_by_is_masked_on_its_way_between_two_looks(pace: float, side: int) -> None:
    """Flow does not follow it: all that is known is where two looks found something alike."""
    shown = scene([lambda t: (960 + side * (pace * 60 * 25 * t - 1000), 500 + 100 * t, 60)], 2.0)
    ready, _ = run(shown, detector(shown), lambda index: index % 8 == 0, look_ahead_s=1.0)
    shares = [covered(shown.boxes[one.item], one.boxes).min() for one in ready if len(shown.boxes[one.item])]
    assert len(shares) > 25
    assert np.mean(np.array(shares) > 0.9) > 0.97


def test_no_way_is_masked_between_two_that_were_there_before_or_are_not_alike() -> None:
    paths = [lambda t: (500, 500, 100), lambda t: (900 if t > 0.6 else -900, 500, 100)]
    shown = scene(paths, 1.2)
    found = detector(shown)

    def look(index: int) -> detection.Detections:  # the first is seen thrice, then the second alone
        return found(index).take(
            found(index).boxes[:, 0] > 700 if index > 20 else found(index).boxes[:, 0] >= 0
        )

    ready, _ = run(shown, look, lambda index: index % 8 == 0, look_ahead_s=1.0)
    between = np.array([[650, 450, 750, 550]], np.float32)
    assert max((covered(between, one.boxes).max() for one in ready if len(one)), default=0) < 0.3


@pytest.mark.parametrize("step", [0.04, 0.0, -0.04, 1e-9])
def test_it_never_holds_more_than_it_may(step):
    ahead = LookAhead(TrackPolicy(look_ahead_s=5), most=16)
    tracker = Tracker(TrackPolicy(), THRESHOLDS)
    out = []
    for index in range(100):
        tracks = tracker.update(None, motion=still(SIZE), at_s=index * step, size=SIZE)
        out += ahead.push(index, tracks, still(SIZE), at_s=index * step)
        assert len(ahead) <= 16
    out += ahead.flush()
    assert [ready.item for ready in out] == list(range(100))


def test_the_delay_is_the_look_ahead():
    ahead = LookAhead(TrackPolicy(look_ahead_s=0.4))
    tracker = Tracker(TrackPolicy(), THRESHOLDS)
    for index in range(50):
        tracks = tracker.update(None, motion=still(SIZE), at_s=index / 25, size=SIZE)
        ready = ahead.push(index, tracks, still(SIZE), at_s=index / 25)
        assert [one.item for one in ready] == ([index - 10] if index >= 10 else [])


def test_what_another_track_hides_already_is_not_counted_as_early():
    policy = TrackPolicy(look_ahead_s=0.4)
    ahead, tracker = LookAhead(policy), Tracker(policy, THRESHOLDS)
    big = [100.0, 100.0, 500.0, 500.0]
    for index, boxes in enumerate([[big], [big], [big], [big, [200.0, 200.0, 260.0, 260.0]]]):
        found = detection.detections(boxes, [0.9] * len(boxes), [Label.FACE] * len(boxes))
        tracks = tracker.update(found, motion=still(SIZE), at_s=index / 25, size=SIZE)
        ahead.push(index, tracks, still(SIZE), at_s=index / 25)
    assert (ahead.early_tracks, ahead.early_boxes) == (0, 0)


def test_a_thousand_who_appear_at_once_are_all_masked_early_in_sane_time():
    policy = TrackPolicy(look_ahead_s=0.4)
    ahead, tracker = LookAhead(policy), Tracker(policy, THRESHOLDS)
    rng = np.random.default_rng(0)
    corners = rng.uniform(20, [1860, 1020], (1000, 2))
    crowd = np.concatenate([corners, corners + 18], axis=1).tolist()
    start, out = time.process_time(), []
    for index in range(12):
        boxes = crowd if index == 9 else []
        found = detection.detections(boxes, [0.9] * len(boxes), [Label.FACE] * len(boxes))
        tracks = tracker.update(found, motion=still(SIZE), at_s=index / 25, size=SIZE)
        out += ahead.push(index, tracks, still(SIZE), at_s=index / 25)
    out += ahead.flush()
    assert time.process_time() - start < 20
    assert [len(ready) for ready in out] == [1000] * 12
    assert ahead.early_tracks == 1000
