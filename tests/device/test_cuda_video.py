"""Video that stays on the GPU: chosen by trying, the same pictures, and no file where the chip fails on the way.

NVDEC and NVENC are stood in for: FFmpeg's own decoder, whose pictures say that they lie on the GPU (their memory is
the shim's kind), and x264, which takes the surfaces that NVENC would get. Source, device, sink and run are real.
"""

# ruff: noqa: F811 - fixtures of another file are arguments here

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.sidedata.sidedata import SideDataContainer
from typer.testing import CliRunner

from streamer.cli import app
from streamer.config import OutputPolicy, Style
from streamer.device import cuda_probe
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_memory import DevicePlane
from streamer.errors import DeviceError, InputError, OutputError, StreamerError
from streamer.frame import Frame, FrameResult, Redacted, Size
from streamer.masking import whole
from streamer.media import encoders, hardware
from streamer.media.sink import FileSink
from streamer.media.source import FileSource
from streamer.tally import Tally
from tests import clips
from tests.device.conftest import check_on_gpu, no_network, noise
from tests.device.shim_driver import ShimDriver
from tests.device.test_cuda_run import arguments, driver, pictures  # noqa: F401 - the first two are fixtures

CLIP = clips.Clip(frames=12, width=96, height=64)


@pytest.fixture
def gpu(shim_library: Path) -> CudaDevice:
    return CudaDevice(ShimDriver(shim_library), no_network)


class Picture:
    """A decoded picture that says that it lies on the GPU."""

    format = SimpleNamespace(name="cuda", is_rgb=False)

    sw_format = SimpleNamespace(name="nv12")

    def __init__(self, picture: av.VideoFrame) -> None:
        self.real = picture.reformat(format="nv12")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Context:
    """A decoder on the GPU: `before` each packet it may fail, and it may leave pictures to the cores."""

    before: Callable[[int], None] = staticmethod(lambda packet: None)  # type: ignore[assignment]
    left: tuple[int, ...] = ()  # numbers of pictures that it does not decode

    def __init__(self, context: Any) -> None:
        self.__dict__.update(real=context, packets=0, pictures=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.real, name, value)

    def decode(self, packet: av.Packet | None) -> list[Any]:
        self.__dict__["packets"] += 1
        type(self).before(self.packets)
        made = []
        for picture in self.real.decode(packet):
            self.__dict__["pictures"] += 1
            made.append(picture if self.pictures in self.left else Picture(picture))
        return made


@pytest.fixture
def nvdec(monkeypatch: pytest.MonkeyPatch) -> type[Context]:
    """A machine whose NVDEC takes every file."""
    kind = type("Chip", (Context,), {})
    held = property(
        lambda self: self.__dict__["context"],
        lambda self, context: self.__dict__.update(context=kind(context) if self._gpu else context),
    )
    monkeypatch.setattr(FileSource, "_context", held, raising=False)
    monkeypatch.setattr(hardware, "try_file", lambda path, memory: hardware.Answer(True, "decoded by NVDEC"))
    monkeypatch.setattr(hardware, "on_gpu", lambda: None)
    monkeypatch.setattr(
        "streamer.media.picture.SideDataContainer",
        lambda each: SideDataContainer(getattr(each, "real", each)),
    )
    return kind


