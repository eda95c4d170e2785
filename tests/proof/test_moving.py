"""The clips in which things move by themselves: deterministic, and their boxes really lie on what moves."""

import hashlib

import av
import numpy as np
import pytest

from streamer.detection import Label
from streamer.errors import InputError
from streamer.frame import Size
from streamer.proof import clips, cutouts, moving, truth
from streamer.proof.clips import Plan
from tests.proof import pictures

SIZE = Size(640, 360)
PLAN = Plan(SIZE, clips=4, shots=3, shot_frames=24, seed=5)


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    return truth.load(pictures.folder(tmp_path_factory.mktemp("pictures"), width=1200, height=800))


@pytest.fixture(scope="module")
def made(annotated, tmp_path_factory):
    return list(moving.make(annotated, PLAN, tmp_path_factory.mktemp("clips")))


def frames(path):
    with av.open(str(path)) as container:
        return [picture.to_ndarray(format="gray") for picture in container.decode(video=0)]


def shots(made, move):
    """The truths of each shot with that movement, and which of the clip's tracks move."""
    for clip in made:
        for first in range(0, len(clip.moves), PLAN.shot_frames):
            if clip.moves[first] == move:
                yield clip, range(first, first + PLAN.shot_frames)


def mover(clip, index):
    """The box of what moves in that frame and whether it counts; None where nothing does."""
    true = clip.truths[index]
    rows = [row for row, track in enumerate(true.tracks) if clip.moving[track]]
    assert len(rows) <= 1
    return (true.boxes[rows[0]], bool(true.counted[rows[0]])) if rows else None


def test_every_movement_is_made_with_a_face_and_with_a_plate(made):
    kinds = set()
    for clip in made:
        assert len(clip.truths) == len(clip.moves) == len(frames(clip.path)) == 72
        for true, move in zip(clip.truths, clip.moves, strict=True):
            kinds |= {(move, Label(true.labels[row])) for row, t in enumerate(true.tracks) if clip.moving[t]}
    assert kinds == {(move, label) for move in moving.MOVES for label in Label}


def test_the_same_seed_makes_the_same_clips(annotated, made, tmp_path):
    for first, second in zip(made, moving.make(annotated, PLAN, tmp_path), strict=True):
        assert first.path.read_bytes() == second.path.read_bytes()
        assert (first.moves, first.moving) == (second.moves, second.moving)
        for one, other in zip(first.truths, second.truths, strict=True):
            np.testing.assert_array_equal(one.boxes, other.boxes)
            np.testing.assert_array_equal(one.counted, other.counted)


def test_clips_of_moving_cameras_are_those_of_earlier_versions(tmp_path):
    """Published figures of a seed stay comparable."""
    known = truth.load(pictures.folder(tmp_path))
    plan = Plan(Size(320, 180), clips=8, shots=2, shot_frames=8, seed=5)
    digest = hashlib.sha256()
    for clip in clips.make(known, plan, tmp_path):
        for true, move in zip(clip.truths, clip.moves, strict=True):
            rows = true.boxes.round().astype(int).tolist(), true.tracks.tolist(), true.counted.tolist()
            digest.update(f"{move} {rows} {true.labels.tolist()} {true.exhaustive}\n".encode())
    assert digest.hexdigest()[:16] == "e366d86d069f60bd"


def test_what_differs_from_the_background_is_the_object_and_what_belongs_to_it(annotated):
    """Laid over white, the change fills the box and goes no further than what hides the background."""
    for source in cutouts.sources(annotated)[:4]:
        cutout = cutouts.cut(source)
        for tilt in (0.0, 12.0):
            pose = cutouts.Pose(400.3, 220.8, 90.0, tilt)
            canvas = np.full((450, 800, 3), 255, np.uint8)  # brighter than anything drawn
            cutouts.place(canvas, cutout, [pose])
            box, solid = cutouts.outline(cutout, pose)
            changed = (canvas < 245).any(axis=2)
            outside = changed.copy()
            edge = 2 + 0.12 * min(cutout.layer.shape[:2]) * 90 / cutout.length
            x0, y0, x1, y1 = (solid + edge * np.array([-1, -1, 1, 1])).round().astype(int)
            outside[y0:y1, x0:x1] = False
            assert not outside.any()
            assert (solid[:2] < box[:2]).all()
            assert (solid[2:] > box[2:]).all()
            x0, y0, x1, y1 = box.round().astype(int)
            assert changed[y0:y1, x0:x1].mean() > 0.97


