"""The judge against masks that are known: it must tell masked from coded, and see nothing else."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from streamer import masking
from streamer.config import MaskPolicy, Style
from streamer.detection import Label
from streamer.device.cpu import CpuDevice
from streamer.frame import Frame, Size
from streamer.proof import judge
from tests.scenes import texture

SIZE = Size(640, 360)


def coded(luma: np.ndarray, crf: int = 24) -> np.ndarray:
    """The luma after a turn through an encoder."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = luma.shape[1], luma.shape[0], "yuv420p"
    encoder.time_base, encoder.options = Fraction(1, 25), {"crf": str(crf), "preset": "veryfast"}
    picture = av.VideoFrame.from_ndarray(luma, "gray").reformat(
        format="yuv420p", src_color_range=2, dst_color_range=2
    )
    packets = [*encoder.encode(picture), *encoder.encode(None)]
    decoder = av.CodecContext.create("h264", "r")
    pictures = [p for packet in [*packets, None] for p in decoder.decode(packet)]
    plane = pictures[0].planes[0]
    return (
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: luma.shape[0], : luma.shape[1]].copy()
    )


def masked(luma: np.ndarray, box, style: Style, label: Label) -> np.ndarray:
    chroma = np.full((SIZE.height // 2, SIZE.width // 2, 2), 128, np.uint8)
    frame = Frame(luma.copy(), chroma, SIZE, 0, 0, Fraction(1, 25))
    boxes, labels = np.array([box], np.float32), np.array([label], np.uint8)
    CpuDevice().redact(frame, masking.plan_masks(boxes, labels, MaskPolicy(style=style), SIZE), style)
    return np.asarray(frame.luma)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    fine, soft = texture(360, 640, 3, 1.2).astype(np.int16), texture(360, 640, 4, 12.0)
    return np.clip(soft + (fine - 128) // 2, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [14, 24, 48, 120])
@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("label", list(Label))
def test_a_full_mask_is_seen_as_full(scene, side, style, label):
    box = (200.0, 120.0, 200.0 + side * (1 if label == Label.FACE else 3), 120.0 + side)
    after = coded(masked(scene, box, style, label))
    assert judge.masked_share(coded(scene, 20), after, np.array(box, np.float32)) >= 0.9


@pytest.mark.parametrize("side", [14, 24, 48, 120])
@pytest.mark.parametrize("crf", [20, 28])
def test_encoding_again_is_not_a_mask(scene, side, crf):
    box = np.array([200, 120, 200 + side, 120 + side], np.float32)
    assert judge.masked_share(coded(scene, 20), coded(scene, crf), box) <= 0.25


def test_neither_light_nor_noise_is_a_mask(scene):
    box = np.array([200, 120, 260, 190], np.float32)
    rng = np.random.default_rng(1)
    noisy = np.clip(scene + rng.normal(0, 4, scene.shape), 0, 255).astype(np.uint8)
    assert judge.masked_share(scene, noisy, box) <= 0.1
    assert judge.masked_share(scene, cv2.convertScaleAbs(scene, alpha=0.8, beta=15), box) <= 0.1


def test_half_a_mask_is_half(scene):
    box = (200.0, 120.0, 300.0, 220.0)
    half = masked(scene, box, Style.SOLID, Label.PLATE)
    half[:170] = scene[:170]
    assert 0.35 < judge.masked_share(scene, half, np.array(box, np.float32)) < 0.65


def test_where_nothing_is_seen_nothing_is_told():
    flat = np.full((360, 640), 128, np.uint8)
    assert np.isnan(judge.masked_share(flat, flat, np.array([100, 100, 160, 160], np.float32)))


def test_the_map_finds_the_masked_area(scene):
    box = (160.0, 80.0, 360.0, 280.0)
    after = masked(scene, box, Style.BLUR, Label.PLATE)
    grown = 200 * 1.2 * 1.12  # the margin, and half of the soft edge on each side
    share = judge.masked_map(scene, after).mean()
    assert share == pytest.approx(grown**2 / (640 * 360), rel=0.15)
    assert judge.masked_map(scene, coded(scene)).mean() < 0.002
