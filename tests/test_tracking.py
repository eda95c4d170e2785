"""Tracker: every detection is covered at once, and what was seen once stays covered until it is gone."""

import functools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import detection
from streamer.config import TrackPolicy
from streamer.detection import Detections, Label
from streamer.errors import RedactionError
from streamer.motion import MotionEstimator, still
from streamer.tracking import Tracker, no_tracks
from tests.scenes import SCALE, SIZE, covered, detector, scene

THRESHOLDS = {Label.FACE: 0.3, Label.PLATE: 0.3}
STILL = still(SIZE)


def tracker(**policy):
    return Tracker(TrackPolicy(**policy), THRESHOLDS)


def faces(*boxes, score=0.8, label=Label.FACE):
    return detection.detections(boxes, [score] * len(boxes), [label] * len(boxes))


def see(one, found, at_s, motion=STILL):
    return one.update(found, motion=motion, at_s=at_s, size=SIZE)


def watch(shown, look, every, **policy):
    """Per frame: tracks, and the covered share of each true box; the detector looks every `every` frames."""
    one, estimator = tracker(**policy), MotionEstimator()
    out = []
    for index, picture in enumerate(shown.pictures):
        motion = estimator.update(picture, scale=SCALE, tracked=one.tracks.boxes)
        found = look(index) if index % every == 0 else None
        tracks = see(one, found, shown.at_s(index), motion)
        out.append((tracks, covered(shown.boxes[index], tracks.boxes)))
    return out


def shares(watched):
    return np.concatenate([share for _, share in watched])


SCENES = {
    "still": ([lambda t: (600, 500, 100)], {}),
    "walk": ([lambda t: (300 + 200 * t, 500, 100)], {}),
    "run": ([lambda t: (200 + 500 * t, 400 + 100 * t, 120)], {}),
    "accelerate": ([lambda t: (200 + 180 * t * t, 500, 100)], {}),
    "approach": ([lambda t: (900, 500, 60 + 60 * t)], {}),
    "pan": ([lambda t: (1300, 500, 100), lambda t: (900, 600, 80)], {"camera": lambda t: (300 * t, 0, 1.0)}),
    "zoom": ([lambda t: (700, 400, 100)], {"camera": lambda t: (100 * t, 50 * t, 1 + 0.25 * t)}),
    "shake": (
        [lambda t: (900, 500, 90)],
        {"camera": lambda t: (30 * np.sin(35 * t), 22 * np.cos(29 * t), 1.0)},
    ),
    "jump": ([lambda t: (900, 600 - 170 * abs(np.sin(3 * t)), 100)], {}),
}


@functools.cache
def shown_as(name):
    paths, more = SCENES[name]
    return scene(paths, 2.0, **more)


@pytest.mark.parametrize("name", list(SCENES))
def test_boxes_stay_covered_between_detector_runs(name):
    shown = shown_as(name)
    share = shares(watch(shown, detector(shown), every=5))
    assert (share >= 0.9).mean() >= 0.99
    assert share.min() > 0.8


@pytest.mark.parametrize("name", list(SCENES))
def test_boxes_stay_covered_when_the_detector_misses_three_in_ten_and_wobbles(name):
    shown, paths = shown_as(name), SCENES[name][0]
    found_first = next(
        seed for seed in range(20) if len(detector(shown, drop=0.3, seed=seed)(0)) == len(paths)
    )
    look = detector(shown, drop=0.3, jitter=0.03, seed=found_first)
    watched = watch(shown, look, every=5)
    share = shares(watched)
    assert (share >= 0.75).mean() >= 0.97


def test_a_fast_object_is_followed_once_its_speed_is_known():
    shown = scene([lambda t: (100 + 1000 * t, 300 + 200 * t, 110)], 1.7)
    watched = watch(shown, detector(shown), every=3)
    assert {int(i) for tracks, _ in watched for i in tracks.ids} == {1}
    assert (shares(watched[6:]) >= 0.9).mean() > 0.97


def test_masks_stay_tight():
    shown = shown_as("walk")
    for index, (tracks, _) in enumerate(watch(shown, detector(shown, jitter=0.02), every=5)):
        true = shown.boxes[index]
        mask_area = np.prod(tracks.boxes[:, 2:] - tracks.boxes[:, :2], axis=1).sum()
        assert mask_area < 1.6 * np.prod(true[:, 2:] - true[:, :2], axis=1).sum()


