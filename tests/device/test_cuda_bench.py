"""The stages that are timed are those that run. No times are judged here."""

import json

import pytest
from typer.testing import CliRunner

from streamer import models
from streamer.cli import app
from streamer.config import Style
from streamer.device import cuda_bench, cuda_driver, cuda_probe, cuda_trt
from streamer.device.base import letterbox
from streamer.device.cuda import CudaDevice
from streamer.errors import ConfigError, DeviceError
from streamer.frame import Size
from streamer.media import hardware
from tests.device.conftest import noise
from tests.device.shim_driver import ShimDriver
from tests.device.test_cuda_trt import OnnxEngine


def test_every_stage_is_measured(shim_library, monkeypatch) -> None:
    monkeypatch.setattr(cuda_bench, "_COPIED", 1 << 16)
    seen: list[tuple[int, ...]] = []
    watch = cuda_bench.Stopwatch(ShimDriver(shim_library))
    device = CudaDevice(watch, lambda *_: lambda tensor: seen.append(tensor.shape))
    frames = [noise(Size(160, 90), seed) for seed in range(2)]
    stages = cuda_bench.measure(
        device, frames, letterbox(frames[0].size, 64), models.find("fast"), Style.BLUR, rounds=2
    )
    names = {stage.name: stage for stage in stages}
    assert {
        "view_f32",
        "network, with outputs to the host",
        "sum_cells",
        "round_cells",
        "paint",
    } <= names.keys()
    assert {"sum_cells (everything)", "paint (everything)", "mask everything, all of it"} <= names.keys()
    assert all(
        stage.frames == 2 and 0 < stage.median_ms <= stage.p95_ms and stage.rate > 0 for stage in stages
    )
    assert names["mask everything, all of it"].floor_ms > 0
    assert names["paint"].floor_ms is None
    beside = {name for name, stage in names.items() if stage.cpu_median_ms is not None}
    assert beside == {
        cuda_bench._LOOK,
        cuda_bench._NETWORK,
        cuda_bench._FEW,
        cuda_bench._ALL,
        cuda_bench._TOGETHER,
    }
    assert all(0 < names[name].cpu_median_ms <= names[name].cpu_p95_ms for name in beside)
    whole = names[cuda_bench._TOGETHER]
    assert whole.median_ms >= names[cuda_bench._FEW].median_ms
    assert seen == [(2, 3, 64, 64)] * 5


def test_a_device_without_a_stopwatch_is_a_mistake(shim_library) -> None:
    device = CudaDevice(ShimDriver(shim_library), lambda *_: None)
    frames = [noise(Size(64, 48))]
    with pytest.raises(TypeError):
        cuda_bench.measure(device, frames, letterbox(frames[0].size, 64), models.find("fast"), Style.BLUR, 1)


@pytest.mark.skipif(cuda_probe.probe().problem is None, reason="this machine has a GPU")
def test_the_command_prints_the_stages_of_a_file(shim_library, monkeypatch, tmp_path) -> None:
    clip = tmp_path / "clip.mkv"
    clip.write_bytes(hardware._clip("libx264").getvalue())
    monkeypatch.setattr(cuda_bench, "_COPIED", 1 << 16)
    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(13000, 1))
    monkeypatch.setattr(cuda_driver, "PycudaDriver", lambda: ShimDriver(shim_library))
    monkeypatch.setattr(cuda_trt, "backend", lambda: None)
    monkeypatch.setattr(
        cuda_trt,
        "load",
        lambda driver, pool, spec, side, precision: cuda_trt.TensorRtSession(driver, pool, OnnxEngine()),
    )
    config = tmp_path / "small.toml"
    config.write_text("[detect]\nside = 128\n")
    arguments = [
        "bench",
        str(clip),
        "--device",
        "cuda",
        "--batch",
        "1",
        "--rounds",
        "1",
        "--config",
        str(config),
    ]
    shown = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    told = json.loads(shown.output)
    assert {"paint", "view_f32"} <= {stage["name"] for stage in told["resident"]}
    assert told["gpu"] == "shim"
    assert told["end_to_end"].keys() == {"cuda", "cpu"}
    for run in told["end_to_end"].values():
        assert run["frames"] == 3
        assert run["fps"] > 0
        assert 0 < run["median_ms_per_frame"] <= run["p95_ms_per_frame"]
        assert run["decoding"].startswith("decoded on the cores")
        assert run["encoding"].startswith("encoded on the cores by libx264")
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "200"})
    assert "file to file" in shown.output
    assert "CPU p95, ms" in shown.output


def test_without_a_gpu_the_command_stops(monkeypatch, tmp_path) -> None:
    clip = tmp_path / "clip.mkv"
    clip.write_bytes(b"anything")
    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(problem="no driver"))
    assert isinstance(
        CliRunner().invoke(app, ["bench", str(clip), "--device", "cuda"]).exception, DeviceError
    )
    assert isinstance(CliRunner().invoke(app, ["bench", str(clip), "--device", "x"]).exception, ConfigError)
