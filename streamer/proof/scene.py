"""A scene whose secret is easy to tell, a checkerboard where the face is, and a judge who looks for it.

The proof of the live faults and the tests share it: it is drawn here, so that what leaks is nobody's picture.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from streamer import detection
from streamer.config import settings_from
from streamer.detection import Detections, Label
from streamer.device.cpu import CpuDevice
from streamer.errors import RedactionError
from streamer.frame import Frame, Size
from streamer.live.detecting import SharedDetector
from streamer.live.settings import StreamSettings
from streamer.live.stream import LiveStream, Studio
from streamer.media.egress import H264, Encoded
from streamer.zones import Zones

SIZE = Size(320, 192)
FACE = (128, 64, 192, 128)  # x0 y0 x1 y1
RATE = 50
TICK = Fraction(1, 90_000)

Kind = Literal["leak", "covered", "masked"]  # of a picture that left


def luma_with_face(size: Size = SIZE) -> NDArray[np.uint8]:
    """Flat grey with a lighter bar aside, and a black and white checkerboard of 8-pixel squares in the face's place."""
    luma = np.full((size.height, size.width), 110, np.uint8)
    luma[:, : size.width // 8] = 170
    x0, y0, x1, y1 = (round(side * size.width / SIZE.width) for side in FACE)
    rows, columns = np.mgrid[y0:y1, x0:x1]
    luma[y0:y1, x0:x1] = np.where((rows // 8 + columns // 8) % 2, 235, 16)
    return luma


def planes_with_face(size: Size = SIZE) -> NDArray[np.uint8]:
    """The scene as yuv420p in one array (3 H / 2, W), as PyAV takes it."""
    grey = np.full((size.height // 2, size.width), 128, np.uint8)
    return np.concatenate([luma_with_face(size), grey], dtype=np.uint8)


def luma_of(picture: av.VideoFrame) -> NDArray[np.uint8]:
    """The luma (H, W) of a decoded picture, copied."""
    return np.asarray(picture.to_ndarray(format="gray"), np.uint8)


def shows_face(luma: NDArray[np.uint8]) -> bool:
    """Whether squares of the checkerboard can be told apart anywhere in the picture."""
    small = luma[: luma.shape[0] // 8 * 8, : luma.shape[1] // 8 * 8]
    cells = small.reshape(small.shape[0] // 8, 8, small.shape[1] // 8, 8)[:, 2:6, :, 2:6].mean(axis=(1, 3))
    return bool(_alternating(cells) + _alternating(cells.T) >= 4)


def _alternating(cells: NDArray[np.float64]) -> int:
    """Cells that are much lighter than both neighbours of their row, or much darker: no edge of a mask is that."""
    steps = np.diff(cells, axis=1)
    before, after = steps[:, :-1], steps[:, 1:]
    return int(((before * after < 0) & (np.minimum(abs(before), abs(after)) > 60)).sum())


def kind_of(luma: NDArray[np.uint8], sees: Callable[[NDArray[np.uint8]], bool] = shows_face) -> Kind:
    """What a picture that left is: one that shows the face, one covered whole, or one masked as it should be."""
    if sees(luma):
        return "leak"
    return "covered" if int(luma.max()) - int(luma.min()) < 12 else "masked"


def frames(
    count: int | None = None,
    *,
    rate: float = RATE,
    size: Size = SIZE,
    start_s: float = 0.0,
    paced: bool = True,
) -> Iterator[Frame]:
    """A camera that shows the face, in real time."""
    luma = luma_with_face(size)
    chroma = np.full((size.height // 2, size.width // 2, 2), 128, np.uint8)
    begun = time.monotonic()
    index = 0
    while count is None or index < count:
        pts = round((start_s + index / rate) * 90_000)
        yield Frame(luma.copy(), chroma.copy(), size, index, pts, TICK)
        index += 1
        if paced:
            time.sleep(max(0.0, begun + index / rate - time.monotonic()))


class ScriptedDetector:
    """Finds the face where it is; `fault` is called before each run, with its number, and may raise or wait."""

    thresholds: dict[Label, float] = {Label.FACE: 0.3, Label.PLATE: 0.3}  # noqa: RUF012 - the protocol's field

    def __init__(self, fault: Callable[[int], None] = lambda run: None) -> None:
        self.runs = 0
        self._fault = fault

    def __call__(self, frame: Frame, *, share: float = 1.0) -> Detections:
        """The face's box, in a frame of any size."""
        self.runs += 1
        self._fault(self.runs)
        scale = frame.size.width / SIZE.width
        return detection.detections([[side * scale for side in FACE]], [0.9], [Label.FACE])


def studio(detector: ScriptedDetector | None = None) -> Studio:
    """What streams share, with a scripted detector and the product's default settings."""
    return Studio(
        settings_from({}), CpuDevice(), "in a test", SharedDetector(detector or ScriptedDetector()), Zones()
    )


@dataclass
class Judge:
    """An outlet that decodes every picture and looks for the face."""

    name: str = "judge"
    codecs: frozenset[str] = H264
    pictures: int = 0
    leaks: int = 0
    covered: int = 0  # all of one colour
    masked: int = 0
    pts: list[int] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    closed: bool = False
    masked_s: list[float] = field(default_factory=list)  # when
    sees: Callable[[NDArray[np.uint8]], bool] = shows_face  # what is a leak
    decoder: Any = field(default_factory=lambda: av.CodecContext.create("h264", "r"))

    def send(self, item: Encoded) -> None:
        """Decode the picture and look at it."""
        for picture in self.decoder.decode(av.Packet(bytes(item.packet))):
            kind = kind_of(luma_of(picture), self.sees)
            self.leaks += kind == "leak"
            self.covered += kind == "covered"
            self.masked += kind == "masked"
            if kind == "masked":
                self.masked_s.append(time.monotonic())
            self.sizes.add((picture.width, picture.height))
        self.pictures += 1
        self.pts.append(item.packet.pts or 0)
        self.at_s.append(time.monotonic())

    def close(self) -> None:
        """The stream is over."""
        self.closed = True

    def counters(self) -> dict[str, int | str]:
        """How many pictures were seen."""
        return {"pictures": self.pictures}

    @property
    def longest_silence_s(self) -> float:
        """The longest time without a picture."""
        return max(
            (after - before for before, after in zip(self.at_s, self.at_s[1:], strict=False)), default=0.0
        )

    def verdict(self) -> None:
        """What holds after every fault: nothing leaked, and time went forward. Raises RedactionError."""
        if self.leaks:
            raise RedactionError(f"{self.leaks} of {self.pictures} pictures show the face")
        if not self.pictures:
            raise RedactionError("no picture left")
        if not all(before < after for before, after in zip(self.pts, self.pts[1:], strict=False)):
            raise RedactionError("time went backward")


def cameras(connections: Sequence[Callable[[], Iterator[Frame]]]) -> Callable[[Size | None], Iterator[Frame]]:
    """A source whose n-th connection is the n-th of these; the last one repeats."""
    calls = iter(range(1_000_000))

    def connect(size: Size | None) -> Iterator[Frame]:
        return connections[min(next(calls), len(connections) - 1)]()

    return connect


def watched(
    connect: Callable[[Size | None], Iterator[Frame]],
    detector: ScriptedDetector | None = None,
    **settings: Any,
) -> tuple[LiveStream, Judge]:
    """A stream with a judge at its end, not yet started."""
    values = StreamSettings(
        source="rtsp://camera.invalid/", **{"late_ms": 150, "mask_age_ms": 1000, **settings}
    )
    stream = LiveStream("camera", values, studio(detector), connect=connect)
    judge = Judge()
    stream.add(judge)
    return stream, judge


def run_until(stream: LiveStream, done: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Run the stream until `done`, then stop it. Raises TimeoutError."""
    stream.start()
    until = time.monotonic() + timeout_s
    try:
        while not done():
            if time.monotonic() > until:
                raise TimeoutError(f"not done in {timeout_s} s: {stream.state} {dict(stream.tally.events)}")
            time.sleep(0.02)
    finally:
        stream.stop(wait_s=10)


def write_clip(
    path: Path, *, seconds: float = 4, rate: int = 25, size: Size = SIZE, format_name: str = "mpegts",
    codec: str = "libx264",
) -> Path:  # fmt: skip
    """The scene as a file of H.264, or of H.265 with `libx265`."""
    with av.open(str(path), "w", format=format_name) as container:
        options = {"preset": "ultrafast", "bf": "0", "g": str(rate), "crf": "18"}
        options |= {"x265-params": "log-level=none:bframes=0"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
        planes = planes_with_face(size)
        for index in range(round(seconds * rate)):
            picture = av.VideoFrame.from_ndarray(planes, "yuv420p")
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path
