"""Where pixels live: the Device protocol and its two makers, CPU and CUDA."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamer.config import DetectPolicy, Style
from streamer.device import cuda_driver, cuda_probe, cuda_trt
from streamer.device.base import SOLID_CHROMA, SOLID_LUMA, Device, Tensor, crop_letterbox, letterbox
from streamer.device.cpu import CpuDevice
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_driver import Driver
from streamer.errors import DeviceError
from streamer.frame import Frame, Size
from streamer.masking import whole
from streamer.models import ModelSpec

_USUAL = DetectPolicy()


@dataclass(frozen=True, slots=True)
class Opened:
    """The device that was chosen, and why."""

    device: Device
    reason: str  # one line for the report, the doctor and the log


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_device(
    choice: Literal["auto", "cpu", "cuda"],
    threads: int = 1,
    policy: DetectPolicy = _USUAL,
    spec: ModelSpec | None = None,
) -> Opened:
    """The device for a run; decided once, at its start.

    `threads` is how many cores one run of a network may use on the CPU; `policy` says what runs it there, and in which
    precision and for how large a view it runs on the GPU. With `spec`, a GPU is taken only after it ran that network as
    the CPU does; the first time, that builds its engine, which takes a while. Raises DeviceError where `cuda` was asked
    for and cannot be had: it never becomes the CPU by itself.
    """
    if choice == "cpu":
        return Opened(CpuDevice(threads, policy.runtime), "the CPU was asked for")
    try:
        device = open_cuda(policy=policy, spec=spec)
    except DeviceError as error:
        if choice == "cuda":
            message = f"CUDA cannot be used: {error}; use --device cpu, or auto to let streamer choose"
            raise DeviceError(message) from error
        return Opened(CpuDevice(threads, policy.runtime), f"the CPU is used: {error}")
    why = "it was asked for" if choice == "cuda" else "it is there"
    passed = f"masks{f' and runs {spec.name} in {policy.precision}' if spec else ''} as the CPU does"
    return Opened(device, f"CUDA on {device.driver.name}: {why} and {passed}")


def open_cuda(
    wrapped: Callable[[Driver], Driver] | None = None,
    policy: DetectPolicy = _USUAL,
    spec: ModelSpec | None = None,
) -> CudaDevice:
    """The first GPU, after it passed its test (`prove`). Raises DeviceError, in one line, why it cannot be used.

    The driver is asked first: TensorRT ends the process where there is none. `wrapped` may put something between the
    driver and the device (cuda_bench.Stopwatch).
    """
    facts = cuda_probe.probe()
    if facts.problem is not None:
        raise DeviceError(facts.problem)
    try:
        cuda_trt.backend()
        driver = cuda_driver.PycudaDriver()
        load = partial(cuda_trt.load, precision=policy.precision)
        device = CudaDevice(wrapped(driver) if wrapped else driver, load)
    except DeviceError:
        raise
    except Exception as error:  # of versions that do not fit together: whatever it is, `auto` goes on without
        raise DeviceError(f"the GPU cannot be opened: {_words(error)}") from error
    prove(device, spec, policy.side)
    return device


def prove(device: Device, spec: ModelSpec | None = None, side: int = _USUAL.side) -> None:
    """Raises DeviceError unless the device masks and covers a small picture as the CPU does, to the bit, and shows it
    to the network and runs that so.

    It is the network for views of up to `side`, which the run will load.

    What the network sees and its outputs may differ by a tenth of their size: that is far more than float16 costs, and
    far less than what an engine gives that computes something else.
    """
    try:
        _prove_masks(device)
        if spec is not None:
            _prove_network(device, spec, side)
    except Exception as error:
        raise DeviceError(f"the GPU did not pass its test: {_words(error)}") from error


def _words(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())


def _prove_masks(device: Device) -> None:
    """Of frames in main memory and on the device; and that it covers those on the device, and shrinks for tracking."""
    wanted = _test_picture()
    small, reference = (each.thumbnail(wanted, 64).astype(int) for each in (device, CpuDevice()))
    if small.shape != reference.shape or np.abs(small - reference).max() > 1:
        raise DeviceError("it shrinks pictures otherwise than the CPU")
    CpuDevice().redact(wanted, whole(wanted.size), Style.MOSAIC)
    for ours in (_test_picture(), _owned(_test_picture(), device)):
        device.redact(ours, whole(ours.size), Style.MOSAIC)
        if not (np.array_equal(ours.luma, wanted.luma) and np.array_equal(ours.chroma, wanted.chroma)):
            raise DeviceError("it masks otherwise than the CPU")
    covered = _owned(_test_picture(), device)
    device.cover(covered)
    if (np.asarray(covered.luma) != SOLID_LUMA).any() or (np.asarray(covered.chroma) != SOLID_CHROMA).any():
        raise DeviceError("it covers otherwise than the CPU")


def _prove_network(device: Device, spec: ModelSpec, side: int) -> None:
    frame = _test_picture()
    box = letterbox(frame.size, spec.side or 128, spec.stride)
    if spec.side is not None:
        box = replace(box, size=Size(spec.side, spec.side))
    view = device.view(frame, box, spec)
    seen = np.asarray(view, np.float32)
    if not _is_near(seen, CpuDevice().view(frame, box, spec)):
        raise DeviceError("it shows the network another picture than the CPU")
    if not np.array_equal(np.asarray(device.turned(view, 1), np.float32), np.rot90(seen, 1, (2, 3))):
        raise DeviceError("it turns pictures otherwise than the CPU")
    _prove_answers(device, spec, spec.side or side, view)
    if spec.second is not None:
        _prove_second(device, spec.second.spec, frame)


def _prove_second(device: Device, spec: ModelSpec, frame: Frame) -> None:
    side = spec.side or 0
    boxes = [crop_letterbox(middle, 60, frame.planes_size, side) for middle in ((65, 47), (8, 90))]
    crops = device.crops(frame, boxes, spec)
    if not _is_near(np.asarray(crops, np.float32), CpuDevice().crops(frame, boxes, spec)):
        raise DeviceError("it cuts other parts out of pictures than the CPU")
    _prove_answers(device, spec, side, crops)


def _prove_answers(device: Device, spec: ModelSpec, side: int, shown: Tensor) -> None:
    ours = device.load(spec, side)(shown)
    wanted = CpuDevice().load(spec, side)(np.asarray(shown, np.float32))
    if [level.shape for level in ours] != [level.shape for level in wanted]:
        raise DeviceError(f"{spec.name} has other outputs there than on the CPU")
    if not all(_is_near(level, reference) for level, reference in zip(ours, wanted, strict=True)):
        raise DeviceError(f"{spec.name} answers otherwise there than on the CPU")


def _is_near(ours: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    away, size = (float(np.sqrt(np.mean(np.square(part)))) for part in (ours - wanted, wanted))
    return away <= 0.1 * size + 0.01  # and not where it is no number


def _owned(frame: Frame, device: Device) -> Frame:
    return replace(frame, luma=device.own(frame.luma), chroma=device.own(frame.chroma))


def _test_picture() -> Frame:
    size = Size(130, 94)
    luma = (np.arange(size.width * size.height, dtype=np.uint32) * 2654435761 >> 24).astype(np.uint8)
    luma = luma.reshape(size.height, size.width)
    return Frame(luma, luma[::2].reshape(47, 65, 2).copy(), size, 0, 0, Fraction(1))
