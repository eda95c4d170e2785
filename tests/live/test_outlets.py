"""Recordings, HLS and pushes: whole, playable, and out of everybody's way."""

import io
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from streamer.errors import ConfigError, OutputError
from streamer.frame import Frame, FrameResult, Redacted, Size
from streamer.live.status import Journal, outlet_problems, status
from streamer.media import egress
from streamer.media import hls as hls_module
from streamer.media import push as pushing
from streamer.media import record as recording
from streamer.media.egress import Encoded
from streamer.media.hls import Hls
from streamer.media.live_encoder import EncoderSpec, LiveEncoder
from streamer.media.push import Push, check_push
from streamer.media.record import Recorder, recover
from streamer.media.remux import Remuxer
from streamer.proof.scene import (
    SIZE,
    TICK,
    cameras,
    frames,
    luma_with_face,
    run_until,
    shows_face,
    watched,
    write_clip,
)
from tests import rtsp
from tests.conftest import need

ROOT = Path(__file__).resolve().parents[2]


def nothing() -> None:
    """Nobody wants a key picture."""


def pictures(path: Path | io.BytesIO, format_name: str | None = None) -> tuple[int, int, list[float]]:
    """Pictures in a file, how many show the face, and their times."""
    count = leaks = 0
    times = []
    with av.open(path if isinstance(path, io.BytesIO) else str(path), format=format_name) as container:
        for picture in container.decode(video=0):
            count += 1
            leaks += shows_face(picture.to_ndarray(format="gray"))
            times.append(picture.time or 0.0)
    return count, leaks, times


def test_recordings_follow_each_other_without_a_lost_picture(tmp_path: Path) -> None:
    stream, judge = watched(cameras([lambda: frames(rate=25)]), segment_s=2)
    recorder = Recorder(tmp_path, "camera", segment_s=2, want_key=stream.want_key)
    stream.add(recorder)
    run_until(stream, lambda: judge.pictures > 125)
    files = sorted(tmp_path.iterdir())
    assert len(files) >= 3
    assert all(file.suffix == ".mp4" for file in files)
    counts = [pictures(file) for file in files]
    assert sum(count for count, _, _ in counts) == judge.pictures
    assert sum(leaks for _, leaks, _ in counts) == 0
    assert all(times[0] == 0 for _, _, times in counts)
    assert recorder.counters()["dropped"] == 0


def test_what_a_crash_leaves_is_playable_and_recovered(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from streamer.proof.scene import *\n"
        "from streamer.media.record import Recorder\n"
        "stream, judge = watched(cameras([lambda: frames(rate=25)]))\n"
        "stream.add(Recorder(Path(sys.argv[1]), 'camera', segment_s=600, want_key=stream.want_key))\n"
        "stream.start()\n"
        "while judge.pictures < 125: time.sleep(0.02)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(root)], cwd=root, timeout=60, check=False
    )
    left = list(tmp_path.iterdir())
    assert [file.suffix for file in left] == [".part"]
    assert recover(tmp_path, "camera") == 1
    (whole,) = tmp_path.iterdir()
    count, leaks, _ = pictures(whole)
    assert whole.suffix == ".mp4"
    assert count >= 90  # all but the fragment that was being written
    assert leaks == 0


def test_what_another_stream_is_writing_is_not_recovered(tmp_path: Path) -> None:
    running = tmp_path / "camera-2-20260101-120000-000.mp4.part"
    running.write_bytes(b"being written")
    assert recover(tmp_path, "camera") == 0
    assert running.exists()


def test_two_processes_may_record_under_one_name(tmp_path: Path) -> None:
    """The second one's start is no crash of the first: it leaves alone what that is writing."""
    other = (
        "import sys\n"
        "from pathlib import Path\n"
        "from streamer.media.record import Recorder\n"
        "from streamer.proof.scene import cameras, frames, run_until, watched\n"
        "stream, judge = watched(cameras([lambda: frames(rate=25)]))\n"
        "recorder = Recorder(Path(sys.argv[1]), 'camera', want_key=stream.want_key)\n"
        "stream.add(recorder)\n"
        "run_until(stream, lambda: judge.pictures > 30)\n"
        "print(recorder.recovered, recorder.counters()['written'])\n"
    )
    stream, judge = watched(cameras([lambda: frames(rate=25)]))
    recorder = Recorder(tmp_path, "camera", want_key=stream.want_key)
    stream.add(recorder)
    begun: list[subprocess.Popen[str]] = []

    def both_recorded() -> bool:
        if judge.pictures > 5 and not begun:
            command = [sys.executable, "-c", other, str(tmp_path)]
            begun.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        return bool(begun) and begun[0].poll() is not None and judge.pictures > 30

    run_until(stream, both_recorded, 60)
    recovered, written = map(int, begun[0].communicate()[0].split())
    assert recovered == 0
    counts = sorted(pictures(file)[0] for file in tmp_path.iterdir())
    assert counts == sorted([judge.pictures, written])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("anything else")])
