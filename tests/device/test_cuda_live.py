"""Live streams on the GPU: decoded and encoded there where the chip does, covered where it vanishes, never stopped.

NVENC is stood in for by x264, which takes the surfaces that NVENC would get (their memory is the shim's kind).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamer.config import Style, settings_from
from streamer.device.cuda import CudaDevice
from streamer.errors import DeviceError, InputError, OutputError, RedactionError
from streamer.frame import Frame, FrameResult, Redacted, Size
from streamer.live.detecting import SharedDetector
from streamer.live.settings import StreamSettings
from streamer.live.stream import LiveStream, Studio
from streamer.masking import whole
from streamer.media import encoders, hardware, live_encoder, live_source
from streamer.media.hardware import GpuPictures
from streamer.media.live_encoder import EncoderSpec, LiveEncoder, LiveEncoding
from streamer.media.live_source import LiveSource
from streamer.media.live_spec import LiveSpec
from streamer.proof import scene
from streamer.tally import Tally
from streamer.zones import Zones
from tests import clips
from tests.device.conftest import check_on_gpu, no_network, noise
from tests.device.shim_driver import ShimDriver
from tests.device.test_cuda_video import Context, Picture


class Gpu(ShimDriver):
    """A GPU that can be lost."""

    lost = False

    def _check(self, call: str) -> None:
        super()._check(call)
        if self.lost:
            raise DeviceError("the GPU is lost")


@pytest.fixture
def nvenc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with NVENC."""
    x264 = replace(encoders.NVENC["h264"], encoder="libx264", pixel_format="nv12")
    monkeypatch.setitem(encoders.NVENC, "h264", x264)
    monkeypatch.setattr(live_encoder, "_NVENC", live_encoder._X264)


ON_GPU = "libx264 on pictures of the GPU"


@pytest.mark.parametrize("chip", ["with NVENC", "without"])
@pytest.mark.parametrize("resident", [False, True], ids=["uploaded frames", "frames on the GPU"])
def test_a_gpu_that_vanishes_is_covered(shim_library, resident, chip, request) -> None:
    if chip == "with NVENC":
        request.getfixturevalue("nvenc")
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
    assert stream.encoder is not None
    if chip == "with NVENC":
        assert f"{ON_GPU} failed (the GPU is lost)" in stream.encoder.why
    assert stream.encoder.why.endswith("libx264 opens")


def test_masked_pictures_go_from_the_gpu_to_nvenc(shim_library, nvenc, monkeypatch) -> None:
    """And so do those that cover for a camera that went away, which are made in main memory."""
    driver = Gpu(shim_library)
    device = CudaDevice(driver, no_network)
    downloads: list[int] = []
    real = driver.download
    monkeypatch.setattr(
        driver, "download", lambda host, *place: (downloads.append(host.size), real(host, *place))
    )

    def camera(size: Any) -> Iterator[Frame]:
        for frame in scene.frames(40):
            yield replace(frame, luma=device.own(frame.luma), chroma=device.own(frame.chroma))
        raise InputError("the camera is away")

    studio = Studio(settings_from({}), device, "in a test", SharedDetector(scene.ScriptedDetector()), Zones())
    settings = StreamSettings(source="rtsp://camera.invalid/", late_ms=150)
    stream = LiveStream("camera", settings, studio, connect=camera)
    judge = scene.Judge()
    stream.add(judge)
    scene.run_until(stream, lambda: judge.masked >= 10 and judge.covered >= 10, timeout_s=120)
    assert judge.leaks == 0
    assert stream.encoder is not None
    assert stream.encoder.why == f"{ON_GPU} opens"
    chroma = scene.SIZE.width * scene.SIZE.height // 2
    assert chroma not in downloads  # luma is what is tracked by: the picture is as small as that


def redacted(device: CudaDevice, number: int, *, resident: bool, size: Size = Size(97, 63)) -> Redacted:
    frame = noise(size, number)
    if resident:
        frame = replace(frame, luma=device.own(frame.luma), chroma=device.own(frame.chroma))
    device.redact(frame, whole(size), Style.MOSAIC)
    return Redacted(frame, FrameResult(number, number, 0.0, size.width, size.height))


@pytest.mark.parametrize("where", ["on the GPU", "in main memory", "in turn"])
def test_nvenc_makes_the_same_of_frames_wherever_they_lie(gpu, nvenc, where) -> None:
    """Those that were fitted into the stream's size lie in main memory; key pictures come when asked for."""
    spec = EncoderSpec(Size(97, 63), 25)
    ours, wanted = LiveEncoder(spec, LiveEncoding(gpu.video)), LiveEncoder(spec)
    assert ours.why == f"{ON_GPU} opens"
    keys = []
    for number in range(30):
        if number == 20:
            ours.want_key()
            wanted.want_key()
        resident = where == "on the GPU" or (where == "in turn" and number % 2 == 0)
        (packet,) = ours.encode(redacted(gpu, number, resident=resident), number * 3600)
        (reference,) = wanted.encode(redacted(gpu, number, resident=False), number * 3600)
        assert bytes(packet.packet) == bytes(reference.packet)
        assert (packet.packet.pts, packet.result.index) == (number * 3600, number)
        keys += [number] if packet.key else []
    assert keys == [0, 20]


