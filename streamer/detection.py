"""What a detector found: boxes, scores and labels as a struct of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from streamer.boxes import Boxes


class Label(IntEnum):
    """What is hidden. The text is the image API's class name."""

    FACE = 0
    PLATE = 1

    @property
    def text(self) -> str:
        """`Face` or `License plate`."""
        return ("Face", "License plate")[self]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes found in one frame; the three arrays have the same length."""

    boxes: Boxes  # (n, 4) x0 y0 x1 y1 in frame pixels, half-open
    scores: NDArray[np.float32]  # (n,) in [0, 1]
    labels: NDArray[np.uint8]  # (n,) Label values

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.labels.shape != (count,):
            raise ValueError(
                f"boxes {self.boxes.shape}, scores {self.scores.shape}, labels {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Detections":
        """Those at `index` (integers or a mask), as a copy."""
        return Detections(self.boxes[index], self.scores[index], self.labels[index])


def detections(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[Label]
) -> Detections:
    """Detections from plain lists.

    >>> len(detections([[0, 0, 2, 2]], [0.9], [Label.FACE]))
    1
    """
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.uint8)
    )


def none() -> Detections:
    """No detections."""
    return detections([], [], [])


def concatenate(parts: Sequence[Detections]) -> Detections:
    """All of them in one, in order; a single one is given back as it is."""
    if not parts:
        return none()
    if len(parts) == 1:
        return parts[0]
    return Detections(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
