"""Objects added to a picture: faces and plates cut from other pictures, drawn plates, drawn signs.

Nothing is put onto a box of the picture, labelled or ignored, except a drawn plate onto a real one, whose
box it takes. What is added is lit and blurred like its new surroundings.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .drawn import draw_plate, draw_sign
from .network import CLASSES
from .pack import Boxes, Image, Pack, Picture

Corners = NDArray[np.float64]  # (4, 2) x, y from the top left clockwise

FACE, PLATE = CLASSES.index("face"), CLASSES.index("plate")
FACES, PLATES, DRAWN, SIGNS = 0.12, 0.12, 0.14, 0.08  # probabilities that a sample gets some
REPLACED = 0.2  # probability that a sample's own plates are drawn over, half of them
_AT_MOST = {FACE: 4, PLATE: 2}  # of one kind in a sample
_FACE_SIDE, _PLATE_HEIGHT, _SIGN_HEIGHT = (8.0, 90.0), (5.5, 60.0), (12.0, 90.0)  # px in a sample of 320 px
_LEAST_SOURCE = {FACE: 26.0, PLATE: 16.0}  # px of an object worth copying: root of the area, height
_MAGNIFIED = 1.4  # at most, when copied
_RIM = {FACE: 0.32, PLATE: 0.12}  # of a box's sides, copied with it
_TRIES = 6  # places looked at before an object is left out


@dataclass(frozen=True)
class Cutout:
    """Something to paste."""

    pixels: NDArray[np.uint8]  # (h, w, 4) BGR times opacity, opacity
    corners: Corners  # of the object in it


class Objects:
    """The faces and plates of a pack that stand apart from others."""

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self._found: dict[int, list[tuple[Picture, NDArray[np.float32]]]] = {FACE: [], PLATE: []}
        for picture in pack.pictures:
            for box in picture.boxes[_worth_copying(picture)]:
                self._found[int(box[0])].append((picture, box))

    def cut(self, rng: Generator, kind: int, scale: float) -> Cutout | None:
        """A random object of a class at a random size, for a sample of `scale` times 320 px."""
        if not self._found[kind]:
            return None
        picture, box = self._found[kind][rng.integers(len(self._found[kind]))]
        x0, y0, x1, y1 = _grown(box[None, 1:], _RIM[kind])[0].round().astype(int)
        part = self._pack.image(picture)[y0:y1, x0:x1]
        size = box[3:] - box[1:3]
        if kind == FACE:
            zoom = _size(rng, _FACE_SIDE) * scale / float(np.sqrt(size.prod()))
        else:
            zoom = _size(rng, _PLATE_HEIGHT) * scale / float(size[1])
        zoom = min(zoom, _MAGNIFIED)
        shape = max(3, round(part.shape[1] * zoom)), max(3, round(part.shape[0] * zoom))
        part = cv2.resize(part, shape, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
        if rng.random() < 0.5:
            part = part[:, ::-1] if kind == FACE else part
        opacity = _feathered(rng, kind, shape[0], shape[1])
        angle = float(rng.normal(0, 6)) if rng.random() < 0.5 else 0.0
        ratio = np.array([part.shape[1] / (x1 - x0), part.shape[0] / (y1 - y0)])
        low, high = (box[1:3] - (x0, y0)) * ratio, (box[3:] - (x0, y0)) * ratio
        corners = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
        return _turned(Cutout(_premultiplied(part, opacity), corners), np.deg2rad(angle))


def _size(rng: Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _grown(boxes: NDArray[np.float32], rim: float) -> NDArray[np.float32]:
    more = (boxes[:, 2:] - boxes[:, :2]) * rim
    return np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + more], 1)


def _worth_copying(picture: Picture) -> NDArray[np.bool_]:
    """Which boxes are large enough, whole, and free of other boxes."""
    boxes = picture.boxes
    kinds = boxes[:, 0].astype(int)
    size = boxes[:, 3:] - boxes[:, 1:3]
    extent = np.where(kinds == FACE, np.sqrt(size.prod(1)), size[:, 1])
    good = extent >= np.where(kinds == FACE, _LEAST_SOURCE[FACE], _LEAST_SOURCE[PLATE])
    good &= size[:, 0] < 7 * size[:, 1]
    for kind, rim in _RIM.items():
        around = _grown(boxes[:, 1:], rim)
        inside = (around[:, :2] >= 0).all(1) & (around[:, 2:] <= (picture.width, picture.height)).all(1)
        touched = _overlaps(_grown(boxes[:, 1:], rim * 0.7), np.concatenate([boxes, picture.ignored])[:, 1:])
        good &= (kinds != kind) | (inside & (touched.sum(1) == 1))  # it touches itself
    return good


def _overlaps(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of `a` `(n, 4)` share pixels with which of `b` `(m, 4)`."""
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return (size > 0).all(-1)


