"""One command from the data folder to the ONNX file."""

import argparse
import math
import os
from pathlib import Path

import torch

from . import network as networks
from .batches import Plan
from .export import export
from .loop import Settings, train
from .pack import pack
from .processes import train_together


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m models.training", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for pack, log, checkpoint and ONNX")
    parser.add_argument("--model", choices=sorted(networks.SIZES), default="fast")
    parser.add_argument("--samples", type=int, default=2_000_000, help="the schedule's horizon")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, default=1, help="training processes of one thread (CPU)")
    parser.add_argument("--workers", type=int, help="batch-making processes; default: 0 on CPU, all on CUDA")
    parser.add_argument("--batch", type=int, help="samples per step; default: 32 on CPU, 256 on CUDA")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--turned", type=float, default=0.0, help="share of the samples turned by quarters")
    parser.add_argument(
        "--init", type=Path, help="checkpoint of an equal, shallower or narrower network to start from"
    )
    parser.add_argument("--teacher", type=Path, help="YuNet ONNX to distil faces from")
    parser.add_argument("--pack", type=Path, help="folder of the decoded images; default: OUT/pack")
    parser.add_argument(
        "--resume", action="store_true", help="go on from OUT/checkpoint.pt; --samples may differ"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop and export after so long")
    return parser.parse_args()


def _settings(given: argparse.Namespace) -> Settings:
    cuda = given.device == "cuda"
    processes = 1 if cuda else given.processes
    batch = given.batch or (256 if cuda else 32)
    micro_batch = batch if cuda else 8  # small passes stay in a CPU's cache: a third faster than 16
    plan = Plan(
        pack=given.pack or given.out / "pack",
        seed=given.seed,
        samples=given.samples,
        micro_batch=min(micro_batch, batch),
        micro_batches=max(1, batch // (micro_batch * processes)),
        world=processes,
        turned=given.turned,
        teacher=given.teacher,
    )
    workers = given.workers if given.workers is not None else (os.cpu_count() or 1 if cuda else 0)
    growth = min(2.0, math.sqrt(batch / 32))
    return Settings(
        model=given.model,
        out=given.out,
        plan=plan,
        device=given.device,
        lr=given.lr * growth,
        muon_lr=given.lr * growth / 0.15,
        half=not cuda and torch.cpu._is_avx512_bf16_supported(),
        workers=workers,
        init=given.init,
        resume=given.resume,
        stop_after_s=given.minutes * 60,
    )


def main() -> None:
    given = _arguments()
    settings = _settings(given)
    pack(given.data, settings.plan.pack, workers=os.cpu_count() or 1)
    if settings.plan.world > 1:
        train_together(settings)
    else:
        train(settings)
    state = torch.load(settings.out / "checkpoint.pt", map_location="cpu", weights_only=True)
    network = networks.build(settings.model)
    network.load_state_dict(state["mean"])
    file = settings.out / f"streamer_{settings.model}.onnx"
    print(f"{file}: {state['seen']} samples, sha256 {export(network, file)}")


if __name__ == "__main__":
    main()
