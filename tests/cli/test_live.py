"""What `streamer live` says at once, before it loads or connects to anything."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from streamer import cli
from tests import clips
from tests.cli.program import command


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["rtps://me:hunter22@cam/1", "--webrtc"], "begins with one of rtsp,", 2),
        (["nowhere.mp4", "--webrtc"], "no such file: nowhere.mp4", 1),
        (["x" * 300, "--webrtc"], "no such file: xxx", 1),
        (["rtsp://me:hunter22@cam/1"], "say where the stream goes", 2),
        (["rtsp://me:hunter22@cam/1", "--push", "gopher://me:hunter22@x/1"], "push needs one of", 2),
        (["0", "--webrtc", "--name", "front door"], "a stream's name is letters", 2),
        (["0", "--webrtc", "--prefix", "/camera", "--quiet"], "may not be called like", 2),
    ],
)
def test_what_cannot_work_is_one_line(
    words: list[str],
    said: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["streamer", "live", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == code
    words_said = capsys.readouterr().err
    assert said in words_said
    assert "hunter22" not in words_said
    assert len(words_said.splitlines()) == 1


_WITHOUT_THREADS = """
import sys, threading
start = threading.Thread.start
def refuse(thread):
    if thread.name.startswith("egress"):
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = refuse
from streamer import cli
cli.main()
"""


def test_a_machine_without_a_further_thread_is_told_in_one_line(tmp_path: Path) -> None:
    clip = clips.make(tmp_path / "in.mp4")
    words = ["live", str(clip), "--record", str(tmp_path / "recordings")]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_THREADS, *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the machine gives no further thread")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_ends_a_recording_in_order(ignored: bool, tmp_path: Path) -> None:
    """Unless `nohup` or the like has asked for more."""
    clip, folder = clips.make(tmp_path / "in.mp4"), tmp_path / "recordings"
    words = command("live", clip, "--loop", "--record", folder)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN) if ignored else signal.getsignal(signal.SIGHUP)
    try:
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        _wait_for_pictures(folder, process)
        process.send_signal(signal.SIGHUP)
        if ignored:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert [file.suffix for file in folder.iterdir()] == [".mp4"]


_SLOW_TO_CLOSE = """
import time
from streamer.media.record import Recorder
close = Recorder.close
def slowly(recorder):
    time.sleep(1)
    close(recorder)
Recorder.close = slowly
from streamer import cli
cli.main()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("more", [(), ("--hls", "--port", "0")])
def test_a_second_signal_does_not_keep_a_recording_from_being_closed(
    how: signal.Signals, more: tuple[str, ...], tmp_path: Path
) -> None:
    clip, folder = clips.make(tmp_path / "in.mp4"), tmp_path / "recordings"
    words = [
        sys.executable,
        "-c",
        _SLOW_TO_CLOSE,
        "live",
        str(clip),
        "--loop",
        "--record",
        str(folder),
        *more,
    ]
    process = subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            how, signal.SIG_DFL
        ),  # ignored where the tests run in the background
    )
    try:
        _wait_for_pictures(folder, process)
        for pause_s in (0, 0.2, 0.2):
            process.send_signal(how)
            time.sleep(pause_s)
        said = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert [file.suffix for file in folder.iterdir()] == [".mp4"]
    assert "Traceback" not in said


@pytest.mark.parametrize("gone", ["its disk is full", "nobody reads it"])
@pytest.mark.parametrize("more", [(), ("--hls", "--port", "0")])
def test_words_that_reach_nobody_end_no_stream(gone: str, more: tuple[str, ...], tmp_path: Path) -> None:
    clip, folder = clips.make(tmp_path / "in.mp4"), tmp_path / "recordings"
    words = command("live", clip, "--loop", "--record", folder, *more)
    if gone == "its disk is full":
        nowhere = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, nowhere = os.pipe()
        os.close(reading)
    process = subprocess.Popen(words, stderr=nowhere)
    os.close(nowhere)
    try:
        _wait_for_pictures(folder, process)
        time.sleep(1.5)  # there was something to say meanwhile
        assert process.poll() is None
        process.terminate()
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
    assert [file.suffix for file in folder.iterdir()] == [".mp4"]


def _wait_for_pictures(folder: Path, process: "subprocess.Popen[Any]") -> None:
    until_s = time.monotonic() + 60
    while not any(file.stat().st_size > 2000 for file in folder.glob("*.part")):
        assert process.poll() is None
        assert time.monotonic() < until_s
        time.sleep(0.1)


def test_a_stop_that_hangs_ends_and_says_where() -> None:
    hangs = """
import time
from streamer.cli import web
web._STOP_S = 0.5
def waits_for_ever():
    time.sleep(60)
with web.bounded_stop() as begin:
    time.sleep(1)  # no stop has begun
    begin()
    waits_for_ever()
"""
    done = subprocess.run(
        [sys.executable, "-c", hangs], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "waits_for_ever" in done.stderr


def test_a_stop_that_is_over_ends_nothing_later() -> None:
    goes_on = """
import time
from streamer.cli import web
web._STOP_S = 0.3
with web.bounded_stop() as begin:
    begin()
time.sleep(1)
"""
    done = subprocess.run(
        [sys.executable, "-c", goes_on], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
