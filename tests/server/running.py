"""The server as its own process, as a user starts it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 60


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[str]:
    """The address of `streamer serve`, whose files all lie in `folder`; it is ended by an interrupt."""
    command = [sys.executable, "-m", "streamer", "serve", "--port", "0", *flags]
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + process.stderr.read()
        yield found.group()
    finally:
        process.terminate()
        process.communicate(timeout=START_S)
