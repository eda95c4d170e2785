"""The program as users start it: a process of its own."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def command(*arguments: object) -> list[str]:
    """What starts it, in `ROOT`."""
    return [sys.executable, "-m", "streamer", *map(str, arguments)]


def streamer(
    *arguments: object,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    preexec_fn: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=cwd,
        env=env,
        preexec_fn=preexec_fn,
    )


def one_line(text: str) -> bool:
    """Whether it said no more and no less than that."""
    return len(text.strip().splitlines()) == 1
