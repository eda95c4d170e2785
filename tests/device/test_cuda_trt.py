"""Engines: built by the real TensorRT-RTX where it is installed; run by a stand-in that uses ONNX Runtime."""

import ctypes
import gc
import importlib
import weakref
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from streamer import models
from streamer.config import DetectPolicy, Hide
from streamer.detector import Detector, tiles
from streamer.device import cuda_trt
from streamer.device.base import letterbox, part_letterbox
from streamer.device.cpu import CpuDevice
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_memory import Pool, views_at_once
from streamer.errors import DeviceError, ModelError
from streamer.frame import Size
from tests.conftest import need
from tests.device.conftest import noise
from tests.device.shim_driver import ShimDriver

SMALL = cuda_trt.Range((1, 3, 64, 64), (1, 3, 64, 96), (2, 3, 96, 96))


@pytest.fixture(scope="module")
def trt():
    need("tensorrt_rtx (it builds engines without a GPU)", find_spec("tensorrt_rtx") is not None)
    return importlib.import_module("tensorrt_rtx")


@pytest.mark.real
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_builds_our_network(trt, precision) -> None:
    if precision == "fp16":
        pytest.importorskip("onnx")
    engine = cuda_trt.build_engine(trt, cuda_trt.network_of(models.find("fast"), precision), SMALL)
    assert len(engine) > 10_000


@pytest.mark.real
@pytest.mark.parametrize(("capability", "asked"), [("7.5", ["SM75"]), ("9.0", []), ("", [])])
def test_tensorrt_rtx_is_told_of_turing(trt, capability, asked) -> None:
    """Its engines run on 8.0 and later, and on nothing older unless that is asked for."""
    told: list[str] = []

    class Config:
        def __init__(self, real: object) -> None:
            self.__dict__["real"] = real

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def __setattr__(self, name: str, value: object) -> None:
            setattr(self.real, name, value)

        def set_compute_capability(self, wanted: object, index: int) -> bool:
            told.append(wanted.name)
            assert self.real.set_compute_capability(wanted, index)
            return True

    class Builder:
        def __init__(self, logger: object) -> None:
            self.real = trt.Builder(logger)

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def create_builder_config(self) -> Config:
            return Config(self.real.create_builder_config())

        def build_serialized_network(self, definition: object, config: Config) -> object:
            return self.real.build_serialized_network(definition, config.real)

    module = SimpleNamespace(**{name: getattr(trt, name) for name in dir(trt)} | {"Builder": Builder})
    engine = cuda_trt.build_engine(
        module, cuda_trt.network_of(models.find("fast"), "fp32"), SMALL, capability
    )
    assert told == asked
    assert len(engine) > 10_000


@pytest.mark.real
def test_tensorrt_builds_for_the_side_that_was_asked_for(trt) -> None:
    spec, ranges = models.find("fast"), []
    recorder = Recorder(trt, seen=ranges)
    for side in (960, 1920):
        cuda_trt.build_engine(recorder, cuda_trt.network_of(spec, "fp32"), cuda_trt.range_of(spec, side))
    assert ranges == [
        [(1, 3, 32, 32), (4, 3, 544, 960), (16, 3, 960, 960)],
        [(1, 3, 32, 32), (4, 3, 1088, 1920), (7, 3, 1920, 1920)],
    ]


def test_fp16_is_the_same_network(shim_library) -> None:
    """Weights and arithmetic in float16, which ONNX Runtime does on the CPU as well; float32 outside."""
    pytest.importorskip("onnx")
    spec, frame = models.find("fast"), noise(Size(320, 180), 2)
    view = CpuDevice().view(frame, letterbox(frame.size, 160), spec)
    files = [cuda_trt.network_of(spec, precision) for precision in ("fp32", "fp16")]
    assert len(files[1]) < 0.6 * len(files[0])
    wanted, ours = (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": view})
        for file in files
    )
    for level, reference in zip(ours, wanted, strict=True):
        assert level.dtype == np.float32
        assert (level != reference).any()
        assert np.abs(level[:, :2] - reference[:, :2]).max() < 0.01


