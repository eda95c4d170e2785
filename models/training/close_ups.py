"""Close-ups of candidates, as the product cuts them, and as a camera, a codec or a looser box would have them.

The product's close-up is an even window around the box, clipped to the picture, scaled to 64 pixels as every view is,
at the top left of a grey square. In training the window is moved and scaled a little and half of them are mirrored;
one in five is cut about the exact centre instead, and half of those are turned.

A batch depends on nothing but the seed and its step.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from streamer.device.base import GREY, Letterbox, halvings, shown_size
from streamer.frame import Size

from .candidates import Candidates
from .disguise import dress
from .pack import Image, Pack
from .paste import FACE

SIDE = 64  # px of a close-up
CONTEXT = (1.8, 1.45)  # window's side by the box's longest side: face, plate
LEAST_SIDE = 8  # px of a window
SHARES = ((0.38, 0.27), (0.2, 0.15))  # of the samples: face, plate; mistakes, objects
MOVED = 0.04  # of the window's side, at most, along each axis
SCALED = 0.1  # logarithm, at most
SURE = 0.8  # target from which a face may be disguised
EXACT = 0.2  # cut about the exact centre
TURNED, TURN = 0.5, 6.0  # of the exact ones; degrees, standard deviation
DISGUISED, DISGUISED_LEAST = 0.14, 14.0  # faces that wear something; px of a close-up, shortest side
SMALL, SMALL_SIDE = 0.35, (12, 40)  # reduced to so many pixels and enlarged again
JPEG, JPEG_QUALITY = 0.15, (25, 80)
LIGHT, CONTRAST, BRIGHTNESS = 0.5, (0.6, 1.4), 30.0
CAST, CAST_GAIN = 0.2, (0.8, 1.2)  # of each channel
COLOURLESS = 0.15
NOISE, NOISE_SIGMA = 0.2, (2.0, 12.0)
DOUBT = 0.3  # standard deviation of what is added to the log odds of the detector's score


@dataclass(frozen=True)
class Batch:
    """Close-ups with what is to be answered."""

    images: Tensor  # (b, 3, 64, 64) float32 BGR, 0..255
    prior: Tensor  # (b, 2) what the detector thought
    labels: Tensor  # (b,) int64
    targets: Tensor  # (b,) in [0, 1]
    boxes: Tensor  # (b, 4) dx dy log w log h

    def to(self, device: torch.device) -> "Batch":
        parts = (self.images, self.prior, self.labels, self.targets, self.boxes)
        return Batch(*(part.to(device, non_blocking=True) for part in parts))


@dataclass(frozen=True)
class CloseUp:
    """One sample: the samples 0..255 and where in the picture they are."""

    image: Image  # (64, 64, 3)
    centre: tuple[float, float]  # of the close-up, in picture pixels
    unit: float  # window's side / context, in picture pixels: what offsets and sizes are measured in
    angle: float = 0.0  # radians by which the picture was turned
    mirrored: bool = False

    def target(self, box: NDArray[np.float32]) -> NDArray[np.float32]:
        """`dx dy log w log h` of a box of the picture: the inverse of the product's decoding."""
        x0, y0, x1, y1 = box.tolist()
        dx, dy = ((x0 + x1) / 2 - self.centre[0]) / self.unit, ((y0 + y1) / 2 - self.centre[1]) / self.unit
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        dx, dy = dx * cosine - dy * sine, dx * sine + dy * cosine
        sides = np.log(np.maximum([x1 - x0, y1 - y0], 1) / self.unit)
        return np.array([-dx if self.mirrored else dx, dy, *sides], np.float32)


def decoded(target: NDArray[np.float32], label: int) -> NDArray[np.float64]:
    """The box (x0 y0 x1 y1), in pixels of the close-up, that `dx dy log w log h` say, as the product decodes it."""
    moves, unit = target.astype(np.float64), SIDE / CONTEXT[label]
    centre, half = SIDE / 2 + moves[:2] * unit, np.exp(moves[2:]) * unit / 2
    return np.concatenate([centre - half, centre + half])


