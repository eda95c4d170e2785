"""Compressed pictures of a live stream into a container, without encoding them again."""

import io
from typing import Any

import av

from streamer.closing import Closing
from streamer.media.sound import RATE

_AAC_TICKS = 1920  # 1024 samples in 1/90000 s
_INTERLEAVE = {"max_interleave_delta": "200000"}  # us that FFmpeg waits for a track that falls silent


class Remuxer(Closing):
    """Writes one stream's pictures to a file, a buffer or a server. The first one must be a key picture.

    Time starts at 0 with the first picture unless `keep_time`. With `sound` there is a track for AAC. FFmpeg's and the
    system's errors pass through: the owner knows the address and what to hide of it.
    """

    def __init__(
        self, target: Any, format_name: str, first: av.Packet, *, options: dict[str, str] | None = None,
        keep_time: bool = False, sound: bool = False,
    ) -> None:  # fmt: skip
        self._zero = 0 if keep_time else (first.pts or 0)
        self._last_dts = -1
        self._last_sound_dts = -1  # what was said before the first picture is not in it
        self._held: av.Packet | None = None
        self._container = av.open(target, "w", format=format_name, options={**(options or {}), **_INTERLEAVE})
        try:
            with av.open(io.BytesIO(bytes(first)), format="h264") as sample:
                self._stream = self._container.add_stream_from_template(sample.streams.video[0])
            self._stream.time_base = first.time_base
            self._sound = self._container.add_stream("aac", rate=RATE, layout="stereo") if sound else None
        except BaseException:
            self._container.close()
            raise

    def write(self, source: av.Packet) -> None:
        """Add the next picture; it is written once the one after it tells how long it lasts."""
        packet = av.Packet(bytes(source))
        packet.pts = packet.dts = max((source.pts or 0) - self._zero, self._last_dts + 1)
        packet.time_base = source.time_base
        packet.is_keyframe = source.is_keyframe
        self._last_dts = packet.dts
        self._flush(packet.dts)
        packet.stream = self._stream
        self._held = packet

    def write_now(self, source: av.Packet) -> None:
        """Add the next picture and write it at once: for servers, where waiting would delay it by one picture."""
        self.write(source)
        self._flush(None)

    def write_sound(self, source: av.Packet) -> None:
        """Add the next piece of sound, if there is a track for it."""
        if self._sound is None:
            return
        packet = av.Packet(bytes(source))
        packet.pts = packet.dts = (source.pts or 0) - self._zero
        if packet.dts <= self._last_sound_dts:
            return
        self._last_sound_dts = packet.dts
        packet.time_base, packet.duration, packet.stream = source.time_base, _AAC_TICKS, self._sound
        self._container.mux_one(packet)

    def _flush(self, next_dts: int | None) -> None:
        packet, self._held = self._held, None
        if packet is None:
            return
        if next_dts is not None and packet.dts is not None:
            packet.duration = next_dts - packet.dts
        self._container.mux_one(packet)

    def close(self) -> None:
        """Write what is held and the trailer."""
        try:
            self._flush(None)
        finally:
            self._container.close()