def test_tensorrt_is_never_left_with_a_logger_that_has_gone(trt) -> None:
    """It writes to the first one that it was given as long as any builder or runtime is left."""
    network, builders, loggers = cuda_trt.network_of(models.find("fast"), "fp32"), [], []

    class Module(Recorder):
        def Builder(self, logger: object) -> object:
            loggers.append(weakref.ref(logger))
            builders.append(trt.Builder(logger))
            return builders[-1]

    for _ in range(2):
        cuda_trt.build_engine(Module(trt), network, SMALL)
    del builders[0]
    gc.collect()
    assert loggers[0]() is not None
    assert loggers[0]() is loggers[1]()


def test_tensorrt_refuses_rubbish_in_one_line(trt) -> None:
    with pytest.raises(ModelError, match="understand") as caught:
        cuda_trt.build_engine(trt, b"rubbish", SMALL)
    assert "\n" not in str(caught.value)


def test_a_range_that_the_network_cannot_take_is_one_line(trt) -> None:
    network = cuda_trt.network_of(models.find("fast"), "fp32")
    odd = cuda_trt.Range((1, 4, 64, 64), (1, 4, 64, 64), (0, 4, 1, 1))
    with pytest.raises(ModelError, match="cannot build") as caught:
        cuda_trt.build_engine(trt, network, odd)
    assert "\n" not in str(caught.value)


class OnnxContext:
    """What TensorRtSession asks of a context, done by ONNX Runtime on the same memory."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session, self.addresses, self.shape, self.works = session, {}, (), True
        self.refused: str | None = None  # a tensor whose address it does not take
        self.limits = cuda_trt.range_of(models.find("fast"), 640)  # of its profile

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        sides = zip(self.limits.least, shape, self.limits.most, strict=True)
        return all(low <= side <= high for low, side, high in sides)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        assert address % 16 == 0  # of TensorRT's 256 as much as the shim's memory has
        return name != self.refused

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in (wide := {"score": 2, "box": 8}):  # of the second stage
            return (self.shape[0], wide[name])
        step = {"p8": 8, "p16": 16, "p32": 32}[name]
        return (self.shape[0], 6, self.shape[2] // step, self.shape[3] // step)

    def execute_async_v3(self, stream: int) -> bool:
        values = self._at("x", self.shape)
        for output, result in zip(
            self.session.get_outputs(), self.session.run(None, {"x": values}), strict=True
        ):
            self._at(output.name, result.shape)[:] = result
        return self.works

    def _at(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[name])).reshape(
            shape
        )


class OnnxEngine:
    """What TensorRtSession asks of an engine."""

    def __init__(self, spec: models.ModelSpec | None = None) -> None:
        weights = (spec or models.find("fast")).weights
        self.session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
        self.names = ["x", *(output.name for output in self.session.get_outputs())]
        self.num_io_tensors = len(self.names)
        self.context: OnnxContext | None = OnnxContext(self.session)
        if spec is not None and self.context is not None:
            self.context.limits = cuda_trt.range_of(spec, 640)
        self.dtypes: dict[str, str] = {}

    def get_tensor_name(self, at: int) -> str:
        return self.names[at]

    def get_tensor_mode(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="INPUT" if name == "x" else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=self.dtypes.get(name, "FLOAT"))

    def create_execution_context(self) -> OnnxContext | None:
        return self.context


@pytest.fixture
def engine() -> OnnxEngine:
    return OnnxEngine()


@pytest.fixture
def gpu(shim_library, engine) -> CudaDevice:
    def load(driver: ShimDriver, pool: Pool, spec: models.ModelSpec, side: int) -> cuda_trt.TensorRtSession:
        if spec.decoder == "second":
            return cuda_trt.TensorRtSession(driver, pool, OnnxEngine(spec))
        if engine.context is not None:
            engine.context.limits = cuda_trt.range_of(spec, side)
        return cuda_trt.TensorRtSession(driver, pool, engine)

    return CudaDevice(ShimDriver(shim_library), load)


def test_a_view_larger_than_usual_runs(gpu, engine) -> None:
    """The engine was once built for views of up to 1280, whatever was asked for: the first look failed."""
    frame, policy = noise(Size(1600, 256), 3), DetectPolicy(side=1600, threshold=0.02)
    spec = replace(models.find("fast"), second=None)  # which leaves little of what is marked in noise
    found = Detector(spec, gpu, policy, Hide.EVERYTHING)(frame)
    wanted = Detector(spec, CpuDevice(), policy, Hide.EVERYTHING)(frame)
    assert engine.context.limits.most[2:] == (1600, 1600)
    assert abs(len(found) - len(wanted)) <= 0.01 * len(wanted)  # some are as weak as the weakest that count
    assert len(wanted) > 100


@pytest.mark.parametrize("side", [128, 640, 960, 1290, 1920, 4096])
@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (8000, 48), (2, 2), (701, 701), (3840, 2160)])
def test_every_view_lies_in_the_range_of_its_engine(side, size) -> None:
    """Whole pictures and tiles, the overview, and what is left of a view when the machine cannot keep up."""
    spec = models.find("fast")
    limits, most = cuda_trt.range_of(spec, side), views_at_once(side)
    assert (limits.least[0], limits.most[0]) == (1, most)
    assert all(
        low <= usual <= high for low, usual, high in zip(limits.least, limits.usual, limits.most, strict=True)
    )
    windows = [(0, 0, Size(*size).even.width, Size(*size).even.height), *tiles(Size(*size).even, side)]
    for window in windows:
        for asked in (side, side // 2, side // 3, side // 6):
            view = part_letterbox(window, asked, spec.stride).size
            for least, pixels, largest in zip(
                limits.least[2:], (view.height, view.width), limits.most[2:], strict=True
            ):
                assert least <= pixels <= largest


def test_a_network_of_one_size_has_a_range_of_one_size() -> None:
    spec = replace(models.find("fast"), side=512)
    limits = cuda_trt.range_of(spec, 960)
    assert limits.least[2:] == limits.usual[2:] == limits.most[2:] == (512, 512)


def test_a_run_holds_fewer_views_where_they_are_large() -> None:
    """A network's memory is set aside for the largest batch of the largest views."""
    pixels = [views_at_once(side) * side**2 for side in range(128, 4097, 32)]
    assert max(pixels) <= 16 * 1280**2
    assert min(views_at_once(side) for side in range(128, 1281)) == 16