def window(centre: tuple[float, float], side: float, size: Size) -> Letterbox:
    """The product's view of an even window about `centre`, `side` pixels long, of a picture of that size."""
    even = max(LEAST_SIDE, 2 * round(side / 2))
    x, y = (2 * round((middle - even / 2) / 2) for middle in centre)
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(size.even.width, x + even), min(size.even.height, y + even)
    if x1 - x0 < 2 or y1 - y0 < 2:  # the box lies outside
        x0, y0, x1, y1 = 0, 0, 2, 2
    return Letterbox(Size(SIDE, SIDE), SIDE / even, (x0, y0, x1, y1))


def shown(image: Image, view: Letterbox) -> Image:
    """What the product's CPU device makes of a window, but for the rounding of YUV."""
    x0, y0, x1, y1 = view.window
    width, height = shown_size(view)
    part = image[y0:y1, x0:x1]
    missing = (y1 - y0 - part.shape[0], x1 - x0 - part.shape[1])  # of a picture with odd sides
    part = np.asarray(cv2.copyMakeBorder(part, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE), np.uint8)
    level, columns, rows = halvings(x1 - x0, y1 - y0, width, height)
    for step in range(level - 1, -1, -1):
        part = _halved(part[: rows << (step + 1), : columns << (step + 1)])
    out = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    out[:height, :width] = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
    return out


