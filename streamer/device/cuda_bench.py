"""Where the GPU's time goes: each kernel and the network by CUDA events, whole steps by the wall clock.

Frames are resident: what a hardware decoder would have left on the GPU. Warm-up is not counted; medians and 95th
percentiles are given. "floor" is the time that memory traffic alone would take at a bandwidth measured here by copying.
The CPU does the same whole steps on the same frames, by the wall clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.config import MaskPolicy, Style
from streamer.detection import Label
from streamer.device.base import Device, Letterbox
from streamer.device.cpu import CpuDevice
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_driver import Driver
from streamer.frame import Frame, Size
from streamer.masking import MaskPlan, plan_masks, whole
from streamer.models import ModelSpec

_COPIED = 64 << 20  # bytes of the copy that measures the bandwidth
_WARM_UP = 3  # rounds that are not counted
_LOOK, _NETWORK = "view, all of it", "network, with outputs to the host"
_FEW, _ALL = "mask 20 faces, all of it", "mask everything, all of it"
_TOGETHER = "view, network and 20 masks, one after the other"
_FACES, _FACE_SIDE = 20, 200  # of the masking workload, at 1080 lines


@dataclass(frozen=True, slots=True)
class Stage:
    """One step for a batch of frames, over all rounds."""

    name: str
    frames: int  # of the batch
    median_ms: float  # for the whole batch
    p95_ms: float
    floor_ms: float | None = None  # memory traffic alone
    cpu_median_ms: float | None = None  # the same step on the CPU, where that has it
    cpu_p95_ms: float | None = None

    @property
    def rate(self) -> float:
        """Frames per second, were this step alone."""
        return self.frames / self.median_ms * 1000 if self.median_ms else 0.0


class Stopwatch:
    """A driver that puts an event before and after each kernel; everything else is the driver's."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._marks: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def launch(self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int, int], args: Any) -> None:
        """Start a kernel between two events."""
        begin = self._driver.mark()
        self._driver.launch(kernel, grid, block, args)
        self._marks.append((kernel, begin, self._driver.mark()))

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """Do something between two events."""
        with self._driver.current():
            begin = self._driver.mark()
            result = work()
            self._marks.append((name, begin, self._driver.mark()))
        return result

    def taken(self) -> dict[str, float]:
        """Milliseconds by name since the last call, summed."""
        spent: dict[str, float] = {}
        with self._driver.current():
            self._driver.synchronize()
            for name, begin, end in self._marks:
                spent[name] = spent.get(name, 0.0) + self._driver.elapsed_ms(begin, end)
        self._marks.clear()
        return spent


def measure(
    device: CudaDevice, frames: Sequence[Frame], box: Letterbox, spec: ModelSpec, style: Style, rounds: int
) -> list[Stage]:
    """All stages for one batch of equal frames whose planes lie in main memory, with the CPU's times beside.

    `device` must have been made on a Stopwatch. Raises DeviceError or ModelError.
    """
    watch = device.driver
    if not isinstance(watch, Stopwatch):
        raise TypeError("the device must be made on a Stopwatch")
    session = device.load(spec, max(box.size.width, box.size.height))
    size, count = frames[0].planes_size, len(frames)
    resident = [watch.timed("upload", partial(_resident, device, frame)) for frame in frames]
    faces, everything = [_faces(size)] * count, [whole(size)] * count
    floor_ms = _floor_ms(watch, device, count * size.width * size.height * 3)

    def one_round() -> dict[str, float]:
        tensor = watch.timed(_LOOK, lambda: device.views(resident, box, spec))
        watch.timed(_NETWORK, lambda: session(tensor))
        watch.timed(_FEW, lambda: device.redact_all(resident, faces, style))
        spent = watch.taken()
        watch.timed(_ALL, lambda: device.redact_all(resident, everything, style))
        return _with_sum(spent | {_named(name): ms for name, ms in watch.taken().items()})

    times = [one_round() for _ in range(rounds + _WARM_UP)][_WARM_UP:]
    beside = _cpu_times(frames, box, spec, style, rounds)
    return [
        Stage(
            name, count, *_spread([spent[name] for spent in times]),
            floor_ms if name == _ALL else None,
            *(_spread([spent[name] for spent in beside]) if name in beside[0] else (None, None)),
        )
        for name in times[0]
    ]  # fmt: skip


def _cpu_times(
    frames: Sequence[Frame], box: Letterbox, spec: ModelSpec, style: Style, rounds: int
) -> list[dict[str, float]]:
    """Milliseconds by step of each round; the frames keep their pixels."""
    device = CpuDevice()
    session = device.load(spec, max(box.size.width, box.size.height))
    size = frames[0].planes_size
    faces, everything = _faces(size), whole(size)
    ours = [_resident(device, frame) for frame in frames]

    def one_round() -> dict[str, float]:
        at_s = [perf_counter()]

        def done() -> float:
            at_s.append(perf_counter())
            return (at_s[-1] - at_s[-2]) * 1000

        views, spent = [device.view(frame, box, spec) for frame in ours], {}
        spent[_LOOK] = done()
        for view in views:
            session(view)
        spent[_NETWORK] = done()
        for name, plan in ((_FEW, faces), (_ALL, everything)):
            for frame in ours:
                device.redact(frame, plan, style)
            spent[name] = done()
        return _with_sum(spent)

    return [one_round() for _ in range(rounds + 1)][1:]


def _with_sum(spent: dict[str, float]) -> dict[str, float]:
    return spent | {_TOGETHER: sum(spent[name] for name in (_LOOK, _NETWORK, _FEW))}


def _named(name: str) -> str:
    return name if name.startswith("mask") else f"{name} (everything)"


def _spread(times_ms: Sequence[float]) -> tuple[float, float]:
    median, late = np.percentile(np.array(times_ms), [50, 95]).tolist()
    return median, late


def _resident(device: Device, frame: Frame) -> Frame:
    return Frame(
        device.own(frame.luma),
        device.own(frame.chroma),
        frame.size,
        frame.index,
        frame.pts,
        frame.time_base,
        frame.color,
    )


def _faces(size: Size) -> MaskPlan:
    """Twenty faces spread over the picture, of 200 px at 1080 lines and in proportion elsewhere."""
    side = max(8.0, _FACE_SIDE * size.height / 1080)
    places = np.arange(_FACES)
    left = (places % 5 + 0.5) / 5 * size.width - side / 2
    top = (places // 5 + 0.5) / 4 * size.height - side / 2
    boxes: NDArray[np.float32] = np.stack([left, top, left + side, top + side], 1).astype(np.float32)
    return plan_masks(boxes, np.full(_FACES, Label.FACE, np.uint8), MaskPolicy(), size)


def _floor_ms(watch: Stopwatch, device: CudaDevice, traffic: int) -> float:
    """What `traffic` bytes take, read and written together, at the rate at which this GPU copies."""
    with watch.current():
        memory = device.pool.take(2 * _COPIED)
    half = memory.address + _COPIED
    for _ in range(3):
        watch.timed("copy", lambda: watch.copy(half, 4096, memory.address, 4096, 4096, _COPIED // 4096))
        spent = watch.taken()["copy"]
    return spent * traffic / (2 * _COPIED)