@pytest.fixture
def nvenc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with NVENC."""
    x264 = replace(
        encoders.RECIPES["h264"], preset="ultrafast", options={"x264-params": "qp=0"}, pixel_format="nv12"
    )
    monkeypatch.setitem(encoders.NVENC, "h264", x264)


def decoded(path: Path, device: CudaDevice, tally: Tally | None = None) -> Iterator[Frame]:
    with FileSource(path, tally=tally or Tally(), audio=False, groups=False, device=device) as source:
        yield from (item for item in source if isinstance(item, Frame))


def test_pictures_of_nvdec_never_visit_the_host(gpu, nvdec, tmp_path, monkeypatch) -> None:
    path = clips.make(tmp_path / "clip.mp4", CLIP)
    with FileSource(path, tally=Tally(), audio=False, groups=False) as source:
        wanted = [item for item in source if isinstance(item, Frame)]
    monkeypatch.setattr(gpu.driver, "upload", lambda *_: pytest.fail("a picture was uploaded"))
    ours = list(decoded(path, gpu))
    assert len(ours) == 12
    check_on_gpu(ours, wanted)


def test_nvdec_is_not_asked_by_many_threads(gpu, nvdec, tmp_path) -> None:
    """Each takes surfaces of its own: with 16, as FFmpeg starts on as many cores, NVDEC refuses what it can decode."""
    path = clips.make(tmp_path / "clip.mp4", CLIP)
    with FileSource(path, tally=Tally(), groups=False, device=gpu) as source:
        assert list(source)
        assert source._context.thread_count == 1
    with FileSource(path, tally=Tally(), groups=False) as source:
        assert source._context.thread_count != 1 or os.cpu_count() == 1


def test_a_picture_that_does_not_suit_goes_through_the_cores(gpu, nvdec, tmp_path) -> None:
    path = clips.make(tmp_path / "clip.mp4", CLIP)
    nvdec.left = (5,)
    kinds = [type(frame.luma) for frame in decoded(path, gpu)]
    assert kinds.count(np.ndarray) == 1
    assert kinds.count(DevicePlane) == 11


@pytest.fixture(autouse=True)
def _upright(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "is_mirrored", lambda _: False)  # these are none of PyAV


def test_what_suits_is_named() -> None:
    def problem(size: Size | None = None, **other: Any) -> str | None:
        fields = {
            "format": SimpleNamespace(name="cuda"), "sw_format": SimpleNamespace(name="nv12"),
            "width": 64, "height": 48, "rotation": 0,
        }  # fmt: skip
        return hardware._misfit(SimpleNamespace(**fields | other), size)

    assert problem() is None
    assert problem(Size(64, 48)) is None
    assert problem(Size(64, 50)) == "another size than before"
    assert problem(sw_format=SimpleNamespace(name="p010le")) == "p010le samples"
    assert problem(format=SimpleNamespace(name="yuv420p"), sw_format=None) == "yuv420p samples"
    assert problem(width=63) == "an odd size, 63 x 48"
    assert problem(rotation=-90) == "a rotated picture"


class Container:
    """A file opened on NVDEC, whose pictures are of that kind."""

    def __init__(self, real: Any, kind: type[Picture]) -> None:
        self.real, self.kind, self.streams = real, kind, real.streams

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_: object) -> None:
        self.real.close()

    def decode(self, stream: Any = None, video: int = 0) -> Iterator[Picture]:
        return map(self.kind, self.real.decode(stream or self.streams.video[video]))


@pytest.mark.parametrize("cut", [{"right": 6, "bottom": 4}, {"left": 18}, {"top": 4}])
def test_a_file_cut_at_the_left_or_the_top_is_decoded_on_the_cores(gpu, tmp_path, monkeypatch, cut) -> None:
    """FFmpeg cuts pictures of a GPU at the right and the bottom alone: what is not to be seen would be."""
    path = clips.cropped(clips.make(tmp_path / "clip.mp4", CLIP), **cut)

    class Left(Picture):
        width = 96 - cut.get("right", 0)
        height = 64 - cut.get("bottom", 0)

    monkeypatch.setattr(hardware, "open_on_gpu", lambda path: Container(av.open(str(path)), Left))
    answer = hardware.try_file(path, gpu.video)
    assert answer.works == ("right" in cut)
    assert answer.works or answer.reason.endswith("(pictures that are cut at the left or the top)")


class Late(Picture):
    """A picture of which only a part had come when it was looked at."""

    def __init__(self, picture: av.VideoFrame) -> None:
        super().__init__(picture)
        np.frombuffer(self.real.planes[1], np.uint8)[::2] = 0  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "works"), [(Picture, True), (Late, False)])
def test_nvdec_is_taken_only_if_its_pictures_are_those_of_the_cores(
    gpu, tmp_path, monkeypatch, kind, works
) -> None:
    path = clips.make(tmp_path / "clip.mp4", CLIP)
    monkeypatch.setattr(hardware, "open_on_gpu", lambda path: Container(av.open(str(path)), kind))
    answer = hardware.try_file(path, gpu.video)
    assert answer.works == works
    assert works or "(its first picture comes out otherwise than on the cores)" in answer.reason
    gpu.driver.fail_at = "copy"
    assert "made to fail at copy" in hardware.try_file(path, gpu.video).reason
    gpu.driver.fail_at = None
    real = av.open
    opened = lambda *given, hwaccel=None, **more: (  # noqa: E731
        real(*given, **more) if hwaccel is None else Container(real(*given, **more), kind)
    )
    monkeypatch.setattr(hardware.av, "open", opened)
    monkeypatch.setattr(hardware, "on_gpu", object)
    decoding = hardware.LiveDecoding(gpu.video)
    assert (decoding.memory is not None) == works
    assert works or decoding.reason.endswith("NVDEC decodes h264 otherwise than the cores")


@pytest.mark.skipif(cuda_probe.probe().problem is None, reason="this machine has a GPU")
def test_a_file_that_nvdec_refuses_is_decoded_on_the_cores(gpu, tmp_path) -> None:
    path = clips.make(tmp_path / "clip.mp4", CLIP)
    with FileSource(path, tally=Tally(), device=gpu) as source:
        assert source.decoding.startswith("decoded on the cores: NVDEC does not take it (")
        assert "\n" not in source.decoding
        assert len([item for item in source if isinstance(item, Frame)]) == 12
    with pytest.raises(InputError, match="no such file"):
        FileSource(tmp_path / "absent.mp4", tally=Tally(), device=gpu)


def test_damage_is_skipped_and_a_chip_that_fails_stops(gpu, nvdec, tmp_path) -> None:
    path = clips.make(tmp_path / "clip.mp4", replace(CLIP, options={"bf": "0"}))

    def fail(error: Exception) -> Callable[[int], None]:
        def before(packet: int) -> None:
            if packet == 6:
                raise error

        return staticmethod(before)  # type: ignore[return-value]

    tally = Tally()
    nvdec.before = fail(av.error.InvalidDataError(1, "damaged"))
    assert len(list(decoded(path, gpu, tally))) == 11
    assert tally.events["damaged packets"] == 1
    for error in (av.error.ExternalError(1, "the GPU is lost"), av.error.PermissionError(1, "not this size")):
        nvdec.before = fail(error)
        with pytest.raises(InputError, match="NVDEC failed on the way"):
            list(decoded(path, gpu))


def test_a_chip_that_decodes_nothing_any_more_stops(gpu, nvdec, tmp_path, monkeypatch) -> None:
    """As from a change to 10 bits on: FFmpeg calls all that follows damaged, and the video would just be shorter."""
    path = clips.make(tmp_path / "clip.mp4", replace(CLIP, options={"bf": "0"}))
    monkeypatch.setattr("streamer.media.source._GARBAGE_OF_NVDEC", 3)

    def before(packet: int) -> None:
        if packet > 6:
            raise av.error.InvalidDataError(1, "no frame!")

    nvdec.before = staticmethod(before)
    tally = Tally()
    with pytest.raises(InputError, match="decodes nothing from picture 6 on; use --device cpu"):
        list(decoded(path, gpu, tally))


@pytest.mark.parametrize("style", ["mosaic", "solid"])
def test_the_chip_makes_the_cpus_video(driver, arguments, nvdec, nvenc, tmp_path, style) -> None:
    made = {}
    for device in ("cpu", "cuda"):
        out, report = tmp_path / f"{device}.mp4", tmp_path / f"{device}.json"
        extra = ["--device", device, "--style", style, "-o", str(out), "--report", str(report)]
        done = CliRunner().invoke(app, [*arguments, *extra], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        made[device] = pictures(out)
    assert len(made["cuda"]) == 12
    for ours, wanted in zip(made["cuda"], made["cpu"], strict=True):
        assert (ours == wanted).all()
    told = json.loads((tmp_path / "cuda.json").read_text())["device"]
    assert told["decoding"] == "decoded by NVDEC"
    assert told["encoding"] == "encoded by NVENC (libx264)"
    assert json.loads((tmp_path / "cpu.json").read_text())["device"]["decoding"] == "decoded on the cores"


@pytest.mark.skipif(cuda_probe.probe().problem is None, reason="this machine has a GPU")
def test_without_nvenc_masked_pictures_are_encoded_on_the_cores(driver, arguments, nvdec, tmp_path) -> None:
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    extra = ["--device", "cuda", "-o", str(out), "--report", str(report)]
    assert CliRunner().invoke(app, [*arguments, *extra], catch_exceptions=False).exit_code == 0
    told = json.loads(report.read_text())["device"]["encoding"]
    assert told.startswith("encoded on the cores by libx264: no NVENC (")
    assert len(pictures(out)) == 12


@pytest.mark.parametrize("call", ["copy", "paint", "page_locked"])
def test_a_gpu_that_vanishes_under_its_own_pictures_leaves_no_video(
    driver,
    arguments,
    nvdec,
    tmp_path,
    monkeypatch,
    call,
) -> None:
    real, left = driver._check, [2 if call == "page_locked" else 8]

    def count(name: str) -> None:
        left[0] -= name == call
        if left[0] == 0:
            driver.fail_at = call
        real(name)

    monkeypatch.setattr(driver, "_check", count)
    out = tmp_path / "out.mp4"
    done = CliRunner().invoke(app, [*arguments, "--device", "cuda", "-o", str(out)])
    assert driver.fail_at == call
    assert isinstance(done.exception, StreamerError)
    assert not list(tmp_path.glob("out*"))


def redacted(device: CudaDevice, frame: Frame, *, resident: bool) -> Redacted:
    if resident:
        frame = replace(frame, luma=device.own(frame.luma), chroma=device.own(frame.chroma))
    device.redact(frame, whole(frame.size), Style.SOLID)
    return Redacted(frame, FrameResult(frame.index, frame.pts, 0.0, frame.size.width, frame.size.height))


def sink_of(path: Path, target: Path, device: CudaDevice, **policy: Any) -> Any:
    source = FileSource(path, tally=Tally(), groups=False)
    return source, FileSink(target, source, OutputPolicy(**policy), tally=Tally(), device=device)


def test_sound_that_comes_first_waits_for_the_first_picture(gpu, nvenc, tmp_path) -> None:
    path = clips.make(tmp_path / "clip.mp4", replace(CLIP, audio="aac"))
    source, sink = sink_of(path, tmp_path / "out.mp4", gpu)
    assert sink.encoding.startswith("encoded by NVENC")
    with source, sink:
        items = list(source)
        for item in items:
            if not isinstance(item, Frame):
                sink.write(item)
        for item in items:
            if isinstance(item, Frame):
                sink.write(redacted(gpu, item, resident=item.index % 2 == 0))
    seen, wanted = clips.look(tmp_path / "out.mp4"), clips.look(path)
    assert seen.times_s == wanted.times_s
    assert seen.audio_s == wanted.audio_s


@pytest.mark.parametrize(
    "error", [DeviceError("the GPU is lost"), av.error.ExternalError(1, "NVENC is lost"), ValueError("NVENC")]
)
def test_an_encoder_that_fails_on_the_way_leaves_no_file(gpu, nvenc, tmp_path, monkeypatch, error) -> None:
    path = clips.make(tmp_path / "clip.mp4", CLIP)
    source, sink = sink_of(path, tmp_path / "out.mp4", gpu)
    with source:
        frames = [item for item in source if isinstance(item, Frame)]
    real = hardware.GpuPictures.picture_on_gpu

    def picture(self: hardware.GpuPictures, frame: Frame) -> av.VideoFrame:
        if frame.index == 4:
            raise error
        return real(self, frame)

    monkeypatch.setattr(hardware.GpuPictures, "picture_on_gpu", picture)
    with pytest.raises((DeviceError, OutputError)), sink:
        for frame in frames:
            sink.write(redacted(gpu, frame, resident=True))
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("policy", "clip", "why"),
    [
        ({"preset": "fast"}, CLIP, 'the preset "fast" is one of the cores'),
        ({"codec": "vp9"}, CLIP, "it knows no vp9"),
        ({}, replace(CLIP, width=95, pixel_format="yuv444p"), "the size is odd"),
    ],
)
def test_what_nvenc_is_not_asked_for(gpu, nvenc, tmp_path, policy, clip, why) -> None:
    path = clips.make(tmp_path / "clip.mkv", clip)
    source, sink = sink_of(path, tmp_path / "out.mkv", gpu, **policy)
    with source, sink:
        assert why in sink.encoding
        for item in source:
            sink.write(redacted(gpu, item, resident=False))


@pytest.mark.parametrize("plane", [0, 1])
@pytest.mark.parametrize("crf", [0, 23, 51])
def test_nvenc_is_taken_only_if_what_it_makes_is_what_it_was_given(
    gpu, nvenc, tmp_path, monkeypatch, plane, crf
) -> None:
    """It takes what lies behind an address: another layout than ours would put other pictures into the video."""
    path = clips.make(tmp_path / "clip.mp4", CLIP)
    source, sink = sink_of(path, tmp_path / "out.mp4", gpu, crf=crf)
    assert sink.encoding.startswith("encoded by NVENC")
    sink.__exit__(InputError, InputError("enough"), None)
    real = hardware.GpuPictures.picture_on_gpu

    def elsewhere(self: hardware.GpuPictures, frame: Frame) -> av.VideoFrame:
        picture = real(self, frame)
        np.frombuffer(picture.planes[plane], np.uint8)[:] = 0
        return picture

    monkeypatch.setattr(hardware.GpuPictures, "picture_on_gpu", elsewhere)
    source, sink = sink_of(path, tmp_path / "out.mp4", gpu, crf=crf)
    assert sink.encoding == "encoded on the cores by libx264: no NVENC (it made another picture)"
    source.close()
    sink.__exit__(InputError, InputError("enough"), None)


def test_groups_that_are_copied_leave_encoding_to_the_cores(gpu, nvenc, tmp_path) -> None:
    path = clips.make(tmp_path / "clip.mp4", CLIP)
    with FileSource(path, tally=Tally()) as source:
        sink = FileSink(tmp_path / "out.mp4", source, OutputPolicy(), tally=Tally(), device=gpu)
        with pytest.raises(InputError), sink:
            assert "between groups that are copied" in sink.encoding
            raise InputError("enough")


@pytest.mark.parametrize("resident", [True, False])
def test_nvenc_finds_chroma_right_behind_luma(gpu, resident) -> None:
    """It is told of one address: anything else there would be somebody else's picture."""
    frame = noise(Size(98, 62), 3)
    shown = frame
    if resident:
        shown = replace(frame, luma=gpu.own(frame.luma), chroma=gpu.own(frame.chroma))
    luma, chroma = gpu.lender().surface(shown)
    assert chroma.address == luma.address + luma.pitch * 62
    assert chroma.pitch == luma.pitch
    assert (np.asarray(luma) == frame.luma).all()
    assert (np.asarray(chroma) == frame.chroma).all()


def test_a_covered_frame_is_encoded_covered(gpu) -> None:
    """Its copy on the GPU is older than what covers it."""
    frame = noise(Size(96, 64))
    gpu.thumbnail(frame, 48)
    frame.luma[:], frame.chroma[:] = 64, 128
    luma, chroma = gpu.lender().surface(frame)
    assert np.unique(np.asarray(luma)).tolist() == [64]
    assert np.unique(np.asarray(chroma)).tolist() == [128]


def test_a_page_locked_copy_is_its_owners_while_any_view_of_it_is_left(gpu) -> None:
    planes = [gpu.own(noise(Size(64, 48), seed).luma) for seed in range(3)]
    row = np.asarray(planes[0])[5]
    before = row.copy()
    for plane in planes:
        np.asarray(plane)
    assert (row == before).all()
    first = np.asarray(planes[0]).ctypes.data
    assert np.asarray(planes[1]).ctypes.data == first  # used again
    picture = hardware.av.VideoFrame.from_dlpack(
        (np.asarray(planes[0]), np.asarray(gpu.own(np.zeros((24, 32, 2), np.uint8))))
    )
    assert picture.planes[0].buffer_ptr != np.asarray(planes[1]).ctypes.data
