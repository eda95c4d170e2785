"""The driver over pycuda, whose part is played here by a module with pycuda 2026.1's signatures and the shim's kernels.

It is as strict as Boost.Python: numbers are Python's own, structures have the attributes that they have.
"""

import ctypes
import gc
import sys
import weakref
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamer import models
from streamer.config import Style
from streamer.device import cuda_driver, cuda_layout, cuda_probe
from streamer.device.base import letterbox
from streamer.device.cpu import CpuDevice
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_memory import Pool
from streamer.errors import DeviceError
from streamer.frame import Size
from streamer.masking import whole
from tests.device.conftest import copied, no_network, noise
from tests.device.shim_driver import ShimDriver

ARGS = {
    "sum_cells": cuda_layout.SUM_ARGS,
    "round_cells": cuda_layout.ROUND_ARGS,
    "paint": cuda_layout.PAINT_ARGS,
    "cover": cuda_layout.COVER_ARGS,
    "view_f32": cuda_layout.VIEW_ARGS,
    "view_f16": cuda_layout.VIEW_ARGS,
    "crop_f32": cuda_layout.CROP_ARGS,
    "crop_f16": cuda_layout.CROP_ARGS,
    "thumbnail": cuda_layout.THUMBNAIL_ARGS,
    "turn_f32": cuda_layout.TURN_ARGS,
    "turn_f16": cuda_layout.TURN_ARGS,
}


def number(value: Any) -> int:
    assert type(value) is int, f"{value!r} is a {type(value).__name__}: Boost.Python takes none"
    return value


