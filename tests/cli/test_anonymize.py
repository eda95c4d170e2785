import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from streamer.cli.inputs import Input, find, target_of
from streamer.errors import ConfigError, InputError
from tests import clips
from tests.cli.program import ROOT, command, one_line, streamer
from tests.clips import Clip


def test_one_file_becomes_one_file_with_objects_and_report(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "in.mp4", Clip(audio="aac"))
    done = streamer(
        "anonymize", path, "--objects", tmp_path / "objects.jsonl", "--report", tmp_path / "report.json"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    target = tmp_path / "in_anonymized.mp4"
    assert said["output"] == str(target)
    assert len(clips.look(target).times_s) == 30
    lines = [json.loads(line) for line in (tmp_path / "objects.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(30))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["device"]["name"] == "cpu"
    assert report["device"]["why"]
    assert report["detector_runs"]["total"] >= 1
    assert sum(report["detector_runs"]["by_reason"].values()) == report["detector_runs"]["total"]
    assert any("voices" in note for note in report["notes"])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "in.mp4", "in_anonymized.mp4", "objects.jsonl", "report.json",
    ]  # fmt: skip


def test_a_dry_run_writes_no_video(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "in.mp4")
    done = streamer("anonymize", path, "--dry-run", "--objects", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 30
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.mp4", "o.jsonl"]


def test_every_refusal_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "in.mp4", Clip(frames=3))
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "text.mp4"
    text.write_text("hello " * 100)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[mask]\nmargn = 1\n")
    nested = tmp_path / "nested.toml"
    nested.write_text("x = " + "[" * 5000)
    cases = [
        (("anonymize", tmp_path / "missing.mp4"), 1, "no such file"),
        (("anonymize", empty), 1, "no videos or pictures"),
        (("anonymize", tmp_path / "*.xyz"), 1, "nothing matches"),
        (("anonymize", text), 1, "not a video"),
        (("anonymize", path, "-o", path, "--overwrite"), 2, "replace the input"),
        (("anonymize", path, "--config", wrong), 2, "margin"),
        (("anonymize", path, "--config", tmp_path / "no.toml"), 2, "cannot read"),
        (("anonymize", path, "--threshold", 3), 2, "threshold"),
        (("anonymize", path, "--model", "nobody"), 2, "nobody"),
        (("anonymize", path, "--preset", "warp"), 2, "preset"),
        (("anonymize", path, "--codec", "hevc", "--crf", 52), 2, "0 to 51"),
        (("anonymize", path, "--crf", 63), 2, "0 to 51"),
        (("anonymize", path, "--bogus"), 2, "--bogus"),
        (("anonymize", path, "--style", "glitter"), 2, "'--style': 'glitter' is not one of"),
        (("anonymize", path, "--crf", "high"), 2, "'--crf'"),
        (("anonymize",), 2, "INPUT"),
        (("anonymize", path, "--detect-every", "often"), 2, "often"),
        (("anonymize", path, "--detect-every", 0), 2, '--detect-every takes 1 to 60 frames or auto, not "0"'),
        (("anonymize", path, "--detect-every", -1), 2, "1 to 60"),
        (("anonymize", path, "--config", nested), 2, "not a TOML file"),
        (("anonymize", path, "--hide", "faces", "--hide", "plates"), 2, "--hide stands there twice"),
        (("anonymize", path, text, "--zones", tmp_path / "z.json"), 2, "cannot read the zones"),
        (
            ("anonymize", path, "-o", tmp_path / "x.mp4", "--codec", "vp9", "--zones", tmp_path / "z.json"),
            2,
            "z.json",
        ),
    ]
    for arguments, code, words in cases:
        done = streamer(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert one_line(done.stderr), done.stderr
        assert words in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "empty", "in.mp4", "nested.toml", "text.mp4", "wrong.toml",
    ]  # fmt: skip


def test_without_a_command_the_help_says_it_all() -> None:
    done = streamer()
    assert done.returncode == 2
    assert "anonymize" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("ending", ["ppm", "pdf", "arw"])
def test_pictures_that_are_not_read_do_not_become_videos(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"in.{ending}"
    if ending == "ppm":
        path.write_bytes(b"P6 64 64 255 " + bytes(64 * 64 * 3))
    else:
        Image.new("RGB", (64, 64)).save(path, "PDF" if ending == "pdf" else "JPEG")
    done = streamer("anonymize", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert one_line(done.stderr)
    assert "convert it to PNG or JPEG" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_two_pictures_in_one_file_of_a_camera_with_two_lenses_are_no_video(tmp_path: Path) -> None:
    left, right = (Image.fromarray(clips.texture(index, 96, 64)) for index in range(2))
    left.save(tmp_path / "in.mpo", save_all=True, append_images=[right])
    assert streamer("anonymize", tmp_path, "-o", tmp_path / "out").returncode == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["in_anonymized.jpg"]


def test_two_runs_do_not_write_one_file_at_the_same_time(tmp_path: Path) -> None:
    path, target = clips.make(tmp_path / "in.mp4", Clip(frames=50)), tmp_path / "out.mp4"
    words = command("anonymize", "-q", "--overwrite", path, "-o", target)
    runs = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    told = [run.communicate(timeout=120)[1] for run in runs]
    assert {run.returncode for run in runs} <= {0, 1}
    for run, errors in zip(runs, told, strict=True):
        assert (run.returncode == 0) == (errors == "")
        assert errors == "" or "another run is writing this file" in errors
    assert len(clips.look(target).times_s) == 50
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_in_a_batch_the_others_still_run(tmp_path: Path) -> None:
    clips.make(tmp_path / "a.mp4", Clip(frames=3))
    (tmp_path / "b.mp4").write_text("no video")
    clips.make(tmp_path / "c.mkv", Clip(frames=3))
    out = tmp_path / "out"
    done = streamer("anonymize", tmp_path, "-o", out)
    assert done.returncode == 1
    assert "1 of 3 inputs failed" in done.stderr
    assert sorted(file.name for file in out.iterdir()) == ["a_anonymized.mp4", "c_anonymized.mkv"]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [("error" in answer) for answer in answers] == [False, True, False]


def test_a_batch_goes_on_when_nobody_reads_its_lines_any_more(tmp_path: Path) -> None:
    paths = [clips.make(tmp_path / f"{name}.mp4", Clip(frames=3)) for name in "abc"]
    words = command("anonymize", *paths, "-o", tmp_path / "out")
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    errors = run.stderr.read()
    run.stderr.close()
    assert (run.wait(timeout=120), errors) == (0, b"")
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_an_existing_result_is_kept_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "in.mp4", Clip(frames=3))
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    done = streamer("anonymize", path, "-o", target)
    assert done.returncode == 2
    assert target.read_bytes() == b"precious"
    assert streamer("anonymize", path, "-o", target, "--overwrite").returncode == 0
    assert len(clips.look(target).times_s) == 3


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.make(tmp_path_factory.mktemp("long") / "in.mp4", Clip(frames=1500, width=640, height=360))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_no_half_file(long_clip: Path, tmp_path: Path, number: signal.Signals) -> None:
    target = tmp_path / "out.mp4"
    run = subprocess.Popen(
        command("anonymize", long_clip, "-o", target, "--reencode", "all"),
        # a job started in the background ignores the interrupt, and so would its children
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    part = tmp_path / "out.mp4.part"
    deadline = time.monotonic() + 150
    while not part.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(run.pid, number)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 130, errors
    assert b"interrupted" in errors
    assert list(tmp_path.iterdir()) == []


def test_a_thread_at_work_does_not_abort_the_end(tmp_path: Path) -> None:
    """As when the signal comes while a thread is being started: nobody knows of it, and it runs the network."""
    script = tmp_path / "left.py"
    script.write_text("""
import time
import numpy as np
import onnxruntime
from streamer import channel, cli, models

session = onnxruntime.InferenceSession(models.find("fast").weights)
feed = {session.get_inputs()[0].name: np.zeros((1, 3, 384, 640), np.float32)}

def work():
    while True:
        session.run(None, feed)

def app(**_):
    channel.Worker(work, name="left")
    time.sleep(0.1)
    raise KeyboardInterrupt

cli.app = app
cli.main()
""")
    done = subprocess.run([sys.executable, script], capture_output=True, cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines() == [b"interrupted; no unfinished file was left"]


def test_an_interrupt_while_the_command_loads_is_one_line(tmp_path: Path) -> None:
    """`numpy` stands for whatever is being loaded."""
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt\n")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = streamer("--version", env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 130
    assert done.stderr == "interrupted; no unfinished file was left\n"


def test_folders_globs_and_our_own_results(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mkv", "a_anonymized.mkv", "notes.txt", "._b.mp4"):
        (tmp_path / name).touch()
    assert [found.path.name for found in find(str(tmp_path))] == ["a.mkv", "b.mp4"]
    assert [found.path.name for found in find(str(tmp_path / "*.mp4"))] == ["b.mp4"]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "c.mp4").touch()
    (tmp_path / "deep" / "loop").symlink_to("..")
    (tmp_path / "deep" / "link.mp4").symlink_to("../b.mp4")
    for pattern, names in {
        "*.mkv": ["a.mkv"],
        "*_anonymized.mkv": ["a_anonymized.mkv"],
        "**/*.mp4": ["b.mp4", "c.mp4"],
        "*": ["a.mkv", "b.mp4", "notes.txt"],
    }.items():
        assert [found.path.name for found in find(str(tmp_path / pattern))] == names
    for pattern in ("*.webm", "dee*"):
        with pytest.raises(InputError, match="nothing matches"):
            list(find(str(tmp_path / pattern)))


def test_results_get_a_name_and_a_container_that_can_hold_them(tmp_path: Path) -> None:
    assert target_of(Input(Path("x/a.mkv")), None, False) == Path("x/a_anonymized.mkv")
    assert target_of(Input(Path("x/a.wmv")), None, False) == Path("x/a_anonymized.mp4")
    assert target_of(Input(Path("x/a.mp4")), tmp_path, False) == tmp_path / "a_anonymized.mp4"
    assert target_of(Input(Path("x/a.mp4")), Path("y/b.webm"), False) == Path("y/b.webm")
    deep = Input(Path("x/may/a.mp4"), Path("may"))
    assert target_of(deep, tmp_path, True) == tmp_path / "may" / "a_anonymized.mp4"
    with pytest.raises(ConfigError, match="need a folder"):
        target_of(deep, tmp_path / "b.mp4", True)


def test_no_option_destroys_the_input(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "in.mp4", Clip(frames=3))
    half = tmp_path / "half.mp4.part"
    half.write_bytes(path.read_bytes())
    before = path.read_bytes()
    for arguments in (
        (path, "--dry-run", "--objects", path),
        (path, "--dry-run", "--report", path),
        (path, "--objects", tmp_path / "in_anonymized.mp4"),
        (path, "--report", tmp_path / "in_anonymized.mp4"),
        (path, "--dry-run", "--objects", tmp_path / "o", "--report", tmp_path / "o"),
        (half, "-o", tmp_path / "half.mp4"),
        (half, "--dry-run", "--objects", tmp_path / "half.mp4"),
        (path, "--dry-run", "--objects", tmp_path),
        (path, "--dry-run", "--report", tmp_path),
    ):
        done = streamer("anonymize", *arguments)
        assert done.returncode == 2, arguments
        assert one_line(done.stderr), done.stderr
    assert path.read_bytes() == half.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["half.mp4.part", "in.mp4"]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_no_encoder_talks_to_the_terminal(tmp_path: Path, codec: str) -> None:
    path = clips.make(tmp_path / "in.mp4", Clip(frames=3))
    done = streamer("anonymize", "-q", path, "--codec", codec)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_names_are_names_and_nothing_else(tmp_path: Path) -> None:
    whole = clips.make(tmp_path / "in.mp4", Clip(frames=3)).read_bytes()
    for name in ("12:30.mp4", "-x.mp4", "a 100%d ü.mp4", "clip[1].mp4"):
        (tmp_path / name).write_bytes(whole)
        done = streamer("anonymize", "-q", "--", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"{name.removesuffix('.mp4')}_anonymized.mp4").exists()


def test_inputs_of_one_name_do_not_become_one_file(tmp_path: Path) -> None:
    for folder in ("may", "june"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        clips.make(tmp_path / "in" / folder / "a.mp4", Clip(frames=3))
    clips.make(tmp_path / "in" / "june" / "a.avi", Clip(frames=3, codec="mpeg4"))
    out, objects = tmp_path / "out", tmp_path / "objects"
    objects.mkdir()
    done = streamer(
        "anonymize", tmp_path / "in", tmp_path / "none*", "-o", out, "--objects", objects, "--overwrite"
    )
    assert done.returncode == 1
    assert "another input became this file" in done.stderr
    assert "nothing matches" in done.stderr
    assert "2 of 4 inputs failed" in done.stderr
    names = sorted(str(file.relative_to(out)) for file in out.rglob("*.*"))
    assert names == ["june/a_anonymized.mp4", "may/a_anonymized.mp4"]
    assert sorted(str(file.relative_to(objects)) for file in objects.rglob("*.*")) == [
        "june/a.jsonl", "may/a.jsonl",
    ]  # fmt: skip


def test_what_failed_takes_no_name_from_another_input(tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_text("no video")
    clips.make(tmp_path / "a.mp4", Clip(frames=3))
    done = streamer("anonymize", tmp_path, "-o", tmp_path / "out")
    assert "1 of 2 inputs failed" in done.stderr
    assert "another input" not in done.stderr
    assert (tmp_path / "out" / "a_anonymized.mp4").exists()


def test_pictures_go_the_same_way(tmp_path: Path) -> None:
    for index in (1, 2):
        cv2.imwrite(str(tmp_path / f"shot_{index:04d}.png"), clips.texture(index, 128, 96))
    cv2.imwrite(str(tmp_path / "photo.jpg"), clips.texture(0, 128, 96))
    out = tmp_path / "out"
    done = streamer("anonymize", tmp_path / "shot_%04d.png", tmp_path / "photo.jpg", "-o", out)
    assert done.returncode == 0, done.stderr
    names = ["photo_anonymized.jpg", "shot_0001_anonymized.png", "shot_0002_anonymized.png"]
    assert sorted(file.name for file in out.iterdir()) == names
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(answer["width"], answer["height"]) for answer in answers] == [(128, 96)] * 3
    assert streamer("anonymize", tmp_path / "photo.jpg", "-o", out / names[0]).returncode == 2
    assert streamer("anonymize", tmp_path / "shot_%03d.png").returncode == 1
    video = streamer("anonymize", tmp_path / "shot_%04d.png", "-o", tmp_path / "shots.mp4")
    assert video.returncode == 2
    assert one_line(video.stderr)
    assert "make one of them first" in video.stderr


def test_a_sequence_goes_on_when_its_numbers_grow_longer(tmp_path: Path) -> None:
    for name in ("8.png", "9.png", "10.png", "11.png", "012.png", "x.png"):
        (tmp_path / f"shot_{name}").touch()
    found = [item.path.name for item in find(str(tmp_path / "shot_%01d.png"))]
    assert sorted(found) == ["shot_10.png", "shot_11.png", "shot_8.png", "shot_9.png"]


def test_moving_pictures_become_videos_and_none_is_lost_in_silence(tmp_path: Path) -> None:
    shots = [Image.fromarray(clips.texture(index, 96, 64)) for index in range(6)]
    for name in ("a.gif", "b.png", "c.webp", "d.tif"):
        shots[0].save(tmp_path / name, save_all=True, append_images=shots[1:], duration=100)
    shots[0].save(tmp_path / "e.webp")
    out = tmp_path / "out"
    done = streamer("anonymize", tmp_path, "-o", out)
    assert done.returncode == 1
    for name in ("a", "b"):
        assert clips.look(out / f"{name}_anonymized.mp4").times_s == pytest.approx(np.arange(6) / 10)
    failed, pages, still = (json.loads(line) for line in done.stdout.splitlines()[2:])
    assert "moving WebP" in failed["error"]
    assert pages["notes"] == ["left out: all pictures but the first"]
    assert still["notes"] == []
    assert sorted(path.name for path in out.iterdir()) == [
        "a_anonymized.mp4", "b_anonymized.mp4", "d_anonymized.png", "e_anonymized.webp",
    ]  # fmt: skip


def test_zones_hold_for_pictures_too(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), clips.texture(0, 128, 96))
    zones = tmp_path / "zones.json"
    zones.write_text('{"mask": [[[0, 0], [1, 0], [1, 0.5], [0, 0.5]]]}')
    done = streamer("anonymize", photo, "--zones", zones, "--style", "solid")
    assert done.returncode == 0, done.stderr
    before, after = cv2.imread(str(photo)), cv2.imread(str(tmp_path / "photo_anonymized.png"))
    assert len(np.unique(after[:44].reshape(-1, 3), axis=0)) == 1
    assert np.array_equal(before[60:], after[60:])
