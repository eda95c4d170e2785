"""A stream under faults, closely timed; proof/test_faults.py tries every fault on a real connection."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from streamer.clock import Clock
from streamer.errors import InputError
from streamer.frame import Frame, FrameResult, Size
from streamer.live import side, timing
from streamer.live import supervisor as supervising
from streamer.live.fleet import Fleet
from streamer.live.settings import StreamSettings
from streamer.live.status import Journal, status
from streamer.live.stream import LiveStream
from streamer.media.egress import H264, Egress, Encoded, PacketQueue
from streamer.media.live_encoder import LiveEncoder
from streamer.media.live_source import AwaitsKey
from streamer.proof.scene import (
    FACE,
    Judge,
    ScriptedDetector,
    cameras,
    frames,
    luma_with_face,
    run_until,
    shows_face,
    studio,
    watched,
    write_clip,
)
from streamer.zones import Zones


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "DELAYS_S", (0.3, 0.5))
    monkeypatch.setattr(supervising, "STALL_S", 0.5)
    monkeypatch.setattr(supervising, "_OPENING_S", 0.5)


def test_the_judge_can_see_a_face_and_its_absence() -> None:
    luma = luma_with_face()
    assert shows_face(luma)
    x0, y0, x1, y1 = FACE
    luma[y0:y1, x0:x1] = 126
    assert not shows_face(luma)


def test_a_detector_that_finds_nothing_is_seen_by_the_judge() -> None:
    class Blind(ScriptedDetector):
        def __call__(self, frame: Frame, *, share: float = 1.0) -> Any:
            return super().__call__(frame, share=share).take([])  # type: ignore[arg-type]

    stream, judge = watched(cameras([frames]), Blind())
    run_until(stream, lambda: judge.pictures > 20)
    assert judge.leaks > 10


def test_every_picture_is_masked_in_time_and_without_drops() -> None:
    stream, judge = watched(cameras([lambda: frames(rate=25)]))
    run_until(stream, lambda: judge.pictures > 50)
    judge.verdict()
    assert judge.masked >= 0.9 * judge.pictures
    assert judge.closed
    assert stream.egress.without_receipt == 0
    assert stream.state == "stopped"


def test_the_server_dies_and_returns() -> None:
    def dies() -> Iterator[Frame]:
        yield from frames(20)
        raise InputError("the connection was lost")

    def refuses() -> Iterator[Frame]:
        raise InputError("connection refused")
        yield

    stream, judge = watched(cameras([dies, refuses, frames]))
    run_until(stream, lambda: judge.masked > 60)
    judge.verdict()
    assert judge.covered > 10
    assert judge.longest_silence_s < 0.6
    assert stream.supervisor.reconnects == 2


def test_a_connection_that_never_sends_and_one_that_falls_silent() -> None:
    def silent() -> Iterator[Frame]:
        time.sleep(30)
        yield from frames()

    def falls_silent() -> Iterator[Frame]:
        yield from frames(20)
        time.sleep(30)

    stream, judge = watched(cameras([silent, falls_silent, frames]))
    run_until(stream, lambda: judge.masked > 60)
    judge.verdict()
    assert judge.covered > 10
    assert stream.supervisor.reconnects == 2


def test_a_key_picture_that_is_long_in_coming_is_waited_for_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "_KEY_S", 5.0)

    def between_keys(key_s: float) -> Iterator[Frame | AwaitsKey]:
        until_s = time.monotonic() + key_s
        while time.monotonic() < until_s:
            time.sleep(0.02)
            yield AwaitsKey()
        yield from frames()

    said = set()
    stream, judge = watched(cameras([lambda: between_keys(2)]))

    def done() -> bool:
        said.add(stream.supervisor.problem)
        return judge.masked > 20

    run_until(stream, done)
    judge.verdict()
    assert stream.supervisor.reconnects == 0
    assert said == {None, "waits for the source's next key picture"}

    monkeypatch.setattr(supervising, "_KEY_S", 1.0)
    stream, _ = watched(cameras([lambda: between_keys(60)]))
    run_until(stream, lambda: stream.supervisor.reconnects == 1)


def test_hanging_readers_do_not_pile_up() -> None:
    def silent() -> Iterator[Frame]:
        time.sleep(30)
        yield from frames()

    stream, _ = watched(cameras([silent]))
    run_until(stream, lambda: "hang in the system" in (stream.supervisor.problem or ""))
    assert stream.tally.events["readers left behind"] == 3


@pytest.mark.parametrize("jump_s", [-100.0, -0.3, 30.0, 1e7])
def test_time_stamps_jump(jump_s: float) -> None:
    def jumping() -> Iterator[Frame]:
        yield from frames(25)
        yield from frames(start_s=0.5 + jump_s)

    stream, judge = watched(cameras([jumping]))
    run_until(stream, lambda: judge.masked > 50)
    judge.verdict()
    assert judge.longest_silence_s < 0.6


def test_another_size_after_a_new_connection_is_the_reader_s_to_scale() -> None:
    asked: list[Size | None] = []

    def connect(size: Size | None) -> Iterator[Frame]:
        asked.append(size)
        return frames(20)

    stream, judge = watched(connect)
    run_until(stream, lambda: judge.masked > 30)
    judge.verdict()
    assert asked[0] is None
    assert asked[1] == Size(320, 192)
    assert judge.sizes == {(320, 192)}


def test_the_detector_raises_from_the_first_frame_on() -> None:
    def fault(run: int) -> None:
        raise RuntimeError("no weights")

    stream, judge = watched(cameras([frames]), ScriptedDetector(fault))
    run_until(stream, lambda: judge.pictures > 40)
    judge.verdict()
    assert judge.masked == 0


def test_the_detector_hangs_for_two_seconds() -> None:
    def fault(run: int) -> None:
        if run == 4:
            time.sleep(2)

    stream, judge = watched(cameras([frames]), ScriptedDetector(fault))
    run_until(stream, lambda: judge.covered > 20 and judge.masked > 60)
    judge.verdict()
    assert judge.longest_silence_s < 0.6
    assert stream.tally.events["covered: no picture in time"] > 20
    assert stream.tally.events["frames late"] >= 1


def test_the_detector_is_always_late() -> None:
    stream, judge = watched(cameras([frames]), ScriptedDetector(lambda run: time.sleep(0.4)))
    run_until(stream, lambda: judge.pictures > 80)
    judge.verdict()
    assert judge.longest_silence_s < 0.6
    assert stream.supervisor.dropped > 0


def test_a_viewer_that_stalls_slows_nobody() -> None:
    class Stalled:
        name, codecs = "stalled", H264

        def __init__(self, stream: LiveStream) -> None:
            self.queue = PacketQueue(10, want_key=stream.want_key)

        def send(self, item: Encoded) -> None:
            self.queue.put(item)

        def close(self) -> None:
            self.queue.close()

        def counters(self) -> dict[str, int | str]:
            return {"dropped": self.queue.dropped}

    stream, judge = watched(cameras([frames]))
    stalled = Stalled(stream)
    stream.add(stalled)
    run_until(stream, lambda: judge.pictures > 80)
    judge.verdict()
    assert judge.longest_silence_s < 0.5
    assert stalled.queue.dropped > 40


def test_an_outlet_that_raises_is_dropped_and_the_others_go_on() -> None:
    class Broken(Judge):
        def send(self, item: Encoded) -> None:
            raise OSError("disk on fire")

    stream, judge = watched(cameras([frames]))
    stream.add(Broken(name="broken"))
    run_until(stream, lambda: judge.pictures > 40)
    judge.verdict()
    assert "broken" in stream.egress.failed


def test_new_settings_begin_a_session_without_a_gap() -> None:
    stream, judge = watched(cameras([frames]))
    stream.start()
    _wait(lambda: judge.pictures > 20)
    before = stream.tally.events["sessions"]
    stream.change(stream.settings.model_copy(update={"style": "solid"}), stream._zones)
    run = judge.pictures
    _wait(lambda: judge.pictures > run + 30)
    stream.stop(wait_s=10)
    judge.verdict()
    assert stream.tally.events["sessions"] == before + 1
    assert stream.supervisor.reconnects == 0


def test_a_longer_delay_on_a_running_stream_is_waited_for_and_a_shorter_one_limits_again() -> None:
    stream, judge = watched(cameras([frames]))
    stream.start()
    _wait(lambda: judge.masked > 20)
    stream.change(stream.settings.model_copy(update={"delay_ms": 600}), stream._zones)
    masked = judge.masked
    _wait(lambda: judge.masked > masked + 60)
    late = stream.tally.events["frames late"]
    stream.change(stream.settings.model_copy(update={"delay_ms": 0}), stream._zones)
    assert stream._pacer.limit_s == pytest.approx(stream.settings.late_ms / 1000)
    stream.stop(wait_s=10)
    judge.verdict()
    assert late <= 2


@pytest.mark.parametrize("delay_ms", [0, 300])
def test_one_picture_a_second_is_shown_and_not_covered(
    delay_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "STALL_S", 10.0)
    stream, judge = watched(
        cameras([lambda: frames(rate=1)]), delay_ms=delay_ms, late_ms=500, mask_age_ms=2500
    )
    run_until(stream, lambda: stream.tally.events["frames in"] >= 9)
    judge.verdict()
    assert judge.masked >= 5
    assert all(after - before < 1.5 for before, after in pairwise(judge.masked_s[-4:]))
    last_covered = stream.tally.events["covered: no picture in time"]
    assert last_covered < 90, "covered pictures stood in although the source is as slow as ever"


def test_a_change_between_reading_the_settings_and_the_first_picture_is_not_lost() -> None:
    stream, judge = watched(cameras([frames]))
    changed = stream.settings.model_copy(update={"style": "solid"})
    read, styles = stream._means, []

    def means() -> Any:
        found = read()
        styles.append(stream.settings.style)
        if len(styles) == 1:
            stream.change(changed, stream._zones)
        return found

    stream._means = means  # type: ignore[method-assign]
    run_until(stream, lambda: judge.pictures > 10)
    judge.verdict()
    assert styles[-1] == "solid"


@pytest.mark.parametrize("place", ["_stand_in", "_sound_until", "_note"])
def test_a_want_of_memory_in_egress_ends_no_stream(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a covered picture is to be made, whose memory is the first that is missing."""
    inner, left = getattr(LiveStream, place), iter(range(10_000))

    def short_of_memory(self: LiveStream, *arguments: Any) -> Any:
        if next(left) in range(3, 6):
            raise MemoryError
        return inner(self, *arguments)

    def away() -> Iterator[Frame]:
        yield from frames(20)
        raise InputError("the connection was lost")

    monkeypatch.setattr(LiveStream, place, short_of_memory)
    stream, judge = watched(cameras([away, frames]))
    run_until(stream, lambda: judge.masked > 60)
    judge.verdict()
    assert stream.tally.events["egress failures"] == 3
    assert stream.failure is None
    assert judge.longest_silence_s < 0.8
    assert status(stream, now_s=time.monotonic())["problem"] == "MemoryError"


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_an_encoder_that_fails_in_its_own_words_ends_no_thread(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, failed = LiveEncoder.encode, []

    def fails(self: LiveEncoder, item: Any, pts: int) -> list[Encoded]:
        if self.spec.codec == codec and len(failed) < 3:
            failed.append(pts)
            raise MemoryError("of the encoder's library")
        return encode(self, item, pts)

    monkeypatch.setattr(LiveEncoder, "encode", fails)
    monkeypatch.setattr(side, "_AGAIN_S", 0.1)
    stream, judge = watched(cameras([frames]))
    stream.side.wanted = lambda: True
    run_until(stream, lambda: len(failed) == 3 and judge.pictures > 40)
    judge.verdict()
    assert stream.tally.events["encoder failures"] >= 1
    assert stream.failure is None
    now_s = time.monotonic()
    assert status(stream, now_s=now_s)["problem"] == "MemoryError"
    assert status(stream, now_s=now_s + 61)["problem"] is None  # it works again
    stream.governor.level = 4
    assert "small faces" in str(status(stream, now_s=now_s + 61)["problem"])


@pytest.mark.parametrize("whose", ["reader", "vp8"])
def test_a_machine_that_gives_no_thread_for_a_while_ends_no_stream(
    whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []
    start = threading.Thread.start

    def starts(thread: threading.Thread) -> None:
        if thread.name == whose and len(refused) < 2:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    monkeypatch.setattr(side, "_AGAIN_S", 0.1)
    stream, judge = watched(cameras([frames]))
    stream.side.wanted = lambda: True
    run_until(stream, lambda: len(refused) == 2 and judge.pictures > 40)
    judge.verdict()
    assert stream.failure is None


def test_a_zone_that_is_drawn_does_not_open_those_of_the_configuration(tmp_path: Path) -> None:
    first, second, third = (((x, 0.0), (x + 0.1, 0.0), (x, 0.1)) for x in (0.0, 0.3, 0.6))
    clip = write_clip(tmp_path / "clip.mp4", seconds=1, format_name="mp4")
    fleet = Fleet(replace(studio(), zones=Zones(mask=(first,), keep=(second,))))
    settings = StreamSettings(source=str(clip), loop=True, webrtc=False)
    try:
        fleet.put("camera", settings)
        stream = fleet.get("camera")
        assert stream is not None
        assert stream._zones == Zones((first,), (second,))
        fleet.put(
            "camera", settings.model_copy(update={"zones": {"mask": [[list(corner) for corner in third]]}})
        )
        assert stream._zones == Zones((first, third), ())
        fleet.put("camera", settings.model_copy(update={"zones": {"mask": [], "keep": []}}))
        assert stream._zones == Zones((first,), ())
        assert fleet.get("camera") is stream
    finally:
        fleet.stop()


def test_the_log_says_which_encoder_was_opened_and_why_even_if_that_came_later() -> None:
    stream, judge = watched(cameras([frames]))
    journal, entries = Journal(), []

    def seen() -> bool:
        entries.extend(journal.entries([stream], now_s=time.monotonic()))
        return judge.pictures > 20

    seen()  # before it starts: on a busy machine the first picture may be out before the first look
    run_until(stream, seen)
    states = [entry for entry in entries if entry["event"] == "state"]
    assert states[0]["encoder"] is None
    assert states[-1]["state"] == "live"
    assert states[-1]["encoder"] == {"name": stream.encoder.name, "why": stream.encoder.why}  # type: ignore[union-attr]
    assert len(states) <= 3
    assert not journal.entries([], now_s=time.monotonic())
    (again,) = journal.entries([stream], now_s=time.monotonic())
    assert again["state"] == "stopped", "a stream that takes the name of one that is gone is told of, too"


def test_the_egress_refuses_and_counts_what_holds_no_receipt() -> None:
    from streamer.errors import RedactionError

    egress = Egress()
    for thing in (b"packet", av.Packet(b"packet"), next(frames(1)), Encoded(av.Packet(b"x"), "h264", None)):  # type: ignore[arg-type]
        with pytest.raises(RedactionError):
            egress.send(thing)
    assert egress.without_receipt == 4
    assert egress.passed == 0


def test_an_outlet_that_raises_is_served_again_from_a_key_picture_on() -> None:
    now = [0.0]
    egress = Egress(Clock(lambda: now[0], lambda _: None))
    shaky, steady = Taking("shaky"), Taking("steady")
    egress.add(shaky)
    egress.add(steady)
    sent = list(numbered(12, keys=(0, 4, 8)))
    for index, picture in enumerate(sent):
        now[0] = index * 0.5
        shaky.broken = index in (1, 4)
        egress.send(picture)
        assert ("shaky" in egress.failed) == (1 <= index < 8)
        assert [outlet.name for outlet in egress.outlets][-1] == "steady"
    assert steady.taken == sent
    assert shaky.taken == [
        sent[0],
        *sent[8:],
    ]  # 4 is a key picture but it raised again; 8 comes 2 s after that
    assert egress.failures == 2
    assert not egress.failed


def test_each_codec_goes_on_at_a_key_picture_of_its_own() -> None:
    egress = Egress(Clock(lambda: 0.0, lambda _: None))
    shaky = Taking("shaky", frozenset({"h264", "vp8", "opus"}))
    egress.add(shaky)
    h264, vp8 = (list(numbered(3, keys=(0, 2), codec=codec)) for codec in ("h264", "vp8"))
    (opus,) = numbered(1, keys=(0,), codec="opus")
    shaky.broken = True
    egress.send(h264[0])
    shaky.broken = False
    egress._clock = Clock(lambda: 2.0, lambda _: None)
    for item in (opus, vp8[2], h264[1], opus, h264[2], vp8[1], opus):
        egress.send(item)
    assert shaky.taken == [vp8[2], h264[2], vp8[1], opus]


class Taking:
    def __init__(self, name: str, codecs: frozenset[str] = H264) -> None:
        self.name = name
        self.codecs = codecs
        self.broken = False
        self.taken: list[Encoded] = []

    def send(self, item: Encoded) -> None:
        if self.broken:
            raise ValueError("cannot")
        self.taken.append(item)

    def close(self) -> None:
        """Nothing to finish."""

    def counters(self) -> dict[str, int | str]:
        return {}


def numbered(count: int, keys: tuple[int, ...], codec: str = "h264") -> Iterator[Encoded]:
    for index in range(count):
        packet = av.Packet(b"x")
        packet.pts = index
        packet.is_keyframe = index in keys
        yield Encoded(packet, codec, FrameResult(index, index, index / 2, 64, 64))


def test_look_ahead_delays_and_still_leaks_nothing() -> None:
    stream, judge = watched(cameras([frames]), delay_ms=300)
    run_until(stream, lambda: judge.pictures > 60)
    judge.verdict()
    assert judge.masked > 40


def _wait(done: Any, timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_weeks_of_lost_connections_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "DELAYS_S", (0.0,))
    stream, judge = watched(cameras([lambda: frames(6, rate=200)]))
    stream.start()
    try:
        _wait(lambda: stream.supervisor.reconnects >= 20, 60)
        before = _held()
        _wait(lambda: stream.supervisor.reconnects >= 100, 120)
        after = _held()
    finally:
        stream.stop(wait_s=10)
    judge.verdict()
    handles, threads, kib = (late - early for late, early in zip(after, before, strict=True))
    assert handles <= 0
    assert threads <= 1  # the reader of the moment
    assert kib < 16_384


def _held() -> tuple[int, int, int]:
    """File handles, threads and resident memory in KiB."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), resident


def test_streams_are_stopped_at_the_same_time(tmp_path: Path) -> None:
    """One after the other, the last recording would be closed when whoever sent SIGTERM has lost patience."""
    clip = write_clip(tmp_path / "face.ts")
    closed: list[str] = []

    class Slow(Judge):
        def close(self) -> None:
            time.sleep(1.0)
            closed.append("")

    fleet = Fleet(studio(), prepare=lambda stream: stream.add(Slow()))
    for number in range(5):
        fleet.put(f"camera-{number}", StreamSettings(source=str(clip), loop=True))
    until_s = time.monotonic() + 20
    while not all(stream.meter.frames_out for stream in fleet):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    begun_s = time.monotonic()
    fleet.stop()
    assert time.monotonic() - begun_s < 3
    assert len(closed) == 5
    assert not list(fleet)
