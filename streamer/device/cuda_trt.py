"""Networks on the GPU through TensorRT: engines built from our ONNX files, kept for the next start.

One code path serves `tensorrt` (10.13 and later) and `tensorrt_rtx`: it uses what all of them have. Networks are
strongly typed, so the precision is that of the ONNX file; float16 is made by converting the file. Building needs no
GPU with `tensorrt_rtx`; everything else here does, and TensorRT ends the process where there is no driver: ask
cuda_probe before.
"""

import contextlib
import hashlib
import importlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.config import Precision
from streamer.device.cuda_driver import Driver
from streamer.device.cuda_memory import DeviceTensor, Memory, Pool, views_at_once
from streamer.errors import DeviceError, ModelError
from streamer.models import ModelSpec

Shape = tuple[int, ...]

_unkept: dict[str, bytes] = {}  # engines of this process, by key, where no folder can hold them
_loggers: dict[str, Any] = {}  # by TensorRT's module
_ALIGNED = 256  # bytes: what TensorRT asks of the address of a tensor
_RECIPE = 2  # counts the ways in which engines were built so far: those of an older one are not loaded


@dataclass(frozen=True, slots=True)
class Range:
    """Which inputs an engine takes, and for which it is tuned."""

    least: Shape
    usual: Shape
    most: Shape


