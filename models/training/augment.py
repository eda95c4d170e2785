"""One training sample from its number: crops, turned or not, mosaics, pasted and drawn objects, and what
cameras do to them, all drawn by a seeded generator.

A sample depends on nothing but the seed and its index, so any number of worker processes gives the same
training run, and a resumed run sees what an uninterrupted one would have seen.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .degrade import degrade
from .disguise import disguise
from .pack import Boxes, Image, Pack, Picture
from .paste import FACE, PLATE, Objects, populate

# How often a source is drawn; sources that are not named share the last entry.
SOURCE_WEIGHTS = {
    "wider": 0.62,
    "unknowncz": 0.21,
    "lucian": 0.06,
    "egypt": 0.05,
    "abbys": 0.05,
    "chirag": 0.04,
    "noble": 0.03,
    "ashwin": 0.03,
    "laxmi": 0.03,
    "hserhat": 0.03,
    "conz": 0.03,
    "cju": 0.02,
    "jayati": 0.01,
}
OTHER_WEIGHT = 0.02
LONG_SIDE = (300.0, 1250.0)  # px an image is scaled to, log-uniform, for a sample of 320 px
MOSAIC_SHRINK = 0.75  # the four parts of a mosaic show their images this much smaller
TURNED = {FACE: 0.15, PLATE: 0.35}  # probability that a crop is turned; plates where there are any
TURN = 12.0  # degrees, at most
MIN_VISIBLE = 0.45  # of a box's area, or the cut box only masks the loss
MIN_FACE = 5.0  # px, root of the area
MIN_PLATE = (7.0, 4.0)  # px, width and height


@dataclass(frozen=True)
class Sample:
    """A square training picture with its boxes in pixels."""

    image: Image  # what the network sees
    clean: Image  # the same objects before disguise, light, blur and noise: what a teacher sees
    boxes: Boxes
    ignored: Boxes


class Sampler:
    """Draws samples from a pack."""

    def __init__(self, pack: Pack, seed: int) -> None:
        self._pack, self._seed = pack, seed
        sources: dict[str, list[Picture]] = {}
        for picture in pack.pictures:
            sources.setdefault(picture.source, []).append(picture)
        self._sources = [sources[name] for name in sorted(sources)]
        weights = np.array([SOURCE_WEIGHTS.get(name, OTHER_WEIGHT) for name in sorted(sources)])
        self._weights = weights / weights.sum()
        self._objects = Objects(pack)

    def sample(self, index: tuple[int, ...], side: int, mosaic: float) -> Sample:
        """The sample called `index`, `side` px square, a mosaic of four images with probability `mosaic`."""
        rng = np.random.default_rng([self._seed, *index])
        scale = side / 320
        if rng.random() < mosaic:
            clean, boxes, ignored = self._mosaic(rng, side, scale * MOSAIC_SHRINK)
        else:
            clean, boxes, ignored = self._patch(rng, side, side, scale)
        boxes = populate(rng, self._objects, clean, boxes, ignored, side / 320)
        return Sample(degrade(rng, disguise(rng, clean, boxes)), clean, boxes, ignored)

    def _mosaic(self, rng: Generator, side: int, scale: float) -> tuple[Image, Boxes, Boxes]:
        x, y = (int(value) for value in rng.uniform(0.3, 0.7, 2) * side)
        image = np.empty((side, side, 3), np.uint8)
        boxes, ignored = [], []
        for x0, y0, x1, y1 in ((0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side)):
            part, found, unclear = self._patch(rng, x1 - x0, y1 - y0, scale)
            image[y0:y1, x0:x1] = part
            shift = np.array([0, x0, y0, x0, y0], np.float32)
            boxes.append(found + shift)
            ignored.append(unclear + shift)
        return image, np.concatenate(boxes), np.concatenate(ignored)

    def _patch(self, rng: Generator, width: int, height: int, scale: float) -> tuple[Image, Boxes, Boxes]:
        """A random crop of a random image at a random scale, `width` x `height` px."""
        pictures = self._sources[rng.choice(len(self._sources), p=self._weights)]
        picture = pictures[rng.integers(len(pictures))]
        long_side = np.exp(rng.uniform(*np.log(LONG_SIDE))) * scale
        zoom = long_side / max(picture.height, picture.width)
        stretch = np.exp(rng.uniform(-0.12, 0.12))
        zoom_xy = np.array([zoom * stretch, zoom / stretch])
        origin, zoom_xy = _window(rng, picture, np.array([width, height]), zoom_xy)
        angle = _angle(rng, picture)
        canvas = _canvas(width, height, angle)
        origin = origin - (np.array(canvas) - (width, height)) / 2 / zoom_xy
        image = _cut(rng, self._pack.image(picture), origin, zoom_xy, canvas)
        boxes = _moved(picture.boxes, origin, zoom_xy)
        ignored = _moved(picture.ignored, origin, zoom_xy)
        if angle:
            image = _turn(image, angle, (width, height))
            boxes = _turned(boxes, angle, canvas, (width, height))
            ignored = _turned(ignored, angle, canvas, (width, height))
        if rng.random() < 0.5:
            image = cv2.flip(image, 1).astype(np.uint8, copy=False)
            boxes, ignored = _mirrored(boxes, width), _mirrored(ignored, width)
        boxes, cut = _visible(boxes, width, height)
        ignored = np.concatenate([_clipped(ignored, width, height), cut])
        inside = (ignored[:, 3] > ignored[:, 1]) & (ignored[:, 4] > ignored[:, 2])
        return image, boxes, ignored[inside]


def _window(
    rng: Generator, picture: Picture, size: NDArray[np.int64], zoom: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Origin of the crop in image pixels and the zoom, which shrinks where a chosen box would not fit."""
    extent = np.array([picture.width, picture.height], np.float64)
    if not len(picture.boxes) or rng.random() > 0.75:
        free = extent - size / zoom
        return rng.uniform(np.minimum(0, free), np.maximum(0, free)), zoom
    box = picture.boxes[rng.integers(len(picture.boxes))].astype(np.float64)
    box_size = box[3:5] - box[1:3]
    fill = float(np.max(box_size * zoom / size))
    if fill > 0.9:
        zoom = zoom * (0.9 / fill * rng.uniform(0.6, 1.0))
    window = size / zoom
    centre = (box[1:3] + box[3:5]) / 2 + rng.uniform(-0.5, 0.5, 2) * np.maximum(0, window - box_size)
    origin = centre - window / 2
    held = np.minimum(np.maximum(origin, 0), extent - window)
    return np.where(window < extent, held, origin), zoom


