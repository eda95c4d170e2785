"""The shipped kernels are those of the sources, and none of them spills."""

import hashlib
import importlib.util
import json
import re
import shutil
from types import ModuleType

import pytest

from streamer import resources
from tests.conftest import need

FACTS = json.loads(resources.path("kernels/streamer.fatbin.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """kernels/build.py."""
    spec = importlib.util.spec_from_file_location("kernels_build", resources.path("kernels/build.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_fatbin_was_built_from_these_sources(recipe) -> None:
    assert FACTS["sources"] == recipe.digest(), "run: python kernels/build.py fatbin"
    fatbin = resources.path("kernels/streamer.fatbin").read_bytes()
    assert FACTS["fatbin"] == hashlib.sha256(fatbin).hexdigest()
    assert FACTS["nvcc"].startswith("13.0."), "PTX of a newer toolkit needs a newer driver than we ask for"


@pytest.mark.real
@pytest.mark.timeout(300)
def test_the_documented_command_makes_this_fatbin_and_no_kernel_spills(recipe, tmp_path) -> None:
    """To the byte where nvcc is the one that made it; spills are looked for on every architecture."""
    need("nvcc", shutil.which("nvcc") is not None)
    said = recipe.compiled(tmp_path / "streamer.fatbin")
    kernels = {line.split("'")[1] for line in said.splitlines() if "Compiling entry function" in line}
    assert kernels == {
        "sum_cells", "round_cells", "paint", "cover", "thumbnail",
        "view_f32", "view_f16", "crop_f32", "crop_f16", "turn_f32", "turn_f16",
    }  # fmt: skip
    machines = {line.split("'")[3] for line in said.splitlines() if "Compiling entry function" in line}
    assert machines == {f"sm_{number}" for number in recipe.ARCHITECTURES}
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert len(spills) >= len(kernels) * len(machines)
    assert set(spills) == {("0", "0")}
    if recipe.version() != FACTS["nvcc"]:
        pytest.skip(f"the fatbin was made by nvcc {FACTS['nvcc']}, here is {recipe.version()}")
    assert (tmp_path / "streamer.fatbin").read_bytes() == resources.path(
        "kernels/streamer.fatbin"
    ).read_bytes()


@pytest.mark.real
def test_a_kernel_that_spills_is_not_shipped(recipe, tmp_path) -> None:
    need("nvcc", shutil.which("nvcc") is not None)
    flags = ("-cubin", "-O3", "-std=c++17", "-fmad=false", "-Xptxas=-v", "-arch=sm_90", "-maxrregcount=24")
    with pytest.raises(RuntimeError, match="spills registers"):
        recipe.compiled(tmp_path / "kernels.cubin", flags)
