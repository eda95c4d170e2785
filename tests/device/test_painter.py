"""The masks in machine code are those of NumPy, and the shipped library is that of its source."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from streamer import resources
from streamer.config import Style
from streamer.device import painter, redaction
from streamer.doctor import examine
from streamer.frame import Size
from streamer.masking import Layout, MaskPlan, cell_sides, lay_out
from tests.conftest import need
from tests.device.conftest import need_painter
from tests.device.test_fatbin import recipe  # noqa: F401 (a fixture)
from tests.device.test_shim import sanitized

KINDS = [redaction.LUMA, redaction.CHROMA, *(redaction.interleaved(lanes) for lanes in (1, 2, 3, 4))]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped library, or the sanitized one that `test_sanitized` gives to its process."""
    given = os.environ.get("STREAMER_PAINTER")
    if given:
        function = painter.opened(Path(given))
        monkeypatch.setattr(painter, "_loaded", lambda: (function, None))
    need_painter()


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not opened the library yet."""
    monkeypatch.setattr(painter, "_loaded", painter._loaded.__wrapped__)


def scene(rng: np.random.Generator) -> tuple[Size, Layout]:
    """A small picture and some regions in, around and across it, which often meet."""
    size = Size(*(int(side) * 2 for side in rng.integers(1, 60, 2)))
    count = int(rng.integers(1, 8))
    corners = 2 * np.stack(
        [rng.integers(-40, side // 2 + 20, count) for side in (size.width, size.height)], 1
    )
    boxes = np.concatenate([corners, corners + 2 * rng.integers(1, 40, (count, 2))], 1).astype(np.int32)
    grids = boxes.copy()
    if rng.random() < 0.3:  # the strips of one zone
        grids[:] = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
    cells = cell_sides(grids, int(rng.choice([1, 1, 1, 2, 5]))).astype(np.int32)
    feather = 2 * rng.integers(0, 8, count).astype(np.int32)
    return size, lay_out(
        MaskPlan(boxes, cells, rng.integers(0, 2, count).astype(np.uint8), feather, grids), size
    )


def test_every_value_is_that_of_numpy(library) -> None:
    rng = np.random.default_rng(11)
    painted = 0
    for _ in range(int(os.environ.get("STREAMER_SCENES", "400"))):
        size, layout = scene(rng)
        for kind in KINDS if len(layout) else ():
            rows, columns = size.height // kind.step, size.width // kind.step
            grids = redaction._grids(layout, kind.step, columns, rows)
            regions = redaction._regions(layout, kind.step, columns, rows)
            for style in Style:
                plane = rng.integers(0, 256, (rows, columns * kind.lanes), np.uint8)
                ours, wanted = plane.copy(), plane.copy()
                if not painter.paint(ours, kind.lanes, kind.step, kind.solid, grids, regions, style):
                    assert (ours == plane).all()
                    continue
                painted += 1
                redaction._paint(
                    wanted,
                    kind,
                    [redaction._Grid(*row) for row in grids.tolist()],
                    [redaction._Region(*row) for row in regions.tolist()],
                    redaction.meeting(layout),
                    style,
                )
                assert (ours == wanted).all(), (kind, style, layout)
    assert painted > 0


def test_a_part_of_a_larger_plane_is_painted_where_it_lies(library) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (40, 64), np.uint8)
    before, part = whole.copy(), whole[4:36, 8:56]
    plan = MaskPlan(
        *(np.array(value, np.int32) for value in ([[0, 0, 48, 32]], [32], [0], [0], [[0, 0, 48, 32]]))
    )
    redaction.paint(part, redaction.LUMA, lay_out(plan, Size(48, 32)), Style.BLUR)
    assert len(np.unique(part)) < 10
    whole[4:36, 8:56] = before[4:36, 8:56]
    assert (whole == before).all()


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("grids", 2, 0),
        ("grids", 3, 0),
        ("grids", 7, 99),
        ("regions", 4, 5),
        ("regions", 7, -2),
        ("regions", 10, 99),
    ],
)
def test_tables_that_leave_the_picture_are_refused(library, table, column, value) -> None:
    plan = MaskPlan(
        *(np.array(item, np.int32) for item in ([[0, 0, 32, 32]], [32], [0], [0], [[0, 0, 32, 32]]))
    )
    layout = lay_out(plan, Size(32, 32))
    tables = {"grids": redaction._grids(layout, 1, 32, 32), "regions": redaction._regions(layout, 1, 32, 32)}
    tables[table][0, column] = value
    plane = np.full((32, 32), 7, np.uint8)
    with pytest.raises(ValueError, match="outside"):
        painter.paint(plane, 1, 1, 16, tables["grids"], tables["regions"], Style.SOLID)
    assert (plane == 7).all()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("platform", "win32", "win32"), ("maxsize", (1 << 31) - 1, "64-bit")],
)
def test_another_machine_takes_numpy(unloaded, monkeypatch, name, value, says) -> None:
    monkeypatch.setattr(sys, name, value)
    assert says in (painter.problem() or "")
    assert not painter.paint(
        np.zeros((2, 2), np.uint8), 1, 1, 16, np.zeros((1, 9)), np.zeros((1, 11)), Style.SOLID
    )


def test_an_old_processor_takes_numpy_and_doctor_says_so(unloaded, monkeypatch) -> None:
    need_painter()
    monkeypatch.setattr(cv2, "checkHardwareSupport", lambda _: False)
    assert "in NumPy: this processor has no AVX2" in [
        fact.text for fact in examine().facts if fact.name == "masks"
    ]


def test_a_library_that_is_not_the_built_one_is_not_loaded(unloaded, monkeypatch, tmp_path) -> None:
    need_painter()
    (tmp_path / "kernels").mkdir()
    for name in (painter.LIBRARY, painter.FACTS):
        shutil.copy(resources.path(name), tmp_path / name)
    monkeypatch.setattr(resources, "path", lambda name: tmp_path / name)
    assert painter.problem() is None
    with (tmp_path / painter.LIBRARY).open("ab") as file:
        file.write(b"\0")
    assert "is not the file that was built" in (painter.problem() or "")
    (tmp_path / painter.LIBRARY).unlink()
    assert "cannot be loaded" in (painter.problem() or "")


def test_the_library_was_built_from_this_source(recipe: ModuleType) -> None:  # noqa: F811
    facts = json.loads(resources.path(painter.FACTS).read_text(encoding="utf-8"))
    assert facts["sources"] == recipe.digest_of_library(), "run: python kernels/build.py library"
    assert facts["library"] == hashlib.sha256(resources.path(painter.LIBRARY).read_bytes()).hexdigest()


@pytest.mark.real
def test_the_documented_command_makes_this_library(recipe: ModuleType, tmp_path) -> None:  # noqa: F811
    """To the byte where gcc is the one that made it."""
    need_painter()
    need("gcc", shutil.which("gcc") is not None)
    recipe.compiled_library(tmp_path / "redact.so")
    facts = json.loads(resources.path(painter.FACTS).read_text(encoding="utf-8"))
    if recipe.gcc_version() != facts["gcc"]:
        pytest.skip(f"the library was made by {facts['gcc']}, here is {recipe.gcc_version()}")
    assert (tmp_path / "redact.so").read_bytes() == resources.path(painter.LIBRARY).read_bytes()


@pytest.mark.real
def test_sanitized(recipe: ModuleType, tmp_path) -> None:  # noqa: F811
    """The same comparisons with every access watched."""
    need_painter()
    need("gcc", shutil.which("gcc") is not None)
    watched = ("-g", "-O1", "-mavx2", "-ffp-contract=off", "-shared", "-fPIC", "-fsanitize=address,undefined",
               "-fno-sanitize-recover=undefined")  # fmt: skip
    recipe.compiled_library(tmp_path / "redact.so", watched)
    test = f"{__file__}::test_every_value_is_that_of_numpy"
    given = {"STREAMER_PAINTER": str(tmp_path / "redact.so"), "STREAMER_SCENES": "60"}
    done = sanitized(tmp_path / "redact.so", "-m", "pytest", "-x", "-p", "no:cacheprovider", test, **given)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
