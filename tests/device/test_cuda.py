"""The CUDA device over its driver: memory, failures, other libraries' memory. Kernels run in the shim."""

import gc
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from streamer import models
from streamer.config import MaskPolicy, Style
from streamer.device import cuda_memory, dlpack
from streamer.device.base import letterbox
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_memory import DevicePlane
from streamer.errors import DeviceError, RedactionError
from streamer.frame import Frame, Size
from streamer.masking import MaskPlan, plan_masks, whole
from tests.device.conftest import copied, no_network, noise
from tests.device.shim_driver import ShimDriver

ONE = np.array([[20, 10, 60, 60]], np.float32)


@pytest.fixture
def driver(shim_library) -> ShimDriver:
    return ShimDriver(shim_library)


@pytest.fixture
def gpu(driver) -> CudaDevice:
    return CudaDevice(driver, no_network)


def plan_for(size: Size) -> MaskPlan:
    return plan_masks(ONE, np.zeros(1, np.uint8), MaskPolicy(), size)


def test_a_plane_on_the_gpu_is_a_copy_and_comes_back(gpu) -> None:
    host = noise(Size(37, 21)).luma
    ours = gpu.own(host)
    assert isinstance(ours, DevicePlane)
    assert ours.shape == host.shape
    before = host.copy()
    host[:] = 0
    assert (np.asarray(ours) == before).all()
    assert np.asarray(ours, np.float32).dtype == np.float32


def test_memory_of_other_libraries_is_copied_and_ours_is_lent(gpu) -> None:
    host = noise(Size(38, 22)).chroma[:, 2:17]
    ours = gpu.own(_Lender(host))
    assert (np.asarray(ours) == host).all()
    lent = np.from_dlpack(gpu.own(noise(Size(64, 32), 4).chroma))
    gc.collect()
    assert (lent == noise(Size(64, 32), 4).chroma).all()


class _Lender:
    """Memory that is not a NumPy array to whoever asks."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self) -> object:
        return self.array.__dlpack__()


def test_memory_of_another_kind_is_refused(gpu, driver) -> None:
    with pytest.raises(ValueError, match="uint8"):
        gpu.own(_Lender(np.zeros((4, 4), np.float32)))
    driver.device_type = dlpack.CUDA
    with pytest.raises(DeviceError, match="another kind"):
        gpu.own(_Lender(np.zeros((4, 4), np.uint8)))


def test_a_capsule_that_nobody_takes_is_forgotten() -> None:
    array = np.arange(12, dtype=np.uint8)
    capsule = dlpack.capsule(array.ctypes.data, (3, 4), (4, 1), (dlpack.CPU, 0), array)
    assert len(dlpack._lent) == 1
    del capsule
    gc.collect()
    assert not dlpack._lent


def test_memory_does_not_grow_with_the_number_of_frames(gpu, driver) -> None:
    spec = models.find("fast")

    def work(seed: int) -> None:
        frame = noise(Size(96, 64), seed)
        gpu.view(frame, letterbox(frame.size, 64), spec)
        gpu.thumbnail(frame, 48)
        gpu.redact(frame, plan_for(frame.size), Style.BLUR)
        frame = noise(Size(96, 64), seed)
        gpu.redact(
            Frame(gpu.own(frame.luma), gpu.own(frame.chroma), frame.size, 0, 0, frame.time_base),
            whole(frame.size),
            Style.MOSAIC,
        )

    for seed in range(3):
        work(seed)
    before = len(driver._memory)
    for seed in range(20):
        work(seed)
    assert len(driver._memory) == before
    assert not gpu._mirrors


def mask_some(device: CudaDevice, size: Size, times: int) -> None:
    for seed in range(times):
        device.redact(noise(size, seed), plan_for(size), Style.BLUR)


def test_a_size_that_is_no_longer_used_gives_its_memory_back(gpu, driver, monkeypatch) -> None:
    """As a live source does that changes its size, or a server after a large file."""
    monkeypatch.setattr(cuda_memory, "IDLE_TAKES", 64)
    mask_some(gpu, Size(640, 480), 3)
    np.asarray(gpu.own(noise(Size(640, 480)).luma))
    large = {size for size in gpu.pool.idle() if size >= 640 * 240}
    assert large
    mask_some(gpu, Size(96, 64), 30)
    assert not {size for size in gpu.pool.idle() if size >= 640 * 240}
    assert max(memory.size for memory in driver._memory.values()) < 640 * 240
    before = len(driver._memory)
    mask_some(gpu, Size(96, 64), 30)
    assert len(driver._memory) == before
    mask_some(gpu, Size(640, 480), 1)  # and it may come back


def test_blocks_of_a_lost_gpu_go_without_a_word(gpu, driver, monkeypatch) -> None:
    """They go in whatever thread, between whatever lines: what failed was said where it failed."""
    said: list[object] = []

    def lost(address: int) -> None:
        raise DeviceError("the GPU is lost")

    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with driver.current():
        held = [gpu.pool.take(1000) for _ in range(40)]
    monkeypatch.setattr(driver, "free", lost)
    held.clear()
    gc.collect()
    assert not said


def test_idle_memory_makes_room_for_another_size(gpu, driver, monkeypatch) -> None:
    """What is kept for later must not be the reason that the GPU is full."""
    mask_some(gpu, Size(640, 480), 1)
    real = driver.allocate

    def allocate(size: int) -> int:
        if sum(memory.size for memory in driver._memory.values()) + size > 640 * 480 * 3:
            raise DeviceError("the GPU is out of memory")
        return real(size)

    monkeypatch.setattr(driver, "allocate", allocate)
    mask_some(gpu, Size(960, 480), 1)
    with pytest.raises(DeviceError, match="out of memory"):
        mask_some(gpu, Size(4096, 2160), 1)


def test_what_an_encoder_was_told_of_is_not_freed_before_it(gpu, driver) -> None:
    """It registers addresses, and encodes what lies there: memory that went meanwhile may hold somebody's face."""
    lender, other = gpu.lender(), gpu.lender()
    frames = [noise(Size(96, 64), seed) for seed in range(40)]
    held = [lender.surface(frame) for frame in frames]
    addresses = {luma.address for luma, _ in held}
    assert len(addresses) == 40
    held.clear()
    with driver.current():
        gpu.pool._release(list(gpu.pool._spare))  # as where another size does not fit
    assert addresses <= driver._memory.keys()
    assert other.surface(frames[0])[0].address not in addresses
    again = lender.surface(frames[1])
    assert again[0].address in addresses
    assert (np.asarray(again[0]) == frames[1].luma).all()
    assert (np.asarray(again[1]) == frames[1].chroma).all()
    del lender
    taken = again[0].address
    assert taken in driver._memory  # FFmpeg may hold the last one longer
    del again
    with driver.current():
        gpu.pool._release(list(gpu.pool._spare))
    assert taken not in driver._memory


