"""Faces and plates cut out of annotated pictures, with what belongs around them and a soft edge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.detection import Label
from streamer.errors import InputError
from streamer.proof.truth import Annotated
from streamer.proof.views import Picture

_LEAST = {Label.FACE: 60, Label.PLATE: 90}  # pixels of the shorter side of a face, of a plate's width
_AROUND = {  # left and right, above, below: shares of the box's width, height, height
    Label.FACE: (0.55, 0.5, 0.6),  # hair and shoulders
    Label.PLATE: (0.25, 0.9, 0.9),  # bumper
}
_UPRIGHT = (1.1, 1.8)  # height by width of a face that is upright and not half hidden
_FLAT = 0.45  # height by width up to which a plate is level and its box close around it
_SOFT = 0.045  # sigma of the edge, as a share of the cut-out's shorter side
_SOLID = 0.5  # opacity from which a cut-out hides what is behind it


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An annotated object that can be cut out."""

    annotated: Annotated
    index: int

    @property
    def label(self) -> Label:
        """What it is."""
        return Label(self.annotated.labels[self.index])

    @property
    def length(self) -> float:
        """The longer side of its box, in pixels of its picture."""
        return float(np.max(self.annotated.boxes[self.index, 2:] - self.annotated.boxes[self.index, :2]))


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """One object, ready to be laid over a picture."""

    layer: NDArray[np.float32]  # (h, w, 4) blue, green, red times opacity, and opacity in [0, 1]
    box: NDArray[np.float32]  # (4,) x0 y0 x1 y1 of the object in the layer
    solid: NDArray[np.float32]  # (4,) of what hides things behind it
    label: Label

    @property
    def length(self) -> float:
        """The longer side of the object, in pixels of the layer."""
        return float(np.max(self.box[2:] - self.box[:2]))


@dataclass(frozen=True, slots=True)
class Pose:
    """Where an object is in a view."""

    x: float  # centre of its box, pixels
    y: float
    length: float  # longer side of its box, pixels
    tilt: float = 0.0  # degrees, counterclockwise


def sources(pictures: Sequence[Annotated]) -> list[Source]:
    """What can be cut out: large, whole, with nothing else close by; upright, and not called hard."""
    return [
        Source(annotated, int(index))
        for annotated in pictures
        if annotated.exhaustive
        for index in np.flatnonzero(~annotated.ignored)
        if _fits(annotated, int(index))
    ]


def _fits(annotated: Annotated, index: int) -> bool:
    label, box = Label(annotated.labels[index]), annotated.boxes[index]
    wide, high = (box[2:] - box[:2]).tolist()
    if label is Label.FACE:
        if annotated.difficulty[index] not in ("", "easy") or min(wide, high) < _LEAST[label]:
            return False
        if not _UPRIGHT[0] <= high / wide <= _UPRIGHT[1]:
            return False
    elif wide < _LEAST[label] or high > _FLAT * wide:
        return False
    left, top, right, bottom = _surroundings(annotated, index)
    if left < 0 or top < 0 or right > annotated.width or bottom > annotated.height:
        return False
    others = np.delete(annotated.boxes, index, axis=0)
    apart = (
        (others[:, 2] <= left) | (others[:, 0] >= right) | (others[:, 3] <= top) | (others[:, 1] >= bottom)
    )
    return bool(apart.all())


def _surroundings(annotated: Annotated, index: int) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = annotated.boxes[index].tolist()
    beside, above, below = _AROUND[Label(annotated.labels[index])]
    return x0 - beside * (x1 - x0), y0 - above * (y1 - y0), x1 + beside * (x1 - x0), y1 + below * (y1 - y0)


def cut(source: Source) -> Cutout:
    """Read the picture and cut the object out. Raises InputError if it cannot be read."""
    annotated = source.annotated
    picture = cv2.imread(str(annotated.path))
    if picture is None:
        raise InputError(f"not a picture that can be read: {annotated.path}")
    scale = picture.shape[1] / annotated.width
    left, top, right, bottom = (round(side * scale) for side in _surroundings(annotated, source.index))
    part = picture[max(0, top) : bottom, max(0, left) : right].astype(np.float32)
    corner = np.array([max(0, left), max(0, top)] * 2, np.float32)
    box = annotated.boxes[source.index] * np.float32(scale) - corner
    opacity = _opacity(part.shape[0], part.shape[1], box, source.label)
    rows, columns = np.nonzero(opacity >= _SOLID)
    solid = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
    layer = np.concatenate([part * opacity[..., None], opacity[..., None]], axis=2)
    return Cutout(layer, box, solid, source.label)


