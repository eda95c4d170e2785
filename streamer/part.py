"""NAME.part: what a result is called until it is whole, and how one run keeps others away from it.

# Note [Two runs on one file]
A run holds a lock on its NAME.part, which the system lets go of when the run ends, whatever it dies of: what a crash
left is written over, what another run is writing is not.
"""

import os
import sys
from pathlib import Path

from streamer.errors import OutputError

if sys.platform != "win32":
    import fcntl


def part_of(path: Path) -> Path:
    """What a result is called until it is whole."""
    return path.with_name(path.name + ".part")


class Part:
    """The unfinished file of one result, held by this run alone: see Note [Two runs on one file].

    Raises OutputError if it cannot be made or another run holds it. `keep` or `drop` it in the end.
    """

    def __init__(self, target: Path) -> None:
        self.path = part_of(target)
        self._target = target
        try:
            self._handle = self._hold()
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot be written ({error.strerror}): {target}") from error

    def _hold(self) -> int:
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._lock(handle)
                if os.path.samestat(os.fstat(handle), os.stat(self.path)):  # noqa: PTH116 - as `fstat`
                    return handle
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # it was another's, who finished between the two

    def _lock(self, handle: int) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another run is writing this file: {self._target}") from error
        except OSError:  # some network drives know no locks
            return

    def keep(self) -> None:
        """Put it under the result's name. Raises OSError."""
        os.fsync(self._handle)
        self.path.replace(self._target)  # before the lock goes: else another run would write into it
        os.close(self._handle)

    def drop(self) -> None:
        """Delete it."""
        self.path.unlink(missing_ok=True)
        os.close(self._handle)
