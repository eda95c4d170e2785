"""The kernels against the CPU device: the same plan, the same pixels. The identical .cu files, run by shim_driver."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer import models
from streamer.config import MaskPolicy, Style
from streamer.detection import Label
from streamer.device import cuda_layout
from streamer.device.base import crop_letterbox, letterbox, part_letterbox
from streamer.device.cpu import CpuDevice
from streamer.device.cuda import CudaDevice
from streamer.device.cuda_memory import DevicePlane, Pool
from streamer.frame import Color, Frame, Size
from streamer.masking import MaskPlan, Shape, nothing, plan_masks, whole
from streamer.zones import Zones, plan_zones
from tests.device.conftest import copied, no_network, noise
from tests.device.shim_driver import UNTOUCHED, ShimDriver

CPU = CpuDevice()
bounded = settings(
    max_examples=10 if "STREAMER_SHIM" in os.environ else 25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def on_device(device: CudaDevice, frame: Frame) -> Frame:
    return Frame(
        device.own(frame.luma), device.own(frame.chroma), frame.size, 0, 0, frame.time_base, frame.color
    )


def assert_same(cuda: Frame, cpu: Frame, slack: int) -> None:
    for ours, wanted in ((cuda.luma, cpu.luma), (cuda.chroma, cpu.chroma)):
        away = np.abs(np.asarray(ours).astype(int) - wanted)
        assert away.max() <= slack, f"{(away > slack).sum()} samples, first at {np.argwhere(away > slack)[0]}"


def compare(device: CudaDevice, frames: list[Frame], plans: list[MaskPlan], style: Style) -> None:
    resident = [on_device(device, frame) for frame in frames]
    device.redact_all(resident, plans, style)
    for ours, frame, plan in zip(resident, frames, plans, strict=True):
        wanted = copied(frame)
        CPU.redact(wanted, plan, style)
        assert_same(ours, wanted, 1 if style is Style.BLUR else 0)


even = st.integers(-12, 40).map(lambda value: 2 * value)


@st.composite
def plans(draw: st.DrawFn) -> MaskPlan:
    count = draw(st.integers(0, 5))
    low = [[draw(even), draw(even)] for _ in range(count)]
    sides = [[2 * draw(st.integers(1, 30)), 2 * draw(st.integers(1, 30))] for _ in range(count)]
    boxes = np.array([[*a, a[0] + b[0], a[1] + b[1]] for a, b in zip(low, sides, strict=True)], np.int32)
    boxes = boxes.reshape(-1, 4)
    grows = np.array([draw(st.integers(0, 1)) for _ in range(count)], np.int32).reshape(-1, 1)
    return MaskPlan(
        boxes,
        np.array([2 * draw(st.integers(1, 14)) for _ in range(count)], np.int32),
        np.array([draw(st.sampled_from(Shape)) for _ in range(count)], np.uint8),
        np.array([2 * draw(st.integers(0, 5)) for _ in range(count)], np.int32),
        boxes + grows * np.array([-6, -4, 10, 2], np.int32),
    )


@given(plan=plans(), width=st.integers(1, 75), height=st.integers(1, 45), style=st.sampled_from(Style))
@bounded
def test_any_plan_gives_the_same_pixels(gpu: CudaDevice, plan, width, height, style) -> None:
    compare(gpu, [noise(Size(width, height), width * height)], [plan], style)


@pytest.mark.parametrize("style", list(Style))
def test_a_batch_of_frames_of_different_sizes(gpu: CudaDevice, driver: ShimDriver, style) -> None:
    sizes = [Size(130, 70), Size(33, 91), Size(64, 64), Size(8, 8)]
    policy = MaskPolicy()
    faces = np.array([[20, 10, 60, 60], [50, 30, 70, 55]], np.float32)
    given_plans = [
        plan_masks(faces, np.zeros(2, np.uint8), policy, sizes[0]),
        whole(sizes[1]),
        nothing(),
        plan_masks(np.array([[2, 2, 9, 5]], np.float32), np.array([Label.PLATE], np.uint8), policy, sizes[3]),
    ]
    compare(gpu, [noise(size, seed) for seed, size in enumerate(sizes)], given_plans, style)
    assert driver.launches == (["paint"] if style is Style.SOLID else ["sum_cells", "round_cells", "paint"])


@pytest.mark.parametrize("style", [Style.MOSAIC, Style.BLUR])
def test_cells_that_several_blocks_add_up(gpu: CudaDevice, style) -> None:
    size = Size(600, 420)
    compare(gpu, [noise(size)], [whole(size, cells=2)], style)


def test_more_regions_than_threads_of_a_block(gpu: CudaDevice) -> None:
    rng = np.random.default_rng(5)
    corner = rng.uniform(-10, 60, (300, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + rng.uniform(2, 14, (300, 2)).astype(np.float32)], axis=1)
    size = Size(61, 47)
    plan = plan_masks(boxes, rng.integers(0, 2, 300).astype(np.uint8), MaskPolicy(cells=1), size)
    compare(gpu, [noise(size)], [plan], Style.MOSAIC)


def paint_elsewhere(driver: ShimDriver, frame: Frame, plan: MaskPlan, style: Style) -> tuple[Frame, Frame]:
    """What `paint` leaves of a frame and makes of another surface, whose pitches are other ones."""
    pool, size = Pool(driver), frame.planes_size
    with driver.current():
        device = CudaDevice(driver, no_network)
        source = on_device(device, frame)
        luma, chroma = (
            DevicePlane(pool, plane.shape, memory.address, plane.pitch + 32, memory)
            for plane in (source.luma, source.chroma)
            for memory in [pool.take((plane.pitch + 32) * plane.shape[0])]
        )
        tables = cuda_layout.tables([plan], [size])
        surfaces = np.zeros(1, cuda_layout.SURFACE)
        row = surfaces[0]
        row["luma"], row["chroma"] = source.luma.address, source.chroma.address
        row["luma_pitch"], row["chroma_pitch"] = source.luma.pitch, source.chroma.pitch
        row["luma_out"], row["chroma_out"] = luma.address, chroma.address
        row["luma_out_pitch"], row["chroma_out_pitch"] = luma.pitch, chroma.pitch
        row["width"], row["height"] = size.width, size.height
        row["first_region"], row["regions"] = 0, len(tables.regions)
        device._paint(surfaces, tables, style)
        target = Frame(luma, chroma, frame.size, 0, 0, frame.time_base)
    return source, target


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("count", [0, 1, 40])
def test_to_another_surface(driver: ShimDriver, style, count) -> None:
    """All of the picture arrives there, masked; the source stays as it was, and so does what lies beside the rows."""
    frame = noise(Size(129, 71), 6)
    corner = np.random.default_rng(3).uniform(-20, 120, (count, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + 25], axis=1)
    plan = plan_masks(boxes, np.zeros(count, np.uint8), MaskPolicy(), frame.size)
    source, target = paint_elsewhere(driver, frame, plan, style)
    assert_same(source, frame, 0)
    wanted = copied(frame)
    CPU.redact(wanted, plan, style)
    assert_same(target, wanted, 1 if style is Style.BLUR else 0)
    for plane in (target.luma, target.chroma):
        rows = driver.held(plane.address).reshape(plane.shape[0], plane.pitch)
        assert (rows[:, plane.row_bytes :] == UNTOUCHED).all()


@pytest.mark.parametrize("style", list(Style))
def test_three_thousand_regions(shim_library, style) -> None:
    """More than blocks have threads, at every border: none is dropped, none is read past the end."""
    rng = np.random.default_rng(8)
    size = Size(322, 182)
    corner = rng.uniform(-20, [330, 190], (3600, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + rng.uniform(2, 12, (3600, 2)).astype(np.float32)], axis=1)
    plan = plan_masks(boxes, rng.integers(0, 2, 3600).astype(np.uint8), MaskPolicy(cells=1), size)
    assert len(plan) >= 3000
    compare(CudaDevice(ShimDriver(shim_library), no_network), [noise(size)], [plan], style)


@pytest.mark.parametrize("style", list(Style))
def test_no_regions_at_all(gpu: CudaDevice, driver: ShimDriver, style) -> None:
    compare(gpu, [noise(Size(64, 48))], [nothing()], style)
    assert driver.launches == []


@pytest.mark.parametrize("style", list(Style))
def test_regions_over_every_border(gpu: CudaDevice, style) -> None:
    size = Size(90, 66)
    left, top = np.meshgrid([-14, 36, 80], [-10, 26, 58])
    corner = np.stack([left.ravel(), top.ravel()], axis=1).astype(np.float32)
    boxes = np.concatenate([corner, corner + np.float32([23, 19])], axis=1)
    compare(
        gpu, [noise(size)], [plan_masks(boxes, np.arange(9, dtype=np.uint8) % 2, MaskPolicy(), size)], style
    )


def test_zones(gpu: CudaDevice) -> None:
    size = Size(160, 90)
    zones = Zones(mask=(((0.1, 0.2), (0.9, 0.3), (0.4, 0.95)),))
    compare(gpu, [noise(size)], [plan_zones(zones, MaskPolicy(), size)], Style.MOSAIC)


def test_frames_in_main_memory_are_masked_in_place(gpu: CudaDevice) -> None:
    frame = noise(Size(97, 63))
    wanted, plan = (
        copied(frame),
        plan_masks(np.array([[20, 10, 60, 60]], np.float32), np.zeros(1, np.uint8), MaskPolicy(), frame.size),
    )
    gpu.thumbnail(frame, 48)
    gpu.redact(frame, plan, Style.MOSAIC)
    CPU.redact(wanted, plan, Style.MOSAIC)
    assert_same(frame, wanted, 0)


def test_cover_leaves_nothing(gpu: CudaDevice) -> None:
    frame = noise(Size(63, 41))
    wanted, resident = copied(frame), on_device(gpu, frame)
    CPU.cover(wanted)
    gpu.cover(resident)
    assert_same(resident, wanted, 0)
    gpu.cover(frame)
    assert_same(frame, wanted, 0)


def smooth(size: Size, color: Color) -> Frame:
    """A frame with edges and slopes, as pictures have them."""
    frame = noise(size, 3, color)
    y, x = np.mgrid[0 : size.even.height, 0 : size.even.width]
    frame.luma[:] = (x * 3 + y * 2 + 60 * (x // 16 % 2)) % 256
    frame.chroma[:, :, 0], frame.chroma[:, :, 1] = x[::2, ::2] % 256, y[::2, ::2] % 256
    return frame


@pytest.mark.parametrize("size", [Size(640, 360), Size(333, 217), Size(60, 40), Size(1280, 90)])
@pytest.mark.parametrize("color", [Color(), Color(matrix=1), Color(matrix=1, full_range=True)])
def test_the_view_is_that_of_the_cpu(shim_library, size, color) -> None:
    device = CudaDevice(ShimDriver(shim_library), no_network)
    spec = models.find("fast")
    for make in (smooth, lambda size, color: noise(size, 1, color)):
        frame = make(size, color)
        box = letterbox(size, 128)
        ours = np.asarray(device.view(on_device(device, frame), box, spec))
        wanted = CPU.view(frame, box, spec)
        assert ours.shape == wanted.shape
        away = np.abs(ours - wanted)
        assert away.max() <= 5  # one step of rounding per plane (times up to 2.2), one at the end
        assert away.mean() < 1


def test_a_batch_of_views_and_a_part(shim_library) -> None:
    device = CudaDevice(ShimDriver(shim_library), no_network)
    spec = models.find("fast")
    spec = models.ModelSpec(
        **{name: getattr(spec, name) for name in spec.__slots__} | {"rgb": True, "scale": 1 / 255}
    )
    frames = [noise(Size(200, 120), seed) for seed in range(3)]
    box = part_letterbox((50, 20, 150, 92), 128)
    batch = np.asarray(device.views([on_device(device, frame) for frame in frames], box, spec))
    for ours, frame in zip(batch, frames, strict=True):
        assert np.abs(ours - CPU.view(frame, box, spec)[0]).max() <= 5 / 255


@pytest.mark.parametrize("half", [False, True])
def test_crops_are_those_of_the_cpu(shim_library, half) -> None:
    """Of all sizes, at every border, in one launch; to the bit what the view of that part alone is."""
    device, spec = CudaDevice(ShimDriver(shim_library), no_network, half=half), models.find("fast")
    frame = noise(Size(201, 119))
    places = [
        ((100, 60), 64),
        ((3, 2), 40),
        ((199, 117), 30),
        ((100, 60), 700),
        ((60, 1), 9),
        ((200, 60), 128),
    ]
    boxes = [crop_letterbox(middle, span, frame.planes_size, 64) for middle, span in places]
    resident = on_device(device, frame)
    made = np.asarray(device.crops(resident, boxes, spec))
    assert device.driver.launches == ["crop_f16" if half else "crop_f32"]
    ours, wanted = made.astype(np.float32), CPU.crops(frame, boxes, spec)
    assert ours.shape == (len(places), 3, 64, 64)
    assert np.abs(ours - wanted).max() <= 5
    assert all(
        (each == np.asarray(by.view(picture, box, spec))[0]).all()
        for parts, by, picture in ((wanted, CPU, frame), (made, device, resident))
        for each, box in zip(parts, boxes, strict=True)
    )


def test_half_precision_views(shim_library) -> None:
    frame, spec = noise(Size(200, 120)), models.find("fast")
    box = letterbox(frame.size, 96)
    full, half = (
        np.asarray(CudaDevice(ShimDriver(shim_library), no_network, half=half).view(frame, box, spec))
        for half in (False, True)
    )
    assert half.dtype == np.float16
    assert (half == full.astype(np.float16)).all()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("window", [(0, 0, 200, 120), (40, 0, 110, 120)])
def test_turned_views_are_those_of_the_cpu(shim_library, quarters, window, half) -> None:
    """Each picture of a batch in its place, to the bit."""
    device = CudaDevice(ShimDriver(shim_library), no_network, half=half)
    frames = [noise(Size(200, 120), seed) for seed in range(3)]
    views = device.views(
        [on_device(device, frame) for frame in frames], part_letterbox(window, 128), models.find("fast")
    )
    ours = device.turned(views, quarters)
    assert ours.shape == np.asarray(ours).shape
    assert (np.asarray(ours) == CPU.turned(np.asarray(views), quarters)).all()


@pytest.mark.parametrize("size", [Size(640, 360), Size(1400, 90), Size(100, 60)])
def test_the_thumbnail_is_that_of_the_cpu(gpu: CudaDevice, size) -> None:
    frame = smooth(size, Color())
    ours, wanted = gpu.thumbnail(on_device(gpu, frame), 160), CPU.thumbnail(frame, 160)
    assert ours.shape == wanted.shape
    assert np.abs(ours.astype(int) - wanted).max() <= 1


def test_host_and_kernels_agree_on_the_structures(driver: ShimDriver) -> None:
    tables = (cuda_layout.SURFACE, cuda_layout.GRID, cuda_layout.REGION, cuda_layout.SOURCE, cuda_layout.CROP)
    assert [driver.sizeof(which) for which in range(5)] == [table.itemsize for table in tables]
