"""The made clips: deterministic, and their boxes really lie on their objects."""

import av
import cv2
import numpy as np
import pytest

from streamer.detection import Label
from streamer.errors import InputError
from streamer.frame import Size
from streamer.proof import clips, truth
from tests.proof import pictures

SMALL = clips.Plan(Size(320, 180), clips=8, shots=2, shot_frames=8, seed=5)


def frames(path):
    with av.open(str(path)) as container:
        return [picture.to_ndarray(format="gray") for picture in container.decode(video=0)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = pictures.folder(tmp_path_factory.mktemp("pictures"))
    target = tmp_path_factory.mktemp("clips")
    return truth.load(folder), list(clips.make(truth.load(folder), SMALL, target))


def test_every_frame_has_its_truth_and_every_move_is_made(made):
    _, written = made
    assert [len(frames(clip.path)) for clip in written] == [16] * 8
    assert all(len(clip.truths) == len(clip.moves) == 16 for clip in written)
    assert {move for clip in written for move in clip.moves} == set(clips.MOVES)


def test_every_object_keeps_the_annotators_word(made):
    _, written = made
    words: dict[Label, set[str]] = {Label.FACE: set(), Label.PLATE: set()}
    for clip in written:
        for true in clip.truths:
            for track, label, counted in zip(true.tracks, true.labels, true.counted, strict=True):
                if counted:
                    words[Label(label)].add(clip.difficulty[track])
    assert words == {Label.FACE: {"easy"}, Label.PLATE: {""}}


def test_the_same_seed_makes_the_same_clips(made, tmp_path):
    annotated, written = made
    again = list(clips.make(annotated, SMALL, tmp_path))
    for first, second in zip(written, again, strict=True):
        assert first.path.read_bytes() == second.path.read_bytes()
        for one, other in zip(first.truths, second.truths, strict=True):
            np.testing.assert_array_equal(one.boxes, other.boxes)


def test_boxes_lie_on_their_objects(made):
    annotated, written = made
    clip = next(clip for clip in written if "zoom" in clip.moves)
    source = [cv2.imread(str(picture.path), cv2.IMREAD_GRAYSCALE) for picture in annotated]
    checked = 0
    for picture, true in zip(frames(clip.path), clip.truths, strict=True):
        for box in true.boxes[true.counted]:
            x0, y0, x1, y1 = box.round().astype(int)
            if x0 <= 0 or y0 <= 0 or x1 >= 320 or y1 >= 180:
                continue
            seen = picture[y0:y1, x0:x1].astype(np.float32)
            likeness = []
            for whole, known in zip(source, annotated, strict=True):
                for corner in known.boxes[~known.ignored].astype(int):
                    part = whole[corner[1] : corner[3], corner[0] : corner[2]]
                    part = cv2.resize(part, seen.shape[::-1], interpolation=cv2.INTER_AREA)
                    likeness.append(np.corrcoef(part.ravel(), seen.ravel())[0, 1])
            assert max(likeness) > 0.85  # any other object: below 0.2
            checked += 1
    assert checked > 10


def test_ignored_and_hidden_objects_do_not_count(made):
    _, written = made
    occlusion = next(clip for clip in written if "occlusion" in clip.moves)
    counts = [int(true.counted.sum()) for true in occlusion.truths]
    assert min(counts) < max(counts)
    assert all(len(true.boxes) >= true.counted.sum() for true in occlusion.truths)


@pytest.mark.parametrize("text", ["", "{}", '[{"file": "a.png"}]', "[]"])
def test_a_bad_listing_is_an_error_of_ours(tmp_path, text):
    (tmp_path / "eval.json").write_text(text)
    with pytest.raises(InputError):
        truth.load(tmp_path)


def test_a_folder_without_a_listing_is_an_error_of_ours(tmp_path):
    with pytest.raises(InputError, match=r"no eval\.json"):
        truth.load(tmp_path)
