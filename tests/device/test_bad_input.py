"""What goes wrong with a GPU, as the command shows it: one line and no file, or the CPU where `auto` was asked for.

Only the edges are stood in for: libcuda, pycuda, TensorRT's runtime, FFmpeg's NVDEC.
"""

# ruff: noqa: F811 - fixtures of another file are arguments here

import ctypes
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from streamer import cli, models
from streamer.config import Hide, settings_from
from streamer.device import cuda_driver, cuda_probe, cuda_trt
from streamer.device.cuda import CudaDevice
from streamer.errors import DeviceError
from streamer.frame import Frame, Size
from streamer.image import redact
from streamer.image.limits import ImageLimits
from streamer.image.picture import from_array
from streamer.live.detecting import SharedDetector
from streamer.live.settings import StreamSettings
from streamer.live.stream import LiveStream, Studio
from streamer.media import hardware
from streamer.media.source import FileSource
from streamer.proof import scene
from streamer.tally import Tally
from streamer.zones import Zones
from tests import clips
from tests.device.conftest import no_network, noise
from tests.device.shim_driver import ShimDriver
from tests.device.test_cuda_run import arguments, driver, pictures  # noqa: F401 - the first two are fixtures
from tests.device.test_cuda_trt import OnnxEngine
from tests.device.test_open import Library


class Run:
    """The command in this process."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any, given: list[str]
    ) -> None:
        self.out, self.report = folder / "out.mp4", folder / "report.json"
        self._capsys, self._monkeypatch, self._given = capsys, monkeypatch, given

    def __call__(self, device: str) -> tuple[int, list[str]]:
        """Its exit code, and the lines that it says in the end."""
        ends = ["--device", device, "-o", str(self.out), "--report", str(self.report)]
        self._monkeypatch.setattr(sys, "argv", ["streamer", *self._given, *ends])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), self._capsys.readouterr().err.strip().splitlines()

    def stops(self, says: str) -> None:
        """`cuda` stops with one line and leaves no file."""
        code, lines = self("cuda")
        assert code == 1
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert says in lines[0]
        assert not list(self.out.parent.glob("out*"))

    def goes_on_with_the_cpu(self, says: str) -> None:
        """`auto` decided at the start, and the report says why."""
        assert self("auto")[0] == 0
        told = json.loads(self.report.read_text())["device"]
        assert told["name"] == "cpu"
        assert told["why"].startswith("the CPU is used: ")
        assert says in told["why"]
        assert len(pictures(self.out)) == 12


@pytest.fixture
def run(tmp_path, capsys, monkeypatch, arguments) -> Run:
    return Run(tmp_path, capsys, monkeypatch, arguments)


def missing(name: str) -> None:
    raise OSError(name)


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (missing, "no NVIDIA driver is installed (libcuda.so.1 not found)"),
        (lambda name: Library(version=12080), "the NVIDIA driver is too old: CUDA 12.8, 13.0 is needed"),
        (lambda name: Library(code=100), "the NVIDIA driver sees no GPU"),
        (lambda name: Library(code=803), "the NVIDIA driver does not start (cuInit: error 803)"),
    ],
)
def test_a_driver_that_will_not_do(run, monkeypatch, load, says) -> None:
    monkeypatch.setattr(cuda_probe, "ctypes", SimpleNamespace(**vars(ctypes) | {"CDLL": load}))
    monkeypatch.setattr(cuda_trt, "backend", lambda: pytest.fail("TensorRT was touched: it ends the process"))
    run.stops(says)
    run.goes_on_with_the_cpu(says)


def full(limit: int, driver: ShimDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of a GPU that has no more than this."""
    real = driver.allocate

    def allocate(size: int) -> int:
        if sum(block.size for block in driver._memory.values()) + size > limit:
            raise DeviceError("the GPU is out of memory: use fewer streams, or a smaller detect.side")
        return real(size)

    monkeypatch.setattr(driver, "allocate", allocate)


def test_a_gpu_that_is_full_at_the_start(run, driver, monkeypatch) -> None:
    full(1000, driver, monkeypatch)
    run.stops("CUDA cannot be used: the GPU did not pass its test: the GPU is out of memory")
    run.goes_on_with_the_cpu("the GPU is out of memory")


def test_a_gpu_that_becomes_full(run, driver, monkeypatch) -> None:
    """As when another program starts: `auto` has decided, and does not change its mind in a file."""
    left = [3]
    real = driver.upload

    def upload(address: int, pitch: int, host: np.ndarray) -> None:
        left[0] -= host.size == 96 * 64  # a frame's luma
        if left[0] == 0:
            full(0, driver, monkeypatch)
        real(address, pitch, host)

    monkeypatch.setattr(driver, "upload", upload)
    for device in ("cuda", "auto"):
        left[0] = 3
        code, lines = run(device)
        assert left[0] <= 0
        assert code == 1
        assert len(lines) == 1
        assert lines[0].startswith("error: the GPU is out of memory: use fewer streams")
        assert not list(run.out.parent.glob("out*"))
        monkeypatch.setattr(driver, "allocate", ShimDriver.allocate.__get__(driver))


