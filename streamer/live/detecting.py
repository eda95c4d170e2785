"""One detector for all live streams, who take turns: no stream waits for more than one run of each other stream.

# Note [Runs at once]
A run of a small network fills no second core: on the CPU several streams look at the same time, each on its own
thread, and only further ones wait.

# Note [Runs together]
On a GPU one run of a network looks at many pictures in little more than the time of one. Nobody waits for a batch to
fill: while one run is under way the others queue up, and whoever has the next turn looks at all of them that are alike.
The more streams, the larger the batches; one stream alone is as quick as without.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streamer.channel import Turns
from streamer.config import Hide
from streamer.detection import Detections, Label
from streamer.detector import Detect
from streamer.frame import Frame


class ScalableDetector(Protocol):
    """A detector whose view can shrink; `detector.Detector` is one."""

    thresholds: dict[Label, float]

    def __call__(self, frame: Frame, *, share: float = 1.0) -> Detections:
        """What is in the frame, looked at with `share` of the view's sides."""


class Together(Protocol):
    """Looks at several frames of equal size and colour at once."""

    def __call__(self, frames: Sequence[Frame], *, share: float = 1.0) -> list[Detections]:
        """What is in each of them."""


@dataclass(slots=True, eq=False)
class _Request:
    frame: Frame
    share: float
    found: Detections | None = None
    error: Exception | None = None

    def alike(self, other: "_Request") -> bool:
        ours, theirs = self.frame, other.frame
        return (ours.size, ours.color, self.share) == (theirs.size, theirs.color, other.share)


class SharedDetector:
    """A detector for every class, used by many streams, each of which may hide other classes."""

    def __init__(
        self, detector: ScalableDetector, together: Together | None = None, most: int = 1, at_once: int = 1
    ) -> None:
        """`together` looks at up to `most` frames in one run, of which `at_once` may be under way.

        See Note [Runs together] and Note [Runs at once].
        """
        if most > 1 and at_once > 1:
            raise ValueError("runs are shared or at the same time")
        self._detector = detector
        self._together = together if most > 1 else None
        self._most = most
        self._turns = Turns(at_once)
        self._waiting: list[_Request] = []  # shared by all threads, like the lock
        self._lock = threading.Lock()

    def busy(self) -> bool:
        """Whether another stream's run is under way that could not be shared. See Note [Runs together]."""
        return self._together is None and self._turns.taken

    def thresholds(self, hide: Hide) -> dict[Label, float]:
        """The scores from which the hidden classes start a track."""
        return {label: score for label, score in self._detector.thresholds.items() if label in hide.labels}

    def for_stream(self, hide: Hide, share: Callable[[], float]) -> Detect:
        """A detector for one stream: only the classes that it hides, with a view that may shrink.

        What goes wrong with a run is raised in every stream whose frame it looked at.
        """
        wanted = np.array([int(label) for label in hide.labels], np.uint8)

        def detect(frame: Frame) -> Detections:
            request = _Request(frame, share())
            with self._lock:
                self._waiting.append(request)
            with self._turns:
                batch = self._taken(request)
                if batch:
                    self._run(batch)
            if request.error is not None:
                raise request.error
            assert request.found is not None
            return request.found.take(np.isin(request.found.labels, wanted))

        return detect

    def _taken(self, first: _Request) -> list[_Request]:
        """What the next run looks at: nothing if another one has looked at `first` already."""
        with self._lock:
            if first not in self._waiting:
                return []
            others = [other for other in self._waiting if other is not first and other.alike(first)]
            batch = [first, *others[: self._most - 1]]
            for request in batch:
                self._waiting.remove(request)
        return batch

    def _run(self, batch: list[_Request]) -> None:
        first = batch[0]
        try:
            if self._together is None or len(batch) == 1:
                first.found = self._detector(first.frame, share=first.share)
                return
            found = self._together([request.frame for request in batch], share=first.share)
            for request, each in zip(batch, found, strict=True):
                request.found = each
        except Exception as error:  # noqa: BLE001 - raised again by every stream that waits for it
            for request in batch:
                request.error = error
