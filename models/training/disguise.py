"""Things that faces wear: masks, sunglasses, caps and helmets, painted on labelled faces.

A covered face is still a face. The teacher is shown it uncovered.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .pack import Boxes, Image

DISGUISED = 0.12  # probability that some of a sample's faces wear something
_OF_ITS_FACES = 0.5
_AT_MOST = 6  # faces of a sample
_LEAST = 12.0  # px, root of the area: smaller ones show nothing of it
_CLOTHS = ((235, 235, 235), (225, 190, 140), (200, 205, 150), (30, 30, 32), (90, 70, 60), (150, 140, 200))
_SHARP = 3  # fractional bits of the drawn coordinates

Outline = NDArray[np.float64]  # (n, 2) x, y in units of the face box, 0..1


def disguise(rng: Generator, image: Image, boxes: Boxes) -> Image:
    """`image`, or a copy of it in which some faces of `boxes` are partly covered."""
    if rng.random() >= DISGUISED:
        return image
    size = np.sqrt((boxes[:, 3:] - boxes[:, 1:3]).prod(1))
    faces = boxes[(boxes[:, 0] == 0) & (size >= _LEAST)]
    chosen = faces[rng.random(len(faces)) < _OF_ITS_FACES]
    if not len(chosen):
        return image
    image = image.copy()
    for face in chosen[:_AT_MOST]:
        dress(rng, image, face[1:].astype(np.float64))
    return image


def dress(rng: Generator, image: Image, box: NDArray[np.float64]) -> None:
    """Let the face in `box` (x0 y0 x1 y1) wear something, in place."""
    kind = rng.random()
    if kind < 0.5:
        _mask(rng, image, box)
    if 0.35 < kind < 0.75:
        _glasses(rng, image, box)
    if kind > 0.7:
        (_cap if rng.random() < 0.6 else _helmet)(rng, image, box)


def _mask(rng: Generator, image: Image, box: NDArray[np.float64]) -> None:
    top, nose = rng.uniform(0.46, 0.56), rng.uniform(0.38, 0.5)
    right = np.array([(0.5, nose), (0.72, nose + 0.05), (0.99, top), (0.96, 0.74), (0.78, 0.95), (0.5, 1.04)])
    left = right[::-1] * (-1, 1) + (1, 0)
    colour = np.array(_CLOTHS[rng.integers(len(_CLOTHS))]) * _brightness(image, box)
    _fill(rng, image, box, np.concatenate([right, left[1:-1]]), colour)
    if rng.random() < 0.5:
        for fold in (0.66, 0.76, 0.86):
            reach = 0.42 - (fold - 0.6) * 0.5
            crease = np.array([(0.5 - reach, fold), (0.5, fold + 0.05), (0.5 + reach, fold)])
            _stroke(image, box, crease, colour * 0.82)


def _glasses(rng: Generator, image: Image, box: NDArray[np.float64]) -> None:
    colour = np.array([1.0, 1.0, 1.0]) * rng.uniform(5, 55)
    y, tall = rng.uniform(0.33, 0.42), rng.uniform(0.08, 0.14)
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    lens = np.stack([np.cos(turn) * rng.uniform(0.16, 0.21), np.sin(turn) * tall], 1)
    for x in (0.27, 0.73):
        _fill(rng, image, box, lens + np.array([x, y]), colour)
    _stroke(image, box, np.array([(0.02, y - 0.03), (0.98, y - 0.03)]), colour)


def _cap(rng: Generator, image: Image, box: NDArray[np.float64]) -> None:
    turn = np.linspace(np.pi, 2 * np.pi, 10)
    brow = rng.uniform(0.12, 0.27)
    dome = np.stack([0.5 + 0.6 * np.cos(turn), brow + rng.uniform(0.35, 0.55) * np.sin(turn)], 1)
    colour = rng.uniform(15, 230, 3) * _brightness(image, box)
    _fill(rng, image, box, dome, colour)
    brim = np.array([(-0.14, brow), (1.14, brow), (0.98, brow + 0.09), (0.02, brow + 0.09)])
    _fill(rng, image, box, brim, colour * 0.7)


def _helmet(rng: Generator, image: Image, box: NDArray[np.float64]) -> None:
    """A shell around the face that leaves an opening from the brow to the mouth."""
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    shell = np.stack([0.5 + 0.72 * np.cos(turn), 0.42 + 0.74 * np.sin(turn)], 1)
    top, bottom = rng.uniform(0.1, 0.22), rng.uniform(0.58, 1.25)
    opening = np.array(
        [(0.06, top), (0.94, top), (0.97, bottom - 0.1), (0.8, bottom), (0.2, bottom), (0.03, bottom - 0.1)]
    )
    colour = rng.uniform(15, 230, 3) * _brightness(image, box)
    _fill(rng, image, box, shell, colour, opening)


def _brightness(image: Image, box: NDArray[np.float64]) -> float:
    """How bright the face is, as a factor for paint."""
    x0, y0, x1, y1 = box.clip(0).astype(int)
    return float(np.clip((np.mean(cv2.mean(image[y0:y1, x0:x1])[:3]) + 25) / 150, 0.25, 1.1))


def _points(outline: Outline, box: NDArray[np.float64], origin: NDArray[np.int64]) -> NDArray[np.int32]:
    places = box[:2] + outline * (box[2:] - box[:2]) - origin - 0.5
    return (places * 2**_SHARP).round().astype(np.int32)


def _fill(
    rng: Generator,
    image: Image,
    box: NDArray[np.float64],
    outline: Outline,
    colour: NDArray[np.float64],
    hole: Outline | None = None,
) -> None:
    """Paint the outline, shaded from side to side, with the soft edge of the picture."""
    limits = np.array([image.shape[1], image.shape[0]])
    spread = box[:2] + outline * (box[2:] - box[:2])
    first = np.floor(spread.min(0)).clip(0).astype(np.int64)
    last = np.minimum(np.ceil(spread.max(0)).astype(np.int64) + 1, limits)
    if (last - first < 2).any():
        return
    width, height = (int(value) for value in last - first)
    cover = np.zeros((height, width), np.uint8)
    cv2.fillPoly(cover, [_points(outline, box, first)], (255,), cv2.LINE_AA, _SHARP)
    if hole is not None:
        cv2.fillPoly(cover, [_points(hole, box, first)], (0,), cv2.LINE_AA, _SHARP)
    if width > 16:
        cover = cv2.GaussianBlur(cover, (3, 3), 0).astype(np.uint8, copy=False)
    shade = np.linspace(rng.uniform(0.7, 1.1), rng.uniform(0.7, 1.1), width, dtype=np.float32)
    paint = shade[None, :, None] * colour.astype(np.float32)
    area = image[first[1] : last[1], first[0] : last[0]]
    part = cover[..., None].astype(np.float32) * (rng.uniform(0.88, 1.0) / 255)
    area[:] = (area + part * (paint - area)).clip(0, 255)


def _stroke(image: Image, box: NDArray[np.float64], line: Outline, colour: NDArray[np.float64]) -> None:
    points = _points(line, box, np.zeros(2, np.int64))
    thick = max(1, round(float(box[2] - box[0]) / 30))
    ink = tuple(float(value) for value in colour)
    cv2.polylines(image, [points], False, ink, thick, cv2.LINE_AA, _SHARP)
