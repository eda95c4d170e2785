"""The way from a frame to detections, with a session that follows a script."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from streamer import boxes as geometry
from streamer import detection, models
from streamer.config import DetectPolicy, Hide
from streamer.detection import Label
from streamer.detector import TURNED_SHARE, Detector, join, suppress, tiles
from streamer.device.base import Letterbox, Session, Tensor
from streamer.device.cpu import CpuDevice
from streamer.errors import ModelError
from streamer.frame import Frame, Size
from streamer.models import Large, ModelSpec
from tests.fakes import noise_frame

SPEC = ModelSpec(
    "trial", Path("trial.onnx"), "", "yolo_end2end", (Label.FACE, Label.PLATE), dict.fromkeys(Label, 0.5)
)
SURE = np.array([0.5, 0.5], np.float32)  # of each label
Rows = list[list[float]]


class _Scripted(CpuDevice):
    """A CPU whose network answers from a function of the window that it is shown."""

    def __init__(self, rows_of: Callable[[Letterbox], Rows]) -> None:
        super().__init__()
        self.rows_of = rows_of
        self.views: list[Letterbox] = []

    def view(self, frame: Frame, box: Letterbox, spec: ModelSpec) -> Tensor:
        self.views.append(box)
        return super().view(frame, box, spec)

    def load(self, spec: ModelSpec, side: int) -> Session:
        def session(batch: Tensor) -> Sequence[np.ndarray]:
            return [np.array(self.rows_of(self.views[-1]), np.float32).reshape(-1, 7)]

        return session


def _detector(device: CpuDevice, hide: Hide = Hide.EVERYTHING, side: int = 160, **more: bool) -> Detector:
    tiled = more.pop("tiles", False)
    return Detector(SPEC, device, DetectPolicy(side=side, tiles=tiled), hide, **more)


def test_boxes_come_back_in_frame_pixels_and_inside_the_picture() -> None:
    device = _Scripted(lambda view: [[0, -5, 10, 20, 30, 0, 0.9]])
    found = _detector(device)(noise_frame(0, Size(320, 180)))
    assert np.allclose(found.boxes, [[0, 20, 40, 60]])
    assert device.views[0].size == Size(160, 96)


def test_weak_detections_stay_for_the_tracker_and_noise_goes() -> None:
    rows = [[0, 10, 10, 30, 30, 0, 0.21], [0, 50, 50, 70, 70, 0, 0.19]]
    found = _detector(_Scripted(lambda view: rows))(noise_frame(0))
    assert np.allclose(found.scores, [0.21])


def test_a_large_box_must_be_surer_to_count_and_to_continue_a_track() -> None:
    spec = replace(SPEC, large={Label.FACE: Large(small=10, side=40, score=0.8)})
    sides_and_scores = [(8, 0.55), (20, 0.6), (20, 0.7), (40, 0.75), (40, 0.85), (100, 0.79)]
    rows = [[0, 0, 0, side, side, 0, score] for side, score in sides_and_scores]
    for (side, score), row in zip(sides_and_scores, rows, strict=True):
        needed = {8: 0.5, 20: 0.65, 40: 0.8, 100: 0.8}[side]
        device = _Scripted(lambda view, row=row: [row])
        found = Detector(spec, device, DetectPolicy(side=160), Hide.FACES)(noise_frame(0, Size(160, 96)))
        assert len(found) == 1
        assert found.scores[0] / 0.5 == pytest.approx(score / needed)
        named = DetectPolicy(side=160, threshold=0.5)
        assert Detector(spec, device, named, Hide.FACES)(noise_frame(0, Size(160, 96))).scores[0] > 0.5


@pytest.mark.parametrize(("hide", "labels"), [(Hide.FACES, [Label.FACE]), (Hide.PLATES, [Label.PLATE])])
def test_only_what_hide_asks_for_is_returned(hide: Hide, labels: list[Label]) -> None:
    rows = [[0, 10, 10, 30, 30, 0, 0.9], [0, 50, 50, 70, 70, 1, 0.9]]
    assert _detector(_Scripted(lambda view: rows), hide)(noise_frame(0)).labels.tolist() == labels


@pytest.mark.parametrize(
    ("column", "value"), [*((column, np.nan) for column in range(7)), (1, np.inf), (2, -np.inf), (3, np.inf)]
)
def test_a_network_that_answers_with_no_numbers_has_not_found_nothing(column: int, value: float) -> None:
    rows = [[0, 10, 10, 30, 30, 0, 0.9]]
    rows[0][column] = value
    with pytest.raises(ModelError, match="no numbers"):
        _detector(_Scripted(lambda view: rows))(noise_frame(0))


def test_a_network_without_a_wanted_class_is_not_run() -> None:
    device = _Scripted(lambda view: [])
    spec = ModelSpec("f", Path("f.onnx"), "", "yolo_end2end", (Label.FACE,), {Label.FACE: 0.5})
    assert len(Detector(spec, device, DetectPolicy(), Hide.PLATES)(noise_frame(0))) == 0
    assert not device.views


def test_a_large_view_is_followed_by_an_overview_of_which_only_large_and_sure_boxes_count() -> None:
    def rows(view: Letterbox) -> Rows:
        small = view.size.width < 300
        unsure, large, tiny = (
            [0, 90, 10, 140, 60, 0, 0.45],
            [0, 10, 10, 60, 60, 0, 0.9],
            [0, 70, 10, 80, 20, 0, 0.9],
        )
        return [unsure, large, tiny] if small else []

    device = _Scripted(rows)
    detector = Detector(replace(SPEC, largest=200), device, DetectPolicy(side=480), Hide.EVERYTHING)
    found = detector(noise_frame(0, Size(960, 540)))
    assert [view.size.width for view in device.views] == [480, 160]
    assert np.allclose(found.boxes, [[60, 60, 360, 360]])
    detector(noise_frame(0, Size(960, 540)), share=0.8)
    assert len(device.views) == 3, "a view that shrank below the limit needs none"


@pytest.mark.parametrize(("score", "left"), [(0.85, 0), (0.95, 1)])
def test_in_an_overview_a_box_is_as_large_as_it_would_be_in_the_view(score: float, left: int) -> None:
    """Measured in the overview's own pixels a shop window counted as a small plate, which needs little."""
    device = _Scripted(lambda view: [[0, 10, 10, 70, 70, 0, score]] if view.size.width < 300 else [])
    spec = replace(SPEC, largest=200, large={Label.FACE: Large(small=60, side=150, score=0.9)})
    detector = Detector(spec, device, DetectPolicy(side=480), Hide.EVERYTHING)
    assert len(detector(noise_frame(0, Size(960, 540)))) == left


