"""Cadence: often enough that nothing enters unseen for longer than the look-ahead, and not more often."""

from itertools import pairwise

import numpy as np
import pytest

from streamer.cadence import Cadence
from streamer.config import TrackPolicy
from streamer.detection import Label
from streamer.motion import MotionEstimator
from streamer.tracking import Tracker, no_tracks
from tests.scenes import FPS, SCALE, SIZE, detector, scene, texture


def run(pictures, look=None, every="auto", fps=FPS, look_ahead_s=0.5):
    """The reason for each frame, with a tracker fed by `look`."""
    cadence = Cadence(every, look_ahead_s=look_ahead_s)
    tracker, estimator = Tracker(TrackPolicy(), {Label.FACE: 0.3}), MotionEstimator()
    reasons = []
    for index, picture in enumerate(pictures):
        motion = estimator.update(picture, scale=SCALE, tracked=tracker.tracks.boxes)
        reason = cadence.due(motion, tracker.tracks, at_s=index / fps)
        reasons.append(reason)
        if look is not None:
            tracker.update(look(index) if reason else None, motion=motion, at_s=index / fps, size=SIZE)
    assert sum(cadence.reasons.values()) == sum(reason is not None for reason in reasons)
    assert cadence.frames == len(pictures)
    return reasons


def longest_gap(reasons):
    at = [index for index, reason in enumerate(reasons) if reason]
    return max(np.diff([*at, len(reasons)]))


def test_the_first_frame_is_looked_at_and_a_still_picture_seldom():
    reasons = run([texture(270, 480, 1)] * 100)
    assert reasons[0] == "first frame"
    assert sum(reason is not None for reason in reasons) <= 10
    assert longest_gap(reasons) <= 13


def test_no_interval_is_longer_than_what_the_look_ahead_can_hold():
    cadence, estimator = Cadence("auto", look_ahead_s=1.0), MotionEstimator()
    cadence.window = 6
    still = texture(270, 480, 1)
    reasons = []
    for index in range(60):
        reasons.append(cadence.due(estimator.update(still, scale=SCALE), no_tracks(), at_s=index / FPS))
    assert longest_gap(reasons[4:]) == 6


def test_a_still_picture_with_a_face_in_it_is_looked_at_as_seldom():
    shown = scene([lambda t: (600, 500, 120)], 6.0)
    reasons = run(shown.pictures, detector(shown), look_ahead_s=1.0)
    assert sum(reason is not None for reason in reasons) <= 10
    assert longest_gap(reasons) <= 20


@pytest.mark.parametrize("side", [20, 40])
def test_a_small_face_that_moves_is_not_a_still_picture(side):
    shown = scene([lambda t: (300 + 150 * t, 500, side)], 3.0)
    reasons = run(shown.pictures, detector(shown), look_ahead_s=1.0)
    assert longest_gap(reasons) <= 9


def test_a_moving_picture_costs_at_most_a_fifth_of_its_frames():
    shown = scene([lambda t: (300 + 200 * t, 500, 100)], 6.0)
    reasons = run(shown.pictures, detector(shown, drop=0.2, jitter=0.02))
    assert sum(reason is not None for reason in reasons) <= 0.24 * len(reasons)
    assert longest_gap(reasons) <= 5


def test_a_cut_is_looked_at_on_its_first_frame_and_again_soon():
    pictures = [*scene([], 0.52, seed=1).pictures, *scene([], 0.4, seed=2).pictures]
    reasons = run(pictures)
    assert reasons[13] == "scene cut"
    assert "after a cut" in reasons[14:18]


def test_what_begins_to_move_in_a_still_picture_is_looked_at_soon():
    shown = scene([lambda t: (-400 + 260 * t, 500, 120)], 2.5)
    enters = next(index for index, boxes in enumerate(shown.boxes) if len(boxes))
    reasons = run(shown.pictures)
    assert "new motion" in reasons
    assert any(reasons[enters - 3 : enters + 4])


