"""Looks again at a finished file: what would a closer look still find in it?

# Note [What counts as left]
A mask does not hide that somebody is there: a blurred head on a body is still found as a face, by its place and
outline. So a finding alone proves nothing. It counts where the input's detail survives in the output (see
Note [Masked by pixels] in proof.judge): less than 70 % of the finding's detailed pixels are masked. The test is made
on the pixels of both files, not on what the run believes it masked. Findings in zones that are kept on purpose do
not count. What this check cannot see is what the closer look does not find either.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer import masking
from streamer.config import MaskPolicy, Style
from streamer.detection import Detections, Label
from streamer.detector import Detector
from streamer.device.cpu import CpuDevice
from streamer.errors import InputError, OutputError
from streamer.frame import Frame
from streamer.image.limits import OWN_FILES
from streamer.image.picture import decode
from streamer.image.redact import frame_of, views_of
from streamer.media.source import FileSource
from streamer.pipeline import Engine
from streamer.proof.judge import masked_share
from streamer.tally import Tally
from streamer.zones import kept

_CLOSER = 2  # times the view that the run used
_LEAST_SIDE = 1280  # and at least this long
_MASKED = 0.7  # share of a finding's detail that must be gone
_SAME_IOU = 0.2
_APART_S = 0.5  # sightings of one object may be so far apart
_STILL_WIDTH = 480
_STILLS = 50


@dataclass(slots=True)
class Leftover:
    """One object that a closer look finds in the output, from its first to its last sighting."""

    label: Label
    first_s: float
    last_s: float
    frames: int
    score: float  # the highest
    box: tuple[float, float, float, float]  # x0 y0 x1 y1 in pixels, where the score was highest
    still: Path | None = None
    _last_box: NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "class": self.label.text,
            "first_s": round(self.first_s, 3),
            "last_s": round(self.last_s, 3),
            "frames": self.frames,
            "score": round(self.score, 4),
            "box": [round(side, 1) for side in self.box],
            "still": str(self.still) if self.still else None,
        }


def verify(source: Path, output: Path, engine: Engine, stills: Path | None = None) -> list[Leftover]:
    """What is still visible in `output`, made by `engine` from `source`, in order of appearance.

    Every frame is looked at, with a view twice as large as the run's. With `stills`, a small picture of each
    leftover, itself masked, is written into that folder (made if needed). Raises InputError or OutputError.
    """
    return _look(_pairs(source, output), output, engine, stills, still=False)


def verify_picture(source: Path, output: Path, engine: Engine, stills: Path | None = None) -> list[Leftover]:
    """`verify` for a picture and its result."""
    return _look(_picture_pairs(source, output), output, engine, stills, still=True)


def _look(
    pairs: Iterator[tuple[Frame, Frame]], output: Path, engine: Engine, stills: Path | None, *, still: bool
) -> list[Leftover]:
    policy = engine.settings.detect
    closer = policy.model_copy(update={"side": min(4096, max(_CLOSER * policy.side, _LEAST_SIDE))})
    detector = Detector(engine.spec, engine.device, closer, engine.settings.hide, still=still)
    left: list[Leftover] = []
    for before, after in pairs:
        found = _strong(detector(after), detector.thresholds)
        found = found.take(~kept(engine.zones, found.boxes, after.size))
        visible = [masked_share(before.luma, after.luma, box) < _MASKED for box in found.boxes]
        for index in np.flatnonzero(np.array(visible, np.bool_)):
            fresh = _note(left, found, int(index), after.time_s)
            if fresh is not None and stills is not None and len(left) <= _STILLS:
                fresh.still = stills / f"{output.stem}_{after.time_s:09.3f}s_{len(left)}.png"
                _write_still(after, found, fresh.still)
    return left


def _pairs(source: Path, output: Path) -> Iterator[tuple[Frame, Frame]]:
    """The frames of both files, one by one, with luma cut to the same size."""
    with (
        FileSource(source, tally=Tally(), audio=False, groups=False) as first,
        FileSource(output, tally=Tally(), audio=False, groups=False) as second,
    ):
        frames = (item for item in first if isinstance(item, Frame))
        results = (item for item in second if isinstance(item, Frame))
        for before, after in zip_longest(frames, results):
            if before is None or after is None or before.planes_size != after.planes_size:
                raise OutputError(f"has other pictures than the input and cannot be verified: {output}")
            yield before, after


def _picture_pairs(source: Path, output: Path) -> Iterator[tuple[Frame, Frame]]:
    """Both as colours alone and, while both have transparency, on white and on black."""
    try:
        first, second = (decode(path.read_bytes(), OWN_FILES) for path in (source, output))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}): {error.filename}") from error
    if (first.width, first.height) != (second.width, second.height):
        raise OutputError(f"is of another size than the input and cannot be verified: {output}")
    for before, after in zip(views_of(first), views_of(second), strict=False):
        yield frame_of(before), frame_of(after)


def _strong(found: Detections, thresholds: dict[Label, float]) -> Detections:
    least = np.array([thresholds[Label(label)] for label in found.labels], np.float32)
    return found.take(found.scores >= least)


def _note(left: list[Leftover], found: Detections, index: int, at_s: float) -> Leftover | None:
    """Add a sighting to the object it belongs to; the object if it is a new one."""
    box, label, score = found.boxes[index], Label(found.labels[index]), float(found.scores[index])
    x0, y0, x1, y1 = (float(side) for side in box)
    for known in reversed(left):
        near = at_s - known.last_s <= _APART_S and known.label == label
        if near and geometry.iou(box[None], known._last_box[None])[0, 0] > _SAME_IOU:
            known.frames += known.last_s != at_s
            known.last_s, known._last_box = at_s, box
            if score > known.score:
                known.score, known.box = score, (x0, y0, x1, y1)
            return None
    fresh = Leftover(label, at_s, at_s, 1, score, (x0, y0, x1, y1), None, box)
    left.append(fresh)
    return fresh


def _write_still(frame: Frame, found: Detections, path: Path) -> None:
    """A small gray picture of the output in which everything that was found is masked and framed."""
    plan = masking.plan_masks(
        found.boxes, found.labels, MaskPolicy(style=Style.SOLID, margin=0.3), frame.size
    )
    CpuDevice().redact(frame, plan, Style.SOLID)
    scale = min(1.0, _STILL_WIDTH / frame.size.width)
    small = cv2.resize(frame.luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for x0, y0, x1, y1 in (found.boxes * scale).round().astype(int).tolist():
        cv2.rectangle(small, (x0, y0), (x1, y1), 255, 1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, small)[1].tobytes())  # OpenCV crashes over some names
    except OSError as error:
        raise OutputError(f"the still cannot be written ({error.strerror}): {path}") from error
