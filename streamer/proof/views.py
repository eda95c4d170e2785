"""What a camera of the made clips looks at, and how it moves: windows over large annotated pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.boxes import Boxes
from streamer.frame import Size

Picture = NDArray[np.uint8]  # (h, w, 3) BGR
Path3 = Callable[[float], tuple[float, float, float]]  # share of the shot -> centre x, centre y, zoom


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A large picture to look at, and the known objects on it."""

    picture: Picture
    boxes: Boxes
    labels: NDArray[np.uint8]
    ignored: NDArray[np.bool_]
    exhaustive: bool
    difficulty: tuple[str, ...]


class View:
    """A window of the view's shape over a scene."""

    def __init__(self, scene: Scene, size: Size) -> None:
        self._scene = scene
        self._size = size
        self.height, self.width = scene.picture.shape[:2]

    def window(self, at: tuple[float, float, float]) -> tuple[float, float, float]:
        """Left, top and pixels of the view per pixel of the scene, kept inside the scene."""
        x, y, zoom = at
        wide, high = self.width / max(zoom, 1.0), self.height / max(zoom, 1.0)
        left = float(np.clip(x - wide / 2, 0, self.width - wide))
        top = float(np.clip(y - high / 2, 0, self.height - high))
        return left, top, self._size.width / wide

    def look(self, steps: Sequence[tuple[float, float, float]]) -> Picture:
        """The mean of what is seen at each of `steps`."""
        total: Any = None
        for step in steps:
            left, top, scale = self.window(step)
            move = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]], np.float32)
            seen = cv2.warpAffine(
                self._scene.picture,
                move,
                (self._size.width, self._size.height),
                flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REPLICATE,
            )
            if len(steps) == 1:
                return np.asarray(seen, np.uint8)
            total = seen.astype(np.uint16) if total is None else total + seen
        return np.asarray(total // len(steps), np.uint8)

    def boxes(self, at: tuple[float, float, float]) -> Boxes:
        """The scene's boxes in view pixels, not clipped."""
        left, top, scale = self.window(at)
        return np.asarray((self._scene.boxes - np.array([left, top, left, top])) * scale, np.float32)


def path_of(scene: Scene, move: str, view: View, random: np.random.Generator) -> Path3:
    """Where the camera looks; the middle of the shot is near an object that counts."""
    candidates = np.flatnonzero(~scene.ignored)
    box = scene.boxes[int(random.choice(candidates))]
    x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
    away, turn = random.uniform(0.12, 0.25) * view.width, random.uniform(0, 2 * np.pi)
    dx, dy = away * np.cos(turn), away * np.sin(turn) * 0.6
    zoom = random.uniform(1.25, 1.6)
    if move == "zoom":
        return lambda at: (x, y, 1.0 + 1.1 * (1 - abs(2 * at - 1)))
    if move == "wall":
        return lambda at: (x + dx * (at - 0.5), y + dy * (at - 0.5), 1.0 + 0.25 * at)
    if move == "shake":
        return lambda at: (x + 9 * np.sin(at * 61), y + 7 * np.sin(at * 83 + 1), zoom)
    if move == "enter":
        side = view.width if x < view.width / 2 else 0.0
        return lambda at: (side + (x - side) * min(1.0, 1.6 * at), y, 2.0)
    if move == "whip":
        return lambda at: (x + 2.2 * dx * float(np.tanh(14 * (at - 0.5))), y + dy * (at - 0.5), zoom)
    if move in ("occlusion", "exposure"):
        return lambda at: (x + 0.3 * dx * at, y + 0.3 * dy * at, zoom)
    return lambda at: (x + dx * (2 * at - 1), y + dy * (2 * at - 1), zoom)


def light_of(random: np.random.Generator) -> Callable[[float], tuple[float, float]]:
    """Exposure over a shot: dark, a step, too bright, and back."""
    dark, bright = random.uniform(0.3, 0.5), random.uniform(1.4, 1.8)

    def at(share: float) -> tuple[float, float]:
        if share < 0.3:
            return 1.0, 0.0
        if share < 0.55:
            return dark, 4.0
        return (bright, 10.0) if share < 0.8 else (1.0, 0.0)

    return at


class Post:
    """A flat post that crosses the picture."""

    def __init__(self, scene: Scene, size: Size, random: np.random.Generator) -> None:
        self._size = size
        self._width = round(size.width * random.uniform(0.08, 0.16))
        self._color = tuple(int(value) for value in random.integers(30, 200, 3))

    def place(self, picture: Picture, at: float) -> Boxes:
        """Draw it; its box (1, 4)."""
        left = round((self._size.width + self._width) * at) - self._width
        x0, x1 = max(0, left), min(self._size.width, left + self._width)
        if x1 <= x0:
            return np.zeros((0, 4), np.float32)
        picture[:, x0:x1] = self._color
        return np.array([[x0, 0, x1, self._size.height]], np.float32)