def test_slow_streams_do_not_pay_for_every_other_frame():
    rng = np.random.default_rng(3)
    pictures = [texture(270, 480, 1)]
    for _ in range(99):  # something else begins to move every time
        pictures.append(pictures[-1].copy())
        y, x = rng.integers(0, 200), rng.integers(0, 400)
        pictures[-1][y : y + 60, x : x + 60] ^= 96
    reasons = run(pictures, fps=10, look_ahead_s=1.0)
    assert "new motion" in reasons
    assert sum(reason is not None for reason in reasons) <= 40


def test_the_slowest_streams_are_looked_at_twice_a_second_or_at_every_frame():
    shown = scene([lambda t: (300 + 250 * t, 500, 100)], 1.6)
    for fps, most in ((5, 3), (3, 2), (1, 1)):
        reasons = run(shown.pictures, fps=fps, look_ahead_s=1.0)
        looks = [index for index, reason in enumerate(reasons) if reason is not None]
        assert max(after - before for before, after in pairwise(looks)) <= most


def test_a_track_that_was_missed_is_looked_for_again_soon():
    shown = scene([lambda t: (600, 500, 120)], 2.0)
    sees = detector(shown)

    def look(index):
        found = sees(index)
        return found if index < 8 else found.take(np.zeros(len(found), np.bool_))

    reasons = run(shown.pictures, look)
    assert "uncertain track" in reasons


@pytest.mark.parametrize("every", [1, 3, 12])
def test_a_fixed_interval_is_kept(every):
    reasons = run([texture(270, 480, 1)] * 40, every=every)
    assert [index for index, reason in enumerate(reasons) if reason] == list(range(0, 40, every))


@pytest.mark.parametrize("fps", [1, 5, 10, 25, 60, 240])
@pytest.mark.parametrize("look_ahead_s", [0.1, 0.3, 0.5, 2.0])
def test_no_interval_is_longer_than_the_look_ahead(fps, look_ahead_s):
    reasons = run([texture(270, 480, 1)] * (fps * 3), fps=fps, look_ahead_s=look_ahead_s)
    assert (longest_gap(reasons) - 1) / fps <= look_ahead_s


@pytest.mark.parametrize("look_ahead_s", [0.3, 1.0])
def test_not_even_one_that_was_asked_for(look_ahead_s):
    reasons = run([texture(270, 480, 1)] * 75, every=60, look_ahead_s=look_ahead_s)
    assert (longest_gap(reasons) - 1) / FPS <= look_ahead_s


@pytest.mark.parametrize("jump_s", [-5.0, 30.0, -1e9, 1e9])
def test_a_jump_in_time_is_looked_at(jump_s):
    estimator, cadence = MotionEstimator(), Cadence("auto")
    reasons = []
    for at_s in (0.0, 0.04, 0.08 + jump_s, 0.12 + jump_s):
        motion = estimator.update(texture(270, 480, 1), scale=SCALE)
        reasons.append(cadence.due(motion, no_tracks(), at_s=at_s))
    assert reasons[:3] == ["first frame", None, "time jump"]


def test_time_that_stands_still_does_not_stop_it():
    estimator, cadence = MotionEstimator(), Cadence("auto")
    reasons = []
    for _ in range(60):
        motion = estimator.update(texture(270, 480, 1), scale=SCALE)
        reasons.append(cadence.due(motion, no_tracks(), at_s=0.0))
    assert longest_gap(reasons) <= 15


def popping(shown, count=60):
    """A still picture over which something lies in the frames `shown`, and nothing moves."""
    ground, thing = texture(270, 480, 1), texture(60, 60, 9)
    pictures = [ground.copy() for _ in range(count)]
    for index in shown:
        pictures[index][100:160, 200:260] = thing
    return pictures


