import json
from pathlib import Path

from typer.testing import CliRunner

from streamer.cli import app
from streamer.config import Settings
from streamer.image.timing import time_image


def test_the_steps_add_up(jpeg: bytes) -> None:
    times = time_image(jpeg, Settings(), 3)
    assert (times.width, times.height) == (512, 512)
    assert times.objects >= 1
    assert min(times.decode_ms, times.mask_ms, times.write_ms, times.cpu_ms) > 0
    assert times.wall_ms >= max(times.decode_ms, times.mask_ms, times.write_ms)


def test_bench_times_pictures(jpeg: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    done = CliRunner().invoke(app, ["bench", str(tmp_path / "a.jpg"), "--json"])
    assert json.loads(done.stdout)["cpu_ms"] > 0
    assert "processor time" in CliRunner().invoke(app, ["bench", str(tmp_path / "a.jpg")]).stdout
