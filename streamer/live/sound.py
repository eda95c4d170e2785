"""Sound of one stream, which waits until the pictures of its time leave: see Note [Sound]."""

from collections import deque
from collections.abc import Collection

from streamer.clock import Clock
from streamer.frame import FrameResult
from streamer.media.egress import Encoded
from streamer.media.sound import Sound, SoundEncoder

_MOST = 400  # pieces of 20 ms that wait: more than the longest look-ahead
_SILENT_S = 3.0  # without sound, until the stream counts as one without


class SoundTrack:
    """Written by the reader's thread, emptied by the egress thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[tuple[int, Sound]] = deque(maxlen=_MOST)
        self._encoders: dict[str, SoundEncoder] = {}
        self._until_s = float("-inf")

    def expect(self, comes: bool) -> None:
        """A connection has begun, whose source says that it sends sound, or not."""
        if comes:
            self._until_s = self._clock.now() + _SILENT_S

    def put(self, sound: Sound, pts: int) -> None:
        """Sound that belongs to `pts` on the stream's time line, in 1/90000 s."""
        self._until_s = self._clock.now() + _SILENT_S
        self._waiting.append((pts, sound))

    @property
    def comes(self) -> bool:
        """Whether there is sound, or will be in a moment."""
        return self._clock.now() < self._until_s

    def release(self, until: int, shift: int, codecs: Collection[str], receipt: FrameResult) -> list[Encoded]:
        """What belongs to the time up to the picture with the pts `until` and its receipt, in each of the codecs.

        Pictures leave `shift` later on the time line than they came. Raises OutputError if an encoder fails.
        """
        for codec in self._encoders.keys() - codecs:
            del self._encoders[codec]
        made: list[Encoded] = []
        while self._waiting and self._waiting[0][0] + shift <= until:
            pts, sound = self._waiting.popleft()
            for codec in codecs:
                made += self._encoder(codec).encode(sound, pts + shift, receipt)
        return made

    def _encoder(self, codec: str) -> SoundEncoder:
        if codec not in self._encoders:
            self._encoders[codec] = SoundEncoder(codec)
        return self._encoders[codec]
