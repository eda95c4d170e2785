"""Users without a home, or with one that they may not enter, as services have (`ProtectHome=yes`)."""

import contextlib
import ctypes
import os
import subprocess
import time
import urllib.request
from pathlib import Path

import cv2
import pytest

from streamer import models
from streamer.device import cuda_trt
from streamer.errors import ModelError
from tests import clips
from tests.cli.program import ROOT, command, one_line, streamer
from tests.clips import Clip

_DROP_CAPABILITY, _PASSES_ALL_MODES = 24, (1, 2)  # PR_CAPBSET_DROP; CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


def _as_a_user() -> None:
    """Also where the tests run as root, folders may not be entered."""
    with contextlib.suppress(AttributeError):
        for capability in _PASSES_ALL_MODES:
            ctypes.CDLL(None).prctl(_DROP_CAPABILITY, capability, 0, 0, 0)


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A folder that may not be entered."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0)
    return folder


@pytest.fixture(params=["missing", "locked", "file"])
def homeless(request: pytest.FixtureRequest, tmp_path: Path, locked: Path) -> dict[str, str]:
    """The environment of a user whose home and cache cannot be used."""
    (tmp_path / "file").touch()
    home = {"missing": "/proc/nonexistent", "locked": str(locked), "file": str(tmp_path / "file")}[
        request.param
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "STREAMER_"))}
    return kept | {"HOME": home, "XDG_CACHE_HOME": f"{home}/cache"}


def test_every_command_works_without_a_home(homeless: dict[str, str], tmp_path: Path) -> None:
    clip = clips.make(tmp_path / "in.mp4", Clip(frames=3))
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), clips.texture(0, 128, 96))
    for arguments in (
        ("anonymize", clip, photo),
        ("image", photo, "-o", tmp_path / "out"),
        ("doctor",),
        ("models",),
    ):
        done = streamer(*arguments, env=homeless, preexec_fn=_as_a_user)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
    done = streamer("models", "fetch", "yunet", "--accept-licence", env=homeless, preexec_fn=_as_a_user)
    assert done.returncode == 1
    assert done.stderr.startswith("error: models cannot be kept there")
    assert one_line(done.stderr), done.stderr


def test_the_server_works_without_a_home(homeless: dict[str, str], tmp_path: Path) -> None:
    run = subprocess.Popen(
        command("serve", "--port", 0, "--workers", 1, "--store", tmp_path / "store"),
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=homeless,
        preexec_fn=_as_a_user,
    )
    try:
        assert run.stderr is not None
        said = run.stderr.readline()
        assert said.startswith("streamer serves on "), said + run.stderr.read()
        until_s = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{said.split()[-1]}/v1/version", timeout=10) as answer:
                    assert answer.status == 200
                return
            except ConnectionError:
                assert time.monotonic() < until_s
                time.sleep(0.1)
    finally:
        run.terminate()
        run.communicate(timeout=30)


def test_a_user_whom_the_system_does_not_know_has_no_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "STREAMER_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert models.find("fast").weights.is_file()
    with pytest.raises(ModelError, match="no home"):
        models.fetch("yunet", accept_licence=True)
    with pytest.raises(ModelError, match="no home"):
        models.find("yunet")
    assert cuda_trt._place(None, "engine") is None
