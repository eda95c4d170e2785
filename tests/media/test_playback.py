"""Spliced files in a player that is not FFmpeg's command line: Chromium, picture by picture."""

from pathlib import Path

import numpy as np
import pytest

from tests import clips
from tests.browser import chromium, playing
from tests.clips import Clip
from tests.conftest import need
from tests.media.test_sink import B_FRAMES, convert

FRAMES, RATE, GOP = 60, 25, 10


@pytest.mark.real
@pytest.mark.parametrize("options", [{}, B_FRAMES], ids=["plain", "b_frames"])
def test_chromium_shows_every_picture_of_a_spliced_file(tmp_path: Path, options: dict[str, str]) -> None:
    need("Chromium", chromium() is not None)
    path = clips.make(
        tmp_path / "in.mp4", Clip(frames=FRAMES, gop=GOP, rate=RATE, options=options, audio="aac")
    )
    target = tmp_path / "out.mp4"
    convert(path, target, clean=frozenset({1, 2, 4}))
    start_s = clips.look(target).times_s[0]
    times_s = [start_s + (index + 0.5) / RATE for index in range(FRAMES)]
    with playing(target, times_s) as browser:
        shown = browser.wait_for(FRAMES, 120)
        with browser.changed:
            assert browser.changed.wait_for(lambda: browser.answer or browser.errors, 60), (
                "it did not play to its end"
            )
    assert not browser.errors
    assert browser.answer["width"] == 192
    assert browser.answer["duration"] == pytest.approx(FRAMES / RATE, abs=0.1)
    expected = np.stack([(luma.astype(float) - 16) * 255 / 219 for luma in clips.lumas(target)])
    for index, seen in enumerate(shown):
        apart = np.abs(expected - seen @ np.array([0.114, 0.587, 0.299])).mean(axis=(1, 2))
        assert apart.argmin() == index, f"picture {apart.argmin()} is shown for {index}"
        assert apart[index] < 4
