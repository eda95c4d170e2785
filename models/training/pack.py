"""The pack: every training image decoded once into one raw file that all processes map into memory."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .network import CLASSES

Image = NDArray[np.uint8]  # (h, w, 3) BGR
Boxes = NDArray[np.float32]  # (n, 5): class, x0, y0, x1, y1

LONG_SIDE = 704  # px; larger pictures are reduced to this
SURE_TEACHER_SCORE = 0.8  # teacher faces from here on count as labels; weaker ones are ignored
LOOSE_FACES = frozenset({"cju"})  # sources that box whole heads: their face boxes only mask the loss


@dataclass(frozen=True)
class Picture:
    """One packed image and its boxes; a box row is `class, x0, y0, x1, y1` in pixels of the packed image."""

    source: str
    offset: int  # of the first sample in the raw file
    height: int
    width: int
    boxes: Boxes
    ignored: Boxes  # neither object nor background
    labelled: frozenset[int]  # classes of which every object has a box of its own, tight, made by people


class Pack:
    """The packed images, mapped read-only into memory."""

    def __init__(self, folder: Path) -> None:
        self._samples = np.memmap(folder / "images.u8", np.uint8, "r")
        rows = json.loads((folder / "index.json").read_text(encoding="utf-8"))["images"]
        self.pictures = [_picture(row) for row in rows]

    def image(self, picture: Picture) -> Image:
        """The BGR samples `(h, w, 3)`; a view of the file."""
        end = picture.offset + picture.height * picture.width * 3
        return self._samples[picture.offset : end].reshape(picture.height, picture.width, 3)


def _picture(row: dict[str, Any]) -> Picture:
    boxes: list[list[float]] = []
    ignored: list[list[float]] = []
    for label in row["objects"]:
        kind = CLASSES.index(label["class"])
        loose = kind == 0 and row["source"] in LOOSE_FACES
        (ignored if label.get("ignore") or loose else boxes).append([kind, *label["corners"]])
    for label in row["teacher"]:
        kind = CLASSES.index(label["class"])
        if label["class"] in row["labelled"] and row["source"] not in LOOSE_FACES:
            continue
        sure = kind == 0 and label["score"] >= SURE_TEACHER_SCORE
        (boxes if sure else ignored).append([kind, *label["corners"]])
    return Picture(
        source=row["source"],
        offset=row["offset"],
        height=row["height"],
        width=row["width"],
        boxes=np.array(boxes, np.float32).reshape(-1, 5),
        ignored=np.array(ignored, np.float32).reshape(-1, 5),
        labelled=frozenset(
            kind
            for kind, name in enumerate(CLASSES)
            if name in row["labelled"] and not (kind == 0 and row["source"] in LOOSE_FACES)
        ),
    )


def _decode(folder: Path, row: dict[str, Any]) -> tuple[NDArray[np.uint8], float]:
    cv2.setNumThreads(1)
    path = folder / row["file"]
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise FileNotFoundError(f"not a readable image: {path}")
    factor = min(1.0, LONG_SIDE / max(image.shape[:2]))
    if factor < 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return image.astype(np.uint8, copy=False), factor


def _decoded(
    folder: Path, rows: list[dict[str, Any]], workers: int
) -> Iterator[tuple[NDArray[np.uint8], float]]:
    if workers <= 1:
        yield from (_decode(folder, row) for row in rows)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(partial(_decode, folder), rows, chunksize=32)


def _corners(box: list[float], factor: float) -> list[float]:
    x, y, width, height = box
    return [x * factor, y * factor, (x + width) * factor, (y + height) * factor]


def pack(data: Path, folder: Path, *, workers: int = 2) -> Pack:
    """The pack of `data/train.json` in `folder`, made now unless it already is there for the same list.

    The raw file takes about 0.7 MB an image; it is complete or absent, never half.
    """
    text = (data / "train.json").read_bytes()
    digest = hashlib.sha256(text + str(LONG_SIDE).encode()).hexdigest()
    index = folder / "index.json"
    if index.exists() and json.loads(index.read_text(encoding="utf-8"))["digest"] == digest:
        return Pack(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index.unlink(missing_ok=True)
    rows = json.loads(text)
    offset = 0
    with (folder / "images.u8").open("wb") as raw:
        for row, (image, factor) in zip(rows, _decoded(data, rows, workers), strict=True):
            raw.write(image.tobytes())
            row.update(offset=offset, height=image.shape[0], width=image.shape[1])
            row["teacher"] = row.get("teacher", [])
            for label in row["objects"] + row["teacher"]:
                label["corners"] = _corners(label["box"], factor)
            offset += image.size
    part = index.with_suffix(".part")
    part.write_text(json.dumps({"digest": digest, "images": rows}), encoding="utf-8")
    part.replace(index)
    return Pack(folder)
