"""The stages that are timed are those that run. No times are judged here."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from streamer import models, resident_bench
from streamer.cli import app
from streamer.config import Style, settings_from
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


@pytest.fixture
def machine(shim_library, monkeypatch) -> ShimDriver:
    """A machine with a GPU."""
    driver = ShimDriver(shim_library)
    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(13000, 1))
    monkeypatch.setattr(cuda_driver, "PycudaDriver", lambda: driver)
    monkeypatch.setattr(cuda_trt, "backend", lambda: None)
    monkeypatch.setattr(
        cuda_trt,
        "load",
        lambda driver, pool, spec, side, precision: cuda_trt.TensorRtSession(driver, pool, OnnxEngine(spec)),
    )
    return driver


@pytest.mark.skipif(cuda_probe.probe().problem is None, reason="this machine has a GPU")
def test_the_command_prints_the_stages_of_a_file(machine, monkeypatch, tmp_path) -> None:
    clip = tmp_path / "clip.mkv"
    clip.write_bytes(hardware._clip("libx264").getvalue())
    monkeypatch.setattr(cuda_bench, "_COPIED", 1 << 16)
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
    assert told["detect_track_mask"].keys() == told["end_to_end"].keys() == {"cuda", "cpu"}
    for run in told["detect_track_mask"].values():
        assert run["streams"] == 1
        assert run["fps"] > 0
        assert 0 < run["median_ms_per_frame"] <= run["p95_ms_per_frame"]
    for run in told["end_to_end"].values():
        assert run["frames"] == 3
        assert run["fps"] > 0
        assert 0 < run["median_ms_per_frame"] <= run["p95_ms_per_frame"]
        assert run["decoding"].startswith("decoded on the cores")
        assert run["encoding"].startswith("encoded on the cores by libx264")
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "200"})
    assert "file to file" in shown.output
    assert "detect, track and mask resident frames, streams at once: 1" in shown.output
    assert "CPU p95, ms" in shown.output


def test_resident_frames_are_detected_tracked_and_masked(machine, monkeypatch) -> None:
    """The same work on both devices, every frame looked at, those of several streams in one run where they wait."""
    portrait = pytest.importorskip("skimage.data").astronaut().mean(axis=2).astype(np.uint8)
    frame = noise(Size(512, 512))
    frame.luma[:], frame.chroma[:] = portrait, 128
    monkeypatch.setattr(resident_bench, "_FRAMES", 4)
    settings = settings_from({"detect": {"side": 256}})
    before = frame.luma.copy()
    runs = resident_bench.measure([frame], settings, streams=3, rounds=1)
    assert runs["cuda"].streams == runs["cpu"].streams == 3
    assert runs["cuda"].frames == runs["cpu"].frames == 12
    assert runs["cuda"].masks == runs["cpu"].masks >= 12
    assert all(0 < run.median_s <= run.p95_s and run.rate > 0 < run.cpu_s for run in runs.values())
    assert machine.launches.count("paint") >= 24  # of two rounds
    assert 8 <= machine.launches.count("view_f32") <= 25  # and one at the start
    assert (frame.luma == before).all()


@pytest.mark.parametrize("call", ["view_f32", "download", "allocate"])
def test_a_gpu_that_fails_gives_no_number(machine, monkeypatch, call) -> None:
    monkeypatch.setattr(
        resident_bench, "_clip",
        lambda *given, real=resident_bench._clip: (real(*given), setattr(machine, "fail_at", call))[0],
    )  # fmt: skip
    with pytest.raises(DeviceError, match="made to fail"):
        resident_bench.measure([noise(Size(160, 96))], settings_from({"detect": {"side": 128}}), 2, 1)


def test_without_a_gpu_the_command_stops(monkeypatch, tmp_path) -> None:
    clip = tmp_path / "clip.mkv"
    clip.write_bytes(b"anything")
    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(problem="no driver"))
    assert isinstance(
        CliRunner().invoke(app, ["bench", str(clip), "--device", "cuda"]).exception, DeviceError
    )
    assert isinstance(CliRunner().invoke(app, ["bench", str(clip), "--device", "x"]).exception, ConfigError)
