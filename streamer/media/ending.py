"""Whether a file is whole: FFmpeg ends without an error where the file does, and so does a file that was cut off."""

from pathlib import Path

import av

from streamer.media.matroska import end_of
from streamer.media.mp4 import movies
from streamer.tally import Tally


class Ending:
    """What a file says of its own length when it is opened, to be compared when all of it was read."""

    def __init__(self, path: Path, container: av.container.InputContainer, tally: Tally) -> None:
        self._path = path
        self._tally = tally
        self._bytes = path.stat().st_size
        self._end = end_of(path) if "matroska" in container.format.name else None
        if container.format.name.startswith("mov") and movies(path) > 1:
            tally.note("several files were glued together: only the first is read, or not all of the others")

    def reached(self, stream: av.VideoStream, read: int) -> None:
        """Note what is missing, now that `read` whole packets of the video stream were all that came."""
        size = self._size_now()
        entries = stream.index_entries
        changed = size != self._bytes
        if changed:
            self._tally.note(f"the file was changed while it was read, from {self._bytes} to {size} bytes")
        lost = len(entries) - read
        if lost > 0 and (changed or any(entry.pos + entry.size > size for entry in entries)):
            self._tally.note(f"the file is cut off: {lost} of {len(entries)} pictures could not be read")
            self._tally.events["read errors"] += 1
        elif self._end is not None and size < self._end:
            self._tally.note(f"the file is cut off: {self._end - size} of its {self._end} bytes are missing")
            self._tally.events["read errors"] += 1

    def _size_now(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:  # it was deleted: it stays until it is closed
            return self._bytes
