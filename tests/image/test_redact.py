import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import streamer
from streamer import detection, masking
from streamer.config import Hide, MaskPolicy, Style
from streamer.detection import Detections, Label
from streamer.errors import RedactionError
from streamer.frame import Frame, Size
from streamer.image.limits import ImageLimits
from streamer.image.picture import Picture, decode, from_array, write
from streamer.image.redact import Redactor, apply, views_of
from streamer.zones import zones_from
from tests.image.pictures import FACE, detail, encoded, samples_of

LIMITS = ImageLimits()
BOX = (20, 30, 60, 90)


def fixed(boxes: list[list[float]], labels: list[Label], scores: list[float] | None = None) -> Redactor:
    found = detection.detections(boxes, scores or [0.9] * len(boxes), labels)
    return Redactor(lambda _: found, {Label.FACE: 0.5, Label.PLATE: 0.5}, MaskPolicy())


def noise(height: int, width: int, channels: int, kind: type = np.uint8) -> NDArray[np.generic]:
    top = int(np.iinfo(kind).max) + 1
    return np.random.default_rng(3).integers(0, top, (height, width, channels)).astype(kind)


def plan_of(width: int, height: int) -> masking.MaskPlan:
    boxes = np.array([BOX], np.float32)
    return masking.plan_masks(boxes, np.array([Label.PLATE], np.uint8), MaskPolicy(), Size(width, height))


def test_a_real_face_is_unreadable_and_the_rest_is_one_encoding_away(redactor: Redactor, jpeg: bytes) -> None:
    masked = redactor(decode(jpeg, LIMITS), Hide.FACES)
    before, after = samples_of(jpeg), samples_of(masked.write())
    x0, y0, x1, y1 = FACE
    assert detail(after[y0:y1, x0:x1]) < 0.35 * detail(before[y0:y1, x0:x1])
    once = samples_of(write(decode(jpeg, LIMITS)))
    far = np.ones(after.shape[:2], np.bool_)
    for item in masked.objects:
        x, y, w, h = np.array(item.box) * np.array([after.shape[1], after.shape[0]] * 2)
        beside = 24 + 0.4 * max(w, h)  # soft edge and the blocks that JPEG encodes together
        rows = slice(max(0, round(y - beside)), round(y + h + beside))
        far[rows, max(0, round(x - beside)) : round(x + w + beside)] = False
    assert far.mean() > 0.05
    assert np.array_equal(after[far], once[far])
    hits = [item.box for item in masked.objects if item.label == "Face"]
    assert any(x < 0.45 < x + w and y < 0.25 < y + h for x, y, w, h in hits)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(120, 100), (121, 99)])
def test_masks_change_what_they_cover_and_nothing_else(
    kind: type, channels: int, size: tuple[int, int]
) -> None:
    samples = noise(*size, channels, kind)
    original = samples.copy()
    for style in Style:
        masked = apply(from_array(samples, LIMITS), plan_of(size[1], size[0]), style)
        planes = [masked.samples] + ([masked.alpha] if masked.alpha is not None else [])
        result = np.concatenate(planes, axis=2)
        assert (result.dtype, result.shape) == (original.dtype, original.shape)
        inside = np.zeros(size, bool)
        inside[BOX[1] - 15 : BOX[3] + 15, BOX[0] - 15 : BOX[2] + 15] = True
        assert np.array_equal(result[~inside], original[~inside])
        x0, y0, x1, y1 = BOX
        assert detail(result[y0:y1, x0:x1]) < 0.25 * detail(original[y0:y1, x0:x1])
    assert np.array_equal(samples, original)  # the caller's array is not written


def test_masked_16_bit_samples_keep_no_low_bits() -> None:
    masked = apply(from_array(noise(120, 100, 3, np.uint16), LIMITS), plan_of(100, 120), Style.BLUR)
    x0, y0, x1, y1 = BOX
    covered = masked.samples[y0:y1, x0:x1]
    assert np.array_equal(covered >> 8, covered & 255)


