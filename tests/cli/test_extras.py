"""Without the extras everything that does not need them works, and the rest says which one it needs."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {
    "pyyaml": "yaml",
    "python-multipart": "multipart",
    "scikit-image": "skimage",
    "prometheus-client": "prometheus_client",
}
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from streamer.cli import main
main()
"""


def _of_extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [
        line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines
    ]
    names = {line.split(">")[0].split("[")[0].strip() for line in needed} - {"streamer-anonymizer"}
    return {MODULES.get(name, name) for name in names} | {"starlette", "httpx"}


def bare(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line where no extra is installed."""
    command = [sys.executable, "-c", BLOCKER.format(blocked=_of_extras()), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=ROOT, env={**os.environ, "COLUMNS": "100"}
    )


@pytest.mark.parametrize(
    "command", ["", "anonymize", "image", "live", "serve", "bench", "prove", "eval", "demo", "models"]
)
def test_every_command_explains_itself_without_extras(command: str) -> None:
    done = bare(*filter(None, [command, "--help"]))
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_doctor_needs_no_extra() -> None:
    done = bare("doctor")
    assert "Traceback" not in done.stderr
    assert "cpu" in done.stdout.lower()


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["serve"], "serve"),
        (["serve", "--config", "configs/cameras.yaml"], "serve"),
        (["live", "nothing.mp4", "--webrtc"], "serve"),
        (["demo", "-o", "nowhere"], "demo"),
    ],
)
def test_what_needs_an_extra_says_which(arguments: list[str], extra: str) -> None:
    done = bare(*arguments)
    assert done.returncode == 2, done.stderr
    assert f"[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr
