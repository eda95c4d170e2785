"""The handful of calls that the CUDA device needs of a driver, and pycuda as the one that makes them.

In tests a library built from the same kernels by g++ stands in for it (tests/device/shim).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.device import cuda_probe
from streamer.device.dlpack import CUDA
from streamer.errors import DeviceError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_OLDEST = (7, 5)  # compute capability that our kernels are built for: Turing
_PITCH = 512  # bytes, as cuMemAllocPitch gives: copies within the GPU may refuse others


class Driver(Protocol):
    """One GPU with one stream, in whose order everything happens. Every call raises DeviceError if the GPU fails.

    Addresses and sizes are bytes. Calls are made inside of `current()`.
    """

    name: str  # of the GPU
    capability: str  # to compute, such as 9.0
    fingerprint: str  # of GPU and driver: engines built for another one are not loaded
    stream: int  # CUstream handle
    alignment: int  # of rows of planes
    device_type: int  # DLPack's name for its memory

    def current(self) -> Any:
        """A context manager that makes the GPU's context the calling thread's."""

    def allocate(self, size: int) -> int:
        """The address of new memory."""

    def free(self, address: int) -> None:
        """Give memory back."""

    def page_locked(self, size: int) -> NDArray[np.uint8]:
        """Memory of the host that the GPU copies to at full speed."""

    def zero(self, address: int, size: int) -> None:
        """Clear memory."""

    def upload(self, address: int, pitch: int, host: NDArray[Any]) -> None:
        """Copy a matrix (rows, bytes) of uint8, contiguous in its rows, to rows `pitch` apart.

        What is started afterwards finds it there. The matrix must not change before `synchronize` or `download`.
        """

    def download(self, host: NDArray[Any], address: int, pitch: int) -> None:
        """Copy rows `pitch` apart to a matrix (rows, bytes) of uint8; complete on return."""

    def copy(self, address: int, pitch: int, source: int, source_pitch: int, width: int, rows: int) -> None:
        """Copy rows of `width` bytes within the GPU."""

    def load(self, image: bytes) -> None:
        """Make the kernels of a fatbin known to `launch`."""

    def launch(self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int, int], args: Any) -> None:
        """Start a kernel with one structure, a NumPy record, as its argument."""

    def synchronize(self) -> None:
        """Wait until all that was started is done."""

    def side_stream(self) -> Any:
        """Another stream, which waits for nothing of the first and is not waited for; `handle` is its CUstream."""

    def mark(self) -> Any:
        """A point in the stream's time."""

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Time between two marks, the second of which was reached."""


class PycudaDriver:
    """The real thing, on the primary context, which PyAV, TensorRT and PyTorch share. See Driver for the calls."""

    def __init__(self, index: int = 0) -> None:
        """Raises DeviceError if pycuda is not installed or the GPU cannot be used. Ask cuda_probe first."""
        try:
            import pycuda.driver as cuda
        except ModuleNotFoundError as error:
            raise DeviceError('pycuda is not installed: pip install "streamer-anonymizer[cuda]"') from error
        except ImportError as error:  # it was compiled for another CUDA, Python or NumPy
            words = " ".join(str(error).split())
            raise DeviceError(f"pycuda does not load ({words}): install it again") from error
        self._cuda = cuda
        self._memory: dict[int, Any] = {}  # pycuda frees an allocation that nobody holds
        self._modules: list[Any] = []
        self._functions: dict[str, Any] = {}
        self._sources: list[NDArray[Any]] = []  # of uploads that may not be done yet
        self.alignment, self.device_type = _PITCH, CUDA
        with _translated(cuda):
            cuda.init()
            cuda_probe.let_ffmpeg_in(index)
            device = cuda.Device(index)
            self.name = str(device.name())
            capability = device.compute_capability()
            self.capability = ".".join(map(str, capability))
            if tuple(capability) < _OLDEST:
                raise DeviceError(
                    f"{self.name} is too old: compute capability {self.capability}, 7.5 is needed"
                )
            self._context = device.retain_primary_context()
            version = f"{cuda_probe.release()} CUDA {cuda.get_driver_version()}"
            self.fingerprint = f"{self.name} {self.capability} driver {version}"
        with self.current():
            self._stream = cuda.Stream()
            self.stream = int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        """One push and one pop: a thread is left as it was."""
        with _translated(self._cuda):
            self._context.push()
            try:
                yield
            finally:
                self._cuda.Context.pop()

    def allocate(self, size: int) -> int:
        """Memory that stays until `free`."""
        with _translated(self._cuda):  # here already: the caller may make room and try again
            memory = self._cuda.mem_alloc(size)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """Give memory back."""
        self._memory.pop(address).free()

    def page_locked(self, size: int) -> NDArray[np.uint8]:
        """pycuda's array, which frees its memory."""
        locked: NDArray[np.uint8] = self._cuda.pagelocked_empty(size, np.uint8)
        return locked

    def zero(self, address: int, size: int) -> None:
        """Clear memory."""
        self._cuda.memset_d8_async(address, 0, size, self._stream)

    def upload(self, address: int, pitch: int, host: NDArray[Any]) -> None:
        """The source is held until the stream was waited for."""
        copy = self._copy(host.shape[1], len(host))
        copy.set_src_host(host)
        copy.src_pitch = host.strides[0]
        copy.set_dst_device(address)
        copy.dst_pitch = pitch
        copy(self._stream)
        self._sources.append(host)

    def download(self, host: NDArray[Any], address: int, pitch: int) -> None:
        """Waits for the stream."""
        copy = self._copy(host.shape[1], len(host))
        copy.set_src_device(address)
        copy.src_pitch = pitch
        copy.set_dst_host(host)
        copy.dst_pitch = host.strides[0]
        copy(self._stream)
        self.synchronize()

    def copy(self, address: int, pitch: int, source: int, source_pitch: int, width: int, rows: int) -> None:
        """Rows within the GPU."""
        copy = self._copy(width, rows)
        copy.set_src_device(source)
        copy.src_pitch = source_pitch
        copy.set_dst_device(address)
        copy.dst_pitch = pitch
        copy(self._stream)

    def load(self, image: bytes) -> None:
        """A fatbin; the driver picks what suits the GPU."""
        self._modules.append(self._cuda.module_from_buffer(image))

    def launch(self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int, int], args: Any) -> None:
        """The record goes as the bytes that it is: later versions of pycuda hash what a plain call is given."""
        if kernel not in self._functions:
            function = self._modules[-1].get_function(kernel)
            function.prepare([f"{args.nbytes}s"])
            self._functions[kernel] = function
        self._functions[kernel].prepared_async_call(grid, block, self._stream, args.tobytes())

    def synchronize(self) -> None:
        """Wait for the stream."""
        sources, self._sources = self._sources, []  # another thread may add some while this one waits
        self._stream.synchronize()
        del sources

    def side_stream(self) -> Any:
        """One that the legacy default stream does not hold up either."""
        return self._cuda.Stream(_NON_BLOCKING)

    def mark(self) -> Any:
        """A CUDA event."""
        return self._cuda.Event().record(self._stream)

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Between two events."""
        return float(begin.time_till(end.synchronize()))

    def _copy(self, width: int, rows: int) -> Any:
        copy = self._cuda.Memcpy2D()
        copy.width_in_bytes, copy.height = width, rows
        return copy


@contextmanager
def _translated(cuda: Any) -> Iterator[None]:
    try:
        yield
    except cuda.MemoryError as error:
        raise DeviceError("the GPU is out of memory: use fewer streams, or a smaller detect.side") from error
    except cuda.Error as error:
        raise DeviceError(f"the GPU failed ({error}): nvidia-smi shows its state") from error