def test_plain_transparency_stays_as_it_is() -> None:
    samples = noise(120, 100, 4)
    samples[:, :, 3] = 200
    masked = apply(from_array(samples, LIMITS), plan_of(100, 120), Style.BLUR)
    assert masked.alpha is not None
    assert (masked.alpha == 200).all()


def test_a_face_behind_transparency_is_found(redactor: Redactor, person: NDArray[np.uint8]) -> None:
    clear = np.zeros((*person.shape[:2], 1), np.uint8)
    masked = redactor(from_array(np.concatenate([person, clear], axis=2), LIMITS), Hide.FACES)
    assert masked.objects
    x0, y0, x1, y1 = FACE
    assert detail(masked.picture.samples[y0:y1, x0:x1]) < 0.35 * detail(person[y0:y1, x0:x1])


def test_a_face_painted_in_transparency_is_found(redactor: Redactor, person: NDArray[np.uint8]) -> None:
    grey = np.asarray(Image.fromarray(person).convert("L"))[:, :, None]
    white = np.full_like(person, 255)
    masked = redactor(from_array(np.concatenate([white, grey], axis=2), LIMITS), Hide.FACES)
    assert masked.objects
    assert masked.picture.alpha is not None
    x0, y0, x1, y1 = FACE
    assert detail(masked.picture.alpha[y0:y1, x0:x1]) < 0.35 * detail(grey[y0:y1, x0:x1])


def test_a_face_in_the_low_bits_of_16_is_found(redactor: Redactor, person: NDArray[np.uint8]) -> None:
    assert redactor(from_array(person.astype(np.uint16) * 4, LIMITS), Hide.FACES).objects


@pytest.mark.parametrize("values", [range(256), range(29_000, 30_024, 4)], ids=["8 bits", "heat"])
def test_a_face_in_few_of_65536_values_is_found_beside_a_dead_pixel(
    redactor: Redactor, person: NDArray[np.uint8], values: range
) -> None:
    grey = np.array(values, np.uint16)[np.asarray(Image.fromarray(person).convert("L"))]
    grey[0, 0] = 65535
    masked = redactor(from_array(grey, LIMITS), Hide.FACES)
    x0, y0, x1, y1 = FACE
    assert masked.objects
    assert detail(masked.picture.samples[y0:y1, x0:x1]) < 0.35 * detail(grey[y0:y1, x0:x1, None])


def test_16_bit_pictures_of_the_usual_range_are_looked_at_once(person: NDArray[np.uint8]) -> None:
    assert len(list(views_of(from_array(person.astype(np.uint16) * 257, LIMITS)))) == 1


def test_hide_chooses_the_classes() -> None:
    boxes, labels = [[10.0, 10, 40, 40], [60.0, 60, 90, 90]], [Label.FACE, Label.PLATE]
    picture = from_array(noise(120, 100, 3), LIMITS)
    for hide, names in (
        (Hide.EVERYTHING, {"Face", "License plate"}),
        (Hide.FACES, {"Face"}),
        (Hide.PLATES, {"License plate"}),
    ):
        masked = fixed(boxes, labels)(picture, hide)
        assert {item.label for item in masked.objects} == names
        changed = (masked.picture.samples != picture.samples).any(axis=2)
        assert changed[15:35, 15:35].any() == ("Face" in names)
        assert changed[65:85, 65:85].any() == ("License plate" in names)


def test_weak_detections_are_left_alone() -> None:
    picture = from_array(noise(120, 100, 3), LIMITS)
    masked = fixed([[10.0, 10, 40, 40]], [Label.FACE], [0.49])(picture, Hide.EVERYTHING)
    assert not masked.objects
    assert masked.picture is picture


