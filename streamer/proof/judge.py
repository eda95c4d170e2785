"""Judges a finished file by its pixels alone: what of each known object can still be seen.

# Note [Masked by pixels]
The judge knows the input and the output, not what the product meant to do. Detail is what is left of the luma after
a Gaussian of 1/18 of the object's short side is taken away: strokes of a plate, eyes and mouth of a face. Around
each pixel the surviving share of the detail is its projection `sum(out * in) / sum(in * in)`: 1 where the picture
is as it was (re-encoded, brighter, noisier), about 0 where it was blurred, cut into mosaic, or painted over. A pixel
is masked where less than half survives. Where the input itself has no detail (sky, flat skin, whip pans) nothing
can be told or seen; such pixels do not count, and an object made only of them is left out and counted as such.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.errors import InputError
from streamer.proof.clips import Clip, Truth

_SURVIVES = 0.5  # share of the detail from which a pixel counts as visible
_DETAIL = 2.5  # gray levels (rms) from which there is detail to lose; coding noise is below it
_INFORMATIVE = 0.1  # share of an object's pixels that must hold detail
_COARSE = 4  # the map of the whole picture is made at a quarter of its size

Luma = NDArray[np.uint8]  # (h, w)


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What one frame of the output shows."""

    covered: NDArray[
        np.float32
    ]  # (n,) masked share of each object of the truth; NaN: nothing to see in the input
    masked: float  # share of the picture that is masked
    true: float  # share of the picture in true boxes, ignored ones left out
    needless: float  # share of the picture masked outside of all boxes, known or ignored


def judge(clip: Clip, output: Path) -> Iterator[Verdict]:
    """A verdict per frame of the clip. Raises InputError if the output has other frames than the clip."""
    pairs = zip_longest(lumas(clip.path), lumas(output))
    count = 0
    for truth, (before, after) in zip(clip.truths, pairs, strict=False):
        if before is None or after is None or before.shape != after.shape:
            raise InputError(f"frame {count} is missing or of another size: {output}")
        count += 1
        yield _verdict(truth, before, after)
    if count != len(clip.truths):
        raise InputError(f"{count} frames instead of {len(clip.truths)}: {output}")


def lumas(path: Path) -> Iterator[Luma]:
    """The luma of every picture of a file, decoded by FFmpeg."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for picture in container.decode(video=0):
            plane = picture.planes[0]
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            yield rows[: picture.height, : picture.width]


def masked_share(before: Luma, after: Luma, box: NDArray[np.float32]) -> float:
    """The share of a box's detailed pixels that are masked; NaN where the box has no detail."""
    x0, y0 = np.floor(box[:2]).astype(int)
    x1, y1 = np.ceil(box[2:]).astype(int)
    short = max(4, min(x1 - x0, y1 - y0))
    pad = short // 2
    height, width = before.shape
    left, top = max(0, x0 - pad), max(0, y0 - pad)
    part = np.s_[top : min(height, y1 + pad), left : min(width, x1 + pad)]
    energy, surviving = _detail(before[part], after[part], short)
    inner = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    rich = energy[inner] > _DETAIL**2
    if rich.mean() < _INFORMATIVE:
        return float("nan")
    return float((surviving[inner][rich] < _SURVIVES).mean())


def _verdict(truth: Truth, before: Luma, after: Luma) -> Verdict:
    shares = [masked_share(before, after, box) for box in truth.boxes]
    covered = np.array(shares, np.float32).reshape(-1)
    mask = masked_map(before, after)
    known, true = np.zeros(mask.shape, np.uint8), np.zeros(mask.shape, np.uint8)
    for box, counted in zip(truth.boxes, truth.counted, strict=True):
        x0, y0 = np.floor(box[:2] / _COARSE).astype(int)
        x1, y1 = np.ceil(box[2:] / _COARSE).astype(int)
        known[y0:y1, x0:x1] = 1
        if counted:
            true[y0:y1, x0:x1] = 1
    return Verdict(covered, float(mask.mean()), float(true.mean()), float((mask & (known == 0)).mean()))


def masked_map(before: Luma, after: Luma) -> NDArray[np.bool_]:
    """Which pixels of the picture, at a quarter of its size, are masked; flat ones are what is around them."""
    shape = (before.shape[1] // _COARSE, before.shape[0] // _COARSE)
    small, left = (
        np.asarray(cv2.resize(p, shape, interpolation=cv2.INTER_AREA), np.uint8) for p in (before, after)
    )
    energy, surviving = _detail(small, left, 27)
    rich = energy > 2.0**2
    lost = rich & (surviving < _SURVIVES)
    around = (9, 9)
    weight = cv2.blur(rich.astype(np.float32), around)
    votes = cv2.blur(lost.astype(np.float32), around)
    return np.asarray(np.where(rich, lost, votes > 0.5 * np.maximum(weight, 1e-6)), np.bool_)


def _detail(before: Luma, after: Luma, short: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean square of the input's detail, and the share of it that the output still has, around each pixel."""
    sigma = max(1.0, short / 18)
    first, second = before.astype(np.float32), after.astype(np.float32)
    first -= cv2.GaussianBlur(first, (0, 0), sigma)
    second -= cv2.GaussianBlur(second, (0, 0), sigma)
    side = max(5, short // 3) | 1
    energy = cv2.blur(first * first, (side, side))
    shared = cv2.blur(first * second, (side, side))
    return np.asarray(energy, np.float32), np.asarray(shared / np.maximum(energy, 1e-3), np.float32)
