"""Whether a file is whole: FFmpeg ends without an error where the file does, and so does a file that was cut off."""

from pathlib import Path

import av

from streamer.media import asf, matroska, riff
from streamer.media.mp4 import movies
from streamer.media.torn import dv_is_torn, gif_is_torn, ogg_is_torn, ps_is_torn, ts_is_torn
from streamer.tally import Tally

_SAID = {"matroska,webm": matroska.end_of, "asf": asf.end_of, "avi": riff.end_of}
_TORN = {
    "mpegts": ts_is_torn, "mpeg": ps_is_torn, "ogg": ogg_is_torn, "gif": gif_is_torn, "dv": dv_is_torn,
}  # fmt: skip
_OPEN = frozenset({"mpeg", "mpegts"})  # where only the next packet tells that one is whole
_BARE = "yuv4mpegpipe"  # a format of pictures alone, in which nothing follows the last one
_INDEXED = "nut"  # a format in which an index does


class Ending:
    """What a file says of its own length when it is opened, to be compared when all of it was read."""

    def __init__(self, path: Path, container: av.container.InputContainer, tally: Tally) -> None:
        self._path = path
        self._tally = tally
        self._bytes = path.stat().st_size
        self._format = container.format.name
        self._end = _SAID[self._format](path) if self._format in _SAID else None
        self._torn = self._format in _TORN and _TORN[self._format](path)
        self._is_mp4 = self._format.startswith("mov")
        if self._is_mp4 and movies(path) > 1:
            tally.note("several files were glued together: only the first is read, or not all of the others")

    def reached(self, stream: av.VideoStream, read: int, last: av.Packet | None) -> None:
        """Note what is missing, now that `read` whole packets of the video stream were all that came, and `last` came
        last of all streams.
        """
        size = self._size_now()
        entries = stream.index_entries
        changed = size != self._bytes
        if changed:
            self._tally.note(f"the file was changed while it was read, from {self._bytes} to {size} bytes")
        lost = len(entries) - read if self._is_mp4 else 0  # other indices grow as a file is read
        if lost > 0 and (changed or any(entry.pos + entry.size > size for entry in entries)):
            self._cut(f"{lost} of {len(entries)} pictures could not be read")
        elif self._end is not None and size < self._end:
            self._cut(f"{self._end - size} of its {self._end} bytes are missing")
        elif self._format == _INDEXED and last is not None and (last.pos or 0) + last.size >= size:
            self._cut("its end is missing")
        elif self._torn or (last is not None and self._is_torn(last, size)):
            self._cut("it ends in the middle of a packet")

    def _is_torn(self, last: av.Packet, size: int) -> bool:
        if self._format == _BARE and last.pos is not None:
            return last.pos + last.size < size
        return last.is_corrupt and self._format not in _OPEN

    def _cut(self, what: str) -> None:
        self._tally.note(f"the file is cut off: {what}")
        self._tally.events["read errors"] += 1

    def _size_now(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:  # it was deleted: it stays until it is closed
            return self._bytes
