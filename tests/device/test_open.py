"""Which device a run gets, and in which words it is refused. A GPU is the shim here."""

import ctypes
from types import SimpleNamespace

import pytest

from streamer.device import cuda_driver, cuda_probe, cuda_trt, open_device, prove
from streamer.device.cpu import CpuDevice
from streamer.device.cuda import CudaDevice
from streamer.errors import DeviceError
from tests.device.conftest import no_network
from tests.device.shim_driver import ShimDriver


@pytest.fixture
def machine(monkeypatch, shim_library) -> ShimDriver:
    """A machine that has everything."""
    driver = ShimDriver(shim_library)
    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(13000, 1))
    monkeypatch.setattr(cuda_driver, "PycudaDriver", lambda: driver)
    monkeypatch.setattr(cuda_trt, "backend", lambda: None)
    return driver


def refused(monkeypatch: pytest.MonkeyPatch) -> str:
    """Why `cuda` is refused; `auto` must give the same reason and take the CPU."""
    with pytest.raises(DeviceError, match="CUDA cannot be used") as caught:
        open_device("cuda")
    opened = open_device("auto")
    assert isinstance(opened.device, CpuDevice)
    reason = opened.reason.removeprefix("the CPU is used: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    return reason


def test_a_gpu_that_works_is_taken(machine) -> None:
    for choice in ("auto", "cuda"):
        opened = open_device(choice)
        assert isinstance(opened.device, CudaDevice)
        assert opened.reason.startswith("CUDA on kernels on the CPU")
    assert open_device("cpu").device.name == "cpu"


def test_a_gpu_that_fails_or_masks_otherwise_is_refused(machine, monkeypatch) -> None:
    machine.fail_at = "paint"
    assert "did not pass its test" in refused(monkeypatch)
    machine.fail_at = None
    monkeypatch.setattr(machine, "zero", lambda address, size: ctypes.memset(address, 1, size))
    assert "otherwise than the CPU" in refused(monkeypatch)


def test_the_cpu_passes_the_test_of_a_gpu() -> None:
    prove(CpuDevice())


def test_what_is_missing_is_named(machine, monkeypatch) -> None:
    def absent() -> None:
        raise DeviceError("TensorRT is not installed")

    monkeypatch.setattr(cuda_trt, "backend", absent)
    assert refused(monkeypatch) == "TensorRT is not installed"
    monkeypatch.setattr(cuda_trt, "backend", lambda: None)
    monkeypatch.undo()
    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(13000, 1))
    monkeypatch.setattr(cuda_trt, "backend", lambda: None)
    try:
        import pycuda.driver  # noqa: F401
    except ImportError:
        assert "pycuda is not installed" in refused(monkeypatch)


class Library:
    """What libcuda answers."""

    def __init__(self, code: int = 0, version: int = 13000, devices: int = 1) -> None:
        self.cuInit = lambda flags: code
        self.cuDriverGetVersion = lambda place: self._set(place, version)
        self.cuDeviceGetCount = lambda place: self._set(place, devices)

    @staticmethod
    def _set(place: object, value: int) -> int:
        ctypes.cast(place, ctypes.POINTER(ctypes.c_int))[0] = value
        return 0


@pytest.mark.parametrize(
    ("library", "problem"),
    [
        (Library(), None),
        (Library(version=12080), "too old: CUDA 12.8"),
        (Library(code=100), "sees no GPU"),
        (Library(devices=0), "sees no GPU"),
        (Library(code=803), "error 803"),
    ],
)
def test_the_driver_is_asked_first(monkeypatch, library, problem) -> None:
    monkeypatch.setattr(
        cuda_probe, "ctypes", SimpleNamespace(**vars(ctypes) | {"CDLL": lambda name: library})
    )
    facts = cuda_probe.probe()
    assert facts.problem is None if problem is None else problem in facts.problem


KERNEL = "NVRM version: NVIDIA UNIX {kind}  580.95.05  {rest}\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1)\n"


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        ("x86_64 Kernel Module", "Tue Sep 23 10:11:16 UTC 2025"),
        ("Open Kernel Module for x86_64", "Release Build  (dvs-builder@U22-I3)"),
    ],
)
def test_the_driver_says_its_release(monkeypatch, tmp_path, kind, rest) -> None:
    monkeypatch.setattr(cuda_probe, "_SAID", tmp_path / "version")
    (tmp_path / "version").write_text(KERNEL.format(kind=kind, rest=rest))
    assert cuda_probe.release() == "580.95.05"


def test_where_the_kernel_says_nothing_nvml_does(monkeypatch, tmp_path) -> None:
    class Nvml:
        @staticmethod
        def nvmlInit_v2() -> int:
            return 0

        nvmlShutdown = nvmlInit_v2

        @staticmethod
        def nvmlSystemGetDriverVersion(place: ctypes.Array[ctypes.c_char], size: int) -> int:
            assert size >= 80  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
            place.value = b"581.15"
            return 0

    monkeypatch.setattr(cuda_probe, "_SAID", tmp_path / "absent")
    monkeypatch.setattr(cuda_probe, "ctypes", SimpleNamespace(**vars(ctypes) | {"CDLL": lambda name: Nvml}))
    assert cuda_probe.release() == "581.15"
    monkeypatch.setattr(
        cuda_probe, "ctypes", SimpleNamespace(**vars(ctypes) | {"CDLL": lambda name: object()})
    )
    assert cuda_probe.release() == ""


def test_no_driver_touches_nothing_of_tensorrt(monkeypatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(cuda_probe, "ctypes", SimpleNamespace(CDLL=missing))
    monkeypatch.setattr(cuda_trt, "backend", lambda: pytest.fail("TensorRT was touched"))
    assert "libcuda" in refused(monkeypatch)


def test_a_device_that_loads_nothing_still_masks(shim_library) -> None:
    prove(CudaDevice(ShimDriver(shim_library), no_network))


@pytest.mark.parametrize(("kind", "words"), [("MemoryError", "out of memory"), ("Error", "nvidia-smi")])
def test_what_the_driver_raises_is_one_line_of_ours(kind, words) -> None:
    class Error(Exception):
        pass

    cuda = SimpleNamespace(Error=Error, MemoryError=type("MemoryError", (Error,), {}))
    with pytest.raises(DeviceError, match=words) as caught, cuda_driver._translated(cuda):
        raise getattr(cuda, kind)("cuMemAlloc failed")
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_out_of_memory_at_the_start_is_refused(machine, monkeypatch) -> None:
    machine.fail_at = "allocate"
    assert "did not pass its test" in refused(monkeypatch)