def _feathered(rng: Generator, kind: int, width: int, height: int) -> NDArray[np.float32]:
    """Opacity of a cut-out: whole over the object, gone at the rim; round for faces."""
    edge = 1 + 2 * _RIM[kind]
    x = np.abs(np.linspace(-edge, edge, width, dtype=np.float32))[None]
    y = np.abs(np.linspace(-edge, edge, height, dtype=np.float32))[:, None]
    away = np.sqrt((x * x + y * y) * 0.8) if kind == FACE else np.maximum(x, y)
    soft = rng.uniform(0.15, 0.9) * (edge - 1)
    return ((edge - away) / soft).clip(0, 1)


def _premultiplied(image: Image, opacity: NDArray[np.float32]) -> NDArray[np.uint8]:
    pixels = np.empty((*image.shape[:2], 4), np.float32)
    pixels[..., :3] = image * opacity[..., None]
    pixels[..., 3] = opacity * 255
    return pixels.astype(np.uint8)


def _turned(cutout: Cutout, angle: float) -> Cutout:
    if not angle:
        return cutout
    height, width = cutout.pixels.shape[:2]
    frame = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = frame @ turn.T
    low = target.min(0)
    size = np.ceil(target.max(0) - low).astype(int)
    matrix = np.column_stack([turn, turn @ (0.5, 0.5) - low - 0.5])  # pixel centres lie at halves
    pixels = cv2.warpAffine(cutout.pixels, matrix, (int(size[0]), int(size[1])))
    return Cutout(pixels.astype(np.uint8, copy=False), cutout.corners @ turn.T - low)


def _in_perspective(board: Image, opacity: NDArray[np.uint8], corners: Corners) -> Cutout:
    """A flat `board` seen with its corners at `corners` (any origin)."""
    extent = corners.max(0) - corners.min(0)
    shrink = max(1.0, board.shape[1] / (extent[0] + 1), board.shape[0] / (extent[1] + 1) / 1.5)
    shape = max(2, round(board.shape[1] / shrink)), max(2, round(board.shape[0] / shrink))
    flat = cv2.resize(np.dstack([board, opacity]), shape, interpolation=cv2.INTER_AREA)
    flat[..., :3] = cv2.multiply(flat[..., :3], cv2.merge([flat[..., 3]] * 3), scale=1 / 255)
    origin = np.floor(corners.min(0)) - 2
    size = np.ceil(corners.max(0) - origin).astype(int) + 2
    frame = np.array([(0, 0), (shape[0], 0), shape, (0, shape[1])], np.float32) - 0.5
    matrix = cv2.getPerspectiveTransform(frame, (corners - origin - 0.5).astype(np.float32))
    pixels = cv2.warpPerspective(flat, matrix, (int(size[0]), int(size[1])))
    return Cutout(pixels.astype(np.uint8, copy=False), corners - origin)


def _quadrilateral(rng: Generator, width: float, height: float) -> Corners:
    """Where the corners of a `width` x `height` board come to lie: turned, slanted, seen from aside."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float64) * (width / 2, height / 2)
    if rng.random() < 0.6:
        corners[:, 0] *= rng.uniform(0.6, 1.0)
        far = rng.uniform(0.75, 1.0)
        side = corners[:, 0] * rng.choice([-1, 1]) > 0
        corners[side, 1] *= far
    corners[:, 1] += corners[:, 0] * rng.normal(0, 0.07)
    corners[:, 0] += corners[:, 1] * rng.normal(0, 0.07)
    angle = np.deg2rad(np.clip(rng.normal(0, 9), -28, 28)) if rng.random() < 0.6 else 0.0
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return corners @ turn


def _held(rng: Generator, plate: Image, corners: Corners) -> tuple[Image, Corners]:
    """The plate in its frame, most often a dark one, and that frame's corners."""
    rim = int(rng.integers(3, 9))
    colour = (int(rng.integers(15, 90)),) * 3 if rng.random() < 0.8 else (205, 205, 205)
    framed = cv2.copyMakeBorder(plate, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=colour)
    grow = (framed.shape[1] / plate.shape[1], framed.shape[0] / plate.shape[0])
    middle = corners.mean(0)
    return framed.astype(np.uint8, copy=False), middle + (corners - middle) * np.mean(grow)


