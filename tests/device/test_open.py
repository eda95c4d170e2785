"""Which device a run gets, and in which words it is refused. A GPU is the shim here."""

import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from streamer import doctor, models, pipeline
from streamer.config import DetectPolicy, Hide, settings_from
from streamer.detector import Detector
from streamer.device import cuda_driver, cuda_probe, cuda_trt, open_device, prove
from streamer.device.cpu import CpuDevice
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_trt import TensorRtSession
from streamer.errors import DeviceError, ModelError
from streamer.image import redact
from tests.device.conftest import no_network
from tests.device.shim_driver import ShimDriver
from tests.device.test_cuda_trt import OnnxEngine


@pytest.fixture
def machine(monkeypatch, shim_library) -> ShimDriver:
    """A machine that has everything."""
    driver = ShimDriver(shim_library)
    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(13000, 1))
    monkeypatch.setattr(cuda_driver, "PycudaDriver", lambda: driver)
    monkeypatch.setattr(cuda_trt, "backend", lambda: None)
    return driver


def refused(monkeypatch: pytest.MonkeyPatch, spec: models.ModelSpec | None = None) -> str:
    """Why `cuda` is refused; `auto` must give the same reason and take the CPU."""
    with pytest.raises(DeviceError, match="CUDA cannot be used") as caught:
        open_device("cuda", spec=spec)
    opened = open_device("auto", spec=spec)
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
    prove(CpuDevice(), models.find("fast"))


@pytest.fixture
def engine(machine, monkeypatch) -> OnnxEngine:
    """What TensorRT makes of the network there."""
    engine = OnnxEngine()
    monkeypatch.setattr(
        cuda_trt,
        "load",
        lambda driver, pool, spec, side, precision: TensorRtSession(
            driver, pool, OnnxEngine(spec) if spec.decoder == "second" else engine
        ),
    )
    return engine


def test_a_gpu_that_runs_the_network_is_taken(engine) -> None:
    opened = open_device("auto", spec=models.find("fast"))
    assert opened.reason.endswith("it is there and masks and runs fast in fp32 as the CPU does")


def test_the_network_is_tried_for_views_as_large_as_the_run_s(engine, monkeypatch) -> None:
    sides: list[int] = []
    real = cuda_trt.load
    monkeypatch.setattr(
        cuda_trt,
        "load",
        lambda driver, pool, spec, side, precision: (
            sides.append(side) or real(driver, pool, spec, side, precision=precision)
        ),
    )
    opened = open_device("cuda", policy=DetectPolicy(side=1920), spec=models.find("fast"))
    Detector(models.find("fast"), opened.device, DetectPolicy(side=1920), Hide.EVERYTHING)
    assert sides == [1920, 64] * 2  # the same engines for both


@pytest.mark.parametrize("kind", [ModelError, RuntimeError, MemoryError])
def test_an_engine_that_cannot_be_built_is_found_at_the_start(engine, monkeypatch, kind) -> None:
    def load(*_: object, precision: str) -> None:
        raise kind("TensorRT cannot build\nthe network")

    monkeypatch.setattr(cuda_trt, "load", load)
    assert "TensorRT cannot build the network" in refused(monkeypatch, models.find("fast"))


def test_an_engine_that_does_not_run_is_found_at_the_start(engine, monkeypatch) -> None:
    engine.context.works = False
    assert "the network failed" in refused(monkeypatch, models.find("fast"))


@pytest.mark.parametrize(
    "wrong", [lambda level: level * np.nan, lambda level: level[..., ::-1], np.zeros_like]
)
def test_an_engine_that_computes_something_else_is_found_at_the_start(engine, monkeypatch, wrong) -> None:
    """It would find no face, and nothing would be masked."""
    real = engine.context.session.run
    engine.context.session = SimpleNamespace(
        run=lambda *given: [wrong(level) for level in real(*given)], get_outputs=engine.session.get_outputs
    )
    assert "answers otherwise" in refused(monkeypatch, models.find("fast"))


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        ("cover", "covers"),
        ("thumbnail", "shrinks"),
        ("view_f32", "shows the network another picture"),
        ("turn_f32", "turns"),
        ("crop_f32", "cuts"),
    ],
)
def test_a_gpu_that_does_not_do_what_it_is_told_is_found_at_the_start(
    engine, machine, monkeypatch, kernel, words
) -> None:
    """A network that is shown something else finds no face there nor on the CPU, and nothing would be masked."""
    real = machine.launch

    def launch(name: str, *how: object) -> None:
        if name != kernel:
            real(name, *how)

    monkeypatch.setattr(machine, "launch", launch)
    assert words in refused(monkeypatch, models.find("fast"))


def test_every_way_in_tries_the_network_of_its_run(engine, monkeypatch) -> None:
    """Files, live streams, pictures and the doctor: what does not run is known before the first frame."""
    engine.context.works = False
    settings = settings_from({})
    for reason in (
        pipeline.open_engine(settings).reason,
        doctor.examine().reason,
    ):
        assert reason.startswith("the CPU is used: the GPU did not pass its test: the network failed")
    assert redact.open_redactor(settings).own.__self__.name == "cpu"  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match="the network failed"):
        redact.open_redactor(settings_from({"device": "cuda"}))


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


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("'Device' object has no attribute\n'retain_primary_context'"),
        TypeError("no to_python converter"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
)
def test_versions_that_do_not_fit_together_are_no_crash(machine, monkeypatch, error) -> None:
    def fail(*_: object) -> None:
        raise error

    for module, name in (
        (cuda_driver, "PycudaDriver"),
        (machine, "load"),
        (cuda_trt, "backend"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, fail)
            assert refused(patched).startswith("the GPU cannot be opened: ")


def test_a_pycuda_that_does_not_load_is_not_called_missing(monkeypatch, tmp_path) -> None:
    """As after an update of CUDA or of NumPy: it is compiled for one of each."""
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    (tmp_path / "pycuda" / "driver.py").write_text("raise ImportError('undefined symbol:\\ncuCtxCreate_v4')")
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        DeviceError, match=r"does not load \(undefined symbol: cuCtxCreate_v4\): install it again"
    ):
        cuda_driver.PycudaDriver()
    sys.modules.pop("pycuda", None)


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
