import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.data import astronaut
from typer.testing import CliRunner, Result

from streamer.cli import app
from tests.cli.program import ROOT, command, one_line, streamer
from tests.image.pictures import FACE, detail, encoded, samples_of, served

PERSON = np.asarray(astronaut())


def run(*arguments: Any, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["image", *map(str, arguments)], input=stdin)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "person.jpg"
    path.parent.mkdir()
    path.write_bytes(encoded(PERSON, "JPEG", quality=90))
    return path


def is_masked(path: Path) -> bool:
    x0, y0, x1, y1 = FACE
    return detail(samples_of(path.read_bytes())[y0:y1, x0:x1]) < 0.35 * detail(PERSON[y0:y1, x0:x1])


def test_the_result_is_a_new_file_whose_path_is_printed(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = run(picture)
    assert done.exit_code == 0
    path = Path(done.stdout.strip())
    assert path.parent == tmp_path
    assert is_masked(path)


def test_a_chosen_file_a_chosen_folder_and_json(picture: Path, tmp_path: Path) -> None:
    done = run(picture, "-o", tmp_path / "out" / "b.jpeg", "--hide", "faces", "--json")
    answer = json.loads(done.stdout)
    assert answer["result"] == str(tmp_path / "out" / "b.jpeg")
    assert {item["class"] for item in answer["objects"]} == {"Face"}
    assert is_masked(tmp_path / "out" / "b.jpeg")
    run(picture, "-o", tmp_path / "folder")
    assert is_masked(tmp_path / "folder" / "person.jpg")


def test_how_it_is_hidden_can_be_said_and_wins_over_the_settings_file(picture: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('hide = "plates"\n[mask]\nstyle = "blur"\n')
    answer = json.loads(run(picture, "-o", tmp_path / "a.jpg", "--config", config, "--json").stdout)
    assert not {item["class"] for item in answer["objects"]} - {"License plate"}
    flags = ["--hide", "faces", "--style", "solid", "--margin", "0.3"]
    done = run(picture, "-o", tmp_path / "b.jpg", "--config", config, *flags)
    assert done.exit_code == 0
    x0, y0, x1, y1 = FACE
    middle = samples_of((tmp_path / "b.jpg").read_bytes())[(y0 + y1) // 2, (x0 + x1) // 2]
    assert np.ptp(middle.astype(int)) <= 3  # grey, whatever was there
    assert is_masked(Path(run(picture, "-o", tmp_path / "c.jpg", "--model", "accurate").stdout.strip()))
    assert run(picture, "--model", "nosuch").exit_code != 0
    assert run(picture, "--threshold", "2").exit_code != 0


@pytest.mark.parametrize("form", ["path", "url", "base64", "buffer", "array"])
def test_what_is_printed_can_be_given_again(
    picture: Path, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    text = run(picture, "--result", form).stdout
    again = run("-", "--result", "base64", stdin=text.encode())
    data = base64.b64decode(again.stdout)
    assert data.startswith(b"\xff\xd8")
    if form in ("path", "url"):
        assert run(text.strip(), "--result", "base64").stdout == again.stdout
    assert run("-", "--result", "base64", stdin=data).exit_code == 0


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b'{"a": 1}', b"[256]", b"null", b"no picture"])
def test_what_is_no_picture_on_standard_input_is_said(text: bytes) -> None:
    done = run("-", stdin=text)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: picture: ")


def test_a_folder_keeps_its_structure_and_goes_on_after_a_failure(picture: Path, tmp_path: Path) -> None:
    source, target = picture.parent, tmp_path / "out"
    (source / "deep").mkdir()
    Image.fromarray(PERSON[:64]).save(source / "deep" / "a.webp")
    Image.fromarray(PERSON[:64]).save(source / "deep" / "a.png")
    (source / "broken.png").write_bytes(b"no picture")
    (source / "notes.txt").write_text("left alone")
    done = run(source, "-o", target)
    assert done.exit_code == 1
    assert "broken.png" in done.stderr
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert found == {"person.jpg", "deep/a.webp", "deep/a.png"}
    assert is_masked(target / "person.jpg")


@pytest.mark.parametrize(
    ("name", "format"),
    [("x.jpg", "JPEG"), ("x.JPEG", "JPEG"), ("x.png", "PNG"), ("x.webp", "WEBP")],
)
def test_the_ending_of_the_name_says_the_format(
    picture: Path, tmp_path: Path, name: str, format: str
) -> None:
    source = tmp_path / "person.png"
    Image.fromarray(PERSON).save(source)
    for given in (picture, source):
        done = run(given, "-o", tmp_path / name, "--json")
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["format"] == format
        with Image.open(tmp_path / name) as image:
            assert image.format == format
        assert is_masked(tmp_path / name)


def test_of_several_pictures_the_first_is_taken_and_that_is_said(tmp_path: Path) -> None:
    shots = [Image.fromarray(PERSON[:64, index : 64 + index]) for index in range(4)]
    for name in ("a.gif", "b.png", "c.webp", "d.tif"):
        shots[0].save(tmp_path / name, save_all=True, append_images=shots[1:])
    shots[0].save(tmp_path / "e.png")
    done = run(tmp_path, "-o", tmp_path / "out")
    assert done.exit_code == 0
    notes = done.stderr.splitlines()
    assert [Path(note.split(": ")[1]).name for note in notes] == ["a.gif", "b.png", "c.webp", "d.tif"]
    assert all("first picture was taken" in note for note in notes)


def test_pictures_are_never_replaced(picture: Path) -> None:
    before = picture.read_bytes()
    assert run(picture, "-o", picture).exit_code != 0
    assert run(picture, "-o", picture.parent).exit_code != 0
    assert run(picture.parent, "-o", picture.parent).exit_code != 0
    assert picture.read_bytes() == before
    assert [path.name for path in picture.parent.iterdir()] == ["person.jpg"]


def test_pictures_and_results_of_one_run_do_not_replace_each_other(picture: Path, tmp_path: Path) -> None:
    other, out = tmp_path / "other" / "person.jpg", tmp_path / "out"
    other.parent.mkdir()
    other.write_bytes(encoded(PERSON[::-1], "JPEG"))
    before = other.read_bytes()
    done = run(picture, other, "-o", out, "--json")
    assert done.exit_code == 1
    assert is_masked(out / "person.jpg")  # the first, whose result stays
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["error" in answer for answer in answers] == [False, True]
    done = run(picture, other, "-o", other.parent)
    assert done.exit_code == 1
    assert other.read_bytes() == before
    assert run(picture, "-o", out).exit_code == 0  # a later run may


def test_a_url_gives_its_name_and_tells_no_secret(picture: Path, tmp_path: Path) -> None:
    with served(picture.read_bytes()) as web:
        done = run(
            f"{web}/street%20view.jpg?token=hidden1", "--private-urls", "-o", tmp_path / "out", "--json"
        )
        assert done.exit_code == 0, done.stderr
        failed = run(
            web.replace("//", "//me:hidden1@"), f"{web}/x?token=hidden1", "--json", "-o", tmp_path / "a"
        )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["street view.jpg"]
    assert failed.exit_code == 1
    assert failed.stdout.count("error") == 2
    for told in (done.output, failed.output):
        assert "hidden1" not in told


@pytest.mark.parametrize(
    "arguments",
    [("--hide", "cats"), ("--result", "gif"), ("--result", "base64", "-o", "x.jpg"), ("-o", "wrong.bmp")],
)
def test_wrong_usage_is_said_and_nothing_is_written(
    arguments: tuple[str, ...], picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(picture, *arguments).exit_code != 0
    assert {path.name for path in tmp_path.rglob("*")} == {"in", "person.jpg"}


def test_a_picture_that_is_none_is_named_once(tmp_path: Path) -> None:
    done = run("nowhere.jpg", "-o", tmp_path)
    assert (done.exit_code, done.stderr) == (1, "error: no such picture: nowhere.jpg\n")


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [("utf-8:strict", b"\xc3\xa9\xff.jpg\n"), ("ascii:strict", b"\\xe9\\udcff.jpg\n")],
)
def test_no_letter_of_a_name_ends_the_run(
    picture: Path, tmp_path: Path, encoding: str, printed: bytes
) -> None:
    odd = Path(os.fsdecode(os.fsencode(picture.parent) + b"/\xc3\xa9\xff.jpg"))
    picture.rename(odd)
    done = subprocess.run(
        command("image", odd, "-o", tmp_path),
        capture_output=True,
        check=False,
        timeout=240,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(printed)


def test_no_library_says_more_of_a_picture_that_is_not_read(tmp_path: Path) -> None:
    inks = np.zeros((16, 16, 4), np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", inks, photometric="separated")
    done = streamer("image", tmp_path / "in.tif", "-o", tmp_path)
    assert done.returncode == 1
    assert one_line(done.stderr)


def test_a_folder_without_pictures_is_said(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_text("no picture")
    done = streamer("image", tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "no pictures in the folder" in done.stderr


def test_a_folder_needs_a_place_for_its_results(picture: Path) -> None:
    done = streamer("image", picture.parent)
    assert done.returncode == 2
    assert "-o" in done.stderr
