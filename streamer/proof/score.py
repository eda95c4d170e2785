"""From verdicts to figures: what share was covered, who was ever seen, for how long, and at what price."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.detection import Label
from streamer.proof.clips import Clip
from streamer.proof.judge import Verdict

COVERED = 0.9  # share of an object that must be masked
SIZES = {  # object heights in pixels as if the clip had 1080 lines, half-open
    Label.FACE: ((0, 16), (16, 32), (32, 64), (64, 128), (128, 1 << 16)),
    Label.PLATE: ((0, 10), (10, 20), (20, 40), (40, 80), (80, 1 << 16)),
}
LEAST = {Label.FACE: 16, Label.PLATE: 10}  # smallest height that the headline counts, at 1080 lines
_LINES = 1080


@dataclass(frozen=True, slots=True, eq=False)
class Life:
    """One object through one shot: its frames in order, without those in which nothing can be told."""

    label: Label
    heights: NDArray[np.float32]  # (k,) pixels at 1080 lines
    covered: NDArray[np.float32]  # (k,) masked share
    move: str
    unclear: int  # frames left out because the input shows no detail there
    difficulty: str = ""  # the annotators' word


@dataclass(frozen=True, slots=True)
class Exposure:
    """Figures of one group of objects."""

    name: str
    object_frames: int
    covered: float  # share of object-frames of which at least 90 % of the box is masked
    half_covered: float  # the same for 50 %
    tracks: int
    tracks_exposed: int  # with any uncovered frame
    tracks_missed: int  # never covered
    late: int  # tracks that are covered later than on their first frame
    longest_late: int  # frames
    flicker: float  # share of object-frames uncovered between covered ones
    unclear: int  # object-frames without detail, left out


@dataclass(frozen=True, slots=True)
class Area:
    """What masking costs, over frames whose annotations are exhaustive."""

    masked: float  # share of the picture
    true: float  # share of the picture in counted boxes
    needless: float  # share of the picture masked outside of every box

    @property
    def ratio(self) -> float:
        """Masked area by true area."""
        return self.masked / self.true if self.true else float("nan")


@dataclass(frozen=True, slots=True)
class Score:
    """All figures of one way of working."""

    name: str
    headline: tuple[Exposure, ...]  # per class, objects of at least `LEAST`
    difficulty: tuple[Exposure, ...]  # the same by the annotators' words, where they have any
    sizes: tuple[Exposure, ...]
    moves: tuple[Exposure, ...]  # both classes, objects of at least `LEAST`
    area: Area
    frames: int
    seconds: float  # of the run itself

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "area": {**asdict(self.area), "ratio": self.area.ratio}}


class Ledger:
    """Gathers verdicts of several clips."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.slug = re.sub(r"[^A-Za-z0-9.]+", "_", name)  # the name as part of a file's name
        self._lives: list[Life] = []
        self._areas: list[tuple[float, float, float]] = []
        self._frames = 0
        self._seconds = 0.0

    def add(self, clip: Clip, verdicts: Sequence[Verdict], seconds: float) -> None:
        """One judged clip and how long the work on it took."""
        self._lives += lives(clip, verdicts)
        self._frames += len(verdicts)
        self._seconds += seconds
        self._areas += [
            (verdict.masked, verdict.true, verdict.needless)
            for truth, verdict in zip(clip.truths, verdicts, strict=True)
            if truth.exhaustive
        ]

    def score(self) -> Score:
        """The figures so far."""
        grown = [
            life for whole in self._lives if (life := _within(whole, LEAST[whole.label], 1 << 16)) is not None
        ]
        sizes = [
            exposure(
                f"{_noun(label)} {low}-{high if high < 1 << 16 else ''} px",
                _slice(self._lives, label, low, high),
            )
            for label in Label
            for low, high in SIZES[label]
        ]
        moves = sorted({life.move for life in grown})
        area = np.mean(self._areas, axis=0) if self._areas else np.zeros(3)
        return Score(
            self._name,
            tuple(
                exposure(
                    f"{_noun(label)} from {LEAST[label]} px", [life for life in grown if life.label == label]
                )
                for label in Label
            ),
            tuple(_by_difficulty(grown)),
            tuple(sizes),
            tuple(exposure(move, [life for life in grown if life.move == move]) for move in moves),
            Area(*(float(value) for value in area)),
            self._frames,
            self._seconds,
        )


def lives(clip: Clip, verdicts: Sequence[Verdict]) -> list[Life]:
    """The objects of a clip, each with the frames in which it counts; where some move by themselves, only those."""
    rows: dict[int, list[tuple[float, float]]] = {}
    kinds: dict[int, tuple[Label, str]] = {}
    for truth, verdict, move in zip(clip.truths, verdicts, clip.moves, strict=True):
        for index in np.flatnonzero(truth.counted):
            track = int(truth.tracks[index])
            if clip.moving and not clip.moving[track]:
                continue
            kinds[track] = Label(truth.labels[index]), move
            height = float(truth.boxes[index, 3] - truth.boxes[index, 1]) * _LINES / clip.size.height
            rows.setdefault(track, []).append((height, float(verdict.covered[index])))
    result = []
    for track, pairs in rows.items():
        table = np.array(pairs, np.float32)
        clear = ~np.isnan(table[:, 1])
        label, move = kinds[track]
        word = clip.difficulty[track] if clip.difficulty else ""
        result.append(Life(label, table[clear, 0], table[clear, 1], move, int((~clear).sum()), word))
    return result


def exposure(name: str, group: Sequence[Life]) -> Exposure:
    """The figures of a group of objects."""
    tracks = [life for life in group if len(life.covered)]
    shares = np.concatenate([life.covered for life in tracks]) if tracks else np.zeros(0, np.float32)
    safe = [life.covered >= COVERED for life in tracks]
    late = [int(np.argmax(row)) for row in safe if row.any() and not row[0]]
    flicker = sum(_between(row) for row in safe)
    count = len(shares)
    return Exposure(
        name=name,
        object_frames=count,
        covered=float((shares >= COVERED).mean()) if count else float("nan"),
        half_covered=float((shares >= 0.5).mean()) if count else float("nan"),
        tracks=len(tracks),
        tracks_exposed=sum(not row.all() for row in safe),
        tracks_missed=sum(not row.any() for row in safe),
        late=len(late),
        longest_late=max(late, default=0),
        flicker=flicker / count if count else float("nan"),
        unclear=sum(life.unclear for life in group),
    )


def _by_difficulty(group: Sequence[Life]) -> list[Exposure]:
    kinds = sorted({(life.label, life.difficulty) for life in group if life.difficulty})
    return [
        exposure(
            f"{_noun(label)} from {LEAST[label]} px, {word}",
            [life for life in group if (life.label, life.difficulty) == (label, word)],
        )
        for label, word in kinds
    ]


def _between(safe: NDArray[np.bool_]) -> int:
    """Uncovered frames that lie between covered ones."""
    at = np.flatnonzero(safe)
    return int((~safe[at[0] : at[-1] + 1]).sum()) if len(at) else 0


def _slice(group: Iterable[Life], label: Label, low: int, high: int) -> list[Life]:
    return [part for life in group if life.label == label and (part := _within(life, low, high)) is not None]


def _within(life: Life, low: int, high: int) -> Life | None:
    """The frames of an object in which its height lies in [low, high); None without any."""
    inside = (life.heights >= low) & (life.heights < high)
    if not inside.any():
        return None
    return replace(life, heights=life.heights[inside], covered=life.covered[inside])


def _noun(label: Label) -> str:
    return {Label.FACE: "faces", Label.PLATE: "plates"}[label]
