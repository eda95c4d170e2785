"""Streams that share one detector: in turns, several of them in one run, each with what is its own."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from streamer import detection
from streamer.config import Hide
from streamer.detection import Detections, Label
from streamer.errors import DeviceError
from streamer.frame import Frame, Size
from streamer.live.detecting import SharedDetector
from tests.fakes import noise_frame

SIZE, OTHER = Size(64, 48), Size(96, 64)


class Slow:
    """A detector that finds in each frame a box as wide as its index, and waits in its first run to be let go."""

    thresholds = {Label.FACE: 0.3, Label.PLATE: 0.3}  # noqa: RUF012 - the protocol's field

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.go = threading.Event()
        self.fails = False

    def __call__(self, frame: Frame, *, share: float = 1.0) -> Detections:
        return self.together([frame], share=share)[0]

    def together(self, frames: Sequence[Frame], *, share: float = 1.0) -> list[Detections]:
        self.runs.append([frame.index for frame in frames])
        assert self.go.wait(30)
        if self.fails:
            raise DeviceError("the GPU is lost")
        boxes = [[[0, 0, frame.index + 1, 9]] * 2 for frame in frames]
        return [detection.detections(box, [0.9, 0.9], [Label.FACE, Label.PLATE]) for box in boxes]


class Stream:
    """One stream's thread: what it got or what was raised."""

    def __init__(self, detect: Callable[[Frame], Detections], frame: Frame) -> None:
        self.found: Detections | None = None
        self.error: Exception | None = None
        self._detect, self._frame = detect, frame
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.found = self._detect(self._frame)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error


def together(
    slow: Slow, shared: SharedDetector, frames: list[Frame], shares: list[float] | None = None
) -> list[Stream]:
    """One stream per frame; all but the first ask while the first one's run is under way."""
    streams = []
    for at, frame in enumerate(frames):
        share = shares[at] if shares else 1.0
        detect = shared.for_stream(Hide.EVERYTHING, lambda share=share: share)  # type: ignore[misc]
        streams.append(Stream(detect, frame))
        deadline = time.monotonic() + 30
        while (len(shared._waiting) < at or not slow.runs) and time.monotonic() < deadline:
            time.sleep(0.001)
    slow.go.set()
    for stream in streams:
        stream.thread.join(30)
        assert not stream.thread.is_alive()
    return streams


def test_those_who_waited_are_looked_at_together_and_get_their_own() -> None:
    slow = Slow()
    shared = SharedDetector(slow, slow.together, most=3)
    streams = together(slow, shared, [noise_frame(index, SIZE) for index in range(6)])
    assert slow.runs == [[0], [1, 2, 3], [4, 5]]
    for index, stream in enumerate(streams):
        assert stream.found is not None
        assert stream.found.boxes[0, 2] == index + 1
    assert not shared._waiting


def test_frames_that_differ_are_not_put_together() -> None:
    slow = Slow()
    shared = SharedDetector(slow, slow.together, most=16)
    sizes = [SIZE, SIZE, OTHER, SIZE, OTHER, SIZE]
    together(
        slow, shared, [noise_frame(index, size) for index, size in enumerate(sizes)], [1, 1, 1, 1, 1, 0.5]
    )
    assert slow.runs == [[0], [1, 3], [2, 4], [5]]


def test_on_the_cpu_each_is_looked_at_alone() -> None:
    slow = Slow()
    together(slow, SharedDetector(slow), [noise_frame(index, SIZE) for index in range(4)])
    assert slow.runs == [[0], [1], [2], [3]]


def test_as_many_runs_as_the_device_can_are_under_way_at_once() -> None:
    slow = Slow()
    shared = SharedDetector(slow, slow.together, most=1, at_once=2)
    detect = shared.for_stream(Hide.EVERYTHING, lambda: 1.0)
    streams = []
    for index in range(4):
        assert shared.busy() == (index >= 2)
        streams.append(Stream(detect, noise_frame(index, SIZE)))
        deadline = time.monotonic() + 30
        while shared._turns._next <= index and time.monotonic() < deadline:
            time.sleep(0.001)
    while len(slow.runs) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert sorted(slow.runs) == [[0], [1]]
    slow.go.set()
    for index, stream in enumerate(streams):
        stream.thread.join(30)
        assert stream.found is not None
        assert stream.found.boxes[0, 2] == index + 1
    assert not shared._waiting
    assert not shared.busy()


def test_a_run_that_fails_fails_for_all_and_the_next_one_is_tried() -> None:
    slow = Slow()
    slow.fails = True
    shared = SharedDetector(slow, slow.together, most=16)
    for stream in together(slow, shared, [noise_frame(index, SIZE) for index in range(4)]):
        assert isinstance(stream.error, DeviceError)
        assert stream.found is None
    slow.fails = False
    detect = shared.for_stream(Hide.FACES, lambda: 1.0)
    assert detect(noise_frame(7, SIZE)).labels.tolist() == [Label.FACE]


@pytest.mark.parametrize("hide", list(Hide))
def test_each_stream_gets_only_what_it_hides(hide) -> None:
    slow = Slow()
    slow.go.set()
    shared = SharedDetector(slow, slow.together, most=4)
    assert sorted(shared.for_stream(hide, lambda: 1.0)(noise_frame(0, SIZE)).labels) == sorted(hide.labels)
    assert set(shared.thresholds(hide)) == set(hide.labels)


@pytest.mark.parametrize("shares_runs", [False, True])
def test_it_is_busy_while_a_run_is_under_way_that_others_cannot_share(shares_runs: bool) -> None:
    slow = Slow()
    shared = SharedDetector(slow, slow.together, most=4 if shares_runs else 1)
    assert not shared.busy()
    stream = Stream(shared.for_stream(Hide.EVERYTHING, lambda: 1.0), noise_frame(0, SIZE))
    deadline = time.monotonic() + 30
    while not slow.runs and time.monotonic() < deadline:
        time.sleep(0.001)
    assert shared.busy() is not shares_runs
    slow.go.set()
    stream.thread.join(30)
    assert not shared.busy()