def test_an_id_survives_a_short_occlusion():
    path = [lambda t: (300 + 300 * t, 500, 90)]
    shown = scene(path, 2.5, walls=[(600, 300, 700, 700)])
    hidden = [index for index, boxes in enumerate(shown.boxes) if not len(boxes)]
    assert 3 <= len(hidden) <= 12
    watched = watch(shown, detector(shown), every=3)
    assert {int(i) for tracks, _ in watched for i in tracks.ids} == {1}
    assert (shares(watched) > 0.85).mean() > 0.95


def test_two_who_cross_keep_their_ids():
    paths = [lambda t: (300 + 300 * t, 500, 100), lambda t: (1100 - 300 * t, 560, 100)]
    shown = scene(paths, 2.6)
    watched = watch(shown, detector(shown), every=4)
    assert {int(i) for tracks, _ in watched for i in tracks.ids} == {1, 2}
    assert (shares(watched) >= 0.85).mean() > 0.98
    first, last = watched[0][0], watched[-1][0]
    left_at_first = first.ids[np.argmin(first.boxes[:, 0])]
    assert left_at_first == last.ids[np.argmax(last.boxes[:, 0])]


def test_who_enters_at_the_border_is_covered_from_the_first_look_and_ends_beyond_the_other():
    shown = scene([lambda t: (-60 + 500 * t, 500, 110)], 5.2)
    watched = watch(shown, detector(shown), every=5)
    seen_from = next(index for index, (tracks, _) in enumerate(watched) if len(tracks))
    assert (np.concatenate([share for _, share in watched[seen_from:]]) >= 0.85).mean() > 0.97
    assert not len(watched[-1][0])


@pytest.mark.parametrize(
    ("path", "starts_at"),
    [
        (lambda t: (-10 + 400 * t, 500, 160), 0),
        (lambda t: (1930 - 400 * t, 500, 160), 2),
        (lambda t: (900, -10 + 400 * t, 160), 1),
        (lambda t: (900, 1090 - 400 * t, 160), 3),
    ],
    ids=["left", "right", "top", "bottom"],
)
def test_who_is_half_in_is_covered_while_the_rest_comes_in(path, starts_at):
    shown = scene([path], 0.4)
    watched = watch(shown, lambda index: detector(shown)(index), every=100)
    assert abs(shown.boxes[0][0, starts_at] - (0, 0, SIZE.width, SIZE.height)[starts_at]) < 1
    assert shares(watched).min() > 0.9


def test_a_lost_box_is_held_and_then_ends():
    one = tracker(hold_s=0.8)
    see(one, faces([100, 100, 200, 200]), 0.0)
    alive = [len(see(one, detection.none(), 0.04 * (index + 1))) for index in range(40)]
    assert 20 <= sum(alive) <= 22
    assert alive == sorted(alive, reverse=True)


def test_a_box_is_not_lost_before_the_detector_has_looked():
    one = tracker(hold_s=0.2)
    see(one, faces([100, 100, 200, 200]), 0.0)
    assert all(len(see(one, None, 0.1 * (index + 1))) == 1 for index in range(20))
    assert len(see(one, detection.none(), 2.1)) == 1
    assert len(see(one, detection.none(), 2.4)) == 0


def test_no_hold_ends_at_the_first_miss():
    one = tracker(hold_s=0)
    see(one, faces([100, 100, 200, 200]), 0.0)
    assert len(see(one, detection.none(), 0.04)) == 0


def test_low_scores_continue_a_track_but_start_none():
    one = tracker()
    weak = faces([100, 100, 200, 200], score=0.15)
    assert len(see(one, weak, 0.0)) == 0
    see(one, faces([100, 100, 200, 200]), 0.04)
    tracks = see(one, weak, 0.08)
    assert tracks.unseen_s.tolist() == [0]
    assert tracks.ids.tolist() == [1]
    assert see(one, faces([100, 100, 200, 200], score=0.1), 0.12).unseen_s[0] > 0


def test_a_face_never_continues_a_plate():
    one = tracker()
    see(one, faces([100, 100, 200, 200]), 0.0)
    tracks = see(one, faces([100, 100, 200, 200], label=Label.PLATE), 0.04)
    assert sorted(tracks.labels.tolist()) == [Label.FACE, Label.PLATE]
    assert len(set(tracks.ids.tolist())) == 2


