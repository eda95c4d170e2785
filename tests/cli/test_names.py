"""What is typed where a file is meant: addresses with passwords, `-`, things that are no files, odd names."""

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from PIL import Image

from streamer import demo
from streamer.cli import main
from streamer.cli.screen import Screen
from streamer.errors import InputError
from streamer.media.live_source import LiveSource
from streamer.media.live_spec import LiveSpec
from streamer.tally import Tally
from tests import clips
from tests.cli.program import one_line
from tests.clips import Clip

Cli = Callable[..., tuple[int, str, str]]  # arguments -> exit code, stdout, stderr
URL = "rtsp://user:hunter22@192.0.2.1/x"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """The command line in a folder of its own, in which `in.mp4` lies."""
    clips.make(tmp_path / "in.mp4", Clip(frames=3))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["streamer", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, errors = capfd.readouterr()
        return int(ended.value.code or 0), out, errors

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        "anonymize URL",
        "anonymize URL in.mp4",
        "anonymize URL/*",
        "anonymize in.mp4 -o URL",
        "anonymize in.mp4 --config URL",
        "anonymize in.mp4 --objects URL",
        "anonymize in.mp4 --report=URL",
        "anonymize in.mp4 --zones URL",
        "bench URL",
        "bench in.mp4 --config URL",
        "image in.png -o URL",
        "prove URL",
        "prove . --json URL",
        "eval URL",
        "demo -o URL",
        "live URL --record URL",
        "serve --keys URL",
        "serve --config URL",
    ],
)
@pytest.mark.parametrize("url", [URL, "http://me:hunter22@/x.mp4", "foo://:hunter22 'x\\@host"])
def test_an_address_where_a_file_is_meant_is_refused_without_its_password(
    cli: Cli, tmp_path: Path, arguments: str, url: str
) -> None:
    code, out, errors = cli(*(word.replace("URL", url) for word in arguments.split()))
    assert code == 2
    assert one_line(errors), errors
    assert "streamer live" in errors
    assert "***@" in errors
    assert "hunter22" not in out + errors
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["image", URL], 1),
        (["image", "--json", URL], 1),
        (["image", "user:hunter22@192.0.2.1/x"], 1),
        (["anonymize", "user:hunter22@192.0.2.1/x"], 2),
        (["anonymize", "rtsp:/user:hunter22@192.0.2.1/x"], 2),
        (["bench", "user:hunter22@192.0.2.1/x"], 2),
        (["eval", "user:hunter22@192.0.2.1/x"], 2),
        (["live", "user:hunter22@192.0.2.1/x", "--record", "out"], 2),
        (["live", "rtsp:/user:hunter22@192.0.2.1/x", "--record", "out"], 2),
        ([URL], 2),
        (["bench", "in.mp4", URL], 2),
        (["anonymize", "in.mp4", "--hide", URL], 2),
        (["anonymize", "in.mp4", f"--model={URL}"], 2),
        (["anonymize", "in.mp4", "--config", "zones.toml"], 2),
        (["anonymize", "in.mp4", "in.mp4", "--config", "zones.toml"], 2),
    ],
)
def test_whatever_holds_a_password_is_not_told_on(
    cli: Cli, tmp_path: Path, arguments: list[str], code: int
) -> None:
    (tmp_path / "zones.toml").write_text(f'zones = "{URL}"\n')
    found, out, errors = cli(*arguments)
    assert found == code
    assert errors.startswith("error: ")
    assert "hunter22" not in out + errors