class _WideOnly(CpuDevice):
    """A CPU whose network finds what is bright, if it is wider than high."""

    def load(self, spec: ModelSpec, side: int) -> Session:
        def session(batch: Tensor) -> Sequence[np.ndarray]:
            rows, columns = np.nonzero(batch[0, 0] > 200)
            x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            wide = x1 - x0 > y1 - y0
            return [np.array([[0, x0, y0, x1, y1, 0, 0.9]] if wide else [], np.float32).reshape(-1, 7)]

        return session


@pytest.mark.parametrize("box", [(40, 20, 60, 90), (250, 100, 270, 170)])
def test_turned_looks_find_what_lies_on_its_side_where_it_lies(box: tuple[int, int, int, int]) -> None:
    frame = noise_frame(0, Size(320, 180))
    frame.luma[:], frame.chroma[:] = 60, 128
    x0, y0, x1, y1 = box
    frame.luma[y0:y1, x0:x1] = 235
    upright, turned = (
        Detector(SPEC, _WideOnly(), DetectPolicy(side=320, turned=also), Hide.EVERYTHING)(frame)
        for also in (False, True)
    )
    assert len(upright) == 0
    assert turned.boxes.tolist() == [list(map(float, box))]
    assert turned.scores.tolist() == pytest.approx([0.9 * TURNED_SHARE])


def test_nms_keeps_the_best_of_each_class() -> None:
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [5, 5, 5, 9]]
    found = suppress(
        detection.detections(boxes, [0.5, 0.8, 0.6, 0.9], [Label.FACE, Label.FACE, Label.PLATE, Label.FACE])
    )
    assert sorted(found.scores.tolist()) == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(
    "size", [Size(1920, 1080), Size(3840, 2160), Size(1080, 1920), Size(9000, 400), Size(700, 698)]
)
def test_tiles_cover_the_picture_and_overlap(size: Size) -> None:
    covered = np.zeros((size.height, size.width), np.uint8)
    windows = tiles(size, 640)
    for x0, y0, x1, y1 in windows:
        assert 0 <= x0 < x1 <= size.width
        assert 0 <= y0 < y1 <= size.height
        assert x0 % 2 == y0 % 2 == 0
        covered[y0:y1, x0:x1] += 1
    assert covered.min() == 1
    lefts = sorted({window[0] for window in windows})
    span = windows[0][2] - windows[0][0]
    assert all(b - a <= 0.75 * span + 2 for a, b in pairwise(lefts))
    assert len(windows) <= 60


