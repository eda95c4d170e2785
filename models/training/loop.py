"""The training loop: steps, schedule, checkpoints; one process or several, CPU or CUDA."""

import copy
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from . import network as networks
from .batches import Batch, Batches, Plan
from .loss import Targets, detection_loss
from .optimizer import Optimizer, follow
from .teacher import CHANNELS, feature_loss

_WARMUP_STEPS = 200
_LEAST_RATE = 0.015  # of the learning rate, at the end
_BOX_WEIGHT = 2.0
_TEACHER_FOCUS = 6.0  # how much more the feature loss counts where the teacher sees a face
_THINNED = 24  # cells a side from which a map is compared at a quarter of its cells, other ones at each step
_LOG_STEPS = 20
_CLIP = 10.0


@dataclass(frozen=True)
class Settings:
    """How to train; everything that a run depends on besides the data."""

    model: str  # a key of network.SIZES
    out: Path
    plan: Plan
    device: str = "cpu"
    lr: float = 3e-3
    muon_lr: float = 0.02
    distil: float = 3.0  # weight of the feature loss at the start; a tenth at the end
    half: bool = False  # bfloat16 on a CPU that has it; a GPU always computes in it
    workers: int = 0  # processes that make batches; 0: inline
    init: Path | None = None  # checkpoint to start from, of an equal or shallower network
    resume: bool = False
    stop_after_steps: int | None = None
    stop_after_s: float = math.inf
    checkpoint_every_s: float = 150.0


