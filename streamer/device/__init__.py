"""Where pixels live: the Device protocol and its two makers, CPU and CUDA."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Literal

import numpy as np

from streamer.config import Precision, Runtime, Style
from streamer.device import cuda_driver, cuda_probe, cuda_trt
from streamer.device.base import Device
from streamer.device.cpu import CpuDevice
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_driver import Driver
from streamer.errors import DeviceError, StreamerError
from streamer.frame import Frame, Size
from streamer.masking import whole


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
    runtime: Runtime = "onnxruntime",
    precision: Precision = "fp32",
) -> Opened:
    """The device for a run; decided once, at its start.

    `threads` is how many cores one run of a network may use on the CPU, `runtime` what runs it there, `precision`
    that of networks on the GPU. Raises DeviceError where `cuda` was asked for and cannot be had: it never becomes
    the CPU by itself.
    """
    if choice == "cpu":
        return Opened(CpuDevice(threads, runtime), "the CPU was asked for")
    try:
        device = open_cuda(precision=precision)
    except DeviceError as error:
        if choice == "cuda":
            message = f"CUDA cannot be used: {error}; use --device cpu, or auto to let streamer choose"
            raise DeviceError(message) from error
        return Opened(CpuDevice(threads, runtime), f"the CPU is used: {error}")
    why = "it was asked for" if choice == "cuda" else "it is there and passed its test"
    return Opened(device, f"CUDA on {device.driver.name}: {why}")


def open_cuda(wrapped: Callable[[Driver], Driver] | None = None, precision: Precision = "fp32") -> CudaDevice:
    """The first GPU, after it masked a picture as the CPU does. Raises DeviceError, in one line, why it cannot be used.

    The driver is asked first: TensorRT ends the process where there is none. `wrapped` may put something between the
    driver and the device (cuda_bench.Stopwatch).
    """
    facts = cuda_probe.probe()
    if facts.problem is not None:
        raise DeviceError(facts.problem)
    cuda_trt.backend()
    driver = cuda_driver.PycudaDriver()
    device = CudaDevice(wrapped(driver) if wrapped else driver, partial(cuda_trt.load, precision=precision))
    prove(device)
    return device


def prove(device: Device) -> None:
    """Raises DeviceError unless the device masks a small picture as the CPU does, to the bit."""
    size = Size(130, 94)
    luma = (np.arange(size.width * size.height, dtype=np.uint32) * 2654435761 >> 24).astype(np.uint8)
    luma = luma.reshape(size.height, size.width)
    ours, wanted = (
        Frame(luma.copy(), luma[::2].reshape(47, 65, 2).copy(), size, 0, 0, Fraction(1)) for _ in range(2)
    )
    try:
        device.redact(ours, whole(size), Style.MOSAIC)
    except StreamerError as error:
        raise DeviceError(f"the GPU did not pass its test: {error}") from error
    CpuDevice().redact(wanted, whole(size), Style.MOSAIC)
    if not (np.array_equal(ours.luma, wanted.luma) and np.array_equal(ours.chroma, wanted.chroma)):
        raise DeviceError("the GPU did not pass its test: it masks otherwise than the CPU")
