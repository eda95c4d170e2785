"""The proof itself: make clips, let the product (and peers) work on them as users do, judge what comes out."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from streamer import config, pipeline
from streamer.pipeline import Engine, Job
from streamer.proof import clips, peers, truth
from streamer.proof.clips import Clip
from streamer.proof.judge import judge
from streamer.proof.score import Ledger, Score
from streamer.proof.truth import Annotated

Maker = Callable[[Sequence[Annotated], clips.Plan, Path], Iterator[Clip]]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of working: the defaults with some settings laid on top."""

    name: str
    values: dict[str, Any]  # nested, as in a configuration file


@dataclass(frozen=True, slots=True)
class Task:
    """What to prove."""

    data: Path
    plan: clips.Plan
    variants: tuple[Variant, ...]
    peers: tuple[str, ...] = ()
    keep: Path | None = None  # where clips and results stay; None: they are deleted
    make: Maker = clips.make  # or that of `moving`


def prove(task: Task, say: Callable[[str], None] = lambda _: None) -> list[Score]:
    """A score per variant and peer, all over the same clips. `say` is told what happens.

    Clips are made of annotated pictures of real people; they are deleted afterwards unless `keep` is given.
    """
    for name in task.peers:
        peers.check(name)
    pictures = truth.load(task.data)
    engines = [(variant, _engine(variant)) for variant in task.variants]
    ledgers = {name: Ledger(name) for name in [variant.name for variant in task.variants] + list(task.peers)}
    with ExitStack() as stack:
        folder = task.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamer-proof-")))
        folder.mkdir(parents=True, exist_ok=True)
        for number, clip in enumerate(task.make(pictures, task.plan, folder)):
            workers: list[tuple[str, Callable[[Path], object]]] = [
                (variant.name, _ours(clip, engine)) for variant, engine in engines
            ]
            workers += [(name, _theirs(clip, name)) for name in task.peers]
            for name, work in workers:
                say(
                    f"clip {number + 1} of {task.plan.clips} ({', '.join(dict.fromkeys(clip.moves))}): {name}"
                )
                _one(clip, ledgers[name], work, keep=task.keep is not None)
            if task.keep is None:
                clip.path.unlink()
    return [ledger.score() for ledger in ledgers.values()]


def sweep(name: str, values: Sequence[Any], base: dict[str, Any]) -> tuple[Variant, ...]:
    """Variants that differ in one setting, such as `detect.side`."""
    part, key = name.split(".", 1)
    return tuple(Variant(f"{key}={value}", config.overlay(base, {part: {key: value}})) for value in values)


def _engine(variant: Variant) -> Engine:
    return pipeline.open_engine(config.settings_from(variant.values, origin=variant.name))


def _ours(clip: Clip, engine: Engine) -> Callable[[Path], object]:
    return lambda target: pipeline.run(Job(clip.path, target, overwrite=True), engine)


def _theirs(clip: Clip, name: str) -> Callable[[Path], object]:
    return lambda target: peers.run(name, clip.path, target)


def _one(clip: Clip, ledger: Ledger, work: Callable[[Path], object], *, keep: bool) -> None:
    target = clip.path.with_name(f"{clip.path.stem}_{ledger.slug}.mp4")
    started = perf_counter()
    work(target)
    seconds = perf_counter() - started
    ledger.add(clip, list(judge(clip, target)), seconds)
    if not keep:
        target.unlink()
