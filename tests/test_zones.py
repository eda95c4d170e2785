"""Zones: what a file may say, and that nothing of a masked polygon stays visible."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.config import MaskPolicy, Style, load
from streamer.device.cpu import CpuDevice
from streamer.errors import ConfigError
from streamer.frame import Frame, Size
from streamer.zones import Zones, kept, load_zones, plan_zones

POLICY = MaskPolicy()
TRIANGLE = ((0.1, 0.2), (0.9, 0.3), (0.4, 0.95))


def hidden(zones: Zones, size: Size) -> np.ndarray:
    """Which pixels a plan of zones touches, (h, w)."""
    frame = Frame(
        np.full((size.even.height, size.even.width), 200, np.uint8),
        np.full((size.even.height // 2, size.even.width // 2, 2), 200, np.uint8),
        size,
        0,
        0,
        Fraction(1, 25),
    )
    CpuDevice().redact(frame, plan_zones(zones, POLICY, size), Style.SOLID)
    return frame.luma != 200


def inside(polygon, size: Size) -> np.ndarray:
    """Which pixel centres lie in a polygon, by the crossing rule, (h, w)."""
    y, x = np.mgrid[0 : size.even.height, 0 : size.even.width] + 0.5
    found = np.zeros(x.shape, bool)
    corners = [(px * size.width, py * size.height) for px, py in polygon]
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        if ay == by:
            continue
        crosses = ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
        found ^= crosses
    return found


share = st.floats(0, 1, width=32)


@example([(0.0, 1.0), (1.0, 0.0), (0.5, 0.0)], 12, 2)
@given(st.lists(st.tuples(share, share), min_size=3, max_size=7), st.integers(2, 130), st.integers(2, 90))
@settings(max_examples=80, deadline=None)
def test_every_pixel_of_a_masked_polygon_is_hidden(polygon, width, height) -> None:
    size = Size(width, height)
    shown = inside(polygon, size) & ~hidden(Zones(mask=(tuple(polygon),)), size)
    assert not shown.any()


def test_little_beside_the_polygon_is_hidden() -> None:
    size = Size(1280, 720)
    needed, done = inside(TRIANGLE, size), hidden(Zones(mask=(TRIANGLE,)), size)
    assert done.sum() < 1.15 * needed.sum()


def test_strips_of_a_thin_diagonal_share_the_strength_of_its_bounds() -> None:
    plan = plan_zones(Zones(mask=(((0, 0), (0.02, 0), (1, 1), (0.98, 1)),)), POLICY, Size(1000, 800))
    assert len(plan) > 10
    assert set(plan.cells.tolist()) == {800 // POLICY.cells}
    assert (plan.grids == plan.grids[0]).all()


def test_a_rectangle_is_one_region() -> None:
    plan = plan_zones(
        Zones(mask=(((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)),)), POLICY, Size(800, 400)
    )
    assert len(plan) <= 3


def test_boxes_with_their_centre_in_a_keep_polygon_are_named() -> None:
    boxes = np.array([[40, 40, 60, 60], [0, 0, 10, 10], [np.nan] * 4, [45, 45, 500, 500]], np.float32)
    zones = Zones(keep=(((0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6)),))
    assert kept(zones, boxes, Size(100, 100)).tolist() == [True, False, False, False]
    assert not kept(Zones(), boxes, Size(100, 100)).any()


def test_a_file_is_read(tmp_path) -> None:
    file = tmp_path / "zones.json"
    file.write_text(json.dumps({"mask": [TRIANGLE], "keep": []}))
    assert load_zones(file) == Zones(mask=(TRIANGLE,))
    file.write_text("{}")
    assert load_zones(file) == Zones()


def test_files_that_an_editor_marked_as_utf8_are_read(tmp_path) -> None:
    zones, settings = tmp_path / "zones.json", tmp_path / "settings.toml"
    zones.write_text("{}", encoding="utf-8-sig")
    settings.write_text('hide = "faces"\n', encoding="utf-8-sig")
    assert load_zones(zones) == Zones()
    assert load(settings).hide == "faces"
    assert len(plan_zones(Zones(), POLICY, Size(64, 64))) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"masks": []}',
        '{"mask": {}}',
        '{"mask": [[[0, 0], [1, 1]]]}',
        '{"mask": [[[0, 0], [1, 1], [2, 0]]]}',
        '{"mask": [[[0, 0], [1, 1], [0, NaN]]]}',
        '{"mask": [[[0, 0], [1, 1], [0, "1"]]]}',
        '{"keep": [[[0, 0], [1, 1], [true, 1]]]}',
        '{"keep": [[0, 1, 2]]}',
        "\xff",
        '{"mask": [[[0, 0], [1, 0], [1, 1]]], "mask": []}',
        '{"mask": [[[0, 0], [1, 1], [1, 0], [0, 1]]]}',
        '{"keep": [[[0.5, 0], [0.8, 1], [0, 0.4], [1, 0.4], [0.2, 1]]]}',
        '{"mask": [[[0, 0], [1, 0], [1, 1], [0, 0], [1, 0], [1, 1]]]}',  # twice: nothing of it would be masked
        '{"mask": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0], [0.5, 0], [0.5, 1], [0, 1]]]}',
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, text) -> None:
    file = tmp_path / "zones.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_zones(file)
    assert str(caught.value).endswith(str(file))
    assert "\n" not in str(caught.value)


def test_polygons_may_touch_themselves(tmp_path) -> None:
    file = tmp_path / "zones.json"
    square = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
    around_a_hole = [*square, [0.3, 0.3], [0.3, 0.6], [0.6, 0.6], [0.3, 0.3]]
    two = [[0, 0], [0.5, 0.5], [1, 0], [1, 1], [0.5, 0.5], [0, 1]]
    for polygon in (square, around_a_hole, two, [[0.5, 0.5]] * 3):
        file.write_text(json.dumps({"mask": [polygon]}))
        assert len(load_zones(file).mask) == 1


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_zones(tmp_path / "none.json")
