"""Clips whose every frame has exact boxes: camera moves over annotated pictures.

# Note [Made clips]
A clip is a row of shots with hard cuts between them. A shot is one annotated picture (or a wall of four, so that
faces become small) seen through a moving window that never leaves the picture, so that nothing unknown comes into
view. The boxes of a frame are those of the picture, carried through the same window. Pictures do not move by
themselves: the clips hold no head that turns and no car that drives off, which real footage does.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer.boxes import Boxes
from streamer.detection import Label
from streamer.errors import InputError
from streamer.frame import Size
from streamer.proof.truth import Annotated

RATE = 25
MOVES = ("pan", "zoom", "wall", "shake", "enter", "occlusion", "whip", "exposure")
_VISIBLE = 0.5  # share of an object that must be in view for it to count
_SHUTTER = 5  # pictures averaged for a motion-blurred frame

Picture = NDArray[np.uint8]  # (h, w, 3) BGR
Path3 = Callable[[float], tuple[float, float, float]]  # share of the shot -> centre x, centre y, zoom


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What one frame shows."""

    tracks: NDArray[np.int64]  # (n,) which object of the clip
    boxes: Boxes  # (n, 4) in frame pixels, clipped to the picture
    labels: NDArray[np.uint8]  # (n,)
    counted: NDArray[np.bool_]  # (n,) False: in view but ignored, hidden or mostly outside
    exhaustive: bool  # False: there may be more than the boxes say


@dataclass(frozen=True, slots=True)
class Clip:
    """One encoded clip and its truth, frame by frame."""

    path: Path
    size: Size
    truths: tuple[Truth, ...]
    moves: tuple[str, ...]  # per frame
    difficulty: tuple[
        str, ...
    ] = ()  # the annotators' word for each object, by track; empty where there is none


@dataclass(frozen=True, slots=True)
class Plan:
    """What clips are made of."""

    size: Size
    clips: int
    shots: int = 2
    shot_frames: int = 50
    seed: int = 7


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """A large picture to look at, and the known objects on it."""

    picture: Picture
    boxes: Boxes
    labels: NDArray[np.uint8]
    ignored: NDArray[np.bool_]
    exhaustive: bool
    difficulty: tuple[str, ...]


