"""Opening a file that may be anything: what is wrong with it is said in one line."""

import stat
from pathlib import Path

import av

from streamer.errors import InputError
from streamer.media import matroska, mp4
from streamer.media.crop import Crops

_CAMERAS = "cameras are for `streamer live`"
_KINDS = {
    stat.S_IFDIR: "is a folder, not a file",
    stat.S_IFIFO: "is a pipe, and a regular file is needed",  # which is read more than once, and from its end
    stat.S_IFSOCK: "is a socket, and a regular file is needed",
    stat.S_IFCHR: f"is a device, and a regular file is needed ({_CAMERAS})",
    stat.S_IFBLK: f"is a device, and a regular file is needed ({_CAMERAS})",
}


def check_regular(path: Path) -> None:
    """Refuse what is no regular file before it is opened: a pipe would wait for its writer. Raises InputError."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({getattr(error, 'strerror', error)}): {path}") from error
    if kind := _KINDS.get(stat.S_IFMT(mode)):
        raise InputError(f"{kind}: {path}")


def crops_in(path: Path) -> Crops:
    """What each video track hides of its pictures by its container's word, see Note [Cropping]."""
    try:
        return mp4.crops(path) or matroska.crops(path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error}): {path}") from error


def open_input(path: Path) -> av.container.InputContainer:
    """The file opened by PyAV. Raises InputError with one line that says what is wrong."""
    check_regular(path)
    try:
        if path.stat().st_size == 0:
            raise InputError(f"the file is empty: {path}")
        return av.open(f"file:{path}", metadata_errors="replace")  # else 12:30.mp4 is a protocol
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    except av.error.FFmpegError as error:
        raise InputError(f"not a video that can be read ({error.strerror or error}): {path}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot be read ({error}): {path}") from error
