"""Damaged files by the hundred (by the thousand with STREAMER_FUZZ=1000): no crash, no hang, no leak, no rest."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests import clips
from tests.fuzz import worker

CASES = int(os.environ.get("STREAMER_FUZZ", "25"))  # per kind of file
FIRST = int(os.environ.get("STREAMER_FUZZ_FIRST", "0"))  # another start, other damage
LONGEST_S = 60 + 2 * CASES


@pytest.mark.timeout(LONGEST_S + 60)
@pytest.mark.parametrize("kind", list(worker.KINDS))
def test_damaged_files_end_well(tmp_path: Path, kind: str) -> None:
    whole = clips.make(tmp_path / f"whole.{kind}", worker.KINDS[kind])
    assert worker.one(whole, tmp_path / "whole.out.mp4", worker.engine()) == "passed"
    command = [sys.executable, "-m", "tests.fuzz.worker", str(tmp_path), kind, str(FIRST), str(CASES)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode().splitlines()
        pytest.fail(f"hangs at {said[-1] if said else 'the start'}; rerun with that seed")
    said = done.stdout.splitlines()
    assert done.returncode == 0, f"crashed ({done.returncode}) at {said[-1:]}: {done.stderr[-500:]}"
    wrong = [line for line in said if "wrong" in line]
    assert not wrong, wrong[:5]
    ends = Counter(line.split()[2] for line in said if line.startswith("ended"))
    assert sum(ends.values()) == CASES
    assert ends["passed"] > 0  # damage in pictures alone is survived
    assert ends["passed"] < CASES or kind in ("h264", "ts", "mpg", "mjpeg", "hevc")