def make(pictures: Sequence[Annotated], plan: Plan, folder: Path) -> Iterator[Clip]:
    """Write the clips of a plan into `folder`, one at a time; the same plan and pictures give the same clips."""
    random = np.random.default_rng(plan.seed)
    by_label = {
        label: _shuffled([p for p in pictures if (p.labels[~p.ignored] == label).any()], random)
        for label in Label
    }
    taken = dict.fromkeys(Label, 0)

    def next_of(label: Label) -> Annotated:
        stock = by_label[label] or next(iter(stock for stock in by_label.values() if stock))
        taken[label] += 1
        return stock[(taken[label] - 1) % len(stock)]

    shot = 0
    for number in range(plan.clips):
        parts = []
        for _ in range(plan.shots):
            label, move = Label(shot % 2), MOVES[(shot // 2) % len(MOVES)]
            several = [next_of(label) for _ in range(4 if move == "wall" else 1)]
            parts.append((move, several))
            shot += 1
        yield _clip(parts, plan, folder / f"clip_{number:03d}.mp4", random, b_frames=number % 2 == 0)


def _shuffled(stock: list[Annotated], random: np.random.Generator) -> list[Annotated]:
    return [stock[index] for index in random.permutation(len(stock))]


def _clip(
    parts: Sequence[tuple[str, list[Annotated]]],
    plan: Plan,
    path: Path,
    random: np.random.Generator,
    *,
    b_frames: bool,
) -> Clip:
    truths: list[Truth] = []
    moves: list[str] = []
    difficulty: list[str] = []
    options = {"crf": "20", "preset": "veryfast", "g": "50", "bf": "2" if b_frames else "0"}
    options["x264-params"] = (
        "mbtree=0:threads=1"  # else x264 does not give the same bytes every time (AVX-512)
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = plan.size.width, plan.size.height, "yuv420p"
        first_track = 0
        for move, several in parts:
            scene = _scene(several, plan.size)
            for picture, truth in _shot(scene, move, plan, random):
                moved = Truth(
                    truth.tracks + first_track, truth.boxes, truth.labels, truth.counted, truth.exhaustive
                )
                frame = av.VideoFrame.from_ndarray(picture, "bgr24")
                frame.pts, frame.time_base = len(truths), Fraction(1, RATE)
                container.mux(stream.encode(frame))
                truths.append(moved)
                moves.append(move)
            first_track += len(scene.boxes)
            difficulty += scene.difficulty
        container.mux(stream.encode(None))
    return Clip(path, plan.size, tuple(truths), tuple(moves), tuple(difficulty))


def _scene(several: Sequence[Annotated], size: Size) -> _Scene:
    parts = [_part(picture, size) for picture in several]
    if len(parts) == 1:
        return parts[0]
    height, width = parts[0].picture.shape[:2]
    canvas = np.zeros((2 * height, 2 * width, 3), np.uint8)
    boxes = []
    for index, part in enumerate(parts):
        left, top = index % 2 * width, index // 2 * height
        canvas[top : top + height, left : left + width] = part.picture
        boxes.append(part.boxes + np.array([left, top, left, top], np.float32))
    return _Scene(
        canvas,
        np.concatenate(boxes),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.ignored for part in parts]),
        all(part.exhaustive for part in parts),
        tuple(word for part in parts for word in part.difficulty),
    )


def _part(annotated: Annotated, size: Size) -> _Scene:
    """The picture cut to the shape of the view (around its first counted object), 1024 pixels wide."""
    picture = cv2.imread(str(annotated.path))
    if picture is None:
        raise InputError(f"not a picture that can be read: {annotated.path}")
    height, width = picture.shape[:2]
    boxes = annotated.boxes * np.tile([width / annotated.width, height / annotated.height], 2).astype(
        np.float32
    )
    aspect = size.width / size.height
    cut_w, cut_h = min(width, round(height * aspect)), min(height, round(width / aspect))
    target = boxes[np.flatnonzero(~annotated.ignored)[0]]
    left = int(np.clip((target[0] + target[2] - cut_w) / 2, 0, width - cut_w))
    top = int(np.clip((target[1] + target[3] - cut_h) / 2, 0, height - cut_h))
    scale = 1024 / cut_w
    shape = (1024, round(1024 / aspect))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    cut = cv2.resize(picture[top : top + cut_h, left : left + cut_w], shape, interpolation=way)
    moved = (boxes - np.array([left, top, left, top], np.float32)) * np.float32(scale)
    return _Scene(
        np.asarray(cut, np.uint8),
        moved,
        annotated.labels,
        annotated.ignored,
        annotated.exhaustive,
        annotated.difficulty,
    )


def _shot(
    scene: _Scene, move: str, plan: Plan, random: np.random.Generator
) -> Iterator[tuple[Picture, Truth]]:
    view = _View(scene, plan.size)
    path = _path(scene, move, view, random)
    light = _light(random) if move == "exposure" else (lambda at: (1.0, 0.0))
    wall = _Occluder(scene, plan.size, random) if move == "occlusion" else None
    count = plan.shot_frames
    blurred = move in ("whip", "shake", "pan")
    for index in range(count):
        at = index / count
        steps = [at + 0.5 * step / (_SHUTTER * count) for step in range(_SHUTTER)] if blurred else [at]
        seen: Any = view.look([path(step) for step in steps])
        boxes = view.boxes(path(steps[len(steps) // 2]))
        hidden = wall.place(seen, at) if wall is not None else np.zeros((0, 4), np.float32)
        gain, offset = light(at)
        if (gain, offset) != (1.0, 0.0):
            seen = cv2.convertScaleAbs(seen, alpha=gain, beta=offset)
        yield seen, _truth(scene, boxes, hidden, plan.size)


def _truth(scene: _Scene, boxes: Boxes, hidden: Boxes, size: Size) -> Truth:
    inside = geometry.clip(boxes, size.width, size.height)
    seen = geometry.area(inside) - geometry.intersection(inside, hidden).sum(axis=1)
    shown = seen / np.maximum(geometry.area(boxes), 1e-6)
    present = np.flatnonzero(geometry.area(inside) > 0)
    counted = (shown >= _VISIBLE) & ~scene.ignored
    return Truth(
        present.astype(np.int64), inside[present], scene.labels[present], counted[present], scene.exhaustive
    )


class _View:
    """A window of the view's shape over a scene."""

    def __init__(self, scene: _Scene, size: Size) -> None:
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


def _path(scene: _Scene, move: str, view: _View, random: np.random.Generator) -> Path3:
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


def _light(random: np.random.Generator) -> Callable[[float], tuple[float, float]]:
    """Exposure over a shot: dark, a step, too bright, and back."""
    dark, bright = random.uniform(0.3, 0.5), random.uniform(1.4, 1.8)

    def at(share: float) -> tuple[float, float]:
        if share < 0.3:
            return 1.0, 0.0
        if share < 0.55:
            return dark, 4.0
        return (bright, 10.0) if share < 0.8 else (1.0, 0.0)

    return at


class _Occluder:
    """A flat post that crosses the picture."""

    def __init__(self, scene: _Scene, size: Size, random: np.random.Generator) -> None:
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
