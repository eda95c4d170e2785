"""Image files to samples and back: what is kept, what is brought upright, what is left behind.

# Note [What travels]
Only samples travel from the file that came in to the file that goes out, with the quantisation tables and
chroma sampling of a JPEG (a rare sampling that Pillow does not write, such as 4:4:0, becomes 4:4:4, which loses no
colour). Metadata, thumbnails, further pictures, colour profiles and whatever trails behind
are never copied, because the output is written anew. EXIF orientation is applied to the samples. Samples
under a colour profile other than sRGB are converted to sRGB, so that leaving the profile behind does not
change how they look (16-bit samples stay as they are).
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from streamer.errors import DamagedError, InputError, OutputError, TooLargeError, UnsupportedError
from streamer.image.heic import is_heic, teach_pillow
from streamer.image.limits import Counted, ImageLimits

Format = Literal["JPEG", "PNG", "WEBP"]

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")  # what is read, and HEIC: see heic.py
MEDIA_TYPES: dict[Format, str] = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
EXTENSIONS: dict[Format, str] = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
WRITTEN: dict[str, Format] = {  # by the ending of a file's name
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".webp": "WEBP",
}  # fmt: skip

_MOVING = ("GIF", "PNG", "WEBP")
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF")
_ORIENTATION = 0x0112  # EXIF tag
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # what their files begin with
_PIECES = 10_000  # that a file may have, and one more for each
_PIECE = 1024  # bytes
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # of a JPEG; none of those within coded samples
_ALONE = (b"\x01", b"\xd8")  # markers without a length behind them
_END_OF_PICTURE, _START_OF_SCAN = b"\xd9", b"\xda"
_QUALITY = 90  # of lossy pictures that were none of ours before
_DEEPEST = np.uint16(65535)
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANES, _EXTRA_SAMPLES = 258, 262, 284, 338  # TIFF tags
_ZERO_IS_WHITE, _SEPARATE, _IN_THE_COLOURS = 0, 2, 1  # values of the last three, in this order


@dataclass(frozen=True, slots=True)
class JpegStyle:
    """How a JPEG is compressed."""

    tables: tuple[
        tuple[int, ...], ...
    ] = ()  # 64 values for luma, Cb and Cr (the last serves the rest); () is quality 90
    sampling: int = 2  # 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One upright picture as samples; nobody writes into them."""

    samples: NDArray[Any]  # (H, W, 1 or 3) uint8 or uint16: grey or RGB
    alpha: NDArray[Any] | None  # (H, W, 1), same type
    format: Format  # of the file that it becomes
    jpeg: JpegStyle = JpegStyle()
    more: bool = False  # others (of an animation, pages) followed it in its file and stay behind

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.samples.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.samples.shape[0])