def _opacity(height: int, width: int, box: NDArray[np.float32], label: Label) -> NDArray[np.float32]:
    """(height, width) in [0, 1]: head and shoulders, or a piece of bumper; 0 at the border."""
    soft = max(1.5, _SOFT * min(height, width))
    shape = np.zeros((height, width), np.float32)
    edge = round(2.5 * soft)
    if label is Label.PLATE:
        shape[edge : height - edge, edge : width - edge] = 1
    else:
        x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
        wide, high = float(box[2] - box[0]), float(box[3] - box[1])
        head = (round(min(0.88 * wide, width / 2 - edge)), round(min(0.85 * high, y - edge)))
        cv2.ellipse(shape, (round(x), round(y)), head, 0, 0, 360, 1.0, -1)
        shoulders = (round(width / 2 - edge), round(height - edge - y - 0.45 * high))
        chest = (round(x), height - edge)
        cv2.ellipse(shape, chest, shoulders, 0, 180, 360, 1.0, -1)
        shape[height - edge :] = 0
    return np.asarray(cv2.GaussianBlur(shape, (0, 0), soft), np.float32)


def place(picture: Picture, cutout: Cutout, poses: Sequence[Pose]) -> None:
    """Lay the mean of an object in several poses over a picture, in place."""
    height, width = picture.shape[:2]
    corners = np.array([_bounds(cutout, _whole(cutout), pose, oval=False) for pose in poses])
    left, top = np.floor(np.maximum(corners[:, :2].min(axis=0) - 1, 0)).astype(int)
    right, bottom = np.ceil(np.minimum(corners[:, 2:].max(axis=0) + 1, [width, height])).astype(int)
    if right <= left or bottom <= top:
        return
    total: Any = 0
    for pose in poses:
        layer, shrunk = _shrunk(cutout, pose)
        matrix = _matrix(cutout, pose)
        matrix[:, :2] /= shrunk
        matrix[:, 2] -= [left, top]
        total = total + cv2.warpAffine(layer, matrix, (int(right - left), int(bottom - top)))
    total = total / len(poses)
    part = picture[top:bottom, left:right]
    part[:] = np.clip(part * (1 - total[..., 3:]) + total[..., :3] + 0.5, 0, 255).astype(np.uint8)


def outline(cutout: Cutout, pose: Pose) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The object's box (4,) in view pixels, not clipped, and the box (4,) of what it hides."""
    oval = cutout.label is Label.FACE
    return _bounds(cutout, cutout.box, pose, oval=oval), _bounds(cutout, cutout.solid, pose, oval=False)


def _matrix(cutout: Cutout, pose: Pose) -> NDArray[np.float64]:
    """View pixels from layer pixels (2, 3)."""
    x, y = (float(value) for value in (cutout.box[:2] + cutout.box[2:]) / 2)
    matrix = np.asarray(cv2.getRotationMatrix2D((x, y), pose.tilt, pose.length / cutout.length), np.float64)
    matrix[:, 2] += [pose.x - x, pose.y - y]
    return matrix


def _shrunk(cutout: Cutout, pose: Pose) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The layer at about the size it will have, if smaller (without aliasing), and its scale (x, y)."""
    scale = pose.length / cutout.length
    height, width = cutout.layer.shape[:2]
    if scale >= 1:
        return cutout.layer, np.ones(2)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(cutout.layer, shape, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32), np.array([shape[0] / width, shape[1] / height])


def _whole(cutout: Cutout) -> NDArray[np.float32]:
    return np.array([0, 0, cutout.layer.shape[1], cutout.layer.shape[0]], np.float32)


def _bounds(cutout: Cutout, box: NDArray[np.float32], pose: Pose, *, oval: bool) -> NDArray[np.float32]:
    """Upright bounds (4,) in view pixels of a box of the layer, or of the ellipse in it."""
    matrix = _matrix(cutout, pose)
    middle = matrix @ [*((box[:2] + box[2:]) / 2), 1.0]
    reach = np.abs(matrix[:, :2]) * ((box[2:] - box[:2]) / 2)
    half = np.hypot(*reach.T) if oval else reach.sum(axis=1)
    return np.concatenate([middle - half, middle + half]).astype(np.float32)
