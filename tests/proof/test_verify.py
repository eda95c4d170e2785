"""The second look at a finished file: finds what is visible, does not mistake masks for leaks, shows nothing."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from streamer import demo, pipeline
from streamer.cli import app
from streamer.config import settings_from
from streamer.errors import ConfigError, OutputError
from streamer.pipeline import Job
from streamer.proof import verify
from tests import clips

RATE = 25


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A photographed face and a drawn plate for a second, and the engine that hides them."""
    folder = tmp_path_factory.mktemp("street")
    person, car = demo.portrait(), demo.drawn_car("B 2417 KX")
    ground = demo._background()

    def draw(index: int, width: int, height: int) -> np.ndarray:
        picture = demo.scene(ground, person, car, 0.4 + index / (8 * RATE))
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)[:, :, ::-1].copy()

    source = clips.make(folder / "in.mp4", clips.Clip(frames=12, width=960, height=540, draw=draw))
    engine = pipeline.open_engine(settings_from({}))
    pipeline.run(Job(source, folder / "out.mp4"), engine)
    return source, folder / "out.mp4", engine


def test_a_masked_file_has_nothing_left_that_was_masked(street):
    source, output, engine = street
    shown = [item for item in verify.verify(source, source, engine) if item.frames >= 6]
    left = verify.verify(source, output, engine)
    assert {item.label.text for item in shown} >= {"Face"}
    assert not [item for item in left for seen in shown if _inside(item.box, seen.box)]


def test_an_unmasked_file_has_its_face_left_and_stills_do_not_show_it(street, tmp_path):
    source, _, engine = street
    left = verify.verify(source, source, engine, tmp_path / "stills")
    faces = [item for item in left if item.label.text == "Face" and item.frames >= 6]
    assert faces
    still = cv2.imread(str(faces[0].still), cv2.IMREAD_GRAYSCALE)
    scale = still.shape[1] / 960
    x0, y0, x1, y1 = (round(side * scale) for side in faces[0].box)
    inner = still[y0 + 4 : y1 - 4, x0 + 4 : x1 - 4]
    frames = inner == 255  # drawn around this and other findings
    assert np.ptp(inner[~frames]) <= 12  # one flat colour where the face was
    assert frames.mean() < 0.2


def test_a_file_of_another_length_cannot_be_verified(street, tmp_path):
    source, _, engine = street
    short = clips.make(tmp_path / "short.mp4", clips.Clip(frames=5, width=960, height=540))
    with pytest.raises(OutputError, match="other pictures"):
        verify.verify(source, short, engine)


def test_the_command_ends_with_three_when_something_is_left(street, tmp_path, monkeypatch):
    source, _, _ = street
    looked = verify.verify

    def with_nothing_masked(first, output, engine, stills):
        return looked(first, first, engine, stills)

    monkeypatch.setattr("streamer.cli.anonymize.look_again", with_nothing_masked)
    words = [
        "anonymize",
        str(source),
        "-o",
        str(tmp_path / "o.mp4"),
        "--verify",
        "--report",
        str(tmp_path / "r"),
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3
    assert "Face" in {item["class"] for item in json.loads((tmp_path / "r").read_text())["left"]}


def test_pictures_are_looked_at_again_too(street, tmp_path, monkeypatch):
    still = tmp_path / "still.png"
    with av.open(str(street[0])) as container:
        next(container.decode(video=0)).to_image().save(still)
    words = ["anonymize", str(still), "--verify", "--overwrite", "--report", str(tmp_path / "r")]
    assert CliRunner().invoke(app, words).exit_code in (0, 3)  # 3: of false alarms of the closer look
    after = json.loads((tmp_path / "r").read_text())["left"]
    looked = verify.verify_picture
    monkeypatch.setattr(
        "streamer.cli.anonymize.look_at_picture_again",
        lambda first, output, engine, stills: looked(first, first, engine, stills),
    )
    assert CliRunner().invoke(app, words).exit_code == 3
    bare = json.loads((tmp_path / "r").read_text())["left"]
    face = max((item for item in bare if item["class"] == "Face"), key=lambda item: item["score"])
    assert Path(face["still"]).is_file()
    assert not [item for item in after if _inside(item["box"], face["box"])]


def test_what_writes_nothing_cannot_be_looked_at_again(street, tmp_path):
    done = CliRunner().invoke(app, ["anonymize", str(street[0]), "--verify", "--dry-run"])
    assert isinstance(done.exception, ConfigError)


def _inside(box, region) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return bool(region[0] <= x <= region[2] and region[1] <= y <= region[3])