class _Scene:
    """A sample that objects are added to."""

    def __init__(self, rng: Generator, image: Image, boxes: Boxes, ignored: Boxes) -> None:
        self.image, self.boxes = image, boxes
        self._rng = rng
        self._taken = np.concatenate([boxes, ignored])[:, 1:]
        self._blur: float | None = None

    def add(self, cutout: Cutout, kind: int | None) -> None:
        """Put it where nothing is known to be; `kind` None: it is background."""
        height, width = cutout.pixels.shape[:2]
        free = np.array([self.image.shape[1] - width, self.image.shape[0] - height])
        if free.min() < 0:
            return
        for _ in range(_TRIES):
            x, y = (int(value) for value in self._rng.integers(0, free + 1))
            place = np.array([[x, y, x + width, y + height]], np.float32)
            if not _overlaps(place, self._taken).any():
                self._taken = np.concatenate([self._taken, place])
                self.blend(cutout, x, y)
                if kind is not None:
                    corners = cutout.corners + np.array([x, y])
                    box = np.array([[kind, *corners.min(0), *corners.max(0)]], np.float32)
                    self.boxes = np.concatenate([self.boxes, box])
                return

    def blend(self, cutout: Cutout, x: int, y: int) -> None:
        """Lay the cut-out over the picture, lit and blurred like it; what hangs over the edge is lost."""
        limits = np.array([self.image.shape[1], self.image.shape[0]])
        pixels = cutout.pixels
        first = np.maximum(0, (-x, -y))
        last = np.minimum([pixels.shape[1], pixels.shape[0]], limits - (x, y))
        if (last - first < 1).any():
            return
        pixels = pixels[first[1] : last[1], first[0] : last[0]]
        area = self.image[y + first[1] : y + last[1], x + first[0] : x + last[0]]
        pixels = _lit(self._rng, pixels, area)
        sigma = self.blur() * self._rng.uniform(0.6, 1.3)
        if sigma > 0.25:
            pixels = cv2.GaussianBlur(pixels, (0, 0), sigma).astype(np.uint8, copy=False)
        rest = 255 - pixels[..., 3:].astype(np.uint16)
        area[:] = np.minimum(255, pixels[..., :3] + (area * rest + 127) // 255)

    def blur(self) -> float:
        """Standard deviation in pixels that makes a sharp object as blurred as this picture."""
        if self._blur is None:
            grey = cv2.cvtColor(self.image, cv2.COLOR_BGR2GRAY)
            edges = float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1][0, 0])
            self._blur = float(np.clip(9 / (edges + 1), 0.2, 1.3))
        return self._blur


def _lit(rng: Generator, pixels: NDArray[np.uint8], area: Image) -> NDArray[np.uint8]:
    """The cut-out as bright as what it covers, more or less."""
    own = np.array(cv2.mean(pixels))
    seen = own[:3].mean() * 255 / (own[3] + 1)
    around = np.mean(cv2.mean(area)[:3])
    gain = np.clip((around + 25) / (seen + 25), 0.35, 1.7) ** rng.uniform(0.4, 0.9)
    scaled = cv2.convertScaleAbs(pixels, alpha=float(gain))
    opacity = pixels[..., 3]
    lit = np.minimum(scaled, opacity[..., None])
    lit[..., 3] = opacity
    return lit.astype(np.uint8, copy=False)


def populate(
    rng: Generator, objects: Objects, image: Image, boxes: Boxes, ignored: Boxes, scale: float
) -> Boxes:
    """Add objects to `image`, in place, for a sample of `scale` times 320 px; returns all boxes."""
    scene = _Scene(rng, image, boxes, ignored)
    wanted = rng.random(5) < (REPLACED, FACES, PLATES, DRAWN, SIGNS)
    if wanted[0]:
        for box in boxes[boxes[:, 0] == PLATE]:
            if rng.random() < 0.5:
                _replace(rng, scene, box[1:].astype(np.float64))
    for kind in (FACE, PLATE):
        for _ in range(int(rng.integers(1, _AT_MOST[kind] + 1)) if wanted[1 + kind] else 0):
            if cutout := objects.cut(rng, kind, scale):
                scene.add(cutout, kind)
    for _ in range(int(rng.integers(1, 3)) if wanted[3] else 0):
        scene.add(_plate(rng, scale), PLATE)
    if wanted[4]:
        scene.add(_sign(rng, scale), None)
    return scene.boxes


def _plate(rng: Generator, scale: float) -> Cutout:
    plate = draw_plate(rng)
    height = _size(rng, _PLATE_HEIGHT) * scale
    corners = _quadrilateral(rng, height * plate.shape[1] / plate.shape[0], height)
    return _framed(rng, plate, corners)


def _framed(rng: Generator, plate: Image, corners: Corners) -> Cutout:
    """The plate at `corners`, which stay the object's corners when it gets a frame."""
    outer = corners
    if rng.random() < 0.4:
        plate, outer = _held(rng, plate, corners)
    opaque = np.full(plate.shape[:2], 255, np.uint8)
    cutout = _in_perspective(plate, opaque, outer)
    return Cutout(cutout.pixels, cutout.corners + (corners - outer))


def _replace(rng: Generator, scene: _Scene, box: NDArray[np.float64]) -> None:
    """Draw a plate over the real one in `box`; it gets no box of its own."""
    size = box[2:] - box[:2]
    if size[1] < _PLATE_HEIGHT[0]:
        return
    plate = draw_plate(rng, float(size[0] / size[1]))
    corners = np.array([box[:2], (box[2], box[1]), box[2:], (box[0], box[3])])
    corners += rng.normal(0, 0.02, (4, 2)).clip(-0.04, 0.04) * size[1]
    cutout = _framed(rng, plate, corners)
    x, y = np.round(corners[0] - cutout.corners[0]).astype(int)
    scene.blend(cutout, int(x), int(y))


def _sign(rng: Generator, scale: float) -> Cutout:
    board, opacity = draw_sign(rng)
    height = _size(rng, _SIGN_HEIGHT) * scale
    width = height * board.shape[1] / board.shape[0]
    fit = min(1.0, 250 * scale / width)
    return _in_perspective(board, opacity, _quadrilateral(rng, width * fit, height * fit))
