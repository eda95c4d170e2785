"""What this machine has, and what a run would use and why: the facts of `streamer doctor`."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from streamer import models
from streamer.config import Settings
from streamer.device import cores, cuda_probe, open_device, painter
from streamer.device.base import VideoMemory
from streamer.media import hardware
from streamer.media.encoders import NVENC

_PACKAGES = (
    "av",
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "openvino",
    "pycuda",
    "tensorrt",
    "tensorrt_rtx",
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was looked at."""

    name: str
    good: bool | None  # None: neither good nor bad
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was looked at, and the device that `--device auto` takes."""

    device: str
    reason: str
    facts: tuple[Fact, ...]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def examine() -> Report:
    """Look at the machine by trying, as a run with no settings does. Needs nothing, never raises for what is missing.

    Takes a second or two; where there is a GPU and its engine was not built yet, as long as that takes.
    """
    opened = open_device("auto", spec=models.find(Settings().detect.model))
    facts = (*_packages(), *_machine(), *_gpu(opened.device.video))
    return Report(opened.device.name, opened.reason, facts)


def _packages() -> list[Fact]:
    facts = [Fact("python", None, platform.python_version())]
    for name in _PACKAGES:
        try:
            facts.append(Fact(name, None, version(name)))
        except PackageNotFoundError:
            facts.append(Fact(name, None, "not installed"))
    return facts


def _machine() -> list[Fact]:
    problem = painter.problem()
    masks = Fact("masks", None, "in machine code" if problem is None else f"in NumPy: {problem}")
    return [Fact("cores", None, str(cores())), masks]


def _gpu(memory: VideoMemory | None) -> list[Fact]:
    driver = cuda_probe.probe()
    if driver.problem is not None:
        return [Fact("cuda driver", False, driver.problem)]
    release = f"release {driver.release}, " if driver.release else ""
    facts = [Fact("cuda driver", True, f"{release}CUDA {driver.text}, {driver.devices} GPU")]
    for codec in ("h264", "hevc"):
        answer = hardware.try_decoding(codec)
        facts.append(Fact(f"decode {codec} on the GPU", answer.works, answer.reason))
    for codec in NVENC:
        answer = hardware.try_encoding(codec, memory)
        facts.append(Fact(f"encode {codec} on the GPU", answer.works, answer.reason))
    return facts
