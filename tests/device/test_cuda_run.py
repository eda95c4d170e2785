"""A whole run on the CUDA device: the same video as on the CPU, and no video at all where the GPU fails on the way.

The kernels run in the shim, the network in ONNX Runtime: only pycuda and TensorRT are stood in for.
"""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from streamer.cli import app
from streamer.device import cuda_driver, cuda_probe, cuda_trt
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_memory import DeviceTensor
from streamer.errors import StreamerError
from tests import clips
from tests.device.shim_driver import ShimDriver
from tests.device.test_cuda_trt import OnnxEngine


@pytest.fixture
def driver(shim_library, monkeypatch) -> ShimDriver:
    """A machine with a GPU."""
    driver = ShimDriver(shim_library)
    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(13000, 1))
    monkeypatch.setattr(cuda_driver, "PycudaDriver", lambda: driver)
    monkeypatch.setattr(cuda_trt, "backend", lambda: None)
    monkeypatch.setattr(
        cuda_trt,
        "load",
        lambda driver, pool, spec, side, precision: (
            driver.launches.append(precision) or cuda_trt.TensorRtSession(driver, pool, OnnxEngine(spec))
        ),
    )
    return driver


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    """A clip with a zone that is always masked, and settings that keep the run small."""
    clips.make(tmp_path / "clip.mp4", clips.Clip(frames=12, width=96, height=64))
    zones = {"mask": [[[0.1, 0.1], [0.6, 0.2], [0.4, 0.8]]]}
    (tmp_path / "zones.json").write_text(json.dumps(zones))
    (tmp_path / "settings.toml").write_text("[detect]\nside = 128\n")
    return [
        "anonymize", str(tmp_path / "clip.mp4"), "--zones", str(tmp_path / "zones.json"), "--style", "mosaic",
        "--config", str(tmp_path / "settings.toml"), "--reencode", "all", "--crf", "0",  # no loss
    ]  # fmt: skip


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [picture.to_ndarray() for picture in container.decode(video=0)]


@pytest.mark.parametrize("looks", [[], ["--turned"]])
def test_the_gpu_makes_the_cpus_video(driver, arguments, tmp_path, monkeypatch, looks) -> None:
    made, turned, real = {}, [], CudaDevice.turned

    def turn(device: CudaDevice, views: DeviceTensor, quarters: int) -> DeviceTensor:
        turned.append(("crops" if views.shape[2:] == (64, 64) else "view", quarters))
        return real(device, views, quarters)

    monkeypatch.setattr(CudaDevice, "turned", turn)
    for device in ("cpu", "cuda"):
        out, report = tmp_path / f"{device}.mp4", tmp_path / f"{device}.json"
        extra = [*looks, "--device", device, "-o", str(out), "--report", str(report)]
        done = CliRunner().invoke(app, [*arguments, *extra], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        made[device] = pictures(out)
    assert len(made["cuda"]) == 12
    assert all((ours == wanted).all() for ours, wanted in zip(made["cuda"], made["cpu"], strict=True))
    assert "cuda:0" in (tmp_path / "cuda.json").read_text()
    assert driver.launches.count("paint") >= 12
    assert driver.launches.count("turn_f32") == len(turned)
    views = driver.launches.count("view_f32") - 1  # but the test's, which is turned once
    once, *others = [quarters for what, quarters in turned if what == "view"]
    assert once == 1
    assert others == ([1, 2, 3] * views if looks else [])
    of_crops = {quarters for what, quarters in turned if what == "crops"}  # as far as their views
    assert of_crops == ({1, 2, 3} if looks else set())
    assert driver.launches.count("crop_f32") > 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_engine_has_the_precision_that_was_asked_for(driver, arguments, tmp_path, precision) -> None:
    out = tmp_path / "out.mp4"
    more = [] if precision == "fp32" else ["--precision", precision]
    done = CliRunner().invoke(app, [*arguments, *more, "--device", "cuda", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert {name for name in driver.launches if name.startswith("fp")} == {precision}  # of test and run


@pytest.mark.parametrize(
    "call", ["upload", "view_f32", "crop_f32", "turn_f32", "sum_cells", "paint", "download"]
)
def test_a_gpu_that_vanishes_on_the_way_leaves_no_video(
    driver, arguments, tmp_path, monkeypatch, call
) -> None:
    counts = {"view_f32": 2, "crop_f32": 2, "turn_f32": 2, "download": 20, "upload": 20}
    real, left = driver._check, [counts.get(call, 6)]

    def count(name: str) -> None:
        if name == call:
            left[0] -= 1
            if left[0] == 0:
                driver.fail_at = call
        real(name)

    monkeypatch.setattr(driver, "_check", count)
    out = tmp_path / "out.mp4"
    turned = ["--turned"] if call == "turn_f32" else []
    done = CliRunner().invoke(app, [*arguments, *turned, "--device", "cuda", "-o", str(out)])
    assert driver.fail_at == call
    assert done.exit_code != 0
    assert "made to fail" in done.output + done.stderr or isinstance(done.exception, StreamerError)
    assert "did not pass its test" not in str(done.exception)  # it did, and failed later
    assert not out.exists()