def test_a_disk_that_fills_up_costs_the_recording_alone(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_RETRY_S", 0.3)
    write, left = recording.Remuxer.write, iter(range(60))

    def fails_for_a_while(self: recording.Remuxer, item: Encoded) -> None:
        if next(left, 100) in range(20, 23):
            raise error
        write(self, item)

    monkeypatch.setattr(recording.Remuxer, "write", fails_for_a_while)
    stream, judge = watched(cameras([frames]))
    recorder = Recorder(tmp_path, "camera", want_key=stream.want_key)
    stream.add(recorder)
    run_until(stream, lambda: judge.pictures > 200)
    judge.verdict()
    assert judge.longest_silence_s < 0.6
    counters = recorder.counters()
    assert counters["failures"] == 3
    assert int(counters["dropped"]) > 0
    assert int(counters["files"]) >= 1
    assert not list(tmp_path.glob("*.part"))
    assert all(pictures(file)[1] == 0 for file in tmp_path.glob("*.mp4"))


@pytest.mark.parametrize("parent", [False, True])
def test_a_folder_that_is_deleted_is_made_again(
    parent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its recording is lost, whose file has no name any more; the next one begins at the next key picture."""
    monkeypatch.setattr("streamer.media.live_encoder.KEY_EVERY_S", 0.3)
    folder = tmp_path / "recordings" / "front"
    stream, judge = watched(cameras([frames]))
    recorder = Recorder(folder, "camera", segment_s=600, want_key=stream.want_key)
    stream.add(recorder)
    deleted: list[int] = []
    problems: set[object] = set()

    def recorded_again() -> bool:
        problems.add(recorder.counters().get("problem"))
        if judge.pictures > 40 and not deleted:
            deleted.append(judge.pictures)
            shutil.rmtree(folder.parent if parent else folder)
        return bool(deleted) and judge.pictures > deleted[0] + 80

    run_until(stream, recorded_again)
    judge.verdict()
    (file,) = folder.iterdir()
    count, leaks, _ = pictures(file)
    assert leaks == 0
    assert count >= judge.pictures - deleted[0] - 30
    assert problems == {None, "a recording was deleted while it was written"}
    assert recorder.counters()["failures"] == recorder.counters()["files"] == 1


def test_a_folder_that_is_deleted_between_recordings_is_made_again(tmp_path: Path) -> None:
    stream, judge = watched(cameras([lambda: frames(rate=25)]), segment_s=2)
    recorder = Recorder(tmp_path / "front", "camera", segment_s=2, want_key=stream.want_key)
    shutil.rmtree(tmp_path / "front")
    stream.add(recorder)
    run_until(stream, lambda: judge.pictures > 20)
    assert recorder.counters()["files"] == len(list((tmp_path / "front").glob("*.mp4"))) == 1


def test_a_real_limit_on_file_size_does_not_stop_the_stream(tmp_path: Path) -> None:
    program = (
        "import resource, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "from streamer.proof.scene import *\n"
        "from streamer.media.record import Recorder\n"
        "stream, judge = watched(cameras([lambda: frames(rate=25)]))\n"
        "recorder = Recorder(Path(sys.argv[1]), 'camera', segment_s=600, want_key=stream.want_key)\n"
        "stream.add(recorder)\n"
        "run_until(stream, lambda: judge.pictures > 150)\n"
        "judge.verdict()\n"
        "assert recorder.counters()['failures'] >= 1, recorder.counters()\n"
        "assert judge.longest_silence_s < 1\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(ROOT)]
    done = subprocess.run(command, cwd=ROOT, timeout=60, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_cannot_be_made_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="recordings cannot be written"):
        Recorder(tmp_path / "file" / "folder", "camera", want_key=nothing)


def test_hls_segments_play_one_after_the_other() -> None:
    stream, judge = watched(cameras([lambda: frames(rate=25)]))
    hls = Hls()
    assert hls.playlist() is None
    stream.add(hls)
    run_until(stream, lambda: judge.pictures > 160)
    playlist = hls.playlist()
    assert playlist is not None
    assert "#EXT-X-ENDLIST" in playlist
    numbers = [int(line[7:-3]) for line in playlist.splitlines() if line.startswith("segment")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    total, last_s = 0, -1.0
    for number in numbers:
        data = hls.segment(number)
        assert data is not None
        count, leaks, times = pictures(io.BytesIO(data), "mpegts")
        assert leaks == 0
        assert times[0] > last_s
        last_s = times[-1]
        total += count
    assert total == judge.pictures
    assert hls.segment(999) is None


def test_hls_keeps_a_window_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamer.media import hls as module

    monkeypatch.setattr(module, "KEY_EVERY_S", 0.0)
    stream, judge = watched(cameras([frames]))
    monkeypatch.setattr("streamer.media.live_encoder.KEY_EVERY_S", 0.1)
    hls = Hls()
    stream.add(hls)
    run_until(stream, lambda: judge.pictures > 150)
    playlist = hls.playlist()
    assert playlist is not None
    assert playlist.count(".ts") == 6
    first = int(playlist.partition("#EXT-X-MEDIA-SEQUENCE:")[2].partition("\n")[0])
    assert first + 6 == hls._number


def test_hls_that_begins_anew_counts_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Players wait for the segment after the last one that they have seen, and caches know segments by their names."""
    now_s = 1_800_000_000.0
    monkeypatch.setattr(hls_module.time, "time", lambda: now_s)
    before = Hls()
    stream, _ = watched(cameras([frames]))
    stream.add(before)
    run_until(stream, lambda: before.counters()["segments"] == 2)
    now_s += 2 * 2.0 + 1
    assert Hls()._number > before._number


def group(number: int, size: Size = SIZE) -> Iterator[Encoded]:
    """Pictures of 2 s, by an encoder of their own."""
    encoder = LiveEncoder(EncoderSpec(size, 5))
    for index in range(10 * number, 10 * number + 10):
        luma, chroma = luma_with_face(size), np.full((size.height // 2, size.width // 2, 2), 128, np.uint8)
        frame = Frame(luma, chroma, size, index, 18_000 * index, TICK)
        result = FrameResult(index, frame.pts, index / 5, size.width, size.height)
        yield from encoder.encode(Redacted(frame, result), frame.pts)


def test_hls_tells_where_it_does_not_go_on_and_counts_what_has_left_the_playlist() -> None:
    """RFC 8216, 6.2.2: a segment keeps its number, and the number of its time line."""
    sound = [False]
    hls = Hls(has_sound=lambda: sound[0])
    time_lines: dict[str, int] = {}
    targets = set()
    for number in range(16):
        if number == 5:
            hls._remuxer, hls._lost = None, True  # as `send` does when it fails
        sound[0] = number in (3, 4, 5, 6, 7, 8, 9)
        for item in group(number, Size(160, 96) if number == 8 else SIZE):
            hls.send(item)
        playlist = hls.playlist()
        if playlist is None:
            continue
        tags = dict(
            line.split(":") for line in playlist.splitlines() if line.startswith("#EXT-X-") and ":" in line
        )
        targets.add(tags["#EXT-X-TARGETDURATION"])
        place = int(tags["#EXT-X-DISCONTINUITY-SEQUENCE"])
        for line in playlist.splitlines():
            place += line == "#EXT-X-DISCONTINUITY"
            if line.startswith("segment"):
                assert time_lines.setdefault(line, place) == place
    first = time_lines[f"segment{hls._first}.ts"]
    # sound begins with 3; 4 is lost; 8 is of another size; sound ends with 10
    assert [place - first for place in time_lines.values()] == [0, 0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 5, 5, 5]
    assert targets == {"3"}


@pytest.mark.parametrize("sound", [False, True])
def test_segments_that_are_read_one_behind_the_other_are_undamaged(sound: bool) -> None:
    """As ffmpeg does, which takes a counter that begins anew for loss."""
    hls = Hls(has_sound=lambda: sound)
    for number in range(4):
        for item in group(number):
            hls.send(item)
    data = b"".join(segment.data for segment in hls._segments)
    with av.open(io.BytesIO(data), format="mpegts") as container:
        corrupt = [packet.is_corrupt for packet in container.demux(video=0) if packet.size]
    assert len(corrupt) == 30
    assert not any(corrupt)


def test_hls_that_begins_anew_is_another_time_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time starts at 0 again: a player that keeps the old one waits for it for hours."""
    now_s = 1_800_000_000.0
    monkeypatch.setattr(hls_module.time, "time", lambda: now_s)
    numbers = []
    for _ in range(2):
        hls = Hls()
        for number in range(3):
            for item in group(number):
                hls.send(item)
        playlist = hls.playlist() or ""
        numbers.append(int(playlist.partition("#EXT-X-DISCONTINUITY-SEQUENCE:")[2].partition("\n")[0]))
        now_s += 7
    assert numbers[0] < numbers[1]


@pytest.mark.real
def test_rtsp_publish_to_a_real_server_that_dies_and_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("GStreamer's RTSP server", rtsp.available())
    monkeypatch.setattr(pushing, "_DELAYS_S", (0.3,))
    clip = write_clip(tmp_path / "clip.ts", seconds=1)
    port = rtsp.free_port()
    stream, judge = watched(cameras([lambda: frames(rate=25)]))
    url = f"rtsp://127.0.0.1:{port}/publish"
    push = Push(url, want_key=stream.want_key)
    stream.add(push)
    stream.start()
    recorded = [tmp_path / "first.ts", tmp_path / "second.ts"]
    try:
        for path in recorded:
            with rtsp.serving(clip, port, recorded=path):
                before = int(push.counters()["sent"])
                _wait(lambda before=before: int(push.counters()["sent"]) > before + 75)  # type: ignore[misc]
                time.sleep(0.5)
    finally:
        stream.stop(wait_s=10)
    judge.verdict()
    assert judge.longest_silence_s < 0.6
    assert int(push.counters()["connects"]) >= 2
    for path in recorded:
        count, leaks, _ = pictures(path, "mpegts")
        assert count > 40
        assert leaks == 0


def test_mpeg_ts_push_reaches_an_independent_reader(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    port = rtsp.free_port()
    taken = tmp_path / "taken.ts"
    reader = subprocess.Popen(
        [
            imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", f"tcp://127.0.0.1:{port}?listen=1",
            "-frames:v", "60", "-c", "copy", "-y", str(taken),
        ]
    )  # fmt: skip
    time.sleep(0.7)
    stream, judge = watched(cameras([lambda: frames(rate=25)]))
    stream.add(Push(f"tcp://127.0.0.1:{port}", want_key=stream.want_key))
    try:
        run_until(stream, lambda: reader.poll() is not None, 30)
    finally:
        reader.kill()
        reader.wait(5)
    judge.verdict()
    count, leaks, _ = pictures(taken)
    assert count > 40
    assert leaks == 0


def test_rtmp_publish_reaches_an_independent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setattr(pushing, "_DELAYS_S", (0.3,))
    url, taken = f"rtmp://127.0.0.1:{rtsp.free_port()}/live/hunter22", tmp_path / "taken.ts"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-listen", "1", "-i", url]
    server = subprocess.Popen([*command, "-frames:v", "60", "-c", "copy", "-y", str(taken)])
    stream, judge = watched(cameras([lambda: frames(rate=25)]))
    push = Push(url, want_key=stream.want_key)
    stream.add(push)
    try:
        run_until(stream, lambda: server.poll() is not None, 40)
    finally:
        server.kill()
        server.wait(5)
    judge.verdict()
    count, leaks, _ = pictures(taken)
    assert count > 40
    assert leaks == 0
    assert "hunter22" not in f"{push.name} {push.counters()}"


def test_a_dead_target_slows_nobody_and_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "_DELAYS_S", (0.2,))
    stream, judge = watched(cameras([frames]))
    push = Push("rtsp://me:hunter22@127.0.0.1:9/x", want_key=stream.want_key)
    stream.add(push)
    run_until(stream, lambda: int(push.counters()["failures"]) > 2)
    judge.verdict()
    assert judge.longest_silence_s < 0.5
    assert "hunter22" not in f"{push.name} {push.counters()}"


def test_a_target_that_is_not_reached_is_logged_once_and_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pushing, "_DELAYS_S", (0.2,))
    url = "rtsp://me:hunter22@127.0.0.1:9/x"
    stream, _ = watched(cameras([frames]), push=(url,))
    push = Push(url, want_key=stream.want_key)
    stream.add(push)
    stream.egress.failed["hls"] = f"OSError: {url}"
    journal, entries, problems = Journal(), [], set()

    def tried() -> bool:
        entries.extend(journal.entries([stream], now_s=time.monotonic()))
        problems.update(outlet_problems(status(stream, now_s=time.monotonic())))
        return int(push.counters()["failures"]) > 2

    run_until(stream, tried)
    told = [entry for entry in entries if entry["event"] == "outlet"]
    assert [(entry["outlet"], entry["state"]) for entry in told if entry["outlet"] == "hls"] == [
        ("hls", "failed")
    ]
    assert [entry["problem"] for entry in told if entry["outlet"] == push.name] == ["Connection refused"]
    assert "hunter22" not in str(entries)
    assert f"{push.name}: Connection refused" in problems


def test_a_push_whose_try_dies_of_anything_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pushing, "_DELAYS_S", (0.1,))
    monkeypatch.setattr(Push, "_talk", dies)
    stream, judge = watched(cameras([frames]))
    push = Push("tcp://127.0.0.1:9", want_key=stream.want_key)
    stream.add(push)
    run_until(stream, lambda: int(push.counters()["failures"]) > 2)
    judge.verdict()
    assert push.counters()["problem"] == "can't start new thread"


def test_hls_goes_on_after_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = Remuxer.write, iter(range(1000))

    def fails_once(self: Remuxer, item: av.Packet) -> None:
        if next(left) == 70:
            raise av.error.MemoryError(12, "Cannot allocate memory")
        write(self, item)

    monkeypatch.setattr(egress, "_AGAIN_S", (0.2,))
    monkeypatch.setattr("streamer.media.live_encoder.KEY_EVERY_S", 0.3)
    monkeypatch.setattr(hls_module, "KEY_EVERY_S", 0.3)
    monkeypatch.setattr(Remuxer, "write", fails_once)
    stream, judge = watched(cameras([frames]))
    hls, states = Hls(), set()
    stream.add(hls)

    def plays_on() -> bool:
        (entry,) = (one for one in status(stream, now_s=0)["outlets"] if one["name"] == "hls")
        states.add((entry.get("state"), "segments" in entry))
        return "#EXT-X-DISCONTINUITY\n" in (hls.playlist() or "")

    run_until(stream, plays_on)
    judge.verdict()
    assert judge.longest_silence_s < 0.6
    assert states == {(None, True), ("failed", True)}
    numbers = [int(line[7:-3]) for line in (hls.playlist() or "").splitlines() if line.startswith("segment")]
    for number in numbers:
        count, leaks, _ = pictures(io.BytesIO(hls.segment(number) or b""), "mpegts")
        assert count > 0
        assert leaks == 0


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp"])
def test_a_target_that_accepts_and_never_answers_stops_no_thread(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "_TIMEOUT_S", 1.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream, judge = watched(cameras([frames]))
        url = f"{scheme}://me:hunter22@127.0.0.1:{listener.getsockname()[1]}/live/key"
        push = Push(url, want_key=stream.want_key)
        stream.add(push)
        run_until(stream, lambda: int(push.counters()["failures"]) >= 1)
    judge.verdict()
    assert judge.longest_silence_s < 0.6
    assert push.counters()["problem"] == "no answer in time"


def test_an_address_that_nothing_can_be_pushed_to_is_refused() -> None:
    with pytest.raises(ConfigError, match="push needs one of"):
        check_push("ftp://me:secret@host/x")
    with pytest.raises(ConfigError, match="control character"):
        check_push("rtsp://host/x\nand more")
    with pytest.raises(ConfigError) as caught:
        check_push("gopher://me:hunter22@host/x")
    assert "hunter22" not in str(caught.value)


def test_no_thread_is_left_behind() -> None:
    before = set(threading.enumerate())
    stream, judge = watched(cameras([frames]))
    stream.add(Push("tcp://127.0.0.1:9", want_key=stream.want_key))
    run_until(stream, lambda: judge.pictures > 10)
    _wait(lambda: not set(threading.enumerate()) - before)


def _wait(done: object, timeout_s: float = 30.0) -> None:
    until = time.monotonic() + timeout_s
    while not done():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.05)
