"""Records a stream into segments, each a file that plays by itself, also after a crash.

# Note [Segments and crashes]
A segment grows as NAME.mp4.part and gets its name when it is whole. It is written as fragmented MP4, one fragment
for each key picture, flushed to the disk: what a crash leaves is playable up to its last fragment, and the next
start puts it under its name. It is locked while it grows (see Note [Two runs on one file]): two processes may record
into one folder under one name, and what another one writes is no leftover. Whether somebody deleted it, with its
folder or alone, is looked at before each key picture.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from streamer.channel import Closed, Worker
from streamer.clock import SYSTEM, Clock
from streamer.errors import OutputError
from streamer.media.egress import H264_AAC, Encoded, PacketQueue, no_sound
from streamer.media.remux import Remuxer
from streamer.part import Part, PartHeldError, part_of

_QUEUE = 300  # pictures that wait for a slow disk
_RETRY_S = 5.0  # after the disk refused
_OPTIONS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}


class Recorder:
    """Writes `FOLDER/NAME-YYYYMMDD-HHMMSS-NNN.mp4`, an `Outlet` with a thread of its own.

    A full disk or a lost folder costs pictures of the recording, counted, and nothing else; it is tried again every
    5 s, and the folder is made again. Raises OutputError if it cannot be made at the start.
    """

    def __init__(
        self, folder: Path, stream: str, *, segment_s: float = 60.0, want_key: Callable[[], None],
        clock: Clock = SYSTEM, has_sound: Callable[[], bool] = no_sound,
    ) -> None:  # fmt: skip
        self.name = "record"
        self.codecs = H264_AAC
        self._has_sound = has_sound
        self.problem: str | None = None
        self._folder = folder
        self._stream = stream
        self._length = round(segment_s * 90_000)
        self._clock = clock
        self._want_key = want_key
        self._queue = PacketQueue(_QUEUE, want_key=want_key)
        self._written = self._files = self._failures = self._skipped = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.recovered = recover(folder, stream)
        except OSError as error:
            raise OutputError(f"recordings cannot be written ({error.strerror}): {folder}") from error
        self._worker = Worker(self._run, name="record")

    def send(self, item: Encoded) -> None:
        """Queue a picture, or drop it while the disk is too slow."""
        self._queue.put(item)

    def close(self) -> None:
        """Write what waits and put the last segment under its name."""
        self._queue.finish()
        self._worker.join(30.0)

    def counters(self) -> dict[str, int | str]:
        """Files finished, pictures written and lost."""
        return {
            "files": self._files,
            "written": self._written,
            "dropped": self._queue.dropped + self._skipped,
            "failures": self._failures,
            **({"problem": self.problem} if self.problem else {}),
        }

    def _run(self) -> None:
        first: Encoded | None = self._queue.get()
        while first is not None:
            if not first.key:
                self._skipped += not first.is_sound
                first = self._next()
                continue
            try:
                first = self._write_segment(first)
            except Exception as error:  # noqa: BLE001 - whatever one file dies of, there is another
                self._failures += 1
                cause = error.__cause__ if isinstance(error, OutputError) else error
                self.problem = getattr(cause, "strerror", None) or type(error).__name__
                first = self._rest()

    def _next(self) -> Encoded | None:
        """The next picture; None at the end."""
        try:
            return self._queue.get()
        except Closed:
            return None

    def _write_segment(self, first: Encoded) -> Encoded | None:
        """Write one file that begins with `first`; the key picture that begins the next one, None at the end."""
        begin = first.packet.pts or 0
        item: Encoded | None = first
        with (
            self._new_part() as part,
            Remuxer(
                str(part.path), "mp4", first.packet, options=_OPTIONS, sound=self._has_sound()
            ) as remuxer,
        ):
            while item is not None:
                if item.is_sound:
                    remuxer.write_sound(item.packet)
                else:
                    remuxer.write(item.packet)
                    self._written += 1
                item = self._next()
                if item is not None and item.key:
                    enough = (item.packet.pts or 0) - begin >= self._length
                    if enough or not part.there:
                        break
        return item

    @contextmanager
    def _new_part(self) -> Iterator[Part]:
        """A file of this recorder alone while the block runs; after that it is put under its name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._free_part()
        try:
            yield part
        except BaseException:
            _put_under_name(part)
            raise
        if not part.there:
            part.leave()
            self._failures += 1
            self.problem = "a recording was deleted while it was written"
        elif _put_under_name(part):
            self._files += 1
            self.problem = None

    def _free_part(self) -> Part:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for number in range(1000):
            path = self._folder / f"{self._stream}-{stamp}-{number:03d}.mp4"
            if path.exists() or part_of(path).exists():
                continue
            try:
                return Part(path)
            except PartHeldError:
                continue
        raise OutputError(f"too many recordings within one second: {self._folder}")

    def _rest(self) -> Encoded | None:
        until_s = self._clock.now() + _RETRY_S
        while self._clock.now() < until_s:
            item = self._next()
            if item is None:
                return None
            self._skipped += not item.is_sound
        self._want_key()
        return self._next()


def recover(folder: Path, stream: str) -> int:
    """Put the segments that a crash left unfinished under their names; how many there were."""
    when = r"-\d{8}-\d{6}-\d{3}\.mp4\.part"  # all of it: NAME-2 may be running
    ours = re.compile(re.escape(stream) + when)
    return sum(_recover(part) for part in sorted(folder.iterdir()) if ours.fullmatch(part.name))


def _recover(part: Path) -> bool:
    try:
        return _put_under_name(Part(part.with_name(part.name.removesuffix(".part"))))
    except OutputError:
        return False  # another process writes it now, or it is not ours to touch


def _put_under_name(part: Part) -> bool:
    """Rename a segment if it holds a picture, else remove it; whether it was kept."""
    try:
        if _holds_pictures(part.path):
            part.keep()
            return True
        part.drop()
    except OSError:
        part.leave()
    return False


def _holds_pictures(path: Path) -> bool:
    try:
        with av.open(f"file:{path}", format="mp4") as container:
            return any(packet.size for packet in container.demux(video=0))
    except (av.error.FFmpegError, ValueError, IndexError):
        return False
