"""A live stream whose GPU vanishes: what comes after is covered, nothing of the face leaves, the stream goes on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamer.config import settings_from
from streamer.device.cuda import CudaDevice
from streamer.errors import DeviceError, InputError
from streamer.frame import Frame
from streamer.live.detecting import SharedDetector
from streamer.live.settings import StreamSettings
from streamer.live.stream import LiveStream, Studio
from streamer.media import hardware, live_source
from streamer.media.live_source import LiveSource, LiveSpec
from streamer.proof import scene
from streamer.tally import Tally
from streamer.zones import Zones
from tests import clips
from tests.device.conftest import check_on_gpu, no_network
from tests.device.shim_driver import ShimDriver
from tests.device.test_cuda_video import Context


class Gpu(ShimDriver):
    """A GPU that can be lost."""

    lost = False

    def _check(self, call: str) -> None:
        super()._check(call)
        if self.lost:
            raise DeviceError("the GPU is lost")


@pytest.mark.parametrize("resident", [False, True], ids=["uploaded frames", "frames on the GPU"])
def test_a_gpu_that_vanishes_is_covered(shim_library, resident) -> None:
    driver = Gpu(shim_library)
    device = CudaDevice(driver, no_network)

    def connect(size: Any) -> Iterator[Frame]:
        for frame in scene.frames():
            if resident:
                frame = replace(frame, luma=device.own(frame.luma), chroma=device.own(frame.chroma))
            yield frame

    studio = Studio(settings_from({}), device, "in a test", SharedDetector(scene.ScriptedDetector()), Zones())
    settings = StreamSettings(source="rtsp://camera.invalid/", late_ms=150)
    stream = LiveStream("camera", settings, studio, connect=connect)
    judge = scene.Judge()
    stream.add(judge)
    covered: list[int] = []

    def done() -> bool:
        if judge.masked >= 10 and not driver.lost:
            driver.lost = True
            covered.append(judge.covered)
        return driver.lost and judge.covered >= covered[0] + 10

    scene.run_until(stream, done, timeout_s=120)
    assert judge.leaks == 0
    assert stream.failure is None


@pytest.fixture
def gpu(shim_library) -> CudaDevice:
    return CudaDevice(ShimDriver(shim_library), no_network)


@pytest.fixture
def path(tmp_path) -> Path:
    return clips.make(tmp_path / "clip.mp4", clips.Clip(frames=12, width=96, height=64, options={"bf": "0"}))


@pytest.fixture
def nvdec(monkeypatch: pytest.MonkeyPatch) -> type[Context]:
    """A machine whose NVDEC takes every stream."""
    kind = type("Chip", (Context,), {})
    held = property(
        lambda self: self.__dict__["context"],
        lambda self, context: self.__dict__.update(
            context=kind(context) if self._decoding.memory is not None else context
        ),
    )
    monkeypatch.setattr(LiveSource, "_context", held, raising=False)
    monkeypatch.setattr(hardware, "try_decoding", lambda: hardware.Answer(True, "NVDEC decodes h264"))
    monkeypatch.setattr(hardware, "on_gpu", lambda: None)
    monkeypatch.setattr(hardware, "is_mirrored", lambda _: False)  # these are none of PyAV
    return kind


class Still:
    """A clock that waits for nothing."""

    def now(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None: ...


def live(path: Path, decoding: hardware.LiveDecoding | None = None) -> list[Frame]:
    with LiveSource(LiveSpec(str(path)), tally=Tally(), clock=Still(), decoding=decoding) as source:
        return [frame for frame in source if isinstance(frame, Frame)]


def test_a_live_source_is_decoded_on_the_gpu(gpu, nvdec, path, monkeypatch) -> None:
    wanted = live(path)
    monkeypatch.setattr(gpu.driver, "upload", lambda *_: pytest.fail("a picture was uploaded"))
    decoding = hardware.LiveDecoding(gpu.video)
    ours = live(path, decoding)
    assert decoding.reason == "decoded by NVDEC"
    assert len(ours) == 12
    check_on_gpu(ours, wanted)


def test_a_live_source_that_nvdec_refuses_is_decoded_on_the_cores(gpu, nvdec, path, monkeypatch) -> None:
    real = av.open

    def refuse(*given: Any, hwaccel: Any = None, **more: Any) -> Any:
        if hwaccel is not None:
            raise av.error.PermissionError(1, "not this codec")
        return real(*given, **more)

    monkeypatch.setattr(hardware, "on_gpu", object)
    monkeypatch.setattr(live_source.av, "open", refuse)
    decoding = hardware.LiveDecoding(gpu.video)
    assert all(isinstance(frame.luma, np.ndarray) for frame in live(path, decoding))
    assert decoding.reason == "decoded on the cores: NVDEC does not take it (not this codec)"


def test_a_source_that_is_away_is_not_nvdecs_fault(gpu, nvdec) -> None:
    decoding = hardware.LiveDecoding(gpu.video)
    with pytest.raises(InputError):
        LiveSource(LiveSpec("http://127.0.0.1:9/nobody", open_s=2), tally=Tally(), decoding=decoding)
    assert decoding.memory is not None


@pytest.mark.parametrize("failing", ["decode", "copy", "decodes nothing"])
def test_an_nvdec_that_fails_on_the_way_ends_the_connection_and_is_not_asked_again(
    gpu, nvdec, path, monkeypatch, failing
) -> None:
    """The supervisor covers until the next connection is there, which the cores decode."""

    def before(packet: int) -> None:
        if failing == "copy" and packet == 6:
            gpu.driver.fail_at = "copy"
        elif failing == "decodes nothing":
            raise av.error.InvalidDataError(1, "nothing")
        elif failing == "decode" and packet == 6:
            raise av.error.ExternalError(1, "the GPU is lost")

    monkeypatch.setattr(live_source, "_GARBAGE_OF_NVDEC", 5)
    nvdec.before = staticmethod(before)
    decoding = hardware.LiveDecoding(gpu.video)
    with pytest.raises((InputError, DeviceError)):
        live(path, decoding)
    assert decoding.reason.startswith("decoded on the cores: NVDEC does not take it (")
    again = live(path, decoding)
    assert len(again) == 12
    assert all(isinstance(frame.luma, np.ndarray) for frame in again)


@pytest.mark.skipif(hardware.try_decoding().works, reason="this machine has NVDEC")
def test_without_nvdec_the_cores_decode_and_say_why(gpu, path) -> None:
    decoding = hardware.LiveDecoding(gpu.video)
    assert decoding.reason.startswith("decoded on the cores: NVDEC does not decode h264 here (")
    assert len(live(path, decoding)) == 12