@pytest.mark.parametrize(
    "arguments",
    [
        "anonymize -",
        "anonymize in.mp4 -",
        "anonymize in.mp4 -o -",
        "anonymize in.mp4 --objects -",
        "anonymize in.mp4 --report -",
        "bench -",
        "image in.png -o -",
        "demo -o -",
    ],
)
def test_standard_input_and_output_are_refused_where_they_cannot_be_used(
    cli: Cli, tmp_path: Path, arguments: str
) -> None:
    code, out, errors = cli(*arguments.split())
    assert (code, out) == (2, "")
    assert one_line(errors), errors
    assert "standard input and output" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(
    "arguments",
    [
        "anonymize EMPTY",
        "anonymize in.mp4 EMPTY",
        "anonymize in.mp4 -o EMPTY",
        "anonymize in.mp4 --output=EMPTY",
        "anonymize in.mp4 --objects EMPTY",
        "anonymize in.mp4 --config EMPTY",
        "bench EMPTY",
        "demo -o EMPTY",
        "eval EMPTY",
        "image EMPTY",
        "image EMPTY -o out",
        "image in.png EMPTY",
        "image in.png -o EMPTY",
        "live in.mp4 --record EMPTY",
        "prove EMPTY",
    ],
)
def test_an_empty_name_is_not_the_current_folder(cli: Cli, tmp_path: Path, arguments: str) -> None:
    """As a variable that is not set gives."""
    code, out, errors = cli(*(word.replace("EMPTY", "") for word in arguments.split()))
    assert (code, out) == (2, "")
    assert one_line(errors), errors
    assert "empty" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_file_that_is_there_is_no_address(cli: Cli, tmp_path: Path) -> None:
    for name in ("a:b@c.mp4", "cam:/-", "cam:/x@y.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((tmp_path / "in.mp4").read_bytes())
        code, out, errors = cli("anonymize", name, "--dry-run")
        assert code == 0, errors
        assert json.loads(out)["input"] == name


@pytest.fixture
def special(tmp_path: Path) -> dict[str, Path]:
    """Things with names that are no regular files, by what they are."""
    found = {"pipe": tmp_path / "p.mp4", "picture": tmp_path / "p.jpg", "device": Path("/dev/null")}
    for name in ("pipe", "picture"):
        os.mkfifo(found[name])
    found["socket"] = tmp_path / "s.mp4"
    with socket.socket(socket.AF_UNIX) as ear:
        ear.bind(os.path.relpath(found["socket"]))  # short enough for a socket's name
    return found


@pytest.mark.timeout(30)
@pytest.mark.parametrize("command", ["anonymize", "bench"])
def test_what_is_no_regular_file_is_called_what_it_is(
    cli: Cli, special: dict[str, Path], command: str
) -> None:
    for kind, path in special.items():
        code, out, errors = cli(command, path)
        assert (code, out) == (1, "")
        assert one_line(errors), errors
        assert f"is a {'pipe' if kind == 'picture' else kind}, and a regular file is needed" in errors


@pytest.mark.timeout(30)
def test_a_pipe_among_others_fails_alone(cli: Cli, special: dict[str, Path]) -> None:
    code, out, errors = cli("anonymize", special["pipe"], special["picture"], "in.mp4", "--dry-run")
    assert code == 1
    assert ["error" in json.loads(line) for line in out.splitlines()] == [True, True, False]
    assert "2 of 3 inputs failed" in errors
    assert cli("image", special["picture"])[0] == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("anonymize in.mp4 --dry-run --objects PIPE", 2),
        ("anonymize in.mp4 --overwrite -o PIPE.mp4", 2),
        ("anonymize in.png --overwrite -o PIPE.png", 2),
        ("image in.png -o PIPE.png", 1),
    ],
)
def test_no_result_replaces_a_pipe_or_a_device(cli: Cli, tmp_path: Path, arguments: str, code: int) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), clips.texture(0, 128, 96))
    pipe = tmp_path / arguments.split()[-1]
    os.mkfifo(pipe)
    found, _, errors = cli(*arguments.split())
    assert found == code, errors
    assert one_line(errors), errors
    assert "no regular file" in errors
    assert pipe.is_fifo()
    assert not list(tmp_path.glob("*.part"))


LONG = 300 * "a"


