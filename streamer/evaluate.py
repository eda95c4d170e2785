"""How well a detector finds what was labelled: AP50, recall at the default thresholds, milliseconds.

# Note [What counts]
A detection at IoU 0.5 with a labelled box is a hit; one on an `ignore` box, or mostly inside it, counts neither way.
Where a source is not `exhaustive`, unlabelled objects may exist: `ap50` leaves its false alarms out there, so that it
says how much is found; `ap50_strict` counts them all and is the lower bound. Recall is the share of labelled boxes with
a detection at IoU 0.4 and the default threshold; sizes are heights in pixels of the network's input. Times are those
of one core at work (thread time), so that a busy machine does not distort them.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer import boxes as geometry
from streamer.config import DetectPolicy, Hide
from streamer.detection import Detections, Label
from streamer.detector import LOW_SHARE, Detector
from streamer.device.cpu import CpuDevice
from streamer.errors import InputError
from streamer.image.redact import frame_of
from streamer.models import ModelSpec

HIT_IOU = 0.5
RECALL_IOU = 0.4
_INSIDE = 0.5  # share of a detection inside an ignored box from which it is ignored
_FLOOR = 0.01  # scores from which detections enter the curves
_TIMED_RUNS = 15
_TIMED_SIZE = (640, 360)  # its letterbox is the 640x384 that detectors are compared at
_EDGES_PX = (0, 8, 12, 16, 32, 64, 1 << 20)
_LABELS = {"face": Label.FACE, "plate": Label.PLATE}
_LEVELS = {"easy": ("easy",), "medium": ("easy", "medium")}


@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture of a set and what is in it."""

    file: Path
    source: str
    exhaustive: bool
    labelled: frozenset[Label]  # the classes whose boxes are given
    boxes: NDArray[np.float32]  # (n, 4) corners in pixels
    labels: NDArray[np.uint8]  # (n,)
    ignored: NDArray[np.bool_]  # (n,)
    difficulty: tuple[str, ...]  # (n,) WIDER's word, or ""


@dataclass(frozen=True, slots=True)
class Looked:
    """A picture and what the detector found in it."""

    truth: Labelled
    found: Detections
    sure: NDArray[np.bool_]  # (n,) which of them count at the model's own thresholds
    scale: float  # network pixels per picture pixel
    seconds: float


@dataclass(frozen=True, slots=True)
class Score:
    """The numbers of one group of boxes."""

    boxes: int
    ap50: float | None
    ap50_strict: float | None
    recall: float | None  # at the default threshold
    alarms_per_picture: float | None  # at the default threshold, exhaustive pictures only