def test_the_network_sees_what_it_sees_on_the_cpu(gpu) -> None:
    spec, cpu = models.find("fast"), CpuDevice()
    frame = noise(Size(320, 180), 2)
    box = letterbox(frame.size, 160)
    ours = gpu.load(spec, 640)(gpu.view(frame, box, spec))
    wanted = cpu.load(spec, 640)(cpu.view(frame, box, spec))
    for level, reference in zip(ours, wanted, strict=True):
        assert level.shape == reference.shape
        assert np.abs(level[:, :2] - reference[:, :2]).max() < 0.03  # scores, on noise


SURE = 0.06  # of a large face, whose score is scaled down: see Note [Large boxes]


def test_the_detector_finds_what_it_finds_on_the_cpu(gpu) -> None:
    portrait = pytest.importorskip("skimage.data").astronaut()
    frame = noise(Size(512, 512))
    frame.luma[:], frame.chroma[:] = portrait.mean(axis=2).astype(np.uint8), 128
    policy = DetectPolicy(side=320)
    ours, wanted = (
        Detector(models.find("fast"), device, policy, Hide.EVERYTHING)(frame) for device in (gpu, CpuDevice())
    )
    strong = [np.flatnonzero(found.scores > SURE) for found in (ours, wanted)]
    assert len(strong[0]) == len(strong[1]) > 0
    first, second = (
        found.take(index[np.argsort(found.boxes[index, 0])])
        for found, index in zip((ours, wanted), strong, strict=True)
    )
    assert np.abs(first.boxes - second.boxes).max() <= 0.5
    assert np.abs(first.scores - second.scores).max() <= 0.01


@pytest.mark.parametrize("quarters", range(4))
def test_what_lies_on_its_side_is_found_as_on_the_cpu(gpu, quarters) -> None:
    """Alone and together with another picture: each look of the network takes all of them."""
    portrait = pytest.importorskip("skimage.data").astronaut().mean(axis=2).astype(np.uint8)[:, :400]
    turned = np.rot90(portrait, quarters)
    frame, other = (noise(Size(turned.shape[1], turned.shape[0]), seed) for seed in range(2))
    frame.luma[:], frame.chroma[:] = turned, 128
    policy = DetectPolicy(side=320, turned=True)
    ours, cpu = (Detector(models.find("fast"), each, policy, Hide.EVERYTHING) for each in (gpu, CpuDevice()))
    wanted = cpu(frame)
    for found in (ours(frame), ours.together([frame, other])[0]):
        strong = [np.flatnonzero(each.scores > SURE) for each in (found, wanted)]
        assert len(strong[0]) == len(strong[1]) > 0
        first, second = (
            each.take(index[np.argsort(each.boxes[index, 0])])
            for each, index in zip((found, wanted), strong, strict=True)
        )
        assert np.abs(first.boxes - second.boxes).max() <= 0.5
        assert np.abs(first.scores - second.scores).max() <= 0.01