def decode(data: bytes, limits: ImageLimits) -> Picture:
    """The first picture of an image file, upright.

    The size is read from the header and held against `limits.max_pixels` before anything is decoded. Raises
    UnsupportedError, DamagedError or TooLargeError.
    """
    try:
        _check_pieces(data, limits)
        formats = [teach_pillow()] if is_heic(data) else FORMATS
        with Image.open(Counted(data), formats=formats) as image:
            _check_size(image, limits)
            samples, alpha = _deep(image, data) if _is_deep(image) else _shallow(image)
            orientation = _orientation(image)
            style = _jpeg_style(image)
            lossy = image.format in _LOSSY and alpha is None
            more = _has_more(image)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise UnsupportedError(
            f"not a picture that is read here; send one of {', '.join(FORMATS)}, HEIC"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(limits) from error
    except Exception as error:  # decoders raise anything at all on broken files
        raise DamagedError(f"the picture is cut short or broken ({type(error).__name__})") from error
    return Picture(
        _upright(samples, orientation),
        None if alpha is None else _upright(alpha, orientation),
        "JPEG" if lossy else "PNG",
        style,
        more,
    )


def moves(path: Path) -> bool:
    """Whether a file is a GIF, PNG or WebP of several pictures, which show one after the other."""
    try:
        if not path.is_file():  # a pipe would wait for its writer
            return False
        with Image.open(path, formats=_MOVING) as image:
            return _has_more(image)
    except Exception:  # noqa: BLE001 - what is broken is told where it is decoded
        return False


def _has_more(image: Image.Image) -> bool:
    """Whether more pictures follow; the gain and depth maps that phones put behind a JPEG are none."""
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def from_array(array: NDArray[Any], limits: ImageLimits) -> Picture:
    """A picture from grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4) samples, uint8 or uint16; does not copy those whose
    bytes are in this machine's order.
    """
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.dtype not in (np.uint8, np.uint16) or array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise UnsupportedError("an array must be (H, W), (H, W, 3) or (H, W, 4) of uint8 or uint16")
    height, width, channels = array.shape
    if not height or not width:
        raise UnsupportedError("the picture is empty")
    if height * width > limits.max_pixels:
        raise _too_many_pixels(limits)
    alpha = array[:, :, 3:] if channels == 4 else None
    return Picture(array[:, :, : min(channels, 3)], alpha, "PNG")


def write(picture: Picture) -> bytes:
    """The file of a picture: see Note [What travels]. Raises OutputError."""
    try:
        return _WRITERS[picture.format](picture)
    except (OSError, ValueError, cv2.error) as error:
        raise OutputError(
            f"the result cannot be written as {picture.format} ({type(error).__name__})"
        ) from error


def _check_size(image: Image.Image, limits: ImageLimits) -> None:
    if image.width * image.height > limits.max_pixels:
        raise _too_many_pixels(limits)


def _check_pieces(data: bytes, limits: ImageLimits) -> None:
    """Refuse what costs a decoder far more than its size says: millions of empty pieces, passes over all pixels."""
    scans, most = 0, _PIECES + len(data) // _PIECE
    for count, kind in enumerate(_pieces(data)):
        scans += kind == _START_OF_SCAN
        if scans > limits.max_scans:
            raise TooLargeError(f"the JPEG has more than {limits.max_scans} scans")
        if count > most:
            raise TooLargeError(f"the picture's file has more than {most} pieces")


def _pieces(data: bytes) -> Iterator[bytes]:
    """What the segments of a JPEG or the chunks of a PNG are called, up to the picture's end. A JPEG's thumbnail lies
    within one and the video of a phone's moving photo behind the end: the bytes of a marker stand there by chance.
    """
    at = len(_PNG)
    while data.startswith(_PNG) and (kind := data[at + 4 : at + 8]) not in (b"IEND", b""):
        yield kind
        at += int.from_bytes(data[at : at + 4]) + 12
    at = 0
    while data.startswith(_JPEG) and (marker := _MARKER.search(data, at)) and marker[1] != _END_OF_PICTURE:
        yield marker[1]
        at = marker.end()
        if marker[1] not in _ALONE:
            at += max(int.from_bytes(data[at : at + 2]), 2)


def _too_many_pixels(limits: ImageLimits) -> TooLargeError:
    return TooLargeError(f"the picture has more than {limits.max_pixels} pixels")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (OSError, ValueError, TypeError, KeyError, SyntaxError, struct.error):
        return 1  # broken EXIF is left behind with the rest


def _upright(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    turned = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a[::-1].swapaxes(0, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a[:, ::-1].swapaxes(0, 1),
    }
    return np.ascontiguousarray(turned[orientation](samples)) if orientation in turned else samples


def _is_deep(image: Image.Image) -> bool:
    """Whether the samples have 16 bits, which Pillow would cut down to 8 for colour."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return set(image.tag_v2.get(_BITS_PER_SAMPLE, ())) == {16}
    return image.format == "PNG" and re.search(r"16[BLNS]?(?!\d)", _raw_mode(image)) is not None


def _raw_mode(image: Image.Image) -> str:
    """How Pillow names the samples as they are in the file; known until they are loaded."""
    assert isinstance(image, ImageFile.ImageFile)  # it was opened, not made
    options = image.tile[0][3] if image.tile else ""
    return str(options[0] if isinstance(options, tuple) else options)


def _deep(image: Image.Image, data: bytes) -> tuple[NDArray[Any], NDArray[Any] | None]:
    image.load()  # raises on a file that is cut short, which OpenCV would fill up
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PLANES) == _SEPARATE:
        raise UnsupportedError("16-bit pictures with a plane per colour are not read")  # OpenCV mixes them up
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise UnsupportedError("pictures of 16-bit samples of this kind are not read")
    if samples.ndim == 2:
        return _deep_grey(image, samples[:, :, None])
    colour = cv2.cvtColor(samples[:, :, :3], cv2.COLOR_BGR2RGB)
    if samples.shape[2] == 3:
        return colour, None
    return _deep_alpha(image, colour, np.array(samples[:, :, 3:]))


def _deep_grey(image: Image.Image, grey: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """What OpenCV leaves to its caller: the one value that a PNG names as transparent, and a TIFF whose 0 is white."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        inverted = image.tag_v2.get(_PHOTOMETRIC) == _ZERO_IS_WHITE
        return (_DEEPEST - grey if inverted else grey), None
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey, None
    return grey, np.where(grey == clear, 0, _DEEPEST).astype(np.uint16)


def _deep_alpha(
    image: Image.Image, colour: NDArray[Any], alpha: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Colours and transparency, which in a TIFF may be no transparency, or be in the colours already."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return colour, alpha
    meaning = image.tag_v2.get(_EXTRA_SAMPLES, (0,))[0]
    if meaning == _IN_THE_COLOURS:
        whole = colour.astype(np.float32) * _DEEPEST / np.maximum(alpha, 1)
        colour = np.minimum(np.rint(whole), _DEEPEST).astype(np.uint16)
    return colour, alpha if meaning else None


def _shallow(image: Image.Image) -> tuple[NDArray[Any], NDArray[Any] | None]:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise UnsupportedError("pictures of 32-bit or floating point samples are not read")
    _stretch_transparency(image)
    image.load()
    profile = image.info.get("icc_profile")
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("LA" if grey else "RGBA")
        alpha = np.array(image.getchannel("A"))[:, :, None]
    else:
        alpha = None
    image = _in_srgb(image, profile) if profile and not grey else image
    mode = "L" if grey else "RGB"
    samples = np.asarray(image if image.mode == mode else image.convert(mode))
    return (samples[:, :, None] if grey else samples), alpha


def _stretch_transparency(image: Image.Image) -> None:
    """Make the one grey value that is transparent one of 8 bits, as Pillow makes the samples of 2 and 4 bits."""
    clear, found = image.info.get("transparency"), re.fullmatch(r"L;([24])", _raw_mode(image))
    if found and isinstance(clear, int):
        image.info["transparency"] = clear * 255 // ((1 << int(found[1])) - 1)


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The picture's colours in sRGB; a profile that cannot be read counts as sRGB."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        base = image.convert("RGB") if image.mode not in ("RGB", "CMYK") else image
        found = ImageCms.profileToProfile(base, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return found if found is not None else image


def _jpeg_style(image: Image.Image) -> JpegStyle:
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return JpegStyle()
    tables = [tuple(image.quantization[component[3]]) for component in image.layer][:3]
    while len(tables) > 2 and tables[-1] == tables[-2]:
        tables.pop()  # the last table serves the remaining components
    sampling = JpegImagePlugin.get_sampling(image)
    return JpegStyle(tuple(tables), sampling if sampling in (0, 1, 2) else 0)


def _in_8_bits(samples: NDArray[Any]) -> NDArray[np.uint8]:
    if samples.dtype == np.uint8:
        return samples
    return ((samples.astype(np.uint32) * 255 + int(_DEEPEST) // 2) // int(_DEEPEST)).astype(np.uint8)


def _write_jpeg(picture: Picture) -> bytes:
    """A JPEG knows no transparency: what is transparent becomes white."""
    file = io.BytesIO()
    samples = _in_8_bits(picture.samples)
    if picture.alpha is not None:
        alpha = _in_8_bits(picture.alpha).astype(np.uint16)
        samples = ((samples * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    grey = samples.shape[2] == 1
    image = Image.fromarray(samples[:, :, 0] if grey else samples)
    options: dict[str, Any] = {} if grey else {"subsampling": picture.jpeg.sampling}
    if picture.jpeg.tables:
        options["qtables"] = [list(table) for table in picture.jpeg.tables[: 1 if grey else 3]]
    else:
        options["quality"] = _QUALITY
    image.save(file, "JPEG", **options)
    return file.getvalue()


def _write_png(picture: Picture) -> bytes:
    samples = picture.samples
    if samples.shape[2] == 3:
        samples = cv2.cvtColor(samples, cv2.COLOR_RGB2BGR)
    if picture.alpha is not None:
        colour = samples if samples.shape[2] == 3 else np.repeat(samples, 3, axis=2)
        samples = np.concatenate([colour, picture.alpha], axis=2)
    ok, data = cv2.imencode(".png", samples)
    if not ok:
        raise ValueError("not encoded")
    return data.tobytes()


def _write_webp(picture: Picture) -> bytes:
    file = io.BytesIO()
    samples = _in_8_bits(picture.samples)
    if samples.shape[2] == 1:
        samples = np.repeat(samples, 3, axis=2)
    if picture.alpha is not None:
        samples = np.concatenate([samples, _in_8_bits(picture.alpha)], axis=2)
    Image.fromarray(samples).save(file, "WEBP", quality=_QUALITY)
    return file.getvalue()


_WRITERS: dict[Format, Callable[[Picture], bytes]] = {
    "JPEG": _write_jpeg,
    "PNG": _write_png,
    "WEBP": _write_webp,
}
