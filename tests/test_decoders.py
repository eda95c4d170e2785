"""Each decoder reads what its family would have written for one known box."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamer import decoders
from streamer.detection import Label
from streamer.errors import ModelError
from streamer.frame import Size
from streamer.models import ModelSpec

SIZE = Size(96, 64)
BOX = (20.0, 10.0, 52.0, 42.0)  # centre 36, 26; sides 32
FACE = {Label.FACE: 0.5}


def _spec(decoder: str, *labels: Label) -> ModelSpec:
    return ModelSpec(
        "trial", Path("trial.onnx"), "", decoder, labels or (Label.FACE,), dict.fromkeys(Label, 0.5)
    )


def _streamer(score: float = 0.9) -> list[np.ndarray]:
    outputs = [np.zeros((1, 6, SIZE.height // s, SIZE.width // s), np.float32) for s in (8, 16, 32)]
    outputs[1][0, :, 1, 2] = (score, 0.2, 36 / 16 - 2.5, 26 / 16 - 1.5, np.log(2), np.log(2))
    return outputs


def _yunet() -> list[np.ndarray]:
    cells = [SIZE.width // s * (SIZE.height // s) for s in (8, 16, 32)]
    parts = [[np.zeros((1, n, c), np.float32) for n in cells] for c in (1, 1, 4, 10)]
    at = 1 * (SIZE.width // 16) + 2
    parts[0][1][0, at], parts[1][1][0, at] = 0.81, 1.0
    parts[2][1][0, at] = (36 / 16 - 2, 26 / 16 - 1, np.log(2), np.log(2))
    return [part for kind in parts for part in kind]


def _centerface() -> list[np.ndarray]:
    heat, scale, offset = (np.zeros((1, c, SIZE.height // 4, SIZE.width // 4), np.float32) for c in (1, 2, 2))
    heat[0, 0, 6, 8] = 0.9
    scale[0, :, 6, 8] = np.log(8)
    offset[0, :, 6, 8] = (26 / 4 - 6.5, 36 / 4 - 8.5)
    return [heat, scale, offset, np.zeros((1, 10, 16, 24), np.float32)]


def _scrfd() -> list[np.ndarray]:
    cells = [SIZE.width // s * (SIZE.height // s) * 2 for s in (8, 16, 32)]
    scores = [np.zeros((n, 1), np.float32) for n in cells]
    places = [np.zeros((n, 4), np.float32) for n in cells]
    at = 2 * (1 * (SIZE.width // 16) + 2) + 1  # the cell at 32, 16; its second anchor
    scores[1][at] = 0.9
    places[1][at] = np.array([32 - 20, 16 - 10, 52 - 32, 42 - 16]) / 16
    return scores + places


def _yolov5() -> list[np.ndarray]:
    rows = np.zeros((1, 10, 4 + 1 + 8 + 1), np.float32)
    rows[0, 3] = (36, 26, 32, 32, 0.95, *range(8), 0.95)
    return [rows]


def _yolov8() -> list[np.ndarray]:
    rows = np.zeros((1, 5, 10), np.float32)
    rows[0, :, 3] = (36, 26, 32, 32, 0.9)
    return [rows]


def _yolo_end2end() -> list[np.ndarray]:
    return [np.array([[0, *BOX, 0, 0.9], [0, 0, 0, 5, 5, 0, 0.3]], np.float32)]


FAMILIES = {
    "streamer": _streamer(),
    "yunet": _yunet(),
    "centerface": _centerface(),
    "scrfd": _scrfd(),
    "yolov5": _yolov5(),
    "yolov8": _yolov8(),
    "yolo_end2end": _yolo_end2end(),
}


def test_every_decoder_is_tested() -> None:
    assert FAMILIES.keys() == decoders.DECODERS.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_known_box_is_read(name: str) -> None:
    labels = (Label.FACE, Label.PLATE) if name == "streamer" else (Label.FACE,)
    found = decoders.DECODERS[name](FAMILIES[name], _spec(name, *labels), FACE, SIZE)
    assert np.allclose(found.boxes, [BOX], atol=1e-3)
    assert np.allclose(found.scores, 0.9, atol=0.003)
    assert found.labels.tolist() == [Label.FACE]


@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_of_another_shape_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="is no network of the kind"):
        decoders.DECODERS[name]([np.zeros((3, 11), np.float32)], _spec(name), FACE, SIZE)


def test_a_class_that_is_not_wanted_is_skipped() -> None:
    spec = _spec("streamer", Label.FACE, Label.PLATE)
    found = decoders.decode_streamer(_streamer(), spec, {Label.PLATE: 0.1}, SIZE)
    assert found.labels.tolist() == [Label.PLATE]
    rows = _yolov5()
    assert len(decoders.decode_yolov5(rows, _spec("yolov5", Label.PLATE), FACE, SIZE)) == 0


def test_a_wild_size_stays_finite() -> None:
    outputs = _streamer()
    outputs[1][0, 4:, 1, 2] = 1000
    found = decoders.decode_streamer(outputs, _spec("streamer", Label.FACE, Label.PLATE), FACE, SIZE)
    assert np.isfinite(found.boxes).all()


def test_an_unknown_decoder_is_refused() -> None:
    with pytest.raises(ModelError, match="names the decoder"):
        decoders.decoder(replace(_spec("streamer"), decoder="magic"))
