"""Files whose time does not begin at 0: what was seen and heard at once stays together, and nothing is lost."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.clips import look
from tests.media.test_sink import convert

FLASH = 20  # the picture that is white, with a beep
RATE = 25
SAMPLES = 48_000 // RATE


def clip(path: Path, *, picture_s: float = 0, sound_s: float = 0, b_frames: int = 0) -> Path:
    """60 pictures and their sound, a flash and a beep at once, each stream then moved by so many seconds."""
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        video = container.add_stream("libx264", rate=RATE, options={"bf": str(b_frames), "g": "10"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = container.add_stream("aac", rate=48_000, layout="mono")
        packets = []
        for index in range(60):
            shade = np.full((64, 96, 3), 230 if index == FLASH else 40, np.uint8)
            picture = av.VideoFrame.from_ndarray(shade, "rgb24")
            picture.pts, picture.time_base = index, Fraction(1, RATE)
            tone = np.sin(np.arange(SAMPLES) * 0.3) * (20_000 if index == FLASH else 0)
            sound = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], "s16", "mono")
            sound.sample_rate, sound.pts, sound.time_base = 48_000, index * SAMPLES, Fraction(1, 48_000)
            packets += [*video.encode(picture), *audio.encode(sound)]
        packets += [*video.encode(None), *audio.encode(None)]
        for packet in packets:
            moved = round(Fraction(picture_s if packet.stream is video else sound_s) / packet.time_base)
            packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def apart_s(path: Path) -> float:
    """How long after the flash the beep is heard."""
    flash = beep = None
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if flash is None and frame.to_ndarray(format="gray").mean() > 150:
                assert frame.pts is not None
                flash = float(frame.pts * frame.time_base)
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.15)
            if beep is None and len(loud):
                beep = float(frame.pts * frame.time_base) + loud[0] / frame.sample_rate
    assert flash is not None
    assert beep is not None
    return float(beep - flash)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(
    ("picture_s", "sound_s"), [(0, -0.72), (-0.72, 0), (-0.72, -0.72), (0.72, 0), (0, 0.72)]
)
def test_sound_and_picture_stay_together_when_one_begins_before_0(
    tmp_path: Path, picture_s: float, sound_s: float, b_frames: int, ending: str
) -> None:
    source = clip(tmp_path / "in.mkv", picture_s=picture_s, sound_s=sound_s, b_frames=b_frames)
    target = tmp_path / f"out.{ending}"
    convert(source, target)
    seen = look(target)
    assert np.diff(seen.times_s) == pytest.approx([1 / RATE] * 59, abs=0.0011)
    assert apart_s(target) == pytest.approx(apart_s(source), abs=0.002)
    assert seen.audio_s is not None
    assert seen.audio_s[1] - seen.audio_s[0] > 2.3, "sound was lost"


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(("picture_s", "sound_s"), [(0, 0), (0, -0.72), (-0.52, -0.52), (0.72, 0), (0, 0.72)])
def test_edit_lists_are_kept_to(
    tmp_path: Path, picture_s: float, sound_s: float, b_frames: int, ending: str
) -> None:
    """MP4 says by its edit lists what of a stream is shown, and when; what they hide stays hidden."""
    source = clip(tmp_path / "in.mp4", picture_s=picture_s, sound_s=sound_s, b_frames=b_frames)
    target = tmp_path / f"out.{ending}"
    convert(source, target)
    before, after = look(source), look(target)
    assert len(after.times_s) == len(before.times_s)
    assert apart_s(target) == pytest.approx(apart_s(source), abs=0.002)
    assert before.audio_s is not None
    assert after.audio_s is not None
    first, last = (np.subtract(sight.audio_s, sight.times_s[0]) for sight in (before, after))
    assert last == pytest.approx(first, abs=0.13), "sound that was hidden is back, or what was heard is not"
