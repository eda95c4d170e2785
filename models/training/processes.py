"""Several training processes of one thread each, on one machine, that share every gradient."""

import multiprocessing
import os
import socket
import sys
import threading
from dataclasses import replace

import torch
import torch.distributed as dist
import torch.multiprocessing

from streamer.device.heap import keep_freed_memory

from .loop import Settings, train


def train_together(settings: Settings) -> None:
    """`train` in as many processes as the plan names; the first writes the checkpoint."""
    torch.multiprocessing.spawn(_one_of_many, (settings, _free_port()), nprocs=settings.plan.world)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_the_parent() -> None:
    """Let this process end when the one that started it does, however that was ended: else it trains on, unseen, and
    writes over the checkpoints of the run that follows."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _one_of_many(rank: int, settings: Settings, port: int) -> None:
    _end_with_the_parent()
    torch.set_num_threads(1)
    keep_freed_memory()  # 16 % more samples a second: each pass would ask for its maps' pages again
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=settings.plan.world)
    train(replace(settings, plan=replace(settings.plan, rank=rank)))
    # All is on the disk, so leave without tearing the interpreter down: there one process of some hundred was aborted
    # ("terminate called without an active exception") by a thread that is not ours, and the other ended with it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
