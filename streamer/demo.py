"""`streamer demo`: a short clip made on the spot, anonymized with the shipped detector, with stills to look at.

The face is the photograph of astronaut Eileen Collins (NASA, public domain) that scikit-image ships; the car and
its plate are drawn.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from streamer import pipeline
from streamer.config import settings_from
from streamer.errors import ConfigError, OutputError, StreamerError
from streamer.pipeline import Engine, Job, Report

WIDTH, HEIGHT, RATE, SECONDS = 1280, 720, 25, 6
Picture = NDArray[Any]  # (h, w, 3) uint8 BGR


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Where the demo left its files, and what the run said."""

    before: Path
    after: Path
    stills: Path
    report: Report


def run(folder: Path, engine: Engine | None = None) -> DemoResult:
    """Make the clip, anonymize it, and write both with a before/after picture into `folder` (made if missing).

    Raises StreamerError, OutputError among them where the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _run(folder, engine)
    except (OSError, av.error.FFmpegError) as error:
        if isinstance(error, StreamerError):
            raise
        raise OutputError(f"the demo cannot be written ({error.strerror or error}): {folder}") from error


def _run(folder: Path, engine: Engine | None) -> DemoResult:
    before, after, stills = folder / "before.mp4", folder / "after.mp4", folder / "before_after.png"
    make_clip(before)
    report = pipeline.run(
        Job(before, after, overwrite=True), engine or pipeline.open_engine(settings_from({}))
    )
    write_stills(before, after, stills)
    return DemoResult(before, after, stills, report)


def make_clip(path: Path) -> None:
    """A street-like scene of six seconds in which a photographed face and a car with a drawn plate move."""
    person, car = portrait(), drawn_car("B 2417 KX")
    background = _background()
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "veryfast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(RATE * SECONDS):
            picture = av.VideoFrame.from_ndarray(
                scene(background, person, car, index / (RATE * SECONDS)), "bgr24"
            )
            picture.pts, picture.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def scene(background: Picture, person: Picture, car: Picture, at: float) -> Picture:
    """The picture at the share `at` (0 to 1) of the clip."""
    picture = background.copy()
    scale = 0.75 + 0.35 * at
    _place(picture, cv2.resize(car, None, fx=scale, fy=scale), 60 + 380 * at, 330 - 20 * at)
    tilt = 14 * np.sin(at * 12)
    _place(picture, person, 1180 - 620 * at, 60 + tilt)
    return picture


def portrait() -> Picture:
    """Head and shoulders of the astronaut's photograph, BGR. Raises ConfigError without scikit-image."""
    try:
        from skimage import data
    except ImportError as error:
        raise ConfigError('the demo needs scikit-image: pip install "streamer-anonymizer[demo]"') from error
    picture = np.asarray(data.astronaut())  # type: ignore[no-untyped-call]
    picture = picture[0:300, 90:370, ::-1]
    return cv2.resize(np.ascontiguousarray(picture), None, fx=1.5, fy=1.5)


def drawn_car(number: str) -> Picture:
    """The back of a car with a number plate, BGR."""
    car = np.full((300, 460, 3), (58, 46, 120), np.uint8)
    cv2.rectangle(car, (40, 14), (420, 120), (70, 60, 52), -1)
    cv2.rectangle(car, (52, 24), (408, 112), (150, 138, 120), -1)
    for x in (18, 370):
        cv2.rectangle(car, (x, 136), (x + 72, 176), (40, 40, 205), -1)
    cv2.rectangle(car, (0, 244), (460, 300), (38, 34, 34), -1)
    plate = drawn_plate(number)
    height, width = plate.shape[:2]
    car[176 : 176 + height, 230 - width // 2 : 230 - width // 2 + width] = plate
    return car


def drawn_plate(number: str) -> Picture:
    """A white plate with black letters and a blue strip, 200 x 46 pixels, BGR."""
    plate = np.full((92, 400, 3), 236, np.uint8)
    cv2.rectangle(plate, (0, 0), (399, 91), (20, 20, 20), 4)
    cv2.rectangle(plate, (4, 4), (38, 87), (150, 60, 10), -1)
    cv2.putText(plate, number, (50, 70), cv2.FONT_HERSHEY_DUPLEX, 1.95, (22, 20, 20), 5, cv2.LINE_AA)
    return cv2.resize(plate, (200, 46), interpolation=cv2.INTER_AREA)


def write_stills(before: Path, after: Path, target: Path, at: float = 0.55) -> None:
    """One picture of both clips side by side, at the share `at` of their length."""
    pair = [_frame_at(path, at) for path in (before, after)]
    both = np.concatenate(
        [cv2.resize(picture, (800, 450), interpolation=cv2.INTER_AREA) for picture in pair], axis=1
    )
    target.write_bytes(cv2.imencode(".png", both)[1].tobytes())  # OpenCV crashes over some names


def _frame_at(path: Path, at: float) -> Picture:
    with av.open(f"file:{path}") as container:
        wanted = int(RATE * SECONDS * at)
        for index, picture in enumerate(container.decode(video=0)):
            if index == wanted:
                return picture.to_ndarray(format="bgr24")
    raise ValueError(f"the clip has no picture {wanted}")


def _background() -> Picture:
    rows = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    wall = np.array([178, 186, 190], np.float32) * (1 - rows) + np.array([120, 128, 132], np.float32) * rows
    picture = np.broadcast_to(wall, (HEIGHT, WIDTH, 3)).astype(np.uint8, order="C")
    picture[520:] = (92, 90, 88)
    for x in range(0, WIDTH, 160):
        cv2.rectangle(picture, (x, 60), (x + 96, 220), (140, 120, 96), -1)
    noise = np.random.default_rng(7).integers(-6, 7, picture.shape, np.int16)
    return np.asarray(np.clip(picture.astype(np.int16) + noise, 0, 255), np.uint8)


def _place(picture: Picture, part: Picture, left: float, top: float) -> None:
    x, y = int(left), int(top)
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(WIDTH, x + part.shape[1]), min(HEIGHT, y + part.shape[0])
    if x1 > x0 and y1 > y0:
        picture[y0:y1, x0:x1] = part[y0 - y : y1 - y, x0 - x : x1 - x]