@pytest.mark.parametrize(
    "size", [Size(1080, 19440), Size(19440, 1080), Size(65534, 700), Size(178_000_000, 2)]
)
def test_tiles_of_a_long_picture_are_no_longer_than_its_short_side_needs(size: Size) -> None:
    windows = tiles(size, 960)
    long, short = max(size.width, size.height), min(size.width, size.height)
    longest = max(max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in windows)
    assert longest <= max(960, short * 4 / 3, long / 48 + 2)
    assert len(windows) <= 64
    assert windows[-1][2:] == (size.width, size.height)


def _seen_through(box: tuple[float, float, float, float]) -> Callable[[Letterbox], Rows]:
    """A network that finds the visible part of `box` (frame pixels) where at least a third of it is visible."""

    def rows(view: Letterbox) -> Rows:
        x0, y0, x1, y1 = view.window
        part = geometry.clip(np.array([box], np.float32) - [x0, y0, x0, y0], x1 - x0, y1 - y0)
        if geometry.area(part)[0] < (box[2] - box[0]) * (box[3] - box[1]) / 3:
            return []
        return [[0, *(part[0] * view.scale).tolist(), 0, 0.9]]

    return rows


@pytest.mark.parametrize("left", range(0, 600, 40))
def test_tiles_find_each_object_once_wherever_it_lies(left: int) -> None:
    box = (float(left), 100.0, left + 30.0, 130.0)
    found = _detector(_Scripted(_seen_through(box)), tiles=True)(noise_frame(0, Size(640, 360)))
    assert np.allclose(found.boxes, [box], atol=0.01)


def test_a_cut_box_that_nothing_covers_is_kept() -> None:
    part = detection.detections([[80, 10, 100, 30]], [0.9], [Label.FACE])
    windows = [(0, 0, 100, 60), (70, 0, 170, 60)]
    assert len(join([part, detection.none()], windows, SURE)) == 1


@pytest.mark.parametrize(("score", "left"), [(0.25, [0.9, 0.25]), (0.6, [0.6])])
def test_a_sure_box_does_not_go_for_one_that_starts_no_track(score: float, left: list[float]) -> None:
    cut = detection.detections([[80, 10, 100, 30]], [0.9], [Label.FACE])
    around = detection.detections([[75, 0, 125, 50]], [score], [Label.FACE])
    windows = [(0, 0, 100, 60), (70, 0, 170, 60)]
    assert join([cut, around], windows, SURE).scores.tolist() == pytest.approx(left)


def test_stills_are_tiled_when_large_and_videos_only_when_asked() -> None:
    for size, more, looks in [
        (Size(480, 270), {"still": True}, 1),
        (Size(640, 360), {"still": True}, 9),
        (Size(640, 360), {}, 1),
        (Size(640, 360), {"tiles": True}, 9),
    ]:
        device = _Scripted(lambda view: [])
        _detector(device, **more)(noise_frame(0, size))
        assert len(device.views) == looks


def test_a_network_of_one_size_gets_that_size() -> None:
    device = _Scripted(lambda view: [[0, 0, 0, 16, 16, 0, 0.9]])
    spec = ModelSpec("f", Path("f.onnx"), "", "yolo_end2end", (Label.FACE,), {Label.FACE: 0.5}, side=64)
    found = Detector(spec, device, DetectPolicy(side=640), Hide.FACES)(noise_frame(0, Size(320, 180)))
    assert device.views[0].size == Size(64, 64)
    assert np.allclose(found.boxes, [[0, 0, 80, 80]])


def test_the_shipped_network_runs_on_a_frame() -> None:
    detector = Detector(models.find("fast"), CpuDevice(), DetectPolicy(side=320), Hide.EVERYTHING)
    found = detector(noise_frame(0, Size(320, 180)))
    assert (found.scores <= 1).all()
    assert found.boxes.shape[1] == 4
