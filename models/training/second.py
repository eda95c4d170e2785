"""One command from the data folder and our detectors to the second stage's ONNX file."""

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from streamer import resources

from . import network as networks
from .candidates import Candidates, candidates
from .close_ups import Batch, Batches
from .loop import write_whole
from .optimizer import follow
from .pack import pack
from .second_network import BASE, SecondStage, export, load, manifest_line

_WARMUP_STEPS = 300
_LEAST_RATE = 0.01  # of the learning rate, at the end
_DECAY = 0.02
_DROPOUT = 0.1
_CLIP = 5.0
_BOX_FROM = 0.4  # target from which a candidate's box is learned
_BOX_BETA = 0.05  # error up to which a box's loss is quadratic
_LOG_STEPS = 100


@dataclass(frozen=True)
class Settings:
    """How to train; everything that a run depends on besides its batches."""

    out: Path
    init: Path  # a detector's or a second stage's checkpoint, see `second_network.load`
    samples: int  # of the whole run: the schedule's horizon
    seed: int = 0
    batch: int = 128
    lr: float = 8e-4
    device: str = "cpu"
    workers: int = 0  # processes that make batches; 0: inline
    resume: bool = False
    stop_after_steps: int | None = None
    stop_after_s: float = math.inf
    checkpoint_every_s: float = 150.0


class Trainer:
    """The state of a run: weights, their running mean, optimiser, counters."""

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.device = torch.device(settings.device)
        self.stage = load(settings.init, _DROPOUT).to(self.device).train()
        self.stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean = copy.deepcopy(self.stage).eval().requires_grad_(False)
        self._learned = [parameter for parameter in self.stage.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(self._learned, lr=settings.lr, weight_decay=_DECAY)
        self.step = self.seen = 0

    @property
    def checkpoint(self) -> Path:
        """The file that `save` writes and `resume` reads; another run's `init`, too."""
        return self.settings.out / "second.pt"

    def save(self) -> None:
        """Write the checkpoint; the old one stays until the new one is whole."""
        state = {
            "model": BASE,
            "stage": self.stage.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "seen": self.seen,
            "seed": self.settings.seed,
        }
        write_whole(self.checkpoint, state)

    def resume(self) -> None:
        """Continue where the checkpoint ends. Raises ValueError if it is of another seed."""
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["seed"] != self.settings.seed:
            raise ValueError(f"{self.checkpoint} is of seed {state['seed']}, not {self.settings.seed}")
        self.stage.load_state_dict(state["stage"])
        self.mean.load_state_dict(state["mean"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.seen = state["step"], state["seen"]

    def learn(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One step; returns the losses of logits and of boxes, left on the device."""
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)  # what drops out is the step's own, too
        batch = batch.to(self.device)
        images = networks.normalise(batch.images).contiguous(memory_format=torch.channels_last)
        logits, found = self.stage(images, batch.prior)
        scores, boxes = losses(logits, found, batch)
        self._optimizer.zero_grad()
        torch.autograd.backward([scores, boxes])
        nn.utils.clip_grad_norm_(self._learned, _CLIP)
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.lr * self._rate()
        self._optimizer.step()
        self.step += 1
        self.seen += len(batch.labels)
        follow(self.mean, self.stage, self.step)
        return scores.detach(), boxes.detach()

    def _rate(self) -> float:
        progress = min(1.0, self.seen / self.settings.samples)
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return min(1.0, (self.step + 1) / _WARMUP_STEPS) * (_LEAST_RATE + (1 - _LEAST_RATE) * cosine)


def losses(logits: Tensor, boxes: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross entropy of the logits of the candidates' own classes, and smooth L1 of the boxes of real objects."""
    rows = torch.arange(len(batch.labels), device=logits.device)
    scores = F.binary_cross_entropy_with_logits(logits[rows, batch.labels], batch.targets)
    found = boxes.view(len(rows), -1, 4)[rows, batch.labels]
    apart = F.smooth_l1_loss(found, batch.boxes, beta=_BOX_BETA, reduction="none").mean(1)
    real = batch.targets > _BOX_FROM
    return scores, (apart * real).sum() / (real.sum() + 1)


def _from(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1


def train(settings: Settings, folder: Path, found: Candidates) -> Trainer:
    """Learn from candidates of the pack in `folder` until the samples are seen or a limit is met.

    The checkpoint then holds the result.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings)
    if settings.resume and trainer.checkpoint.exists():
        trainer.resume()
    batches = iter(
        DataLoader(
            Batches(folder, found, settings.seed, settings.batch),
            batch_size=None,
            sampler=_from(trainer.step),
            num_workers=settings.workers,
            prefetch_factor=4 if settings.workers else None,
        )
    )
    started = saved = time.monotonic()
    first, costs = trainer.seen, torch.zeros(2, device=trainer.device)
    limit = math.inf if settings.stop_after_steps is None else settings.stop_after_steps
    while trainer.seen < settings.samples and trainer.step < limit:
        now = time.monotonic()
        if now - started > settings.stop_after_s:
            break
        if now - saved > settings.checkpoint_every_s:
            trainer.save()
            saved = now
        costs += torch.stack(trainer.learn(next(batches)))
        if trainer.step % _LOG_STEPS == 0:
            rate = (trainer.seen - first) / (time.monotonic() - started)
            _log(settings.out, trainer, costs / _LOG_STEPS, rate)
            costs.zero_()
    trainer.save()
    return trainer


def _log(out: Path, trainer: Trainer, costs: Tensor, rate: float) -> None:
    scores, boxes = (round(cost, 4) for cost in costs.tolist())
    row = {"step": trainer.step, "seen": trainer.seen, "samples_per_s": round(rate), "scores": scores}
    with (out / "second.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row | {"boxes": boxes}) + "\n")


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models.training.second", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with train.json; not needed to export alone")
    parser.add_argument("--out", type=Path, required=True, help="folder for all that is made")
    parser.add_argument("--pack", type=Path, help="folder of the decoded images; default: OUT/pack")
    parser.add_argument(
        "--init",
        type=Path,
        default=resources.path(f"models/training/{BASE}.pt"),
        help="a detector's checkpoint, or a second stage's, to start from; default: the detector that ships",
    )
    parser.add_argument("--samples", type=int, default=4_000_000, help="horizon; 0: export --init as it is")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop and export after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=1, help="batch-making processes; 0: none")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--every", type=int, default=1, help="look for candidates in every n-th picture")
    parser.add_argument(
        "--resume", action="store_true", help="go on from OUT/second.pt; --samples may differ"
    )
    arguments = parser.parse_args(given)
    if arguments.samples and not arguments.data:
        parser.error("--data is needed to train")
    return arguments


def main(arguments: list[str] | None = None) -> None:
    given = _arguments(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    stage: SecondStage
    if given.samples:
        settings = Settings(
            out=given.out,
            init=given.init,
            samples=given.samples,
            seed=given.seed,
            batch=given.batch,
            lr=given.lr,
            device=given.device,
            workers=given.workers,
            resume=given.resume,
            stop_after_s=given.minutes * 60,
        )
        cores = os.cpu_count() or 1
        folder = given.pack or given.out / "pack"
        pack(given.data, folder, workers=cores)
        found = candidates(folder, given.out / "candidates.npz", every=given.every, workers=cores)
        trained = train(settings, folder, found)
        print(f"{len(found)} candidates, {trained.seen} samples")
        stage = trained.mean
    else:
        stage = load(given.init)
    file = given.out / "streamer_second.onnx"
    print(f"{file}: sha256 {export(stage, file)}")
    print(manifest_line(stage))


if __name__ == "__main__":
    main()
