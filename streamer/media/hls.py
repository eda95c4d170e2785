"""HLS (RFC 8216) from memory: a window of MPEG-TS segments that begin with key pictures, and their playlist.

# Note [Discontinuities]
Where time, tracks or the encoder's parameters do not go on from the segment before, EXT-X-DISCONTINUITY stands between
(4.3.2.3), and EXT-X-DISCONTINUITY-SEQUENCE counts those that have left the playlist (4.3.3.3, 6.2.2): a segment keeps
its number, by which players know time lines apart. A stream that begins anew under its name is such a break too:
its time starts at 0 again. It goes on with the playlist of the one before; after a restart of the program, where that
is lost, all numbers begin with the clock (see `first_number`), each time with larger ones.
"""

import io
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from streamer.channel import Turns
from streamer.media import nal
from streamer.media.continuity import Continuity
from streamer.media.egress import H264_AAC, Encoded, KeyframeGate, no_sound
from streamer.media.live_encoder import KEY_EVERY_S
from streamer.media.remux import Remuxer

_WINDOW = 6  # segments in the playlist
_KEPT = 9  # segments that can still be fetched
_SHORTEST = (
    0.6  # length of a segment, in usual ones; with the key pictures that viewers ask for, 1.6 is the longest
)
_MOST_BYTES = 64 << 20  # of one segment


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of the stream."""

    number: int
    seconds: float
    data: bytes  # MPEG-TS
    breaks: int = 0  # discontinuities of the stream up to its beginning


def first_number() -> int:
    """Of a stream's segments: larger than the last one that it had before it began anew, also after a restart.

    Players wait for the number that follows what they have seen, and caches keep a segment by its name (RFC 8216,
    6.2.1 and 6.2.2). A segment is longer than a second, so that the seconds of the wall clock are ahead.
    """
    return int(time.time())


class Hls:
    """An `Outlet` whose playlist and segments a web server hands out. Holds at most `_KEPT` segments.

    With `before`, which had the same name and sends no more, its playlist goes on: players stop at one that is missing.
    """

    name = "hls"
    codecs = H264_AAC

    def __init__(self, has_sound: Callable[[], bool] = no_sound, before: "Hls | None" = None) -> None:
        self._has_sound = has_sound
        self._form: tuple[bool, list[bytes]] | None = None  # of the segment that grows: sound, parameter sets
        self._cut = False  # whether that does not go on from the one before
        self._breaks = 0
        self._turns = Turns()
        self._segments: deque[Segment] = deque(maxlen=_KEPT)
        self._gate = KeyframeGate()
        self._continuity = Continuity()
        self._buffer = io.BytesIO()
        self._remuxer: Remuxer | None = None
        self._start_pts = 0
        self._last_pts = 0
        self._target = _rounded((1 + _SHORTEST) * KEY_EVERY_S)  # seconds; players expect it to stay (6.2.1)
        self._number = self._first = first_number()
        self._lost = False  # a segment, since the last whole one
        self._ended = False
        if before is not None:
            self._segments.extend(before._segments)
            self._number, self._first, self._target = before._number, before._first, before._target
            self._breaks, self._lost = before._breaks, True
            self._continuity = before._continuity

    def send(self, item: Encoded) -> None:
        """Add a picture to the segment that grows; a key picture that is not too early begins the next.

        What goes wrong is raised and costs that segment: a new one begins with the next key picture.
        """
        if not self._gate.admits(item, full=False):
            return
        try:
            self._add(item)
        except BaseException:
            self._remuxer, self._lost = None, True
            self._gate.cut()
            raise

    def _add(self, item: Encoded) -> None:
        if item.is_sound:
            if self._remuxer is not None and self._buffer.tell() < _MOST_BYTES:
                self._remuxer.write_sound(item.packet)
            return
        pts = item.packet.pts or 0
        old_enough = pts - self._start_pts >= round(KEY_EVERY_S * _SHORTEST * 90_000)
        if item.key and (self._remuxer is None or old_enough):
            self._finish(pts)
            self._buffer = io.BytesIO()
            sound = self._has_sound()
            self._remuxer = Remuxer(self._buffer, "mpegts", item.packet, keep_time=True, sound=sound)
            self._begin_form(sound, nal.parameter_sets(bytes(item.packet)))
            self._start_pts = pts
        if self._remuxer is not None and self._buffer.tell() < _MOST_BYTES:
            self._remuxer.write(item.packet)
            self._last_pts = pts

    def _begin_form(self, sound: bool, sets: list[bytes]) -> None:
        before, self._form = self._form, (sound, sets)
        self._cut = self._lost or before not in (None, self._form)

    def _finish(self, end_pts: int) -> None:
        if self._remuxer is None:
            return
        remuxer, self._remuxer = self._remuxer, None
        remuxer.close()
        seconds = (end_pts - self._start_pts) / 90_000
        data = self._continuity.continued(self._buffer.getvalue())
        self._breaks += self._cut
        segment = Segment(self._number, seconds, data, self._breaks)
        self._number += 1
        self._lost = False
        with self._turns:
            self._target = max(self._target, _rounded(seconds))
            self._segments.append(segment)

    def close(self) -> None:
        """End the last segment and the playlist."""
        self._ended = True
        self._finish(self._last_pts)

    def counters(self) -> dict[str, int | str]:
        """Segments made and pictures left out."""
        return {"segments": self._number - self._first, "dropped": self._gate.dropped}

    def playlist(self) -> str | None:
        """The media playlist; None before the first segment is whole."""
        with self._turns:
            window, before = list(self._segments)[-_WINDOW:], list(self._segments)[:-_WINDOW]
            target = self._target
        if not window:
            return None
        gone = before[-1].breaks if before else 0
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{target}"]
        lines.append(f"#EXT-X-MEDIA-SEQUENCE:{window[0].number}")
        lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{self._first + gone}")
        for segment in window:
            if segment.breaks > gone:
                lines.append("#EXT-X-DISCONTINUITY")
                gone = segment.breaks
            lines += [f"#EXTINF:{segment.seconds:.3f},", f"segment{segment.number}.ts"]
        if self._ended:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join(lines) + "\n"

    def segment(self, number: int) -> bytes | None:
        """The bytes of a segment that is still held."""
        with self._turns:
            return next((one.data for one in self._segments if one.number == number), None)


def _rounded(seconds: float) -> int:
    """To the nearest integer, at least 1, as EXT-X-TARGETDURATION is compared."""
    return max(1, int(seconds + 0.5))