def test_outputs_stay_their_callers(gpu) -> None:
    spec = models.find("fast")
    session, first = gpu.load(spec, 640), noise(Size(96, 64), 1)
    box = letterbox(first.size, 96)
    kept = session(gpu.view(first, box, spec))
    before = [level.copy() for level in kept]
    session(gpu.view(noise(Size(96, 64), 7), box, spec))
    session(gpu.views([first, noise(Size(96, 64), 7)], box, spec))
    assert all((level == old).all() for level, old in zip(kept, before, strict=True))


def test_failures_of_the_engine_are_errors(gpu, engine) -> None:
    spec = models.find("fast")
    session, frame = gpu.load(spec, 640), noise(Size(96, 64))
    with pytest.raises(ModelError, match="takes no view"):
        session(SimpleNamespace(shape=(1, 3, 2048, 2048), address=0))
    engine.context.works = False
    with pytest.raises(DeviceError, match="failed"):
        session(gpu.view(frame, letterbox(frame.size, 96), spec))
    engine.context = None
    with pytest.raises(DeviceError, match="memory"):
        gpu.load(spec, 640)


@pytest.mark.parametrize("name", ["x", "p16"])
def test_an_address_that_is_not_taken_is_an_error(gpu, engine, name) -> None:
    """The network would read or write where the frame before lay: yesterday's boxes for today's picture."""
    spec, frame = models.find("fast"), noise(Size(96, 64))
    session, box = gpu.load(spec, 640), letterbox(Size(96, 64), 96)
    session(gpu.view(frame, box, spec))
    engine.context.refused = name
    with pytest.raises(DeviceError, match="address"):
        session(gpu.view(frame, box, spec))


def test_an_output_without_a_known_shape_is_an_error(gpu, engine, monkeypatch) -> None:
    spec, frame = models.find("fast"), noise(Size(96, 64))
    session = gpu.load(spec, 640)
    monkeypatch.setattr(engine.context, "get_tensor_shape", lambda name: (1, -1, 8, 12))
    with pytest.raises(DeviceError, match="shape"):
        session(gpu.view(frame, letterbox(frame.size, 96), spec))


def test_an_engine_whose_values_are_no_float32_is_refused(gpu, engine) -> None:
    for name in ("x", "p8"):
        engine.dtypes = {name: "HALF"}
        with pytest.raises(ModelError, match="HALF"):
            gpu.load(models.find("fast"), 640)


def test_outputs_lie_as_tensorrt_wants_and_are_waited_for_once(gpu, engine, monkeypatch) -> None:
    spec, frame = models.find("fast"), noise(Size(96, 64))
    session, view = gpu.load(spec, 640), gpu.view(frame, letterbox(Size(96, 64), 96), spec)
    calls: list[str] = []
    real = gpu.driver._check
    monkeypatch.setattr(gpu.driver, "_check", lambda call: (calls.append(call), real(call))[1])
    session(view)
    first, *others = (engine.context.addresses[name] for name in engine.names[1:])
    assert all((address - first) % 256 == 0 for address in others)
    assert len({first, *others}) == 3
    assert [call for call in calls if call in ("download", "synchronize")] == ["download"]


def test_outputs_come_back_through_page_locked_memory(gpu, monkeypatch) -> None:
    """A copy to pageable memory goes through a small buffer of the driver, at a fraction of the speed."""
    spec, frame = models.find("fast"), noise(Size(96, 64))
    session, box = gpu.load(spec, 640), letterbox(Size(96, 64), 96)
    locked: list[int] = []
    real = gpu.driver.page_locked
    monkeypatch.setattr(gpu.driver, "page_locked", lambda size: (locked.append(size), real(size))[1])
    for _ in range(3):
        outputs = [level.nbytes for level in session(gpu.view(frame, box, spec))]
    assert len(locked) == 1  # for all outputs, and used again
    assert sum(outputs) <= locked[0] < sum(outputs) + 256 * len(outputs)


