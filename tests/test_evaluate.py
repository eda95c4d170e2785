"""The scorer, on cases whose numbers can be worked out by hand."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from streamer import detection, evaluate
from streamer.cli import app
from streamer.detection import Label
from streamer.errors import InputError
from streamer.evaluate import Labelled, Looked, Score, score

FACE = Label.FACE


def _picture(
    boxes: list[list[float]], *, ignored: list[int] | None = None, exhaustive: bool = True
) -> Labelled:
    count = len(boxes)
    mask = np.isin(np.arange(count), ignored or [])
    return Labelled(
        file=Path("a.png"),
        source="drawn",
        exhaustive=exhaustive,
        labelled=frozenset({FACE}),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.full(count, FACE, np.uint8),
        ignored=mask,
        difficulty=tuple("easy" if box[3] - box[1] > 20 else "hard" for box in boxes),
    )


def _looked(truth: Labelled, boxes: list[list[float]], scores: list[float], *, at: float) -> Looked:
    found = detection.detections(boxes, scores, [FACE] * len(boxes))
    return Looked(truth, found, found.scores >= at, 1.0, 0.01)


A, B, FAR = [0, 0, 40, 40], [100, 0, 110, 10], [300, 300, 340, 340]


def test_finding_everything_is_one() -> None:
    found = score([_looked(_picture([A, B]), [A, B], [0.9, 0.8], at=0.5)], FACE)
    assert found == Score(boxes=2, ap50=1.0, ap50_strict=1.0, recall=1.0, alarms_per_picture=0.0)


def test_an_alarm_above_a_hit_halves_its_precision() -> None:
    found = score([_looked(_picture([A, B]), [A, FAR, B], [0.9, 0.8, 0.7], at=0.5)], FACE)
    assert found.ap50 == pytest.approx(0.5 + 0.5 * 2 / 3, abs=1e-4)
    assert found.alarms_per_picture == 1


def test_boxes_turn_with_their_picture() -> None:
    image = np.zeros((40, 100), np.uint8)
    image[5:15, 60:90] = 255
    truth = _picture([[60, 5, 90, 15]])
    for quarters in range(5):
        x0, y0, x1, y1 = evaluate.turned(truth, 100, 40, quarters).boxes[0].astype(int)
        shown = np.rot90(image, quarters)
        assert (shown[y0:y1, x0:x1] == 255).all()
        assert (shown == 255).sum() == (y1 - y0) * (x1 - x0)


def test_a_second_box_on_a_face_is_an_alarm() -> None:
    found = score([_looked(_picture([A]), [A, [1, 0, 41, 40]], [0.9, 0.8], at=0.5)], FACE)
    assert (found.ap50, found.alarms_per_picture) == (1.0, 1.0)


def test_ignored_boxes_are_neither_missed_nor_alarms() -> None:
    found = score([_looked(_picture([A, B], ignored=[1]), [A, [101, 1, 106, 6]], [0.5, 0.9], at=0.4)], FACE)
    assert found == Score(boxes=1, ap50=1.0, ap50_strict=1.0, recall=1.0, alarms_per_picture=0.0)


def test_alarms_count_in_full_only_where_labels_are_exhaustive() -> None:
    found = score([_looked(_picture([A], exhaustive=False), [FAR, A], [0.9, 0.8], at=0.5)], FACE)
    assert (found.ap50, found.ap50_strict, found.alarms_per_picture) == (1.0, 0.5, None)


def test_recall_is_taken_at_the_threshold_and_looser() -> None:
    shifted = [13, 0, 53, 40]  # IoU 0.51
    far_off = [16, 0, 56, 40]  # IoU 0.43
    assert score([_looked(_picture([A]), [shifted], [0.6], at=0.5)], FACE).recall == 1
    loose = score([_looked(_picture([A]), [far_off], [0.6], at=0.5)], FACE)
    assert (loose.recall, loose.ap50) == (1, 0)
    assert score([_looked(_picture([A]), [A], [0.4], at=0.5)], FACE).recall == 0


def test_boxes_of_other_sizes_are_ignored_in_a_size_band() -> None:
    chosen = evaluate._of_height(16, 64)
    found = score([_looked(_picture([A, B]), [A, B], [0.5, 0.9], at=0.3)], FACE, chosen)
    assert (found.boxes, found.ap50) == (1, 1.0)


def test_a_group_without_boxes_has_no_numbers() -> None:
    assert score([_looked(_picture([]), [FAR], [0.9], at=0.5)], FACE) == Score(0, None, None, None, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = np.full((128, 160, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "one.png"), image)
    row = {"file": "one.png", "source": "drawn", "labelled": ["face", "plate"], "exhaustive": True}
    row["objects"] = [
        {"class": "face", "box": [10, 10, 40, 40], "difficulty": "easy"},
        {"class": "plate", "box": [80, 80, 40, 12], "ignore": True},
    ]
    (tmp_path / "eval.json").write_text(json.dumps([row]), encoding="utf-8")
    return tmp_path


def test_the_command_measures_our_own_network(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "numbers.json"
    result = CliRunner().invoke(app, ["eval", str(folder), "--side", "128", "--json", str(target)])
    assert result.exit_code == 0, result.output
    assert "easy" in result.output
    (numbers,) = json.loads(target.read_text(encoding="utf-8"))
    assert numbers["face"]["all"]["boxes"] == 1
    assert numbers["plate"]["all"]["boxes"] == 0
    assert numbers["ms_640x384"] > 0


def test_a_folder_without_a_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"eval\.json"):
        evaluate.read(tmp_path)
    (tmp_path / "eval.json").write_text('[{"file": "gone.png"}]', encoding="utf-8")
    with pytest.raises(InputError, match="not a set"):
        evaluate.read(tmp_path)


def test_a_missing_picture_is_named(folder: Path) -> None:
    (folder / "one.png").unlink()
    result = CliRunner().invoke(app, ["eval", str(folder)])
    assert isinstance(result.exception, InputError)
    assert "one.png" in str(result.exception)
