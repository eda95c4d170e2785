"""One live stream: source, anonymizer and encoder on a thread each, and the outlets behind one egress.

# Note [Threads of a stream]
reader (decodes) -> newest picture wins -> anonymizer -> one picture -> egress (encodes, hands out). The egress thread
alone keeps the time: when no picture comes, whatever the others hang in, it sends a covered one.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streamer.anonymizer import Means, anonymize, cover
from streamer.channel import Channel, Closed, Worker
from streamer.clock import SYSTEM, Clock
from streamer.config import Settings
from streamer.device.base import Device
from streamer.errors import OutputError, RedactionError
from streamer.frame import Frame, FrameResult, Redacted
from streamer.live.detecting import SharedDetector
from streamer.live.governor import Governor
from streamer.live.meter import Meter
from streamer.live.settings import StreamSettings
from streamer.live.side import SideEncoding
from streamer.live.sound import SoundTrack
from streamer.live.supervisor import Connect, Supervisor, connect_to
from streamer.live.timing import TIME_BASE, Pacer, Timeline
from streamer.media.egress import H264_OPUS, SOUND, Egress, Encoded, Outlet
from streamer.media.hardware import LiveDecoding
from streamer.media.live_encoder import EncoderSpec, LiveEncoder, LiveEncoding
from streamer.media.live_spec import LiveSpec
from streamer.tally import Tally
from streamer.zones import Zones

_REMEMBERED = 256  # results for whoever follows the objects of a stream
_FIRST_S = 2.0  # after the first picture came, until a covered one is sent although none is ready


@dataclass(frozen=True, slots=True)
class Studio:
    """What all streams of a process share."""

    settings: Settings
    device: Device
    reason: str  # why this device
    detector: SharedDetector
    zones: Zones
    clock: Clock = SYSTEM


class LiveStream:
    """One camera's protected stream. `start` it once; `stop` ends it for good and closes its outlets."""

    def __init__(
        self, name: str, settings: StreamSettings, studio: Studio, *, zones: Zones | None = None,
        connect: Connect | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.settings = settings
        self.tally = Tally()
        self.meter = Meter()
        self.egress = Egress(studio.clock)
        self.governor = Governor()
        self.results: deque[FrameResult] = deque(maxlen=_REMEMBERED)
        self.decoding = LiveDecoding(studio.device.video)
        self.encoding = LiveEncoding(studio.device.video)
        self.encoder: LiveEncoder | None = None
        self.side = SideEncoding(self.egress, studio.clock)
        self.wants_opus: Callable[[], bool] = lambda: False  # whether a viewer listens
        self._studio = studio
        self._zones = studio.zones if zones is None else zones
        self._clock = studio.clock
        self._sound = SoundTrack(self._clock)
        self._timeline = Timeline()
        self._pacer = Pacer(settings.late_ms / 1000, 0.0)
        self._set_limit(settings)
        self._done: Channel[Redacted] = Channel(1)
        spec = LiveSpec(settings.source)
        ends = spec.kind == "file" and not settings.loop
        self.supervisor = Supervisor(
            connect or connect_to(settings, self.tally, self._clock, self._sound.expect, self.decoding),
            self._timeline, tally=self.tally, ends=ends, clock=self._clock, listens=spec.listens,
            hear=self._sound.put,
        )  # fmt: skip
        self._workers: list[Worker] = []
        self._stopping = False

    def start(self) -> None:
        """Connect and begin."""
        self._workers = [
            Worker(self._anonymize, name=f"anonymize {self.name}"),
            Worker(self._send, name=f"egress {self.name}"),
        ]

    def end(self) -> None:
        """Begin to stop, without waiting."""
        self._stopping = True
        self.supervisor.stop()
        self._done.close()

    def stop(self, *, wait_s: float = 40.0) -> None:
        """End it: what is encoded reaches the outlets, recordings are closed. Waits for that up to `wait_s`."""
        self.end()
        until_s = self._clock.now() + wait_s
        for worker in reversed(self._workers):
            worker.join(max(0.1, until_s - self._clock.now()))

    def wait(self, timeout_s: float) -> bool:
        """Wait for a source that ends; whether everything has been sent."""
        return self._workers[-1].join(timeout_s)

    @property
    def failure(self) -> BaseException | None:
        """What ended a thread of the stream that should go on."""
        return next((worker.error for worker in self._workers if worker.error is not None), None)

    @property
    def over(self) -> bool:
        """Whether it has ended, by itself or because it was stopped: it never starts again."""
        return self._stopping or self.egress.closed or self.state in ("ended", "failed")

    @property
    def state(self) -> str:
        """starting, live, offline, ended or stopped; failed if a thread died."""
        return "failed" if self.failure is not None else self.supervisor.state

    def has_sound(self) -> bool:
        """Whether sound comes and is kept."""
        return self._sound.comes

    def want_key(self) -> None:
        """Ask for a key picture. May be called from any thread."""
        if self.encoder is not None:
            self.encoder.want_key()
        self.side.want_key()

    def change(self, settings: StreamSettings, zones: Zones) -> None:
        """Other masks from now on (style, classes, zones, delay), with a fresh tracker on the same connection."""
        self.settings, self._zones = settings, zones
        self._set_limit(settings)
        self.supervisor.renew()

    def _set_limit(self, settings: StreamSettings) -> None:
        self._pacer.limit_s = (settings.late_ms + settings.delay_ms) / 1000
        self._pacer.looks_ahead = settings.delay_ms > 0

    def _means(self) -> Means:
        settings = self.settings.apply_to(self._studio.settings)
        return Means(
            self._studio.detector.for_stream(settings.hide, lambda: self.governor.view),
            self._studio.detector.thresholds(settings.hide),
            self._studio.device,
            settings,
            self._zones,
            on_error="cover",
            mask_age_s=self.settings.mask_age_ms / 1000,
            stretch=lambda: self.governor.stretch,
            busy=self._studio.detector.busy,
        )

    def _anonymize(self) -> None:
        try:
            for frames in self.supervisor.sessions():
                self.tally.events["sessions"] += 1
                try:
                    for item in anonymize(frames, self._means(), self.tally):
                        if isinstance(item, Redacted):
                            self._done.put(item)
                except Closed:
                    return
                except Exception:  # noqa: BLE001 - nothing of the session leaves; the next one begins
                    self.tally.events["sessions failed"] += 1
                    frames.close()  # type: ignore[attr-defined]
        finally:
            self._done.finish()

    def _send(self) -> None:
        try:
            while not self._stopping:
                try:
                    ready = self._next()
                    if ready is None:
                        break
                    self._encode(*ready)
                except RedactionError:
                    raise
                except Exception as error:  # noqa: BLE001 - nothing uncovered has left; there is another picture
                    self.encoder = None  # what it made may not have left: the next picture is a key picture
                    self._failed("egress failures", error)
                    self._clock.sleep(self._pacer.interval_s)
        finally:
            self.side.close()
            self.egress.close()

    def _next(self) -> tuple[Redacted, int] | None:
        """The next picture that may leave and its pts; a covered one when it is overdue; None at the end."""
        while not self._stopping:
            wait_s = self._pacer.wait_s(self._clock.now())
            try:
                item = self._done.get(timeout_s=0.25 if wait_s is None else min(wait_s, 0.25))
            except TimeoutError:
                if self._overdue(wait_s is None):
                    return self._stand_in()
                continue
            except Closed:
                return None
            now_s = self._clock.now()
            came_s = self._timeline.arrival_s(item.frame.pts)
            age_s = now_s - came_s if came_s is not None else float("inf")
            pts = self._pacer.admit(item.frame.pts, age_s=age_s, now_s=now_s, index=item.frame.index)
            if pts is not None:
                return item, pts
            self.tally.events["frames late"] += 1
            if self._overdue(wait_s is None):
                return self._stand_in()
        return None

    def _overdue(self, first: bool) -> bool:
        now_s = self._clock.now()
        if first:
            first_s = self.supervisor.first_s
            if first_s is None or now_s - first_s < _FIRST_S + self.settings.delay_ms / 1000:
                return False
            self._pacer.begin(self._timeline.pts_at(now_s), now_s=now_s)
            return True
        return (self._pacer.wait_s(now_s) or 0.0) <= 0

    def _stand_in(self) -> tuple[Redacted, int]:
        """A covered picture in place of one that did not come; made in main memory, so that a lost GPU can cover."""
        size = self.supervisor.size
        assert size is not None
        even = size.even
        luma = np.zeros((even.height, even.width), np.uint8)
        chroma = np.zeros((even.height // 2, even.width // 2, 2), np.uint8)
        pts = self._pacer.stand_in(now_s=self._clock.now())
        why = "no picture in time" if self.supervisor.state == "live" else "the source is away"
        frame = Frame(luma, chroma, size, -1, pts, TIME_BASE)
        return cover(frame, why, self._studio.device, self.tally), pts

    def _encode(self, item: Redacted, pts: int) -> None:
        try:
            if self.encoder is None:
                rate, limit = min(60.0, max(1.0, 1 / self._pacer.interval_s)), self.settings.bit_rate
                self.encoder = LiveEncoder(EncoderSpec(item.frame.size, rate, bit_rate=limit), self.encoding)
            with self.tally.stage("encode"):
                packets = self.encoder.encode(item, pts)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing of the picture has left
            self._failed("encoder failures", error)
            self.encoder = None
            return
        with self.tally.stage("send"):
            for packet in (*self._sound_until(pts, item), *packets):
                self._hand_out(packet)
        failed = self.side.send(item, pts, rate=1 / self._pacer.interval_s)
        if failed is not None:
            self._failed("encoder failures", failed)
        self._note(item)

    def _failed(self, what: str, error: Exception) -> None:
        self.tally.events[what] += 1
        self.meter.trouble(error, self._clock.now())

    def _sound_until(self, pts: int, item: Redacted) -> list[Encoded]:
        """The sound that leaves with that picture."""
        outlets = self.egress.outlets
        codecs = {codec for outlet in outlets for codec in outlet.codecs & SOUND}
        if not self.wants_opus() and not any(outlet.codecs == H264_OPUS for outlet in outlets):
            codecs.discard("opus")
        try:
            return self._sound.release(pts, self._pacer.shift, codecs, item.result)
        except OutputError as error:
            self._failed("sound encoder failures", error)
            return []

    def _hand_out(self, packet: Encoded) -> None:
        before = self.egress.failures
        self.egress.send(packet)
        self.tally.events["outlets failed"] += self.egress.failures - before

    def _note(self, item: Redacted) -> None:
        now_s = self._clock.now()
        came_s = self._timeline.arrival_s(item.frame.pts)
        self.meter.sent(now_s, None if came_s is None else now_s - came_s)
        self.results.append(item.result)
        self.governor.update(
            frames=self.tally.events["frames in"], dropped=self.supervisor.dropped, at_s=now_s
        )

    def add(self, outlet: Outlet) -> None:
        """One more place for the encoded pictures."""
        self.egress.add(outlet)
        self.want_key()
