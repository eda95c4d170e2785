"""NAME.part: what a result or a recording is called until it is whole, and how one run keeps others away from it.

# Note [Two runs on one file]
A run holds a lock on its NAME.part, which the system lets go of when the run ends, whatever it dies of: what a crash
left is written over (or, of recordings, put under its name), what another run is writing is not. Where the system or
the drive knows no such locks, nobody is kept away.
"""

import os
from pathlib import Path

from streamer.errors import ConfigError, OutputError, StreamerError

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # as on Windows, where an open file can be neither renamed nor deleted
    _LOCKS = False
else:
    _LOCKS = True

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)  # a link would have its own file written over


class PartHeldError(OutputError):
    """Another run is writing this file."""


def part_of(path: Path) -> Path:
    """What a result is called until it is whole."""
    return path.with_name(path.name + ".part")


class Part:
    """The unfinished file of one result, held by this run alone: see Note [Two runs on one file].

    Raises OutputError if it cannot be made, PartHeldError if another run holds it, and ConfigError for a pipe, a device
    or a folder under the result's name, which it would replace. `keep` or `drop` it in the end.
    """

    def __init__(self, target: Path, mode: int = 0o666) -> None:
        self.path = part_of(target)
        self._target = target
        self._mode = mode
        try:
            if target.exists() and not target.is_file():
                raise ConfigError(f"this is no regular file; name another: {target}")
            self._handle = self._hold()
        except OSError as error:
            if isinstance(error, StreamerError):
                raise
            raise OutputError(f"cannot be written ({error.strerror}): {target}") from error

    def _hold(self) -> int:
        while True:
            handle = os.open(self.path, _FLAGS, self._mode)
            try:
                self._lock(handle)
                if self._is_named(handle):
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # it was another's, who finished between the two

    def _lock(self, handle: int) -> None:
        if not _LOCKS:
            return
        try:
            flock(handle, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            raise PartHeldError(f"another run is writing this file: {self._target}") from error
        except OSError:  # some network drives know no locks
            return

    @property
    def there(self) -> bool:
        """Whether it still has its name: somebody may have deleted it."""
        try:
            return self._is_named(self._handle)
        except OSError:
            return False

    def _is_named(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), self.path.lstat())
        except FileNotFoundError:
            return False

    def keep(self) -> None:
        """Put it under the result's name. Raises OSError; then it can still be dropped."""
        os.fsync(self._handle)
        if not _LOCKS:
            self._close()
        self.path.replace(self._target)  # before the lock goes: else another run would write into it
        self._close()

    def drop(self) -> None:
        """Delete it."""
        if not _LOCKS:
            self._close()
        self.path.unlink(missing_ok=True)
        self._close()

    def leave(self) -> None:
        """Let it lie, for the next start."""
        self._close()

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
