"""How boxes are read from a network's outputs: one function per family, all with one signature.

Each takes the outputs in the model's order (batch 1), the model, the lowest score wanted per class (a class that is
missing is not wanted), and the size of the input; it returns boxes in pixels of the input, before NMS. Each raises
ModelError where the outputs have another shape than the family's.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from streamer import detection
from streamer.boxes import Boxes
from streamer.detection import Detections, Label
from streamer.errors import ModelError
from streamer.frame import Size
from streamer.models import ModelSpec

Array = NDArray[np.float32]
Outputs = Sequence[Array]
Floors = dict[Label, float]
Decode = Callable[[Outputs, ModelSpec, Floors, Size], Detections]

_STRIDES = (8, 16, 32)
_LONGEST_LOG = 6.0  # e^6 strides: beyond any picture, below overflow


def decode_streamer(outputs: Outputs, spec: ModelSpec, floors: Floors, size: Size) -> Detections:
    """Our own networks.

    Each output is one level `(1, classes + 4, h, w)` of stride input side / w: sigmoid scores per class, then
    dx, dy (centre = (grid + 0.5 + d) * stride) and log width, log height (times stride).
    """
    kinds = len(spec.labels)
    least = np.array([[floors.get(label, np.inf)] for label in spec.labels], np.float32)
    places, values, strides = (
        [],
        [],
        [],
    )  # of what is sure enough: class, column, row; its channels; input pixels
    for level in outputs:
        _check(level.ndim == 4 and level.shape[1] == kinds + 4, spec, outputs)
        columns, cells = level.shape[3], level.shape[2] * level.shape[3]
        planes = level[0].reshape(kinds + 4, cells)
        at = np.flatnonzero(planes[:kinds] > least)  # classes one behind the other
        if len(at):
            channel, cell = np.divmod(at, cells)
            row, column = np.divmod(cell, columns)
            places.append(np.array([channel, column, row]))
            values.append(planes[:, cell])
            strides.append(np.full(len(at), size.width / columns))
    if not places:
        return detection.none()
    place, value, stride = np.concatenate(places, 1), np.concatenate(values, 1), np.concatenate(strides)
    center = (place[1:] + 0.5 + value[kinds : kinds + 2]) * stride
    half = np.exp(np.clip(value[kinds + 2 :], -6, _LONGEST_LOG)) * stride.astype(np.float32) / 2
    boxes = np.concatenate([center - half, center + half]).T.astype(np.float32, order="C")
    scores = value[place[0], np.arange(len(boxes))].astype(np.float32)
    return Detections(boxes, scores, np.array(spec.labels, np.uint8)[place[0]])


def decode_yunet(outputs: Outputs, spec: ModelSpec, floors: Floors, size: Size) -> Detections:
    """YuNet of libfacedetection.train: per stride 8, 16, 32 outputs cls, obj, box (and key points), `(1, n, c)`.

    Score sqrt(cls * obj); centre (grid + d) * stride; size e^size * stride.
    """
    _check(len(outputs) >= 9 and Label.FACE in spec.labels, spec, outputs)
    parts: list[Detections] = []
    for level, stride in enumerate(_STRIDES):
        shown, there = outputs[level].reshape(-1), outputs[3 + level].reshape(-1)
        raw, grid = outputs[6 + level].reshape(-1, 4), _grid(size, stride, anchors=1)
        _check(len(shown) == len(there) == len(raw) == len(grid), spec, outputs)
        scores = np.sqrt(np.maximum(shown, 0) * np.maximum(there, 0))
        kept = np.flatnonzero(scores > floors[Label.FACE])
        center = (grid[kept] + raw[kept, :2]) * stride
        sides = np.exp(np.minimum(raw[kept, 2:], _LONGEST_LOG)) * stride
        parts.append(_around(center, sides, scores[kept], Label.FACE))
    return detection.concatenate(parts)


def decode_centerface(outputs: Outputs, spec: ModelSpec, floors: Floors, size: Size) -> Detections:
    """CenterFace (arXiv:1911.03599): heat map, log sizes, offsets of the centre at stride 4, rows before columns."""
    _check(len(outputs) >= 3 and all(output.ndim == 4 for output in outputs[:3]), spec, outputs)
    heat, scale, offset = outputs[0][0, 0], outputs[1][0], outputs[2][0]
    cells = (size.height // 4, size.width // 4)
    _check(heat.shape == cells and scale.shape == offset.shape == (2, *cells), spec, outputs)
    rows, columns = np.nonzero(heat > floors[Label.FACE])
    log_h, log_w = scale[:, rows, columns]
    down, right = offset[:, rows, columns]
    center = np.stack([columns + right + 0.5, rows + down + 0.5], axis=1) * 4
    sides = np.exp(np.minimum(np.stack([log_w, log_h], axis=1), _LONGEST_LOG)) * 4
    return _around(center, sides, heat[rows, columns], Label.FACE)


def decode_scrfd(outputs: Outputs, spec: ModelSpec, floors: Floors, size: Size) -> Detections:
    """SCRFD of InsightFace (arXiv:2105.04714): scores of strides 8, 16, 32, then distances to the four sides.

    Two anchors per cell, both at grid * stride; distances count in strides.
    """
    _check(len(outputs) in (6, 9), spec, outputs)
    parts: list[Detections] = []
    for level, stride in enumerate(_STRIDES):
        scores, raw = outputs[level].reshape(-1), outputs[3 + level].reshape(-1, 4)
        grid = _grid(size, stride, anchors=2)
        _check(len(scores) == len(raw) == len(grid), spec, outputs)
        kept = np.flatnonzero(scores > floors[Label.FACE])
        low, high = grid[kept] - raw[kept, :2], grid[kept] + raw[kept, 2:]
        boxes = (np.concatenate([low, high], axis=1) * stride).astype(np.float32)
        parts.append(_labelled(boxes, scores[kept], Label.FACE))
    return detection.concatenate(parts)


def decode_yolov5(outputs: Outputs, spec: ModelSpec, floors: Floors, size: Size) -> Detections:
    """YOLOv5: rows `cx cy w h object ... class scores`; what stands between (key points) is skipped."""
    _check(len(outputs) == 1 and outputs[0].ndim == 3, spec, outputs)
    rows = outputs[0][0]
    _check(rows.shape[1] >= 5 + len(spec.labels), spec, outputs)
    return _rows_of_classes(rows[:, :4], rows[:, 4:5] * rows[:, -len(spec.labels) :], spec, floors)


def decode_yolov8(outputs: Outputs, spec: ModelSpec, floors: Floors, size: Size) -> Detections:
    """YOLOv8 and later: columns `cx cy w h class scores`, one per anchor."""
    _check(len(outputs) == 1 and outputs[0].ndim == 3, spec, outputs)
    rows = outputs[0][0].T
    _check(rows.shape[1] == 4 + len(spec.labels), spec, outputs)
    return _rows_of_classes(rows[:, :4], rows[:, 4:], spec, floors)


def decode_yolo_end2end(outputs: Outputs, spec: ModelSpec, floors: Floors, size: Size) -> Detections:
    """YOLO exported with its NMS: rows `image x0 y0 x1 y1 class score`."""
    _check(len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[1] == 7, spec, outputs)
    rows = outputs[0]
    parts = []
    for channel, label in enumerate(spec.labels):
        kept = rows[(rows[:, 5] == channel) & (rows[:, 6] > floors.get(label, np.inf))]
        parts.append(_labelled(kept[:, 1:5], kept[:, 6], label))
    return detection.concatenate(parts)


DECODERS: dict[str, Decode] = {
    "streamer": decode_streamer,
    "yunet": decode_yunet,
    "centerface": decode_centerface,
    "scrfd": decode_scrfd,
    "yolov5": decode_yolov5,
    "yolov8": decode_yolov8,
    "yolo_end2end": decode_yolo_end2end,
}


BATCHED = frozenset({"streamer"})  # whose outputs have one entry per picture, for any number of pictures


def decoder(spec: ModelSpec) -> Decode:
    """The function that reads the model's outputs. Raises ModelError for a name that is none of ours."""
    if spec.decoder not in DECODERS:
        raise ModelError(
            f'"{spec.name}" names the decoder "{spec.decoder}"; there are: {", ".join(DECODERS)}'
        )
    return DECODERS[spec.decoder]


