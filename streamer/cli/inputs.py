"""Which files a command line means, and where their results go."""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamer.address import has_login, has_scheme, redacted_name, redacted_url
from streamer.errors import ConfigError, InputError
from streamer.image.picture import WRITTEN, moves
from streamer.image.result import check_written
from streamer.media.encoders import CONTAINERS

VIDEOS = frozenset(CONTAINERS) | {
    ".avi", ".divx", ".wmv", ".asf", ".mpg", ".mpeg", ".m2v", ".vob", ".mod", ".tod", ".trp", ".3gp", ".3g2", ".qt",
    ".ogv", ".ogm", ".mxf", ".dv", ".f4v", ".rm", ".rmvb", ".nut", ".ivf", ".y4m", ".apng", ".dav", ".lrv",
    ".h264", ".264", ".hevc", ".265", ".mjpeg", ".mjpg",
}  # fmt: skip
_BECOMING = {
    ".bmp": ".png", ".gif": ".png", ".tif": ".png", ".tiff": ".png", ".avif": ".jpg", ".heic": ".jpg", ".heif": ".jpg",
    ".mpo": ".jpg",
}  # fmt: skip
_UNREAD = frozenset({
    ".jxl", ".jp2", ".j2k", ".jxr", ".jps", ".tga", ".pcx", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".qoi", ".dds",
    ".sgi", ".exr", ".hdr", ".psd", ".xcf", ".svg", ".pdf", ".eps", ".ai",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw",
})  # fmt: skip
PICTURES = frozenset(WRITTEN) | frozenset(_BECOMING)
OURS = "_anonymized"
_NUMBERED = re.compile(r"%0?(\d*)d")  # frames of a sequence, as ffmpeg writes them: frame_%04d.png


@dataclass(frozen=True, slots=True)
class Input:
    """One file to work on."""

    path: Path
    below: Path = Path()  # the folders between the one that was named and the file


def check_named(name: str) -> None:
    """Refuse an empty name, as a variable that is not set gives. Raises ConfigError."""
    if not name:
        raise ConfigError("the name of a file is empty; is a variable not set?")


def check_file(name: str | Path) -> None:
    """Refuse an address, `-` and nothing where a file is meant. Raises ConfigError, which holds no secrets."""
    text = str(name)
    check_named(text)
    if text == "-":
        raise ConfigError("standard input and output cannot be used here; name a file instead of -")
    if has_scheme(text):
        raise ConfigError(f"a file is needed here, addresses are for `streamer live`: {redacted_url(text)}")


def check_input(name: str) -> None:
    """`check_file` for what must be there already: also refuses an address whose scheme was left out."""
    there = os.path.exists(name)  # noqa: PTH110 - `Path.exists` raises for names that no file can have
    if not there or name == "-" or "://" in name:
        check_file(name)
    if not there and has_login(name):
        raise ConfigError(
            "no such file; an address, which `streamer live` takes, begins with rtsp:// or the like:"
            f" {redacted_name(name)}"
        )


def find(name: str) -> Iterator[Input]:
    """The videos and pictures that a file, folder, glob or numbered sequence stands for; in folders and globs, our own
    results are left out.

    Raises InputError for a name that stands for nothing, and ConfigError for one that is an address or `-`.
    """
    check_input(name)
    try:
        yield from _found(name)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot be read ({error.strerror}): {name}") from error


def _found(name: str) -> Iterator[Input]:
    path = Path(name)
    if path.is_dir():
        next(path.iterdir(), None)  # raises where `rglob` finds nothing without a word
        found = [file for file in sorted(path.rglob("*")) if _is_ours_to_do(file)]
        if not found:
            raise InputError(f"no videos or pictures in the folder: {path}")
        yield from (Input(file, file.parent.relative_to(path)) for file in found)
    elif path.exists() or not (glob.has_magic(name) or _NUMBERED.search(path.name)):
        yield Input(path)
    elif _NUMBERED.search(path.name):
        yield from map(Input, _sequence(path))
    else:
        yield from map(Input, _matching(name))


def _is_ours_to_do(path: Path) -> bool:
    return (
        (is_picture(path) or path.suffix.lower() in VIDEOS)
        and not path.stem.endswith(OURS)
        and not path.name.startswith("._")  # what macOS keeps of a file's attributes on other disks
        and path.is_file()
    )


def _matching(pattern: str) -> list[Path]:
    """The files of a glob, each once whatever links lead to it; our own results only where it asks for them."""
    names = sorted(glob.glob(pattern, recursive=True), key=lambda name: (name.count(os.sep), name))  # noqa: PTH207 - keeps absolute patterns
    real = {os.path.realpath(name): Path(name) for name in reversed(names)}
    found = [
        path
        for path in reversed(real.values())
        if not path.is_dir() and (OURS in pattern or not path.stem.endswith(OURS))
    ]
    if not found:
        raise InputError(f"nothing matches: {pattern}")
    return found


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture."""
    return path.suffix.lower() in PICTURES


def is_still(path: Path) -> bool:
    """Whether it is a single picture: moving GIF, PNG and WebP are videos."""
    return is_picture(path) and not moves(path)


def check_kind(path: Path) -> None:
    """Refuse a picture of a kind that is not read as one: FFmpeg would make a video of it. Raises InputError."""
    if path.suffix.lower() in _UNREAD:
        raise InputError(f"pictures of this kind are not read; convert it to PNG or JPEG first: {path}")


def _sequence(pattern: Path) -> list[Path]:
    before, digits, after = _NUMBERED.split(pattern.name, maxsplit=1)
    number = r"\d+"
    if digits:
        number = rf"\d{{{int(digits)}}}|[1-9]\d{{{int(digits)},}}"  # 9999 is followed by 10000
    name = re.compile(f"{re.escape(before)}(?:{number}){re.escape(after)}")
    found = sorted(path for path in pattern.parent.glob("*") if name.fullmatch(path.name))
    if not found:
        raise InputError(f"no picture of the sequence is there: {pattern}")
    return found


def target_of(source: Input, output: Path | None, several: bool) -> Path:
    """Where the result of `source` goes: beside it, into a folder (as deep as it was found), or to the file that was
    named. Raises ConfigError for one file that several should go to."""
    path = source.path
    still = is_still(path)
    if still:
        ending = _BECOMING.get(path.suffix.lower(), path.suffix)
    else:
        ending = path.suffix if path.suffix.lower() in CONTAINERS else ".mp4"
    if output is None:
        return path.with_name(f"{path.stem}{OURS}{ending}")
    if several and not output.is_dir() and _is_a_file_s(output):
        if still and output.suffix.lower() in VIDEOS:
            raise ConfigError(
                "pictures become pictures, in a folder after -o; for a video make one of them first, such as by"
                f" ffmpeg -framerate 25 -i frame_%04d.png FILE, not {output}"
            )
        raise ConfigError(f"several inputs need a folder after -o, not a file: {output}")
    if several or output.is_dir() or not output.suffix:
        return output / source.below / f"{path.stem}{OURS}{ending}"
    if still:
        check_written(output)
    return output


def _is_a_file_s(path: Path) -> bool:
    """Whether the name is that of a video or a picture, and of no folder."""
    return path.suffix.lower() in VIDEOS or is_picture(path)
