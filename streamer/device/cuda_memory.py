"""Memory of the GPU: blocks used again, planes and tensors on them."""

import weakref
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamer.device.cuda_driver import Driver
from streamer.device.dlpack import capsule

MOST_VIEWS = 16  # in one run of a network: engines are built for as many
_SPARE = 32  # blocks of one size that are kept for the next use


class Memory:
    """A block of GPU memory, which goes back to its pool when nobody holds it."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address  # of the first byte
        self.size = size


class Pool:
    """Blocks by size. All work is ordered in one stream, so a block may be used again as soon as nobody holds it."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._spare: dict[int, deque[int]] = {}
        self._spare_host: dict[int, deque[NDArray[np.uint8]]] = {}

    def take(self, size: int) -> Memory:
        """A block with any content. Raises DeviceError; call inside of `driver.current()`."""
        spare = self._spare.setdefault(size, deque())
        try:
            address = spare.pop()
        except IndexError:
            address = self.driver.allocate(size)
        memory = Memory(address, size)
        weakref.finalize(memory, self._back, address, size).atexit = False
        return memory

    def host(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A page-locked array with any content, used again when neither it nor a view of it is left.

        Raises DeviceError; call inside of `driver.current()`.
        """
        size = int(np.prod(shape))
        spare = self._spare_host.setdefault(size, deque())
        try:
            locked = spare.pop()
        except IndexError:
            locked = self.driver.page_locked(size)
        block = _HostBlock(locked)
        weakref.finalize(block, _keep, spare, locked).atexit = False
        return np.asarray(block).reshape(shape)

    def _back(self, address: int, size: int) -> None:
        spare = self._spare[size]
        if len(spare) < _SPARE:
            spare.append(address)
            return
        with self.driver.current():
            self.driver.free(address)


class _HostBlock:
    """Memory of an array under another owner: NumPy makes it the base of every view, so it outlives them all."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.__array_interface__ = array.__array_interface__
        self._array = array


def _keep(spare: deque[NDArray[np.uint8]], array: NDArray[np.uint8]) -> None:
    if len(spare) < _SPARE:
        spare.append(array)


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
        return int(np.prod(self.shape[1:]))

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
    pitch = -(-int(np.prod(shape[1:])) // step) * step
    memory = pool.take(pitch * shape[0])
    return DevicePlane(pool, shape, memory.address, pitch, memory)


def new_surface(pool: Pool, height: int, width: int) -> tuple[DevicePlane, DevicePlane]:
    """Luma and chroma of an even size in one block with any content, chroma right behind luma, of one pitch."""
    step = pool.driver.alignment
    pitch = -(-width // step) * step
    memory = pool.take(pitch * height * 3 // 2)
    return (
        DevicePlane(pool, (height, width), memory.address, pitch, memory),
        DevicePlane(pool, (height // 2, width // 2, 2), memory.address + pitch * height, pitch, memory),
    )


class DeviceTensor:
    """A batch (b, 3, h, w) on the GPU."""

    def __init__(self, pool: Pool, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self._pool = pool
        self._memory = pool.take(int(np.prod(shape)) * dtype.itemsize)

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
