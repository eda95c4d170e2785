"""Keeps one source connected, whatever it does: retries, stalls, time stamps, and when to begin anew.

# Note [Sessions]
A session is a run of frames that belong together: same connection, same settings, same shape of the source's pictures.
Each gets a tracker of its own. A lost or silent connection ends the session; what is sent meanwhile is covered (see
Note [Late pictures]). The reader of a connection is a thread of its own, so that one that hangs in the network can be
left behind.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from streamer.channel import Channel, Closed, NoThreadError, Worker, feed
from streamer.clock import SYSTEM, Clock
from streamer.frame import Frame, Size
from streamer.live.settings import StreamSettings
from streamer.live.timing import Backoff, Timeline
from streamer.media.hardware import LiveDecoding
from streamer.media.live_source import AwaitsKey, LiveSource
from streamer.media.live_spec import LiveSpec
from streamer.media.sound import Sound
from streamer.tally import Tally

State = Literal["starting", "live", "offline", "ended", "stopped"]
Connect = Callable[
    [Size | None], Iterator[Frame | Sound | AwaitsKey]
]  # one connection; pictures are scaled to the size, if given

STALL_S = 10.0  # without a picture
_OPENING_S = 15.0  # until the first picture
_KEY_S = 80.0  # the same, where it waits for a key picture: longer than the source itself does
_POLL_S = 0.1
_MOST_LEFT_BEHIND = 3  # readers that hang and cannot be ended


@dataclass(slots=True)
class _Line:
    """One connection and its reader."""

    channel: Channel[Frame]
    reader: Worker
    since_s: float
    last_s: float | None = None  # of the last picture
    next_index: int | None = None
    layout: int = 0  # of the session's frames
    waiting: Frame | None = None  # the first frame of the next session
    awaits_key: bool = False  # pictures come, but none that shows without those before
    over: str | None = None  # why it is of no more use
    finished: bool = field(default=False)  # it ended by itself, without an error

    @property
    def held_s(self) -> float:
        return 0.0 if self.last_s is None else self.last_s - self.since_s


def connect_to(
    settings: StreamSettings, tally: Tally, clock: Clock = SYSTEM,
    announce: Callable[[bool], None] = lambda sound: None, decoding: LiveDecoding | None = None,
) -> Connect:  # fmt: skip
    """How a stream's source is connected to, once; `announce` is told whether sound will come."""
    keep = settings.audio == "keep"
    spec = LiveSpec(settings.source, settings.transport, loop=settings.loop, sound=keep)

    def connect(size: Size | None) -> Iterator[Frame | Sound | AwaitsKey]:
        with LiveSource(spec, tally=tally, size=size, clock=clock, decoding=decoding) as source:
            announce(source.has_sound)
            yield from source

    return connect


