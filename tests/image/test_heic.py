"""Photos of phones."""

import io
import subprocess
import sys

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

from streamer.errors import InputError, TooLargeError
from streamer.image.limits import ImageLimits
from streamer.image.picture import decode, write
from tests.image.pictures import encoded

SECRET = b"Jane-Roe-48.1372N-11.5755E"


def heic(samples: NDArray[np.uint8], **options: object) -> bytes:
    """What a phone would write of samples (H, W, 3 or 4)."""
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(samples)).save(file, quality=95, **options)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    """EXIF with an orientation and a name."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, SECRET.decode()
    return exif.tobytes()


def test_a_photo_of_a_phone_becomes_a_jpeg_of_the_same_samples(person: NDArray[np.uint8]) -> None:
    picture = decode(heic(person), ImageLimits())
    assert picture.format == "JPEG"
    assert np.abs(picture.samples.astype(int) - person).mean() < 3


def test_it_is_turned_once_and_its_metadata_stay_behind(person: NDArray[np.uint8]) -> None:
    data = heic(person[:300], exif=turned(6))
    assert SECRET in data
    picture = decode(data, ImageLimits())
    upright = np.rot90(person[:300], -1)
    assert picture.samples.shape == upright.shape
    assert np.abs(picture.samples.astype(int) - upright).mean() < 4
    assert SECRET not in write(picture)


def test_avif_under_the_brand_that_leaves_the_codec_open_is_avif(person: NDArray[np.uint8]) -> None:
    data = encoded(person, "AVIF", quality=95)
    assert data[8:12] == b"avif"
    picture = decode(data[:8] + b"mif1" + data[12:], ImageLimits())
    assert np.abs(picture.samples.astype(int) - person).mean() < 4


def test_its_transparency_is_kept(person: NDArray[np.uint8]) -> None:
    clear = np.full((*person.shape[:2], 1), 255, np.uint8)
    clear[:, :100] = 0
    picture = decode(heic(np.concatenate([person, clear], axis=2)), ImageLimits())
    assert picture.format == "PNG"
    assert picture.alpha is not None
    assert picture.alpha[:, :90].max() < 10
    assert picture.alpha[:, 110:].min() > 245


def test_its_size_is_limited_and_damage_is_told(person: NDArray[np.uint8]) -> None:
    data = heic(person)
    with pytest.raises(TooLargeError):
        decode(data, ImageLimits(max_pixels=1000))
    for end in (20, 200, len(data) // 2, len(data) - 40):
        with pytest.raises(InputError):
            decode(data[:end], ImageLimits())


def test_without_the_extra_it_says_which_one_is_needed() -> None:
    script = (
        "import sys; sys.modules['pi_heif'] = None\n"
        "from streamer.image.limits import ImageLimits\n"
        "from streamer.image.picture import decode\n"
        "decode(b'\\0\\0\\0\\x18ftypheic', ImageLimits())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "UnsupportedError: HEIC pictures are read with the extra heic: pip install" in done.stderr
