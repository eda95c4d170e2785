"""The one door through which a live picture leaves: what was encoded from a redacted frame, and nothing else.

# Note [Egress]
An encoder takes only `Redacted`; what it makes is `Encoded`, which carries the receipt along. Viewers, pushes, segments
and recordings are `Outlet`s of one `Egress` and are given nothing but what it admits. Whatever arrives there
without a receipt is refused and counted; that count stays 0 as long as the program is right.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import av

from streamer.channel import Channel
from streamer.clock import RETRY_S, SYSTEM, Clock
from streamer.errors import RedactionError
from streamer.frame import FrameResult


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One compressed picture made from a redacted frame, or sound that goes with one (see Note [Sound]).

    Its packet is shared by all outlets: read it, never write.
    """

    packet: av.Packet  # Annex B for H.264, parameter sets before every key picture; time_base 1/90000
    codec: str  # "h264", "vp8", "opus" or "aac"
    result: FrameResult  # the receipt

    @property
    def key(self) -> bool:
        """Whether it is a picture at which decoding can start."""
        return self.packet.is_keyframe and not self.is_sound

    @property
    def is_sound(self) -> bool:
        """Whether it is sound."""
        return self.codec in SOUND


_AGAIN_S = RETRY_S
SOUND = frozenset({"opus", "aac"})
H264 = frozenset({"h264"})
H264_AAC = frozenset({"h264", "aac"})
H264_OPUS = frozenset({"h264", "opus"})


def no_sound() -> bool:
    """For outlets of streams without sound."""
    return False


class Outlet(Protocol):
    """Somewhere encoded pictures go. `send` never waits."""

    name: str  # without secrets
    codecs: frozenset[str]  # what it is given

    def send(self, item: Encoded) -> None:
        """Take the next picture, or drop it and count it."""

    def close(self) -> None:
        """Finish: what was sent is complete after this."""

    def counters(self) -> dict[str, int | str]:
        """What it did so far."""


@dataclass(slots=True)
class _Service:
    """One outlet, and whether it is left alone because it raised."""

    outlet: Outlet
    tries: int = 0  # failures since it last took a picture
    until_s: float | None = None  # when it is tried again, at the next key picture; None: it is served
    broken: set[str] = field(default_factory=set)  # codecs that go on at a key picture of their own


class Egress:
    """Hands each encoded picture to every outlet.

    One that raises slows nobody: it is left alone for 1, 2, 5, 10, then always 30 s, and served again from a key
    picture on.
    """

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self.without_receipt = 0
        self.passed = 0
        self.failures = 0  # times that an outlet raised
        self.closed = False
        self.failed: dict[str, str] = {}  # why those raised that are left alone now
        self._clock = clock
        self._services: tuple[_Service, ...] = ()

    @property
    def outlets(self) -> tuple[Outlet, ...]:
        """Those that are served, now or after a rest."""
        return tuple(service.outlet for service in self._services)

    def add(self, outlet: Outlet) -> None:
        """Serve one more outlet."""
        self._services = (*self._services, _Service(outlet))

    def send(self, item: object) -> None:
        """Let one picture leave. Raises RedactionError for anything that holds no receipt."""
        if not isinstance(item, Encoded) or not isinstance(item.result, FrameResult):
            self.without_receipt += 1
            raise RedactionError(f"refused to send what holds no receipt: {type(item).__name__}")
        self.passed += 1
        for service in self._services:
            if item.codec in service.outlet.codecs and self._is_due(service, item):
                self._serve(service, item)

    def _is_due(self, service: _Service, item: Encoded) -> bool:
        if service.until_s is not None and self._clock.now() < service.until_s:
            return False
        leads = H264 if item.is_sound else {item.codec}
        return item.key or not service.broken & leads

    def _serve(self, service: _Service, item: Encoded) -> None:
        name = service.outlet.name
        try:
            service.outlet.send(item)
        except Exception as error:  # noqa: BLE001 - one outlet must not hurt the others
            self.failures += 1
            self.failed[name] = f"{type(error).__name__}: {error}"
            service.until_s = self._clock.now() + _AGAIN_S[min(service.tries, len(_AGAIN_S) - 1)]
            service.tries += 1
            service.broken = set(service.outlet.codecs - SOUND)
            return
        if item.key:
            service.broken.discard(item.codec)
        if service.until_s is not None:
            service.until_s = None
            self.failed.pop(name, None)
        elif item.key:  # it took a whole group
            service.tries = 0

    def close(self) -> None:
        """Finish every outlet."""
        self.closed = True
        services, self._services = self._services, ()
        for service in services:
            try:
                service.outlet.close()
            except Exception as error:  # noqa: BLE001 - the others must be finished too
                self.failed[service.outlet.name] = f"{type(error).__name__}: {error}"


class KeyframeGate:
    """Decides which pictures one reader gets: after a gap none until the next key picture."""

    def __init__(self) -> None:
        self.dropped = 0
        self._broken = True

    def admits(self, item: Encoded, *, full: bool) -> bool:
        """Whether the reader gets this picture; one that finds its queue full breaks the chain.

        Sound passes while pictures do.
        """
        if item.is_sound:
            return not self._broken and not full
        if item.key and not full:
            self._broken = False
        elif full:
            self._broken = True
        if self._broken:
            self.dropped += 1
        return not self._broken

    def cut(self) -> None:
        """The picture that was admitted did not reach the reader."""
        self._broken = True
        self.dropped += 1

    @property
    def waiting(self) -> bool:
        """Whether nothing can be sent before a key picture comes."""
        return self._broken


class PacketQueue:
    """A bounded queue between the encoder and one slow thing on a thread of its own."""

    def __init__(self, size: int, *, want_key: Callable[[], None]) -> None:
        self._gate = KeyframeGate()
        self._channel: Channel[Encoded] = Channel(size)
        self._size = size
        self._want_key = want_key

    @property
    def dropped(self) -> int:
        """Pictures that the reader was too slow for, or that came before its first key picture."""
        return self._gate.dropped

    def put(self, item: Encoded) -> None:
        """Add a picture, or drop it if the reader is too slow; then ask for a key picture once."""
        was_waiting = self._gate.waiting
        if self._gate.admits(item, full=len(self._channel) >= self._size):
            self._channel.put(item)
        elif not was_waiting and not item.is_sound:
            self._want_key()

    def get(self, timeout_s: float | None = None) -> Encoded:
        """The oldest picture. Raises Closed at the end, TimeoutError when late."""
        return self._channel.get(timeout_s)

    def finish(self) -> None:
        """No more pictures will come; what waits is still read."""
        self._channel.finish()

    def close(self) -> None:
        """Let go of what waits."""
        self._channel.close()
