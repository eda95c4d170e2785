"""Clips in which faces and plates move by themselves, and every frame has exact boxes.

# Note [Moving objects]
A shot is an annotated picture with few objects, seen by a camera that stands still or pans slowly, and before it one
cut-out of another picture after the other: a head with its shoulders, a plate with its bumper. Its box is that of the
annotators, carried along. Only cut-outs are scored; what the picture itself holds is known (its masks are not
needless) and hidden where a cut-out stands before it. The camera's shutter is short, as by day.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer.detection import Label
from streamer.errors import InputError
from streamer.proof.clips import Clip, Plan, Shot, Truth, scene_of, truth_of, write
from streamer.proof.cutouts import Source, cut, outline, place, sources
from streamer.proof.truth import Annotated
from streamer.proof.views import Path3, Picture, Scene, View
from streamer.proof.walks import PILLAR, WALKS, Stage, Walk

MOVES = tuple(WALKS)
SHOTS = 3  # of a clip: four clips show every movement with a face and with a plate
_FREE = 0.02  # share of a background that its own objects may take: their masks would cover the moving ones
_STEPS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # of the time the shutter is open: poses that make up a blurred object
_NOWHERE = np.zeros(4, np.float32)
_WITHOUT = "--moving 0 goes without moving objects"
_T = TypeVar("_T")


def make(pictures: Sequence[Annotated], plan: Plan, folder: Path) -> Iterator[Clip]:
    """Write the clips of a plan into `folder`, one at a time; the same plan and pictures give the same clips.

    Raises InputError if nothing can be cut out or there is nothing to lay it over.
    """
    random = np.random.default_rng([plan.seed, 1])
    found, free = stock_of(pictures)
    stocks = [
        _endless([source for source in found if source.label == label] or found, random) for label in Label
    ]
    grounds = _endless(free, random)

    def shot(index: int) -> Shot:
        move, label = MOVES[index % len(MOVES)], index // len(MOVES) % len(Label)
        return _shot(move, next(grounds), stocks[label], plan, random)

    for number in range(plan.clips):
        shots = (shot(number * plan.shots + index) for index in range(plan.shots))
        yield write(shots, plan.size, folder / f"moving_{number:03d}.mp4", b_frames=number % 2 == 0)


def stock_of(pictures: Sequence[Annotated]) -> tuple[list[Source], list[Annotated]]:
    """What can be cut out and what it can be laid over. Raises InputError if there is none of either."""
    found, free = sources(pictures), [picture for picture in pictures if _is_ground(picture)]
    if not found:
        raise InputError(f"no object is large and clear enough to be cut out and moved ({_WITHOUT})")
    if not free:
        raise InputError(f"no picture is free enough to move other objects over it ({_WITHOUT})")
    return found, free


def _is_ground(picture: Annotated) -> bool:
    return (
        picture.exhaustive
        and float(geometry.area(picture.boxes).sum()) <= _FREE * picture.width * picture.height
    )


def _endless(stock: Sequence[_T], random: np.random.Generator) -> Iterator[_T]:
    """The things in some order, again and again."""
    return cycle([stock[index] for index in random.permutation(len(stock))])


def _shot(
    move: str, ground: Annotated, stock: Iterator[Source], plan: Plan, random: np.random.Generator
) -> Shot:
    stage = Stage(plan.size, plan.shot_frames, random, lambda: cut(next(stock)))
    walks = WALKS[move](stage)
    scene = scene_of([ground], plan.size)
    count = len(walks)
    known = replace(
        scene,
        labels=np.concatenate([scene.labels, np.array([walk.cutout.label for walk in walks], np.uint8)]),
        ignored=np.concatenate([scene.ignored, np.zeros(count, np.bool_)]),
        difficulty=(*scene.difficulty, *[""] * count),
    )
    moving = (*[False] * len(scene.labels), *[True] * count)
    pillar = _Pillar(walks[0], stage) if move == "behind" else None
    return Shot(move, _frames(known, walks, pillar, stage), known.difficulty, moving)


def _frames(
    scene: Scene, walks: Sequence[Walk], pillar: "_Pillar | None", stage: Stage
) -> Iterator[tuple[Picture, Truth]]:
    view = View(scene, stage.size)
    path = _camera(view, stage)
    exposure = stage.random.uniform(0.02, 0.25)  # share of a frame's time
    still = len(scene.labels) - len(walks)
    middle = view.window(path(0.5))[0]
    for index in range(stage.frames):
        at = path(index / stage.frames)
        picture = view.look([at])
        left, _, scale = view.window(at)
        boxes = np.zeros((len(scene.labels), 4), np.float32)
        boxes[:still] = view.boxes(at)
        hiding = []
        for number, walk in enumerate(walks):
            if index in walk.frames:
                place(picture, walk.cutout, [walk.pose(index + exposure * step) for step in _STEPS])
                boxes[still + number], solid = outline(walk.cutout, walk.pose(index))
                hiding.append(solid)
        before = np.ones((len(boxes), len(hiding) + 1), np.bool_)
        before[still:, : len(hiding)] = False  # cut-outs come one by one
        hiding.append(pillar.place(picture, (middle - left) * scale) if pillar else _NOWHERE)
        yield picture, truth_of(scene, boxes, np.array(hiding, np.float32), stage.size, before)


def _camera(view: View, stage: Stage) -> Path3:
    """Still in half of the shots, else a slow pan."""
    x, y = view.width * stage.random.uniform(0.45, 0.55), view.height * stage.random.uniform(0.45, 0.55)
    pan = stage.random.choice((0.0, 1.0)) * stage.side() * stage.random.uniform(0.02, 0.06) * view.width
    return lambda at: (x + pan * (at - 0.5), y, 1.2)


class _Pillar:
    """A round pillar of the background, seen in its middle by a walk halfway through the shot."""

    def __init__(self, walk: Walk, stage: Stage) -> None:
        halfway = walk.pose(stage.frames / 2)
        self._middle = halfway.x
        width, height = round(PILLAR * halfway.length), stage.size.height
        shade = 0.4 + 0.6 * np.sin(np.linspace(0.4, 2.7, width))[None, :, None]
        stone = stage.random.integers(60, 200, 3) + stage.random.normal(0, 4, (height, width, 1))
        self._picture = np.clip(shade * stone, 0, 255).astype(np.uint8)

    def place(self, picture: Picture, shift: float) -> NDArray[np.float32]:
        """Draw it, `shift` pixels to the right; its box (4,)."""
        height, width = self._picture.shape[:2]
        left = round(self._middle + shift - width / 2)
        first, last = max(0, left), min(picture.shape[1], left + width)
        if first >= last:
            return _NOWHERE
        picture[:, first:last] = self._picture[:, first - left : last - left]
        return np.array([first, 0, last, height], np.float32)