class Recorder:
    """A module of TensorRT, real but for one call that answers otherwise; `seen` are the flags of what is built."""

    def __init__(
        self, trt: object, call: str = "", answer: object = None, seen: list[object] | None = None
    ) -> None:
        self._trt, self._call, self._answer, self.flags = trt, call, answer, []
        self.seen: list[object] = [] if seen is None else seen  # ranges of profiles

    def __getattr__(self, name: str) -> object:
        return getattr(self._trt, name)

    def Builder(self, logger: object) -> object:
        return _Changed(self._trt.Builder(logger), self)


class _Changed:
    def __init__(self, real: object, recorder: Recorder) -> None:
        self._real, self._recorder = real, recorder

    def __getattr__(self, name: str) -> object:
        real, recorder = getattr(self._real, name), self._recorder

        def call(*args: object) -> object:
            args = tuple(arg._real if isinstance(arg, _Changed) else arg for arg in args)
            if name == "build_serialized_network":
                recorder.flags.append(args[1].get_flag(recorder._trt.BuilderFlag.TF32))
            if name == "add_optimization_profile":
                recorder.seen.append([tuple(shape) for shape in args[0].get_shape("x")])
            made = recorder._answer if name == recorder._call else real(*args)
            return _Changed(made, recorder) if name == "create_builder_config" else made

        return call


@pytest.mark.real
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_do_not_round_to_tf32(trt, precision) -> None:
    """TensorRT does by default, to 10 bits of mantissa: boxes would be off by more than the half pixel we promise."""
    pytest.importorskip("onnx")
    recorder = Recorder(trt)
    cuda_trt.build_engine(recorder, cuda_trt.network_of(models.find("fast"), precision), SMALL)
    assert recorder.flags == [False]


@pytest.mark.real
@pytest.mark.parametrize(
    ("call", "answer"),
    [("add_optimization_profile", -1), ("build_serialized_network", None), ("create_network", None)],
)
def test_whatever_refuses_while_building_is_one_line(trt, call, answer) -> None:
    recorder = Recorder(trt, call, answer)
    with pytest.raises(ModelError, match="cannot build") as caught:
        cuda_trt.build_engine(recorder, cuda_trt.network_of(models.find("fast"), "fp32"), SMALL)
    assert "\n" not in str(caught.value)


def test_an_engine_is_built_once_and_again_when_it_is_damaged(tmp_path) -> None:
    built: list[int] = []

    def build() -> bytes:
        built.append(1)
        return b"engine" * 100

    place = tmp_path / "key.engine"
    assert cuda_trt.kept(place, build) == cuda_trt.kept(place, build) == b"engine" * 100
    assert len(built) == 1
    place.write_bytes(place.read_bytes()[:-1])
    assert cuda_trt.kept(place, build) == b"engine" * 100
    place.write_bytes(b"")
    cuda_trt.kept(place, build)
    cuda_trt.kept(place, build, fresh=True)
    assert len(built) == 4
    assert [file.name for file in tmp_path.iterdir()] == ["key.engine"]
    assert cuda_trt.kept(tmp_path / "absent" / "key.engine", build) == b"engine" * 100


def test_an_engine_of_another_version_gpu_model_or_precision_is_another(monkeypatch) -> None:
    spec = models.find("fast")
    module = SimpleNamespace(__name__="tensorrt", __version__="10.13")
    key = partial(cuda_trt.engine_key, fingerprint="A driver 1", spec=spec, precision="fp32", limits=SMALL)
    other = models.ModelSpec(**{name: getattr(spec, name) for name in spec.__slots__} | {"sha256": "0" * 64})
    keys = {
        key(module),
        key(SimpleNamespace(__name__="tensorrt", __version__="10.14")),
        key(SimpleNamespace(__name__="tensorrt_rtx", __version__="10.13")),
        key(module, fingerprint="A driver 2"),
        key(module, spec=other),
        key(module, precision="fp16"),
        key(module, limits=cuda_trt.range_of(spec, 960)),
    }
    monkeypatch.setattr(cuda_trt, "_RECIPE", cuda_trt._RECIPE + 1)  # engines that were built otherwise
    assert len(keys | {key(module)}) == 8


