"""Frames, and CUDA devices whose kernels run here: see shim_driver."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from streamer.device import painter
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_memory import DevicePlane
from streamer.frame import Color, Frame, Size
from tests.device.shim_driver import ShimDriver, build

PLAIN = Color()


def noise(size: Size, seed: int = 0, color: Color = PLAIN) -> Frame:
    """A frame of noise."""
    rng = np.random.default_rng(seed)
    luma = rng.integers(0, 256, (size.even.height, size.even.width), np.uint8)
    chroma = rng.integers(0, 256, (size.even.height // 2, size.even.width // 2, 2), np.uint8)
    return Frame(luma, chroma, size, 0, 0, Fraction(1, 25), color)


def copied(frame: Frame) -> Frame:
    return Frame(frame.luma.copy(), frame.chroma.copy(), frame.size, 0, 0, frame.time_base, frame.color)


def need_painter() -> None:
    """Skip where regions cannot be painted in machine code; fail where they could be and are not."""
    if painter.other_machine() is not None:
        pytest.skip(f"masks are painted in NumPy here: {painter.other_machine()}")
    assert painter.problem() is None


def no_network(*_: object) -> None:
    raise AssertionError("this device loads no networks")


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels, compiled for the CPU; with sanitizers in the process that `test_sanitized` starts."""
    given = os.environ.get("STREAMER_SHIM")
    if given:
        return Path(given)
    try:
        return build(tmp_path_factory.mktemp("shim"))
    except FileNotFoundError:
        if os.environ.get("STREAMER_REQUIRE_REAL") == "1":
            raise
        pytest.skip("g++ is not installed")


@pytest.fixture(params=[False, True], ids=["forward", "backward"])
def driver(request: pytest.FixtureRequest, shim_library: Path) -> ShimDriver:
    """The stand-in for a GPU, with both orders of threads and blocks."""
    return ShimDriver(shim_library, reversed_order=request.param)


@pytest.fixture
def gpu(driver: ShimDriver) -> CudaDevice:
    return CudaDevice(driver, no_network)


def check_on_gpu(ours: Sequence[Frame], wanted: Sequence[Frame]) -> None:
    """Whether these are the wanted frames, and lie on the GPU."""
    assert len(ours) == len(wanted)
    for frame, reference in zip(ours, wanted, strict=True):
        assert isinstance(frame.luma, DevicePlane)
        assert (frame.pts, frame.index, frame.size) == (reference.pts, reference.index, reference.size)
        assert (np.asarray(frame.luma) == reference.luma).all()
        assert (np.asarray(frame.chroma) == reference.chroma).all()
