"""A sheet of training samples with their boxes, to look at: green faces, red plates, grey what is ignored."""

import argparse
from pathlib import Path

import cv2
import numpy as np

from .augment import Sample, Sampler
from .pack import Image, pack

_COLOURS = ((0, 220, 0), (0, 0, 255))


def _shown(sample: Sample) -> Image:
    image = sample.image.copy()
    for boxes, colours in ((sample.ignored, ((140, 140, 140),) * 2), (sample.boxes, _COLOURS)):
        for box in boxes:
            x0, y0, x1, y1 = (round(float(value)) for value in box[1:])
            cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), colours[int(box[0])], 1)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.training.look", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.json")
    parser.add_argument("--pack", type=Path, required=True, help="folder of the decoded images")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=320, help="px of a sample")
    parser.add_argument("--count", type=int, default=8, help="samples in a row and in a column")
    given = parser.parse_args()
    sampler = Sampler(pack(given.data, given.pack), given.seed)
    rows = [
        np.concatenate(
            [_shown(sampler.sample((row, column), given.side, 0.35)) for column in range(given.count)], 1
        )
        for row in range(given.count)
    ]
    cv2.imwrite(str(given.out), np.concatenate(rows))


if __name__ == "__main__":
    main()