def test_a_live_stream_is_covered_while_its_gpu_is_full(shim_library, monkeypatch) -> None:
    driver = ShimDriver(shim_library)
    device = CudaDevice(driver, no_network)

    def connect(size: Any) -> Any:
        for frame in scene.frames():
            yield Frame(
                device.own(frame.luma),
                device.own(frame.chroma),
                frame.size,
                frame.index,
                frame.pts,
                scene.TICK,
            )

    studio = Studio(settings_from({}), device, "in a test", SharedDetector(scene.ScriptedDetector()), Zones())
    stream = LiveStream(
        "camera", StreamSettings(source="rtsp://camera.invalid/", late_ms=150), studio, connect=connect
    )
    judge = scene.Judge()
    stream.add(judge)
    before: list[int] = []

    def done() -> bool:
        if judge.masked >= 10 and not before:
            full(0, driver, monkeypatch)
            with driver.current():
                device.pool._release(list(device.pool._spare))
            before.append(judge.covered)
        return bool(before) and judge.covered >= before[0] + 10

    scene.run_until(stream, done, timeout_s=120)
    assert judge.leaks == 0
    assert stream.failure is None


@pytest.mark.parametrize("call", ["upload", "view_f32", "download"])
def test_a_picture_that_a_lost_gpu_did_not_look_at_is_not_given_out(driver, call) -> None:
    """Neither the next one: a server answers each with the error."""
    redactor = redact.open_redactor(settings_from({"device": "cuda", "detect": {"side": 128}}))
    picture = from_array(np.dstack([noise(Size(96, 64)).luma] * 3), ImageLimits())
    assert redactor(picture, Hide.EVERYTHING).picture.samples.shape == (64, 96, 3)
    driver.fail_at = call
    for _ in range(2):
        with pytest.raises(DeviceError, match="made to fail"):
            redactor(picture, Hide.EVERYTHING)


@pytest.fixture
def tensorrt(driver, monkeypatch, tmp_path) -> SimpleNamespace:
    """TensorRT, whose runtime takes engines of its own version only; `built` counts what was built."""
    state = SimpleNamespace(version=b"11.4", built=0, works=True)

    class Runtime:
        def __init__(self, logger: object) -> None: ...

        def deserialize_cuda_engine(self, data: bytes) -> OnnxEngine | None:
            second = data.endswith(b" of the second stage")
            fits = data.removesuffix(b" of the second stage") == state.version
            spec = models.find("fast").second
            return OnnxEngine(spec.spec if second and spec else None) if fits and state.works else None

    def build(trt: object, network: bytes, limits: cuda_trt.Range, capability: str) -> bytes:
        state.built += 1
        return bytes(state.version) + (b" of the second stage" if limits.most[2] == 64 else b"")

    monkeypatch.undo()
    module = SimpleNamespace(__name__="tensorrt", __version__="11.4", Runtime=Runtime)
    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(13000, 1))
    monkeypatch.setattr(cuda_driver, "PycudaDriver", lambda: driver)
    monkeypatch.setattr(cuda_trt, "backend", lambda: module)
    monkeypatch.setattr(
        cuda_trt, "_logger", lambda trt: SimpleNamespace(last="The engine plan file is not\ncompatible")
    )
    monkeypatch.setattr(cuda_trt, "build_engine", build)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    state.module = module
    return state


def test_an_engine_of_another_version(tensorrt, run) -> None:
    """Another version has another name; where it has not, what does not load is built anew, once."""
    assert run("cuda")[0] == 0
    assert tensorrt.built == 2  # the network and its second stage
    run.out.unlink()
    tensorrt.version = b"11.5"  # as of an update that kept its number
    assert run("cuda")[0] == 0
    assert tensorrt.built == 4
    run.out.unlink()
    tensorrt.module.__version__ = "11.5"
    assert run("cuda")[0] == 0
    assert tensorrt.built == 6
    run.out.unlink()
    tensorrt.works = False
    run.stops('the engine of "fast" does not load (The engine plan file is not compatible)')
    run.goes_on_with_the_cpu("does not load")


def test_a_home_that_cannot_be_written_to(tensorrt, run, tmp_path, monkeypatch) -> None:
    """As in many containers: it costs each start the time of building, and nothing else."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(cuda_trt, "_unkept", {})
    assert run("cuda")[0] == 0
    assert tensorrt.built == 2  # each network once for the test at the start and for the run


@pytest.mark.parametrize("where", ["opening", "the first picture"])
@pytest.mark.parametrize(
    "error",
    [
        av.error.ExternalError(1, "no such codec"),
        av.error.PermissionError(1, "no such size"),
        NotImplementedError(),
    ],
)
def test_nvdec_refuses_a_file(shim_library, monkeypatch, tmp_path, where, error) -> None:
    """It shows at the opening, or not before the first picture; the cores decode, and the report says why."""
    path, real = clips.make(tmp_path / "clip.mp4", clips.Clip(frames=12, width=96, height=64)), av.open

    class Container:
        def __init__(self, container: Any) -> None:
            self._container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def __enter__(self) -> "Container":
            return self

        def __exit__(self, *_: object) -> None:
            self._container.close()

        def decode(self, *_: object) -> Any:
            raise error

    def opened(*given: Any, hwaccel: Any = None, **more: Any) -> Any:
        if hwaccel is None:
            return real(*given, **more)
        if where == "opening":
            raise error
        return Container(real(*given, **more))

    monkeypatch.setattr(hardware, "on_gpu", object)
    monkeypatch.setattr(hardware.av, "open", opened)
    device = CudaDevice(ShimDriver(shim_library), no_network)
    with FileSource(path, tally=Tally(), groups=False, device=device) as source:
        assert source.decoding.startswith("decoded on the cores: NVDEC does not take it (")
        assert "\n" not in source.decoding
        assert len([item for item in source if isinstance(item, Frame)]) == 12
