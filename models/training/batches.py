"""Batches of samples as tensors, each a pure function of its step: made inline or by worker processes."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from . import quarters
from .augment import Sampler
from .pack import Pack
from .teacher import Teacher

CALM_FROM = 0.85  # part of the run after which mosaics become rare
CALM_MOSAIC = 0.15
SIDES = (320, 448, 320, 576)  # px of a sample by step, in turns: the large ones hold large faces


@dataclass(frozen=True)
class Plan:
    """Which samples make up which step."""

    pack: Path
    seed: int
    samples: int  # of the whole run: the schedule's horizon
    micro_batch: int  # samples of 320 px in one pass through the network
    micro_batches: int  # passes per step and process
    rank: int = 0
    world: int = 1
    first_step: int = 0
    first_sample: int = 0  # samples seen before `first_step`
    mosaic: float = 0.35
    turned: float = 0.0  # share of the samples that are turned by quarters
    teacher: Path | None = None

    def size(self, step: int) -> tuple[int, int]:
        """Side in pixels and samples per pass of a step: fewer of the larger ones."""
        side = SIDES[step % len(SIDES)]
        return side, max(1, round(self.micro_batch * (SIDES[0] / side) ** 2))

    def samples_of(self, step: int) -> int:
        """Samples that all processes together see in a step."""
        return self.size(step)[1] * self.micro_batches * self.world

    def progress(self, step: int) -> float:
        """Part of the horizon that was seen before `step`, 0..1."""
        cycle = [self.samples_of(s) for s in range(len(SIDES))]
        before = [
            s // len(SIDES) * sum(cycle) + sum(cycle[: s % len(SIDES)]) for s in (step, self.first_step)
        ]
        return min(1.0, (self.first_sample + before[0] - before[1]) / self.samples)


@dataclass(frozen=True)
class Batch:
    """What one pass needs; box rows are `image, class, x0, y0, x1, y1`."""

    images: Tensor  # (b, 3, side, side) uint8 BGR
    boxes: Tensor  # (t, 6)
    ignored: Tensor  # (m, 6)
    confidence: Tensor | None = None  # (t,)
    features: list[Tensor] = field(default_factory=list)  # the teacher's maps, float16
    scores: list[Tensor] = field(default_factory=list)

    def to(self, device: torch.device) -> "Batch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory; the loader calls this, and leaves what lacks it in pageable memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        def changed(value: Any) -> Any:
            if isinstance(value, list):
                return [change(part) for part in value]
            return value if value is None else change(value)

        return replace(self, **{f.name: changed(getattr(self, f.name)) for f in fields(self)})


class Batches(Dataset[Batch]):
    """Batch `step * micro_batches + pass` of a plan.

    Opens the pack and the teacher in the process that reads it.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sampler: Sampler | None = None
        self._teacher: Teacher | None = None

    def __getitem__(self, index: int) -> Batch:
        plan = self._plan
        if self._sampler is None:
            cv2.setNumThreads(1)  # the processes are the parallelism; OpenCV's threads do not survive a fork
            self._sampler = Sampler(Pack(plan.pack), plan.seed)
            self._teacher = Teacher(plan.teacher) if plan.teacher else None
        step, turn = divmod(index, plan.micro_batches)
        side, count = plan.size(step)
        mosaic = plan.mosaic if plan.progress(step) < CALM_FROM else CALM_MOSAIC
        turn += plan.rank * plan.micro_batches
        indices = [(step, turn, k) for k in range(count)]
        samples = [self._sampler.sample(index, side, mosaic) for index in indices]
        turns = [quarters.drawn(plan.seed, index, plan.turned) for index in indices]
        boxes = _rows([sample.boxes for sample in samples])
        ignored = _rows([sample.ignored for sample in samples])
        clean = np.stack([sample.clean for sample in samples])
        lesson = self._teacher.teach(clean, boxes) if self._teacher else None
        boxes, ignored = (quarters.turned_boxes(rows, turns, side) for rows in (boxes, ignored))
        turned = quarters.turned_maps(np.stack([sample.image for sample in samples]), turns, (1, 2))
        images = np.ascontiguousarray(turned.transpose(0, 3, 1, 2))
        if lesson is None:
            return Batch(torch.from_numpy(images), torch.from_numpy(boxes), torch.from_numpy(ignored))
        lesson = quarters.turned_lesson(lesson, turns, side)
        return Batch(
            torch.from_numpy(images),
            torch.from_numpy(boxes),
            torch.from_numpy(np.concatenate([ignored, lesson.doubtful])),
            torch.from_numpy(lesson.confidence),
            [torch.from_numpy(level.astype(np.float16)) for level in lesson.features],
            [torch.from_numpy(level.astype(np.float16)) for level in lesson.scores],
        )


def _rows(boxes: list[Any]) -> Any:
    return np.concatenate([np.insert(rows, 0, k, axis=1) for k, rows in enumerate(boxes)]).astype(np.float32)
