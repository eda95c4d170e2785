"""Clips whose every frame has exact boxes: camera moves over annotated pictures.

# Note [Made clips]
A clip is a row of shots with hard cuts between them. A shot is one annotated picture (or a wall of four, so that
faces become small) seen through a moving window that never leaves the picture, so that nothing unknown comes into
view. The boxes of a frame are those of the picture, carried through the same window. Pictures do not move by
themselves: what does is cut out and moved in the clips of `moving`. No head turns in either.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from streamer.proof.views import Picture, Post, Scene, View, light_of, path_of

RATE = 25
MOVES = ("pan", "zoom", "wall", "shake", "enter", "occlusion", "whip", "exposure")
_VISIBLE = 0.5  # share of an object that must be in view for it to count
_SHUTTER = 5  # pictures averaged for a motion-blurred frame


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
    moving: tuple[bool, ...] = ()  # by track: moves by itself, and the others are not scored; empty: all are


@dataclass(frozen=True, slots=True)
class Shot:
    """What is seen between two cuts."""

    move: str
    frames: Iterable[tuple[Picture, Truth]]
    difficulty: tuple[str, ...]  # per object
    moving: tuple[bool, ...] = ()  # per object, or empty


@dataclass(frozen=True, slots=True)
class Plan:
    """What clips are made of."""

    size: Size
    clips: int
    shots: int = 2
    shot_frames: int = 50
    seed: int = 7


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

    def shot(index: int) -> Shot:
        label, move = Label(index % 2), MOVES[(index // 2) % len(MOVES)]
        scene = scene_of([next_of(label) for _ in range(4 if move == "wall" else 1)], plan.size)
        return Shot(move, _frames(scene, move, plan, random), scene.difficulty)

    for number in range(plan.clips):
        shots = (shot(number * plan.shots + index) for index in range(plan.shots))
        yield write(shots, plan.size, folder / f"clip_{number:03d}.mp4", b_frames=number % 2 == 0)


def _shuffled(stock: list[Annotated], random: np.random.Generator) -> list[Annotated]:
    return [stock[index] for index in random.permutation(len(stock))]


def write(shots: Iterable[Shot], size: Size, path: Path, *, b_frames: bool) -> Clip:
    """Encode shots, one after the other, into a clip."""
    truths: list[Truth] = []
    moves: list[str] = []
    difficulty: list[str] = []
    moving: list[bool] = []
    options = {"crf": "20", "preset": "veryfast", "g": "50", "bf": "2" if b_frames else "0"}
    options["x264-params"] = (
        "mbtree=0:threads=1"  # else x264 does not give the same bytes every time (AVX-512)
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
        for shot in shots:
            for picture, truth in shot.frames:
                tracks = truth.tracks + len(difficulty)
                frame = av.VideoFrame.from_ndarray(picture, "bgr24")
                frame.pts, frame.time_base = len(truths), Fraction(1, RATE)
                container.mux(stream.encode(frame))
                truths.append(replace(truth, tracks=tracks))
                moves.append(shot.move)
            difficulty += shot.difficulty
            moving += shot.moving
        container.mux(stream.encode(None))
    return Clip(path, size, tuple(truths), tuple(moves), tuple(difficulty), tuple(moving))


def scene_of(several: Sequence[Annotated], size: Size) -> Scene:
    """One picture, or a wall of four. Raises InputError if one cannot be read."""
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
    return Scene(
        canvas,
        np.concatenate(boxes),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.ignored for part in parts]),
        all(part.exhaustive for part in parts),
        tuple(word for part in parts for word in part.difficulty),
    )


def _part(annotated: Annotated, size: Size) -> Scene:
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
    return Scene(
        np.asarray(cut, np.uint8),
        moved,
        annotated.labels,
        annotated.ignored,
        annotated.exhaustive,
        annotated.difficulty,
    )


def _frames(
    scene: Scene, move: str, plan: Plan, random: np.random.Generator
) -> Iterator[tuple[Picture, Truth]]:
    view = View(scene, plan.size)
    path = path_of(scene, move, view, random)
    light = light_of(random) if move == "exposure" else (lambda at: (1.0, 0.0))
    wall = Post(scene, plan.size, random) if move == "occlusion" else None
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
        yield seen, truth_of(scene, boxes, hidden, plan.size)


def truth_of(
    scene: Scene, boxes: Boxes, hiding: Boxes, size: Size, before: NDArray[np.bool_] | None = None
) -> Truth:
    """What is seen of the objects (n) of a scene that lie at `boxes` of the view, behind `hiding` (m).

    `before` (n, m) says what stands before what; without it everything stands before every object.
    """
    inside = geometry.clip(boxes, size.width, size.height)
    shared = geometry.intersection(inside, hiding)
    hidden = (shared if before is None else shared * before).sum(axis=1)
    shown = (geometry.area(inside) - hidden) / np.maximum(geometry.area(boxes), 1e-6)
    present = np.flatnonzero(geometry.area(inside) > 0)
    counted = (shown >= _VISIBLE) & ~scene.ignored
    return Truth(
        present.astype(np.int64), inside[present], scene.labels[present], counted[present], scene.exhaustive
    )
