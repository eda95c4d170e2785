"""Motion: boxes follow the picture; cuts are cuts, flashes and pans are not."""

import numpy as np
import pytest

from streamer.frame import Size, Vectors
from streamer.motion import MotionEstimator, still, thumbnail_width
from tests.scenes import SCALE, SIZE, scene, texture


def follow(shown, back=False):
    """The boxes of the first frame carried to the last by motion alone (or the reverse), and the true
    ones."""
    estimator = MotionEstimator()
    motions = [estimator.update(picture, scale=SCALE) for picture in shown.pictures][1:]
    boxes = shown.boxes[-1 if back else 0]
    for motion in reversed(motions) if back else motions:
        boxes = motion.backward(boxes) if back else motion.forward(boxes)
    return boxes, shown.boxes[0 if back else -1]


def off_in_sides(boxes, true):
    return float((np.abs(boxes - true).max(axis=1) / (true[:, 2] - true[:, 0])).max())


MOVES = {
    "walk": [lambda t: (500 + 240 * t, 500, 120)],
    "run": [lambda t: (300 + 700 * t, 500 + 200 * t, 120)],
    "accelerate": [lambda t: (300 + 600 * t * t, 500, 120)],
    "approach": [lambda t: (900, 500, 80 + 90 * t)],
    "many": [lambda t, k=k: (200 + 150 * k, 300 + 40 * k + 100 * t, 90) for k in range(10)],
    "small": [lambda t: (500 + 100 * t, 500, 48)],
}


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("name", list(MOVES))
def test_boxes_follow_what_moves_over_a_still_ground(name, back):
    boxes, true = follow(scene(MOVES[name], 0.6), back=back)
    assert off_in_sides(boxes, true) < 0.15


CAMERAS = {
    "pan": lambda t: (600 * t, 0, 1.0),
    "fast pan": lambda t: (2000 * t, 300 * t, 1.0),
    "zoom": lambda t: (200 * t, 100 * t, 1 + 0.4 * t),
    "shake": lambda t: (25 * np.sin(40 * t), 20 * np.cos(33 * t), 1.0),
}


@pytest.mark.parametrize("name", list(CAMERAS))
def test_boxes_follow_the_camera(name):
    boxes, true = follow(scene([lambda t: (1000, 550, 100)], 0.4, camera=CAMERAS[name]))
    assert off_in_sides(boxes, true) < 0.15


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_boxes_follow_a_whip_pan_that_flow_alone_loses(back):
    crowd = [lambda t, k=k: (1300 + 70 * k, 300 + 40 * (k % 7), 60) for k in range(12)]
    boxes, true = follow(scene(crowd, 0.16, camera=lambda t: (1000 - 4800 * t, 0, 1.0)), back=back)
    assert off_in_sides(boxes, true) < 0.15


def test_vectors_move_what_the_picture_alone_cannot_tell():
    flat = np.full((270, 480), 90, np.uint8)
    box = np.array([[400, 400, 480, 480]], np.float32)
    centers = np.array([[x, y] for x in range(360, 560, 16) for y in range(360, 560, 16)], np.float32)
    vectors = Vectors(centers, np.tile(np.float32([12, -4]), (len(centers), 1)))
    estimator = MotionEstimator()
    estimator.update(texture(270, 480, 1), scale=SCALE)
    estimator.update(flat, scale=SCALE)
    motion = estimator.update(flat, scale=SCALE, vectors=vectors)
    assert motion.forward(box).tolist() == [[412, 396, 492, 476]]
    assert motion.backward(motion.forward(box)).tolist() == box.tolist()
    assert not motion.flow(box).sure.any()


def test_a_flat_object_moves_with_the_camera():
    pictures = scene([], 0.2, camera=CAMERAS["pan"]).pictures
    for picture in pictures:
        picture[80:200, 180:300] = 128
    estimator = MotionEstimator()
    motion = [estimator.update(picture, scale=SCALE) for picture in pictures][-1]
    box = np.array([[900, 500, 1000, 600]], np.float32)
    assert motion.forward(box)[0, 0] - box[0, 0] == pytest.approx(-600 / 25, abs=2)


def test_the_first_frame_is_a_cut_and_a_scene_change_is_one():
    estimator = MotionEstimator()
    pictures = scene([], 0.2, seed=1).pictures + scene([], 0.2, seed=2).pictures
    cuts = [estimator.update(picture, scale=SCALE).cut for picture in pictures]
    assert [index for index, cut in enumerate(cuts) if cut] == [0, 5]