def test_boxes_lie_on_what_moves(made):
    """Objects that are there in one frame and not in the next: where the pictures differ is where the box is."""
    checked = 0
    for clip, indices in shots(made, "pop"):
        decoded = frames(clip.path)
        for index in indices[:-1]:
            here, next_ = mover(clip, index), mover(clip, index + 1)
            if (here is None) == (next_ is None):
                continue
            box, _ = here or next_
            change = np.abs(decoded[index].astype(int) - decoded[index + 1])
            grown = box + np.array([-1, -1, 1, 1]) * 1.6 * (box[2:] - box[:2]).max()
            x0, y0, x1, y1 = np.clip(grown, 0, [640, 360, 640, 360]).astype(int)
            inner = np.s_[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])]
            outside = np.ones(change.shape, np.bool_)
            outside[y0:y1, x0:x1] = False
            assert change[inner].mean() > 4 * change[outside].mean() + 4
            checked += 1
    assert checked >= 4


def test_what_is_hidden_by_the_pillar_does_not_count_and_comes_back(made):
    hidden = 0
    for clip, indices in shots(made, "behind"):
        flags = [mover(clip, index)[1] for index in indices]
        changes = [one for one, other in zip(flags, [None, *flags], strict=False) if one != other]
        assert changes == [True, False, True]
        hidden += flags.count(False)
    assert hidden >= 4


def test_movements_are_what_their_names_say(made):
    def boxes(move):
        return [[mover(clip, index) for index in indices] for clip, indices in shots(made, move)]

    def steps(rows):
        centres = np.array([(row[0][:2] + row[0][2:]) / 2 for row in rows])
        lengths = np.array([(row[0][2:] - row[0][:2]).max() for row in rows])
        return np.linalg.norm(np.diff(centres, axis=0), axis=1) / lengths[1:]

    def whole(rows):
        return [row for row in rows if row and row[0][0] > 0 and row[0][2] < SIZE.width]

    for rows in boxes("cross"):
        assert np.all((steps(whole(rows)) > 0.07) & (steps(whole(rows)) < 0.27))
    for rows in boxes("dash"):
        assert np.median(steps(whole(rows))) > 0.28
    for rows in boxes("sway"):
        assert 0 < np.max(steps(rows)) < 0.5
    for rows in boxes("approach"):
        heights = [box[3] - box[1] for box, _ in rows]
        assert heights[-1] > 1.9 * heights[0]
    for rows in boxes("pop"):
        lasts = "".join("x" if row else " " for row in rows).split()
        assert lasts
        assert all(len(last) <= 12 for last in lasts)


def test_only_large_and_whole_objects_apart_from_others_are_cut_out(annotated):
    found = cutouts.sources(annotated)
    assert {source.label for source in found} == set(Label)
    assert all(source.annotated.exhaustive for source in found)
    # drawn faces of 90x100 and plates of 120x40; a face as wide as a plate and a plate as high as a face are none
    sides = {tuple((s.annotated.boxes[s.index][2:] - s.annotated.boxes[s.index][:2]).tolist()) for s in found}
    assert sides == {(90.0, 100.0), (120.0, 40.0)}


def test_without_anything_to_cut_out_or_to_lay_it_over_it_says_so(annotated, tmp_path):
    with pytest.raises(InputError, match="--moving 0"):
        moving.stock_of([picture for picture in annotated if not picture.exhaustive])
    small = truth.load(pictures.folder(tmp_path, width=800, height=500))
    with pytest.raises(InputError, match="free enough"):
        next(moving.make(small, PLAN, tmp_path))
