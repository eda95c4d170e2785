"""The gate of still pictures: find, plan, mask. The only maker of `MaskedPicture`, which alone is encoded.

# Note [Hidden under transparency]
A transparent pixel still has a colour, and a picture can be painted in the transparency alone. So a picture
with transparency is looked at three times, as its colours alone, on white and on black; all boxes that are
found are masked, in the colours and in the transparency.

# Note [Hidden in 16 bits]
Sensors fill a part of 16 bits only: 12 of them, or heat in hundredths of a degree, a few hundred values around 29,000.
On a screen such a picture is nearly one grey, but the values are kept and whoever stretches them sees what is there.
One dead pixel or a date that is written into it makes its range look full. So samples of 16 bits that lie within half
of the range, but for a hundredth at either end, are looked at stretched too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer import detection, masking, models
from streamer.config import Hide, MaskPolicy, Settings, Style
from streamer.detection import Detections, Label
from streamer.detector import Detect, Detector, suppress
from streamer.device import open_device
from streamer.device.redaction import interleaved, paint
from streamer.errors import RedactionError, StreamerError
from streamer.frame import Color, Frame, FrameResult, HiddenObject, Plane, Size
from streamer.image import picture as files
from streamer.image.picture import Format, Picture
from streamer.masking import MaskPlan
from streamer.zones import Zones, kept, load_zones, plan_zones

Own = Callable[[Any], Plane]

_BT601 = Color(matrix=6, full_range=False)  # what OpenCV's RGB to YUV makes
_SAMPLED = 500  # rows and columns at least, whose values say which are rare
_DEEP = 257  # 16-bit value of one 8-bit step


@dataclass(frozen=True, slots=True, eq=False)
class MaskedPicture:
    """A picture whose masks are in its samples, with what they hide."""

    picture: Picture
    objects: tuple[HiddenObject, ...]

    def becoming(self, format: Format) -> "MaskedPicture":
        """The same for a file of another format."""
        return replace(self, picture=replace(self.picture, format=format))

    def write(self) -> bytes:
        """The file of the picture. Raises OutputError."""
        return files.write(self.picture)

    def result(self) -> FrameResult:
        """The same answer that every frame of a video gets."""
        return FrameResult(0, 0, 0.0, self.picture.width, self.picture.height, self.objects)


@dataclass(frozen=True, slots=True)
class Redactor:
    """Masks pictures, one at a time, with one network that looks for everything."""

    detect: Detect
    thresholds: dict[Label, float]
    mask: MaskPolicy
    zones: Zones = field(default_factory=Zones)
    own: Own = np.asarray  # brings a plane to where the network is

    def __call__(self, picture: Picture, hide: Hide) -> MaskedPicture:
        """A masked copy, without what `hide` asks for. Raises RedactionError if that cannot be done."""
        try:
            size = Size(picture.width, picture.height)
            found = self._find(picture, hide)
            found = found.take(~kept(self.zones, found.boxes, size))
            plan = masking.plan_masks(found.boxes, found.labels, self.mask, size)
            plan = masking.join([plan, plan_zones(self.zones, self.mask, size)])
            masked = apply(picture, plan, self.mask.style)
        except StreamerError:
            raise
        except Exception as error:
            raise RedactionError(f"the picture could not be masked ({type(error).__name__})") from error
        return MaskedPicture(masked, _objects(found, size))

    def _find(self, picture: Picture, hide: Hide) -> Detections:
        views = [self.detect(frame_of(view, self.own)) for view in views_of(picture)]
        found = suppress(detection.concatenate(views)) if len(views) > 1 else views[0]
        floors = np.array([self.thresholds.get(label, np.inf) for label in Label], np.float32)
        return found.take((found.scores >= floors[found.labels]) & np.isin(found.labels, hide.labels))


def open_redactor(settings: Settings) -> Redactor:
    """A redactor with a network of its own. Raises ModelError, DeviceError or ConfigError."""
    spec = models.find(settings.detect.model)
    policy = settings.detect
    opened = open_device(settings.device, policy=policy, spec=spec)
    detector = Detector(spec, opened.device, policy, Hide.EVERYTHING, still=True)
    zones = load_zones(settings.zones) if settings.zones is not None else Zones()
    return Redactor(detector, detector.thresholds, settings.mask, zones, opened.device.own)


def apply(picture: Picture, plan: MaskPlan, style: Style) -> Picture:
    """The picture with the plan's regions masked in its samples and transparency; the rest keeps every bit.

    Copies; without regions the picture itself comes back.
    """
    if not len(plan):
        return picture
    samples = _mask(picture.samples, plan, style)
    alpha = picture.alpha
    if alpha is not None and (alpha != alpha.flat[0]).any():
        alpha = _mask(alpha, plan, style)
    return replace(picture, samples=samples, alpha=alpha)


def _mask(samples: NDArray[Any], plan: MaskPlan, style: Style) -> NDArray[Any]:
    height, width, lanes = samples.shape
    if samples.dtype == np.uint16:
        return _mask_deep(samples, plan, style)
    layout = masking.lay_out(plan, Size(width, height).even)
    masked = np.array(_even(samples), np.uint8, order="C", copy=True)
    paint(masked.reshape(masked.shape[0], -1), interleaved(lanes), layout, style)
    return masked[:height, :width]


def _mask_deep(samples: NDArray[Any], plan: MaskPlan, style: Style) -> NDArray[Any]:
    """Masked where a mask has any weight, to 8 bits; bit for bit the same elsewhere."""
    shallow = (samples >> 8).astype(np.uint8)
    touched = np.zeros((*samples.shape[:2], 1), np.uint8)
    touched = _mask(touched, plan, Style.SOLID) > 0
    return np.where(touched, _mask(shallow, plan, style).astype(np.uint16) * _DEEP, samples)


def _even(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = samples.shape[:2]
    if not height % 2 and not width % 2:
        return np.ascontiguousarray(samples)
    return np.pad(samples, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def views_of(picture: Picture) -> Iterator[NDArray[np.uint8]]:
    """What a viewer may see of a picture, (h, w, 3) RGB.

    See Note [Hidden under transparency] and Note [Hidden in 16 bits]. The stretched one comes last: before and after
    masking there may be one or none.
    """
    colour = _in_rgb(_shallow(picture.samples))
    yield colour
    if picture.alpha is not None and (picture.alpha != np.iinfo(picture.alpha.dtype).max).any():
        weight = _shallow(picture.alpha).astype(np.uint16)
        on_black = (colour * weight + 127) // 255
        yield (on_black + (255 - weight)).astype(np.uint8)
        yield on_black.astype(np.uint8)
    if picture.samples.dtype == np.uint16:
        yield from map(_in_rgb, _stretched(picture.samples))


def _in_rgb(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(samples, 3, axis=2) if samples.shape[2] == 1 else samples


def _stretched(samples: NDArray[np.uint16]) -> Iterator[NDArray[np.uint8]]:
    """8 bits of most of the values, where they use little of the range: see Note [Hidden in 16 bits]."""
    step = max(1, min(samples.shape[:2]) // _SAMPLED)
    low, high = np.percentile(samples[::step, ::step], (1, 99))
    if 0 < high - low < int(samples.max()) / 2:
        scaled = (samples.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
        yield np.clip(scaled, 0, 255).astype(np.uint8)


def _shallow(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """8 bits for the detector; 16-bit samples are stretched, so that 12 bits in 16 are not just black."""
    if samples.dtype == np.uint8:
        return samples
    return (samples.astype(np.float32) * (255 / max(int(samples.max()), 1))).astype(np.uint8)


def frame_of(rgb: NDArray[np.uint8], own: Own = np.asarray) -> Frame:
    """The picture (h, w, 3) as a frame whose planes `own` made, BT.601; copies."""
    height, width = rgb.shape[:2]
    size = Size(width, height)
    planes = cv2.cvtColor(_even(rgb), cv2.COLOR_RGB2YUV_I420)
    luma = planes[: size.even.height]
    blue, red = planes[size.even.height :].reshape(2, size.even.height // 2, size.even.width // 2)
    return Frame(
        luma=own(luma),
        chroma=own(cv2.merge([blue, red])),
        size=size,
        index=0,
        pts=0,
        time_base=Fraction(1),
        color=_BT601,
    )


def _objects(found: Detections, size: Size) -> tuple[HiddenObject, ...]:
    corners = np.clip(found.boxes / np.array([size.width, size.height] * 2, np.float32), 0, 1)
    return tuple(
        HiddenObject(Label(label).text, (float(x0), float(y0), float(x1 - x0), float(y1 - y0)), float(score))
        for (x0, y0, x1, y1), label, score in zip(corners, found.labels, found.scores, strict=True)
    )