def write_whole(file: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the old one stays until the new one is whole."""
    part = file.with_suffix(".part")
    torch.save(state, part)
    part.replace(file)


class Trainer:
    """The state of a run: weights, their running mean, optimiser, counters."""

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(settings.plan.seed)
        self.settings = settings
        self.device = torch.device(settings.device)
        self.network = networks.build(settings.model)
        if settings.init is not None:
            state = torch.load(settings.init, map_location="cpu", weights_only=True)
            networks.load_grown(self.network, state["mean"])
        self.network = self.network.to(self.device, memory_format=torch.channels_last)
        self.mean = copy.deepcopy(self.network).eval().requires_grad_(False)
        neck = networks.SIZES[settings.model].neck
        taught = networks.STRIDES if settings.plan.teacher else ()
        self.readers = nn.ModuleList(nn.Conv2d(neck, CHANNELS, 1) for _ in taught).to(self.device)
        self.optimizer = Optimizer(self.network, self.readers, lr=settings.lr, muon_lr=settings.muon_lr)
        # The crops have three sizes, so the search for the fastest convolutions ends after a few steps.
        torch.backends.cudnn.benchmark = self.device.type == "cuda"
        self.step = self.seen = 0
        self.positives: dict[int, Tensor] = {}  # per side: running mean of the target sum of a pass

    def zero(self) -> Tensor:
        """A sum to begin with, on the device."""
        return torch.zeros((), dtype=torch.float64, device=self.device)

    @property
    def checkpoint(self) -> Path:
        """The file that `save` writes and `load` reads."""
        return self.settings.out / "checkpoint.pt"

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is whole."""
        state = {
            "model": self.settings.model,
            "network": self.network.state_dict(),
            "mean": self.mean.state_dict(),
            "readers": self.readers.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seen": self.seen,
            "positives": {side: float(mean) for side, mean in self.positives.items()},
        }
        write_whole(self.checkpoint, state)

    def load(self) -> None:
        """Continue where the checkpoint ends."""
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["model"] != self.settings.model:
            raise ValueError(f"{self.checkpoint} holds the model {state['model']}, not {self.settings.model}")
        self.network.load_state_dict(state["network"])
        self.mean.load_state_dict(state["mean"])
        self.readers.load_state_dict(state["readers"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seen = state["step"], state["seen"]
        self.positives = {
            side: torch.tensor(mean, dtype=torch.float64, device=self.device)
            for side, mean in state["positives"].items()
        }

    def learn(self, batch: Batch, weight: float, progress: float) -> dict[str, Tensor]:
        """Add `weight` times a batch's gradient; returns its losses, left on the device: reading one waits for it."""
        side = batch.images.shape[-1]
        batch = batch.to(self.device)
        images = networks.normalise(batch.images).contiguous(memory_format=torch.channels_last)
        half = self.settings.half or self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            maps = self.network.pyramid(images)
            outputs = self.network.read(maps)
        loss = detection_loss(outputs, Targets(batch.boxes, batch.ignored, batch.confidence))
        found = loss.positives.detach().double()
        self.positives[side] = 0.98 * self.positives.get(side, found.clamp(min=20.0)) + 0.02 * found
        usual = self.positives[side].float()
        scores, boxes = loss.scores / usual, loss.boxes / usual
        total = scores + _BOX_WEIGHT * boxes
        taught = self._features(maps, batch) if batch.features else total.new_zeros(())
        total = total + self.settings.distil * (1 - 0.9 * progress) * taught
        (total * weight).backward()
        return {
            "scores": scores.detach(),
            "boxes": boxes.detach(),
            "mean_iou": loss.mean_iou,
            "features": taught.detach(),
        }

    def _features(self, maps: list[Tensor], batch: Batch) -> Tensor:
        losses = []
        for reader, *levels in zip(self.readers, maps, batch.features, batch.scores, strict=True):
            if levels[0].shape[-1] >= _THINNED:
                down, right = self.step // 2 % 2, self.step % 2
                levels = [level[:, :, down::2, right::2] for level in levels]
            own, theirs, seen = (level.float() for level in levels)
            losses.append(feature_loss(reader(own), theirs, 1 + _TEACHER_FOCUS * seen))
        return torch.stack(losses).mean()

    def update(self, progress: float) -> Tensor:
        """Step the weights by the gathered gradients of all processes; returns the gradient's norm."""
        parameters = self.optimizer.parameters
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if dist.is_initialized():
            gathered = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
            dist.all_reduce(gathered)
            parts = gathered.div_(dist.get_world_size()).split([p.numel() for p in parameters])
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.grad = part.view_as(parameter)
        norm = nn.utils.clip_grad_norm_(parameters, _CLIP)
        cosine = (1 + math.cos(math.pi * progress)) / 2
        warm = min(1.0, (self.step + 1) / _WARMUP_STEPS)
        self.optimizer.step(warm * (_LEAST_RATE + (1 - _LEAST_RATE) * cosine))
        self.optimizer.zero_grad()
        follow(self.mean, self.network, self.step + 1)
        return norm


def _forever(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1


def _batches(settings: Settings, plan: Plan) -> Iterator[Batch]:
    loader = DataLoader(
        Batches(plan),
        batch_size=None,
        sampler=_forever(plan.first_step * plan.micro_batches),  # type: ignore[arg-type]
        num_workers=settings.workers,
        pin_memory=settings.device.startswith("cuda"),
        prefetch_factor=2 if settings.workers else None,  # a batch of 256 takes 80 MB of /dev/shm, 150 taught
    )
    return iter(loader)


def _must_stop(halt: bool) -> bool:
    """Whether any process wants to stop; the same answer in all of them."""
    if not dist.is_initialized():
        return halt
    votes = torch.tensor([float(halt)])
    dist.all_reduce(votes)
    return bool(votes > 0)


def train(settings: Settings) -> Trainer:
    """Run until the plan's samples are seen or a limit is met; the last checkpoint holds the result."""
    settings.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings)
    if settings.resume and trainer.checkpoint.exists():
        trainer.load()
    plan = replace(settings.plan, first_step=trainer.step, first_sample=trainer.seen)
    first, started = trainer.step, time.monotonic()
    batches, saved = _batches(settings, plan), started
    sums: defaultdict[str, Tensor] = defaultdict(trainer.zero)
    limit = math.inf if settings.stop_after_steps is None else settings.stop_after_steps
    while True:
        progress, elapsed = plan.progress(trainer.step), time.monotonic() - started
        if _must_stop(progress >= 1 or elapsed > settings.stop_after_s or trainer.step >= limit):
            break
        for _ in range(plan.micro_batches):
            losses = trainer.learn(next(batches), 1 / plan.micro_batches, progress)
            for name, value in losses.items():
                sums[name] += value.double() / plan.micro_batches
        sums["gradient"] += trainer.update(progress)
        trainer.seen += plan.samples_of(trainer.step)
        trainer.step += 1
        if plan.rank == 0:
            if trainer.step % _LOG_STEPS == 0:
                rate = (trainer.seen - plan.first_sample) / (time.monotonic() - started)
                _log(settings.out, trainer, sums, rate, steps=min(_LOG_STEPS, trainer.step - first))
                sums.clear()
            if time.monotonic() - saved > settings.checkpoint_every_s:
                trainer.save()
                saved = time.monotonic()
    if plan.rank == 0:
        trainer.save()
    return trainer


def _log(out: Path, trainer: Trainer, sums: dict[str, Tensor], rate: float, steps: int) -> None:
    row: dict[str, Any] = {"step": trainer.step, "seen": trainer.seen, "samples_per_s": round(rate, 1)}
    row |= {name: round(float(total) / steps, 4) for name, total in sums.items()}
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
