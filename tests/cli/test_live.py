"""What `streamer live` says at once, before it loads or connects to anything."""

import sys

import pytest

from streamer import cli


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["rtps://me:hunter22@cam/1", "--webrtc"], "begins with one of rtsp,", 2),
        (["nowhere.mp4", "--webrtc"], "no such file: nowhere.mp4", 1),
        (["rtsp://me:hunter22@cam/1"], "say where the stream goes", 2),
        (["rtsp://me:hunter22@cam/1", "--push", "gopher://me:hunter22@x/1"], "push needs one of", 2),
        (["0", "--webrtc", "--name", "front door"], "a stream's name is letters", 2),
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
