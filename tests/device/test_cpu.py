"""The CPU device against a plain, slow reading of Note [Mask regions]."""

import resource
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import models
from streamer.config import MaskPolicy, Style
from streamer.device import open_device, painter
from streamer.device.base import Letterbox, letterbox, part_letterbox
from streamer.device.cpu import CpuDevice, OnnxSession
from streamer.device.heap import keep_freed_memory
from streamer.errors import DeviceError, ModelError, RedactionError
from streamer.frame import Color, Frame, Size
from streamer.masking import MaskPlan, Shape, alpha, join, lay_out, nothing, plan_masks, whole
from tests.device.conftest import need_painter

DEVICE = CpuDevice()
PLAIN = Color()


@pytest.fixture(params=["machine code", "NumPy"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to paint."""
    if request.param == "NumPy":
        monkeypatch.setattr(painter, "problem", lambda: "not wanted")
    else:
        need_painter()


def picture(size: Size, seed: int = 0, color: Color = PLAIN) -> Frame:
    """A frame of noise."""
    rng = np.random.default_rng(seed)
    luma = rng.integers(0, 256, (size.even.height, size.even.width), np.uint8)
    chroma = rng.integers(0, 256, (size.even.height // 2, size.even.width // 2, 2), np.uint8)
    return Frame(luma, chroma, size, 0, 0, Fraction(1, 25), color)


def copied(frame: Frame) -> Frame:
    return Frame(frame.luma.copy(), frame.chroma.copy(), frame.size, 0, 0, frame.time_base, frame.color)


def expected(plane: np.ndarray, plan: MaskPlan, step: int, style: Style, solid: int) -> np.ndarray:
    """What a plane (h, w, lanes) must become, written as the Note reads."""
    height, width, lanes = plane.shape
    layout = lay_out(plan, Size(width * step, height * step))
    best, result = np.zeros((height, width), int), plane.astype(float)
    for index in range(len(layout)):
        x0, y0, x1, y1 = layout.boxes[index].tolist()
        feather, cell = int(layout.feather[index]), int(layout.cells[layout.grid[index]])
        weights = alpha(int(layout.shapes[index]), x1 - x0, y1 - y0, feather)
        gx0, gy0, gx1, gy1 = (layout.grids[layout.grid[index]] // step).tolist()
        cell //= step
        for y in range(max(0, (y0 - feather) // step), min(height, (y1 + feather) // step)):
            for x in range(max(0, (x0 - feather) // step), min(width, (x1 + feather) // step)):
                at_y, at_x = y * step - y0 + feather, x * step - x0 + feather
                weight = int(weights[at_y : at_y + step, at_x : at_x + step].max())
                if weight <= best[y, x]:
                    continue
                best[y, x] = weight
                value = np.full(lanes, solid, float)
                if style is not Style.SOLID:
                    value = _value(plane, (gx0, gy0, gx1, gy1), cell, x, y, style)
                mixed = (plane[y, x] * (256.0 - weight) + value * weight + 128) / 256
                result[y, x] = np.floor(mixed) if style is not Style.BLUR else mixed - 0.5
    return result


def _value(plane, grid, cell, x, y, style) -> np.ndarray:
    height, width, _ = plane.shape
    gx0, gy0, gx1, gy1 = grid
    ends_x, ends_y = min(gx1, width), min(gy1, height)
    if ends_x <= max(gx0, 0) or ends_y <= max(gy0, 0):
        return np.full(plane.shape[2], 128.0)
    low = (max(0, -gx0) // cell, max(0, -gy0) // cell)
    high = ((ends_x - 1 - gx0) // cell, (ends_y - 1 - gy0) // cell)

    def mean(column: int, row: int) -> np.ndarray:
        column, row = min(max(column, low[0]), high[0]), min(max(row, low[1]), high[1])
        left, top = max(0, gx0 + column * cell), max(0, gy0 + row * cell)
        right, bottom = min(gx0 + (column + 1) * cell, ends_x), min(gy0 + (row + 1) * cell, ends_y)
        part = plane[top:bottom, left:right].reshape(-1, plane.shape[2]).astype(int)
        return (2 * part.sum(axis=0) + len(part)) // (2 * len(part))

    if style is Style.MOSAIC:
        return mean((x - gx0) // cell, (y - gy0) // cell)
    at_x, at_y = (x - gx0 + 0.5) / cell - 0.5, (y - gy0 + 0.5) / cell - 0.5
    column, row = int(np.floor(at_x)), int(np.floor(at_y))
    along, down = at_x - column, at_y - row
    upper = mean(column, row) * (1 - along) + mean(column + 1, row) * along
    lower = mean(column, row + 1) * (1 - along) + mean(column + 1, row + 1) * along
    return upper * (1 - down) + lower * down


even = st.integers(-10, 30).map(lambda value: 2 * value)


@st.composite
def plans(draw) -> MaskPlan:
    count = draw(st.integers(0, 4))
    boxes = []
    for _ in range(count):
        x, y = draw(even), draw(even)
        boxes.append([x, y, x + 2 * draw(st.integers(1, 20)), y + 2 * draw(st.integers(1, 20))])
    ints = lambda top, low=0: np.array([2 * draw(st.integers(low, top)) for _ in range(count)], np.int32)  # noqa: E731
    table = np.array(boxes, np.int32).reshape(-1, 4)
    shapes = np.array([draw(st.sampled_from(Shape)) for _ in range(count)], np.uint8)
    grids = table + np.array([-4, -2, 6, 8], np.int32) * np.array(
        [[draw(st.integers(0, 1))] for _ in table], np.int32
    ).reshape(-1, 1)
    return MaskPlan(table, ints(9, 1), shapes, ints(4), grids)


@given(
    plan=plans(),
    width=st.integers(1, 24),
    height=st.integers(1, 20),
    style=st.sampled_from(Style),
    seed=st.integers(0, 99),
)
@settings(max_examples=120, deadline=None)
def test_every_pixel_is_what_the_note_says(plan, width, height, style, seed) -> None:
    frame = picture(Size(2 * width - 1, 2 * height - 1), seed)
    before = copied(frame)
    DEVICE.redact(frame, plan, style)
    for plane, old, step, solid in (
        (frame.luma[..., None], before.luma[..., None], 1, 64),
        (frame.chroma, before.chroma, 2, 128),
    ):
        wanted = expected(old, plan, step, style, solid)
        slack = 1.2 if style is Style.BLUR else 0
        assert np.abs(plane - wanted).max() <= slack


@given(plan=plans(), order=st.permutations(range(4)), style=st.sampled_from(Style))
@settings(max_examples=40, deadline=None)
def test_the_order_of_regions_does_not_matter(plan, order, style) -> None:
    index = [place for place in order if place < len(plan)]
    turned = MaskPlan(
        plan.boxes[index], plan.cells[index], plan.shapes[index], plan.feather[index], plan.grids[index]
    )
    first, second = picture(Size(60, 50)), picture(Size(60, 50))
    DEVICE.redact(first, plan, style)
    DEVICE.redact(second, turned, style)
    assert (first.luma == second.luma).all()
    assert (first.chroma == second.chroma).all()


@pytest.mark.parametrize("style", list(Style))
def test_pixels_outside_stay_and_details_inside_vanish(style) -> None:
    box = np.array([[301.3, 200.8, 402.1, 330.4]], np.float32)
    size = Size(640, 480)
    plan = plan_masks(box, np.zeros(1, np.uint8), MaskPolicy(), size)
    first, second = picture(size), picture(size)
    x0, y0, x1, y1 = plan.boxes[0].tolist()
    cell, feather = int(plan.cells[0]), int(plan.feather[0])
    for top in range(y0, y1, cell):  # the same values in every cell, elsewhere in it
        for left in range(x0, x1, cell):
            part = second.luma[top : min(top + cell, y1), left : min(left + cell, x1)]
            part[:] = part[::-1, ::-1].copy()
    before = copied(first)
    DEVICE.redact(first, plan, style)
    DEVICE.redact(second, plan, style)
    weights = alpha(Shape.ELLIPSE, x1 - x0, y1 - y0, feather)
    inside = weights == 256
    part = (slice(y0 - feather, y1 + feather), slice(x0 - feather, x1 + feather))
    assert (first.luma[part][inside] == second.luma[part][inside]).all()
    untouched = np.ones(first.luma.shape, bool)
    untouched[part] = weights == 0
    assert (first.luma[untouched] == before.luma[untouched]).all()
    assert (first.luma[part][inside] != before.luma[part][inside]).mean() > 0.9
    chroma_hidden = inside.reshape(inside.shape[0] // 2, 2, -1, 2).any(axis=(1, 3))
    half = tuple(slice(axis.start // 2, axis.stop // 2) for axis in part)
    assert (first.chroma[half][chroma_hidden] != before.chroma[half][chroma_hidden]).mean() > 0.9


@pytest.mark.parametrize("style", list(Style))
def test_a_whole_picture_keeps_no_more_than_its_cells(style) -> None:
    frame = picture(Size(321, 181))
    DEVICE.redact(frame, whole(frame.size), style)
    assert frame.luma.std() < 12
    assert np.abs(np.diff(frame.luma.astype(int), axis=1)).max() < 30


def test_hundreds_of_regions_and_none() -> None:
    rng = np.random.default_rng(1)
    frame, size = picture(Size(640, 360)), Size(640, 360)
    before = copied(frame)
    DEVICE.redact(frame, nothing(), Style.BLUR)
    assert (frame.luma == before.luma).all()
    corner = rng.uniform(-20, 640, (1500, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + rng.uniform(2, 30, (1500, 2)).astype(np.float32)], axis=1)
    plan = plan_masks(boxes, np.zeros(1500, np.uint8), MaskPolicy(), size)
    DEVICE.redact(frame, plan, Style.MOSAIC)
    few = picture(size)
    DEVICE.redact(few, join([plan, plan]), Style.MOSAIC)
    assert (few.luma == frame.luma).all()


def test_cover_leaves_nothing() -> None:
    frame = picture(Size(63, 41))
    DEVICE.cover(frame)
    assert len(np.unique(frame.luma)) == 1
    assert len(np.unique(frame.chroma)) == 1


def test_a_plane_that_cannot_be_written_is_an_error_not_a_pass() -> None:
    frame = picture(Size(64, 64))
    frame.luma.flags.writeable = False
    with pytest.raises(RedactionError):
        DEVICE.redact(frame, whole(frame.size), Style.MOSAIC)


def test_our_copy_is_ours() -> None:
    decoded = np.arange(64, dtype=np.uint8).reshape(8, 8)[:, :6]
    copy = DEVICE.own(decoded)
    copy[:] = 0
    assert decoded[0, 1] == 1
    assert copy.flags.c_contiguous


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (5, True), (1, True), (9, False)])
@pytest.mark.parametrize("rgb", [False, True])
def test_the_view_shows_the_colours(matrix, full, rgb) -> None:
    red, blue = (0.2126, 0.0722) if matrix in (1, 9) else (0.299, 0.114)
    wanted = np.array([200.0, 90.0, 30.0])  # R G B
    y = red * wanted[0] + (1 - red - blue) * wanted[1] + blue * wanted[2]
    cb, cr = (wanted[2] - y) / (2 * (1 - blue)), (wanted[0] - y) / (2 * (1 - red))
    samples = (
        (y, cb + 128, cr + 128) if full else (16 + y * 219 / 255, 128 + cb * 224 / 255, 128 + cr * 224 / 255)
    )
    frame = picture(Size(320, 180), color=Color(matrix=matrix, full_range=full))
    frame.luma[:] = round(samples[0])
    frame.chroma[:] = [round(samples[1]), round(samples[2])]
    spec = models.find("fast")
    spec = models.ModelSpec(
        **{name: getattr(spec, name) for name in spec.__slots__} | {"rgb": rgb, "scale": 0.5}
    )
    box = letterbox(frame.size, 160)
    tensor = DEVICE.view(frame, box, spec)
    assert tensor.shape == (1, 3, 96, 160)
    assert tensor.dtype == np.float32
    shown = tensor[0, :, :90] / 0.5
    assert np.abs(shown.mean(axis=(1, 2)) - (wanted if rgb else wanted[::-1])).max() < 3
    assert (tensor[0, :, 90:] == 57).all()


def test_a_view_is_a_scaled_picture_and_stays_its_callers() -> None:
    frame = picture(Size(640, 360), color=Color(full_range=True))
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    frame.luma[:] = ramp
    frame.chroma[:] = 128
    spec = models.find("fast")
    view = DEVICE.view(frame, letterbox(frame.size, 160), spec)
    wanted = cv2.resize(frame.luma, (160, 90), interpolation=cv2.INTER_AREA)
    assert np.abs(view[0, 1, :90] - wanted).max() <= 2
    kept = view.copy()
    others = [
        DEVICE.view(picture(Size(640, 360), seed), letterbox(frame.size, 160), spec) for seed in range(12)
    ]
    assert (view == kept).all()
    assert len({other.ctypes.data for other in others}) == 12


def test_a_part_is_enlarged_at_most_twice() -> None:
    frame = picture(Size(641, 361))
    box: Letterbox = part_letterbox((600, 300, 642, 362), 640)
    tensor = DEVICE.view(frame, box, models.find("fast"))
    assert tensor.shape[2:] == (box.size.height, box.size.width)
    assert np.isfinite(tensor).all()


@pytest.mark.parametrize(
    ("size", "width", "shape"),
    [((1920, 1080), 320, (180, 320)), ((200, 101), 320, (102, 200)), ((642, 12), 320, (6, 320))],
)
def test_a_thumbnail_is_a_small_luma_picture(size, width, shape) -> None:
    frame = picture(Size(*size))
    frame.luma[:] = np.linspace(0, 255, frame.luma.shape[1]).astype(np.uint8)
    small = DEVICE.thumbnail(frame, width)
    assert small.shape == shape
    assert np.abs(small[0].astype(int) - np.linspace(0, 255, shape[1])).max() < 4
    small[:] = 0
    assert frame.luma.max() == 255


def test_the_shipped_network_runs() -> None:
    spec = models.find("fast")
    session = DEVICE.load(spec, 640)
    outputs = session(np.zeros((2, 3, 64, 96), np.float32))
    assert [output.shape[0] for output in outputs] == [2] * len(outputs)
    with pytest.raises(ModelError, match="failed"):
        session(np.zeros((1, 4, 64, 96), np.float32))


def test_a_broken_network_is_one_line(tmp_path) -> None:
    spec = models.find("fast")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    spec = models.ModelSpec(**{name: getattr(spec, name) for name in spec.__slots__} | {"weights": broken})
    with pytest.raises(ModelError) as caught:
        OnnxSession(spec)
    assert "\n" not in str(caught.value)


def test_the_choice_of_device_is_never_silent(monkeypatch) -> None:
    from streamer.device import cuda_probe

    monkeypatch.setattr(cuda_probe, "probe", lambda: cuda_probe.DriverFacts(problem="no driver"))
    assert open_device("cpu").device.name == "cpu"
    opened = open_device("auto")
    assert opened.device.name == "cpu"
    assert "no driver" in opened.reason
    with pytest.raises(DeviceError, match="no driver"):
        open_device("cuda")


def test_views_need_no_fresh_memory() -> None:
    if not keep_freed_memory():
        pytest.skip("not glibc")
    frame, spec = picture(Size(1920, 1080)), models.find("fast")
    box = letterbox(frame.size, 640)
    for _ in range(5):
        DEVICE.view(frame, box, spec)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        DEVICE.view(frame, box, spec)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000  # 7,000 without
