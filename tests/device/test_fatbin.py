"""The shipped kernels are those of the sources, and none of them spills."""

import hashlib
import importlib.util
import json
import shutil
from types import ModuleType

import pytest

from streamer import resources
from tests.conftest import need


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
    facts = json.loads(resources.path("kernels/streamer.fatbin.json").read_text(encoding="utf-8"))
    assert facts["sources"] == recipe.digest(), "run: python kernels/build.py"
    fatbin = resources.path("kernels/streamer.fatbin").read_bytes()
    assert facts["fatbin"] == hashlib.sha256(fatbin).hexdigest()
    assert facts["nvcc"].startswith("13.0."), "PTX of a newer toolkit needs a newer driver than we ask for"


@pytest.mark.real
def test_the_sources_compile_without_spills(recipe, tmp_path) -> None:
    need("nvcc", shutil.which("nvcc") is not None)
    flags = ("-cubin", "-O3", "-std=c++17", "-fmad=false", "-Xptxas=-v", "-arch=sm_90")
    said = recipe.compiled(tmp_path / "kernels.cubin", flags)
    kernels = {line.split("'")[1] for line in said.splitlines() if "Compiling entry function" in line}
    assert kernels == {"sum_cells", "round_cells", "paint", "cover", "view_f32", "view_f16", "thumbnail"}
    assert said.count("0 bytes spill stores, 0 bytes spill loads") >= len(kernels)