def test_fast_small_objects_keep_their_id_without_overlap():
    one = tracker()
    see(one, faces([100, 100, 130, 130]), 0.0)
    assert see(one, faces([135, 100, 165, 130]), 0.04).ids.tolist() == [1]


def test_two_tracks_over_one_object_become_one():
    one = tracker(hold_s=2.0)
    see(one, faces([100, 100, 200, 200], [104, 102, 205, 204]), 0.0)
    for index in range(40):
        tracks = see(one, faces([100, 100, 200, 200]), 0.04 * (index + 1))
    assert len(tracks) == 1


def test_old_tracks_end_at_a_cut_that_the_detector_looked_at():
    one, estimator = tracker(), MotionEstimator()
    pictures = [scene([], 0.04, seed=seed).pictures[0] for seed in (1, 2)]
    see(one, faces([100, 100, 200, 200]), 0.0, estimator.update(pictures[0], scale=SCALE))
    cut = estimator.update(pictures[1], scale=SCALE)
    assert cut.cut
    tracks = see(one, faces([100, 100, 200, 200]), 0.04, cut)
    assert tracks.ids.tolist() == [2]
    assert tracks.born.tolist() == [True]


def test_a_cut_that_nobody_looked_at_drops_nothing():
    one, estimator = tracker(), MotionEstimator()
    see(one, faces([100, 100, 200, 200]), 0.0, estimator.update(scene([], 0.04).pictures[0], scale=SCALE))
    assert len(see(one, None, 0.04, estimator.update(scene([], 0.04, seed=3).pictures[0], scale=SCALE))) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_boxes_that_are_not_numbers_are_refused(bad):
    with pytest.raises(RedactionError):
        see(tracker(), faces([bad, 0, 10, 10]), 0.0)
    with pytest.raises(RedactionError):
        see(tracker(), faces([0, 0, 10, 10], score=bad), 0.0)


def test_a_thousand_detections_are_a_thousand_tracks_in_sane_time():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, [1900, 1060], (1000, 2))
    found = Detections(
        np.concatenate([corners, corners + 18], axis=1).astype(np.float32),
        np.full(1000, 0.9, np.float32),
        np.zeros(1000, np.uint8),
    )
    one = tracker()
    see(one, found, 0.0)
    start = time.process_time()
    tracks = see(one, found, 0.04)
    assert time.process_time() - start < 5
    assert len(set(tracks.ids.tolist())) == len(tracks) == 1000
    assert _all_inside(found, tracks)


def _all_inside(found, tracks):
    low = (tracks.boxes[None, :, :2] <= found.boxes[:, None, :2] + 1e-3).all(axis=2)
    high = (tracks.boxes[None, :, 2:] >= found.boxes[:, None, 2:] - 1e-3).all(axis=2)
    same = tracks.labels[None] == found.labels[:, None]
    return bool((low & high & same).any(axis=1).all())


boxes = st.tuples(
    st.floats(-200, 2000, width=32),
    st.floats(-200, 1200, width=32),
    st.floats(0.5, 400, width=32),
    st.floats(0.5, 400, width=32),
).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
looks = st.none() | st.lists(
    st.tuples(boxes, st.floats(0, 1, width=32), st.sampled_from(list(Label))), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(looks, st.floats(-3, 3) | st.floats(-1e6, 1e6)), max_size=12))
def test_every_detection_is_inside_the_boxes_of_its_frame_whatever_came_before(steps):
    one = tracker()
    at_s, last_id = 0.0, 0
    for items, step in steps:
        at_s += step
        found = None
        if items is not None:
            found = detection.detections([i[0] for i in items], [i[1] for i in items], [i[2] for i in items])
        tracks = see(one, found, at_s)
        assert len(set(tracks.ids.tolist())) == len(tracks)
        assert np.isfinite(tracks.boxes).all()
        assert (tracks.unseen_s >= 0).all()
        assert (tracks.ids[tracks.born] > last_id).all()
        last_id = max([last_id, *tracks.ids.tolist()])
        if found is not None:
            assert _all_inside(found.take(found.scores >= np.float32(0.3)), tracks)


def test_time_may_jump_both_ways():
    one = tracker()
    see(one, faces([100, 100, 200, 200]), 1e6)
    assert len(see(one, detection.none(), 0.0)) == 1
    assert len(see(one, None, 0.04)) == 1
    assert len(see(one, detection.none(), 1e5)) == 0
    assert len(no_tracks()) == 0
