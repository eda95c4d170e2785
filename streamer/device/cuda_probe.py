"""Whether this machine has a usable NVIDIA GPU, asked without anything that crashes where it has none."""

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

# "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue ..."
_SAID = Path("/proc/driver/nvidia/version")
_BLOCKING_SYNC = 4  # CU_CTX_SCHED_BLOCKING_SYNC
_NEEDED = 13000  # CUDA version of the driver that our kernels are built for, as the driver counts: 13.0


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """What the driver says of itself."""

    version: int = 0  # CUDA version that it supports, 1000 * major + 10 * minor; 0 without a driver
    devices: int = 0
    problem: str | None = None  # why CUDA cannot be used here, in one line; None if it can
    release: str = ""  # of the driver, such as 580.95.05; empty where it does not say

    @property
    def text(self) -> str:
        """The version as people write it."""
        return f"{self.version // 1000}.{self.version % 1000 // 10}"


def probe() -> DriverFacts:
    """Loads libcuda and initialises it; never raises."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return DriverFacts(problem="no NVIDIA driver is installed (libcuda.so.1 not found)")
    code = library.cuInit(0)
    if code == 100:
        return DriverFacts(problem="the NVIDIA driver sees no GPU")
    if code != 0:
        return DriverFacts(problem=f"the NVIDIA driver does not start (cuInit: error {code})")
    version, devices = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGetCount(ctypes.byref(devices))
    facts = DriverFacts(version.value, devices.value, release=release())
    if facts.devices == 0:
        return DriverFacts(version.value, 0, "the NVIDIA driver sees no GPU")
    if facts.version < _NEEDED:
        return DriverFacts(
            version.value, devices.value, f"the NVIDIA driver is too old: CUDA {facts.text}, 13.0 is needed"
        )
    return facts


def let_ffmpeg_in(index: int = 0) -> None:
    """Make the primary context of a GPU one that FFmpeg shares, before anybody holds it. Never raises.

    FFmpeg takes no primary context that is there already and does not wait by blocking ("already active with
    incompatible flags", libavutil/hwcontext_cuda.c): NVDEC and NVENC would refuse everything.
    """
    try:
        library, device = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
        if library.cuDeviceGet(ctypes.byref(device), index) == 0:
            library.cuDevicePrimaryCtxSetFlags_v2(device, _BLOCKING_SYNC)
    except (OSError, AttributeError):
        return


def release() -> str:
    """The release of the driver, such as 580.95.05; empty where nothing says it. Never raises.

    Many releases share one CUDA version, and what was compiled for one of them is not sure to run on another.
    """
    return _release_of_kernel() or _release_of_library()


def _release_of_kernel() -> str:
    try:
        found = re.search(r"\s(\d{3,}(?:\.\d+)+)\s", _SAID.read_text(encoding="utf-8"))
    except OSError:
        return ""
    return found[1] if found else ""


def _release_of_library() -> str:
    """As NVML says it: under WSL, and in containers that do not show /proc of the driver."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        said = ctypes.create_string_buffer(96)
        if library.nvmlInit_v2() or library.nvmlSystemGetDriverVersion(said, len(said)):
            return ""
        library.nvmlShutdown()
    except (OSError, AttributeError):
        return ""
    return said.value.decode("ascii", "replace")
