"""Annotated pictures on disk: where faces and plates are known to be.

A folder holds `FOLDER.json` or `eval.json`: `[{file, width, height, source, labelled, exhaustive, objects}]` with
`objects: [{class: face | plate, box: [x, y, w, h], ignore?, difficulty?}]` in pixels. A class that is not in
`labelled` is unknown in that picture; where `exhaustive` is false, more objects than the annotated ones may be there.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.boxes import Boxes
from streamer.detection import Label
from streamer.errors import InputError

_LABELS = {"face": Label.FACE, "plate": Label.PLATE}
_LEAST_WIDTH = 640  # smaller pictures would be blown up to nothing but blur
_ASPECTS = (1.2, 2.4)  # width by height of what a landscape view can move in


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """One picture and what is known to be in it."""

    path: Path
    width: int
    height: int
    source: str
    exhaustive: bool  # False: there may be more than the boxes say
    boxes: Boxes  # (n, 4) x0 y0 x1 y1 in pixels
    labels: NDArray[np.uint8]  # (n,) Label values
    ignored: NDArray[np.bool_]  # (n,) too small or unclear to be counted either way
    difficulty: tuple[str, ...]  # (n,) the annotators' word, such as WIDER FACE's "hard"; "" without one


def load(folder: Path) -> list[Annotated]:
    """The usable pictures of a folder, in the order of their names: landscape, not tiny, with an object.

    Raises InputError if the folder has no annotations.
    """
    listing = next(
        (path for path in (folder / "eval.json", folder / f"{folder.name}.json") if path.is_file()), None
    )
    if listing is None:
        raise InputError(f"no eval.json with annotated pictures in the folder: {folder}")
    try:
        entries = json.loads(listing.read_text(encoding="utf-8"))
        pictures = [_annotated(folder, entry) for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"not a list of annotated pictures ({type(error).__name__}: {error}): {listing}"
        ) from error
    usable = [picture for picture in pictures if _usable(picture)]
    if not usable:
        raise InputError(f"no landscape picture of at least {_LEAST_WIDTH} pixels with an object: {listing}")
    return sorted(usable, key=lambda picture: picture.path)


def _annotated(folder: Path, entry: dict[str, Any]) -> Annotated:
    objects = [item for item in entry["objects"] if item["class"] in _LABELS]
    corners = np.array([item["box"] for item in objects], np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Annotated(
        path=folder / entry["file"],
        width=int(entry["width"]),
        height=int(entry["height"]),
        source=str(entry.get("source", "")),
        exhaustive=bool(entry.get("exhaustive", True)),
        boxes=corners,
        labels=np.array([_LABELS[item["class"]] for item in objects], np.uint8),
        ignored=np.array([bool(item.get("ignore")) for item in objects], np.bool_),
        difficulty=tuple(str(item.get("difficulty") or "") for item in objects),
    )


def _usable(picture: Annotated) -> bool:
    if picture.width < _LEAST_WIDTH or not (~picture.ignored).any():
        return False
    return _ASPECTS[0] <= picture.width / picture.height <= _ASPECTS[1]
