"""What a killed or refused run leaves of what stood there before; proof/test_faults.py tries all the faults."""

import os
import signal
from pathlib import Path

import pytest

from streamer import pipeline
from streamer.errors import OutputError
from streamer.pipeline import Job
from streamer.proof.file_faults import run_victim
from tests import clips
from tests.fuzz import worker

CLIP = clips.Clip(frames=40, width=160, height=96, gop=10, audio="aac")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return clips.make(tmp_path_factory.mktemp("clip") / "in.mp4", CLIP)


def test_a_killed_overwrite_leaves_the_old_result_whole(clip, tmp_path) -> None:
    target = tmp_path / "out.mp4"
    pipeline.run(Job(clip, target), worker.engine())
    before = target.read_bytes()
    assert run_victim("middle", clip, target, 0, "overwrite").returncode == -signal.SIGKILL
    assert target.read_bytes() == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(clip, tmp_path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError):
            pipeline.run(Job(clip, tmp_path / "out.mp4"), worker.engine())
    finally:
        tmp_path.chmod(0o700)