def test_engines_are_kept_where_only_we_may_write(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cuda_trt.cache_folder()
    assert folder.is_relative_to(tmp_path)
    folder.chmod(0o777)
    with pytest.raises(DeviceError, match="chmod"):
        cuda_trt.cache_folder()


def test_no_tensorrt_is_one_line(monkeypatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name}", name=name)

    monkeypatch.setattr(cuda_trt.importlib, "import_module", absent)
    with pytest.raises(DeviceError, match="not installed"):
        cuda_trt.backend()


@pytest.mark.parametrize(
    "error",
    [
        OSError("libnvinfer.so.11:\ncannot open shared object file"),
        ImportError("libcudart.so.13"),
        ModuleNotFoundError("No module named tensorrt_bindings", name="tensorrt_bindings"),
    ],
)
def test_a_tensorrt_that_does_not_load_is_one_line(monkeypatch, error) -> None:
    def broken(name: str) -> None:
        raise error

    monkeypatch.setattr(cuda_trt.importlib, "import_module", broken)
    with pytest.raises(DeviceError, match="does not load") as caught:
        cuda_trt.backend()
    assert "\n" not in str(caught.value)


def test_frames_of_several_streams_are_looked_at_in_one_run(gpu, engine) -> None:
    """Half of them on the GPU already; each gets what it gets alone."""
    policy = DetectPolicy(side=160, threshold=0.02)
    detector = Detector(models.find("fast"), gpu, policy, Hide.EVERYTHING)
    assert detector.most == cuda_trt.range_of(models.find("fast"), 160).most[0] == 16
    frames = [noise(Size(320, 180), seed) for seed in range(5)]
    mixed = [
        replace(frame, luma=gpu.own(frame.luma), chroma=gpu.own(frame.chroma)) if at % 2 else frame
        for at, frame in enumerate(frames)
    ]
    alone = [detector(frame) for frame in frames]
    gpu.driver.launches.clear()
    found = detector.together(mixed)
    assert engine.context.shape[0] == 5
    view, *crops = gpu.driver.launches
    assert view == "view_f32"
    assert set(crops) == {"crop_f32"}  # the second stage looks at each frame's own candidates
    assert sum(len(each) for each in found) > 0
    for ours, wanted in zip(found, alone, strict=True):
        assert ours.labels.tolist() == wanted.labels.tolist()
        assert np.abs(ours.boxes - wanted.boxes).max(initial=0) <= 0.5
        assert np.abs(ours.scores - wanted.scores).max(initial=0) <= 0.01
    engine.context.works = False
    with pytest.raises(DeviceError):
        detector.together(mixed)


def test_the_cpu_can_look_at_several_as_well() -> None:
    detector = Detector(models.find("fast"), CpuDevice(), DetectPolicy(side=160), Hide.EVERYTHING)
    assert detector.most == 1
    frames = [noise(Size(320, 180), seed) for seed in range(3)]
    for ours, frame in zip(detector.together(frames), frames, strict=True):
        assert np.abs(ours.scores - detector(frame).scores).max(initial=0) < 1e-4


def test_an_engine_that_does_not_load_is_built_anew_once(shim_library, engine, tmp_path, monkeypatch) -> None:
    """As after an update that kept its version: TensorRT refuses what lies in the cache."""
    built: list[str] = []

    class Runtime:
        def __init__(self, logger: object) -> None: ...

        def deserialize_cuda_engine(self, data: bytes) -> OnnxEngine | None:
            return engine if data == b"new" else None

    trt = SimpleNamespace(__name__="tensorrt", __version__="11.4", Runtime=Runtime)
    monkeypatch.setattr(cuda_trt, "backend", lambda: trt)
    monkeypatch.setattr(cuda_trt, "_logger", lambda trt: SimpleNamespace(last="of another version"))
    monkeypatch.setattr(cuda_trt, "build_engine", lambda *_: built.append("built") or b"new")
    driver, spec = ShimDriver(shim_library), models.find("fast")
    key = cuda_trt.engine_key(trt, driver.fingerprint, spec, "fp32", cuda_trt.range_of(spec, 640))
    cuda_trt.kept(tmp_path / f"{key}.engine", lambda: b"old")
    assert cuda_trt.load(driver, Pool(driver), spec, 640, folder=tmp_path) is not None
    assert cuda_trt.load(driver, Pool(driver), spec, 640, folder=tmp_path) is not None
    assert built == ["built"]
    monkeypatch.setattr(cuda_trt, "build_engine", lambda *_: b"bad")
    with pytest.raises(DeviceError, match="of another version") as caught:
        cuda_trt.load(driver, Pool(driver), spec, 640, folder=tmp_path / "other")
    assert "\n" not in str(caught.value)
