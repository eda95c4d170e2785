"""The shim finds what it is there to find; the kernels pass it with sanitizers on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamer import resources
from streamer.config import Style
from streamer.device.cpu import CpuDevice
from streamer.device.cuda import CudaDevice
from streamer.frame import Size
from streamer.masking import whole
from tests.conftest import need
from tests.device.conftest import copied, no_network, noise
from tests.device.shim_driver import ShimDriver, build

ROOT = Path(__file__).parents[2]


def run_whole(library: Path, *, reversed_order: bool = False) -> bool:
    """Whether kernels of a library mask a whole picture as the CPU does."""
    device = CudaDevice(ShimDriver(library, reversed_order=reversed_order), no_network)
    frame = noise(Size(90, 60))
    wanted = copied(frame)
    device.redact(frame, whole(frame.size), Style.MOSAIC)
    CpuDevice().redact(wanted, whole(frame.size), Style.MOSAIC)
    return bool((frame.luma == wanted.luma).all() and (frame.chroma == wanted.chroma).all())


def planted(folder: Path, old: str, new: str, *, sanitize: bool = False) -> Path:
    """A library of the kernels with one thing changed."""
    kernels = folder / "kernels"
    shutil.copytree(resources.path("kernels/redact.cu").parent, kernels)
    source = (kernels / "redact.cu").read_text()
    assert source.count(old) == 1
    (kernels / "redact.cu").write_text(source.replace(old, new))
    return build(folder, sanitize=sanitize, kernels=kernels)


def sanitized(library: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a sanitized library, and `more` in its environment: the sanitizer must come first into it."""
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    environment = os.environ | {
        "STREAMER_SHIM": str(library),
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "PYTHONPATH": str(ROOT),
        **more,
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )


@pytest.fixture(autouse=True)
def _compiler() -> None:
    need("g++", shutil.which("g++") is not None)


def test_a_missing_barrier_shows_in_one_order(tmp_path) -> None:
    old = "        __syncthreads();\n        if (thread < half)"
    library = planted(tmp_path, old, "        if (thread < half)")
    assert not (run_whole(library) and run_whole(library, reversed_order=True))


def test_a_divergent_barrier_is_named(tmp_path) -> None:
    library = planted(
        tmp_path,
        "        __syncthreads();\n        if (thread < half)",
        "        if (thread < half) __syncthreads();\n        if (thread < half)",
    )
    with pytest.raises(AssertionError, match="never reach"):
        run_whole(library)


@pytest.mark.real
@pytest.mark.timeout(900)
def test_the_kernels_pass_under_sanitizers(tmp_path) -> None:
    """All kernel tests once more, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    library = build(tmp_path, sanitize=True)
    done = sanitized(library, "-m", "pytest", "-x", "-p", "no:cacheprovider", "tests/device/test_kernels.py")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert " passed" in done.stdout


@pytest.mark.real
@pytest.mark.timeout(300)
def test_the_sanitizer_sees_a_row_too_many(tmp_path) -> None:
    old = "if (x >= surface.width || y >= surface.height) return;\n    uint8_t luma"
    library = planted(tmp_path, old, old.replace("y >= ", "y > "), sanitize=True)
    program = (
        "import os; from tests.device.test_shim import *; from streamer.frame import Frame;"
        "d = CudaDevice(ShimDriver(Path(os.environ['STREAMER_SHIM'])), no_network); f = noise(Size(62, 20));"
        "d.cover(Frame(d.own(f.luma), d.own(f.chroma), f.size, 0, 0, f.time_base))"
    )
    done = sanitized(library, "-c", program)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "redact.cu" in done.stderr
