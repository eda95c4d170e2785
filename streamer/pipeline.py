"""The named convenience: one file through source, anonymizer and sink, with a report at the end."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

from streamer import __version__, channel, masking, models
from streamer.anonymizer import Means, anonymize
from streamer.config import Settings
from streamer.detector import Detector
from streamer.device import cores, open_device
from streamer.device.base import Device
from streamer.errors import DeviceError, OutputError
from streamer.frame import Clean, FrameResult, Redacted
from streamer.media.encoders import codec_of, container_of
from streamer.media.sink import FileSink, check_beside, check_output, copy_refusal
from streamer.media.source import AudioPacket, FileSource, VideoInfo
from streamer.models import ModelSpec
from streamer.part import Part
from streamer.tally import Tally
from streamer.zones import Zones, load_zones

AHEAD = 2  # items that each thread works ahead
_MOST_THREADS = 4  # of the network, which is too small to use more


@dataclass(frozen=True, slots=True)
class Engine:
    """What is opened once and serves every input of a run."""

    settings: Settings
    device: Device
    reason: str  # why this device
    spec: ModelSpec
    zones: Zones

    def means(self) -> Means:
        """What one stream works with; sessions are not shared between streams."""
        detector = Detector(self.spec, self.device, self.settings.detect, self.settings.hide)
        return Means(detector, detector.thresholds, self.device, self.settings, self.zones)


def open_engine(settings: Settings) -> Engine:
    """Find the device, the weights and the zones. Raises DeviceError, ModelError or ConfigError."""
    spec = models.find(settings.detect.model)
    opened = open_device(settings.device, _threads(), settings.detect, spec)
    zones = load_zones(settings.zones) if settings.zones is not None else Zones()
    return Engine(settings, opened.device, opened.reason, spec, zones)


def _threads() -> int:
    """Cores that one run of the network may use: what is encoded waits for it, and where groups are copied all does."""
    return min(_MOST_THREADS, cores(), max(2, cores() // 2))


@dataclass(frozen=True, slots=True)
class Job:
    """One file to work on."""

    source: Path
    target: Path | None  # None: only look (dry run)
    objects: Path | None = None  # where each frame's result is written, one JSON object a line
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands."""

    frames: int
    total: int | None
    faces: int
    plates: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was done with one file."""

    job: Job
    engine: Engine
    info: VideoInfo
    tally: Tally
    frames: int
    wall_s: float
    copy_refusal: str | None
    decoding: str  # by what
    encoding: str | None  # by what; None in a dry run
    versions: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        events = dict(sorted(self.tally.events.items()))
        runs = {
            name.removeprefix("detector: "): n for name, n in events.items() if name.startswith("detector: ")
        }
        covered = {
            name.removeprefix("covered: "): n for name, n in events.items() if name.startswith("covered: ")
        }
        copied = events.get("frames copied", 0)
        settings = self.engine.settings.model_dump(mode="json")
        return {
            "input": str(self.job.source),
            "output": str(self.job.target) if self.job.target else None,
            "versions": {"streamer": __version__, **self.versions},
            "device": {
                "name": self.engine.device.name,
                "why": self.engine.reason,
                "decoding": self.decoding,
                "encoding": self.encoding,
            },
            "model": {"name": self.engine.spec.name, "sha256": self.engine.spec.sha256},
            "settings": settings,
            "video": {
                "codec": self.info.codec,
                "width": self.info.size.width,
                "height": self.info.size.height,
                "frames": self.frames,
                "rate": float(self.info.rate),
            },
            "hidden": {"faces": events.get("faces", 0), "plates": events.get("plates", 0)},
            "frames": {
                "masked": events.get("frames masked", 0),
                "masked_before_first_detection": events.get("frames masked early", 0),
                "copied_without_encoding": copied,
                "decoded_twice": events.get("frames decoded twice", 0),
                "covered_whole": covered,
            },
            "copying": self.copy_refusal or "groups of pictures without masks are copied",
            "detector_runs": {"total": events.get("detector runs", 0), "by_reason": runs},
            "seconds": {
                "wall": round(self.wall_s, 3),
                **{name: round(seconds, 3) for name, seconds in sorted(self.tally.seconds.items())},
            },
            "input_faults": {
                name: events[name]
                for name in ("damaged packets", "read errors", "time stamps mended", "sound out of time")
                if name in events
            },
            "notes": list(self.tally.notes),
        }


def run(job: Job, engine: Engine, progress: Callable[[Progress], None] | None = None) -> Report:
    """Anonymize one video file.

    Raises InputError, OutputError, ConfigError, DeviceError or RedactionError; then nothing
    stands under the target's name.
    """
    try:
        return _run(job, engine, progress)
    except channel.NoThreadError as error:
        raise DeviceError(str(error)) from error


def _run(job: Job, engine: Engine, progress: Callable[[Progress], None] | None) -> Report:
    started = perf_counter()
    tally = Tally()
    settings = engine.settings
    for weakness in masking.weaknesses(settings.mask):
        tally.note(weakness)
    refusal: str | None = "dry run"
    codec = None
    if job.target is not None:
        check_output(job.source, job.target, overwrite=job.overwrite)
        refusal = copy_refusal(job.target, settings.output)
        codec = codec_of(container_of(job.target), settings.output)
    if job.objects is not None:
        check_beside(job.objects, [job.source, *([job.target] if job.target is not None else [])])
    with ExitStack() as stack:
        audio = job.target is not None and settings.output.audio == "keep"
        source = stack.enter_context(
            FileSource(
                job.source, tally=tally, audio=audio, groups=refusal is None, into=codec, device=engine.device
            )
        )
        objects = stack.enter_context(_Objects(job.objects))
        sink = (
            stack.enter_context(
                FileSink(job.target, source, settings.output, tally=tally, device=engine.device)
            )
            if job.target
            else None
        )
        decoded = stack.enter_context(channel.background(source, AHEAD, name="decode"))
        items = anonymize(decoded, engine.means(), tally)
        ready = stack.enter_context(channel.background(items, AHEAD, name="anonymize"))
        frames = 0
        for item in ready:
            if sink is not None:
                sink.write(item)
            for result in _results(item):
                objects.write(result)
                frames += 1
                if progress is not None:
                    progress(
                        Progress(frames, source.info.frames, tally.events["faces"], tally.events["plates"])
                    )
        objects.finish()
        info = source.info
    encoding = sink.encoding if sink is not None else None
    refusal = refusal or info.copy_refusal
    return Report(
        job, engine, info, tally, frames, perf_counter() - started, refusal, source.decoding, encoding
    )


def _results(item: Redacted | Clean | AudioPacket) -> Iterable[FrameResult]:
    if isinstance(item, Redacted):
        return (item.result,)
    return item.results if isinstance(item, Clean) else ()


class _Objects:
    """Writes results as JSON lines, under the final name only once all are there."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._part: Part | None = None

    def __enter__(self) -> "_Objects":
        if self._path is not None:
            self._part = Part(self._path)
            with self._errors():
                self._file = self._part.path.open("w", encoding="utf-8")
        return self

    def write(self, result: FrameResult) -> None:
        if self._file is not None:
            with self._errors():
                self._file.write(json.dumps(result.as_dict()) + "\n")

    def finish(self) -> None:
        """All are there: nothing that can fail is left for after the video has its name."""
        if self._file is not None:
            with self._errors():
                self._file.flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is None or self._part is None:
            return
        try:
            with self._errors():
                self._file.close()
                if kind is None:
                    self._part.keep()
                    self._part = None
        finally:
            if self._part is not None:
                self._part.drop()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot be written ({error.strerror}): {self._path}") from error
