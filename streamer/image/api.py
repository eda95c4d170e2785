"""`anonymize_image`: one picture in any form in, the masked picture in any form out."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from streamer.config import Settings
from streamer.image import picture as files
from streamer.image import source
from streamer.image.limits import ImageLimits
from streamer.image.redact import MaskedPicture, Redactor, open_redactor
from streamer.image.result import ImageResult, check_written, form_from, hand_over, hide_from
from streamer.image.source import Access, ImageInput

_KEPT = 4  # loaded networks that are kept between calls

_idle: dict[str, list[Redactor]] = {}  # by settings; lists are popped and appended to, which is atomic


def anonymize_image(
    image: ImageInput,
    *,
    hide: str = "everything",
    result: str = "path",
    out: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    limits: ImageLimits | None = None,
) -> ImageResult:
    """Make every face and licence plate of one picture unreadable.

    `image` is a path, a URL, base64 text (with or without `data:`), a JSON Buffer, a list of byte values,
    bytes, a file object or a NumPy array (see `source.read` and Note [Text as a picture]). `hide` is
    everything, faces or plates (also `Everything`, `Faces only`, `Licence plates only`). `result` is path (a
    new file, in the system's temporary folder unless `out` names it), url (a `file:` link that works for a
    day), base64, buffer or array (of bytes). The result is a JPEG or a PNG as the picture was, other formats
    become the nearer of the two, and with `out` its ending says which (.webp too; what
    is there is replaced); of several pictures in a file
    the first is taken. Raises InputError and its kinds, ConfigError, OutputError or RedactionError, and then leaves
    no file.
    """
    form = form_from(result)
    target = None if out is None else Path(out)
    if target is not None:
        check_written(target)
    wanted = (settings or Settings()).model_copy(update={"hide": hide_from(hide)})
    return hand_over(mask(image, wanted, Access(limits or ImageLimits())), form, out=target)


def mask(image: ImageInput, settings: Settings, access: Access) -> MaskedPicture:
    """The masked picture, not yet written anywhere; its network is loaded once and kept."""
    taken = source.read(image, access)
    if isinstance(taken.data, np.ndarray):
        picture = files.from_array(taken.data, access.limits)
    else:
        picture = files.decode(taken.data, access.limits)
    with _borrowed(settings) as redactor:
        return redactor(picture, settings.hide)


@contextmanager
def _borrowed(settings: Settings) -> Iterator[Redactor]:
    """A redactor that nobody else uses meanwhile: a network serves one picture at a time."""
    shelf = _idle.setdefault(settings.model_dump_json(exclude={"hide"}), [])
    try:
        redactor = shelf.pop()
    except IndexError:
        redactor = open_redactor(settings)
    yield redactor
    if len(shelf) < _KEPT:
        shelf.append(redactor)
