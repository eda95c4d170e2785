"""How cut-outs move by themselves: each movement is one object's walk through a shot, or several, one by one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from streamer.detection import Label
from streamer.frame import Size
from streamer.proof.cutouts import Cutout, Pose

PILLAR = 1.5  # width in lengths of what passes behind it
_LENGTHS = {Label.FACE: (24, 160), Label.PLATE: (50, 240)}  # longer side at 720 lines, pixels
_ENLARGED = 1.25  # times a cut-out's own size that it may have: beyond, it is but blur


@dataclass(frozen=True, slots=True)
class Walk:
    """One object's time in a shot."""

    cutout: Cutout
    frames: range
    pose: Callable[[float], Pose]  # of the time in frames


@dataclass(frozen=True, slots=True)
class Stage:
    """What a movement needs to be made."""

    size: Size
    frames: int
    random: np.random.Generator
    next_cutout: Callable[[], Cutout]

    def length(self, cutout: Cutout, low: float = 0.0, high: float = 1.0) -> float:
        """A length in view pixels from a part of the range there is; as many small ones as large ones."""
        least, most = (side * self.size.height / 720 for side in _LENGTHS[cutout.label])
        most = max(least, min(most, _ENLARGED * cutout.length))
        return float(least * (most / least) ** self.random.uniform(low, high))

    def spot(self, length: float, edge: float = 0.12) -> tuple[float, float]:
        """A place in the view that is not at its edge."""
        width, height = self.size.width, self.size.height
        x = self.random.uniform(edge, 1 - edge) * width
        reach = min(0.45 * height, 0.6 * length + 0.05 * height)
        return x, self.random.uniform(reach, height - reach)

    def side(self) -> int:
        """1 or -1."""
        return int(self.random.choice((-1, 1)))


def _cross(stage: Stage) -> list[Walk]:
    """Comes in at an edge and goes on at a walk."""
    cutout = stage.next_cutout()
    length = stage.length(cutout)
    pace = stage.random.uniform(0.08, 0.25)
    return [Walk(cutout, range(stage.frames), _straight(stage, length, pace))]


def _dash(stage: Stage) -> list[Walk]:
    """One after the other crosses the picture fast."""
    walks, start = [], 3
    while start < stage.frames - 2:
        cutout = stage.next_cutout()
        length = stage.length(cutout)
        pace = stage.random.uniform(0.3, 0.6)
        straight = _straight(stage, length, pace, start)
        end = start + round((stage.size.width + length) / (pace * length))
        walks.append(Walk(cutout, range(start, min(end, stage.frames)), straight))
        start = end + 4
    return walks


def _straight(stage: Stage, length: float, pace: float, start: int = 0) -> Callable[[float], Pose]:
    """In at one edge and on towards the other, at `pace` lengths a frame."""
    side, (_, y) = stage.side(), stage.spot(length)
    edge = -0.5 * length if side > 0 else stage.size.width + 0.5 * length
    speed, slope = side * pace * length, stage.random.uniform(-0.1, 0.1) * pace * length
    return lambda time: Pose(edge + speed * (time - start), y + slope * (time - start), length)


def _pop(stage: Stage) -> list[Walk]:
    """One after the other is there at once, and gone after 2 to 12 frames."""
    walks, start = [], int(stage.random.integers(2, 8))
    while start < stage.frames - 2:
        cutout = stage.next_cutout()
        end = min(stage.frames, start + int(stage.random.integers(2, 13)))
        length = stage.length(cutout)
        pose = Pose(*stage.spot(length), length)
        walks.append(Walk(cutout, range(start, end), partial(_still, pose)))
        start = end + int(stage.random.integers(4, 13))
    return walks


def _still(pose: Pose, _time: float) -> Pose:
    return pose


def _approach(stage: Stage) -> list[Walk]:
    """Comes nearer at a steady pace, so that it grows faster and faster, and stops."""
    cutout = stage.next_cutout()
    far, near = stage.length(cutout, 0, 0.1), stage.length(cutout, 0.9, 1)
    x, y = stage.spot(near, 0.25)
    drift = stage.random.uniform(-0.1, 0.1) * stage.size.width

    def pose(time: float) -> Pose:
        share = min(1.0, time / (0.8 * stage.frames))
        return Pose(x + drift * share, y, 1 / ((1 - share) / far + share / near))

    return [Walk(cutout, range(stage.frames), pose)]


def _behind(stage: Stage) -> list[Walk]:
    """Passes behind a pillar and comes out again."""
    cutout = stage.next_cutout()
    length = stage.length(cutout, 0.2, 0.8)
    middle, y = stage.size.width * stage.random.uniform(0.4, 0.6), stage.spot(length)[1]
    way = stage.side() * (PILLAR + 3.5) * length  # from well before it to well behind it
    return [
        Walk(
            cutout,
            range(stage.frames),
            lambda time: Pose(middle + way * (time / stage.frames - 0.5), y, length),
        )
    ]


def _sway(stage: Stage) -> list[Walk]:
    """Stays about where it is and moves a little all the time; in every other shot it tilts as well."""
    cutout = stage.next_cutout()
    length = stage.length(cutout)
    x, y = stage.spot(length, 0.2)
    wide, high = stage.random.uniform(0.1, 0.4, 2) * length
    tilt = stage.random.choice((0.0, 1.0)) * stage.random.uniform(5, 15)
    phase, turns = stage.random.uniform(0, 2 * np.pi), 2 * np.pi / stage.random.uniform(16, 40)

    def pose(time: float) -> Pose:
        angle = phase + turns * time
        sideways = 0.6 * np.sin(angle) + 0.4 * np.sin(2.3 * angle)
        nod = 0.6 * np.sin(1.4 * angle + 1) + 0.4 * np.sin(3.1 * angle)
        return Pose(x + wide * sideways, y + 0.5 * high * nod, length, tilt * np.sin(0.9 * angle))

    return [Walk(cutout, range(stage.frames), pose)]


WALKS = {
    "cross": _cross,
    "pop": _pop,
    "dash": _dash,
    "approach": _approach,
    "behind": _behind,
    "sway": _sway,
}
