"""Whole files through the product, with a detector that finds a red square: no picture that leaves may show it."""

import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from streamer import detection, pipeline
from streamer.anonymizer import Means
from streamer.config import settings_from
from streamer.detection import Detections, Label
from streamer.device.cpu import CpuDevice
from streamer.errors import DeviceError
from streamer.frame import Frame
from streamer.media import nal
from streamer.pipeline import Engine, Job, Report
from streamer.zones import Zones
from tests import clips
from tests.clips import Clip
from tests.fakes import THRESHOLDS

QUICK = {"bf": "0", "preset": "veryfast"}
OTHER_SETS = {"bf": "2", "preset": "slow", "ref": "5", "x264-params": "cabac=0"}


def red_square(frame: Frame) -> Detections:
    rows, columns = np.nonzero(np.asarray(frame.chroma)[:, :, 1] > 190)
    if len(rows) < 12:
        return detection.none()
    box = (2.0 * columns.min(), 2.0 * rows.min(), 2.0 * columns.max() + 2, 2.0 * rows.max() + 2)
    return detection.detections([box], [0.9], [Label.FACE])


class SquareEngine(Engine):
    def means(self) -> Means:
        return Means(red_square, THRESHOLDS, self.device, self.settings, self.zones)


class Spec:
    name, sha256 = "red square", ""


def run(source: Path, target: Path, **output: object) -> Report:
    values = {
        "mask": {"style": "solid"},
        "detect": {"every": 1},
        "track": {"look_ahead_s": 0.2, "hold_s": 0.2},
        "output": output,
    }
    return pipeline.run(
        Job(source, target),
        SquareEngine(settings_from(values), CpuDevice(), "test", Spec(), Zones()),  # type: ignore[arg-type]
    )


def square(shown: Callable[[int], bool]) -> clips.Draw:
    def draw(index: int, width: int, height: int) -> NDArray[np.uint8]:
        picture = clips.texture(index, width, height) // 3 + 40
        if shown(index):
            side = height // 3
            picture[side : 2 * side, side : 2 * side] = (255, 0, 0)
        return picture

    return draw


def shows_square(path: Path) -> list[int]:
    """The pictures of a file in which the square can be seen."""
    seen = []
    with av.open(str(path)) as container:
        for index, picture in enumerate(container.decode(video=0)):
            red, green, blue = np.moveaxis(picture.to_ndarray(format="rgb24").astype(int), 2, 0)
            if ((red > 170) & (green < 90) & (blue < 90)).sum() > 8:
                seen.append(index)
    return seen


def copied(report: Report) -> int:
    return int(report.as_dict()["frames"]["copied_without_encoding"])


IN_ONE_GROUP = square(lambda index: 13 <= index < 15)


@pytest.mark.parametrize(
    ("ending", "codec"), [("mkv", "hevc"), ("webm", "vp9"), ("mp4", "av1"), ("flv", "h264"), ("mp4", "h264")]
)
def test_clean_groups_are_encoded_where_the_output_takes_no_packets(
    tmp_path: Path, ending: str, codec: str
) -> None:
    path = clips.make(tmp_path / "in.mp4", Clip(frames=40, draw=IN_ONE_GROUP))
    target = tmp_path / f"out.{ending}"
    report = run(path, target, codec=codec)
    assert (copied(report) > 0) == ((ending, codec) == ("mp4", "h264"))
    assert len(clips.look(target).times_s) == 40
    assert shows_square(path) == [13, 14]
    assert shows_square(target) == []


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_clean_groups_of_hevc_are_copied_and_the_others_masked(tmp_path: Path, ending: str) -> None:
    params = {"x265-params": "log-level=error:keyint=10:min-keyint=10:scenecut=0:open-gop=0:bframes=3"}
    path = clips.make(
        tmp_path / "in.mp4", Clip(frames=40, codec="libx265", options=params, draw=IN_ONE_GROUP)
    )
    target = tmp_path / f"out.{ending}"
    report = run(path, target, codec="hevc")
    assert 0 < copied(report) < 40
    assert len(clips.look(target).times_s) == 40
    assert shows_square(path) == [13, 14]
    assert shows_square(target) == []
    other = run(path, tmp_path / "other.mp4")
    assert copied(other) == 0
    assert "--codec hevc could copy" in str(other.as_dict())
    assert shows_square(tmp_path / "other.mp4") == []


def joined(path: Path, first: Path, second: Path) -> Path:
    """The second file's pictures after the first's, under the first's header: the sets of the second stand before
    its first picture alone."""
    with av.open(str(first)) as one, av.open(str(second)) as two, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(one.streams.video[0])
        shift, sets = 0, nal.parameter_sets(bytes(two.streams.video[0].codec_context.extradata or b""))
        for source in (one, two):
            packets = [packet for packet in source.demux(video=0) if packet.size]
            for packet in packets:
                units = nal.pictures(nal.from_lengths(bytes(packet), 4))
                if source is two and packet is packets[0]:
                    units = [*sets, *units]
                moved = av.Packet(b"".join(len(unit).to_bytes(4, "big") + unit for unit in units))
                moved.pts, moved.dts = packet.pts + shift, packet.dts + shift
                moved.time_base, moved.duration = packet.time_base, packet.duration
                moved.is_keyframe, moved.stream = packet.is_keyframe, stream
                container.mux(moved)
            shift += max(packet.pts for packet in packets) + 3 * packets[0].duration
    return path


def test_groups_are_not_copied_while_other_parameter_sets_are_in_force(tmp_path: Path) -> None:
    parts = [
        clips.make(tmp_path / f"{index}.mp4", Clip(frames=30, options=options, draw=IN_ONE_GROUP))
        for index, options in enumerate((QUICK, OTHER_SETS))
    ]
    path, target = joined(tmp_path / "in.mkv", *parts), tmp_path / "out.mkv"
    report = run(path, target)
    assert copied(report) <= 20
    assert len(clips.look(target).times_s) == 60
    assert shows_square(target) == []
    for index, (old, new) in enumerate(zip(clips.lumas(path), clips.lumas(target), strict=True)):
        if not {index % 30} & set(range(7, 23)):
            assert np.abs(old.astype(int) - new.astype(int)).mean() < 6, f"picture {index} fell apart"


def test_recordings_glued_together_keep_their_sound(tmp_path: Path) -> None:
    part = clips.make(tmp_path / "part.ts", Clip(frames=40, audio="aac", draw=IN_ONE_GROUP))
    path, target = tmp_path / "glued.ts", tmp_path / "out.mp4"
    path.write_bytes(2 * part.read_bytes())
    report = run(path, target)
    seen = clips.look(target)
    assert np.diff(seen.times_s) == pytest.approx([0.04] * 79, abs=0.001)
    assert seen.audio_s is not None
    assert seen.audio_s[1] == pytest.approx(seen.times_s[-1], abs=0.1)
    assert shows_square(target) == []
    assert any("begins again" in note for note in report.as_dict()["notes"])


@pytest.mark.parametrize("thread", ["decode", "anonymize"])
def test_without_a_thread_to_be_had_there_is_one_line_and_no_file(
    thread: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clips.make(tmp_path / "in.mp4", Clip(frames=5))
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name == thread:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(DeviceError, match=rf"no further thread.*{thread}"):
        run(source, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
