"""Candidates: what our detectors mark in the training pictures, right or wrong, with what is really there.

The product's own `Detector` looks, so that the second stage learns from what it will be given: voted boxes and scores,
from views of several sides, since how large an object is in the view decides how well it is marked.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer import models
from streamer.config import DetectPolicy, Hide
from streamer.detection import Detections
from streamer.detector import LOW_SHARE, Detector
from streamer.device.base import letterbox
from streamer.device.cpu import CpuDevice
from streamer.frame import Size
from streamer.image.redact import frame_of

from .network import CLASSES
from .pack import Pack, Picture

SCORE = 0.045  # least score of a candidate
VOTING = SCORE / 2  # least score of a box that has a vote on candidates
MOST = 120  # of a picture and look
NONE_IOU, SAME_IOU = (
    0.3,
    0.5,
)  # with a labelled box: up to the first it is a mistake, from the second that object
IGNORED_SHARE = 0.3  # of a candidate, or IoU, from which an ignored box makes it neither
UNKNOWN_SCORE = 0.25  # from which a candidate of a class that its picture does not label may well be right
_SURE = 0.003  # scores nearer to 0 or 1 count as this near


@dataclass(frozen=True)
class Look:
    """One detector at one side of the view, at every so-manieth picture."""

    model: str
    side: int
    every: int = 1


LOOKS = (Look("fast", 640), Look("fast", 448), Look("fast", 320), Look("accurate", 640, every=3))


@dataclass(frozen=True)
class Candidates:
    """A struct of arrays of equal length."""

    pictures: NDArray[np.int32]  # (n,) indices into the pack's pictures
    boxes: NDArray[np.float32]  # (n, 4) x0 y0 x1 y1 in pixels of the packed picture
    scores: NDArray[np.float32]  # (n,)
    labels: NDArray[np.uint8]  # (n,)
    scales: NDArray[np.float32]  # (n,) pixels of the detector's view by pixels of the picture
    targets: NDArray[np.float32]  # (n,) 0 a mistake, 1 an object
    truths: NDArray[np.float32]  # (n, 4) the labelled box that overlaps most; zeros without one

    def __len__(self) -> int:
        return len(self.pictures)

    def prior(self) -> NDArray[np.float32]:
        """What the detector thought (n, 2): log odds of its score, and half the binary logarithm of the root of the
        box's area in the view, less 2 (so 0 for 16 pixels)."""
        score = np.clip(self.scores, _SURE, 1 - _SURE)
        area = np.maximum(geometry.area(self.boxes) * self.scales**2, 1)
        return np.stack([np.log(score / (1 - score)), np.log2(area) / 4 - 2], 1).astype(np.float32)


def _concatenated(parts: Sequence[Candidates]) -> Candidates:
    names = [field.name for field in fields(Candidates)]
    return Candidates(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def judged(number: int, picture: Picture, found: Detections, scale: float) -> Candidates:
    """The candidates among what was found in picture `number`: those of which it is known what they are."""
    best, truth = np.zeros(len(found), np.float32), np.zeros((len(found), 4), np.float32)
    unclear = np.zeros(len(found), bool)
    for label in range(len(CLASSES)):
        ours = found.labels == label
        boxes = found.boxes[ours]
        real, ignored = (rows[rows[:, 0] == label, 1:] for rows in (picture.boxes, picture.ignored))
        if len(real):
            overlap = geometry.iou(boxes, real)
            best[ours], truth[ours] = overlap.max(1), real[overlap.argmax(1)]
        if len(ignored):
            share = geometry.intersection(boxes, ignored) / np.maximum(geometry.area(boxes), 1e-6)[:, None]
            near = np.maximum(share, geometry.iou(boxes, ignored)).max(1)
            unclear[ours] |= near > IGNORED_SHARE
        if label not in picture.labelled:
            unclear[ours] |= found.scores[ours] > UNKNOWN_SCORE
    target = np.clip((best - NONE_IOU) / (SAME_IOU - NONE_IOU), 0, 1).astype(np.float32)
    kept = (target >= 1) | ~unclear
    count = int(kept.sum())
    return Candidates(
        pictures=np.full(count, number, np.int32),
        boxes=found.boxes[kept],
        scores=found.scores[kept],
        labels=found.labels[kept],
        scales=np.full(count, scale, np.float32),
        targets=target[kept],
        truths=truth[kept],
    )


@lru_cache(maxsize=len(LOOKS))
def _detector(look: Look) -> Detector:
    cv2.setNumThreads(1)  # the processes are the parallelism
    policy = DetectPolicy(model=look.model, side=look.side, threshold=VOTING / LOW_SHARE)
    first = replace(models.find(look.model), second=None)
    return Detector(first, CpuDevice(), policy, Hide.EVERYTHING)


@lru_cache(maxsize=1)
def _pack(folder: Path) -> Pack:
    return Pack(folder)


def _looked(task: tuple[Path, Look, int]) -> Candidates:
    """The candidates that one look at one picture finds."""
    folder, look, number = task
    pack = _pack(folder)
    picture = pack.pictures[number]
    found = _detector(look)(frame_of(np.ascontiguousarray(pack.image(picture)[:, :, ::-1])))
    found = found.take(found.scores >= SCORE)
    found = found.take(np.argsort(-found.scores, kind="stable")[:MOST])
    scale = letterbox(Size(picture.width, picture.height), look.side).scale
    return judged(number, picture, found, scale)


def _each(tasks: list[tuple[Path, Look, int]], workers: int) -> Iterator[Candidates]:
    if workers <= 1:
        yield from map(_looked, tasks)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_looked, tasks, chunksize=64)


def candidates(
    folder: Path, file: Path, *, every: int = 1, workers: int = 1, looks: Sequence[Look] = LOOKS
) -> Candidates:
    """All candidates in every so-manieth picture of the pack in `folder`, kept in `file`; found now unless it holds
    those of the same pictures and detectors.
    """
    index = hashlib.sha256((folder / "index.json").read_bytes()).hexdigest()
    weights = [models.find(look.model).sha256 for look in looks]
    origin = json.dumps([index, weights, [astuple(look) for look in looks], every, SCORE, VOTING, MOST])
    if file.exists():
        with np.load(file) as kept:
            if str(kept["origin"]) == origin:
                return Candidates(**{field.name: kept[field.name] for field in fields(Candidates)})
    numbers = range(0, len(Pack(folder).pictures), every)
    tasks = [(folder, look, number) for look in looks for number in numbers[:: look.every]]
    found = _concatenated(list(_each(tasks, workers)))
    part = file.with_suffix(".part.npz")  # NumPy would append what it misses
    np.savez(part, origin=np.array(origin), **{f.name: getattr(found, f.name) for f in fields(found)})
    part.replace(file)
    return found