def read(folder: Path) -> list[Labelled]:
    """The set of `folder/eval.json`. Raises InputError."""
    index = folder / "eval.json"
    try:
        rows = json.loads(index.read_text(encoding="utf-8"))
        return [_labelled(folder, row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"not a set of labelled pictures ({error}): {index}") from error


def _labelled(folder: Path, row: dict[str, Any]) -> Labelled:
    objects = row["objects"]
    corners = np.array([item["box"] for item in objects], np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Labelled(
        file=folder / row["file"],
        source=row["source"],
        exhaustive=row.get("exhaustive", True),
        labelled=frozenset(_LABELS[kind] for kind in row["labelled"]),
        boxes=corners,
        labels=np.array([_LABELS[item["class"]] for item in objects], np.uint8),
        ignored=np.array([item.get("ignore", False) for item in objects], np.bool_),
        difficulty=tuple(item.get("difficulty") or "" for item in objects),
    )


def look(
    spec: ModelSpec, pictures: Sequence[Labelled], policy: DetectPolicy, *, quarters: int = 0
) -> Iterator[Looked]:
    """What the model finds in each picture, down to a score of 0.01, on one thread of the CPU.

    The pictures are turned by `quarters`, counterclockwise, before it looks at them. Raises ModelError, or InputError
    for a picture that cannot be read.
    """
    low = policy.model_copy(update={"threshold": _FLOOR / LOW_SHARE})
    detector = Detector(spec, CpuDevice(), low, Hide.EVERYTHING)
    for picture in pictures:
        image = _image(picture.file)
        truth = turned(picture, image.shape[1], image.shape[0], quarters)
        frame = frame_of(np.ascontiguousarray(np.rot90(image, quarters)))
        start = time.thread_time()
        found = detector(frame)
        seconds = time.thread_time() - start
        scale = min(2.0, (spec.side or policy.side) / max(frame.size.width, frame.size.height))
        sure = found.scores >= spec.needed(
            found.labels, np.sqrt(geometry.area(found.boxes)) * np.float32(scale)
        )
        yield Looked(truth, found, sure, scale, seconds)


def milliseconds(spec: ModelSpec) -> float:
    """Median time of the whole detector on an empty 640x360 frame at the default thresholds, one thread."""
    slope = np.linspace(0, 255, _TIMED_SIZE[0]).astype(np.uint8)
    picture = np.ascontiguousarray(np.broadcast_to(slope[None, :, None], (_TIMED_SIZE[1], _TIMED_SIZE[0], 3)))
    frame, detector = (
        frame_of(picture),
        Detector(spec, CpuDevice(), DetectPolicy(side=_TIMED_SIZE[0]), Hide.EVERYTHING),
    )
    times = []
    for _ in range(_TIMED_RUNS + 2):
        start = time.thread_time()
        detector(frame)
        times.append(time.thread_time() - start)
    return statistics.median(times[2:]) * 1000


def turned(picture: Labelled, width: int, height: int, quarters: int) -> Labelled:
    """What is in a picture of that size once it is turned by `quarters`, counterclockwise."""
    return replace(picture, boxes=geometry.turn(picture.boxes, width, height, quarters))


def _image(file: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise InputError(f"a picture of the set cannot be read: {file}")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def report(spec: ModelSpec, looked: Sequence[Looked]) -> dict[str, Any]:
    """All numbers of a model, ready for JSON. See Note [What counts]."""
    by_label: dict[str, Any] = {}
    for name, label in _LABELS.items():
        if label not in spec.labels:
            continue
        here = [item for item in looked if label in item.truth.labelled]
        by_label[name] = {
            "all": _row(score(here, label)),
            "source": _by_source(here, label),
            "size_px": _by_size(here, label),
        }
        if label is Label.FACE:
            by_label[name]["difficulty"] = {
                level: _row(score(here, label, _of_difficulty(words))) for level, words in _LEVELS.items()
            }
    seconds = [item.seconds for item in looked]
    return {
        "model": spec.name,
        "sha256": spec.sha256,
        "thresholds": {label.name.lower(): score for label, score in spec.thresholds.items()},
        "pictures": len(looked),
        "ms_per_picture": round(statistics.fmean(seconds) * 1000, 2) if seconds else None,
        **by_label,
    }


Chosen = Callable[[Looked], NDArray[np.bool_]]  # which labelled boxes of a picture count


def _everything(item: Looked) -> NDArray[np.bool_]:
    return np.ones(len(item.truth.boxes), np.bool_)


def _of_difficulty(words: tuple[str, ...]) -> Chosen:
    return lambda item: np.array([word in words for word in item.truth.difficulty], np.bool_)


def _of_height(low: int, high: int) -> Chosen:
    def chosen(item: Looked) -> NDArray[np.bool_]:
        heights = (item.truth.boxes[:, 3] - item.truth.boxes[:, 1]) * item.scale
        return np.asarray((heights >= low) & (heights < high), np.bool_)

    return chosen


def _by_source(looked: Sequence[Looked], label: Label) -> dict[str, Any]:
    sources = sorted({item.truth.source for item in looked})
    return {
        source: _row(score([item for item in looked if item.truth.source == source], label))
        for source in sources
    }


def _by_size(looked: Sequence[Looked], label: Label) -> dict[str, Any]:
    rows = {}
    for low, high in pairwise(_EDGES_PX):
        band = score(looked, label, _of_height(low, high))
        name = f"{low}-{high}" if high < _EDGES_PX[-1] else f"{low}-"
        rows[name] = {"boxes": band.boxes, "recall": band.recall}
    return rows


def _row(numbers: Score) -> dict[str, Any]:
    return {name: getattr(numbers, name) for name in Score.__dataclass_fields__}


def score(looked: Sequence[Looked], label: Label, chosen: Chosen = _everything) -> Score:
    """The numbers of the chosen boxes of a class; boxes that are not chosen are ignored."""
    curve: list[tuple[float, bool, bool]] = []  # score, hit, counts where labels are exhaustive only
    boxes = recalled = alarms = complete = 0
    for item in looked:
        truth, of_label = item.truth, item.found.take(item.found.labels == label)
        sure = item.sure[item.found.labels == label]
        mine = truth.labels == label
        wanted = np.asarray(chosen(item) & ~truth.ignored, np.bool_)[mine]
        boxes += int(wanted.sum())
        overlap = geometry.iou(of_label.boxes, truth.boxes[mine])
        recalled += int((overlap[sure][:, wanted] >= RECALL_IOU).any(axis=0).sum())
        outcomes = _outcomes(of_label, truth.boxes[mine], wanted, overlap)
        curve += [(float(of_label.scores[index]), hit, truth.exhaustive) for index, hit in outcomes]
        complete += truth.exhaustive
        alarms += truth.exhaustive * sum(not hit and bool(sure[index]) for index, hit in outcomes)
    if not boxes:
        return Score(0, None, None, None, None)
    return Score(
        boxes=boxes,
        ap50=_average_precision([(value, hit) for value, hit, whole in curve if hit or whole], boxes),
        ap50_strict=_average_precision([(value, hit) for value, hit, _ in curve], boxes),
        recall=round(recalled / boxes, 4),
        alarms_per_picture=round(alarms / complete, 3) if complete else None,
    )


def _outcomes(
    found: Detections, boxes: geometry.Boxes, wanted: NDArray[np.bool_], overlap: NDArray[np.float32]
) -> list[tuple[int, bool]]:
    """Index and hit of each detection that counts, best first; each wanted box is hit once."""
    shared = geometry.intersection(found.boxes, boxes) / np.maximum(geometry.area(found.boxes), 1e-6)[:, None]
    unwanted = np.flatnonzero(~wanted)
    near = np.asarray((shared > _INSIDE) | (overlap >= HIT_IOU), np.bool_)
    ignored: list[bool] = np.any(near[:, unwanted], axis=1, keepdims=False).tolist()
    free, outcomes = wanted.copy(), []
    for index in np.argsort(-found.scores, kind="stable").tolist():
        fits = np.where(free, overlap[index], 0)
        if fits.size and fits.max() >= HIT_IOU:
            free[int(fits.argmax())] = False
            outcomes.append((index, True))
        elif not ignored[index]:
            outcomes.append((index, False))
    return outcomes


def _average_precision(outcomes: list[tuple[float, bool]], boxes: int) -> float:
    """Area under the curve of precision, made monotonous, over recall."""
    ordered = sorted(outcomes, key=lambda outcome: -outcome[0])
    hits = np.cumsum([hit for _, hit in ordered])
    if not len(hits):
        return 0.0
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return round(float(np.sum(np.diff(np.concatenate([[0], hits / boxes])) * precision)), 4)
