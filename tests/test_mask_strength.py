"""Attacks on the default masks. The attacker has the product, knows the style, and holds a list of suspects."""

import json
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer import masking
from streamer.config import MaskPolicy, Style
from streamer.detection import Label
from tests import attacks
from tests.attacks import Gray, Suspect

pytest.importorskip("skimage")

FIELD = Path(__file__).parents[2] / "shared" / "data"
PROBES = 25
HEIGHTS = (16, 64)


@lru_cache(maxsize=1)
def people() -> list[Suspect]:
    return attacks.faces(60)


@lru_cache(maxsize=1)
def numbers() -> list[Suspect]:
    return attacks.plates(60)


def masked_gallery(suspects: list[Suspect], height: int, policy: MaskPolicy) -> list[Gray]:
    return [attacks.shown(one.clean, one.label, height, policy, crf=None) for one in suspects]


def named(suspects: list[Suspect], height: int, policy: MaskPolicy, *, frames: int = 1) -> float:
    """The share that an attacker names who masks all suspects in the same way and compares."""
    probes = []
    for at, one in enumerate(suspects[:PROBES]):
        seen = [
            attacks.shown(one.seen, one.label, height, policy, jitter=0.05, seed=frames * at + frame)
            for frame in range(frames)
        ]
        probes.append(attacks.averaged(seen))
    return attacks.matches(masked_gallery(suspects, height, policy), probes)


def bound(suspects: list[Suspect]) -> float:
    return attacks.chance(len(suspects), PROBES)


@pytest.mark.parametrize("height", HEIGHTS)
@pytest.mark.parametrize("style", list(Style))
def test_plates_are_named_by_chance_only(style: Style, height: int) -> None:
    assert named(numbers(), height, MaskPolicy(style=style)) <= bound(numbers())


@pytest.mark.parametrize("height", HEIGHTS)
@pytest.mark.parametrize("style", list(Style))
def test_faces_are_named_by_chance_only(style: Style, height: int) -> None:
    assert named(people(), height, MaskPolicy(style=style)) <= bound(people())


@pytest.mark.parametrize("style", [Style.BLUR, Style.MOSAIC])
def test_many_frames_of_a_moving_grid_tell_no_more(style: Style) -> None:
    """Averaging over frames: a grid that moves over an object samples it at many places."""
    policy = MaskPolicy(style=style)
    assert named(numbers(), 32, policy, frames=6) <= bound(numbers())
    assert named(people(), 32, policy, frames=6) <= bound(people())


@pytest.mark.parametrize("style", [Style.BLUR, Style.MOSAIC])
def test_deconvolution_brings_nothing_back(style: Style) -> None:
    policy = MaskPolicy(style=style)
    for suspects, limit in ((numbers(), bound(numbers())), (people(), bound(people()))):
        gallery = [attacks.resized(one.clean, 48) for one in suspects]
        probes = [
            attacks.blindly_sharpened(attacks.shown(one.seen, one.label, 48, policy), gallery)
            for one in suspects[:PROBES]
        ]
        assert attacks.matches(gallery, probes) <= limit


def test_the_attacks_work_where_masks_are_weak() -> None:
    """Without this the tests above would prove nothing."""
    weak = MaskPolicy(style=Style.MOSAIC, cells=6)
    as_faces = [Suspect(one.clean, one.seen, Label.FACE) for one in numbers()]  # keeps twelve columns
    assert named(as_faces, 32, weak) > 2 * bound(numbers())
    assert named(people(), 32, weak) > 2 * bound(people())
    clear = [attacks.resized(one.clean, 48) for one in people()]
    blurred = [cv2.GaussianBlur(attacks.resized(one.seen, 48), (0, 0), 3) for one in people()[:PROBES]]
    sharp = [attacks.blindly_sharpened(picture, clear) for picture in blurred]
    assert attacks.matches(clear, sharp) >= 0.5


def test_settings_weaker_than_the_default_are_named() -> None:
    assert masking.weaknesses(MaskPolicy()) == ()
    assert masking.weaknesses(MaskPolicy(style=Style.SOLID, cells=6)) == ()
    assert "6 cells" in masking.weaknesses(MaskPolicy(cells=6))[0]
    assert "margin" in masking.weaknesses(MaskPolicy(margin=0))[0]


@pytest.mark.field
@pytest.mark.skipif(not FIELD.is_dir(), reason="the field data is not here")
@pytest.mark.parametrize("style", list(Style))
def test_faces_of_the_field_data_are_named_by_chance_only(style: Style) -> None:
    suspects = _field_faces(50)
    assert named(suspects, 48, MaskPolicy(style=style)) <= bound(suspects)


def _field_faces(count: int) -> list[Suspect]:
    rng = np.random.default_rng(3)
    found: list[Suspect] = []
    for entry in json.loads((FIELD / "eval.json").read_text()):
        large = [item for item in entry["objects"] if item["class"] == "face" and item["box"][3] >= 90]
        if not large or len(found) == count:
            continue
        picture = cv2.imread(str(FIELD / entry["file"]), cv2.IMREAD_GRAYSCALE)
        x, y, w, h = (int(side) for side in large[0]["box"])
        face = attacks.resized(picture[max(0, y) : y + h, max(0, x) : x + w], 48, square=True)
        found.append(Suspect(face, attacks.another_day(face, rng), Label.FACE))
    return found