@pytest.mark.parametrize(
    "arguments",
    [
        f"anonymize {LONG}.mp4",
        f"anonymize in.mp4 -o {LONG}.mp4",
        f"anonymize in.mp4 -o {LONG}",
        f"anonymize in.mp4 --objects {LONG}",
        f"anonymize in.mp4 --report {LONG}",
        f"bench {LONG}.mp4",
        f"eval {LONG}",
        f"prove {LONG}",
        f"demo -o {LONG}",
        "demo -o in.mp4",
        "demo -o in.mp4/x",
        "anonymize in.mp4 -o in.mp4/x",
        "anonymize in.mp4 -o in.mp4/x.mp4",
        "anonymize broken.mp4",
        "anonymize none\nline.mp4",
        "anonymize none\udcff.mp4",
        "anonymize no\x1b[31m.mp4",
        "image no\x1b[31m.png",
        "bench text.mp4 --rounds 1",
    ],
)
def test_odd_names_and_places_are_one_line(cli: Cli, tmp_path: Path, arguments: str) -> None:
    (tmp_path / "broken.mp4").symlink_to("/nowhere")
    (tmp_path / "text.mp4").write_text("no video")
    code, out, errors = cli(*arguments.split(" "))
    assert (code, out) == (1, "")
    assert one_line(errors), errors
    assert errors.startswith("error: ")
    assert "\x1b[31m" not in errors


def test_a_name_gives_a_terminal_no_orders(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    Screen(quiet=False).picture({"input": "a\x1b[2J\n.jpg", "output": "b\n.jpg", "objects": [], "notes": []})
    assert capsys.readouterr().err == "a\\x1b[2J\\n.jpg: 0 objects -> b\\n.jpg\n"


def test_an_input_that_no_file_can_be_called_fails_alone(cli: Cli) -> None:
    code, out, errors = cli("anonymize", f"{LONG}.mp4", f"{244 * 'b'}.mp4", "in.mp4", "--dry-run")
    assert code == 1
    assert len(out.splitlines()) == 3
    assert "2 of 3 inputs failed" in errors


def test_a_folder_that_may_not_be_looked_into_is_not_called_empty(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    code, _, errors = cli("anonymize", tmp_path)
    assert code == 1
    assert "Permission denied" in errors


@pytest.mark.parametrize("command", ["image", "anonymize"])
@pytest.mark.parametrize("name", ["q.avif", "q.tif", "q.bmp"])
def test_a_picture_is_not_written_under_the_name_of_another_format(
    cli: Cli, tmp_path: Path, command: str, name: str
) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), clips.texture(0, 128, 96))
    code, _, errors = cli(command, "p.png", "-o", name)
    assert code == 2
    assert one_line(errors)
    assert ".webp" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "p.png"]


@pytest.mark.parametrize(
    ("name", "format"), [("q.jpg", "JPEG"), ("q.JPEG", "JPEG"), ("q.png", "PNG"), ("q.webp", "WEBP")]
)
@pytest.mark.parametrize("source", ["p.png", "p.jpg", "p.webp", "p.bmp", "p.avif"])
def test_a_picture_gets_the_format_and_the_name_that_were_asked_for(
    cli: Cli, tmp_path: Path, source: str, name: str, format: str
) -> None:
    Image.fromarray(clips.texture(0, 128, 96)).save(tmp_path / source)
    code, out, errors = cli("anonymize", source, "-o", name)
    assert code == 0, errors
    assert json.loads(out)["output"] == name
    with Image.open(tmp_path / name) as image:
        assert image.format == format
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", source, name]


def test_a_folder_keeps_the_names_of_pictures(cli: Cli, tmp_path: Path) -> None:
    for name in ("a.webp", "b.JPG", "c.png", "d.bmp", "e.avif", "f.gif"):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(clips.texture(0, 128, 96)).save(tmp_path / "in" / name)
    code, _, errors = cli("anonymize", "in", "-o", "out")
    assert code == 0, errors
    formats = {}
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            formats[path.name.replace("_anonymized", "")] = image.format
    assert formats == {
        "a.webp": "WEBP", "b.JPG": "JPEG", "c.png": "PNG", "d.png": "PNG", "e.jpg": "JPEG", "f.png": "PNG",
    }  # fmt: skip


def test_a_name_with_a_colon_is_no_protocol(cli: Cli, tmp_path: Path) -> None:
    name = "12:30.mp4"
    (tmp_path / "in.mp4").rename(name)
    with LiveSource(LiveSpec(name), tally=Tally()) as source:
        assert len(list(source)) == 3
    code, _, errors = cli("bench", name, "--rounds", "1")
    assert code == 0, errors


