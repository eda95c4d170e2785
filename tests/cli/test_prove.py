"""`streamer prove` as a user runs it, on drawn pictures and with the real product."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from streamer.cli import app
from streamer.errors import ConfigError
from streamer.proof import harness, peers
from tests.proof import pictures

SMALL = ["--frames", "10", "--size", "320x180"]
FEW = ["--clips", "1", "--moving", "0", *SMALL]


def test_figures_for_defaults_and_a_variation(tmp_path):
    folder = pictures.folder(tmp_path, width=1200, height=800)
    target = tmp_path / "figures.json"
    words = [
        "prove",
        str(folder),
        "--clips",
        "1",
        "--moving",
        "1",
        *SMALL,
        "--vary",
        "detect.side=320",
        "--json",
        str(target),
    ]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "guarantee" in done.output
    figures = json.loads(target.read_text())
    still, moving = figures["sections"]
    for section, frames in ((still, 20), (moving, 30)):
        assert [score["name"] for score in section["scores"]] == ["defaults", "side=320"]
        assert all(score["frames"] == frames for score in section["scores"])
        assert section["clips"]["seed"] == 7
    assert [group["name"] for group in moving["scores"][0]["moves"]] == ["cross", "dash", "pop"]


def test_only_what_moves_by_itself_can_be_measured(tmp_path):
    folder = pictures.folder(tmp_path, width=1200, height=800)
    kept = tmp_path / "kept"
    words = ["prove", str(folder), *SMALL, "--clips", "0", "--moving", "1", "--keep", str(kept)]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert sorted(path.name for path in kept.iterdir()) == ["moving_000.mp4", "moving_000_defaults.mp4"]


def test_a_detector_that_sees_all_scores_full_and_a_blind_one_nothing(tmp_path, monkeypatch):
    folder = pictures.folder(tmp_path)
    plan = harness.clips.Plan(harness.clips.Size(320, 180), 1, 2, 10, 3)
    zones = tmp_path / "zones.json"
    zones.write_text(json.dumps({"mask": [[[0, 0], [1, 0], [1, 1], [0, 1]]]}))
    everywhere = harness.Variant("everywhere", {"zones": str(zones)})
    blind = harness.Variant("blind", {"detect": {"threshold": 0.999}})
    full, none = harness.prove(harness.Task(folder, plan, (everywhere, blind)))
    assert [group.covered for group in full.headline if group.object_frames] == [1.0, 1.0]
    assert [group.covered for group in none.headline if group.object_frames] == [0.0, 0.0]
    assert none.area.masked < 0.01 < 0.9 < full.area.masked
    assert none.headline[0].tracks_missed == none.headline[0].tracks > 0


def test_clips_are_deleted_unless_they_are_kept(tmp_path):
    folder = pictures.folder(tmp_path)
    kept = tmp_path / "kept"
    assert CliRunner().invoke(app, ["prove", str(folder), *FEW, "--keep", str(kept)]).exit_code == 0
    assert sorted(path.name for path in kept.iterdir()) == ["clip_000.mp4", "clip_000_defaults.mp4"]


@pytest.mark.parametrize(
    "words",
    [
        ["--size", "99x99"],
        ["--vary", "side=3"],
        ["--vary", "detect.sid=3"],
        ["--peer", "nobody"],
        ["--clips", "0", "--moving", "0"],
    ],
)
def test_wrong_usage_is_said_before_any_work(tmp_path, words):
    folder = pictures.folder(tmp_path, width=1200, height=800)
    with pytest.raises(ConfigError):
        CliRunner().invoke(app, ["prove", str(folder), *words], catch_exceptions=False)


def test_a_peer_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match="not installed"):
        peers.check("deface")
