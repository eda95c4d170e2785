"""Sound of live streams: left out unless it is wanted, whole, and in step with the pictures."""

import asyncio
import io
import re
import socket
import threading
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from numpy.typing import NDArray

from streamer.frame import FrameResult
from streamer.live.settings import StreamSettings
from streamer.live.stream import LiveStream
from streamer.live.timing import Timeline
from streamer.media.egress import Encoded, KeyframeGate
from streamer.media.hls import Hls
from streamer.media.push import Push
from streamer.media.record import Recorder
from streamer.media.sound import CHUNK, RATE, Sound, SoundEncoder
from streamer.media.webrtc import Room
from streamer.proof.scene import SIZE, Judge, luma_with_face, run_until, studio
from streamer.server.keys import hashed
from tests.browser import chromium, watching
from tests.conftest import need
from tests.live.test_whep import KEY, live, wait_for_stream
from tests.rtsp import free_port

TONE = 1000  # Hz
EVERY_S, LENGTH_S = 1.0, 0.2  # a flash and a tone together
FPS = 25
RECEIPT = FrameResult(0, 0, 0.0, SIZE.width, SIZE.height)


def write_flashes(
    path: Path, *, seconds: float = 8.0, codec: str = "aac", format_name: str = "mpegts"
) -> Path:
    """A face under a sky that flashes while a tone sounds, once a second."""
    with av.open(str(path), "w", format=format_name) as container:
        video = container.add_stream(
            "libx264", rate=FPS, options={"preset": "ultrafast", "bf": "0", "g": "25"}
        )
        audio = container.add_stream(codec, rate=RATE, layout="stereo")
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = SIZE.width, SIZE.height, "yuv420p"
        at = np.arange(round(seconds * RATE)) / RATE
        wave = np.sin(2 * np.pi * TONE * at) * 0.5 * ((at % EVERY_S) < LENGTH_S)
        samples = np.repeat((wave * 32_767).astype(np.int16), 2)[None]
        sent = 0
        resampler = av.AudioResampler(audio.format, audio.layout, RATE, frame_size=audio.frame_size or None)
        for index in range(round(seconds * FPS)):
            luma = luma_with_face()
            if index / FPS % EVERY_S < LENGTH_S:
                luma[:48] = 230
            planes = np.concatenate([luma, np.full((SIZE.height // 2, SIZE.width), 128, np.uint8)])
            picture = av.VideoFrame.from_ndarray(planes, "yuv420p")
            picture.pts = index
            container.mux(video.encode(picture))
            until = round((index + 1) / FPS * RATE)
            frame = av.AudioFrame.from_ndarray(samples[:, 2 * sent : 2 * until].copy(), "s16", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = RATE, sent, Fraction(1, RATE)
            sent = until
            for part in resampler.resample(frame):
                container.mux(audio.encode(part))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flashes(tmp_path_factory.mktemp("sound") / "flashes.ts")


def stream_of(source: Path, **settings: Any) -> tuple[LiveStream, Judge]:
    stream = LiveStream("camera", StreamSettings(source=str(source), **settings), studio())
    judge = Judge()
    stream.add(judge)
    return stream, judge


def flashes_and_tones(
    file: Path | io.BytesIO, format_name: str | None = None
) -> tuple[list[float], list[float]]:
    """When flashes and tones begin, in seconds; those that were going on at the start are left out."""
    light: list[tuple[float, bool]] = []
    loud: list[tuple[float, bool]] = []
    name = file if isinstance(file, io.BytesIO) else str(file)
    with av.open(name, format=format_name) as container:
        for frame in container.decode(video=0, audio=0):
            if isinstance(frame, av.VideoFrame):
                light.append(
                    (frame.time or 0.0, bool(frame.to_ndarray(format="gray")[:32, 60:].mean() > 180))
                )
            else:
                for part, power in enumerate(powers(frame)):
                    loud.append(((frame.time or 0.0) + part * 64 / RATE, power))
    return begins(light), begins(loud)


def powers(frame: av.AudioFrame) -> list[bool]:
    samples = frame.to_ndarray()[0].astype(np.float64)
    samples = samples / 32_767 if samples.max(initial=0) > 2 else samples
    return [
        bool(np.abs(part).max(initial=0) > 0.1)
        for part in np.array_split(samples, max(1, len(samples) // 64))
    ]


def begins(states: list[tuple[float, bool]]) -> list[float]:
    """Rising edges after at least half a second of nothing."""
    found, last_on = [], None
    for at_s, on in states:
        if on and last_on is not None and at_s - last_on > 0.5:
            found.append(at_s)
        if on or last_on is None:
            last_on = at_s
    return found


def assert_in_step(flashes: list[float], tones: list[float], at_least: int) -> None:
    assert len(flashes) >= at_least
    apart = [min(abs(flash - tone) for tone in tones) for flash in flashes if tones]
    assert apart, "no tone"
    assert sorted(apart)[len(apart) // 2] < 0.06, (flashes, tones)
    assert max(apart) < 0.12, (flashes, tones)


@pytest.mark.parametrize("delay_ms", [0, 700])
def test_recordings_and_segments_hold_the_sound_in_step(clip: Path, tmp_path: Path, delay_ms: int) -> None:
    stream, judge = stream_of(clip, audio="keep", delay_ms=delay_ms)
    recorder = Recorder(
        tmp_path, "camera", segment_s=600, want_key=stream.want_key, has_sound=stream.has_sound
    )
    hls = Hls(stream.has_sound)
    stream.add(recorder)
    stream.add(hls)
    run_until(stream, lambda: stream.state == "ended" and stream.wait(0.1), 60)
    judge.verdict()
    (recorded,) = tmp_path.glob("*.mp4")
    assert_in_step(*flashes_and_tones(recorded), at_least=5)
    playlist = hls.playlist() or ""
    numbers = [int(number) for number in re.findall(r"segment(\d+)\.ts", playlist)]
    data = b"".join(filter(None, map(hls.segment, numbers)))
    assert_in_step(*flashes_and_tones(io.BytesIO(data), "mpegts"), at_least=4)
    assert "#EXT-X-DISCONTINUITY\n" not in playlist
    with av.open(str(recorded)) as container:
        times = [packet.pts for packet in container.demux(audio=0) if packet.pts is not None]
    # fragmented MP4 puts a track's first packet at 0
    steps = {after - before for before, after in pairwise(times[1:])}
    assert times[1] < 0.1 * RATE
    assert steps == {1024}, "the sound has gaps"


@pytest.mark.parametrize("audio", ["drop", None])
def test_sound_is_left_out_unless_it_is_wanted(clip: Path, tmp_path: Path, audio: str | None) -> None:
    stream, judge = stream_of(clip, **({"audio": audio} if audio else {}))
    stream.add(Recorder(tmp_path, "camera", want_key=stream.want_key, has_sound=stream.has_sound))
    run_until(stream, lambda: judge.pictures > 60, 60)
    (recorded,) = tmp_path.glob("*.mp4")
    with av.open(str(recorded)) as container:
        assert len(container.streams.audio) == 0
        assert len(container.streams.video) == 1


@pytest.mark.parametrize("codec", ["pcm_s16le", "mp2", "libopus"])
def test_whatever_the_source_sends_becomes_aac(tmp_path: Path, codec: str) -> None:
    source = write_flashes(tmp_path / "clip.mkv", seconds=4, codec=codec, format_name="matroska")
    stream, judge = stream_of(source, audio="keep")
    stream.add(Recorder(tmp_path, "camera", want_key=stream.want_key, has_sound=stream.has_sound))
    run_until(stream, lambda: stream.state == "ended" and stream.wait(0.1), 60)
    judge.verdict()
    (recorded,) = tmp_path.glob("*.mp4")
    assert_in_step(*flashes_and_tones(recorded), at_least=2)


def test_a_push_target_gets_the_sound(clip: Path) -> None:
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(65_536):
                    received.extend(data)

        taker = threading.Thread(target=take, daemon=True)
        taker.start()
        stream, judge = stream_of(clip, audio="keep")
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        stream.add(Push(url, want_key=stream.want_key, has_sound=stream.has_sound))
        run_until(stream, lambda: stream.state == "ended" and stream.wait(0.1), 60)
        taker.join(10)
    judge.verdict()
    assert_in_step(*flashes_and_tones(io.BytesIO(bytes(received)), "mpegts"), at_least=3)


class Listener:
    """aiortc as a viewer that listens, too."""

    def __init__(self) -> None:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.sound: list[NDArray[np.float64]] = []
        self.pictures = 0
        self.tasks: list[Any] = []

    async def join(self, room: Room) -> str:
        for kind in ("video", "audio"):
            self.peer.addTransceiver(kind, direction="recvonly")
        self.peer.on("track", lambda track: self.tasks.append(asyncio.ensure_future(self._take(track))))
        await self.peer.setLocalDescription(await self.peer.createOffer())
        viewer = await room.join(self.peer.localDescription.sdp)
        await self.peer.setRemoteDescription(RTCSessionDescription(viewer.answer, "answer"))
        return viewer.answer

    async def _take(self, track: Any) -> None:
        try:
            while True:
                frame = await track.recv()
                if track.kind == "audio":
                    self.sound.append(frame.to_ndarray()[0, ::2].astype(np.float64))
                else:
                    self.pictures += 1
        except MediaStreamError:
            return


def loudest_hz(samples: NDArray[np.float64]) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples))


@pytest.mark.parametrize("audio", ["keep", "drop"])
def test_a_viewer_hears_the_tone_only_where_sound_is_kept(clip: Path, audio: str) -> None:
    async def test() -> None:
        stream, judge = stream_of(clip, audio=audio, loop=True)
        room = Room(want_key=stream.want_key, has_sound=stream.has_sound)
        stream.wants_opus = lambda: room.wants("opus")
        stream.add(room)
        stream.start()
        listener = Listener()
        try:
            async with asyncio.timeout(60):
                while judge.pictures < 10:
                    await asyncio.sleep(0.05)
                answer = await listener.join(room)
                while listener.pictures < 60 or (audio == "keep" and len(listener.sound) < 150):
                    await asyncio.sleep(0.05)
            if audio == "keep":
                assert loudest_hz(np.concatenate(listener.sound)) == pytest.approx(TONE, abs=5)
            else:
                assert not listener.sound
                assert "m=audio 0 " in answer or "a=inactive" in answer
        finally:
            await room.leave_all()
            await listener.peer.close()
            await asyncio.to_thread(stream.stop, wait_s=10)
        judge.verdict()

    asyncio.run(test())


@pytest.mark.real
def test_a_browser_hears_the_tone(clip: Path, tmp_path: Path) -> None:
    need("Chromium", chromium() is not None)
    port = free_port()
    keys = tmp_path / "keys.txt"
    keys.write_text(hashed(KEY))
    with live(str(clip), "--loop", "--webrtc", "--audio", "keep", "--keys", str(keys), port=port):
        wait_for_stream(port)
        with watching(f"http://127.0.0.1:{port}/camera/whep", key=KEY, audio=True) as browser:
            browser.wait_for(5, timeout_s=60)
            until = time.monotonic() + 60
            while not browser.stats.get("energy", 0) > 0.01:
                assert time.monotonic() < until, browser.stats
                time.sleep(0.2)
    assert "opus" in browser.answer["sdp"]


def sound(level: int = 1000) -> Sound:
    return Sound(np.full((1, 2 * CHUNK), level, np.int16), 0.0)


@pytest.mark.parametrize("codec", ["opus", "aac"])
def test_packets_follow_without_a_gap_though_time_stamps_tremble(codec: str) -> None:
    encoder = SoundEncoder(codec)
    random = np.random.default_rng(4)
    made = [
        packet
        for number in range(200)
        for packet in encoder.encode(sound(), number * 1800 + int(random.integers(-2000, 2000)), RECEIPT)
    ]
    steps = {after.packet.pts - before.packet.pts for before, after in pairwise(made)}
    assert steps == {1800 if codec == "opus" else 1920}
    assert all(item.is_sound and not item.key and item.result is RECEIPT for item in made)


@pytest.mark.parametrize("jump_s", [3.0, -3.0])
def test_sound_follows_a_jump_and_never_runs_backward(jump_s: float) -> None:
    encoder = SoundEncoder("opus")
    pts = [
        packet.packet.pts
        for number in range(400)
        for packet in encoder.encode(
            sound(), number * 1800 + (round(jump_s * 90_000) if number >= 100 else 0), RECEIPT
        )
    ]
    assert all(before < after for before, after in pairwise(pts))
    assert pts[-1] == pytest.approx(399 * 1800 + jump_s * 90_000, abs=10_000)


def test_sound_far_from_the_clock_has_no_place() -> None:
    timeline = Timeline()
    assert timeline.place(5.0, at_s=100.0) is None
    timeline.stamp(5.0, at_s=100.0)
    assert timeline.place(5.5, at_s=100.0) == pytest.approx(45_000, abs=10)
    assert timeline.place(50.0, at_s=100.0) is None
    timeline.restart()
    assert timeline.place(5.5, at_s=100.0) is None


def test_sound_opens_no_gate() -> None:
    gate = KeyframeGate()
    packet = SoundEncoder("opus").encode(sound(), 0, RECEIPT)[0].packet
    assert packet.is_keyframe
    assert not gate.admits(Encoded(packet, "opus", RECEIPT), full=False)
    assert gate.waiting
