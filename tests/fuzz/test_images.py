"""Damaged pictures by the hundred (more with STREAMER_FUZZ): no crash, no hang, no leak, no metadata, nothing left."""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz import image_worker
from tests.fuzz.test_files import CASES, FIRST

TWICE = 2 * CASES  # a picture takes little time
LONGEST_S = 60 + TWICE


@pytest.mark.timeout(LONGEST_S + 60)
@pytest.mark.parametrize("kind", image_worker.KINDS)
def test_damaged_pictures_end_well(tmp_path: Path, kind: str) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.image_worker", str(tmp_path), kind, str(FIRST), str(TWICE)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LONGEST_S,
            check=False,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode().splitlines()
        pytest.fail(f"hangs at {said[-1] if said else 'the start'}; rerun with that seed")
    said = done.stdout.splitlines()
    assert done.returncode == 0, f"crashed ({done.returncode}) at {said[-1:]}: {done.stderr[-500:]}"
    wrong = [line for line in said if "wrong" in line]
    assert not wrong, wrong[:5]
    ends = Counter(line.split()[2] for line in said if line.startswith("ended"))
    assert sum(ends.values()) == TWICE
    assert ends["refused"] > 0


@pytest.mark.parametrize("kind", image_worker.KINDS)
def test_a_whole_picture_passes_and_would_tell_a_secret(tmp_path: Path, kind: str, monkeypatch) -> None:
    """Without this the test above would prove nothing."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    data = image_worker.whole(kind)
    assert image_worker.SECRET.encode() in data or kind == "bmp"
    assert image_worker.one(data, image_worker.settings(tmp_path)) == "passed"
