"""Finds faces and plates in a frame: view -> session -> decode -> NMS -> Detections.

# Note [Overview]
A network trained on small crops knows no face of half a picture: in a large view it marks the nose. So a view much
larger than the crops is followed by one a third as long (a ninth of the cost), of which only the boxes count that are
large and sure there. On the development set at 960, 90 instead of 65 of 100 plates longer than 128 px were covered.

# Note [Large boxes]
Most boxes that a network marks by mistake are as sure as a small or blurred object that is really there, but not as
sure as a large one; and a large mistake hides much of the picture. So the larger a box, the higher the score from
which it counts (`large` in the manifest). Scores are brought to the threshold's scale at once: what reaches half of the
score that its size needs has half of the threshold. So a large box must also be surer to continue a track or to make
it a steady one; as long as it had not to be, a mistake that was sure once lived on for as long as it was in view
(a seventh of the masked area on CCTV of a toll gate). A threshold that the user names holds for all sizes.

# Note [Turned looks]
The networks learned upright faces: of those that lie on their side they find a third, of those upside down two
thirds. With `turned` each view is looked at four times, turned by quarters, and what was found is turned back. Its
score counts less: three looks more are three times the false alarms, for what is rare.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer import detection
from streamer.config import DetectPolicy, Hide
from streamer.decoders import BATCHED, decoder
from streamer.detection import Detections, Label
from streamer.device.base import Device, Letterbox, Tensor, part_letterbox
from streamer.errors import ModelError
from streamer.frame import Frame, Size
from streamer.models import ModelSpec
from streamer.second import SecondStage
from streamer.voting import FLOOR, vote

Detect = Callable[[Frame], Detections]
Window = tuple[int, int, int, int]  # x0 y0 x1 y1 of a part of a frame, in even pixels

LOW_SHARE = 0.4  # detections down to this share of the threshold are returned: they continue a track
NMS_IOU = 0.45
_SAME_IOU = 0.6  # of boxes that were voted on already, in different views or in one: these have moved since
TILE_OVERLAP = 0.25  # of a tile's side: an object up to this size is whole in one tile at least
OVERVIEW = 3  # the view's side by the overview's
OVERVIEW_LEAST_PX = 40.0  # root of the area of a box in the overview from which it counts
TURNED_SHARE = 0.8  # of its score is what counts of a box that was found turned
_STILL_TILED_FROM = 3.0  # a still picture longer than so many views is looked at in tiles
_MOST_SPANS = 48  # lengths of a tile that the long side of a picture has at most
_CUT_PX = 4.0  # a box that ends this near to an inner edge of its tile may be cut by it, in frame pixels
_COVERED = 0.6  # a cut box of which another box covers this share is a part of the same object


class Detector:
    """One network on one device, for `at_once` threads at a time.

    Returns detections down to `LOW_SHARE` of the threshold (a tracker starts tracks from `thresholds` and
    continues them with the weaker ones); only the classes that `hide` asks for.
    """

    def __init__(
        self, spec: ModelSpec, device: Device, policy: DetectPolicy, hide: Hide, *, still: bool = False
    ) -> None:
        """`still`: pictures on their own; large ones are looked at in tiles without being asked."""
        self.spec = spec
        self.thresholds = {
            label: policy.threshold or spec.thresholds[label] for label in spec.labels if label in hide.labels
        }
        floors = {label: LOW_SHARE * score for label, score in self.thresholds.items()}
        self._least = np.array([floors.get(label, np.inf) for label in Label], np.float32)
        # what is read of the network's answers, to count or only to vote: see Note [Votes]
        if spec.second is not None:
            self._lowest = dict.fromkeys(floors, spec.second.least / 2)
        else:
            self._lowest = {
                label: min(FLOOR, least) if spec.votes else least for label, least in floors.items()
            }
        self._sure = np.array(
            [self.thresholds.get(label, np.inf) for label in Label], np.float32
        )  # see Note [Overview]
        self._same_for_all_sizes = policy.threshold is not None or not spec.large
        self._side = spec.side or policy.side
        self._turns = range(4) if policy.turned else range(1)  # quarters; see Note [Turned looks]
        self._overview_from = np.inf if spec.largest is None else 2 * spec.largest
        self._tiled_from = self._side * (1.5 if policy.tiles else _STILL_TILED_FROM if still else np.inf)
        self._device = device
        self._same = _SAME_IOU if spec.votes else NMS_IOU
        self._session = device.load(spec, self._side)
        self._second = SecondStage(spec.second, device) if spec.second else None
        self._decode = decoder(spec)
        # frames that `together` takes
        self.most = device.most_views(self._side) if spec.decoder in BATCHED else 1
        self.at_once = device.runs_at_once()  # threads that may call it at the same time

    def __call__(self, frame: Frame, *, share: float = 1.0) -> Detections:
        """What is in the frame, in frame pixels, clipped to the picture. Raises ModelError.

        `share` (0 to 1) shrinks the view's sides, for a machine that cannot keep up.
        """
        return self.together([frame], share=share)[0]

    def together(self, frames: Sequence[Frame], *, share: float = 1.0) -> list[Detections]:
        """What is in each of up to `most` frames of equal size and colour: one run of the network looks at all.

        Raises ModelError or DeviceError, then nothing is known of any of them.
        """
        if not self.thresholds:
            return [detection.none()] * len(frames)
        side, size = round(self._side * share), frames[0].size
        whole = (0, 0, size.even.width, size.even.height)
        found = self._look(frames, whole, side)
        if side > self._overview_from:
            large = self._overview(frames, whole, side // OVERVIEW)
            found = [detection.concatenate(list(both)) for both in zip(found, large, strict=True)]
        if max(size.width, size.height) <= self._tiled_from:
            return [suppress(each, self._same) for each in found]
        windows = tiles(size.even, self._side)
        parts = [found, *(self._look(frames, window, side) for window in windows)]
        return [join(each, [whole, *windows], self._sure, self._same) for each in zip(*parts, strict=True)]

    def _overview(self, frames: Sequence[Frame], whole: Window, side: int) -> list[Detections]:
        """What is too large for the view: see Note [Overview]."""
        least = OVERVIEW_LEAST_PX * max(whole[2:]) / side
        return [
            found.take((geometry.area(found.boxes) >= least**2) & (found.scores >= self._sure[found.labels]))
            for found in self._look(frames, whole, side, coarser=OVERVIEW)
        ]

    def _look(self, frames: Sequence[Frame], window: Window, side: int, coarser: int = 1) -> list[Detections]:
        """Through a view that is so many times coarser than the one in whose pixels sizes are judged."""
        view = part_letterbox(window, side, self.spec.stride)
        if self.spec.side is not None:
            view = replace(view, size=Size(self.spec.side, self.spec.side))
        if len(frames) == 1:
            batch = self._device.view(frames[0], view, self.spec)
        else:
            batch = self._device.views(frames, view, self.spec)
        found = [self._turned(batch, view, frames, quarters, coarser) for quarters in self._turns]
        return [detection.concatenate(each) for each in zip(*found, strict=True)]

    def _turned(
        self, batch: Tensor, view: Letterbox, frames: Sequence[Frame], quarters: int, coarser: int
    ) -> list[Detections]:
        outputs = self._session(self._device.turned(batch, quarters) if quarters else batch)
        if len(frames) == 1:  # some networks' outputs have no entry per picture
            return [self._read(outputs, view, frames[0], quarters, coarser)]
        return [
            self._read([level[at : at + 1] for level in outputs], view, frame, quarters, coarser)
            for at, frame in enumerate(frames)
        ]

    def _read(
        self,
        outputs: Sequence[NDArray[np.float32]],
        view: Letterbox,
        frame: Frame,
        quarters: int,
        coarser: int,
    ) -> Detections:
        seen = Size(view.size.height, view.size.width) if quarters % 2 else view.size
        found = self._decode(outputs, self.spec, self._lowest, seen)
        _check_numbers(outputs, found, self.spec)
        if not len(found):
            return found
        if self.spec.votes:
            found = vote(found, self.spec.votes, NMS_IOU)
        upright = geometry.turn(found.boxes, seen.width, seen.height, -quarters)
        boxes = geometry.clip(view.frame_from_view(upright), frame.size.width, frame.size.height)
        found = Detections(boxes, found.scores, found.labels)
        if self._second is not None:
            found = self._second(frame, found, view.scale * coarser, quarters)
        found = found.take(found.scores > self._least[found.labels])
        if quarters:
            found = replace(found, scores=found.scores * np.float32(TURNED_SHARE))
        return found if self._same_for_all_sizes else _levelled(found, self.spec, view.scale * coarser)


def _check_numbers(outputs: Sequence[NDArray[np.float32]], found: Detections, spec: ModelSpec) -> None:
    """Raises ModelError where a network has computed no numbers: they compare as below every threshold, and the boxes
    made of them hold nothing, so the picture would pass as one without faces."""
    numbers = not any(np.isnan(level).any() for level in outputs)
    if not (numbers and np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        raise ModelError(f'"{spec.name}" answered with what are no numbers: check the model: {spec.weights}')


def _levelled(found: Detections, spec: ModelSpec, scale: float) -> Detections:
    """Scores that mean the same whatever a box's size; `scale` is input pixels per frame pixel.

    See Note [Large boxes].
    """
    least = np.array([spec.thresholds.get(label, np.inf) for label in Label], np.float32)[found.labels]
    sides = np.sqrt(geometry.area(found.boxes)) * np.float32(scale)
    needed = spec.needed(found.labels, sides)
    return replace(found, scores=(found.scores * np.minimum(1, least / needed)).astype(np.float32))


def tiles(size: Size, side: int) -> list[Window]:
    """Overlapping square windows that cover a picture: about four along its long side, none smaller than `side`.

    Along a panorama or the screenshot of a whole page there are more, at most 64: each shows as much of it as an
    ordinary photograph (4:3) of its short side would, so that its faces are not looked at any smaller.

    >>> tiles(Size(1920, 1080), 640)[0], len(tiles(Size(1080, 19440), 960))
    ((0, 0, 640, 640), 18)
    """
    long, short = max(size.width, size.height), min(size.width, size.height)
    span = max(side, min(-(-long // 6), short * 4 // 6) * 2, -(-long // (2 * _MOST_SPANS)) * 2)
    columns, rows = _starts(size.width, span), _starts(size.height, span)
    return [(x, y, min(x + span, size.width), min(y + span, size.height)) for y in rows for x in columns]


def _starts(length: int, span: int) -> list[int]:
    count = max(1, -(-(length - round(span * TILE_OVERLAP)) // round(span * (1 - TILE_OVERLAP))))
    last = max(0, length - span)
    return sorted({round(last * k / max(1, count - 1)) // 2 * 2 for k in range(count)})


def join(
    parts: Sequence[Detections],
    windows: Sequence[Window],
    sure: NDArray[np.float32],
    limit: float = NMS_IOU,
) -> Detections:
    """What several windows of one frame showed, once each.

    A box that ends at an inner edge of its window goes where another box covers most of it: it is a cut view of
    the same object. Nothing else is dropped but what NMS (`limit`) drops. What scores at least `sure`, by label, does
    not go for a box that scores less: that one would start no track.
    """
    extent = np.array(windows, np.float32).reshape(-1, 4)
    outer = np.concatenate([extent[:, :2].min(0), extent[:, 2:].max(0)])
    cut = [
        ((np.abs(part.boxes - window) < _CUT_PX) & (window != outer)).any(axis=1)
        for part, window in zip(parts, extent, strict=True)
    ]
    found, is_cut = detection.concatenate(parts), np.concatenate(cut)
    share = (
        geometry.intersection(found.boxes, found.boxes) / np.maximum(geometry.area(found.boxes), 1)[:, None]
    )
    same = found.labels[:, None] == found.labels[None, :]
    enough = found.scores[None, :] >= np.minimum(found.scores, sure[found.labels])[:, None]
    covered = ((share > _COVERED) & same & enough & ~is_cut[None, :]).any(axis=1)
    return suppress(found.take(~(is_cut & covered)), limit)


def suppress(found: Detections, limit: float = NMS_IOU) -> Detections:
    """Non-maximum suppression within each class; empty boxes go too."""
    kept: list[NDArray[np.intp]] = []
    real = geometry.area(found.boxes) > 0
    for label in sorted(set(found.labels.tolist())):
        index = np.flatnonzero((found.labels == label) & real)
        kept.append(index[geometry.nms(found.boxes[index], found.scores[index], limit)])
    return found.take(np.concatenate(kept)) if kept else detection.none()
