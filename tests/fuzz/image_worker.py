"""Puts damaged pictures through `anonymize_image` in a process of its own, as `worker` does with files.

`python -m tests.fuzz.image_worker FOLDER KIND FIRST COUNT`, with TMPDIR an empty folder: what stands there after a
case is what the product left.
"""

import io
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from streamer import anonymize_image
from streamer.config import Settings, settings_from
from streamer.errors import StreamerError
from tests.clips import texture
from tests.fuzz.worker import EVERYWHERE, mutated, say

SECRET = "Jane-Roe-48.1372N-11.5755E"  # a name and a place, in each metadata field that a format has
KINDS = ("jpg", "png", "webp", "tif", "gif", "bmp", "avif", "heic", "deep.png", "progressive.jpg")


def whole(kind: str) -> bytes:
    """A picture with fine detail, and metadata wherever the format has room for it."""
    image = Image.fromarray(texture(3, 128, 96))
    exif = Image.Exif()
    exif[0x010E] = exif[0x013B] = SECRET  # description, artist
    exif[0x0112] = 6  # to be turned
    text = PngInfo()
    text.add_text("Author", SECRET)
    text.add_itxt("XML:com.adobe.xmp", SECRET)
    file = io.BytesIO()
    match kind:
        case "jpg" | "progressive.jpg":
            image.save(file, "JPEG", quality=92, exif=exif, comment=SECRET, progressive="prog" in kind)
        case "png":
            image.convert("RGBA").save(file, "PNG", exif=exif, pnginfo=text)
        case "deep.png":
            deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
            Image.fromarray(deep).save(file, "PNG", pnginfo=text)
        case "tif":
            image.save(file, "TIFF", compression="tiff_lzw", exif=exif)
        case "heic":
            pillow_heif.from_pillow(image).save(file, quality=90, exif=exif.tobytes(), xmp=SECRET.encode())
        case "webp" | "avif":
            image.save(file, kind.upper(), quality=90, exif=exif, xmp=SECRET.encode())
        case _:
            image.save(file, kind.upper(), **({"comment": SECRET} if kind == "gif" else {}))
    return file.getvalue()


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with one to three wrong bits, which many decoders do not notice."""
    result = bytearray(data)
    for at in rng.integers(0, len(data), int(rng.integers(1, 4))):
        result[int(at)] ^= 1 << int(rng.integers(0, 8))
    return bytes(result)


def settings(folder: Path) -> Settings:
    """A zone over everything: whatever comes out must be flat. A small view, for the sake of time."""
    zones = folder / "zones.json"
    zones.write_text(json.dumps({"mask": [EVERYWHERE]}))
    return settings_from(
        {"mask": {"style": "solid", "soft_edge": 0}, "detect": {"side": 128}, "zones": str(zones)}
    )


def one(data: bytes, wanted: Settings) -> str:
    """What became of one picture, in a word; `wrong` starts those that should not be."""
    left = Path(tempfile.gettempdir())
    try:
        answer = anonymize_image(data, settings=wanted)
    except StreamerError as error:
        if any(left.iterdir()):
            return "wrong: a file was left after an error"
        if "\n" in str(error) or len(str(error)) > 500:
            return f"wrong: an error that is not one line: {error!r}"
        return f"refused {type(error).__name__}"
    except Exception as error:  # noqa: BLE001 - whatever is not an error of ours is a finding
        return f"wrong: {type(error).__name__}: {error}"
    assert isinstance(answer.result, str)
    result = Path(answer.result)
    try:
        if list(left.iterdir()) != [result]:
            return "wrong: more than the result was left"
        written = result.read_bytes()
    finally:
        result.unlink()
    if SECRET.encode() in written or SECRET.encode("utf-16-le") in written:
        return "wrong: metadata survived"
    samples = np.asarray(Image.open(io.BytesIO(written)).convert("L"), np.float32)
    return "wrong: LEAK" if float(samples.std()) > 2 else "passed"


def main(folder: Path, kind: str, first: int, count: int) -> None:
    warnings.simplefilter("ignore")
    wanted, data = settings(folder), whole(kind)
    for number in range(first, first + count):
        say(f"case {number}")
        rng = np.random.default_rng(number)
        damaged = mutated(data, rng) if number % 2 else flipped(data, rng)
        say(f"ended {number} {one(damaged, wanted)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
