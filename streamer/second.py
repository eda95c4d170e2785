"""The second stage: a small network looks again, and closer, at each thing that the detector marked.

# Note [Second stage]
Our one-pass networks see the picture at 640 or 960 pixels; cameras deliver 1080 lines and more. What they mark with any
doubt at all is cut out of the frame at its own resolution, 64 pixels wide with some of its surroundings, and given to
a second network that started as a copy of the first and learned from the first one's candidates alone, above all its
mistakes (two stages as in Faster R-CNN, Ren et al. 2015; the crops from the picture as in MTCNN's second network,
Zhang et al. 2016). It answers with log-odds per class, to which those of the first look and the size at which it looked
are added, and with a better box. Of boxes that then lie on the same object the best stays.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer import detection
from streamer.boxes import Boxes
from streamer.detection import Detections
from streamer.device.base import Device, Letterbox, Tensor, crop_letterbox
from streamer.errors import ModelError
from streamer.frame import Frame
from streamer.models import Second

SAME_IOU = 0.5  # of refined boxes: they are nearer to the objects than those of the detector
_LEAST_PX = 4.0  # of a box's longest side when its surroundings are measured
_AT_ONCE = 16  # crops that go through the network together where the device has no wish of its own
_CERTAIN = (0.003, 0.997)  # scores of the first look beyond these count as these
_MOST_LOG = 2.0  # a box is at most e^2 times what it was thought to be


class SecondStage:
    """One network of the second stage on one device; as many threads may call it as may call the detector."""

    def __init__(self, second: Second, device: Device) -> None:
        """Raises ModelError or DeviceError."""
        self._second = second
        self._device = device
        self._side = second.spec.side or 0
        wanted = device.most_views(self._side)
        self._at_once = wanted if wanted > 1 else _AT_ONCE
        self._session = device.load(second.spec, self._side)
        kinds = second.spec.labels
        self._context = np.array([second.context[label] for label in kinds], np.float32)
        self._moves = np.array([second.moved[label] for label in kinds], np.float32)
        self._weights = np.array([second.weights[label] for label in kinds], np.float32)

    def __call__(self, frame: Frame, found: Detections, scale: float, quarters: int = 0) -> Detections:
        """The same boxes in frame pixels, moved and scored anew, the best of each object.

        `scale` is view pixels per frame pixel in the detector's look; `quarters` how far that was turned,
        counterclockwise. Raises ModelError or DeviceError.
        """
        found = found.take(found.scores >= self._second.least)
        if not len(found):
            return found
        parts = [self._looked(frame, part, scale, quarters) for part in self._parts(found)]
        return _best(detection.concatenate(parts))

    def _parts(self, found: Detections) -> Iterator[Detections]:
        for start in range(0, len(found), self._at_once):
            yield found.take(np.arange(start, min(len(found), start + self._at_once)))

    def _looked(self, frame: Frame, found: Detections, scale: float, quarters: int) -> Detections:
        context = self._context[found.labels]
        middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        longest = (found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1)
        spans = np.maximum(longest, _LEAST_PX) * context
        views = [
            crop_letterbox((float(x), float(y)), float(span), frame.planes_size, self._side)
            for (x, y), span in zip(middles, spans, strict=True)
        ]
        crops = self._device.crops(frame, views, self._second.spec)
        odds, moves = self._answers(self._device.turned(crops, quarters) if quarters else crops, found)
        inside = geometry.turn(self._boxes(moves, context), self._side, self._side, -quarters)
        share = self._moved(found, scale)[:, None]
        boxes = share * _in_frame(inside, views, frame) + (1 - share) * found.boxes
        return Detections(boxes.astype(np.float32), self._scores(odds, found, scale), found.labels)

    def _answers(self, crops: Tensor, found: Detections) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Log-odds (n,) and moves (n, 4) of the class that each was found as. Raises ModelError."""
        odds, moves, *_ = self._session(crops)
        count, kinds = len(found), len(self._context)
        spec = self._second.spec
        if odds.shape != (count, kinds) or moves.shape != (count, 4 * kinds):
            raise ModelError(
                f'"{spec.name}" has other outputs than a second stage: {odds.shape}, {moves.shape}'
            )
        if not (np.isfinite(odds).all() and np.isfinite(moves).all()):  # they would be below every threshold
            raise ModelError(
                f'"{spec.name}" answered with what are no numbers: check the model: {spec.weights}'
            )
        rows = np.arange(count)
        return odds[rows, found.labels], moves.reshape(count, kinds, 4)[rows, found.labels]

    def _boxes(self, moves: NDArray[np.float32], context: NDArray[np.float32]) -> Boxes:
        """Boxes (n, 4) in crop pixels; moves (n, 4) are centre and log sides, in sides that it should have there."""
        unit = (self._side / context)[:, None]
        middle = self._side / 2 + moves[:, :2] * unit
        half = np.exp(np.clip(moves[:, 2:], -_MOST_LOG, _MOST_LOG)) * unit / 2
        return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)

    def _moved(self, found: Detections, scale: float) -> NDArray[np.float32]:
        """How far each box goes to where the second stage sees it: the first look knows large ones as well."""
        small, large, share = self._moves[found.labels].T
        grown = np.clip((np.sqrt(geometry.area(found.boxes)) * scale - small) / (large - small), 0, 1)
        return np.asarray(1 - (1 - share) * grown, np.float32)

    def _scores(self, odds: NDArray[np.float32], found: Detections, scale: float) -> NDArray[np.float32]:
        first = np.clip(found.scores, *_CERTAIN)
        size = np.log2(np.maximum(np.sqrt(geometry.area(found.boxes)) * scale, 1)) / 2 - 2
        mine, before, large, bias = self._weights[found.labels].T
        total = mine * odds + before * np.log(first / (1 - first)) + large * size + bias
        return np.asarray(1 / (1 + np.exp(-np.clip(total, -30, 30))), np.float32)


def _in_frame(inside: Boxes, views: list[Letterbox], frame: Frame) -> Boxes:
    offsets = np.array([view.window[:2] * 2 for view in views], np.float32)
    scales = np.array([view.scale for view in views], np.float32)
    boxes = inside / scales[:, None] + offsets
    return geometry.clip(boxes.astype(np.float32), frame.size.width, frame.size.height)


def _best(found: Detections) -> Detections:
    kept = []
    for label in sorted(set(found.labels.tolist())):
        index = np.flatnonzero(found.labels == label)
        kept.append(index[geometry.nms(found.boxes[index], found.scores[index], SAME_IOU)])
    return found.take(np.concatenate(kept))
