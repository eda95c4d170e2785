"""The second stage: which part of the frame it sees, and what becomes of its answers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamer import boxes as geometry
from streamer import detection, models
from streamer.config import DetectPolicy, Hide
from streamer.detection import Detections, Label
from streamer.detector import Detector
from streamer.device.base import Session, Tensor, crop_letterbox
from streamer.device.cpu import CpuDevice
from streamer.errors import ConfigError, ModelError
from streamer.frame import Frame, Size
from streamer.models import ModelSpec, Second
from streamer.second import SecondStage
from tests.fakes import noise_frame

SIDE = 64
NETWORK = ModelSpec(
    "second", Path("second.onnx"), "", "second", (Label.FACE, Label.PLATE), {}, stride=1, side=SIDE
)
ALL_THE_WAY, AS_BEFORE = (16.0, 64.0, 1.0), (1.0, 1.0, 0.0, 0.0)
SECOND = Second(
    NETWORK,
    0.2,
    dict.fromkeys(Label, 2.0),
    dict.fromkeys(Label, ALL_THE_WAY),
    dict.fromkeys(Label, AS_BEFORE),
)
DETECTOR = ModelSpec(
    "first", Path("first.onnx"), "", "yolo_end2end", (Label.FACE, Label.PLATE), dict.fromkeys(Label, 0.5),
    second=SECOND,
)  # fmt: skip
Answer = Callable[[Tensor], tuple[np.ndarray, np.ndarray]]


def nothing_new(crops: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """As sure as before, at the middle of the crop, a square."""
    return np.zeros((len(crops), 2), np.float32), np.zeros((len(crops), 8), np.float32)


def of_what_is_bright(crops: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The box around what is bright in each crop, for both classes."""
    moves = np.zeros((len(crops), 8), np.float32)
    for row, crop in zip(moves, crops, strict=True):
        ys, xs = np.nonzero(crop[0] > 150)
        x0, x1, y0, y1 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
        unit = SIDE / 2
        middle = ((x0 + x1) / 2 - SIDE / 2) / unit, ((y0 + y1) / 2 - SIDE / 2) / unit
        row[:] = [*middle, np.log((x1 - x0) / unit), np.log((y1 - y0) / unit)] * 2
    return np.zeros((len(crops), 2), np.float32), moves


class Scripted(CpuDevice):
    """A CPU whose second stage answers by a function of its crops."""

    def __init__(self, answer: Answer, rows: Sequence[Sequence[float]] = ()) -> None:
        super().__init__()
        self.answer = answer
        self.rows = rows
        self.crops_seen: list[int] = []

    def load(self, spec: ModelSpec, side: int) -> Session:
        def first(batch: Tensor) -> Sequence[np.ndarray]:
            return [np.array(self.rows, np.float32).reshape(-1, 7)]

        def second(batch: Tensor) -> Sequence[np.ndarray]:
            assert batch.shape[1:] == (3, SIDE, SIDE)
            self.crops_seen.append(len(batch))
            return self.answer(batch)

        return second if spec is NETWORK else first


def dark_with_bright(box: tuple[int, int, int, int], size: Size = Size(400, 300)) -> Frame:
    frame = noise_frame(0, size)
    frame.luma[:], frame.chroma[:] = 60, 128
    x0, y0, x1, y1 = box
    frame.luma[y0:y1, x0:x1] = 235
    return frame


def found_at(*boxes: tuple[float, float, float, float], score: float = 0.6) -> Detections:
    return detection.detections(list(boxes), [score] * len(boxes), [Label.FACE] * len(boxes))


@pytest.mark.parametrize("middle", [(100.3, 50.7), (0.0, 0.0), (319.0, 179.0), (-3.0, 90.0), (160.0, 300.0)])
@pytest.mark.parametrize("span", [1.0, 33.0, 64.0, 500.0])
def test_a_crop_lies_in_the_picture_on_even_pixels(middle: tuple[float, float], span: float) -> None:
    box = crop_letterbox(middle, span, Size(320, 180), SIDE)
    x0, y0, x1, y1 = box.window
    assert 0 <= x0 < x1 <= 320
    assert 0 <= y0 < y1 <= 180
    assert all(at % 2 == 0 for at in box.window)
    assert box.size == Size(SIDE, SIDE)
    assert SIDE / box.scale == pytest.approx(max(8, span), abs=1)
    inside = middle[0] - span / 2 > 0 and middle[0] + span / 2 < 320
    if inside:
        assert (x0 + x1) / 2 == pytest.approx(middle[0], abs=2)


@pytest.mark.parametrize(
    "box", [(100, 80, 160, 150), (0, 0, 40, 50), (350, 240, 400, 300), (180, 0, 210, 30), (10, 10, 390, 290)]
)
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_its_boxes_lie_where_the_object_is_in_the_frame(
    box: tuple[int, int, int, int], quarters: int
) -> None:
    """Though the first look was a tenth off, wherever in the picture, however it was turned."""
    device = Scripted(of_what_is_bright)
    width, height = box[2] - box[0], box[3] - box[1]
    off = np.array([box], np.float32) + np.array([[0.1 * width, -0.1 * height] * 2], np.float32)
    off = geometry.clip(off, 400, 300)
    stage = SecondStage(SECOND, device)
    refined = stage(dark_with_bright(box), found_at(*map(tuple, off.tolist())), 1.0, quarters)
    step = 2 * max(width, height) * 2 / SIDE  # two crop pixels
    assert np.abs(refined.boxes - np.array(box)).max() <= step