class Pycuda(ModuleType):
    """pycuda.driver."""

    def __init__(self, shim: ShimDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__("pycuda.driver")
        self.shim = shim
        self.stack: list[str] = []
        self.calls: list[str] = []
        self.sources: list[weakref.ref[np.ndarray]] = []  # of uploads that nobody waited for yet
        self.freed_outside = 0  # page-locked arrays that went without a context: pycuda keeps their memory
        self.Error = type("Error", (Exception,), {})
        self.MemoryError = type("MemoryError", (self.Error,), {})
        self.Context = SimpleNamespace(pop=self.stack.pop)
        self.Stream = lambda flags=0: SimpleNamespace(handle=77 + number(flags), synchronize=self.synchronize)
        monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
        monkeypatch.setitem(sys.modules, "pycuda.driver", self)
        sys.modules["pycuda"].driver = self  # type: ignore[attr-defined]

    def init(self) -> None: ...

    def get_driver_version(self) -> int:
        return 13000

    def Device(self, index: int) -> Any:
        context = SimpleNamespace(push=lambda: self.stack.append("primary"))

        def retain() -> Any:
            self.calls.append("retain the primary context")
            return context

        return SimpleNamespace(
            name=lambda: "GPU", compute_capability=lambda: (9, 0), retain_primary_context=retain
        )

    def synchronize(self) -> None:
        assert all(source() is not None for source in self.sources), (
            "a source went before its upload was done"
        )
        self.sources.clear()
        self.shim.synchronize()

    def mem_alloc(self, size: int) -> Any:
        assert self.stack
        return Allocation(self.shim, number(size))

    def pagelocked_empty(self, shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
        assert self.stack
        array = np.empty(shape, dtype)
        weakref.finalize(array, self._locked_gone).atexit = False
        return array

    def _locked_gone(self) -> None:
        self.freed_outside += not self.stack

    def memset_d8_async(self, address: int, value: int, size: int, stream: Any) -> None:
        assert value == 0
        assert stream.handle == 77
        self.shim.zero(number(address), number(size))

    def module_from_buffer(self, image: bytes) -> Any:
        return SimpleNamespace(get_function=lambda name: Function(self.shim, name))

    def Memcpy2D(self) -> "Copy":
        return Copy(self)

    def Event(self) -> Any:
        event = SimpleNamespace(synchronize=lambda: event, time_till=lambda other: 1.5)
        event.record = lambda stream: event
        return event


class Allocation:
    def __init__(self, shim: ShimDriver, size: int) -> None:
        self.shim, self.address = shim, shim.allocate(size)

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        self.shim.free(self.address)


class Function:
    """A kernel, started as later versions of pycuda do: what a plain call is given must be hashable."""

    def __init__(self, shim: ShimDriver, name: str) -> None:
        self.shim, self.name, self.size = shim, name, 0

    def prepare(self, types: list[str]) -> "Function":
        (kind,) = types
        self.size = int(kind.removesuffix("s"))
        return self

    def __call__(self, *args: Any, **_: Any) -> None:
        hash(args)

    def prepared_async_call(
        self, grid: Any, block: Any, stream: Any, *args: Any, shared_size: int = 0
    ) -> None:
        (data,) = args
        assert isinstance(data, bytes)
        assert isinstance(block, tuple)
        assert len(data) == self.size == ARGS[self.name].itemsize
        assert stream.handle == 77
        grid, block = tuple(map(number, grid)), tuple(map(number, block))
        self.shim.launch(self.name, grid, block, np.frombuffer(data, ARGS[self.name])[0])


class Copy:
    """Memcpy2D."""

    __slots__ = ("cuda", "dst_pitch", "height", "host", "source", "src_pitch", "target", "width_in_bytes")

    def __init__(self, cuda: Pycuda) -> None:
        self.cuda = cuda
        self.host: weakref.ref[np.ndarray] | None = None

    def set_src_host(self, array: np.ndarray) -> None:
        self.source = array.ctypes.data
        self.host = weakref.ref(array)

    def set_dst_host(self, array: np.ndarray) -> None:
        assert array.flags.writeable
        self.target = array.ctypes.data

    def set_src_device(self, address: int) -> None:
        self.source = number(address)

    def set_dst_device(self, address: int) -> None:
        self.target = number(address)

    def __call__(self, stream: Any) -> None:
        assert stream.handle == 77
        assert self.cuda.stack
        width, rows = number(self.width_in_bytes), number(self.height)
        pitches = number(self.dst_pitch), number(self.src_pitch)
        assert min(pitches) >= width  # else CUDA_ERROR_INVALID_VALUE
        self.cuda.shim.copy(self.target, pitches[0], self.source, pitches[1], width, rows)
        if self.host is not None:
            self.cuda.sources.append(self.host)


@pytest.fixture
def cuda(shim_library, monkeypatch) -> Pycuda:
    shim = ShimDriver(shim_library)
    shim._depth = 1  # the stack of contexts is looked at here
    return Pycuda(shim, monkeypatch)


@pytest.mark.parametrize("style", list(Style))
def test_the_whole_device_runs_over_it(cuda, style) -> None:
    device = CudaDevice(cuda_driver.PycudaDriver(), no_network)
    frame = noise(Size(97, 63))
    wanted, resident = copied(frame), copied(frame)
    resident = type(frame)(
        device.own(frame.luma), device.own(frame.chroma), frame.size, 0, 0, frame.time_base
    )
    device.turned(device.view(resident, letterbox(frame.size, 64), models.find("fast")), 1)
    device.thumbnail(resident, 48)
    for ours in (frame, resident):
        device.redact(ours, whole(frame.size), style)
    CpuDevice().redact(wanted, whole(frame.size), style)
    slack = 1 if style is Style.BLUR else 0
    for ours in (frame, resident):
        assert np.abs(np.asarray(ours.luma).astype(int) - wanted.luma).max() <= slack
        assert np.abs(np.asarray(ours.chroma).astype(int) - wanted.chroma).max() <= slack
    lender = device.lender()
    assert lender.stream == 78  # none that ours waits for
    luma, _ = lender.surface(resident)
    device.cover(resident)
    assert len(np.unique(np.asarray(resident.luma))) == 1
    assert (np.asarray(luma) == np.asarray(luma)).all()
    begin = device.driver.mark()
    assert device.driver.elapsed_ms(begin, device.driver.mark()) == 1.5
    assert cuda.stack == []


def test_engines_are_told_apart_by_the_drivers_release(cuda, monkeypatch) -> None:
    """Two releases may offer the same CUDA version."""
    prints = set()
    for release in ("580.65.06", "580.95.05"):
        monkeypatch.setattr(cuda_probe, "release", lambda release=release: release)
        prints.add(cuda_driver.PycudaDriver().fingerprint)
    assert len(prints) == 2
    assert all("GPU 9.0" in each and "13000" in each for each in prints)


class Libcuda:
    """What is asked of libcuda itself."""

    def __init__(self, calls: list[str], code: int = 0) -> None:
        self.calls, self.code = calls, code

    def cuDeviceGet(self, place: Any, index: int) -> int:
        assert index == 0
        return self.code

    def cuDevicePrimaryCtxSetFlags_v2(self, device: Any, flags: int) -> int:
        self.calls.append(f"primary context flags {flags}")
        return 0


def test_the_primary_context_is_one_that_ffmpeg_shares(cuda, monkeypatch) -> None:
    """It refuses one that waits otherwise: NVDEC and NVENC would be left to the cores on every machine."""
    library = Libcuda(cuda.calls)
    monkeypatch.setattr(
        cuda_probe, "ctypes", SimpleNamespace(**vars(ctypes) | {"CDLL": lambda name: library})
    )
    cuda_driver.PycudaDriver()
    assert cuda.calls == ["primary context flags 4", "retain the primary context"]
    for broken in (Libcuda(cuda.calls, code=101), object()):
        monkeypatch.setattr(
            cuda_probe,
            "ctypes",
            SimpleNamespace(**vars(ctypes) | {"CDLL": lambda name, broken=broken: broken}),
        )
        cuda_driver.PycudaDriver()


def test_a_gpu_that_is_too_old_is_refused_before_anything_of_it_is_held(cuda, monkeypatch) -> None:
    """The driver still knows it, and says no more than that there is no kernel image for it."""
    real = cuda.Device
    monkeypatch.setattr(
        cuda,
        "Device",
        lambda index: SimpleNamespace(**vars(real(index)) | {"compute_capability": lambda: (6, 1)}),
    )
    with pytest.raises(DeviceError, match=r"GPU is too old: compute capability 6\.1, 7\.5 is needed"):
        cuda_driver.PycudaDriver()
    assert "retain the primary context" not in cuda.calls


def test_page_locked_memory_goes_inside_of_the_context(cuda) -> None:
    """Blocks come back in whatever thread; where none is current there, pycuda would keep the memory for ever."""
    driver = cuda_driver.PycudaDriver()
    pool = Pool(driver)
    with driver.current():
        held = [pool.host((1000,)) for _ in range(50)]
    held.clear()
    gc.collect()
    assert sum(pool.idle().values()) == 50
    with driver.current():
        pool.host((1000,))
    assert sum(pool.idle().values()) <= 33
    assert cuda.freed_outside == 0


def test_its_errors_are_ours(cuda, monkeypatch) -> None:
    device = CudaDevice(cuda_driver.PycudaDriver(), no_network)

    def full(size: int) -> None:
        raise cuda.MemoryError("cuMemAlloc failed: out of memory")

    monkeypatch.setattr(cuda, "mem_alloc", full)
    with pytest.raises(DeviceError, match="out of memory"):
        device.own(noise(Size(320, 200)).luma)
    assert cuda.stack == []


def test_idle_memory_makes_room_on_a_real_driver_too(cuda, monkeypatch) -> None:
    driver = cuda_driver.PycudaDriver()
    pool, allocate, full = Pool(driver), cuda.mem_alloc, []
    with driver.current():
        pool.take(1000)

    def full_once(size: int) -> Any:
        if not full:
            full.append(size)
            raise cuda.MemoryError("cuMemAlloc failed: out of memory")
        return allocate(size)

    monkeypatch.setattr(cuda, "mem_alloc", full_once)
    with driver.current():
        held = pool.take(2000)
    assert full == [held.size]
    assert not pool.idle()
