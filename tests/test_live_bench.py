"""The live benchmark on a real server and real viewers: it counts what happened."""

import json
from pathlib import Path

import pytest

from streamer import live_bench
from streamer.config import settings_from
from streamer.errors import StreamerError
from streamer.live_bench import Plan
from streamer.proof.scene import write_clip


def test_it_counts_viewers_pictures_and_what_the_server_holds(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "face.mp4", seconds=2, format_name="mp4")
    result = live_bench.run(Plan(str(clip), 2, 3, seconds=5, rounds=1, soak_s=1), settings_from({}))
    one, many = result.runs
    assert (one.viewers, many.viewers) == (1, 3)
    assert result.size == (320, 192)
    for run in result.runs:
        assert 10 < run.fps <= 55  # two streams of 25 on a machine that may be busy
        assert 0 < run.cpu_ms_per_picture < 1000
        assert 0 < run.p50_ms <= run.p95_ms
        assert run.packets_per_s > 10
    assert many.packets_per_s > 1.3 * one.packets_per_s  # 4 viewers beside 2
    assert result.joined == 6
    assert len(result.samples) == 2
    assert all(sample.mib > 50 and sample.threads > 5 and sample.handles > 5 for sample in result.samples)
    assert json.loads(json.dumps(result.as_dict()))["fan_out"] > 0


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_bench, "_READY_S", 6.0)
    with pytest.raises(StreamerError, match="does not start"):
        live_bench.run(Plan("nowhere.mp4", seconds=5), settings_from({}))
