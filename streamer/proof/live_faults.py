"""The faults of live streams, each tried on a real stream: camera on loopback, decoder, masks, encoder, egress.

# Note [One process for each fault]
Some faults are put into the product by exchanging one of its functions, others by a limit of the system: both hold
for a whole process, so each fault has one of its own (see faults.run_apart), which also shows crashes and hangs.
"""

import resource
import tempfile
import time
from bisect import bisect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import av

from streamer.errors import OutputError
from streamer.frame import Frame, Size
from streamer.live.settings import StreamSettings
from streamer.live.stream import LiveStream
from streamer.media.egress import H264, Encoded, PacketQueue
from streamer.media.live_encoder import LiveEncoder
from streamer.media.record import Recorder
from streamer.proof import scene
from streamer.proof.camera import Camera, Film, UdpCamera
from streamer.proof.outcome import Outcome, Pictures, Unfinished
from streamer.proof.scene import Judge, ScriptedDetector
from streamer.tracking import Tracker

_SETTLED = 25  # masked pictures: a second
_PATIENCE_S = 30.0  # for each step; machines may be busy

Story = Callable[["Run"], str]  # makes the fault happen, and says what happened


class Run:
    """A stream that runs, its judge, and the trouble that may be switched on."""

    def __init__(self, source: str, stack: ExitStack, detector: ScriptedDetector | None = None) -> None:
        self.trouble = False
        self.ended_s: float | None = None
        self.judge = Judge()
        self.stream = LiveStream("camera", StreamSettings(source=source), scene.studio(detector))
        self.stream.add(self.judge)
        stack.callback(self.stream.stop, wait_s=15.0)

    @property
    def events(self) -> dict[str, int]:
        """What the stream has counted."""
        return self.stream.tally.events

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Wait. Raises Unfinished."""
        until_s = time.monotonic() + _PATIENCE_S
        while not done():
            if time.monotonic() > until_s:
                raise Unfinished(f"{what}: not within {_PATIENCE_S:.0f} s; the stream is {self.stream.state}")
            time.sleep(0.02)

    def settle(self, pictures: int = _SETTLED) -> None:
        """Wait for so many more masked pictures."""
        wanted = self.judge.masked + pictures
        self.until(lambda: self.judge.masked >= wanted, f"{pictures} masked pictures")

    def cover(self, pictures: int = 10) -> None:
        """Wait for so many more covered pictures."""
        wanted = self.judge.covered + pictures
        self.until(lambda: self.judge.covered >= wanted, f"{pictures} covered pictures")

    def count(self, name: str, times: int = 1) -> None:
        """Wait until the stream has counted an event so often."""
        self.until(lambda: self.events[name] >= times, f"{name}, {times} times")

    def end(self) -> None:
        """The fault is over; from here the way back is timed."""
        self.trouble = False
        self.ended_s = time.monotonic()

    @property
    def pictures(self) -> Pictures:
        """What left so far."""
        return Pictures(self.judge.pictures, self.judge.covered, self.judge.leaks)


def _told(run: Run, story: Story, name: str) -> Outcome:
    run.stream.start()
    try:
        return _followed(run, story, name)
    except Unfinished as late:
        return Outcome(name, str(late), run.pictures, None, "LEAKED" if run.judge.leaks else "not back")


def _followed(run: Run, story: Story, name: str) -> Outcome:
    run.settle()
    happened = story(run)
    if run.ended_s is None:
        run.end()
    run.settle()
    assert run.ended_s is not None
    after = bisect(run.judge.masked_s, run.ended_s)
    back_s = run.judge.masked_s[after] - run.ended_s
    run.stream.stop(wait_s=15.0)
    if run.stream.egress.without_receipt:
        raise Unfinished(f"{run.stream.egress.without_receipt} pictures came to the egress without a receipt")
    return Outcome(name, happened, run.pictures, round(back_s, 2), "LEAKED" if run.judge.leaks else "held")


def _with_camera(story: Callable[[Run, Camera], str]) -> Callable[[str], Outcome]:
    def tried(name: str) -> Outcome:
        with ExitStack() as stack:
            camera = stack.enter_context(Camera())
            run = Run(camera.url, stack)
            return _told(run, lambda run: story(run, camera), name)

    return tried


def _with_detector(fault: Callable[[Run], None], story: Story) -> Callable[[str], Outcome]:
    """A fault inside the detector, while the trouble is on."""

    def tried(name: str) -> Outcome:
        with ExitStack() as stack:
            camera = stack.enter_context(Camera())
            runs: list[Run] = []

            def before_each(_: int) -> None:
                if runs and runs[0].trouble:
                    fault(runs[0])

            runs.append(Run(camera.url, stack, ScriptedDetector(before_each)))
            return _told(runs[0], story, name)

    return tried


def nothing(run: Run, _: Camera) -> str:
    """No fault: the figures to compare with."""
    run.settle()
    return f"{run.stream.supervisor.reconnects} reconnects, {run.stream.supervisor.dropped} pictures dropped"


def server_dies(run: Run, camera: Camera) -> str:
    """The connection ends, new ones are refused, then the camera is back."""
    camera.die()
    run.cover()
    run.until(lambda: run.stream.supervisor.reconnects >= 2, "a refused connection")
    camera.revive()
    run.end()
    run.settle(1)
    return f"connection lost, then refused; connected again at try {run.stream.supervisor.reconnects}"


def half_open(run: Run, camera: Camera) -> str:
    """The camera falls silent without hanging up, then accepts and never sends."""
    camera.silent = True
    run.until(lambda: run.stream.supervisor.reconnects >= 1, "the silence to be noticed")
    run.until(lambda: camera.connections >= 2, "another connection")
    run.until(lambda: run.stream.supervisor.reconnects >= 2, "the second silence to be noticed")
    camera.silent = False
    run.end()
    run.settle(1)
    return "fell silent, then accepted and never sent; both were given up"


def stamps_jump(run: Run, camera: Camera) -> str:
    """The camera's time leaps forward and back."""
    for start_s in (5000.0, 3.0, 20_000.0):
        before = run.events["frames in"]
        camera.film = Film(start_s=start_s)
        run.until(lambda before=before: run.events["frames in"] > before + 30, "pictures after a jump")  # type: ignore[misc]
        run.settle(10)
    return "time leapt by +5000 s, -5000 s and +20000 s"


