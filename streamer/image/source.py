"""The forms in which a picture comes in: path, URL, base64, JSON Buffer, bytes, file object, NumPy array.

# Note [Text as a picture]
Text is read in this order: a `data:` URI, an http(s) URL, a `file:` URL, the name of a file that exists,
base64. So `"abcd"` is the file `abcd` if there is one, and base64 otherwise. Text that is none of these is
taken as the name of a file that is missing.
"""

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, unquote_to_bytes, urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray

from streamer.address import has_scheme, redacted_name
from streamer.errors import InputError, RefusedError, TooLargeError, UnsupportedError
from streamer.image.fetch import fetch
from streamer.image.limits import ImageLimits

ImageInput = (
    str
    | bytes
    | bytearray
    | memoryview
    | os.PathLike[str]
    | BinaryIO
    | Mapping[str, Any]
    | Sequence[int]
    | NDArray[Any]
)

_LONGEST_SHOWN = 200  # characters of a text that is no picture
_LONGEST_NAME = 4096  # characters of a path; longer text is never looked up as one
_MOST_ESCAPES = 1 << 16  # percent signs in a data: URI; more would hold up every other thread
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_SPACES = b" \t\n\r\v\f"
_SLICE = (
    1 << 20
)  # characters of base64 read at a time, a multiple of 4: between two of them other threads run


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller may read."""

    limits: ImageLimits = field(default_factory=ImageLimits)
    folders: tuple[Path, ...] | None = None  # the only folders that paths may lead into; None: any


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A picture as it came: an encoded file's bytes, or decoded samples."""

    data: bytes | NDArray[Any]
    name: str


def read(image: ImageInput, access: Access) -> Source:
    """The picture behind any form of input, within the limits. Raises InputError and its kinds.

    A NumPy array of one dimension is an encoded file; of two or three it is the picture itself: grey, RGB or
    RGBA, uint8 or uint16.
    """
    if isinstance(image, str):
        return _from_text(image, access)
    if isinstance(image, os.PathLike):
        return _from_path(Path(image), access)
    if isinstance(image, np.ndarray) and image.ndim != 1:
        return Source(np.asarray(image), "array")  # a matrix would stay one, whatever is done to it
    return Source(_bounded(_bytes_of(image, access.limits), access.limits), _name_of(image))


def _bytes_of(image: Any, limits: ImageLimits) -> bytes:
    if isinstance(image, Mapping):
        if image.get("type") != "Buffer" or "data" not in image:
            raise InputError('a picture as a JSON object must be {"type": "Buffer", "data": [...]}')
        image = image["data"]
    if hasattr(image, "read"):
        return _bytes_of_file(image, limits)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (Sequence, np.ndarray)) and not isinstance(image, str):
        return _bytes_of_numbers(image, limits)
    raise InputError(f"a picture cannot be given as {type(image).__name__}")


def _bytes_of_file(file: Any, limits: ImageLimits) -> bytes:
    """All that is left in it; pipes and answers of servers give less at a time than they are asked for."""
    data = bytearray()
    while len(data) <= limits.max_bytes:
        part = file.read(limits.max_bytes + 1 - len(data))
        if not isinstance(part, bytes):
            raise InputError("a file object must be open in binary mode, and wait for its bytes")
        if not part:
            break
        data += part
    return bytes(data)


def _bytes_of_numbers(numbers: Sequence[int] | NDArray[Any], limits: ImageLimits) -> bytes:
    if len(numbers) > limits.max_bytes:
        raise _too_large(limits)
    try:
        return bytes(numbers.tolist() if isinstance(numbers, np.ndarray) else numbers)
    except (TypeError, ValueError) as error:
        raise InputError("an array of bytes must hold whole numbers from 0 to 255") from error


