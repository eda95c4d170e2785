"""A driver whose GPU is this CPU: the product's kernels, compiled by g++ (shim/shim.h). A part of the tests only."""

import ctypes
import hashlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from streamer import resources
from streamer.device.dlpack import CPU
from streamer.errors import DeviceError

_FLAGS = [
    "-O2",
    "-std=c++20",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-shared",
    "-fPIC",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
]
_SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
_PROBLEMS = {
    1: "a barrier that some threads never reach",
    2: "no such kernel",
    3: "an argument of another size",
}

_ONE_KERNEL = threading.Lock()  # at a time, as in a stream: the shim's fibres are those of one thread

UNTOUCHED = 0xA5  # what new memory is filled with


def build(folder: Path, *, sanitize: bool = False, kernels: Path | None = None) -> Path:
    """The library of the kernels, built once per state of the sources. Raises RuntimeError with g++'s words."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise FileNotFoundError("g++")
    kernels = kernels or resources.path("kernels/streamer.cu").parent
    shim = Path(__file__).parent / "shim"
    flags = [*_FLAGS, *(_SANITIZE if sanitize else ())]
    sources = sorted([*kernels.glob("*.cu*"), *shim.iterdir()])
    state = hashlib.sha256(
        " ".join(flags).encode() + b"".join(file.read_bytes() for file in sources)
    ).hexdigest()
    library = folder / f"kernels-{state[:16]}.so"
    if not library.exists():
        command = [
            compiler,
            *flags,
            f"-I{kernels}",
            f"-I{shim}",
            "-o",
            f"{library}.part",
            shim / "kernels.cpp",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        Path(f"{library}.part").replace(library)
    return library


class ShimDriver:
    """See streamer.device.cuda_driver.Driver. Each block is its own from malloc: sanitizers see its ends."""

    name = "kernels on the CPU"
    capability = "0.0"
    fingerprint = "shim"
    stream = 0
    alignment = 4
    device_type = CPU

    def __init__(self, library: Path, *, reversed_order: bool = False) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.shim_launch.argtypes = (
            ctypes.c_char_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
        )
        self._library.shim_sizeof.restype = ctypes.c_size_t
        self._reversed = reversed_order
        self._memory: dict[int, Any] = {}
        self._thread = threading.local()  # contexts are current in threads
        self.launches: list[str] = []
        self.fail_at: str | None = None  # a kernel or call that fails from now on

    def sizeof(self, which: int) -> int:
        return int(self._library.shim_sizeof(which))

    @property
    def _depth(self) -> int:
        return getattr(self._thread, "depth", 0)

    @_depth.setter
    def _depth(self, depth: int) -> None:
        self._thread.depth = depth

    @contextmanager
    def current(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def allocate(self, size: int) -> int:
        self._check("allocate")
        memory = np.full(size, UNTOUCHED, np.uint8)
        address = int(memory.ctypes.data)
        assert address % 16 == 0
        self._memory[address] = memory
        return address

    def free(self, address: int) -> None:
        del self._memory[address]

    def held(self, address: int) -> Any:
        """All of the block that begins there."""
        return self._memory[address]

    def page_locked(self, size: int) -> Any:
        self._check("page_locked")
        return np.full(size, UNTOUCHED, np.uint8)

    def zero(self, address: int, size: int) -> None:
        self._check("zero")
        ctypes.memset(address, 0, size)

    def upload(self, address: int, pitch: int, host: Any) -> None:
        self._check("upload")
        assert host.dtype == np.uint8
        for row in range(len(host)):
            ctypes.memmove(address + row * pitch, host[row].ctypes.data, host.shape[1])

    def download(self, host: Any, address: int, pitch: int) -> None:
        self._check("download")
        assert host.dtype == np.uint8
        for row in range(len(host)):
            ctypes.memmove(host[row].ctypes.data, address + row * pitch, host.shape[1])

    def copy(self, address: int, pitch: int, source: int, source_pitch: int, width: int, rows: int) -> None:
        self._check("copy")
        for row in range(rows):
            ctypes.memmove(address + row * pitch, source + row * source_pitch, width)

    def load(self, image: bytes) -> None:
        self._check("load")
        assert len(image) > 1000

    def launch(self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int, int], args: Any) -> None:
        self._check(kernel)
        self.launches.append(kernel)
        assert min(grid) > 0
        assert np.prod(block) <= 1024
        assert max(grid[1:]) < 65536
        data = np.array(args).tobytes()
        with _ONE_KERNEL:
            code = self._library.shim_launch(
                kernel.encode(),
                (ctypes.c_uint * 3)(*grid),
                (ctypes.c_uint * 3)(*block),
                data,
                len(data),
                self._reversed,
            )
        if code:
            raise AssertionError(f"{kernel}: {_PROBLEMS[code]}")

    def synchronize(self) -> None:
        self._check("synchronize")

    def side_stream(self) -> Any:
        self._check("side_stream")
        return SimpleNamespace(handle=0)

    def mark(self) -> Any:
        return time.perf_counter()

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(end - begin) * 1000

    def _check(self, call: str) -> None:
        if self._depth < 1:
            raise AssertionError(f"{call} without a current context")
        if self.fail_at == call:
            raise DeviceError(f"the GPU failed (made to fail at {call})")
