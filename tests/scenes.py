"""Drawn moving pictures whose every box is known, and scripted detectors that look at them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer.boxes import Boxes
from streamer.detection import Detections, Label
from streamer.frame import Size

SIZE = Size(1920, 1080)
SCALE = 0.25  # small pixels per frame pixel
FPS = 25

Path = Callable[[float], tuple[float, float, float]]  # seconds -> centre x, centre y, side in world pixels
Camera = Callable[[float], tuple[float, float, float]]  # seconds -> left, top, zoom


@dataclass(frozen=True)
class Scene:
    """Small pictures and the true boxes in them; hidden objects have no box."""

    pictures: list[NDArray[np.uint8]]
    boxes: list[Boxes]  # (n, 4) per frame, in frame pixels, clipped to the picture
    ids: list[NDArray[np.int64]]  # (n,) which object each is

    def at_s(self, index: int) -> float:
        return index / FPS


def still_camera(_: float) -> tuple[float, float, float]:
    return 0.0, 0.0, 1.0


def texture(height: int, width: int, seed: int, grain: float = 3.0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), grain)
    soft = 128 + 45 * soft / soft.std()
    return np.clip(soft, 0, 255).astype(np.uint8)


def scene(
    paths: Sequence[Path],
    seconds: float,
    *,
    camera: Camera = still_camera,
    walls: Sequence[tuple[float, float, float, float]] = (),
    seed: int = 0,
) -> Scene:
    """Square textured objects along `paths` over a textured ground, behind `walls` (boxes in world
    pixels)."""
    ground = texture(540, 960, seed)
    skins = [texture(64, 64, seed + 10 + index, 4.0) for index in range(len(paths))]
    wall = texture(200, 200, seed + 5)
    pictures, boxes, ids = [], [], []
    for index in range(round(seconds * FPS)):
        t = index / FPS
        left, top, zoom = camera(t)
        origin = np.array([left, top, left, top], np.float32)
        view = _view(ground, left, top, zoom)
        world = np.array([_square(*path(t)) for path in paths], np.float32).reshape(-1, 4)
        true = (world - origin) * np.float32(zoom)
        for skin, box in zip(skins, true, strict=True):
            _paste(view, skin, box * SCALE)
        hiding = (np.array(walls, np.float32).reshape(-1, 4) - origin) * np.float32(zoom)
        for box in hiding:
            _paste(view, wall, box * SCALE)
        kept = _seen(true, hiding)
        pictures.append(view)
        boxes.append(geometry.clip(true, SIZE.width, SIZE.height)[kept])
        ids.append(kept.astype(np.int64))
    return Scene(pictures, boxes, ids)


def detector(
    shown: Scene, *, drop: float = 0.0, jitter: float = 0.0, seed: int = 0, score: float = 0.8
) -> Callable[[int], Detections]:
    """What a detector says of frame `index`: the true boxes, some dropped, corners off by a share of the
    side."""
    rng = np.random.default_rng(seed)

    def look(index: int) -> Detections:
        boxes = shown.boxes[index]
        boxes = boxes[rng.random(len(boxes)) >= drop]
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        off = (boxes + rng.normal(0, 1, boxes.shape) * sides * jitter).astype(np.float32)
        count = len(off)
        return Detections(off, np.full(count, score, np.float32), np.full(count, Label.FACE, np.uint8))

    return look


def covered(true: Boxes, masks: Boxes) -> NDArray[np.float32]:
    """Largest share (n,) of each true box that lies under one mask."""
    if not len(masks):
        return np.zeros(len(true), np.float32)
    shared = geometry.intersection(true, masks).max(axis=1)
    return np.asarray(shared / np.maximum(geometry.area(true), 1e-6), np.float32)


def _square(x: float, y: float, side: float) -> tuple[float, float, float, float]:
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def _view(ground: NDArray[np.uint8], left: float, top: float, zoom: float) -> NDArray[np.uint8]:
    move = np.array([[zoom, 0, -left * SCALE * zoom], [0, zoom, -top * SCALE * zoom]], np.float32)
    size = (round(SIZE.width * SCALE), round(SIZE.height * SCALE))
    return cv2.warpAffine(ground, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _paste(view: NDArray[np.uint8], skin: NDArray[np.uint8], box: NDArray[np.float32]) -> None:
    """Draw `skin` into `box` with sub-pixel placement."""
    height, width = view.shape
    scale_x, scale_y = (box[2:] - box[:2]) / (skin.shape[1], skin.shape[0])
    move = np.array([[scale_x, 0, box[0]], [0, scale_y, box[1]]], np.float32)
    soft = cv2.GaussianBlur(skin, (0, 0), max(0.3, 0.35 / max(scale_x, 1e-3)))
    drawn = cv2.warpAffine(soft, move, (width, height), flags=cv2.INTER_LINEAR)
    weight = cv2.warpAffine(np.full(skin.shape, 255, np.uint8), move, (width, height), flags=cv2.INTER_LINEAR)
    share = weight.astype(np.float32) / 255
    view[:] = (view * (1 - share) + drawn * share).astype(np.uint8)


def _seen(boxes: Boxes, hiding: Boxes) -> NDArray[np.intp]:
    """Which boxes show at least 40 % of themselves in the picture and outside what hides them."""
    inside = geometry.area(geometry.clip(boxes, SIZE.width, SIZE.height))
    inside = inside - geometry.intersection(boxes, hiding).sum(axis=1)
    return np.flatnonzero(inside >= 0.4 * geometry.area(boxes))
