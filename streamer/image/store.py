"""Results on disk under names that nobody guesses, for a day; what is older goes, also after a restart."""

import os
import re
import secrets
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from streamer.errors import OutputError
from streamer.image.picture import EXTENSIONS, Format
from streamer.part import Part

DAY_S = 86_400.0

_NAME = re.compile(r"[A-Za-z0-9_-]{32}\.(?:jpg|png)")


@dataclass(slots=True)
class Store:
    """A private folder of masked pictures. Time is an argument, in seconds since the epoch."""

    folder: Path
    keep_s: float = DAY_S
    max_bytes: int = 4 << 30
    _used: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._make()

    def _make(self) -> None:
        """Make the folder, also again: what cleans temporary folders takes one that nobody wrote to for days."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = self.folder.lstat()
        except OSError as error:
            raise OutputError(
                f"the folder for results cannot be made ({error.strerror}): {self.folder}"
            ) from error
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise OutputError(
                f"the folder for results must be yours and writable by nobody else: {self.folder}"
            )

    def put(self, data: bytes, format: Format, *, now_s: float) -> Path:
        """A new file that holds `data`, complete or absent. Raises OutputError."""
        if self._used + len(data) > self.max_bytes:
            self.purge(now_s=now_s)
            if self._used + len(data) > self.max_bytes:
                raise OutputError("the store of results is full; try again later or ask for base64")
        self._make()
        path = self.folder / f"{secrets.token_urlsafe(24)}.{EXTENSIONS[format]}"
        write_whole(path, data)
        os.utime(path, (now_s, now_s))
        self._used += len(data)
        return path

    def get(self, name: str, *, now_s: float) -> bytes | None:
        """What is stored under a name, if it is there and not too old."""
        if not _NAME.fullmatch(name):
            return None
        path = self.folder / name
        try:
            if path.stat().st_mtime + self.keep_s <= now_s:
                path.unlink()
                return None
            return path.read_bytes()
        except OSError:
            return None

    def purge(self, *, now_s: float) -> int:
        """Delete what is too old, unfinished files too; how many went. What cannot be deleted is left for the next
        time.
        """
        gone = used = 0
        for path in self._files():
            if not _NAME.fullmatch(path.name.removesuffix(".part")):
                continue
            try:
                facts = path.stat()
                if facts.st_mtime + self.keep_s <= now_s:
                    path.unlink()
                    gone += 1
                else:
                    used += facts.st_size
            except OSError:
                continue
        self._used = used
        return gone

    def _files(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except OSError:
            return []


def default_folder() -> Path:
    """The folder for results where none is named: private, in the system's temporary folder."""
    return Path(tempfile.gettempdir()) / f"streamer-results-{os.geteuid()}"


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a new file, by default for its owner alone, complete or not at all. Raises OutputError."""
    part = Part(path, mode)
    try:
        part.path.write_bytes(data)
        part.keep()
    except OSError as error:
        part.drop()
        raise OutputError(f"the result cannot be written ({error.strerror}): {path}") from error
    except BaseException:
        part.drop()
        raise
