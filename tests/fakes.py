"""Stand-ins for the edges: detectors that follow a script."""

from collections.abc import Callable, Iterable

import numpy as np

from streamer import detection
from streamer.anonymizer import Means
from streamer.config import Settings, settings_from
from streamer.detection import Detections, Label
from streamer.device.cpu import CpuDevice
from streamer.frame import Frame, Size
from streamer.zones import Zones

Box = tuple[float, float, float, float]
THRESHOLDS = {Label.FACE: 0.3, Label.PLATE: 0.3}


def sees(
    boxes_at: Callable[[int], Iterable[Box]], label: Label = Label.FACE
) -> Callable[[Frame], Detections]:
    """A detector that finds the boxes which `boxes_at` gives for a frame's index."""

    def detect(frame: Frame) -> Detections:
        boxes = list(boxes_at(frame.index))
        return detection.detections(boxes, [0.9] * len(boxes), [label] * len(boxes))

    return detect


def means(
    detect: Callable[[Frame], Detections],
    settings: Settings | None = None,
    zones: Zones | None = None,
    on_error: str = "stop",
) -> Means:
    return Means(
        detect,
        THRESHOLDS,
        CpuDevice(),
        settings or settings_from({}),
        zones or Zones(),
        on_error,  # type: ignore[arg-type]
    )


def noise_frame(index: int, size: Size = Size(320, 180), rate: int = 25) -> Frame:
    """A frame of fine noise in which any unmasked pixel is easy to tell; the same for the same index."""
    from fractions import Fraction

    random = np.random.default_rng(index)
    even = size.even
    luma = random.integers(0, 256, (even.height, even.width), np.uint8)
    chroma = random.integers(0, 256, (even.height // 2, even.width // 2, 2), np.uint8)
    return Frame(luma, chroma, size, index, index, Fraction(1, rate))
