"""The faults of file runs: killed at every stage, without disk, without memory, with a detector that dies."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

from streamer import pipeline
from streamer.errors import RedactionError
from streamer.frame import Size
from streamer.pipeline import Job
from streamer.proof import scene, victim
from streamer.proof.live_faults import pictures_of
from streamer.proof.outcome import Outcome, Pictures, Unfinished

_LONGEST_S = 120
_DISK = 1500  # bytes that a file may have
_MEMORY = (
    0,
    4 << 20,
    40 << 20,
    120 << 20,
    1 << 30,
)  # bytes beside what the process holds when it starts to work
_LARGE = Size(1280, 720)


def run_victim(how: str, source: Path, target: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    """One run of `victim`. Raises Unfinished if it hangs."""
    command = [sys.executable, "-m", "streamer.proof.victim", how, str(source), str(target), *map(str, words)]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    except subprocess.TimeoutExpired as late:
        raise Unfinished(f"no end within {_LONGEST_S} s") from late


def killed(place: str, name: str) -> Outcome:
    """SIGKILL at one place of the run."""
    with tempfile.TemporaryDirectory(prefix="streamer-proof-") as folder:
        source, target = _clip(Path(folder)), Path(folder) / "out.mp4"
        code = run_victim(place, source, target).returncode
        if code != -9:
            raise Unfinished(f"the run was not killed: exit code {code}")
        return _rerun(name, f"killed; {_left(target)}", source, target)


def disk_full(name: str) -> Outcome:
    """No file may grow beyond a few bytes."""
    with tempfile.TemporaryDirectory(prefix="streamer-proof-") as folder:
        source, target = _clip(Path(folder)), Path(folder) / "out.mp4"
        done = run_victim("RLIMIT_FSIZE", source, target, _DISK)
        if done.returncode != 1 or "ours: " not in done.stderr:
            raise Unfinished(f"not an error of ours: exit code {done.returncode}")
        return _rerun(name, f"no file may exceed {_DISK} bytes: one error; {_left(target)}", source, target)


def memory_limit(name: str) -> Outcome:
    """The address space is limited to what the process holds, and little more."""
    with tempfile.TemporaryDirectory(prefix="streamer-proof-") as folder:
        source, target = _clip(Path(folder), _LARGE), Path(folder) / "out.mp4"
        ends = []
        uncovered = 0
        for more in _MEMORY:
            done = run_victim("RLIMIT_AS", source, target, more)
            if done.returncode and target.exists():
                raise Unfinished(f"exit code {done.returncode}, and yet a file under the final name")
            uncovered += pictures_of(target).uncovered if target.exists() else 0
            ends.append("done" if not done.returncode else "an error" if done.returncode == 1 else "died")
            target.unlink(missing_ok=True)
        said = ", ".join(f"{more >> 20} MiB: {end}" for more, end in zip(_MEMORY, ends, strict=True))
        return _rerun(name, f"beside what it held {said}", source, target, uncovered=uncovered)


def detector_dies(name: str) -> Outcome:
    """The detector fails at its second look."""
    with tempfile.TemporaryDirectory(prefix="streamer-proof-") as folder:
        source, target = _clip(Path(folder)), Path(folder) / "out.mp4"
        try:
            pipeline.run(Job(source, target), victim.engine(victim.DyingEngine))
        except RedactionError as error:
            happened = f"{error}; {_left(target)}"
        else:
            raise Unfinished("the run went on without its detector")
        return _rerun(name, happened, source, target)


def _clip(folder: Path, size: Size = scene.SIZE) -> Path:
    return scene.write_clip(folder / "in.mp4", seconds=1.6, rate=25, size=size, format_name="mp4")


def _left(target: Path) -> str:
    """What a run left behind. Raises Unfinished if that stands under the final name."""
    if target.exists():
        raise Unfinished("a file under the final name")
    rest = [path for path in target.parent.iterdir() if path.name != "in.mp4"]
    leaks = sum(pictures_of(path).uncovered for path in rest)
    if leaks:
        raise Unfinished(f"an unfinished file shows the face in {leaks} pictures")
    return "an unfinished file was left" if rest else "nothing was left"


def _rerun(name: str, happened: str, source: Path, target: Path, *, uncovered: int = 0) -> Outcome:
    """The next run, whose result is looked at."""
    started = perf_counter()
    pipeline.run(Job(source, target), victim.engine())
    took_s = perf_counter() - started
    seen = pictures_of(target)
    seen = Pictures(seen.out, seen.covered, seen.uncovered + uncovered)
    rest = sorted(path.name for path in target.parent.iterdir())
    if seen.out != 40 or rest != ["in.mp4", "out.mp4"]:
        raise Unfinished(f"the next run left {', '.join(rest)} with {seen.out} pictures")
    return Outcome(name, happened, seen, round(took_s, 2), "LEAKED" if seen.uncovered else "held")


STORIES: dict[str, Callable[[str], Outcome]] = {
    **{f"file: kill -9, {place}": partial(killed, place) for place in victim.PLACES},
    "file: disk full": disk_full,
    "file: memory limit": memory_limit,
    "file: detector dies": detector_dies,
}