def _from_text(text: str, access: Access) -> Source:
    limits = access.limits
    start = text[:8].lower()
    if start.startswith("data:"):
        return Source(_from_data_uri(text, limits), "image")
    if start.startswith(("http://", "https://")):
        data = fetch(text, limits)
        return Source(_bounded(data, limits), unquote(urlsplit(text).path).rsplit("/", 1)[-1] or "image")
    if start.startswith("file:"):
        return _from_path(_path_of(text), access)
    path = _existing(text)
    if path is not None and (access.folders is None or _inside(path, access.folders)):
        return _from_path(path, access)
    decoded = _from_base64(text, limits)
    if decoded is not None:
        return Source(decoded, "image")
    if access.folders is not None:
        raise InputError("the picture is neither a URL, nor base64, nor a file that may be read")
    if len(text) > _LONGEST_NAME:
        raise InputError("no such picture: the text is neither a file's name nor base64")
    shown = redacted_name(text)[:_LONGEST_SHOWN]
    if has_scheme(text):
        raise InputError(f"pictures are fetched from http:// and https:// addresses only: {shown}")
    raise InputError(f"no such picture: {shown}")


def _path_of(url: str) -> Path:
    """Of a `file:` URL. Raises InputError where no file can have it."""
    try:
        path = url2pathname(urlsplit(url).path)
    except ValueError as error:  # a bracket that is not closed
        raise InputError("the picture's file: URL is not well formed") from error
    if "\0" in path:
        raise InputError("the picture's file: URL is not well formed")
    return Path(path)


def _existing(text: str) -> Path | None:
    if not text or len(text) > _LONGEST_NAME or "\0" in text:
        return None
    try:
        return Path(text) if Path(text).exists() else None
    except OSError:
        return None


def _from_path(path: Path, access: Access) -> Source:
    if access.folders is not None and not _inside(path, access.folders):
        raise RefusedError("this path may not be read here; send the picture itself")
    try:
        if not path.is_file():
            if access.folders is not None:
                raise InputError("no such picture")
            what = "is no regular file" if path.exists() else "no such picture"
            raise InputError(f"{what}: {path}")
        with path.open("rb") as file:
            return Source(_bounded(file.read(access.limits.max_bytes + 1), access.limits), path.name)
    except InputError:
        raise
    except OSError as error:  # it may not be read, or its name is too long for a file's
        raise InputError(f"cannot be read ({error.strerror}): {path}") from error


def _inside(path: Path, folders: tuple[Path, ...]) -> bool:
    real = path.resolve()
    return any(real.is_relative_to(folder.resolve()) for folder in folders)


def _from_data_uri(text: str, limits: ImageLimits) -> bytes:
    head, comma, body = text.partition(",")
    if not comma:
        raise InputError("a data: URI needs a comma before its data")
    if len(body) > limits.max_bytes * 3 // 2 + 1024:
        raise _too_large(limits)
    if body.count("%") > _MOST_ESCAPES:
        raise InputError("a data: URI of a picture must hold base64, not percent signs")
    if not head.rstrip().lower().endswith(";base64"):
        return _bounded(unquote_to_bytes(body), limits)
    data = _from_base64(unquote(body) if "%" in body else body, limits)
    if data is None:
        raise InputError("the data: URI does not hold base64")
    return data


def _from_base64(text: str, limits: ImageLimits) -> bytes | None:
    if len(text) > limits.max_bytes * 3 // 2 + 1024:
        raise _too_large(limits)
    try:
        letters = text.encode("ascii").translate(_URL_SAFE, _SPACES)
        packed = letters.rstrip(b"=")
        if len(letters) - len(packed) > 2:
            return None
        packed += b"=" * (-len(packed) % 4)
        slices = (packed[at : at + _SLICE] for at in range(0, len(packed), _SLICE))
        return _bounded(b"".join(base64.b64decode(part, validate=True) for part in slices), limits)
    except (UnicodeEncodeError, binascii.Error):
        return None


def _bounded(data: bytes, limits: ImageLimits) -> bytes:
    if len(data) > limits.max_bytes:
        raise _too_large(limits)
    if not data:
        raise UnsupportedError("the picture is empty")
    return data


def _too_large(limits: ImageLimits) -> TooLargeError:
    return TooLargeError(f"the picture is larger than {limits.max_bytes} bytes")


def _name_of(image: Any) -> str:
    name = getattr(image, "name", None)
    return Path(name).name if isinstance(name, str) else "image"