def size_changes(run: Run, camera: Camera) -> str:
    """The pictures get larger on the way, then smaller."""
    for size in (Size(640, 384), Size(160, 96), scene.SIZE):
        before = run.events["frames in"]
        camera.film = Film(size)
        run.until(lambda before=before: run.events["frames in"] > before + 30, "pictures of another size")  # type: ignore[misc]
        run.settle(10)
    sizes = ", ".join(f"{width} x {height}" for width, height in sorted(run.judge.sizes))
    if run.judge.sizes != {(scene.SIZE.width, scene.SIZE.height)}:
        raise Unfinished(f"the output changed its size: {sizes}")
    return f"320 x 192, 640 x 384, 160 x 96, 320 x 192 came in; {sizes} went out"


def flood(run: Run, camera: Camera) -> str:
    """Pictures come as fast as they can be sent."""
    camera.paced = False
    run.until(lambda: run.stream.supervisor.dropped > 200, "200 dropped pictures")
    camera.paced = True
    run.end()
    run.settle(1)
    return (
        f"{run.events['frames in']} pictures came, {run.stream.supervisor.dropped} were overtaken and dropped"
    )


def packet_loss(name: str) -> Outcome:
    """Datagrams get lost on the way."""

    def story(run: Run) -> str:
        for share in (0.05, 0.2):
            camera.loss = share
            lost = camera.lost
            run.until(lambda lost=lost: camera.lost >= lost + 10, "lost datagrams")  # type: ignore[misc]
        camera.loss = 0.0
        run.end()
        return f"{camera.lost} of {camera.sent} packets of MPEG-TS lost"

    with ExitStack() as stack:
        camera = stack.enter_context(UdpCamera())
        return _told(Run(camera.url, stack), story, name)


def _fails(_: Run) -> None:
    raise RuntimeError("out of memory")


def detector_raises(run: Run) -> str:
    """Every run of the detector fails for a while."""
    run.trouble = True
    run.count("detector failures", 20)
    run.end()
    return f"{run.events['detector failures']} runs failed"


def _hangs_once(run: Run) -> None:
    run.trouble = False
    time.sleep(2.0)
    run.end()


def detector_hangs(run: Run) -> str:
    """One run takes two seconds."""
    run.trouble = True
    run.cover(5)
    run.until(lambda: run.ended_s is not None, "the end of the run")
    return "one run took 2 s"


def _late(_: Run) -> None:
    time.sleep(0.8)


def detector_late(run: Run) -> str:
    """Every run takes longer than a picture may be old."""
    before = run.events["frames late"]
    run.trouble = True
    run.count("frames late", before + 3)
    run.end()
    return f"runs took 0.8 s; {run.events['frames late'] - before} pictures came too late and were dropped"


