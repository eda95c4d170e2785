"""The program tells nobody that it runs: no library that it uses leaves an identifier or a cache of reports."""

import os
import subprocess
import sys
from pathlib import Path

PICTURE = (
    "import numpy\n"
    "from streamer import anonymize_image\n"
    "anonymize_image(numpy.zeros((64, 64, 3), numpy.uint8), result='base64')\n"
)


def test_a_run_leaves_no_file_in_the_home_or_the_temporary_folder(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    quiet = ("CI", "GITHUB_ACTIONS", "ORT_", "XDG_")  # what could keep ONNX Runtime from reporting by itself
    kept = {name: value for name, value in os.environ.items() if not name.startswith(quiet)}
    environment = {
        **kept, "HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(Path(__file__).parents[1])
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PICTURE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
