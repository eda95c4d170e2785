"""What cameras, weather and codecs do to a picture: light, colour, rain, blur, noise, compression."""

from fractions import Fraction
from functools import cache

import av
import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .pack import Image

LIGHT, NIGHT = 0.5, 0.08  # probabilities
GREY, SATURATION = 0.06, 0.10
RAIN = 0.03
GAUSSIAN, MOTION, LOW_RESOLUTION = 0.08, 0.05, 0.04
NOISE, NIGHT_NOISE = 0.06, 0.6  # of a sample, and of one by night
JPEG, H264 = 0.12, 0.03
_CRF = (30, 44)  # of libx264; 23 is its default
_NOISE_SIDE = 1024  # px of the table that all noise is cut from
_NOISE_UNIT = 24.0  # standard deviation of the table


def degrade(rng: Generator, image: Image) -> Image:
    """A degraded copy of `image`, or `image` itself where nothing was drawn; sides must be even."""
    night = rng.random() < NIGHT
    if night or rng.random() < LIGHT:
        image = _light(rng, image, night)
    image = _colour(rng, image)
    if rng.random() < RAIN:
        image = _rain(rng, image)
    image = _blur(rng, image)
    if rng.random() < (NIGHT_NOISE if night else NOISE):
        image = _noise(rng, image)
    kind = rng.random()
    if kind < JPEG:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR).astype(np.uint8)
    elif kind < JPEG + H264:
        image = _video(rng, image)
    return image


def _light(rng: Generator, image: Image, night: bool) -> Image:
    level = np.arange(256)[:, None] / 255
    dark = rng.uniform(0.25, 0.5) if night else 1.0
    gain = dark * np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.06, 3))
    curve = level ** np.exp(rng.normal(0, 0.2)) * gain + rng.normal(0, 0.02 if night else 0.06)
    return cv2.LUT(image, (curve * 255).clip(0, 255).astype(np.uint8)[None]).astype(np.uint8, copy=False)


def _colour(rng: Generator, image: Image) -> Image:
    kind = rng.random()
    if kind < GREY:
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
    if kind < GREY + SATURATION:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = (hsv[..., 1] * rng.uniform(0.3, 1.5)).clip(0, 255)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR).astype(np.uint8, copy=False)
    return image


def _rain(rng: Generator, image: Image) -> Image:
    """Bright translucent streaks, all falling one way, over a slightly dulled picture."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    lean, length = rng.normal(0, 0.25), rng.uniform(0.03, 0.1) * height
    count = int(rng.uniform(0.3, 1.6) * (height * width) ** 0.5)
    starts = rng.random((count, 2)) * (width, height)
    lengths = length * rng.uniform(0.5, 1.3, count)
    ends = starts + np.stack([lean * lengths, lengths], 1)
    strokes = (np.stack([starts, ends], 1) * 16).astype(np.int32)  # with four fractional bits
    cv2.polylines(layer, list(strokes), False, (int(rng.integers(60, 150)),), 1, cv2.LINE_AA, shift=4)
    if rng.random() < 0.5:
        layer = cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.5, 0.9))
    dull = cv2.convertScaleAbs(image, alpha=rng.uniform(0.75, 1.0), beta=rng.uniform(0, 25))
    return cv2.add(dull, cv2.merge([layer] * 3)).astype(np.uint8, copy=False)


def _blur(rng: Generator, image: Image) -> Image:
    kind = rng.random()
    if kind < GAUSSIAN:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2)).astype(np.uint8, copy=False)
    kind -= GAUSSIAN
    if kind < MOTION:
        longest = 8 * max(1.0, image.shape[0] / 320)
        kernel = motion_kernel(rng.uniform(2, longest), rng.uniform(0, np.pi))
        return cv2.filter2D(image, -1, kernel).astype(np.uint8, copy=False)
    if kind - MOTION < LOW_RESOLUTION:
        height, width = image.shape[:2]
        factor = rng.uniform(0.4, 0.8)
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return image


def motion_kernel(length: float, angle: float) -> NDArray[np.float32]:
    """A line of `length` px at `angle` radians from the x axis, as a kernel of odd side that sums to 1."""
    half = int(np.ceil(length / 2))
    steps = (
        np.linspace(-length / 2, length / 2, 4 * half + 1)[:, None] * (np.cos(angle), np.sin(angle)) + half
    )
    kernel = np.zeros((2 * half + 2, 2 * half + 2), np.float32)
    low = np.floor(steps).astype(np.int64)
    part = steps - low
    for dx in (0, 1):
        for dy in (0, 1):
            share = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
            np.add.at(kernel, (low[:, 1] + dy, low[:, 0] + dx), share)
    return kernel[:-1, :-1] / kernel[:-1, :-1].sum()


@cache
def _noise_table() -> NDArray[np.int8]:
    """Normal noise to cut pieces from: drawing it anew for every sample costs more than all else."""
    table = np.random.default_rng(0).normal(0, _NOISE_UNIT, (_NOISE_SIDE, _NOISE_SIDE, 3))
    return table.clip(-127, 127).astype(np.int8)


def _noise(rng: Generator, image: Image) -> Image:
    """Sensor noise: of light alone or of every colour, fine or coarse, strongest in the dark."""
    height, width = image.shape[:2]
    coarse = 2 if rng.random() < 0.3 else 1
    rows, columns = -(-height // coarse), -(-width // coarse)
    y, x = rng.integers(0, _NOISE_SIDE - rows), rng.integers(0, _NOISE_SIDE - columns)
    noise = _noise_table()[y : y + rows, x : x + columns].astype(np.float32)
    if rng.random() < 0.5:
        noise = cv2.merge([noise[..., 0]] * 3)
    if coarse > 1:
        noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    strength, rise = rng.uniform(2, 14) / _NOISE_UNIT, rng.uniform(0, 1)
    levels = strength * (1 + rise * (1 - np.arange(256) / 128))
    noise *= cv2.LUT(image, levels.clip(0).astype(np.float32))
    return cv2.add(image, noise, dtype=cv2.CV_8U).astype(np.uint8, copy=False)


def _video(rng: Generator, image: Image) -> Image:
    """`image` as H.264 shows it: an intra picture, or one predicted from itself a few pixels aside."""
    frames = [image]
    if rng.random() < 0.5:
        frames.insert(0, np.roll(image, tuple(int(v) for v in rng.integers(-5, 6, 2)), (0, 1)))
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.thread_count = "yuv420p", Fraction(1, 25), 1
    quality = str(int(rng.integers(*_CRF)))
    encoder.options = {"preset": "superfast", "tune": "zerolatency", "crf": quality}
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    packets = []
    for number, frame in enumerate(frames):
        planes = cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420)
        picture = av.VideoFrame.from_ndarray(planes, "yuv420p")
        picture.pts = number
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    shown = [picture for packet in packets for picture in decoder.decode(packet)] + decoder.decode(None)
    return cv2.cvtColor(shown[-1].to_ndarray(), cv2.COLOR_YUV2BGR_I420).astype(np.uint8, copy=False)
