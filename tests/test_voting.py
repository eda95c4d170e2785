"""What the boxes of one object make of it together."""

import time
from dataclasses import replace

import numpy as np
import pytest

from streamer import models
from streamer.config import DetectPolicy, Hide
from streamer.detection import Detections, Label, detections, none
from streamer.detector import LOW_SHARE, NMS_IOU, Detector
from streamer.device.cpu import CpuDevice
from streamer.voting import vote
from tests.fakes import noise_frame

FACE, PLATE = Label.FACE, Label.PLATE


def test_the_corners_are_the_mean_of_those_that_agree_weighted_by_the_squares_of_their_scores() -> None:
    found = vote(
        detections([[0, 0, 10, 10], [2, 0, 12, 10], [90, 0, 99, 9]], [0.8, 0.4, 0.3], [FACE] * 3), 2, NMS_IOU
    )
    assert found.boxes[0].tolist() == pytest.approx([2 * 0.16 / 0.8, 0, 10 + 2 * 0.16 / 0.8, 10])
    assert found.boxes[1].tolist() == pytest.approx([90, 0, 99, 9])


def test_a_box_that_many_agree_on_scores_more_than_one_that_stands_alone() -> None:
    crowd = detections([[0, 0, 40, 40]] * 9 + [[100, 0, 140, 40]], [0.6] * 9 + [0.6], [FACE] * 10)
    found = vote(crowd, 9, NMS_IOU)
    assert found.scores.tolist() == pytest.approx([0.6, (0.6 + 0.6 / 9) / 2])
    assert vote(detections([[0, 0, 40, 40]] * 30, [0.6] * 30, [FACE] * 30), 9, NMS_IOU).scores[
        0
    ] == pytest.approx(0.6)


def test_classes_do_not_vote_for_each_other() -> None:
    found = vote(detections([[0, 0, 9, 9]] * 2, [0.8, 0.6], [FACE, PLATE]), 2, NMS_IOU)
    assert dict(zip(found.labels.tolist(), found.scores.tolist(), strict=True)) == pytest.approx(
        {0: 0.6, 1: 0.45}
    )


def test_neither_empty_boxes_nor_no_boxes_trouble_it() -> None:
    assert len(vote(none(), 9, NMS_IOU)) == 0
    empty = [[5, 5, 5, 9], [0, 0, 1e-6, 1e-6]]
    found = vote(detections([*empty, [0, 0, 9, 9]], [0.9, 0.8, 0.5], [FACE] * 3), 9, NMS_IOU)
    assert np.allclose(found.boxes, [[0, 0, 9, 9]])


def test_thousands_of_boxes_are_compared_in_parts_with_the_same_result(monkeypatch) -> None:
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 900, (3000, 2)).astype(np.float32)
    boxes = np.concatenate([low, low + rng.uniform(10, 90, (3000, 2)).astype(np.float32)], axis=1)
    found = Detections(
        boxes, rng.uniform(0.05, 1, 3000).astype(np.float32), rng.integers(0, 2, 3000).astype(np.uint8)
    )
    begun = time.thread_time()
    whole = vote(found, 9, NMS_IOU)
    assert time.thread_time() - begun < 5
    monkeypatch.setattr("streamer.voting._AT_ONCE", 5000)
    parts = vote(found, 9, NMS_IOU)
    assert np.allclose(whole.boxes, parts.boxes, atol=1e-3)
    assert np.allclose(whole.scores, parts.scores)


@pytest.mark.parametrize("threshold", [0.02, 0.4])
def test_what_is_asked_for_does_not_change_what_a_box_scores(threshold: float) -> None:
    """Weak boxes vote although they are not asked for."""
    spec = replace(models.find("fast"), second=None)
    frame = noise_frame(0)
    usual, other = (
        Detector(spec, CpuDevice(), DetectPolicy(threshold=score), Hide.EVERYTHING)
        for score in (0.05, threshold)
    )
    usual._session = other._session = lambda batch: _answers(batch.shape)  # type: ignore[assignment]
    least = LOW_SHARE * max(0.05, threshold)
    seen = [detector(frame) for detector in (usual, other)]
    ordered = [np.sort(found.scores[found.scores > least]) for found in seen]
    assert len(ordered[0]) > 0
    assert ordered[0].tolist() == ordered[1].tolist()


def _answers(shape: tuple[int, ...]) -> list[np.ndarray]:
    """A face that many cells mark, most of them weakly, and one that a single cell does."""
    levels = []
    for stride in (8, 16, 32):
        level = np.zeros((1, 6, shape[2] // stride, shape[3] // stride), np.float32)
        level[:, 4:] = np.log(64 / stride)
        levels.append(level)
    level = levels[0]
    for row, column, score in ((3, 3, 0.9), (3, 4, 0.3), (4, 3, 0.08), (4, 4, 0.06), (2, 3, 0.055)):
        level[0, 0, row, column] = score
        level[0, 2:4, row, column] = 3 - column, 3 - row
    return levels
