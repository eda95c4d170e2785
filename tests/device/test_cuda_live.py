"""A live stream whose GPU vanishes: what comes after is covered, nothing of the face leaves, the stream goes on."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from streamer.config import settings_from
from streamer.device.cuda import CudaDevice
from streamer.errors import DeviceError
from streamer.frame import Frame
from streamer.live.detecting import SharedDetector
from streamer.live.settings import StreamSettings
from streamer.live.stream import LiveStream, Studio
from streamer.proof import scene
from streamer.zones import Zones
from tests.device.conftest import no_network
from tests.device.shim_driver import ShimDriver


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
