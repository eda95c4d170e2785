"""Real sources: an RTSP server over TCP and UDP with a login, a damaged transport stream, files of several sizes."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamer import detection
from streamer.clock import Clock
from streamer.detection import Detections, Label
from streamer.errors import ConfigError, InputError
from streamer.frame import Frame, Size
from streamer.live import timing
from streamer.live.settings import StreamSettings, stream_settings
from streamer.live.status import status
from streamer.live.stream import LiveStream
from streamer.media.live_source import LiveSource
from streamer.media.live_spec import LiveSpec
from streamer.proof.scene import (
    SIZE,
    Judge,
    ScriptedDetector,
    luma_with_face,
    planes_with_face,
    run_until,
    studio,
    write_clip,
)
from streamer.server.metrics import exposition
from streamer.tally import Tally
from tests import rtsp
from tests.clips import Clip, make
from tests.conftest import need
from tests.fake_rtsp import FakeRtsp, pictures
from tests.fakes import noise_frame

LOGIN = ("operator", "p:ss/w@rd")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "face.ts")


def protected(
    source: str, detector: ScriptedDetector | None = None, **settings: object
) -> tuple[LiveStream, Judge]:
    """The stream of a real source, with a judge at its end."""
    stream = LiveStream("camera", StreamSettings(source=source, **settings), studio(detector))  # type: ignore[arg-type]
    judge = Judge()
    stream.add(judge)
    return stream, judge


@pytest.mark.real
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_with_a_login(clip: Path, transport: str) -> None:
    need("GStreamer's RTSP server", rtsp.available())
    port = rtsp.free_port()
    with rtsp.serving(clip, port, login=LOGIN):
        url = f"rtsp://{LOGIN[0]}:p%3Ass%2Fw%40rd@127.0.0.1:{port}/clip"
        stream, judge = protected(url, transport=transport)
        run_until(stream, lambda: judge.masked > 100, 60)
    judge.verdict()
    assert judge.masked > 0.9 * judge.pictures
    assert stream.supervisor.reconnects == 0


@pytest.mark.real
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_of_an_h265_camera(transport: str, tmp_path: Path) -> None:
    need("GStreamer's RTSP server", rtsp.available())
    clip = write_clip(tmp_path / "face.ts", codec="libx265")
    port = rtsp.free_port()
    with rtsp.serving(clip, port):
        stream, judge = protected(f"rtsp://127.0.0.1:{port}/hevc", transport=transport)
        run_until(stream, lambda: judge.masked > 40, 60)
    judge.verdict()
    assert stream.decoding.reason


@pytest.mark.real
def test_a_wrong_password_is_said_without_the_password(clip: Path) -> None:
    need("GStreamer's RTSP server", rtsp.available())
    port = rtsp.free_port()
    with rtsp.serving(clip, port, login=LOGIN), pytest.raises(InputError) as caught:
        LiveSource(LiveSpec(f"rtsp://{LOGIN[0]}:hunter22@127.0.0.1:{port}/clip"), tally=Tally())
    assert "hunter22" not in str(caught.value)
    assert "401" in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.real
def test_the_rtsp_server_dies_and_returns(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("GStreamer's RTSP server", rtsp.available())
    monkeypatch.setattr(timing, "DELAYS_S", (0.5, 1.0))
    port = rtsp.free_port()
    stream, judge = protected(f"rtsp://127.0.0.1:{port}/clip")
    stream.start()
    try:
        with rtsp.serving(clip, port):
            _wait(lambda: judge.masked > 50)
        _wait(lambda: judge.covered > 25)
        with rtsp.serving(clip, port):
            before = judge.masked
            _wait(lambda: judge.masked > before + 50)
    finally:
        stream.stop(wait_s=15)
    judge.verdict()
    assert judge.longest_silence_s < 2
    assert stream.supervisor.reconnects >= 1


def test_a_camera_that_accepts_and_never_sends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/clip"
        begun = time.monotonic()
        with pytest.raises(InputError, match="cannot be opened"):
            LiveSource(LiveSpec(url, open_s=1.0, read_s=1.0), tally=Tally())
        assert time.monotonic() - begun < 5


def test_a_camera_that_sends_garbage() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            connection, _ = listener.accept()
            with connection:
                random = np.random.default_rng(3)
                for _ in range(40):
                    try:
                        connection.sendall(random.bytes(65_536))
                    except OSError:
                        return

        threading.Thread(target=babble, daemon=True).start()
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(InputError):
            for _ in LiveSource(LiveSpec(url, open_s=3.0, read_s=1.0), tally=Tally()):
                pass


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_lost_packets(clip: Path, tmp_path: Path, share: float) -> None:
    random = np.random.default_rng(1)
    data = clip.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    kept = [packet for place, packet in enumerate(packets) if place < 20 or random.random() > share]
    lossy = tmp_path / "lossy.ts"
    lossy.write_bytes(b"".join(kept))
    stream, judge = protected(str(lossy))
    run_until(stream, lambda: stream.state == "ended" and stream.wait(0.1), 60)
    judge.verdict()


def test_pictures_that_the_decoder_filled_up_are_counted_and_judged(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "face.ts", codec="mpeg4")
    lossy = tmp_path / "lossy.m4v"
    with av.open(str(clip)) as container, lossy.open("wb") as file:
        for place, packet in enumerate(container.demux(video=0)):
            data = bytes(packet)
            file.write(data[: len(data) // 2] if place and packet.is_keyframe else data)
    stream, judge = protected(str(lossy))
    run_until(stream, lambda: stream.state == "ended" and stream.wait(0.1), 60)
    judge.verdict()
    damaged = status(stream, now_s=time.monotonic())["frames"]["damaged"]
    assert damaged > 0
    body, _ = exposition([stream])
    assert f'streamer_frames_damaged_total{{stream="camera"}} {damaged}.0' in body.decode()


def test_mpeg_ts_over_udp(clip: Path) -> None:
    port = _free_udp_port()
    stop = threading.Event()

    def send() -> None:
        data = clip.read_bytes()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not stop.is_set():
                for at in range(0, len(data), 1316):
                    out.sendto(data[at : at + 1316], ("127.0.0.1", port))
                    stop.wait(4 * 1316 / len(data))

    stream, judge = protected(f"udp://127.0.0.1:{port}")
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        run_until(stream, lambda: judge.masked > 60, 60)
    finally:
        stop.set()
        sender.join(5)
    judge.verdict()


def test_the_size_changes_on_the_way(clip: Path, tmp_path: Path) -> None:
    bigger = write_clip(tmp_path / "bigger.ts", seconds=2, size=Size(640, 384))
    both = tmp_path / "both.ts"
    both.write_bytes(clip.read_bytes() + bigger.read_bytes())
    stream, judge = protected(str(both))
    run_until(stream, lambda: stream.state == "ended" and stream.wait(0.1), 60)
    judge.verdict()
    assert judge.sizes == {(SIZE.width, SIZE.height)}
    assert stream.tally.events["frames in"] > 130


class SeeingDetector(ScriptedDetector):
    """Finds the checkerboard by its white squares, wherever the picture has it."""

    def __call__(self, frame: Frame, *, share: float = 1.0) -> Detections:
        self.runs += 1
        rows, columns = np.nonzero(frame.luma > 215)
        if len(rows) < 64:
            return detection.none()
        margin = frame.size.height / 20  # a square is white or black at its corners
        box = [columns.min() - margin, rows.min() - margin, columns.max() + margin, rows.max() + margin]
        return detection.detections([box], [0.9], [Label.FACE])


def shows_white(luma: NDArray[np.uint8]) -> bool:
    """Whether white squares of the checkerboard are left, at any scale."""
    return int((luma > 215).sum()) > 64


@pytest.mark.parametrize("other", [Size(640, 384), Size(160, 96), Size(192, 192), Size(640, 320)])
def test_nothing_shows_when_the_size_changes_again_and_again(clip: Path, tmp_path: Path, other: Size) -> None:
    """The face jumps to another place with the size, between two runs of the detector."""
    both = changing(tmp_path, other)
    stream, judge = protected(str(both), SeeingDetector())
    judge.sees = shows_white
    run_until(stream, lambda: stream.state == "ended" and stream.wait(0.1), 60)
    judge.verdict()
    assert judge.sizes == {(SIZE.width, SIZE.height)}
    assert stream.tally.events["size changes"] == 5
    assert stream.tally.events["sessions"] == 6
    assert judge.masked > 0.8 * judge.pictures


def test_what_shows_at_another_size_is_seen_by_the_judge(tmp_path: Path) -> None:
    class Blind(ScriptedDetector):
        def __call__(self, frame: Frame, *, share: float = 1.0) -> Detections:
            return detection.none()

    stream, judge = protected(str(changing(tmp_path, Size(640, 320))), Blind())
    judge.sees = shows_white
    run_until(stream, lambda: stream.state == "ended" and stream.wait(0.1), 60)
    assert judge.leaks > 0.9 * judge.pictures


def changing(folder: Path, other: Size) -> Path:
    """A stream that changes its size five times."""
    first = write_clip(folder / "first.ts", seconds=0.6)
    second = write_clip(folder / "second.ts", seconds=0.6, size=other)
    both = folder / "both.ts"
    both.write_bytes((first.read_bytes() + second.read_bytes()) * 3)
    return both


@pytest.mark.real
def test_an_rtsp_camera_changes_its_size(clip: Path, tmp_path: Path) -> None:
    need("GStreamer's RTSP server", rtsp.available())
    bigger = write_clip(tmp_path / "bigger.ts", seconds=1, size=Size(640, 360))
    both = tmp_path / "both.ts"
    both.write_bytes(clip.read_bytes() + bigger.read_bytes())
    port = rtsp.free_port()
    with rtsp.serving(both, port):
        stream, judge = protected(f"rtsp://127.0.0.1:{port}/clip", SeeingDetector())
        judge.sees = shows_white
        run_until(stream, lambda: stream.tally.events["size changes"] >= 2 and judge.masked > 100, 60)
    judge.verdict()
    assert len(judge.sizes) == 1


def test_another_shape_is_shown_between_black_bars(tmp_path: Path) -> None:
    narrow = write_clip(tmp_path / "narrow.mp4", seconds=0.2, size=Size(192, 192), format_name="mp4")
    with LiveSource(LiveSpec(str(narrow)), tally=Tally(), size=SIZE) as source:
        frame = next(iter(source))
    assert frame.size == SIZE
    assert (frame.luma[:, :64] == 16).all()
    assert (frame.luma[:, 256:] == 16).all()
    assert abs(int(frame.luma[100, 80]) - 170) < 8  # the lighter bar of the scene
    assert abs(int(frame.luma[10, 200]) - 110) < 8
    assert (frame.chroma[:, :32] == 128).all()


def test_a_file_is_played_at_its_own_pace_and_over_again(tmp_path: Path) -> None:
    short = write_clip(tmp_path / "short.mp4", seconds=0.4, format_name="mp4")
    begun = time.monotonic()
    spec = LiveSpec(str(short), loop=True)
    with LiveSource(spec, tally=Tally()) as source:
        stamps = []
        for frame in source:
            stamps.append(frame.time_s)
            if len(stamps) == 30:
                break
    assert stamps == pytest.approx([n / 25 for n in range(30)], abs=0.002)
    assert time.monotonic() - begun > 1.1


def test_a_file_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(InputError, match="no such file: nowhere"):
        LiveSource(LiveSpec("nowhere.mp4"), tally=Tally())


def test_a_file_that_is_no_video_is_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "DELAYS_S", (0.1,))
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(50_000))
    stream, judge = protected(str(tmp_path / "noise.mp4"))
    run_until(stream, lambda: stream.state == "ended" and stream.wait(0.1))
    assert judge.pictures == 0
    assert "cannot be opened" in (stream.supervisor.problem or "")


def test_a_text_is_no_video(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "list.ts").write_text(f"ffconcat version 1.0\nfile {clip}\n")
    (tmp_path / "notes.txt").write_text("hello\n" * 100)
    for name in ("list.ts", "notes.txt"):
        with pytest.raises(InputError):
            LiveSource(LiveSpec(str(tmp_path / name)), tally=Tally())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("rtps://me:hunter22@cam/1", "begins with one of rtsp,"),
        ("srt://me:hunter22@cam/1", "has no SRT"),
        ("rtmps://0.0.0.0/live/hunter22?listen=1", "rtmps cannot listen"),
        (" gopher://me:hunter22@cam/1", "begins with one of rtsp,"),
        ("me:hunter22@cam/1", "begins with one of rtsp,"),
        (" ", "an address, a webcam's number or path, or a file"),
    ],
)
def test_what_can_never_be_connected_to_is_refused_at_once(
    source: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.media.live_spec.has_srt", lambda: False)
    with pytest.raises(ConfigError, match=said) as caught:
        stream_settings({"source": source}, name="camera")
    assert "hunter22" not in str(caught.value)


def test_a_space_around_an_address_does_not_make_it_a_file() -> None:
    assert stream_settings({"source": " rtsp://me:pw@cam/1\n"}, name="camera").source == "rtsp://me:pw@cam/1"


@pytest.mark.parametrize("webcam", ["3", "/dev/video3"])
def test_a_webcam_is_opened_by_number_or_path(webcam: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[object, object]] = []

    def refuse(name: str, *, format: str, **_: object) -> None:
        opened.append((name, format))
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(InputError, match="cannot be opened"):
        LiveSource(LiveSpec(webcam), tally=Tally())
    assert opened == [("/dev/video3", "v4l2")]


def test_a_webcam_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        LiveSource(LiveSpec("97"), tally=Tally())


@contextmanager
def over_http(folder: Path) -> Iterator[str]:
    """A web server that hands out the files of a folder."""
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("kind", ["hls", "mp4"])
def test_what_comes_as_fast_as_it_can_be_fetched_is_played_at_its_own_pace(kind: str, tmp_path: Path) -> None:
    """HLS comes by the segment: newest wins would drop nearly all of each (over 100), and cover until the next."""
    name = "clip.m3u8" if kind == "hls" else "clip.mp4"
    write_clip(tmp_path / name, seconds=6, format_name=kind)
    with over_http(tmp_path) as url:
        stream, judge = protected(f"{url}/{name}")
        run_until(stream, lambda: stream.supervisor.reconnects > 0, 60)
    judge.verdict()
    assert stream.tally.events["frames in"] >= 120  # the first second is what the stream is recognised by
    assert stream.supervisor.dropped < 50
    assert judge.masked > 100
    assert stream.tally.events["covered: no picture in time"] == 0


class Mjpeg(Quiet):
    """A camera of 8 pictures a second that sends JPEGs one after the other."""

    def do_GET(self) -> None:
        jpeg = cv2.imencode(".jpg", luma_with_face())[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        with suppress(OSError):
            while True:
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                time.sleep(1 / 8)


def test_pictures_of_an_mjpeg_camera_have_the_time_at_which_they_came() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            stream, judge = protected(f"http://127.0.0.1:{server.server_address[1]}/video")
            run_until(stream, lambda: judge.masked > 40, 60)
        finally:
            server.shutdown()
    judge.verdict()
    steps_s = [(after - before) / 90_000 for before, after in pairwise(judge.pts[10:])]
    assert stream._timeline.jumps == 0
    assert np.median(steps_s) == pytest.approx(1 / 8, abs=0.02)
    assert max(steps_s) < 0.35


@pytest.mark.parametrize("scheme", ["rtmp", "tcp"])
def test_a_program_that_sends_to_one_client(scheme: str, clip: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    port = rtsp.free_port()
    where = f"rtmp://127.0.0.1:{port}/live/key" if scheme == "rtmp" else f"tcp://127.0.0.1:{port}?listen=1"
    listen = ["-f", "flv", "-listen", "1"] if scheme == "rtmp" else ["-f", "mpegts"]
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-loglevel",
        "error",
        "-re",
        "-stream_loop",
        "-1",
        "-i",
        str(clip),
    ]
    sender = subprocess.Popen([*command, "-c", "copy", *listen, where])
    try:
        stream, judge = protected(where.partition("?")[0])
        run_until(stream, lambda: judge.masked > 50, 60)
    finally:
        sender.kill()
        sender.wait(10)
    judge.verdict()


@pytest.mark.parametrize("scheme", ["rtmp", "tcp"])
def test_a_source_that_listens_takes_one_sender_after_the_other(scheme: str, clip: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    where = f"{scheme}://127.0.0.1:{rtsp.free_port()}" + ("/live/hunter22" if scheme == "rtmp" else "")
    kind = "flv" if scheme == "rtmp" else "mpegts"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-loglevel",
        "quiet",
        "-re",
        "-stream_loop",
        "-1",
        "-i",
        str(clip),
    ]
    senders: list[subprocess.Popen[bytes]] = []
    stream, judge = protected(f"{where}?listen=1", late_ms=500)
    masked = 0

    def send() -> bool:
        """Start one where none runs; end the first when it has been seen."""
        nonlocal masked
        if len(senders) == 0 or senders[-1].poll() is not None:
            senders.append(subprocess.Popen([*command, "-c", "copy", "-f", kind, where]))
        if not masked and judge.masked > 30:
            senders[-1].kill()
            senders[-1].wait(10)
            masked = judge.masked
        return bool(masked) and judge.masked > masked + 40

    try:
        run_until(stream, send, 90)
    finally:
        senders[-1].kill()
        senders[-1].wait(10)
    judge.verdict()
    assert stream.supervisor.reconnects >= 1
    assert "hunter22" not in str(status(stream, now_s=0))


def test_a_source_that_listens_says_that_nobody_came() -> None:
    url = f"rtmp://127.0.0.1:{rtsp.free_port()}/live/hunter22?x=1&listen=1"
    with pytest.raises(InputError, match="nobody has connected") as caught:
        LiveSource(LiveSpec(url, open_s=0.5), tally=Tally())
    assert "hunter22" not in str(caught.value)


def test_a_sender_that_connects_and_says_nothing_holds_nobody_up() -> None:
    port = rtsp.free_port()
    spec = LiveSpec(f"rtmp://127.0.0.1:{port}/live/key?listen=1", open_s=2.0)
    connected: list[socket.socket] = []

    def connect() -> None:
        while not connected:
            with suppress(OSError):
                connected.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            time.sleep(0.05)

    client = threading.Thread(target=connect, daemon=True)
    client.start()
    begun_s = time.monotonic()
    with pytest.raises(InputError):
        LiveSource(spec, tally=Tally())
    assert time.monotonic() - begun_s < 8
    client.join(5)
    connected[0].close()


def test_pieces_whose_time_jumps_are_not_waited_for() -> None:
    class Pieces(LiveSource):
        def __init__(self, times: list[float]) -> None:
            self.now_s, self.times = 100.0, times
            self._clock = Clock(lambda: self.now_s, self.sleep)

        def sleep(self, seconds: float) -> None:
            self.now_s += seconds

        def _frames(self) -> Iterator[Frame]:
            for index, time_s in enumerate(self.times):
                frame = noise_frame(index, Size(16, 16))
                yield replace(frame, pts=round(time_s * 90_000), time_base=Fraction(1, 90_000))

    times = [n / 10 for n in range(20)] + [5000 + n / 10 for n in range(20)] + [n / 10 for n in range(20)]
    source = Pieces(times)
    came = [source.now_s for _ in source._spread()]
    assert came[-1] - came[0] == pytest.approx(5.7, abs=0.2)
    late = Pieces([n / 10 for n in range(40)])
    for place, _ in enumerate(late._spread()):
        if place == 19:
            late.now_s += 4  # a segment that came late
    assert late.now_s == pytest.approx(100 + 1.9 + 4 + 1.9, abs=0.2)


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait(done: object, timeout_s: float = 60.0) -> Iterator[None] | None:
    until = time.monotonic() + timeout_s
    while not done():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.05)
    return None


@contextmanager
def sending(data: bytes, seconds: float) -> Iterator[str]:
    """The address of a program that sends that, evenly, to the first who connects."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def send() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                for at in range(0, len(data), 1316):
                    connection.sendall(data[at : at + 1316])
                    if over.wait(seconds * 1316 / len(data)):
                        return

        threading.Thread(target=send, daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()


def only_sound(path: Path, seconds: float) -> bytes:
    """MPEG-TS without a picture, its sound on the track that `tests.clips` gives it beside pictures."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        stream.id = 0x101
        for index in range(round(25 * seconds)):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, index * 1920, Fraction(1, 48_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def other_pictures(path: Path, seconds: float, number: int = 0x12C) -> bytes:
    """MPEG-TS of another codec with another number, as after the exchange of a sender."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.id = SIZE.width, SIZE.height, "yuv420p", number
        for index in range(round(25 * seconds)):
            picture = av.VideoFrame.from_ndarray(noise_picture(index), "gray").reformat(format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path.read_bytes()


def noise_picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (SIZE.height, SIZE.width), np.uint8)


@pytest.mark.parametrize("later", [only_sound, other_pictures])
def test_a_source_that_sends_no_more_pictures_is_hung_up_on(
    later: Callable[[Path, float], bytes], tmp_path: Path
) -> None:
    """Its reader would stay as long as anything comes, and keep the port from every connection after it."""
    begun = make(tmp_path / "begun.ts", Clip(frames=50, audio="aac"))
    data = begun.read_bytes() + later(tmp_path / "later.ts", 30)
    pictures = 0
    with sending(data, 32) as url:
        with LiveSource(LiveSpec(url, read_s=1.0), tally=Tally()) as source:
            with pytest.raises(InputError, match=r"no more pictures|cannot be decoded"):
                for _ in source:
                    pictures += 1
                    last_s = time.monotonic()
    assert pictures > 10
    assert time.monotonic() - last_s < 5


@pytest.mark.parametrize("number", [0x100, 0x12C])
def test_another_codec_is_noticed_before_the_stream_counts_as_silent(number: int, tmp_path: Path) -> None:
    begun = make(tmp_path / "begun.ts", Clip(frames=50))
    data = begun.read_bytes() + other_pictures(tmp_path / "later.ts", 30, number)
    last_s = 0.0
    with sending(data, 32) as url:
        with LiveSource(LiveSpec(url), tally=Tally()) as source:
            with pytest.raises(InputError, match="cannot be decoded"):
                for frame in source:
                    if isinstance(frame, Frame) and frame.index < 50:
                        last_s = time.monotonic()
    assert time.monotonic() - last_s < 6


def between_keys(path: Path, later: int) -> bytes:
    """MPEG-TS of the scene that begins `later` packets before the first key picture; there is one more after that."""
    with av.open(str(path), "w", format="mpegts") as container:
        options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "keyint=1000:scenecut=0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = SIZE.width, SIZE.height, "yuv420p"
        for index in range(later + 75):
            picture = av.VideoFrame.from_ndarray(planes_with_face(), "yuv420p")
            picture.pts = index
            picture.pict_type = (
                av.video.frame.PictureType.I if index == later else av.video.frame.PictureType.NONE
            )
            for packet in stream.encode(picture):
                if index:
                    container.mux(packet)
    return path.read_bytes()


def test_a_connection_between_two_key_pictures_waits_for_the_next(tmp_path: Path) -> None:
    """One that was given up after 8 s seldom met the key picture of a camera that sends one a minute."""
    data = between_keys(tmp_path / "camera.ts", 400)
    with sending(data, 3) as url, LiveSource(LiveSpec(url), tally=Tally()) as source:
        seen = list(source)
    shown = [item for item in seen if isinstance(item, Frame)]
    assert len(shown) > 60
    assert len(seen) - len(shown) > 300
    assert (
        abs(shown[0].luma.astype(int) - luma_with_face()).mean() < 2
    )  # nothing made of references that are missing


def test_a_key_picture_that_never_comes_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    data = between_keys(tmp_path / "camera.ts", 400)
    with sending(data, 30) as url, LiveSource(LiveSpec(url, key_s=2.0), tally=Tally()) as source:
        with pytest.raises(InputError, match="no key picture"):
            list(source)


def test_the_key_picture_with_which_a_connection_begins_is_not_lost() -> None:
    """It came while FFmpeg found out what the stream is; the next one may be a minute away."""
    begun_s = time.monotonic()
    with (
        FakeRtsp(shown=pictures(8, gop=200)) as camera,
        LiveSource(LiveSpec(camera.url), tally=Tally()) as source,
    ):
        assert isinstance(next(iter(source)), Frame)
    assert time.monotonic() - begun_s < 4
