"""`streamer bench --device cuda`: detect, track and mask frames that lie on the device already, by the wall clock.

It is the product's own work (`anonymize`), as a live server does it: streams on a thread each, which share one
detector (see Note [Runs together]). Every frame is looked at, for the classes that the settings hide. Nothing is
decoded, encoded, waited for or looked ahead for; copying the frames to where they lie is not counted.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from time import perf_counter, process_time
from typing import Any

import numpy as np

from streamer import pipeline
from streamer.anonymizer import Means, anonymize
from streamer.channel import Worker
from streamer.config import Settings
from streamer.device.base import Device
from streamer.errors import RedactionError
from streamer.frame import Frame, Redacted
from streamer.live.fleet import open_studio
from streamer.tally import Tally

_FRAMES = 12  # of each stream in a round
_RATE = 30  # at which they seem to come


@dataclass(frozen=True, slots=True)
class Resident:
    """Rounds on one device."""

    streams: int
    frames: int  # of all streams in a round
    masks: int  # in them
    median_s: float  # of a round
    p95_s: float
    cpu_s: float  # median processor time of all threads: a process runs Python on one core at a time

    @property
    def rate(self) -> float:
        """Frames per second of all streams together, of the median round."""
        return self.frames / self.median_s

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "streams": self.streams,
            "fps": round(self.rate, 1),
            "masks_per_frame": round(self.masks / self.frames, 2),
            "median_ms_per_frame": round(1000 * self.median_s / self.frames, 4),
            "p95_ms_per_frame": round(1000 * self.p95_s / self.frames, 4),
            "cpu_ms_per_frame": round(1000 * self.cpu_s / self.frames, 4),
        }


def measure(frames: Sequence[Frame], settings: Settings, streams: int, rounds: int) -> dict[str, Resident]:
    """The GPU and the CPU, by name, on frames of one size in main memory; a first round is not counted.

    Each stream shows the frames in turn, and begins one further than the stream before. Raises DeviceError where there
    is no GPU, ModelError, or RedactionError for a frame that would have been covered.
    """
    return {name: _on(name, frames, settings, streams, rounds) for name in ("cuda", "cpu")}


def _on(name: str, frames: Sequence[Frame], settings: Settings, streams: int, rounds: int) -> Resident:
    live = settings.model_copy(
        update={
            "device": name,
            "detect": settings.detect.model_copy(update={"every": 1}),
            "track": settings.track.model_copy(update={"look_ahead_s": 0.0}),
        }
    )
    engine = pipeline.open_engine(live)
    shared = open_studio(engine).detector

    def means() -> Means:
        detect = shared.for_stream(live.hide, lambda: 1.0)
        return Means(detect, shared.thresholds(live.hide), engine.device, live, engine.zones)

    taken = [_round(engine.device, frames, streams, means) for _ in range(rounds + 1)][1:]
    median_s, late_s = np.percentile([took_s for took_s, _, _ in taken], [50, 95]).tolist()
    cpu_s = statistics.median(spent_s for _, spent_s, _ in taken)
    return Resident(streams, streams * _FRAMES, taken[-1][2], median_s, late_s, cpu_s)


def _round(
    device: Device, frames: Sequence[Frame], streams: int, means: Callable[[], Means]
) -> tuple[float, float, int]:
    """Seconds by the clock and of processor time, and masks of one round."""
    clips = [_clip(device, frames, first) for first in range(streams)]
    done: list[list[int]] = [[] for _ in clips]  # masks of each frame
    begun_s, begun_cpu_s = perf_counter(), process_time()
    workers = [
        Worker(partial(_run, clip, means(), masks), name=f"resident {number}")
        for number, (clip, masks) in enumerate(zip(clips, done, strict=True))
    ]
    for worker in workers:
        worker.join()
    took_s, spent_s = perf_counter() - begun_s, process_time() - begun_cpu_s
    for worker in workers:
        if worker.error is not None:
            raise worker.error
    return took_s, spent_s, sum(map(sum, done))


def _run(clip: Sequence[Frame], means: Means, masks: list[int]) -> None:
    for item in anonymize(clip, means, Tally()):
        if isinstance(item, Redacted):
            masks.append(len(item.result.objects))
    if len(masks) != len(clip):
        raise RedactionError(f"{len(masks)} of {len(clip)} frames came out")


def _clip(device: Device, frames: Sequence[Frame], first: int) -> list[Frame]:
    """Frames of one stream on the device, each its own copy: they are masked in place."""
    shown = [frames[(first + number) % len(frames)] for number in range(_FRAMES)]
    return [
        replace(
            frame, luma=device.own(frame.luma), chroma=device.own(frame.chroma), index=number, pts=number,
            time_base=Fraction(1, _RATE), vectors=None, gop=None,
        )
        for number, frame in enumerate(shown)
    ]  # fmt: skip