def _rows_of_classes(places: Array, scores: Array, spec: ModelSpec, floors: Floors) -> Detections:
    parts = []
    for channel, label in enumerate(spec.labels):
        kept = np.flatnonzero(scores[:, channel] > floors.get(label, np.inf))
        parts.append(_around(places[kept, :2], places[kept, 2:], scores[kept, channel], label))
    return detection.concatenate(parts)


def _grid(size: Size, stride: int, anchors: int) -> Array:
    """Columns and rows (n, 2) of the cells, row by row, each `anchors` times."""
    rows, columns = np.mgrid[: size.height // stride, : size.width // stride]
    cells = np.stack([columns.ravel(), rows.ravel()], axis=1)
    return np.repeat(cells, anchors, axis=0).astype(np.float32)


def _around(
    center: NDArray[np.floating], sides: NDArray[np.floating], scores: Array, label: Label
) -> Detections:
    boxes = np.concatenate([center - sides / 2, center + sides / 2], axis=1)
    return _labelled(boxes.astype(np.float32), scores, label)


def _labelled(boxes: Boxes, scores: Array, label: Label) -> Detections:
    return Detections(boxes, scores.astype(np.float32), np.full(len(scores), label, np.uint8))


def _check(fits: bool, spec: ModelSpec, outputs: Outputs) -> None:
    if not fits:
        shapes = ", ".join("x".join(map(str, output.shape)) for output in outputs)
        raise ModelError(
            f'"{spec.name}" is no network of the kind "{spec.decoder}": its outputs are {shapes}; see {spec.weights}'
        )
