import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import DTypeLike, NDArray
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin, PngImagePlugin

from streamer.errors import DamagedError, InputError, TooLargeError, UnsupportedError
from streamer.image.limits import ImageLimits
from streamer.image.picture import decode, from_array, write
from tests.image.pictures import encoded, opened, samples_of

LIMITS = ImageLimits()


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds nothing."""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return start + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def grey_png(bits: int, row: bytes, clear: int) -> bytes:
    """One row of grey samples, of which the value `clear` is transparent."""
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", len(row) * 8 // bits, 1, bits, 0, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"tRNS", struct.pack(">H", clear)) + end


def tiff(samples: NDArray[np.uint16], **tags: Any) -> bytes:
    """A TIFF of 16-bit samples."""
    file = io.BytesIO()
    tifffile.imwrite(file, samples, metadata=None, **tags)
    return file.getvalue()


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_jpeg_keeps_its_tables_and_sampling(person: NDArray[np.uint8], quality: int, sampling: int) -> None:
    source = encoded(person, "JPEG", quality=quality, subsampling=sampling)
    result = write(decode(source, LIMITS))
    before, after = opened(source), opened(result)
    assert isinstance(before, JpegImagePlugin.JpegImageFile)
    assert isinstance(after, JpegImagePlugin.JpegImageFile)
    assert after.quantization == before.quantization
    assert JpegImagePlugin.get_sampling(after) == sampling
    assert abs(len(result) - len(source)) < 0.02 * len(source)
    assert np.abs(samples_of(result).astype(int) - samples_of(source)).mean() < 0.5


def test_other_tables_survive(person: NDArray[np.uint8]) -> None:
    tables = [[3 + at // 2 for at in range(64)], [5 + at for at in range(64)], [7 + at for at in range(64)]]
    source = encoded(person, "JPEG", qtables=tables, subsampling=0)
    after = opened(write(decode(source, LIMITS)))
    assert isinstance(after, JpegImagePlugin.JpegImageFile)
    assert [list(after.quantization[at]) for at in range(3)] == tables


def test_grey_jpeg_stays_grey(person: NDArray[np.uint8]) -> None:
    source = encoded(Image.fromarray(person).convert("L"), "JPEG", quality=60)
    result = write(decode(source, LIMITS))
    assert opened(result).mode == "L"
    assert opened(result).quantization == opened(source).quantization  # type: ignore[attr-defined]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied(person: NDArray[np.uint8], orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = encoded(Image.fromarray(person[:200, :300]), format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(opened(source)).convert("RGB"))
    picture = decode(source, LIMITS)
    assert np.array_equal(picture.samples, expected)
    assert (picture.width, picture.height) == expected.shape[1::-1]


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_a_senseless_orientation_is_none(person: NDArray[np.uint8], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(encoded(person[:200], "JPEG", exif=exif), LIMITS).height == 200


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_png_keeps_every_bit(channels: int, kind: type) -> None:
    samples = np.random.default_rng(1).integers(0, np.iinfo(kind).max + 1, (33, 47, channels)).astype(kind)
    ok, source = cv2.imencode(".png", samples)
    assert ok
    result = write(decode(source.tobytes(), LIMITS))
    again = cv2.imdecode(np.frombuffer(result, np.uint8), cv2.IMREAD_UNCHANGED)
    assert again is not None
    assert again.dtype == kind
    assert np.array_equal(again.reshape(samples.shape), samples)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_png_mode_looks_the_same_afterwards(person: NDArray[np.uint8], mode: str) -> None:
    image = Image.fromarray(person[:64, :64]).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.linear_gradient("L").resize((64, 64)))
    source = encoded(image, "PNG")
    assert np.array_equal(samples_of(write(decode(source, LIMITS)), "RGBA"), samples_of(source, "RGBA"))


def test_transparent_palettes_stay_transparent(person: NDArray[np.uint8]) -> None:
    source = encoded(Image.fromarray(person[:64, :64]).convert("P"), "PNG", transparency=3)
    assert np.array_equal(samples_of(write(decode(source, LIMITS)), "RGBA"), samples_of(source, "RGBA"))


@pytest.mark.parametrize(
    ("bits", "row", "clear", "samples"),
    [
        (1, b"\x90", 1, [255, 0, 0, 255, 0, 0, 0, 0]),
        (2, b"\x46", 1, [85, 0, 85, 170]),
        (4, b"\x5a\x05", 5, [85, 170, 0, 85]),
        (8, b"\x07\x08\x07", 7, [7, 8, 7]),
        (16, b"\x03\xe8\x03\xe9\xe8\xe8", 1000, [1000, 1001, 0xE8E8]),
    ],
)
def test_the_one_grey_value_that_is_transparent_stays_so(
    bits: int, row: bytes, clear: int, samples: list[int]
) -> None:
    picture = decode(write(decode(grey_png(bits, row, clear), LIMITS)), LIMITS)
    assert picture.samples[0, :, 0].tolist() == samples
    assert picture.alpha is not None
    opaque = 65535 if bits == 16 else 255
    hidden = clear * 255 // ((1 << bits) - 1) if bits < 8 else clear
    assert picture.alpha[0, :, 0].tolist() == [0 if value == hidden else opaque for value in samples]


DEEP = np.random.default_rng(5).integers(1, 65536, (24, 32, 4)).astype(np.uint16)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiffs_keep_every_bit(order: str) -> None:
    data = tiff(DEEP[:, :, :3], photometric="rgb", byteorder=order)
    assert np.array_equal(decode(data, LIMITS).samples, DEEP[:, :, :3])
    data = tiff(DEEP[:, :, 0], photometric="minisblack", byteorder=order)
    assert np.array_equal(decode(data, LIMITS).samples, DEEP[:, :, :1])


def test_16_bit_tiffs_whose_zero_is_white_are_no_negatives() -> None:
    grey = DEEP[:, :, 0]
    assert np.array_equal(decode(tiff(grey, photometric="miniswhite"), LIMITS).samples[:, :, 0], 65535 - grey)


def test_the_fourth_sample_of_a_16_bit_tiff_is_what_its_tag_says() -> None:
    plain = decode(tiff(DEEP, photometric="rgb", extrasamples=["unassalpha"]), LIMITS)
    assert plain.alpha is not None
    assert np.array_equal(plain.samples, DEEP[:, :, :3])
    assert np.array_equal(plain.alpha, DEEP[:, :, 3:])
    other = decode(tiff(DEEP, photometric="rgb", extrasamples=["unspecified"]), LIMITS)
    assert np.array_equal(other.samples, DEEP[:, :, :3])
    assert other.alpha is None
    weighted = DEEP.copy()
    weighted[:, :, :3] = np.rint(DEEP[:, :, :3] * (DEEP[:, :, 3:] / 65535))
    whole = decode(tiff(weighted, photometric="rgb", extrasamples=["assocalpha"]), LIMITS)
    strong = DEEP[:, :, 3] > 40_000
    assert np.abs(whole.samples.astype(int) - DEEP[:, :, :3])[strong].max() <= 2


def test_16_bit_tiffs_that_no_library_reads_right_are_refused() -> None:
    planes = np.ascontiguousarray(np.moveaxis(DEEP[:, :, :3], 2, 0))
    for data in (
        tiff(DEEP, photometric="separated"),  # inks
        tiff(planes, photometric="rgb", planarconfig="separate"),
    ):
        with pytest.raises(UnsupportedError):
            decode(data, LIMITS)


@pytest.mark.parametrize(
    ("format", "nearest"),
    [
        ("JPEG", "JPEG"), ("PNG", "PNG"), ("WEBP", "JPEG"), ("AVIF", "JPEG"), ("GIF", "PNG"), ("BMP", "PNG"),
        ("TIFF", "PNG"),
    ],
)  # fmt: skip
def test_other_formats_become_the_nearer_one(person: NDArray[np.uint8], format: str, nearest: str) -> None:
    picture = decode(encoded(person, format), LIMITS)
    assert picture.format == nearest
    assert opened(write(picture)).format == nearest


def test_webp_with_transparency_becomes_png(person: NDArray[np.uint8]) -> None:
    image = Image.fromarray(person).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    picture = decode(encoded(image, "WEBP"), LIMITS)
    assert picture.format == "PNG"
    assert picture.alpha is not None


def test_cmyk_becomes_rgb(person: NDArray[np.uint8]) -> None:
    source = encoded(Image.fromarray(person).convert("CMYK"), "JPEG", quality=95)
    result = write(decode(source, LIMITS))
    assert opened(result).mode == "RGB"
    assert np.abs(samples_of(result).astype(int) - person).mean() < 4


def test_only_the_first_picture_is_taken(person: NDArray[np.uint8]) -> None:
    first, second = Image.fromarray(person[:64, :64]), Image.fromarray(person[64:128, :64])
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        source = encoded(first, format, save_all=True, append_images=[second])
        result = opened(write(decode(source, LIMITS)))
        assert getattr(result, "n_frames", 1) == 1
        assert np.abs(np.asarray(result.convert("RGB")).astype(int) - person[:64, :64]).mean() < 12


def test_metadata_thumbnails_and_trailing_data_are_gone(person: NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[0x010E] = "SECRET description"
    exif.get_ifd(0x8825)[2] = (50.0, 1.0, 2.0)  # GPS latitude
    secret = b"SECRET"
    jpeg = encoded(
        person, "JPEG", exif=exif, comment=secret, xmp=secret, icc_profile=_srgb() + secret
    ) + encoded(person, "JPEG", comment=secret)  # as a phone that appends a second picture
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "SECRET")
    text.add_itxt("XML:com.adobe.xmp", "SECRET")
    png = encoded(person, "PNG", pnginfo=text, exif=exif, dpi=(300, 300)) + secret
    for source, format in ((jpeg, "JPEG"), (png, "PNG")):
        assert secret in source
        result = write(decode(source, LIMITS))
        assert secret not in result
        after = opened(result)
        assert after.format == format
        assert not after.getexif()
        assert set(after.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert result.rstrip().endswith(b"\xff\xd9" if format == "JPEG" else b"IEND\xaeB`\x82")


def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_srgb_samples_stay_as_they_are(person: NDArray[np.uint8]) -> None:
    source = encoded(person, "PNG", icc_profile=_srgb())
    assert np.array_equal(decode(source, LIMITS).samples, person)


def test_a_broken_profile_is_left_behind(person: NDArray[np.uint8]) -> None:
    source = encoded(person, "PNG", icc_profile=b"not a profile" * 20)
    assert np.array_equal(decode(source, LIMITS).samples, person)


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (1, 100_000_000), (65_000, 65_000)])
def test_a_bomb_is_refused_by_its_header(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.core, "map_buffer", lambda *_: pytest.fail("decoded"))
    with pytest.raises(TooLargeError, match="pixels"):
        decode(png_header(width, height), LIMITS)


def test_a_hundred_megapixel_jpeg_is_refused() -> None:
    image = encoded(np.zeros((16, 16), np.uint8), "JPEG")
    at = image.index(b"\xff\xc0") + 5
    with pytest.raises(TooLargeError, match="pixels"):
        decode(image[:at] + struct.pack(">HH", 10_000, 10_000) + image[at + 4 :], LIMITS)


def test_a_jpeg_of_endless_scans_is_refused(person: NDArray[np.uint8]) -> None:
    source = encoded(person, "JPEG", progressive=True)
    start = source.rindex(b"\xff\xda")
    with pytest.raises(TooLargeError, match="scans"):
        decode(source[:-2] + source[start:-2] * 200 + source[-2:], LIMITS)


def test_what_only_looks_like_scans_is_not_counted(person: NDArray[np.uint8]) -> None:
    chance = b"\xff\xda" * 200
    photo = encoded(person, "JPEG", comment=chance, progressive=True)  # as in a thumbnail
    result = write(decode(photo + b"ftypmp42" + chance, LIMITS))  # as in the video behind a moving photo
    assert chance[:8] not in result


@pytest.mark.parametrize(
    ("format", "at", "piece"),
    [("JPEG", 2, b"\xff\xfe\0\2"), ("JPEG", -2, b"\xff\xfe\0\2"), ("PNG", 33, chunk(b"abCd", b""))],
)
def test_a_file_of_countless_empty_pieces_is_refused_at_once(
    person: NDArray[np.uint8], format: str, at: int, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = encoded(person, format)
    assert decode(source[:at] + piece * 5000 + source[at:], LIMITS).width == 512
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(TooLargeError, match="pieces"):
        decode(source[:at] + piece * 20_000 + source[at:], LIMITS)


@pytest.mark.parametrize(
    ("place", "piece"),
    [
        ("before", b"!\xf9\4\0\0\0\0\0"),
        ("before", b"!\xfe\1a\0"),
        ("before", b"\0"),
        ("within", b"\1\0"),
        ("behind", b"!\xf9\4\0\0\0\0\0"),
        ("behind", b"\0"),
    ],
)
def test_a_gif_of_countless_tiny_pieces_is_refused(place: str, piece: bytes) -> None:
    source = encoded(Image.new("L", (16, 16)), "GIF")
    at = {"before": 13 + (3 << (source[10] & 7) + 1), "within": -2, "behind": -1}[place]
    assert decode(source[:at] + piece * 100 + source[at:], LIMITS).width == 16
    with pytest.raises(TooLargeError, match="small pieces"):
        decode(source[:at] + piece * 200_000 + source[at:], LIMITS)


def test_a_large_gif_is_read() -> None:
    noise = Image.effect_noise((2500, 2000), 100)
    source = io.BytesIO()
    noise.save(source, "GIF", save_all=True, append_images=[noise.rotate(180)])
    assert len(source.getvalue()) > 8 << 20
    assert decode(source.getvalue(), LIMITS).more


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_cut_files_are_refused(person: NDArray[np.uint8], format: str, share: float) -> None:
    source = encoded(person, format)
    with pytest.raises(InputError):
        decode(source[: int(len(source) * share)], LIMITS)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_cut_16_bit_files_are_refused(share: float) -> None:
    samples = np.random.default_rng(1).integers(0, 65536, (64, 64, 3)).astype(np.uint16)
    _, source = cv2.imencode(".png", samples)
    with pytest.raises(DamagedError):
        decode(source.tobytes()[: int(len(source) * share)], LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a",
        b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"text", b"\0" * 1000, b"P6\n1 1\n255\n\0\0\0", b"BM",
    ],
)  # fmt: skip
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises((UnsupportedError, DamagedError)):
        decode(data, LIMITS)


def test_floating_point_pictures_are_refused() -> None:
    with pytest.raises(UnsupportedError):
        decode(encoded(Image.new("F", (8, 8)), "TIFF"), LIMITS)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.dtype(">u2")])
def test_arrays_become_pictures(shape: tuple[int, ...], kind: DTypeLike) -> None:
    samples = np.arange(np.prod(shape), dtype=kind).reshape(shape)
    picture = from_array(samples, LIMITS)
    again = decode(write(picture), LIMITS)
    assert np.array_equal(again.samples, picture.samples)
    assert (again.alpha is None) == (shape[-1] != 4)
    assert (picture.width, picture.height, picture.format) == (7, 5, "PNG")


@pytest.mark.parametrize(
    "array",
    [
        np.array(5, np.uint8),
        np.zeros((2, 2, 2), np.uint8),
        np.zeros((2, 2, 3)),
        np.zeros((0, 2), np.uint8),
        np.zeros((1, 2, 3, 4), np.uint8),
    ],
)
def test_other_arrays_are_refused(array: NDArray[np.generic]) -> None:
    with pytest.raises(UnsupportedError):
        from_array(array, LIMITS)


def test_large_arrays_are_refused() -> None:
    with pytest.raises(TooLargeError):
        from_array(np.broadcast_to(np.uint8(0), (10_000, 10_000)), LIMITS)


def test_limits_are_what_the_caller_says(person: NDArray[np.uint8]) -> None:
    source = io.BytesIO(encoded(person, "PNG")).getvalue()
    with pytest.raises(TooLargeError):
        decode(source, ImageLimits(max_pixels=512 * 512 - 1))
    assert decode(source, ImageLimits(max_pixels=512 * 512)).width == 512


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_picture_becomes_any_format(depth: type[np.unsignedinteger[Any]], channels: int) -> None:
    ramp = np.linspace(0, np.iinfo(depth).max, 64 * 32).astype(depth).reshape(32, 64, 1)
    samples = np.repeat(ramp, channels, axis=2)
    if channels == 4:
        samples[:, 32:, 3] = 0
        samples[:, :32, 3] = np.iinfo(depth).max
    picture = from_array(samples, LIMITS)
    for format in ("JPEG", "WEBP"):
        made = opened(write(replace(picture, format=format)))
        assert made.format == format
        found = np.asarray(made.convert("RGB")).astype(int)
        wanted = (ramp.astype(int) * 255 // np.iinfo(depth).max)[:, :32]
        assert np.abs(found[:, :32] - wanted).mean() < 3
        if channels == 4 and format == "JPEG":
            assert found[:, 40:].min() > 250
        if channels == 4 and format == "WEBP":
            assert np.asarray(made.getchannel("A"))[:, 40:].max() == 0
