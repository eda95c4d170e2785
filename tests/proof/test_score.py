"""Figures from verdicts whose answer can be counted by hand."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.detection import Label
from streamer.frame import Size
from streamer.proof import show
from streamer.proof.clips import Clip, Plan, Truth
from streamer.proof.judge import Verdict
from streamer.proof.score import Ledger, lives


def clip_of(rows: list[float], *, height: float = 40, label: Label = Label.FACE, exhaustive: bool = True):
    truths, verdicts = [], []
    for share in rows:
        box = np.array([[0, 0, 30, height]], np.float32)
        one = np.zeros(1, np.int64), box, np.array([label], np.uint8), np.ones(1, np.bool_)
        truths.append(Truth(*one, exhaustive))
        verdicts.append(Verdict(np.array([share], np.float32), 0.06, 0.02, 0.03))
    return Clip(Path("x"), Size(1920, 1080), tuple(truths), ("pan",) * len(rows)), verdicts


def headline(rows: list[float], **kind):
    ledger = Ledger("x")
    clip, verdicts = clip_of(rows, **kind)
    ledger.add(clip, verdicts, 1.0)
    return ledger.score()


def test_late_flicker_and_cover_are_counted():
    faces = headline([0, 0.5, 1, 0.95, 0.2, 1]).headline[0]
    assert (faces.object_frames, faces.tracks, faces.tracks_exposed, faces.tracks_missed) == (6, 1, 1, 0)
    assert faces.covered == pytest.approx(3 / 6)
    assert (faces.late, faces.longest_late) == (1, 2)
    assert faces.flicker == pytest.approx(1 / 6)


def test_a_track_that_is_never_covered_is_missed_not_late():
    faces = headline([0, 0.1, 0]).headline[0]
    assert (faces.tracks_missed, faces.late, faces.flicker) == (1, 0, 0)


def test_frames_in_which_nothing_can_be_told_are_left_out_and_said():
    faces = headline([float("nan"), 1, 1]).headline[0]
    assert (faces.object_frames, faces.unclear, faces.covered, faces.late) == (2, 1, 1, 0)


def test_small_objects_are_in_the_sizes_but_not_in_the_headline():
    score = headline([0, 0], height=9, label=Label.PLATE)
    assert score.headline[1].object_frames == 0
    assert [group.object_frames for group in score.sizes if group.name == "plates 0-10 px"] == [2]


def test_what_the_annotators_called_hard_has_a_row_of_its_own():
    ledger = Ledger("x")
    for word, rows in (("easy", [1.0, 1.0]), ("hard", [0.0, 1.0]), ("", [0.0])):
        clip, verdicts = clip_of(rows)
        ledger.add(replace(clip, difficulty=(word,)), verdicts, 1.0)
    score = ledger.score()
    assert [(group.name, group.covered) for group in score.difficulty] == [
        ("faces from 16 px, easy", 1.0),
        ("faces from 16 px, hard", 0.5),
    ]
    assert score.headline[0].object_frames == 5


def test_area_counts_only_where_all_objects_are_known():
    assert headline([1.0]).area.ratio == pytest.approx(3)
    assert np.isnan(headline([1.0], exhaustive=False).area.ratio)


def test_where_objects_move_by_themselves_only_those_are_scored():
    clip, verdicts = clip_of([0, 1, 1])
    assert len(lives(replace(clip, moving=(True,)), verdicts)) == 1
    assert lives(replace(clip, moving=(False,)), verdicts) == []


def test_figures_become_a_plot_and_markdown(tmp_path):
    pytest.importorskip("matplotlib")
    score = headline([0, 1, 1])
    one, two = (show.Section(title, Plan(Size(1920, 1080), 1), [score]) for title in ("still", "moving"))
    show.plot([one], tmp_path / "one.png")
    show.plot([one, two], tmp_path / "two.png")
    heights = [cv2.imread(str(tmp_path / name)).shape[0] for name in ("one.png", "two.png")]
    assert heights[1] == 2 * heights[0]
    text = show.markdown([one, two])
    assert text.count("still: 1 clips") == text.count("moving: 1 clips") == 1
    assert "| faces from 16 px | 3 | 66.67 % | 1 | 1 | 0 | 1 (at most 1 frames) | 0.00 % |" in text
    assert "no guarantee" in text