def test_boxes_are_shares_of_the_upright_picture() -> None:
    picture = from_array(noise(100, 200, 3), LIMITS)
    (item,) = fixed([[20.0, 30, 60, 80]], [Label.FACE])(picture, Hide.FACES).objects
    assert item.box == pytest.approx((0.1, 0.3, 0.2, 0.5))
    (entry,) = fixed([[20.0, 30, 60, 80]], [Label.FACE])(picture, Hide.FACES).result().as_dict()["objects"]
    assert entry == {"class": "Face", "box": {"x": 0.1, "y": 0.3, "w": 0.2, "h": 0.5}, "score": 0.9}


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (2, 400), (700, 1)])
def test_tiny_and_thin_pictures_pass_through_the_real_detector(
    redactor: Redactor, size: tuple[int, int]
) -> None:
    masked = redactor(decode(encoded(Image.new("RGB", size, "red"), "PNG"), LIMITS), Hide.EVERYTHING)
    assert (masked.picture.width, masked.picture.height) == size


def test_a_failing_detector_gives_no_picture(jpeg: bytes) -> None:
    def broken(_: Frame) -> Detections:
        raise RuntimeError("out of order")

    with pytest.raises(RedactionError):
        Redactor(broken, {Label.FACE: 0.5}, MaskPolicy())(decode(jpeg, LIMITS), Hide.FACES)


def test_a_detector_that_returns_nonsense_covers_the_picture(jpeg: bytes) -> None:
    masked = fixed([[float("nan"), 0, 10, 10]], [Label.FACE])(decode(jpeg, LIMITS), Hide.FACES)
    assert detail(masked.picture.samples) < 0.4 * detail(samples_of(jpeg))


def test_one_module_makes_masked_pictures_and_only_they_are_written() -> None:
    root = Path(streamer.__file__).parent
    makers = [p.name for p in root.rglob("*.py") if re.search(r"\bMaskedPicture\(", p.read_text())]
    writers = [p.name for p in root.rglob("*.py") if re.search(r"(files|picture)\.write\(", p.read_text())]
    assert makers == ["redact.py"]
    assert writers == ["redact.py"]


def test_a_picture_without_objects_is_only_encoded_again(jpeg: bytes) -> None:
    picture = decode(jpeg, LIMITS)
    assert isinstance(picture, Picture)
    assert fixed([], [])(picture, Hide.EVERYTHING).write() == write(picture)


def test_zones_hide_always_and_show_always() -> None:
    picture = from_array(noise(120, 100, 3), LIMITS)
    corner, middle = [[0, 0], [0.2, 0], [0.2, 0.2], [0, 0.2]], [[0.5, 0.5], [1, 0.5], [1, 1], [0.5, 1]]
    zones = zones_from({"mask": [corner], "keep": [middle]}, "the test")
    found = detection.detections([[60.0, 70, 90, 100]], [0.9], [Label.FACE])
    redactor = Redactor(lambda _: found, {Label.FACE: 0.5}, MaskPolicy(), zones)
    masked = redactor(picture, Hide.FACES)
    changed = (masked.picture.samples != picture.samples).any(axis=2)
    assert changed[:20, :15].mean() > 0.95
    assert not changed[60:, 60:].any()
    assert not masked.objects


def test_planes_are_brought_to_where_the_network_is() -> None:
    class Elsewhere:
        """A plane in another memory."""

    brought: list[tuple[int, ...]] = []

    def own(plane: NDArray[np.uint8]) -> Elsewhere:
        brought.append(plane.shape)
        return Elsewhere()

    def detect(frame: Frame) -> Detections:
        assert isinstance(frame.luma, Elsewhere)
        assert isinstance(frame.chroma, Elsewhere)
        return detection.detections([[20, 30, 60, 80]], [0.9], [Label.FACE])

    redactor = Redactor(detect, {Label.FACE: 0.5}, MaskPolicy(), own=own)
    assert redactor(from_array(noise(101, 99, 3), LIMITS), Hide.FACES).objects
    assert brought == [(102, 100), (51, 50, 2)]
