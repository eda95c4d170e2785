"""Memory of the GPU: blocks used again, planes and tensors on them."""

import contextlib
import math
import weakref
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamer.device.cuda_driver import Driver
from streamer.device.dlpack import capsule
from streamer.errors import DeviceError

_MOST_VIEWS = 16  # in one run of a network: engines are built for as many
_MOST_PIXELS = (
    _MOST_VIEWS * 1280 * 1280
)  # of all views of a run: a network's memory is set aside for the largest
_SPARE = 32  # blocks of one size that are kept for the next use
IDLE_TAKES = 4096  # blocks of other sizes taken meanwhile after which kept ones go: some 10 s of a stream


def views_at_once(side: int) -> int:
    """How many views of that side one run of a network takes: fewer where they are large, one at least.

    >>> views_at_once(960), views_at_once(1920), views_at_once(4096)
    (16, 7, 1)
    """
    return max(1, min(_MOST_VIEWS, _MOST_PIXELS // side**2))


class Memory:
    """A block of GPU memory, which goes back to its pool when nobody holds it."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address  # of the first byte
        self.size = size


class Pool:
    """Blocks by size. All work is ordered in one stream, so a block may be used again as soon as nobody holds it.

    What nobody holds is kept for the next use of its size, and goes once that size has not been used for long, or when
    memory is wanted that is not there.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._spare: dict[int, list[int]] = {}
        self._spare_host: dict[int, list[NDArray[np.uint8]]] = {}
        self._takes = 0
        self._used: dict[int, int] = {}  # by size: `_takes` at its last use

    def take(self, size: int) -> Memory:
        """A block with any content. Raises DeviceError; call inside of `driver.current()`."""
        self._count(size)
        try:
            address = self._spare[size].pop()
        except (KeyError, IndexError):
            address = self._new(size)
        memory = Memory(address, size)
        weakref.finalize(memory, self._back, address, size).atexit = False
        return memory

    def host(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A page-locked array with any content, used again when neither it nor a view of it is left.

        Raises DeviceError; call inside of `driver.current()`.
        """
        size = math.prod(shape)
        self._count(size)
        try:
            locked = self._spare_host[size].pop()
        except (KeyError, IndexError):
            locked = self.driver.page_locked(size)
        # not where a block comes back: it does in whatever thread, and pycuda frees only inside of the context
        del self._spare_host.get(size, [])[_SPARE:]
        block = _HostBlock(locked)
        weakref.finalize(block, self._keep, locked, size).atexit = False
        return np.asarray(block).reshape(shape)

    def idle(self) -> dict[int, int]:
        """How many blocks of each size are kept and held by nobody, on the GPU and page-locked together."""
        sizes = {*list(self._spare), *list(self._spare_host)}
        counts = {
            size: len(self._spare.get(size, [])) + len(self._spare_host.get(size, [])) for size in sizes
        }
        return {size: count for size, count in counts.items() if count}

    def _count(self, size: int) -> None:
        self._takes += 1
        self._used[size] = self._takes
        if self._takes % (IDLE_TAKES // 4) == 0:
            oldest = self._takes - IDLE_TAKES
            self._release([size for size, last in list(self._used.items()) if last < oldest])

    def _new(self, size: int) -> int:
        try:
            return self.driver.allocate(size)
        except DeviceError:
            if not self._release(list(self._spare)):
                raise
            return self.driver.allocate(size)

    def _release(self, sizes: list[int]) -> int:
        """Free what is kept of these sizes; how many blocks that were."""
        freed = 0
        for size in sizes:
            self._used.pop(size, None)
            self._spare_host.get(size, []).clear()
            blocks = self._spare.get(size, [])
            with contextlib.suppress(IndexError):  # another thread may take some meanwhile
                while True:
                    self.driver.free(blocks.pop())
                    freed += 1
        return freed

    def _back(self, address: int, size: int) -> None:
        spare = self._spare.setdefault(size, [])
        if len(spare) < _SPARE:
            spare.append(address)
            return
        with (
            contextlib.suppress(DeviceError),
            self.driver.current(),
        ):  # of a GPU that is lost, nothing is left to free
            self.driver.free(address)

    def _keep(self, array: NDArray[np.uint8], size: int) -> None:
        self._spare_host.setdefault(size, []).append(array)


class _HostBlock:
    """Memory of an array under another owner: NumPy makes it the base of every view, so it outlives them all."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.__array_interface__ = array.__array_interface__
        self._array = array


class DevicePlane:
    """A plane of uint8 on the GPU: rows `pitch` bytes apart, (h, w) or (h, w, 2).

    NumPy gets a copy of it (`np.asarray`), other libraries get the memory itself (DLPack).
    """

    def __init__(self, pool: Pool, shape: tuple[int, ...], address: int, pitch: int, owner: Any) -> None:
        self.shape = shape
        self.address = address
        self.pitch = pitch  # bytes
        self._pool = pool
        self._owner = owner

    @property
    def row_bytes(self) -> int:
        """Bytes of one row that are samples."""
        return math.prod(self.shape[1:])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """The samples on the host, page-locked, always a copy."""
        driver = self._pool.driver
        with driver.current():
            host = self._pool.host(self.shape)
            driver.download(host.reshape(len(host), -1), self.address, self.pitch)
        return host if dtype is None else host.astype(dtype)

    def __dlpack__(self, **_: Any) -> Any:
        """The memory itself; whoever takes it does so after the device's call returned, so it is complete."""
        lanes = self.shape[2:]
        strides = (self.pitch, lanes[0], 1) if lanes else (self.pitch, 1)
        return capsule(self.address, self.shape, strides, self.__dlpack_device__(), self)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Its place, as DLPack numbers it."""
        return (self._pool.driver.device_type, 0)


def new_plane(pool: Pool, shape: tuple[int, ...]) -> DevicePlane:
    """A plane with any content."""
    step = pool.driver.alignment
    pitch = -(-math.prod(shape[1:]) // step) * step
    memory = pool.take(pitch * shape[0])
    return DevicePlane(pool, shape, memory.address, pitch, memory)


class Surfaces:
    """Surfaces for one encoder, which registers each address that it is given, and is never told that one was freed.

    So blocks stay here, to be used again when nobody holds them, until this goes.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._spare: dict[int, list[Memory]] = {}

    def take(self, height: int, width: int) -> tuple[DevicePlane, DevicePlane]:
        """Luma and chroma of an even size in one block with any content, chroma right behind luma, of one pitch.

        Raises DeviceError; call inside of `driver.current()`.
        """
        step = self._pool.driver.alignment
        pitch = -(-width // step) * step
        size = pitch * height * 3 // 2
        spare = self._spare.setdefault(size, [])
        memory = spare.pop() if spare else self._pool.take(size)
        loan = _Loan()
        weakref.finalize(loan, spare.append, memory).atexit = False
        return (
            DevicePlane(self._pool, (height, width), memory.address, pitch, loan),
            DevicePlane(
                self._pool, (height // 2, width // 2, 2), memory.address + pitch * height, pitch, loan
            ),
        )


class _Loan:
    """Held by the planes of a surface: when it goes, nobody has them any more."""


class DeviceTensor:
    """A batch (b, 3, h, w) on the GPU."""

    def __init__(self, pool: Pool, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self._pool = pool
        self._memory = pool.take(math.prod(shape) * dtype.itemsize)

    @property
    def address(self) -> int:
        """Of its first value; the layout is that of a contiguous array."""
        return self._memory.address

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """The values on the host, always a copy."""
        host = np.empty(self.shape, self.dtype)
        driver = self._pool.driver
        with driver.current():
            driver.download(host.reshape(1, -1).view(np.uint8), self.address, host.nbytes)
        return host if dtype is None else host.astype(dtype)