def test_each_encoder_has_a_stream_that_ours_does_not_wait_for(gpu, driver, monkeypatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(
        driver, "side_stream", lambda: made.append(1) or SimpleNamespace(handle=100 + len(made))
    )
    first, second = gpu.lender(), gpu.lender()
    assert {first.stream, second.stream} == {101, 102}
    del first
    assert gpu.lender().stream == 101  # used again, never destroyed under an encoder that is still closing


def test_an_upload_serves_view_thumbnail_and_redaction(gpu, driver, monkeypatch) -> None:
    uploads: list[int] = []
    real = driver.upload
    monkeypatch.setattr(
        driver, "upload", lambda address, pitch, host: (uploads.append(host.size), real(address, pitch, host))
    )
    frame = noise(Size(96, 64))
    gpu.view(frame, letterbox(frame.size, 64), models.find("fast"))
    gpu.thumbnail(frame, 48)
    gpu.redact(frame, plan_for(frame.size), Style.BLUR)
    assert sum(size == 96 * 64 for size in uploads) == 1
    assert sum(size == 96 * 32 for size in uploads) == 1


@pytest.mark.parametrize(
    "call", ["allocate", "upload", "zero", "sum_cells", "round_cells", "paint", "download"]
)
def test_a_gpu_that_vanishes_is_an_error_at_every_step(gpu, driver, call) -> None:
    frame = noise(Size(96, 64))
    before = copied(frame)
    driver.fail_at = call
    with pytest.raises(DeviceError):
        gpu.redact(frame, plan_for(frame.size), Style.BLUR)
    assert (frame.luma == before.luma).all()
    gpu.cover(frame)  # a frame in main memory can be covered without the GPU
    assert len(np.unique(frame.luma)) == 1


def test_a_frame_that_cannot_be_written_or_a_broken_plan_is_an_error(gpu) -> None:
    frame = noise(Size(96, 64))
    frame.luma.flags.writeable = False
    with pytest.raises(RedactionError):
        gpu.redact(frame, whole(frame.size), Style.MOSAIC)
    plan = whole(frame.size)
    broken = MaskPlan(plan.boxes + 1, plan.cells, plan.shapes, plan.feather, plan.grids)
    with pytest.raises(RedactionError):
        gpu.redact(noise(Size(96, 64)), broken, Style.MOSAIC)


def test_rows_that_are_not_aligned_are_refused(gpu) -> None:
    frame = noise(Size(96, 64))
    luma = gpu.own(frame.luma)
    shifted = DevicePlane(gpu.pool, (62, 90), luma.address + 1, luma.pitch, luma)
    crooked = Frame(shifted, gpu.own(frame.chroma), Size(90, 62), 0, 0, frame.time_base)
    with pytest.raises(RedactionError, match="aligned"):
        gpu.redact(crooked, whole(crooked.size), Style.SOLID)


def test_nothing_to_mask_starts_nothing(gpu, driver) -> None:
    frame = noise(Size(96, 64))
    gpu.redact(
        frame,
        plan_masks(np.zeros((0, 4), np.float32), np.zeros(0, np.uint8), MaskPolicy(), frame.size),
        Style.BLUR,
    )
    assert driver.launches == []