def test_nothing_raw_reaches_nvenc(gpu, nvenc, monkeypatch) -> None:
    encoder = LiveEncoder(EncoderSpec(Size(96, 64), 25), LiveEncoding(gpu.video))
    monkeypatch.setattr(GpuPictures, "picture_on_gpu", lambda *_: pytest.fail("handed over"))
    with pytest.raises(RedactionError, match="not a redacted frame"):
        encoder.encode(noise(Size(96, 64)), 0)  # type: ignore[arg-type]


def test_nvenc_gets_no_picture_of_another_size(gpu, nvenc) -> None:
    """It would read on behind a smaller one, where other pictures lie. The cores scale it."""
    spec, encoding = EncoderSpec(Size(96, 64), 25), LiveEncoding(gpu.video)
    encoder = LiveEncoder(spec, encoding)
    with pytest.raises(OutputError, match="another size"):
        encoder.encode(redacted(gpu, 0, resident=True, size=Size(64, 48)), 0)
    encoder = LiveEncoder(spec, encoding)
    assert encoder.why.startswith(f"{ON_GPU} failed (a picture of 64 x 48 for an encoder of another size)")
    assert encoder.encode(redacted(gpu, 0, resident=True, size=Size(64, 48)), 0)


@pytest.mark.parametrize(
    "error",
    [
        av.error.ExternalError(1, "NVENC is lost"),
        ValueError("NVENC"),
        DeviceError("lost"),
        MemoryError("NVENC"),
    ],
)
def test_an_nvenc_that_fails_on_the_way_is_not_asked_again(gpu, nvenc, monkeypatch, error) -> None:
    spec, encoding = EncoderSpec(Size(97, 63), 25), LiveEncoding(gpu.video)
    encoder = LiveEncoder(spec, encoding)
    assert encoder.encode(redacted(gpu, 0, resident=True), 0)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(GpuPictures, "picture_on_gpu", fail)
    with pytest.raises((OutputError, DeviceError, MemoryError)):
        encoder.encode(redacted(gpu, 1, resident=True), 3600)
    encoder = LiveEncoder(spec, encoding)
    assert encoder.why.startswith(f"{ON_GPU} failed (")
    (packet,) = encoder.encode(redacted(gpu, 2, resident=True), 7200)
    assert packet.key
    assert "failed" not in LiveEncoder(spec, LiveEncoding()).why  # other streams go on as they were


def test_the_doctor_tries_nvenc_on_the_memory_of_the_gpu(gpu, nvenc) -> None:
    assert hardware.try_encoding("h264", gpu.video) == hardware.Answer(
        True, "NVENC encodes h264 from the memory of the GPU"
    )
    gpu.driver.fail_at = "upload"
    answer = hardware.try_encoding("h264", gpu.video)
    assert answer.reason == "NVENC does not encode h264 here (the GPU failed (made to fail at upload))"


@pytest.mark.skipif(hardware.try_encoding().works, reason="this machine has NVENC")
def test_without_nvenc_the_cores_encode_live_and_say_why(gpu) -> None:
    encoder = LiveEncoder(EncoderSpec(Size(97, 63), 25), LiveEncoding(gpu.video))
    assert encoder.name == "libx264"
    first, second, third = encoder.why.split("; ")
    assert first.startswith("h264_nvenc on pictures of the GPU does not open (")
    assert second.startswith("h264_nvenc does not open (")
    assert third == "libx264 opens"
    assert "\n" not in encoder.why
    (packet,) = encoder.encode(redacted(gpu, 0, resident=True), 0)
    assert packet.key


def test_nvenc_holds_no_picture_back(gpu) -> None:
    ways = {way.name: way for way in live_encoder._ways(EncoderSpec(Size(97, 63), 25), gpu.video)}
    assert list(ways) == ["h264_nvenc on pictures of the GPU", "h264_nvenc", "libx264"]
    assert all(way.options["delay"] == "0" for name, way in ways.items() if "nvenc" in name)
    assert ways["h264_nvenc on pictures of the GPU"].pixel_format == "cuda"


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
    monkeypatch.setattr(hardware, "try_decoding", lambda memory: hardware.Answer(True, "NVDEC decodes h264"))
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


def test_a_stream_that_nvdec_leaves_to_the_cores_says_so(gpu, nvdec, path) -> None:
    """FFmpeg opens what it has no NVDEC for as if none had been asked for: raw pictures of a webcam."""
    nvdec.left = tuple(range(1, 13))
    decoding = hardware.LiveDecoding(gpu.video)
    assert all(isinstance(frame.luma, np.ndarray) for frame in live(path, decoding))
    assert decoding.reason == "decoded on the cores: NVDEC does not take it (h264 as yuv420p)"


def test_a_stream_cut_at_the_left_is_decoded_on_the_cores(gpu, nvdec, path, monkeypatch) -> None:
    """FFmpeg leaves what is cut off there in pictures of a GPU: it would be shown."""
    wanted = live(clips.cropped(path, left=18))
    monkeypatch.setattr(Picture, "width", property(lambda self: self.real.width + 18), raising=False)
    decoding = hardware.LiveDecoding(gpu.video)
    with pytest.raises(InputError, match="cuts off"):
        live(clips.cropped(path, left=18), decoding)
    assert decoding.reason.endswith("(pictures that are cut at the left or the top)")
    again = live(clips.cropped(path, left=18), decoding)
    assert [frame.size for frame in again] == [Size(78, 64)] * 12
    assert all((ours.luma == frame.luma).all() for ours, frame in zip(again, wanted, strict=True))


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