def _halved(image: Image) -> Image:
    size = (image.shape[1] // 2, image.shape[0] // 2)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def close_up(image: Image, box: NDArray[np.float32], label: int, rng: Generator | None = None) -> CloseUp:
    """The close-up of a box of a picture: the product's, or with `rng` one that training learns from."""
    x0, y0, x1, y1 = box.tolist()
    x, y, context = (x0 + x1) / 2, (y0 + y1) / 2, CONTEXT[label]
    side, mirrored, exact = max(x1 - x0, y1 - y0, 4) * context, False, False
    if rng is not None:
        exact = rng.random() < EXACT
        dx, dy = rng.uniform(-MOVED, MOVED, 2) * side
        x, y, side = x + dx, y + dy, side * float(np.exp(rng.uniform(-SCALED, SCALED)))
        mirrored = rng.random() < 0.5
    if rng is not None and exact:
        angle = float(np.deg2rad(rng.normal(0, TURN))) if rng.random() < TURNED else 0.0
        seen = _turned(image, (x, y), side, angle)
        found = CloseUp(seen, (x, y), side / context, angle)
    else:
        view = window((x, y), side, Size(image.shape[1], image.shape[0]))
        side = SIDE / view.scale
        centre = (view.window[0] + side / 2, view.window[1] + side / 2)
        found = CloseUp(shown(image, view), centre, side / context)
    if not mirrored:
        return found
    return CloseUp(np.ascontiguousarray(found.image[:, ::-1]), found.centre, found.unit, found.angle, True)


def _turned(image: Image, centre: tuple[float, float], side: float, angle: float) -> Image:
    """The square of that side about `centre`, the picture turned by `angle` radians; grey where it ends."""
    reach = side * (0.75 if angle else 0.5)
    extent = (image.shape[1], image.shape[0])
    x0, y0 = (max(0, int(middle - reach) - 8) for middle in centre)
    x1, y1 = (min(end, int(middle + reach) + 9) for middle, end in zip(centre, extent, strict=True))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return np.full((SIDE, SIDE, 3), GREY, np.uint8)
    part, scale, reduced = image[y0:y1, x0:x1], SIDE / side, 1
    while 2 * scale * reduced <= 1.01 and min(part.shape[:2]) >= 4:
        part, reduced = _halved(part[: part.shape[0] // 2 * 2, : part.shape[1] // 2 * 2]), 2 * reduced
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale * reduced
    middle = (np.array(centre) - (x0, y0)) / reduced
    shift = turn @ (0.5 - middle) + SIDE / 2 - 0.5  # pixel centres lie at halves
    matrix = np.column_stack([turn, shift])
    return np.asarray(cv2.warpAffine(part, matrix, (SIDE, SIDE), borderValue=(GREY,) * 3), np.uint8)


def _disguise(face: CloseUp, box: NDArray[np.float64], rng: Generator) -> None:
    """Let some of the faces wear something; things are drawn upright, so none of those that are turned."""
    if not face.angle and rng.random() < DISGUISED and (box[2:] - box[:2]).min() >= DISGUISED_LEAST:
        dress(rng, face.image, box)


def worsened(image: Image, rng: Generator) -> NDArray[np.float32]:
    """A copy as a smaller picture, a codec, other light or noise would leave it; 0..255."""
    if rng.random() < SMALL:
        side = int(rng.integers(*SMALL_SIDE))
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), np.uint8)
    if rng.random() < JPEG:
        file = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*JPEG_QUALITY))])[1]
        image = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)
    out = image.astype(np.float32)
    if rng.random() < LIGHT:
        out = out * np.float32(rng.uniform(*CONTRAST)) + np.float32(rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    if rng.random() < CAST:
        out = out * rng.uniform(*CAST_GAIN, 3).astype(np.float32)
    if rng.random() < COLOURLESS:
        out = np.broadcast_to(out.mean(2, keepdims=True), out.shape)
    if rng.random() < NOISE:
        out = out + rng.standard_normal(out.shape, np.float32) * np.float32(rng.uniform(*NOISE_SIGMA))
    return np.clip(out, 0, 255)


def _cumulative(candidates: Candidates) -> NDArray[np.float64]:
    """For `searchsorted`: each kind of candidate is drawn as often as its share says."""
    weights = np.zeros(len(candidates))
    for label, shares in enumerate(SHARES):
        for real, share in enumerate(shares):
            of_kind = (candidates.labels == label) & ((candidates.targets > 0.5) == bool(real))
            weights[of_kind] = share / max(1, of_kind.sum())
    return np.cumsum(weights / weights.sum())


class Batches(Dataset[Batch]):
    """Batch `step` of a run; opens the pack in the process that reads it."""

    def __init__(self, pack: Path, candidates: Candidates, seed: int, batch: int) -> None:
        """Raises ValueError if there are no candidates."""
        if not len(candidates):
            raise ValueError("the detectors found no candidates")
        self._folder, self._candidates, self._seed, self._batch = pack, candidates, seed, batch
        self._cumulative, self._prior = _cumulative(candidates), candidates.prior()
        self._pack: Pack | None = None

    def __getitem__(self, step: int) -> Batch:
        if self._pack is None:
            cv2.setNumThreads(1)  # the processes are the parallelism; OpenCV's threads do not survive a fork
            self._pack = Pack(self._folder)
        found, rng = self._candidates, np.random.default_rng([self._seed, step])
        drawn = np.searchsorted(self._cumulative, rng.random(self._batch))
        drawn = np.minimum(drawn, len(found) - 1)
        drawn = drawn[np.argsort(found.pictures[drawn], kind="stable")]  # in the order they lie in the file
        images = np.empty((self._batch, 3, SIDE, SIDE), np.float32)
        boxes = np.empty((self._batch, 4), np.float32)
        for row, index in enumerate(drawn):
            picture = self._pack.image(self._pack.pictures[found.pictures[index]])
            one = close_up(picture, found.boxes[index], int(found.labels[index]), rng)
            boxes[row] = one.target(found.truths[index])
            if found.labels[index] == FACE and found.targets[index] > SURE:
                _disguise(one, decoded(boxes[row], FACE), rng)
            images[row] = worsened(one.image, rng).transpose(2, 0, 1)
        prior = self._prior[drawn]
        prior[:, 0] += DOUBT * rng.standard_normal(self._batch, np.float32)
        return Batch(
            torch.from_numpy(images),
            torch.from_numpy(prior),
            torch.from_numpy(found.labels[drawn].astype(np.int64)),
            torch.from_numpy(found.targets[drawn]),
            torch.from_numpy(boxes),
        )
