"""The answer for one picture, and the forms in which the masked picture leaves."""

import base64
import secrets
import tempfile
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from streamer.config import Hide
from streamer.errors import ConfigError
from streamer.image.picture import EXTENSIONS, WRITTEN, Format
from streamer.image.redact import MaskedPicture
from streamer.image.store import Store, default_folder, write_whole

_HIDE_WORDS = {
    "faces only": Hide.FACES,
    "licence plates only": Hide.PLATES,
    "license plates only": Hide.PLATES,
}


class ResultForm(StrEnum):
    """How the masked picture is handed over."""

    PATH = "path"  # a new file
    URL = "url"  # a link that works for a day
    BASE64 = "base64"  # text
    BUFFER = "buffer"  # {"type": "Buffer", "data": [...]}
    ARRAY = "array"  # the file's bytes as a list of numbers


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The masked picture in the form that was asked for, and what is hidden in it."""

    result: str | list[int] | dict[str, Any]
    format: Format
    width: int  # pixels
    height: int
    objects: list[dict[str, Any]]  # [{"class", "box": {"x", "y", "w", "h"}, "score"}], box normalised to 0..1

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "result": self.result,
            "format": self.format,
            "width": self.width,
            "height": self.height,
            "objects": self.objects,
        }


def hide_from(word: str) -> Hide:
    """What a word of ours or of the cloud API's asks to hide. Raises ConfigError.

    >>> hide_from("Licence plates only").value
    'plates'
    """
    lowered = word.strip().lower()
    try:
        return _HIDE_WORDS.get(lowered) or Hide(lowered)
    except ValueError as error:
        raise ConfigError(f'hide must be "everything", "faces" or "plates", not {word!r}') from error


def form_from(word: str) -> ResultForm:
    """The form that a word asks for. Raises ConfigError."""
    try:
        return ResultForm(word.strip().lower())
    except ValueError as error:
        raise ConfigError(f"result must be {', '.join(ResultForm)}, not {word!r}") from error


def check_written(path: Path) -> None:
    """Refuse a name for a picture's result that says no format in which pictures are written. Raises ConfigError."""
    if path.suffix.lower() not in WRITTEN:
        raise ConfigError(
            f"pictures are written with one of {' '.join(WRITTEN)} at the end of the name, not {path}"
        )


def hand_over(masked: MaskedPicture, form: ResultForm, *, out: Path | None = None) -> ImageResult:
    """The answer with the picture in `form`; `out` is the file that a path result becomes, in the format of its ending.

    Without `out` it is a new file in the system's temporary folder. Raises OutputError; then no file is left.
    """
    if out is not None:
        masked = masked.becoming(WRITTEN.get(out.suffix.lower(), masked.picture.format))
    data = masked.write()
    kind = masked.picture.format
    if form is ResultForm.PATH:
        path = out or Path(tempfile.gettempdir()) / f"{secrets.token_hex(8)}.{EXTENSIONS[kind]}"
        write_whole(path, data, 0o600 if out is None else 0o666)
        return answer(masked, str(path))
    if form is ResultForm.URL:
        store = Store(default_folder())
        now_s = time.time()
        store.purge(now_s=now_s)
        return answer(masked, store.put(data, kind, now_s=now_s).as_uri())
    return answer(masked, in_text(data, form))


def in_text(data: bytes, form: ResultForm) -> str | list[int] | dict[str, Any]:
    """A file as JSON: base64 text, a Buffer object or a list of byte values."""
    if form is ResultForm.BASE64:
        return base64.b64encode(data).decode("ascii")
    return {"type": "Buffer", "data": list(data)} if form is ResultForm.BUFFER else list(data)


def answer(masked: MaskedPicture, result: str | list[int] | dict[str, Any]) -> ImageResult:
    """The answer whose picture is handed over as `result`."""
    picture = masked.picture
    objects = masked.result().as_dict()["objects"]
    return ImageResult(result, picture.format, picture.width, picture.height, objects)