def tracker_raises(run: Run, _: Camera) -> str:
    """The tracker fails on every seventh picture for a while."""
    update: Callable[..., Any] = Tracker.update
    calls = [0]

    def sometimes(self: Tracker, *arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if run.trouble and calls[0] % 7 == 3:
            raise FloatingPointError("overflow")
        return update(self, *arguments, **named)

    run.trouble = True
    setattr(Tracker, "update", sometimes)  # noqa: B010 - see Note [One process for each fault]
    run.count("tracking failures", 4)
    run.end()
    return f"{run.events['tracking failures']} updates failed"


def encoder_raises(run: Run, _: Camera) -> str:
    """Five pictures in a row cannot be encoded."""
    encode: Callable[..., list[Encoded]] = LiveEncoder.encode

    def sometimes(self: LiveEncoder, *arguments: Any) -> list[Encoded]:
        if run.trouble:
            raise OutputError("the encoder failed")
        return encode(self, *arguments)

    run.trouble = True
    setattr(LiveEncoder, "encode", sometimes)  # noqa: B010 - see Note [One process for each fault]
    run.count("encoder failures", 5)
    run.end()
    run.settle(1)
    return f"{run.events['encoder failures']} pictures could not be encoded; the encoder was opened anew"


class _Stalled:
    """An outlet of which nobody reads."""

    name, codecs = "stalled", H264

    def __init__(self, stream: LiveStream) -> None:
        self.queue = PacketQueue(10, want_key=stream.want_key)

    def send(self, item: Encoded) -> None:
        """Queue it, as every outlet does that may be slow."""
        self.queue.put(item)

    def close(self) -> None:
        """Let go."""
        self.queue.close()

    def counters(self) -> dict[str, int | str]:
        """What was dropped."""
        return {"dropped": self.queue.dropped}


def viewer_stalls(run: Run, _: Camera) -> str:
    """A viewer takes nothing more; the others must not notice."""
    stalled = _Stalled(run.stream)
    run.judge.at_s.clear()
    run.stream.add(stalled)
    run.until(lambda: stalled.queue.dropped > 40, "40 pictures dropped for the slow viewer")
    silence_s = run.judge.longest_silence_s
    return f"{stalled.queue.dropped} pictures dropped for it; the others waited {silence_s:.2f} s at most"


def disk_full(name: str) -> Outcome:
    """No file may grow any further while a recording runs, then the disk is free again."""

    def story(run: Run) -> str:
        recorder = Recorder(folder, "camera", segment_s=2.0, want_key=run.stream.want_key)
        run.stream.add(recorder)
        run.until(lambda: int(recorder.counters()["written"]) > 10, "a recording")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        try:
            run.until(lambda: int(recorder.counters()["failures"]) >= 1, "a write that fails")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        run.end()
        files = recorder.counters()["files"]
        run.until(lambda: recorder.counters()["files"] != files, "a recording after the fault")
        counters = recorder.counters()
        return f"{counters['failures']} write failed, {counters['dropped']} pictures not recorded, then it went on"

    with tempfile.TemporaryDirectory(prefix="streamer-proof-") as place, ExitStack() as stack:
        folder = Path(place)
        camera = stack.enter_context(Camera())
        outcome = _told(Run(camera.url, stack), story, name)
        recorded = [pictures_of(path) for path in folder.iterdir()]
        leaks = sum(seen.uncovered for seen in recorded)
        unfinished = outcome.verdict == "held" and not all(seen.out for seen in recorded)
    if leaks:
        pictures = replace(outcome.pictures, uncovered=outcome.pictures.uncovered + leaks)
        return replace(outcome, pictures=pictures, verdict="LEAKED")
    return (
        replace(outcome, verdict="not back", happened="a recording does not play") if unfinished else outcome
    )


def blind(name: str) -> Outcome:
    """The judge's own proof: a detector that finds nothing, whose pictures the judge must object to."""

    class Blind(ScriptedDetector):
        def __call__(self, frame: Frame, *, share: float = 1.0) -> Any:
            return super().__call__(frame, share=share).take([])  # type: ignore[arg-type]

    with ExitStack() as stack:
        camera = stack.enter_context(Camera())
        run = Run(camera.url, stack, Blind())
        run.stream.start()
        run.until(lambda: run.judge.leaks >= _SETTLED, "pictures that show the face")
        run.stream.stop(wait_s=15.0)
        return Outcome(name, "the detector found nothing", run.pictures, None, "LEAKED")


def pictures_of(path: Path) -> Pictures:
    """What a finished or unfinished file shows; nothing where it cannot be read."""
    kinds: list[scene.Kind] = []
    try:
        with av.open(str(path), format="mp4") as container:
            kinds.extend(scene.kind_of(scene.luma_of(picture)) for picture in container.decode(video=0))
    except (av.error.FFmpegError, ValueError, IndexError):
        pass  # what cannot be decoded shows nobody
    return Pictures(len(kinds), kinds.count("covered"), kinds.count("leak"))


STORIES: dict[str, Callable[[str], Outcome]] = {
    "no fault": _with_camera(nothing),
    "server dies and returns": _with_camera(server_dies),
    "half-open connection": _with_camera(half_open),
    "time stamps jump": _with_camera(stamps_jump),
    "resolution changes": _with_camera(size_changes),
    "packet loss": packet_loss,
    "detector raises": _with_detector(_fails, detector_raises),
    "detector hangs for 2 s": _with_detector(_hangs_once, detector_hangs),
    "detector is late": _with_detector(_late, detector_late),
    "tracker raises": _with_camera(tracker_raises),
    "encoder raises": _with_camera(encoder_raises),
    "queue flood": _with_camera(flood),
    "viewer stalls": _with_camera(viewer_stalls),
    "disk full while recording": disk_full,
}
