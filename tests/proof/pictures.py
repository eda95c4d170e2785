"""Annotated pictures drawn on the spot: textured ground, textured squares that stand for objects."""

import json
from pathlib import Path

import cv2
import numpy as np

from tests.scenes import texture


def folder(path: Path, *, count: int = 4, width: int = 800, height: int = 500) -> Path:
    entries = []
    for index in range(count):
        kind = ("face", "plate")[index % 2]
        picture = texture(height, width, index, 2.0)
        boxes = [[300.0, 180.0, 90.0, 100.0], [520.0, 250.0, 120.0, 40.0]]
        for number, (x, y, w, h) in enumerate(boxes):
            skin = texture(int(h), int(w), 50 + 7 * index + number, 3.0)
            picture[int(y) : int(y + h), int(x) : int(x + w)] = skin
        cv2.imwrite(str(path / f"{index}.png"), cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))
        words = {"difficulty": "easy"} if kind == "face" else {}
        objects = [{"class": kind, "box": box, **words} for box in boxes]
        objects.append({"class": kind, "box": [10.0, 10.0, 12.0, 12.0], "ignore": True})
        entry = {"file": f"{index}.png", "width": width, "height": height, "labelled": [kind]}
        entries.append({**entry, "source": "drawn", "exhaustive": index != 3, "objects": objects})
    (path / "eval.json").write_text(json.dumps(entries))
    return path


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