def range_of(spec: ModelSpec, side: int) -> Range:
    """All views of the model whose long side is at most `side`: upright or lying, of any shape, in any batch.

    Tuned for a batch of 16:9. What lies outside is refused by the engine at its first look, so nothing may.
    """
    if spec.side is not None:
        longest = shortest = middle = spec.side
    else:
        longest, middle = (-(-pixels // spec.stride) * spec.stride for pixels in (side, side * 9 // 16))
        shortest = spec.stride
    batch = views_at_once(spec.side or side)
    return Range(
        (1, 3, shortest, shortest), (min(4, batch), 3, middle, longest), (batch, 3, longest, longest)
    )


def backend() -> Any:
    """The TensorRT module that is installed. Raises DeviceError where there is none, or none that loads."""
    broken: list[str] = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (None, name):
                broken.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - it loads its libraries by hand, and NumPy may be too new for it
            broken.append(f"{name}: {error}")
    if broken:
        raise DeviceError(f"TensorRT does not load ({' '.join('; '.join(broken).split())}): install it again")
    raise DeviceError(
        'TensorRT is not installed: pip install "streamer-anonymizer[tensorrt]", or tensorrt_rtx'
    )


def load(
    driver: Driver, pool: Pool, spec: ModelSpec, side: int, *,
    folder: Path | None = None, precision: Precision = "fp32",
) -> "TensorRtSession":  # fmt: skip
    """A session for views of up to that side.

    Its engine is taken from `folder` (ours by default), or built, which takes a while. Raises ModelError if
    TensorRT refuses the network, DeviceError if the engine does not run.
    """
    trt, limits = backend(), range_of(spec, side)
    key = engine_key(trt, driver.fingerprint, spec, precision, limits)
    place = _place(folder, f"{key}.engine")

    def build() -> bytes:
        return build_engine(trt, network_of(spec, precision), limits, driver.capability)

    logger = _logger(trt)
    try:
        runtime = trt.Runtime(logger)
    except TypeError as error:  # pybind's word for a null pointer
        raise DeviceError(f"TensorRT does not start ({logger.last or 'no reason given'})") from error
    for fresh in (False, True):
        if place is not None:
            data = kept(place, build, fresh=fresh)
        elif fresh or key not in _unkept:
            data = _unkept[key] = build()
        else:
            data = _unkept[key]
        engine = runtime.deserialize_cuda_engine(data)
        if engine is not None:
            return TensorRtSession(driver, pool, engine, runtime)
    raise DeviceError(f'the engine of "{spec.name}" does not load ({logger.last or "no reason given"})')


def engine_key(trt: Any, fingerprint: str, spec: ModelSpec, precision: Precision, limits: Range) -> str:
    """Names everything that an engine depends on: it is not portable."""
    state = (_RECIPE, trt.__name__, trt.__version__, fingerprint, spec.sha256, precision, limits)
    return hashlib.sha256(repr(state).encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """Where engines are kept: an engine can carry code, so DeviceError is raised if others may write there.

    Raises OSError if there is no such folder and it cannot be made.
    """
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise FileNotFoundError("this user has no home") from error
    folder = Path(base) / "streamer" / "engines"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise DeviceError(f"others may write to the folder of engines, chmod 700 it: {folder}")
    return folder


def _place(folder: Path | None, name: str) -> Path | None:
    try:
        return (folder or cache_folder()) / name
    except OSError:  # no home, or one that cannot be written to, as in many containers
        return None


def kept(place: Path, build: Callable[[], bytes], *, fresh: bool = False) -> bytes:
    """The engine at `place`, built if it is not there, damaged, or `fresh`; the file begins with its SHA-256.

    A full disk only costs the next start its time.
    """
    with contextlib.suppress(OSError):
        data = b"" if fresh else place.read_bytes()
        if data and hashlib.sha256(data[32:]).digest() == data[:32]:
            return data[32:]
    engine = build()
    part = place.with_suffix(f".{os.getpid()}.part")
    with contextlib.suppress(OSError):
        try:
            part.write_bytes(hashlib.sha256(engine).digest() + engine)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
    return engine


def network_of(spec: ModelSpec, precision: Precision) -> bytes:
    """The model's ONNX file, its weights and arithmetic in float16 if asked (inputs and outputs stay float32)."""
    data = spec.weights.read_bytes()
    if precision == "fp32":
        return data
    try:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise ModelError('engines in fp16 need onnx: pip install "streamer-anonymizer[tensorrt]"') from error
    half = convert_float_to_float16(onnx.load_model_from_string(data), keep_io_types=True)
    return bytes(half.SerializeToString())


def build_engine(trt: Any, network: bytes, limits: Range, capability: str = "") -> bytes:
    """A serialized engine for a network whose free sides lie within `limits`. Raises ModelError.

    `capability` is the GPU's: what TensorRT-RTX builds runs on 8.0 and later, unless Turing (7.5) is asked for.
    """
    logger = _logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # pybind's word for a null pointer
        raise _not_built(logger) from error
    kinds = trt.NetworkDefinitionCreationFlag
    flags = [
        int(getattr(kinds, name)) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if hasattr(kinds, name)
    ]
    definition = builder.create_network(sum(1 << flag for flag in set(flags)))
    if definition is None:
        raise _not_built(logger)
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse(network):
        reasons = "; ".join(parser.get_error(at).desc() for at in range(parser.num_errors))
        raise ModelError(f"TensorRT does not understand the network: {' '.join(reasons.split())}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default: float32 with 10 bits of mantissa
    if capability == "7.5" and hasattr(trt, "ComputeCapability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM75, 0)
    source = definition.get_input(0)
    sides = [
        tuple(wanted if side == -1 else side for side, wanted in zip(source.shape, shape, strict=True))
        for shape in (limits.least, limits.usual, limits.most)
    ]
    try:
        profile.set_shape(source.name, *sides)
    except ValueError as error:
        raise _not_built(logger) from error
    if config.add_optimization_profile(profile) < 0:
        raise _not_built(logger)
    engine = builder.build_serialized_network(definition, config)
    if engine is None:
        raise _not_built(logger)
    return bytes(engine)


def _not_built(logger: Any) -> ModelError:
    return ModelError(f"TensorRT cannot build the network: {logger.last or 'no reason given'}")


class TensorRtSession:
    """A network on the GPU; one call at a time."""

    def __init__(self, driver: Driver, pool: Pool, engine: Any, owners: Any = None) -> None:
        """`owners` must live as long as the engine.

        Raises DeviceError if its context does not fit in memory, ModelError if it is of a kind that is not known here.
        """
        self._driver = driver
        self._pool = pool
        self._owners = owners
        self._engine = engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise DeviceError("the network does not fit in the GPU's memory: use a smaller detect.side")
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name).name == "INPUT"]
        kinds = {engine.get_tensor_dtype(name).name for name in names}
        if len(inputs) != 1 or kinds != {"FLOAT"}:
            raise ModelError(
                f"a network with one input and FLOAT values is wanted, not {len(inputs)} and {', '.join(sorted(kinds))}"
            )
        self._input, self._outputs = inputs[0], [name for name in names if name not in inputs]
        self._memory: Memory | None = (
            None  # of all outputs: one copy brings them back, and is waited for once
        )

    def __call__(self, batch: DeviceTensor) -> Sequence[NDArray[np.float32]]:
        """Outputs in the model's order, on the host in page-locked memory; other arrays as long as those are held.

        Raises ModelError if the batch's shape is outside of what the engine was built for, DeviceError if it fails.
        """
        with self._driver.current():
            if not self._context.set_input_shape(self._input, batch.shape):
                raise ModelError(
                    f"the GPU's engine takes no view of {batch.shape}: use a smaller detect.side"
                )
            shapes = [tuple(self._context.get_tensor_shape(name)) for name in self._outputs]
            if any(side < 0 for shape in shapes for side in shape):
                raise DeviceError("the network failed on the GPU: the shape of an output is not known")
            sizes = [math.prod(shape) * 4 for shape in shapes]
            starts = list(accumulate((-(-size // _ALIGNED) * _ALIGNED for size in sizes), initial=0))
            room = self._room(starts[-1])
            self._bind(self._input, batch.address)
            for name, start in zip(self._outputs, starts, strict=False):
                self._bind(name, room.address + start)
            if not self._context.execute_async_v3(self._driver.stream):
                raise DeviceError("the network failed on the GPU: nvidia-smi shows its state")
            host = self._pool.host((1, room.size))
            self._driver.download(host, room.address, room.size)
        return [
            host[0, start : start + size].view(np.float32).reshape(shape)
            for start, size, shape in zip(starts, sizes, shapes, strict=False)
        ]

    def _bind(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise DeviceError(f"the network failed on the GPU: TensorRT did not take the address of {name}")

    def _room(self, size: int) -> Memory:
        if self._memory is None or self._memory.size != size:
            self._memory = self._pool.take(size)
        return self._memory


def _logger(trt: Any) -> Any:
    """The process's logger of TensorRT, which keeps its last error instead of printing; that is forgotten here.

    One for all and for ever: TensorRT holds on to the first that it is given as long as any builder or runtime is
    left, and does not notice when that logger goes.
    """
    if trt.__name__ not in _loggers:

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self.last = ""

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    self.last = " ".join(message.split())

        _loggers[trt.__name__] = Logger()
    logger = _loggers[trt.__name__]
    logger.last = ""
    return logger
