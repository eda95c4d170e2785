"""NVDEC and NVENC: tried, named in one line where they are missing, and the way of a frame that stays on the GPU."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from streamer.config import OutputPolicy
from streamer.device import cuda_probe
from streamer.device.cpu import CpuDevice
from streamer.errors import InputError
from streamer.frame import Size
from streamer.media import encoders, hardware
from streamer.media.picture import Timing

WITHOUT = cuda_probe.probe().problem is not None
TIMING = Timing(3, 7, Fraction(1, 25), 1)


@pytest.mark.skipif(not WITHOUT, reason="this machine has a GPU")
def test_without_a_gpu_the_answers_are_one_line_each() -> None:
    for answer in (hardware.try_decoding(), hardware.try_decoding("hevc"), hardware.try_encoding()):
        assert not answer.works
        assert "\n" not in answer.reason
        assert "NV" in answer.reason
    assert "does not decode vvc" in hardware.try_decoding("vvc").reason
    assert "does not encode vvc" in hardware.try_encoding("vvc").reason


@pytest.mark.skipif(not WITHOUT, reason="this machine has a GPU")
def test_a_file_that_nvdec_refuses_names_the_way_out(tmp_path) -> None:
    clip = tmp_path / "clip.mkv"
    clip.write_bytes(hardware._clip("libx264").getvalue())
    with pytest.raises(InputError, match="decode on the CPU"):
        hardware.open_on_gpu(clip)


@pytest.fixture(autouse=True)
def _upright(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "is_mirrored", lambda _: False)  # these are none of PyAV


def picture(size: Size, samples: str = "nv12", kind: str = "cuda") -> SimpleNamespace:
    """What PyAV says of a picture on the GPU; its planes are NumPy's here."""
    luma = np.arange(size.width * size.height, dtype=np.uint8).reshape(size.height, size.width)
    return SimpleNamespace(
        width=size.width,
        height=size.height,
        format=SimpleNamespace(name=kind, is_rgb=False),
        sw_format=SimpleNamespace(name=samples),
        planes=(luma, luma[: size.height // 2].reshape(size.height // 2, size.width // 2, 2)),
        rotation=0,
        color_range=1,
        colorspace=1,
        color_primaries=1,
        color_trc=1,
    )


def test_a_frame_of_the_gpu_is_a_copy() -> None:
    source = picture(Size(64, 48))
    frame = hardware.frame_on_gpu(source, TIMING, CpuDevice())
    assert (frame.luma == source.planes[0]).all()
    assert frame.chroma.shape == (24, 32, 2)
    assert (frame.index, frame.pts, frame.duration, frame.color.matrix) == (3, 7, 1, 1)
    source.planes[0][:] = 0
    assert frame.luma.any()


@pytest.mark.parametrize(
    "wrong",
    [
        picture(Size(64, 48), samples="p010le"),
        picture(Size(64, 48), kind="yuv420p"),
        SimpleNamespace(**vars(picture(Size(64, 48))) | {"width": 63}),
    ],
)
def test_other_pictures_take_the_way_through_the_cpu(wrong) -> None:
    with pytest.raises(InputError, match="not for this way"):
        hardware.frame_on_gpu(wrong, TIMING, CpuDevice())


@pytest.mark.parametrize("codec", list(encoders.NVENC))
def test_the_best_quality_is_not_left_to_nvenc(codec: str) -> None:
    """It takes 0 for "as you like", and chose a bit rate where x264 writes without loss."""
    for crf, asked in ((0, "1"), (1, "1"), (30, "30")):
        assert encoders.gpu_options(codec, OutputPolicy(crf=crf))["cq"] == asked