@pytest.mark.parametrize("first", range(4, 30))
def test_what_shows_for_two_frames_between_two_runs_is_looked_at(first):
    reasons = run(popping([first, first + 1]), look_ahead_s=1.0)
    assert any(reasons[first : first + 2])
    assert sum(reason is not None for reason in reasons) <= 8


def test_what_appears_where_the_body_of_a_tracked_face_would_be_is_looked_at():
    shown = scene([lambda t: (900, 250, 100)], 2.0)
    for index in (28, 29):
        shown.pictures[index][130:190, 200:260] = texture(60, 60, 9)
    reasons = run(shown.pictures, detector(shown), look_ahead_s=1.0)
    assert reasons[28] == "sudden change"


def test_what_shows_for_two_frames_is_looked_at_in_a_slow_stream():
    reasons = run(popping([17]), fps=5, look_ahead_s=1.0)
    assert reasons[17] is not None


def test_a_stretched_cadence_does_not_look_at_every_sudden_change():
    cadence, estimator = Cadence("auto", look_ahead_s=1.0), MotionEstimator()
    cadence.stretch = 3.0
    reasons = [
        cadence.due(estimator.update(picture, scale=SCALE), no_tracks(), at_s=index / FPS)
        for index, picture in enumerate(popping([4], 10))
    ]
    assert reasons[4] is None


def test_a_camera_never_leaves_more_than_half_a_picture_behind_unseen():
    ground = texture(3000, 480, 3)
    pictures = [ground[50 * index : 50 * index + 270] for index in range(50)]
    reasons = run(pictures, look_ahead_s=1.0)
    assert longest_gap(reasons) <= 3


def test_two_scenes_that_are_alike_by_chance_are_both_looked_at():
    common, *own = (texture(270, 480, seed, 12.0).astype(float) - 128 for seed in (1, 2, 3))
    first, other = (np.clip(128 + common + 0.9 * part, 0, 255).astype(np.uint8) for part in own)
    pictures = [first] * 11 + [other] * 4
    estimator = MotionEstimator()
    motions = [estimator.update(picture, scale=SCALE) for picture in pictures]
    assert motions[11].doubtful
    assert not any(motion.cut for motion in motions[1:])
    assert run(pictures)[11] == "perhaps a cut"


def due_at(busy, pictures, fps=30, look_ahead_s=0.0):
    """When the detector is due, in frames, if it is `busy` with others as long as that says so."""
    cadence, estimator = Cadence("auto", look_ahead_s=look_ahead_s), MotionEstimator()
    cadence.busy = busy
    found = {}
    for index, picture in enumerate(pictures):
        motion = estimator.update(picture, scale=SCALE)
        if reason := cadence.due(motion, no_tracks(), at_s=index / fps):
            found[index] = reason
    return found


def test_a_look_that_is_due_by_time_alone_waits_a_moment_for_those_of_other_streams():
    still = [texture(270, 480, 1)] * 40
    free, busy = due_at(lambda: False, still), due_at(lambda: True, still)
    assert list(free.values()) == list(busy.values())[: len(free)]
    later = [second - first for first, second in zip(free, busy, strict=False)]
    assert later[0] == 0  # the first frame is looked at
    assert 0 < later[-1] <= len(later) * 4
    asked = iter([True, False] * 40)
    once = due_at(lambda: next(asked), still)
    assert all(second - first <= index for index, (first, second) in enumerate(zip(free, once, strict=False)))


@pytest.mark.parametrize("look_ahead_s", [0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("fps", [10, 30])
def test_no_look_waits_for_others_longer_than_the_look_ahead_holds_frames(fps, look_ahead_s):
    due = list(due_at(lambda: True, [texture(270, 480, 1)] * 3 * fps, fps, look_ahead_s))
    assert max(np.diff(due)) <= look_ahead_s * fps + 1e-6


def test_a_cut_waits_for_nobody():
    pictures = [texture(270, 480, 1)] * 5 + [texture(270, 480, 2)] * 5
    assert due_at(lambda: True, pictures)[5] == "scene cut"
