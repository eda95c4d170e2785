"""A file run that is killed or starved on purpose: `python -m streamer.proof.victim HOW SOURCE TARGET [BYTES]`.

HOW is a place at which the process kills itself, or a limit of the system (RLIMIT_FSIZE, RLIMIT_AS; for the latter
BYTES are counted from what the process holds when it starts to work). Exit code 1 and one line on stderr for an error
of ours.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamer import models, pipeline
from streamer.anonymizer import Means
from streamer.config import settings_from
from streamer.device.cpu import CpuDevice
from streamer.errors import StreamerError
from streamer.media.sink import FileSink
from streamer.media.source import FileSource
from streamer.pipeline import Engine, Job
from streamer.proof.scene import ScriptedDetector
from streamer.zones import Zones

PLACES: dict[str, tuple[type, str, int]] = {  # whose function kills, and after how many calls
    "opening": (FileSource, "_look", 0),
    "first picture": (FileSink, "write", 0),
    "middle": (FileSink, "write", 25),
    "finishing": (FileSink, "_finish", 0),
    "renaming": (Path, "replace", 0),
}


class SceneEngine(Engine):
    """The product's engine with a scripted detector that finds the scene's face, until its run number `dies_at`."""

    dies_at: int | None = None

    def means(self) -> Means:
        """What the run works with."""

        def before_each(run: int) -> None:
            if run == type(self).dies_at:
                raise MemoryError("out of device memory")

        detector = ScriptedDetector(before_each)
        return Means(detector, detector.thresholds, self.device, self.settings, self.zones)


class DyingEngine(SceneEngine):
    """Its detector dies at the second look."""

    dies_at = 2


def engine(kind: type[SceneEngine] = SceneEngine) -> Engine:
    """What a run needs; loads no network."""
    settings = settings_from({"output": {"preset": "ultrafast"}})
    return kind(settings, CpuDevice(), "for the proof", models.find(settings.detect.model), Zones())


def _kill_in(owner: type, name: str, after: int) -> None:
    function: Callable[..., Any] = getattr(owner, name)
    calls = [0]

    def call(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    setattr(owner, name, call)


def _limit(name: str, most: int) -> None:
    if name == "RLIMIT_AS":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most += pages * resource.getpagesize()
    resource.setrlimit(getattr(resource, name), (most, most))


def main(how: str, source: str, target: str, most: str = "0", overwrite: str = "") -> None:
    """Run until the end that was asked for."""
    ours = engine()
    if how in PLACES:
        _kill_in(*PLACES[how])
    else:
        _limit(how, int(most))
    try:
        pipeline.run(Job(Path(source), Path(target), overwrite=bool(overwrite)), ours)
    except StreamerError as error:
        sys.exit(f"ours: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
