"""`streamer bench` on pictures: the figures are those of real runs."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.cli.program import streamer


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    path = tmp_path / "noise.jpg"
    cv2.imwrite(str(path), cv2.GaussianBlur(noise, (9, 9), 0))
    return path


def bench(*arguments: object) -> Any:
    done = streamer("bench", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_picture_is_timed_by_its_steps(picture: Path) -> None:
    times = bench(picture)
    assert (times["width"], times["height"]) == (128, 96)
    steps = times["decode_ms"] + times["mask_ms"] + times["write_ms"]
    assert 0 < steps <= 2 * times["wall_ms"]


def test_the_server_answers_every_request_with_one_worker_and_with_more(picture: Path) -> None:
    loads = bench(picture, "--requests", 100)
    assert loads[0]["workers"] == 1
    for load in loads:
        assert load["failures"] == 0
        assert load["requests_per_s"] > 0
        assert load["memory_mib"] > 50