def _cut(
    rng: Generator,
    image: Image,
    origin: NDArray[np.float64],
    zoom: NDArray[np.float64],
    size: tuple[int, int],
) -> Image:
    """The crop at `origin`, scaled by `zoom` to `size` (width, height); grey where the image ends."""
    width, height = size
    out = np.full((height, width, 3), rng.integers(0, 140), np.uint8)
    extent = np.array([image.shape[1], image.shape[0]])
    first = np.maximum(0, origin.astype(np.int64))
    last = np.minimum(extent, np.ceil(origin + np.array(size) / zoom).astype(np.int64))
    if np.any(last - first < 2):
        return out
    start = np.clip(np.round((first - origin) * zoom).astype(np.int64), 0, np.array(size) - 1)
    span = np.maximum(1, np.minimum(np.array(size) - start, np.round((last - first) * zoom).astype(np.int64)))
    area = zoom.min() < 0.75 and rng.random() < 0.8
    scaled = cv2.resize(
        image[first[1] : last[1], first[0] : last[0]],
        (int(span[0]), int(span[1])),
        interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR,
    )
    out[start[1] : start[1] + span[1], start[0] : start[0] + span[0]] = scaled
    return out


def _moved(boxes: Boxes, origin: NDArray[np.float64], zoom: NDArray[np.float64]) -> Boxes:
    moved = boxes.copy()
    moved[:, 1:] = (boxes[:, 1:] - np.tile(origin, 2)) * np.tile(zoom, 2)
    return moved


def _angle(rng: Generator, picture: Picture) -> float:
    """By how many radians to turn the crop; 0 most often."""
    kind = PLATE if (picture.boxes[:, 0] == PLATE).any() else FACE
    return float(np.deg2rad(rng.uniform(-TURN, TURN))) if rng.random() < TURNED[kind] else 0.0


def _canvas(width: int, height: int, angle: float) -> tuple[int, int]:
    """Size of the upright picture that holds one of `width` x `height` turned by `angle`."""
    cosine, sine = np.cos(angle), abs(np.sin(angle))
    return int(np.ceil(width * cosine + height * sine)), int(np.ceil(height * cosine + width * sine))


def _turn(image: Image, angle: float, size: tuple[int, int]) -> Image:
    """The middle of `image`, `size` (width, height), after a turn about its centre."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([image.shape[1], image.shape[0]]) / 2
    shift = turn @ (0.5 - middle) + np.array(size) / 2 - 0.5  # pixel centres lie at halves
    return cv2.warpAffine(image, np.column_stack([turn, shift]), size).astype(np.uint8, copy=False)


def _turned(boxes: Boxes, angle: float, canvas: tuple[int, int], size: tuple[int, int]) -> Boxes:
    """The boxes after `_turn`: around a face's ellipse, around the four corners of anything else."""
    cosine, sine = np.cos(angle), np.sin(angle)
    middle = (boxes[:, 1:3] + boxes[:, 3:]) / 2 - np.array(canvas) / 2
    middle = middle @ np.array([[cosine, sine], [-sine, cosine]]) + np.array(size) / 2
    half = (boxes[:, 3:] - boxes[:, 1:3]) / 2
    weights = np.abs([[cosine, sine], [sine, cosine]])
    round_half = np.sqrt(half**2 @ weights**2)
    half = np.where(boxes[:, :1] == FACE, round_half, half @ weights)
    return np.concatenate([boxes[:, :1], middle - half, middle + half], 1, dtype=np.float32)


def _mirrored(boxes: Boxes, width: int) -> Boxes:
    mirrored = boxes.copy()
    mirrored[:, [1, 3]] = width - boxes[:, [3, 1]]
    return mirrored


def _clipped(boxes: Boxes, width: int, height: int) -> Boxes:
    clipped = boxes.copy()
    clipped[:, 1::2] = clipped[:, 1::2].clip(0, width)
    clipped[:, 2::2] = clipped[:, 2::2].clip(0, height)
    return clipped


def _visible(boxes: Boxes, width: int, height: int) -> tuple[Boxes, Boxes]:
    """Boxes to learn, clipped to the picture, and boxes that are cut or too small to judge."""
    clipped = _clipped(boxes, width, height)
    size = np.maximum(0, clipped[:, 3:] - clipped[:, 1:3])
    area = size.prod(1)
    whole = (boxes[:, 3:] - boxes[:, 1:3]).prod(1)
    tiny_plate = (size[:, 0] < MIN_PLATE[0]) | (size[:, 1] < MIN_PLATE[1])
    tiny = np.where(boxes[:, 0] == 0, np.sqrt(area) < MIN_FACE, tiny_plate)
    good = (area > MIN_VISIBLE * whole) & ~tiny
    return clipped[good], clipped[~good & (area > 0)]
