"""Attacks on masks: what somebody with a suspicion, the mask's source code and a computer would try."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from streamer import demo, masking
from streamer.config import MaskPolicy
from streamer.detection import Label
from streamer.device.cpu import CpuDevice
from streamer.frame import Frame, Size

Gray = NDArray[np.uint8]  # (h, w)
Box = tuple[float, float, float, float]
Look = Callable[[Gray], NDArray[np.float32]]  # what an attacker makes of what is shown

DEVICE = CpuDevice()


@dataclass(frozen=True)
class Suspect:
    """One thing that may be under the mask, and how it may look on another day."""

    clean: Gray
    seen: Gray
    label: Label


def faces(count: int, seed: int = 1) -> list[Suspect]:
    """Faces of the LFW subset that scikit-image ships; `seen` in other light, a little turned and moved."""
    import skimage

    every = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")[:count]
    rng = np.random.default_rng(seed)
    clean = [np.clip(face * 255, 0, 255).astype(np.uint8) for face in every]
    return [Suspect(face, another_day(face, rng), Label.FACE) for face in clean]


def plates(count: int, seed: int = 2) -> list[Suspect]:
    """Drawn plates of one typeface; `seen` in other light."""
    rng = np.random.default_rng(seed)
    letters, digits = list("ABCDEFGHJKLMNPRSTUVWXYZ"), list("0123456789")
    result = []
    for _ in range(count):
        text = f"{rng.choice(letters)} {''.join(rng.choice(digits, 4))} {''.join(rng.choice(letters, 2))}"
        clean = cv2.cvtColor(demo.drawn_plate(text), cv2.COLOR_BGR2GRAY)
        light = clean * rng.uniform(0.7, 1.0) + rng.uniform(-10, 10)
        result.append(Suspect(clean, np.clip(light, 0, 255).astype(np.uint8), Label.PLATE))
    return result


def shown(
    picture: Gray,
    label: Label,
    height: int,
    policy: MaskPolicy,
    *,
    jitter: float = 0.0,
    seed: int = 0,
    crf: int | None = 24,
) -> Gray:
    """The object at that height, masked within a scene (its box off by `jitter`), coded, and cut out."""
    width = round(height * picture.shape[1] / picture.shape[0])
    scene = np.full(((3 * height) // 2 * 2, (width + 2 * height) // 2 * 2), 100, np.uint8)
    way = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_CUBIC
    scene[height : 2 * height, height : height + width] = cv2.resize(
        picture, (width, height), interpolation=way
    )
    off = np.random.default_rng(seed).uniform(-jitter, jitter, 4) * height
    box = np.array([height, height, height + width, 2 * height]) + off
    after = masked(scene, box, label, policy)
    after = after if crf is None else coded(after, crf)
    return after[height : 2 * height, height : height + width]


def masked(luma: Gray, box: Sequence[float] | NDArray[np.float64], label: Label, policy: MaskPolicy) -> Gray:
    """The picture with one mask."""
    height, width = luma.shape
    chroma = np.full((height // 2, width // 2, 2), 128, np.uint8)
    frame = Frame(luma.copy(), chroma, Size(width, height), 0, 0, Fraction(1, 25))
    plan = masking.plan_masks(np.array([box], np.float32), np.array([label], np.uint8), policy, frame.size)
    DEVICE.redact(frame, plan, policy.style)
    return np.asarray(frame.luma)


def coded(luma: Gray, crf: int = 24) -> Gray:
    """The luma after a turn through an H.264 encoder."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = luma.shape[1], luma.shape[0], "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"crf": str(crf), "preset": "ultrafast", "threads": "1"}
    picture = av.VideoFrame.from_ndarray(luma, "gray").reformat(
        format="yuv420p", src_color_range=2, dst_color_range=2
    )
    packets = [*encoder.encode(picture), *encoder.encode(None)]
    decoder = av.CodecContext.create("h264", "r")
    plane = next(p for packet in [*packets, None] for p in decoder.decode(packet)).planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: luma.shape[0], : luma.shape[1]].copy()


def matches(gallery: Sequence[Gray], probes: Sequence[NDArray[np.float32]]) -> float:
    """The share of probes whose best correlation in the gallery is their own."""
    known = np.array([_normal(picture) for picture in gallery])
    return float(np.mean([np.argmax(known @ _normal(probe)) == at for at, probe in enumerate(probes)]))


def averaged(pictures: Sequence[Gray]) -> NDArray[np.float32]:
    """Super-resolution by accumulation: many samples of one object under a moving grid."""
    return np.mean([picture.astype(np.float32) for picture in pictures], axis=0, dtype=np.float32)


def sharpened(picture: Gray, sigma: float, rounds: int = 12) -> NDArray[np.float32]:
    """Deconvolution by Richardson (1972) and Lucy (1974) with a Gaussian of that width."""
    seen = picture.astype(np.float32) + 1
    guess = seen.copy()
    for _ in range(rounds):
        ratio = seen / np.maximum(cv2.GaussianBlur(guess, (0, 0), sigma), 1)
        guess *= cv2.GaussianBlur(ratio, (0, 0), sigma)
    return guess


def blindly_sharpened(picture: Gray, gallery: Sequence[Gray]) -> NDArray[np.float32]:
    """The sharpening, of several widths, that looks most like anything in the gallery."""
    known = np.array([_normal(other) for other in gallery])
    tries = [sharpened(picture, share * picture.shape[0]) for share in (0.04, 0.1, 0.2)]
    return max(tries, key=lambda one: float((known @ _normal(one)).max()))


def resized(picture: Gray, height: int, *, square: bool = False) -> Gray:
    """The picture at that height."""
    width = height if square else round(height * picture.shape[1] / picture.shape[0])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def chance(candidates: int, probes: int) -> float:
    """The largest share of right guesses that luck alone explains (one time in about ten thousand)."""
    share = 1 / candidates
    return share + 4 * float(np.sqrt(share * (1 - share) / probes)) + 1 / probes


def _normal(picture: NDArray[np.generic]) -> NDArray[np.float32]:
    values = picture.astype(np.float32).ravel()
    values = values - values.mean()
    return np.asarray(values / (np.linalg.norm(values) + 1e-6), np.float32)


def another_day(face: Gray, rng: np.random.Generator) -> Gray:
    """The face as another photo may show it: turned, moved, in other light, with noise."""
    side = face.shape[0]
    move = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-8, 8), rng.uniform(0.93, 1.07))
    move[:, 2] += rng.uniform(-0.05, 0.05, 2) * side
    turned = cv2.warpAffine(face.astype(np.float32), move, (side, side), borderMode=cv2.BORDER_REFLECT)
    ramp = np.linspace(-1, 1, side)
    light = ramp[None, :] * rng.uniform(-30, 30) + ramp[:, None] * rng.uniform(-20, 20)
    varied = (turned - 128) * rng.uniform(0.8, 1.2) + 128 + rng.uniform(-20, 20) + light
    return np.clip(varied + rng.normal(0, 4, varied.shape), 0, 255).astype(np.uint8)
