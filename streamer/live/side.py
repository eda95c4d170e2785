"""The second encode, in VP8, for viewers that cannot H.264: made only while one of them watches."""

from collections.abc import Callable
from contextlib import suppress

from streamer.channel import Channel, Closed, NoThreadError, Worker
from streamer.clock import Clock
from streamer.frame import Redacted
from streamer.media.egress import Egress
from streamer.media.live_encoder import EncoderSpec, LiveEncoder

_AGAIN_S = 2.0  # after it failed, until it is begun again


class SideEncoding:
    """Belongs to the egress thread of one stream, but for `want_key`."""

    def __init__(self, egress: Egress, clock: Clock) -> None:
        self.wanted: Callable[[], bool] = lambda: False  # whether a viewer needs VP8
        self._egress = egress
        self._clock = clock
        self._encoder: SideEncoder | None = None
        self._again_s = float("-inf")

    def want_key(self) -> None:
        """Make a key picture soon. May be called from any thread."""
        if (encoder := self._encoder) is not None:
            encoder.want_key()

    def send(self, item: Redacted, pts: int, *, rate: float) -> Exception | None:
        """Encode this picture when there is time, if it is wanted; what has gone wrong since the last one."""
        failed: Exception | None = None
        if self._encoder is not None and self._encoder.error is not None:
            failed = self._encoder.error
            self.close()
        if not self.wanted():
            self.close()
        elif failed is None and self._encoder is None and self._clock.now() >= self._again_s:
            try:
                self._encoder = SideEncoder(EncoderSpec(item.frame.size, rate, "vp8"), self._egress)
            except NoThreadError as error:
                failed = error
        if failed is not None:
            self._again_s = self._clock.now() + _AGAIN_S
        if self._encoder is not None:
            self._encoder.send(item, pts)
        return failed

    def close(self) -> None:
        """End the encoder, if there is one."""
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.close()


class SideEncoder:
    """An encoder on a thread of its own. Newest picture wins.

    What it fails of stands in `error` and hurts nobody else.
    """

    def __init__(self, spec: EncoderSpec, egress: Egress) -> None:
        """Raises NoThreadError."""
        self._spec = spec
        self._encoder: LiveEncoder | None = None
        self._egress = egress
        self._channel: Channel[tuple[Redacted, int]] = Channel(1, lossy=True)
        self._worker = Worker(self._run, name="vp8")

    @property
    def error(self) -> Exception | None:
        """What ended it."""
        error = self._worker.error
        return error if isinstance(error, Exception) else None

    def want_key(self) -> None:
        """Make a key picture soon."""
        if self._encoder is not None:  # the first picture is one
            self._encoder.want_key()

    def send(self, item: Redacted, pts: int) -> None:
        """Encode this picture when there is time."""
        with suppress(Closed):
            self._channel.put((item, pts))

    def close(self) -> None:
        """End the thread."""
        self._channel.close()
        self._worker.join(2.0)

    def _run(self) -> None:
        self._encoder = encoder = LiveEncoder(self._spec)
        while True:
            for packet in encoder.encode(*self._channel.get()):
                self._egress.send(packet)