class Supervisor:
    """Gives the sessions of one source, one after the other, until it is stopped.

    A source that ends is over when it has ended, or has given no picture twice.
    """

    def __init__(
        self, connect: Connect, timeline: Timeline, *, tally: Tally, ends: bool = False, clock: Clock = SYSTEM,
        listens: bool = False, hear: Callable[[Sound, int], None] = lambda sound, pts: None,
    ) -> None:  # fmt: skip
        """`hear` is given the source's sound and its pts, on the reader's thread.

        Where the source `listens`, there is nothing to spare by waiting longer and longer: the sender would find
        nobody.
        """
        self.state: State = "starting"
        self.problem: str | None = None
        self.size: Size | None = None
        self.first_s: float | None = None  # when the first picture of all came
        self.reconnects = 0
        self._connect = connect
        self._timeline = timeline
        self._tally = tally
        self._ends = ends
        self._listens = listens
        self._clock = clock
        self._hear = hear
        self._backoff = Backoff()
        self._line: _Line | None = None
        self._left_behind: list[Worker] = []
        self._dropped = 0
        self._renew = self._stopped = False

    @property
    def dropped(self) -> int:
        """Decoded pictures that were overtaken by newer ones before detection."""
        line = self._line
        return self._dropped + (line.channel.dropped if line is not None else 0)

    def renew(self) -> None:
        """Begin a new session on the same connection: settings have changed. May be called from any thread."""
        self._renew = True

    def stop(self) -> None:
        """End the current session and all to come. May be called from any thread."""
        self._stopped = True

    def sessions(self) -> Iterator[Iterator[Frame]]:
        """The sessions; each must be used up or closed before the next."""
        try:
            while not self._stopped:
                line = self._line or self._dial()
                if line is None:
                    self._wait(1.0)
                    continue
                self._renew = False  # before the settings are read: a change after that begins anew
                yield self._frames(line)
                if line.over is not None:
                    self._hang_up(line)
                    if self._ends and (line.finished or (line.last_s is None and self.reconnects)):
                        self.state = "ended"
                        self.problem = None if line.finished else line.over
                        return
                    self._offline(line)
        finally:
            if self._line is not None:
                self._hang_up(self._line)
            if self.state != "ended":
                self.state = "stopped"

    def _dial(self) -> _Line | None:
        self._left_behind = [reader for reader in self._left_behind if reader.alive]
        if len(self._left_behind) >= _MOST_LEFT_BEHIND:
            self.problem = "earlier connections hang in the system and cannot be ended"
            return None
        channel: Channel[Frame] = Channel(1, lossy=True)
        self._timeline.restart()
        try:
            reader = feed(self._stamped(channel), channel, name="reader")
        except NoThreadError as error:
            self.problem = str(error)
            return None
        self._line = _Line(channel, reader, self._clock.now())
        return self._line

    def _stamped(self, channel: Channel[Frame]) -> Iterator[Frame]:
        """The connection's frames on our time line; runs on the reader's thread."""
        for frame in self._connect(self.size):
            if isinstance(frame, Sound):
                at = self._timeline.place(frame.time_s, at_s=self._clock.now())
                if at is not None and self._line is not None and self._line.channel is channel:
                    self._hear(frame, at)
                continue
            if isinstance(frame, AwaitsKey):
                if self._line is not None and self._line.channel is channel:
                    self._line.awaits_key = True
                continue
            if channel.closed:
                return  # it hung and was left behind: it must not move the time line of those after it
            pts = self._timeline.stamp(frame.time_s, at_s=self._clock.now())
            self._tally.events["frames in"] += 1
            yield replace(frame, pts=pts)

    def _frames(self, line: _Line) -> Iterator[Frame]:
        if line.waiting is not None:
            first, line.waiting = line.waiting, None
            yield self._taken(line, first)
        while not self._stopped and not self._renew:
            now_s = self._clock.now()
            try:
                frame = line.channel.get(timeout_s=_POLL_S)
            except TimeoutError:
                silent_s = now_s - (line.last_s or line.since_s)
                limit_s = STALL_S
                if line.last_s is None:
                    limit_s = _OPENING_S
                    if line.awaits_key:
                        limit_s, self.problem = _KEY_S, "waits for the source's next key picture"
                if silent_s > limit_s:
                    line.over = f"no picture for {silent_s:.0f} s"
                    return
                continue
            except Closed:
                line.over, line.finished = "the stream ended", True
                return
            except Exception as error:  # noqa: BLE001 - whatever a connection dies of, it is tried again
                line.over = str(error) or type(error).__name__
                return
            if frame.layout != line.layout:
                line.layout, line.waiting = frame.layout, frame
                return
            yield self._taken(line, frame)

    def _taken(self, line: _Line, frame: Frame) -> Frame:
        line.last_s = self._clock.now()
        self.first_s = self.first_s or line.last_s
        self.size = self.size or frame.size
        self.state, self.problem = "live", None
        followed = frame.index == line.next_index
        line.next_index = frame.index + 1
        # motion vectors point to the picture before, which has been dropped
        return frame if followed or frame.vectors is None else replace(frame, vectors=None)

    def _hang_up(self, line: _Line) -> None:
        line.channel.close()
        self._dropped += line.channel.dropped
        self._line = None
        if not line.reader.join(0.5):
            self._left_behind.append(line.reader)
            self._tally.events["readers left behind"] += 1

    def _offline(self, line: _Line) -> None:
        self.state, self.problem = "offline", line.over
        self.reconnects += 1
        backoff = Backoff() if self._listens else self._backoff
        self._wait(backoff.next_s(held_s=line.held_s))

    def _wait(self, seconds: float) -> None:
        until_s = self._clock.now() + seconds
        while not self._stopped and self._clock.now() < until_s:
            self._clock.sleep(_POLL_S)
