"""On a real GPU: the kernels through pycuda, engines through TensorRT, video through NVDEC.

    STREAMER_REQUIRE_CUDA=1 pytest -m gpu

Everything else about the device is proved by the other tests of this folder, with the identical kernels.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from streamer import doctor, models
from streamer.cli import app
from streamer.config import DetectPolicy, Hide, MaskPolicy, OutputPolicy, Style, settings_from
from streamer.detector import Detector
from streamer.device import cuda_probe, cuda_trt, open_cuda, open_device
from streamer.device.base import SOLID_CHROMA, SOLID_LUMA, crop_letterbox, letterbox
from streamer.device.cpu import CpuDevice
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_memory import DevicePlane
from streamer.errors import DeviceError
from streamer.frame import Frame, FrameResult, Redacted, Size
from streamer.live.detecting import SharedDetector
from streamer.live.settings import StreamSettings
from streamer.live.stream import LiveStream, Studio
from streamer.masking import plan_masks, whole
from streamer.media import hardware
from streamer.media.live_encoder import EncoderSpec, LiveEncoder, LiveEncoding
from streamer.media.live_source import LiveSource
from streamer.media.live_spec import LiveSpec
from streamer.media.sink import FileSink
from streamer.media.source import FileSource
from streamer.proof import scene
from streamer.tally import Tally
from streamer.zones import Zones
from tests import clips
from tests.device.conftest import copied, noise

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> CudaDevice:
    try:
        return open_cuda(spec=models.find("fast"))
    except DeviceError as error:
        if os.environ.get("STREAMER_REQUIRE_CUDA") == "1":
            pytest.fail(f"a GPU is required (STREAMER_REQUIRE_CUDA=1): {error}")
        if cuda_probe.probe().problem is None and "not installed" not in str(error):
            raise  # there is one, and it does not do what it should
        pytest.skip(str(error))


def resident(device: CudaDevice, frame: Frame) -> Frame:
    return Frame(
        device.own(frame.luma), device.own(frame.chroma), frame.size, 0, 0, frame.time_base, frame.color
    )


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("size", [Size(1920, 1080), Size(3839, 2159), Size(61, 33)])
def test_masks_are_those_of_the_cpu(gpu, style, size) -> None:
    rng = np.random.default_rng(size.width)
    corner = rng.uniform(-40, max(size.width, 80), (400, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + rng.uniform(3, 250, (400, 2)).astype(np.float32)], axis=1)
    labels = rng.integers(0, 2, 400).astype(np.uint8)
    for plan in (plan_masks(boxes, labels, MaskPolicy(cells=6), size), whole(size)):
        frame = noise(size, 4)
        wanted, ours = copied(frame), resident(gpu, frame)
        CpuDevice().redact(wanted, plan, style)
        gpu.redact(ours, plan, style)
        slack = 1 if style is Style.BLUR else 0
        assert np.abs(np.asarray(ours.luma).astype(int) - wanted.luma).max() <= slack
        assert np.abs(np.asarray(ours.chroma).astype(int) - wanted.chroma).max() <= slack


def test_thumbnails_and_views_are_those_of_the_cpu(gpu) -> None:
    frame, spec = noise(Size(1920, 1080), 1), models.find("fast")
    box = letterbox(frame.size, 640)
    ours = np.asarray(gpu.view(resident(gpu, frame), box, spec))
    assert np.abs(ours - CpuDevice().view(frame, box, spec)).max() <= 5
    assert np.abs(gpu.thumbnail(frame, 320).astype(int) - CpuDevice().thumbnail(frame, 320)).max() <= 1


def test_turned_views_are_those_that_numpy_turns(gpu) -> None:
    frames = [resident(gpu, noise(Size(640, 360), seed)) for seed in range(3)]
    views = gpu.views(frames, letterbox(frames[0].size, 320), models.find("fast"))
    for quarters in (1, 2, 3):
        wanted = np.rot90(np.asarray(views), quarters, (2, 3))
        assert (np.asarray(gpu.turned(views, quarters)) == wanted).all()


def test_crops_are_views_of_their_parts(gpu) -> None:
    """Of all sizes and at every border, in one launch, to the bit; and near to what the CPU cuts out."""
    frame, spec = noise(Size(1920, 1080), 2), models.find("fast")
    places = [((960, 540), 64), ((3, 2), 90), ((1918, 1077), 30), ((900, 500), 1800), ((600, 1), 9)]
    boxes = [crop_letterbox(middle, span, frame.planes_size, 64) for middle, span in places]
    crops = np.asarray(gpu.crops(resident(gpu, frame), boxes, spec))
    for ours, box in zip(crops, boxes, strict=True):
        assert (ours == np.asarray(gpu.view(frame, box, spec))[0]).all()
    assert np.abs(crops - CpuDevice().crops(frame, boxes, spec)).max() <= 5


def test_a_batch_runs_through_the_network(gpu) -> None:
    spec = models.find("fast")
    frames = [noise(Size(640, 384), seed) for seed in range(5)]
    box = letterbox(frames[0].size, 640)
    outputs = gpu.load(spec, 640)(gpu.views([resident(gpu, frame) for frame in frames], box, spec))
    for at, frame in enumerate(frames):
        wanted = CpuDevice().load(spec, 640)(CpuDevice().view(frame, box, spec))
        for level, reference in zip(outputs, wanted, strict=True):
            assert np.abs(level[at, :2] - reference[0, :2]).max() < 0.05


def test_the_detector_finds_the_same_boxes(gpu) -> None:
    skimage = pytest.importorskip("skimage.data")
    grey = np.asarray(skimage.astronaut()).mean(axis=2).astype(np.uint8)
    frame = noise(Size(512, 512))
    frame.luma[:], frame.chroma[:] = grey, 128
    found = [
        Detector(models.find("fast"), device, DetectPolicy(), Hide.EVERYTHING)(frame)
        for device in (gpu, CpuDevice())
    ]
    found = [
        each.take(each.scores > 0.3) for each in found
    ]  # the weakest may be there for one and not the other
    assert len(found[0]) == len(found[1]) > 0
    order = [np.argsort(each.boxes[:, 0]) for each in found]
    assert np.abs(found[0].boxes[order[0]] - found[1].boxes[order[1]]).max() <= 0.5
    assert np.abs(found[0].scores[order[0]] - found[1].scores[order[1]]).max() <= 0.01


def test_memory_is_used_again(gpu) -> None:
    frame, spec = noise(Size(1280, 720)), models.find("fast")
    sizes = []
    for _ in range(30):
        ours = resident(gpu, frame)
        gpu.view(ours, letterbox(frame.size, 640), spec)
        gpu.redact(ours, whole(frame.size), Style.BLUR)
        sizes.append(len(gpu.driver._memory))  # type: ignore[attr-defined]
    assert sizes[-1] == sizes[5]


def test_the_choice_is_the_gpu(gpu) -> None:
    opened = open_device("auto")
    assert opened.device.name.startswith("cuda")
    assert gpu.driver.name in opened.reason
    assert doctor.examine().reason.startswith(
        f"CUDA on {gpu.driver.name}: it is there and masks and runs fast"
    )
    assert cuda_trt.backend().__version__


def test_ffmpeg_joins_our_context(gpu) -> None:
    """Whatever the chip decodes or encodes: FFmpeg takes no primary context that waits otherwise than its own."""
    picture = hardware.GpuPictures(gpu, Size(64, 48)).picture_on_gpu(resident(gpu, noise(Size(64, 48))))
    assert picture.format.name == "cuda"


def test_a_file_comes_from_nvdec_as_the_cores_decode_it(gpu, tmp_path) -> None:
    if not hardware.try_decoding().works:
        pytest.skip("no NVDEC here")
    path = clips.make(tmp_path / "clip.mp4", clips.Clip(frames=12, width=320, height=240))
    made = []
    for device in (gpu, None):
        with FileSource(path, tally=Tally(), groups=False, device=device) as source:
            made.append([item for item in source if isinstance(item, Frame)])
    assert isinstance(made[0][0].luma, DevicePlane)
    for ours, wanted in zip(*made, strict=True):
        assert (np.asarray(ours.luma) == wanted.luma).all()
        assert (np.asarray(ours.chroma) == wanted.chroma).all()


def test_nvenc_encodes_both_planes_of_what_it_is_lent(gpu, tmp_path) -> None:
    path = clips.make(tmp_path / "clip.mp4", clips.Clip(frames=12, width=320, height=240))
    out = tmp_path / "out.mp4"
    with FileSource(path, tally=Tally(), groups=False, device=gpu) as source:
        with FileSink(out, source, OutputPolicy(crf=10), tally=Tally(), device=gpu) as sink:
            if "NVENC (" not in sink.encoding:
                pytest.skip(sink.encoding)
            for item in source:
                assert isinstance(item, Frame)
                gpu.redact(item, whole(item.size), Style.SOLID)
                sink.write(Redacted(item, FrameResult(item.index, item.pts, 0, 320, 240)))
    with FileSource(out, tally=Tally(), groups=False) as source:
        for frame in source:
            assert isinstance(frame, Frame)
            assert np.abs(frame.luma.astype(int) - SOLID_LUMA).max() <= 3
            assert np.abs(frame.chroma.astype(int) - SOLID_CHROMA).max() <= 3


def test_a_run_makes_the_cpus_video(gpu, tmp_path) -> None:
    """To the bit where the cores encode both (x264 without loss); where NVENC does, the same but for its loss."""
    path = clips.make(tmp_path / "clip.mp4", clips.Clip(frames=12, width=320, height=240))
    zones = tmp_path / "zones.json"
    zones.write_text(json.dumps({"mask": [[[0.1, 0.1], [0.6, 0.2], [0.4, 0.8]]]}))
    made, told = {}, {}
    for device in ("cpu", "cuda"):
        out, report = tmp_path / f"{device}.mp4", tmp_path / f"{device}.json"
        arguments = ["--device", device, "--style", "mosaic", "--zones", str(zones), "--report", str(report)]
        arguments += ["--reencode", "all", "--crf", "0", "-o", str(out)]
        done = CliRunner().invoke(app, ["anonymize", str(path), *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        with av.open(str(out)) as container:
            made[device] = [picture.to_ndarray().astype(int) for picture in container.decode(video=0)]
        told[device] = json.loads(report.read_text())["device"]
    assert told["cuda"]["name"].startswith("cuda")
    assert len(made["cuda"]) == len(made["cpu"]) == 12
    exact = told["cuda"]["encoding"].startswith("encoded on the cores")
    for ours, wanted in zip(made["cuda"], made["cpu"], strict=True):
        assert np.abs(ours - wanted).max() == 0 if exact else np.abs(ours - wanted).mean() < 3


def test_a_live_source_comes_from_nvdec_as_the_cores_decode_it(gpu, tmp_path) -> None:
    decoding = hardware.LiveDecoding(gpu.video)
    if decoding.memory is None:
        pytest.skip(decoding.reason)
    path = clips.make(tmp_path / "clip.mp4", clips.Clip(frames=12, width=320, height=240))
    made = []
    for who in (decoding, None):
        with LiveSource(LiveSpec(str(path)), tally=Tally(), decoding=who) as source:
            made.append([item for item in source if isinstance(item, Frame)])
    assert isinstance(made[0][0].luma, DevicePlane)
    assert len(made[0]) == len(made[1]) == 12
    for ours, wanted in zip(*made, strict=True):
        assert ours.pts == wanted.pts
        assert (np.asarray(ours.luma) == wanted.luma).all()
        assert (np.asarray(ours.chroma) == wanted.chroma).all()


def test_nvenc_encodes_live_pictures_at_once(gpu) -> None:
    encoder = LiveEncoder(EncoderSpec(Size(320, 240), 25), LiveEncoding(gpu.video))
    if not encoder.why.endswith("on pictures of the GPU opens"):
        pytest.skip(encoder.why)
    decoder, seen, keys = av.CodecContext.create("h264", "r"), [], []
    for number in range(30):
        frame = resident(gpu, noise(Size(320, 240), number))
        gpu.redact(frame, whole(frame.size), Style.SOLID)
        if number == 20:
            encoder.want_key()
        item = Redacted(frame, FrameResult(number, 0, 0, 320, 240))
        (packet,) = encoder.encode(item, number * 3600)  # none is held back
        assert packet.packet.pts == number * 3600
        keys += [number] if packet.key else []
        seen += decoder.decode(av.Packet(bytes(packet.packet)))
    assert keys == [0, 20]
    assert len(seen) >= 25
    for picture in seen:
        assert np.abs(picture.to_ndarray()[:240].astype(int) - SOLID_LUMA).max() <= 3


@pytest.mark.parametrize("where", ["main memory", "the GPU"])
def test_a_live_stream_is_masked(gpu, where) -> None:
    def connect(size: Any) -> Iterator[Frame]:
        for frame in scene.frames():
            if where == "the GPU":
                frame = replace(frame, luma=gpu.own(frame.luma), chroma=gpu.own(frame.chroma))
            yield frame

    studio = Studio(settings_from({}), gpu, "in a test", SharedDetector(scene.ScriptedDetector()), Zones())
    stream = LiveStream("camera", StreamSettings(source="rtsp://camera.invalid/"), studio, connect=connect)
    judge = scene.Judge()
    stream.add(judge)
    scene.run_until(stream, lambda: judge.masked >= 50, timeout_s=60)
    assert judge.leaks == 0
    assert stream.failure is None
    assert stream.tally.events["frames masked"] >= 50


def test_nvdec_and_nvenc_answer(gpu) -> None:
    for answer in (hardware.try_decoding(), hardware.try_decoding("hevc"), hardware.try_encoding()):
        assert answer.reason.startswith("NV")
