"""`streamer bench`: our run beside a plain transcode of the same file, so that only ratios matter.

Each case runs in a process of its own, in turn, several rounds; the median of the rounds is reported with the
processor time of all its threads and the peak of its memory. The plain transcode decodes and encodes with the very
encoder, options and threads that our run uses: it is the limit of what any pixel work in between can reach.
"""

import importlib.util
import multiprocessing
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import av
import numpy as np

from streamer import channel, pipeline
from streamer.config import Settings
from streamer.device import cores
from streamer.errors import StreamerError
from streamer.media.encoders import RECIPES, Shape, codec_of, container_of, options_of, set_up
from streamer.media.source import FileSource
from streamer.pipeline import Job
from streamer.tally import Tally

_MIB = 1024.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One case: medians over the rounds."""

    name: str
    frames: int
    wall_s: float
    cpu_s: float
    peak_mib: float
    ratio: float  # speed beside the plain transcode of the same round, median

    @property
    def rate(self) -> float:
        """Frames per second of wall time."""
        return self.frames / self.wall_s


@dataclass(frozen=True, slots=True)
class Bench:
    """A table of cases on one file."""

    source: Path
    machine: dict[str, str]
    cases: tuple[Measured, ...]
    seconds: dict[str, float]  # our own run by stage, last round

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "input": self.source.name,
            "machine": self.machine,
            "cases": [
                {
                    "name": case.name,
                    "fps": round(case.rate, 2),
                    "ratio_to_transcode": round(case.ratio, 3),
                    "cpu_ms_per_frame": round(1000 * case.cpu_s / case.frames, 2),
                    "peak_mib": round(case.peak_mib),
                }
                for case in self.cases
            ],
            "our_seconds_by_stage": {name: round(value, 3) for name, value in sorted(self.seconds.items())},
        }


def run(source: Path, settings: Settings, rounds: int = 3) -> Bench:
    """Measure decode only, plain transcode, ours and, where it is installed, deface. Takes rounds times all four."""
    cases: dict[str, Callable[[Path, Path, Settings], dict[str, float]]] = {
        "decode only": _decode,
        "plain transcode": _transcode,
        "streamer": _ours,
    }
    if importlib.util.find_spec("deface") is not None:
        cases["deface --scale 640x360"] = _deface
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in cases}
    counted: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="streamer-bench-") as folder:
        for _ in range(rounds):
            for number, (name, case) in enumerate(cases.items()):
                target = Path(folder) / f"{number}.mp4"
                wall_s, cpu_s, peak_mib, extra = _in_a_process(case, source, target, settings)
                taken[name].append((wall_s, cpu_s, peak_mib))
                target.unlink(missing_ok=True)
                if name == "streamer":
                    counted = extra
    frames = int(counted.pop("frames"))
    limit = [wall for wall, _, _ in taken["plain transcode"]]
    measured = tuple(
        Measured(
            name,
            frames,
            statistics.median(wall for wall, _, _ in rows),
            statistics.median(cpu for _, cpu, _ in rows),
            max(peak for _, _, peak in rows),
            statistics.median(plain / wall for plain, (wall, _, _) in zip(limit, rows, strict=True)),
        )
        for name, rows in taken.items()
    )
    return Bench(source, machine(), measured, counted)


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """Whole runs from file to file on one device."""

    frames: int
    median_s: float  # of a run
    p95_s: float
    decoding: str  # by what
    encoding: str

    @property
    def rate(self) -> float:
        """Frames per second of the median run."""
        return self.frames / self.median_s

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "frames": self.frames,
            "fps": round(self.rate, 2),
            "median_ms_per_frame": round(1000 * self.median_s / self.frames, 3),
            "p95_ms_per_frame": round(1000 * self.p95_s / self.frames, 3),
            "decoding": self.decoding,
            "encoding": self.encoding,
        }


def end_to_end(source: Path, settings: Settings, rounds: int) -> dict[str, EndToEnd]:
    """The same file on the GPU and on the CPU, in turn, by device; a first round is not counted.

    Every picture is encoded. Raises DeviceError where there is no GPU.
    """
    output = settings.output.model_copy(update={"reencode": "all"})
    engines = {
        name: pipeline.open_engine(settings.model_copy(update={"device": name, "output": output}))
        for name in ("cuda", "cpu")
    }
    reports: dict[str, list[pipeline.Report]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory(prefix="streamer-bench-") as folder:
        target = Path(folder) / "out.mp4"
        for _ in range(rounds + 1):
            for name, engine in engines.items():
                reports[name].append(pipeline.run(Job(source, target, overwrite=True), engine))
    return {name: _spread(taken[1:]) for name, taken in reports.items()}


def _spread(reports: list[pipeline.Report]) -> EndToEnd:
    median_s, late_s = np.percentile([report.wall_s for report in reports], [50, 95]).tolist()
    last = reports[-1]
    return EndToEnd(last.frames, median_s, late_s, last.decoding, last.encoding or "")


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    return {
        "processor": _processor(),
        "cores": str(cores()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("av", "onnxruntime", "numpy")},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _in_a_process(
    case: Callable[[Path, Path, Settings], dict[str, float]], source: Path, target: Path, settings: Settings
) -> tuple[float, float, float, dict[str, float]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(theirs, case, source, target, settings))
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
    finally:
        process.join()
    if isinstance(answer, str):
        raise StreamerError(f"the benchmark's case failed: {answer}")
    wall_s, cpu_s, peak_mib, extra = answer
    return wall_s, cpu_s, peak_mib, extra


def _measure(
    pipe: Any,
    case: Callable[[Path, Path, Settings], dict[str, float]],
    source: Path,
    target: Path,
    settings: Settings,
) -> None:
    who = resource.RUSAGE_CHILDREN if case is _deface else resource.RUSAGE_SELF
    before = resource.getrusage(who)
    start = perf_counter()
    try:
        extra = case(source, target, settings)
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises
        pipe.send(f"{type(error).__name__}: {error}")
        return
    wall_s = perf_counter() - start
    after = resource.getrusage(who)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    pipe.send((wall_s, cpu_s, after.ru_maxrss / _MIB, extra))


def _decode(source: Path, target: Path, settings: Settings) -> dict[str, float]:
    with av.open(f"file:{source}") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for _ in container.decode(stream):
            pass
    return {}


def _transcode(source: Path, target: Path, settings: Settings) -> dict[str, float]:
    with FileSource(source, tally=Tally(), audio=False, groups=False) as opened:
        info = opened.info
    shape = Shape(info.size, info.time_base, info.rate, info.color, info.sample_aspect_ratio)
    codec = codec_of(container_of(target), settings.output)
    with av.open(f"file:{source}") as container, av.open(f"file:{target}", "w") as out:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        encoded = out.add_stream(
            RECIPES[codec].encoder, rate=info.rate, options=options_of(codec, settings.output, shape)
        )
        assert isinstance(encoded, av.VideoStream)
        set_up(encoded.codec_context, codec, shape)
        encoded.codec_context.pix_fmt = "yuv420p"
        with channel.background(container.decode(stream), pipeline.AHEAD) as pictures:
            for picture in pictures:
                picture.pict_type = 0  # the encoder decides, as in our run
                out.mux(encoded.encode(picture))
        out.mux(encoded.encode(None))
    return {}


def _ours(source: Path, target: Path, settings: Settings) -> dict[str, float]:
    report = pipeline.run(Job(source, target), pipeline.open_engine(settings))
    return {"frames": report.frames, **report.tally.seconds}


def _deface(source: Path, target: Path, settings: Settings) -> dict[str, float]:
    tool = Path(sys.executable).with_name("deface")
    command = [str(tool), str(source), "-o", str(target), "--scale", "640x360"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {}
