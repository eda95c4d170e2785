"""Files as if live: every picture in the order in which it is shown, at the pace at which it is shown."""

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.frame import Frame
from streamer.media.live_source import LiveSource
from streamer.media.live_spec import LiveSpec
from streamer.media.pacing import Pace
from streamer.tally import Tally
from tests.clips import Clip, make


def fast_clock() -> Clock:
    """One on which waiting takes no time."""
    at_s = [0.0]
    return Clock(lambda: at_s[0], lambda seconds: at_s.__setitem__(0, at_s[0] + seconds))


def brighter(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """A picture that tells its number by its brightness."""
    return np.full((height, width, 3), 20 + 6 * index, np.uint8)


def played(path: Path, *, loop: bool = False, most: int = 100) -> tuple[list[Frame], list[float]]:
    """The pictures of a file as if live, and when each of them came."""
    clock = fast_clock()
    frames: list[Frame] = []
    came_s: list[float] = []
    with LiveSource(LiveSpec(str(path), loop=loop), tally=Tally(), clock=clock) as source:
        for frame in source:
            assert isinstance(frame, Frame)
            frames.append(frame)
            came_s.append(clock.now())
            if len(frames) == most:
                break
    return frames, came_s


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("x264.avi", "libx264"), ("mpeg4.avi", "mpeg4"), ("mpeg2.ts", "mpeg2video"), ("mpeg4.ts", "mpeg4"),
        ("x264.ts", "libx264"), ("raw.h264", "libx264"),
    ],
)  # fmt: skip
def test_pictures_come_in_the_order_in_which_they_are_shown(name: str, codec: str, tmp_path: Path) -> None:
    """AVI and bare H.264 tell no times of display, and MPEG decoders that hold nothing back keep no order."""
    options = {"bf": "2", "b-adapt": "0"} if codec == "libx264" else {"bf": "2", "b": "4M", "qmax": "3"}
    path = make(tmp_path / name, Clip(frames=30, codec=codec, gop=15, options=options, draw=brighter))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.reorder_depth > 0
    frames, came_s = played(path)
    means = [float(np.asarray(frame.luma).mean()) for frame in frames]
    assert len(frames) == 30
    assert min(after - before for before, after in pairwise(means)) > 2
    assert np.diff([frame.time_s for frame in frames]) == pytest.approx(1 / 25, abs=0.002)
    assert came_s[-1] - came_s[0] == pytest.approx(29 / 25, abs=0.01)


@pytest.mark.parametrize("shift_s", [0, 72_000])
def test_a_recording_glued_to_another_is_played_at_its_own_pace(shift_s: int, tmp_path: Path) -> None:
    """Neither at once, as all of it is overdue, nor after waiting for what its clock says."""
    first = make(tmp_path / "first.ts", Clip(frames=25))
    pts = [1000 * shift_s + 40 * index for index in range(25)] if shift_s else None
    second = make(tmp_path / "second.ts", Clip(frames=25, pts=pts))
    glued = tmp_path / "glued.ts"
    glued.write_bytes(first.read_bytes() + second.read_bytes())
    frames, came_s = played(glued)
    assert len(frames) == 50
    assert np.diff([frame.time_s for frame in frames]) == pytest.approx(1 / 25, abs=0.002)
    assert came_s[-1] - came_s[0] == pytest.approx(49 / 25, abs=0.01)


def test_a_loop_goes_on_by_one_usual_step(tmp_path: Path) -> None:
    frames, came_s = played(make(tmp_path / "short.mp4", Clip(frames=5)), loop=True, most=20)
    assert np.diff([frame.time_s for frame in frames]) == pytest.approx(1 / 25, abs=0.002)
    assert came_s[-1] - came_s[0] == pytest.approx(19 / 25, abs=0.01)


def test_a_pause_is_kept_and_a_leap_is_not() -> None:
    clock = fast_clock()
    pace = Pace(clock, step=3_600)
    assert [pace.wait_for(pts) for pts in (7_000, 10_600, 460_600, 5_000_000, 5_003_600, 100)] == [
        0, 3_600, 453_600, 457_200, 460_800, 464_400,
    ]  # fmt: skip
    assert clock.now() == pytest.approx(464_400 / 90_000)
    assert pace.shift == 464_300