@pytest.mark.parametrize("name", list(CAMERAS))
def test_a_moving_camera_is_no_cut(name):
    estimator = MotionEstimator()
    pictures = scene([lambda t: (900, 500, 300)], 0.5, camera=CAMERAS[name]).pictures
    assert [estimator.update(picture, scale=SCALE).cut for picture in pictures].count(True) == 1


def test_light_flashes_and_black_frames_are_no_cut():
    picture = texture(270, 480, 3)
    bright = np.clip(picture.astype(int) // 2 + 110, 0, 255).astype(np.uint8)
    dark = picture // 3
    black = np.full_like(picture, 16)
    estimator = MotionEstimator()
    shown = [picture, bright, picture, dark, black, black, picture]
    assert [estimator.update(each, scale=SCALE).cut for each in shown] == [True] + [False] * 6


def test_another_picture_behind_a_black_frame_is_a_cut():
    estimator = MotionEstimator()
    shown = [texture(270, 480, 3), np.full((270, 480), 16, np.uint8), texture(270, 480, 4)]
    assert [estimator.update(each, scale=SCALE).cut for each in shown] == [True, False, True]


def test_a_change_of_size_is_a_cut_and_moves_nothing():
    estimator = MotionEstimator()
    estimator.update(texture(270, 480, 3), scale=SCALE)
    motion = estimator.update(texture(240, 320, 3), scale=SCALE)
    box = np.array([[10, 10, 50, 50]], np.float32)
    assert motion.cut
    assert motion.forward(box).tolist() == box.tolist()


def test_activity_is_where_things_move_and_novel_is_away_from_tracks():
    shown = scene([lambda t: (500 + 300 * t, 500, 160), lambda t: (1400 - 300 * t, 700, 160)], 0.2)
    estimator = MotionEstimator()
    for picture in shown.pictures[:-1]:
        estimator.update(picture, scale=SCALE)
    motion = estimator.update(shown.pictures[-1], scale=SCALE, tracked=shown.boxes[-2][:1])
    for box in shown.boxes[-1]:
        x0, y0, x1, y1 = np.round(box * SCALE / 8).astype(int)
        assert motion.changed[y0:y1, x0:x1].mean() > 0.5
    x0, y0, x1, y1 = np.round(shown.boxes[-1] * SCALE / 8).astype(int).T
    assert not motion.novel[y0[0] : y1[0], x0[0] : x1[0]].any()
    assert motion.novel[y0[1] : y1[1], x0[1] : x1[1]].mean() > 0.5
    assert 0.005 < motion.activity < 0.1


def test_noise_is_not_activity():
    rng = np.random.default_rng(0)
    picture = texture(270, 480, 3)
    estimator = MotionEstimator()
    noisy = [np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8) for _ in range(4)]
    motions = [estimator.update(each, scale=SCALE) for each in noisy]
    assert all(motion.activity < 0.001 for motion in motions[1:])


ODD_BOXES = {
    "none": [],
    "empty": [[5, 5, 5, 5]],
    "outside": [[-500, -500, -400, -400]],
    "border": [[1900, 1000, 2300, 1300]],
    "whole": [[0, 0, 1920, 1080]],
    "inverted": [[50, 50, 40, 40]],
}


@pytest.mark.parametrize("name", list(ODD_BOXES))
def test_odd_boxes_give_finite_answers(name):
    boxes = np.array(ODD_BOXES[name], np.float32).reshape(-1, 4)
    estimator = MotionEstimator()
    pictures = scene([], 0.2, camera=CAMERAS["pan"]).pictures
    motion = [estimator.update(picture, scale=SCALE) for picture in pictures][-1]
    for moved in (motion.forward(boxes), motion.backward(boxes)):
        assert moved.shape == boxes.shape
        assert np.isfinite(moved).all()


@pytest.mark.parametrize("shape", [(2, 2), (7, 480), (270, 4), (16, 16)])
def test_tiny_pictures_do_not_break_it(shape):
    estimator = MotionEstimator()
    rng = np.random.default_rng(0)
    for _ in range(3):
        motion = estimator.update(rng.integers(0, 255, shape, np.uint8), scale=1.0)
        assert np.isfinite(motion.forward(np.array([[0, 0, 2, 2]], np.float32))).all()


def test_the_small_picture_keeps_its_long_side():
    assert thumbnail_width(Size(4000, 2)) == 480
    assert thumbnail_width(Size(2, 4000)) == 1
    assert still(SIZE).size == (1920, 1080)


def test_growth_of_an_approaching_plate_is_followed():
    boxes, true = follow(scene([lambda t: (900, 500, 120 + 100 * t)], 0.4))
    assert (boxes[0, 2] - boxes[0, 0]) / (true[0, 2] - true[0, 0]) == pytest.approx(1, abs=0.05)