def test_the_stills_of_the_demo_take_any_name(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a:\xff"))
    folder.mkdir()
    clip = clips.make(folder / "in.mp4", Clip(frames=90))
    demo.write_stills(clip, clip, folder / "stills.png")
    assert (folder / "stills.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError):
        LiveSource(LiveSpec(str(folder / "none.mp4")), tally=Tally())


@pytest.mark.parametrize("option", ["--report", "--objects"])
@pytest.mark.parametrize(
    "place", ["none/x.json", "SOURCE", "in.mp4/x.json", "TARGET", "folder", "zones.json", "/proc/x.json"]
)
@pytest.mark.parametrize("source", ["in.mp4", "p.png"])
def test_facts_that_cannot_be_written_are_told_before_the_run(
    cli: Cli, tmp_path: Path, option: str, place: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("it was begun")

    monkeypatch.setattr("streamer.cli.anonymize._Batch.run", decode)
    cv2.imwrite(str(tmp_path / "p.png"), clips.texture(0, 128, 96))
    (tmp_path / "folder").mkdir()
    (tmp_path / "zones.json").write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    target = Path("out").with_suffix(Path(source).suffix)
    place = place.replace("SOURCE", source).replace("TARGET", str(target))
    code, out, errors = cli("anonymize", source, "-o", target, option, place, "--zones", "zones.json")
    assert code in (1, 2)
    assert out == ""
    assert one_line(errors), errors
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_report_may_go_to_a_pipe(cli: Cli) -> None:
    code, out, errors = cli("anonymize", "in.mp4", "-q", "--dry-run", "--report", "/dev/stdout")
    assert code == 0, errors
    assert json.loads(out)["video"]["frames"] == 3


@pytest.mark.parametrize("name", ["/dev/null", "results"])
def test_what_is_no_folder_is_not_said_to_exist_already(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "results").touch()
    code, _, errors = cli("anonymize", "in.mp4", "-o", name)
    assert (code, errors) == (
        2,
        f"error: this is no folder; name one, or use --dry-run to write nothing: {name}\n",
    )


def test_results_can_be_read_by_whom_the_system_lets_read(cli: Cli, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), clips.texture(0, 128, 96))
    before = os.umask(0o022)
    try:
        assert cli("anonymize", "in.mp4", "p.png", "-o", "out", "--report", "r.json")[0] == 0
    finally:
        os.umask(before)
    for path in (*(tmp_path / "out").iterdir(), tmp_path / "r.json"):
        assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "arguments", [["anonymize", ""], ["anonymize", "", "in.mp4"], ["bench", ""], ["image", ""]]
)
def test_an_empty_name_is_not_the_folder_in_which_one_is(
    cli: Cli, tmp_path: Path, arguments: list[str]
) -> None:
    code, out, errors = cli(*arguments)
    assert code in (1, 2)
    assert out == ""
    assert one_line(errors), errors
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("name", ["x.avi", "x.mp4", "x.gif", "x.jpg"])
def test_several_inputs_make_no_folder_with_the_name_of_a_video(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "b.mp4").write_bytes((tmp_path / "in.mp4").read_bytes())
    code, _, errors = cli("anonymize", "in.mp4", "b.mp4", "-o", name)
    assert code == 2
    assert "need a folder" in errors
    assert not (tmp_path / name).exists()


def test_of_several_the_one_that_failed_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "none.png").write_text("no picture")
    code, _, errors = cli("anonymize", "empty.jpg", "none.png", "--dry-run")
    assert code == 1
    for line, name in zip(errors.splitlines(), ("empty.jpg", "none.png"), strict=False):
        assert line.startswith(f"error: {name}: ")


@pytest.mark.parametrize("command", ["anonymize", "image"])
def test_a_picture_of_one_s_own_may_be_as_large_as_those_of_phones(
    cli: Cli, tmp_path: Path, command: str
) -> None:
    Image.new("L", (12_000, 9_000), 90).save(tmp_path / "p.png")
    code, _, errors = cli(command, "p.png", "-o", "q.png")
    assert (code, errors) == (0, "")