@pytest.mark.parametrize(("scale", "share"), [(0.25, 1.0), (1.0, 0.25), (2.0, 0.25), (40 / 64, 0.625)])
def test_a_box_goes_as_far_as_the_manifest_says(scale: float, share: float) -> None:
    moved = {Label.FACE: (16.0, 64.0, 0.25), Label.PLATE: ALL_THE_WAY}
    stage = SecondStage(replace(SECOND, moved=moved), Scripted(of_what_is_bright))
    refined = stage(dark_with_bright((100, 80, 164, 144)), found_at((120, 80, 184, 144)), scale)
    assert refined.boxes[0] == pytest.approx([120 - 20 * share, 80, 184 - 20 * share, 144], abs=1.5)


def test_scores_are_those_of_both_looks() -> None:
    odds = np.array([[2.0, -9.0]], np.float32)
    device = Scripted(lambda crops: (odds, np.zeros((1, 8), np.float32)))
    weighed = replace(SECOND, weights={Label.FACE: (0.75, 0.5, 0.25, -1.0), Label.PLATE: AS_BEFORE})
    refined = SecondStage(weighed, device)(noise_frame(0), found_at((100, 60, 132, 92), score=0.8), 0.5)
    total = 0.75 * 2 + 0.5 * np.log(4) + 0.25 * (np.log2(16) / 2 - 2) - 1
    assert refined.scores[0] == pytest.approx(1 / (1 + np.exp(-total)), rel=1e-5)


def test_what_the_detector_hardly_saw_is_not_looked_at() -> None:
    device = Scripted(nothing_new)
    assert len(SecondStage(SECOND, device)(noise_frame(0), found_at((10, 10, 50, 50), score=0.1), 1.0)) == 0
    assert not device.crops_seen


def test_many_go_in_parts_and_none_is_lost() -> None:
    device = Scripted(nothing_new)
    boxes = [(8.0 * k, 10.0, 8.0 * k + 6, 16.0) for k in range(37)]
    refined = SecondStage(SECOND, device)(noise_frame(0), found_at(*boxes), 1.0)
    assert len(refined) == 37
    assert sum(device.crops_seen) == 37
    assert max(device.crops_seen) <= 16


def test_two_boxes_that_turn_out_to_be_of_one_object_become_one() -> None:
    device = Scripted(of_what_is_bright)
    frame = dark_with_bright((100, 80, 160, 150))
    refined = SecondStage(SECOND, device)(frame, found_at((95, 80, 150, 150), (110, 80, 170, 150)), 1.0)
    assert len(refined) == 1


@pytest.mark.parametrize("wrong", [0, 1])
def test_answers_that_are_no_numbers_are_an_error(wrong: int) -> None:
    """They would compare as below the threshold, and the picture would pass as one without faces."""

    def answer(crops: Tensor) -> tuple[np.ndarray, np.ndarray]:
        both = nothing_new(crops)
        both[wrong][:] = np.nan
        return both

    device = Scripted(answer, [[0, 10, 10, 30, 30, 0, 0.9]])
    with pytest.raises(ModelError, match="no numbers"):
        Detector(DETECTOR, device, DetectPolicy(side=160), Hide.EVERYTHING)(noise_frame(0))


def test_a_network_of_another_kind_is_refused() -> None:
    device = Scripted(lambda crops: (np.zeros((len(crops), 3)), np.zeros((len(crops), 8))))
    with pytest.raises(ModelError, match="other outputs"):
        SecondStage(SECOND, device)(noise_frame(0), found_at((10, 10, 50, 50)), 1.0)


@pytest.mark.parametrize(("odds", "left"), [(-6.0, 0), (0.0, 1)])
def test_the_detector_asks_it(odds: float, left: int) -> None:
    device = Scripted(
        lambda crops: (np.full((len(crops), 2), odds, np.float32), np.zeros((len(crops), 8), np.float32)),
        [[0, 10, 10, 30, 30, 0, 0.9]],
    )
    found = Detector(DETECTOR, device, DetectPolicy(side=160), Hide.EVERYTHING)(
        noise_frame(0, Size(320, 180))
    )
    assert len(found) == left


def test_ours_have_one_and_it_is_no_detector_itself() -> None:
    for name in ("fast", "accurate"):
        second = models.find(name).second
        assert second is not None
        outputs = CpuDevice().load(second.spec, 64)(np.zeros((3, 3, 64, 64), np.float32))
        assert [output.shape for output in outputs] == [(3, 2), (3, 8)]
    with pytest.raises(ConfigError, match="second stage"):
        models.find("second")
