"""On a real GPU: the kernels through pycuda, engines through TensorRT, video through NVDEC.

    STREAMER_REQUIRE_CUDA=1 pytest -m gpu

Everything else about the device is proved by the other tests of this folder, with the identical kernels.
"""

import os

import numpy as np
import pytest

from streamer import models
from streamer.config import DetectPolicy, Hide, MaskPolicy, OutputPolicy, Style
from streamer.detector import Detector
from streamer.device import cuda_probe, cuda_trt, open_cuda, open_device
from streamer.device.base import SOLID_CHROMA, SOLID_LUMA, letterbox
from streamer.device.cpu import CpuDevice
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_memory import DevicePlane
from streamer.frame import Frame, FrameResult, Redacted, Size
from streamer.masking import plan_masks, whole
from streamer.media import hardware
from streamer.media.sink import FileSink
from streamer.media.source import FileSource
from streamer.tally import Tally
from tests import clips
from tests.device.conftest import copied, noise

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> CudaDevice:
    problem = cuda_probe.probe().problem
    if problem is not None:
        if os.environ.get("STREAMER_REQUIRE_CUDA") == "1":
            pytest.fail(f"a GPU is required (STREAMER_REQUIRE_CUDA=1): {problem}")
        pytest.skip(problem)
    return open_cuda()


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


def test_a_batch_runs_through_the_network(gpu) -> None:
    spec = models.find("fast")
    frames = [noise(Size(640, 384), seed) for seed in range(5)]
    box = letterbox(frames[0].size, 640)
    outputs = gpu.load(spec)(gpu.views([resident(gpu, frame) for frame in frames], box, spec))
    for at, frame in enumerate(frames):
        wanted = CpuDevice().load(spec)(CpuDevice().view(frame, box, spec))
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
    assert cuda_trt.backend().__version__


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


def test_nvdec_and_nvenc_answer(gpu) -> None:
    for answer in (hardware.try_decoding(), hardware.try_decoding("hevc"), hardware.try_encoding()):
        assert answer.reason.startswith("NV")
